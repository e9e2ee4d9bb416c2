// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/cmd/internal/localfleet"
	"github.com/flotilla-dev/flotilla/cmd/internal/readapi"
)

// hello is a rollout that lives on par-1 alone, in no repository.
var hello = fleet.RolloutName{Namespace: "hello", Name: "hello"}

const helloRollout = `apiVersion: fleet.flotilla.dev/v1alpha1
kind: FleetRollout
metadata: {name: hello, namespace: hello}
spec:
  source:
    git: {url: %s}
    interval: 10s
  targets: {names: ["*"]}
  strategy: {type: AllAtOnce, minReadyTime: 0s}
`

// byKubectl: a rollout applied on one member reaches all of them; its copies cannot be edited, and can stop it.
func byKubectl(ctx context.Context, p *play) (map[string]time.Duration, error) {
	for _, m := range p.fleet.Members {
		if err := m.Tenant(ctx, hello.Namespace); err != nil {
			return nil, err
		}
	}
	if err := p.commitHello(ctx, "hello"); err != nil {
		return nil, err
	}
	par, nyc := p.fleet.Member("par-1"), p.fleet.Member("nyc-1")
	if err := par.Apply(ctx, fmt.Appendf(nil, helloRollout, p.fleet.Git.URL("hello"))); err != nil {
		return nil, err
	}
	if err := p.greetedWith(ctx, "hello"); err != nil {
		return nil, err
	}
	if err := p.copyIsReadOnly(ctx, nyc); err != nil {
		return nil, err
	}
	if err := p.stopFrom(ctx, nyc); err != nil {
		return nil, err
	}
	return nil, p.letGo(ctx, par)
}

func (p *play) commitHello(ctx context.Context, greeting string) error {
	payload, err := read("hello/payload")
	if err != nil {
		return err
	}
	payload["hello.yaml"] = strings.ReplaceAll(payload["hello.yaml"], "hello, cluster", greeting)
	_, err = p.fleet.Git.Commit(ctx, "hello", "main", greeting, payload)
	return err
}

// greetedWith waits until every cluster has the greeting.
func (p *play) greetedWith(ctx context.Context, greeting string) error {
	return p.fleet.Await(ctx, "the greeting "+greeting, time.Minute, func(ctx context.Context) (bool, string) {
		for _, m := range p.fleet.Members {
			c, err := m.Client.CoreV1().ConfigMaps(hello.Namespace).Get(ctx, hello.Name, metav1.GetOptions{})
			if err != nil {
				return false, m.Name + ": " + err.Error()
			}
			if c.Data["greeting"] != greeting {
				return false, fmt.Sprintf("%s has %q", m.Name, c.Data["greeting"])
			}
		}
		return true, ""
	})
}

func rollouts(m *localfleet.Member, namespace string) (dynamic.ResourceInterface, error) {
	client, err := dynamic.NewForConfig(m.Config)
	if err != nil {
		return nil, err
	}
	return client.Resource(v1alpha1.GroupVersion.WithResource("fleetrollouts")).Namespace(namespace), nil
}

func (p *play) copyIsReadOnly(ctx context.Context, m *localfleet.Member) error {
	api, err := rollouts(m, hello.Namespace)
	if err != nil {
		return err
	}
	var refusal error
	err = p.fleet.Await(ctx, "a copy on "+m.Name, time.Minute, func(ctx context.Context) (bool, string) {
		_, refusal = api.Patch(ctx, hello.Name, types.MergePatchType, []byte(`{"spec":{"targets":{"names":["nyc-1"]}}}`), metav1.PatchOptions{})
		return !apierrors.IsNotFound(refusal), fmt.Sprint(refusal)
	})
	if err != nil {
		return err
	}
	if refusal == nil || !strings.Contains(refusal.Error(), "this is a copy") {
		return fmt.Errorf("editing the copy on %s was not refused: %w", m.Name, refusal)
	}
	p.say("  %s refuses an edit: %s", m.Name, refusal)
	return nil
}

// stopFrom sets and lifts a pause on a copy: a stop counts from anywhere.
func (p *play) stopFrom(ctx context.Context, m *localfleet.Member) error {
	pause := func(value string) error {
		api, err := rollouts(m, hello.Namespace)
		if err != nil {
			return err
		}
		_, err = api.Patch(ctx, hello.Name, types.MergePatchType,
			fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%s}}}`, v1alpha1.AnnotationPause, value), metav1.PatchOptions{})
		return err
	}
	if err := pause(`"INC-991"`); err != nil {
		return err
	}
	err := p.fleet.Await(ctx, "the pause to be known at ams-1", time.Minute, func(ctx context.Context) (bool, string) {
		client, err := readapi.Find(ctx, p.fleet.Member("ams-1").Config)
		if err != nil {
			return false, err.Error()
		}
		r, err := client.Rollout(ctx, hello)
		return err == nil && len(r.Stops) == 1, fmt.Sprint(r.Stops, err)
	})
	if err != nil {
		return err
	}
	if err := p.commitHello(ctx, "good morning"); err != nil {
		return err
	}
	err = p.fleet.Await(ctx, "everyone to hold the next release", time.Minute, func(ctx context.Context) (bool, string) {
		for _, member := range p.fleet.Members {
			client, err := readapi.Find(ctx, member.Config)
			if err != nil {
				return false, err.Error()
			}
			e, err := client.Explain(ctx, hello, "")
			if err != nil || e.Verdict != "Hold" {
				return false, fmt.Sprint(member.Name, ": ", e.Verdict, err)
			}
		}
		return true, ""
	})
	if err != nil {
		return err
	}
	p.say("  paused from %s: all four hold the next release", m.Name)
	return errors.Join(pause("null"), p.greetedWith(ctx, "good morning"))
}

// letGo deletes the rollout at its home: its copies go, its objects stay.
func (p *play) letGo(ctx context.Context, home *localfleet.Member) error {
	api, err := rollouts(home, hello.Namespace)
	if err != nil {
		return err
	}
	if err := api.Delete(ctx, hello.Name, metav1.DeleteOptions{}); err != nil {
		return err
	}
	err = p.fleet.Await(ctx, "the copies to go", time.Minute, func(ctx context.Context) (bool, string) {
		for _, m := range p.fleet.Members {
			api, err := rollouts(m, hello.Namespace)
			if err != nil {
				return false, err.Error()
			}
			if _, err := api.Get(ctx, hello.Name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
				return false, fmt.Sprintf("%s: still there (%v)", m.Name, err)
			}
		}
		return true, ""
	})
	return errors.Join(err, p.greetedWith(ctx, "good morning"))
}
