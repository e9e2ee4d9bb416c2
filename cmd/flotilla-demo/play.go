// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/cmd/internal/localfleet"
	"github.com/flotilla-dev/flotilla/cmd/internal/readapi"
	"github.com/flotilla-dev/flotilla/examples"
)

// web is the rollout of examples/staged.
var web = fleet.RolloutName{Namespace: "shop", Name: "web"}

// play is the fleet with what the acts do to it.
type play struct {
	fleet *localfleet.Fleet
	say   func(string, ...any)
	// rollouts are what the fleet repository declares, by the name of their file.
	rollouts map[string]string
}

// open the curtain: tenants, the two repositories, the agents.
func (p *play) open(ctx context.Context) error {
	for _, m := range p.fleet.Members {
		if err := m.Tenant(ctx, web.Namespace); err != nil {
			return fmt.Errorf("%s: %w", m.Name, err)
		}
	}
	payload, err := read("staged/payload")
	if err != nil {
		return err
	}
	if _, err := p.fleet.Git.Commit(ctx, "web", "main", "web 1.0.0", payload); err != nil {
		return err
	}
	if err := p.take("staged", "web"); err != nil {
		return err
	}
	if err := p.declare(ctx, "Declare the fleet and the rollout web"); err != nil {
		return err
	}
	p.say("starting %d agents", len(p.fleet.Members))
	return p.fleet.StartAgents(ctx)
}

// take the rollout of an example, with its repository on this fleet's git server.
func (p *play) take(folder, repository string) error {
	rollout, err := examples.Files.ReadFile(folder + "/rollout.yaml")
	if err != nil {
		return err
	}
	if p.rollouts == nil {
		p.rollouts = map[string]string{}
	}
	p.rollouts[repository] = strings.ReplaceAll(string(rollout), "https://git.example.com/"+repository, p.fleet.Git.URL(repository))
	return nil
}

// declare the members and the rollouts in the fleet repository.
func (p *play) declare(ctx context.Context, message string) error {
	files := p.fleet.MemberFiles()
	for name, rollout := range p.rollouts {
		files["rollouts/"+name+".yaml"] = rollout
	}
	_, err := p.fleet.Git.Commit(ctx, "fleet", "main", message, files)
	return err
}

// copyOf the rollout web in one member's API.
func (p *play) copyOf(ctx context.Context, member string) (*v1alpha1.FleetRollout, error) {
	api, err := rollouts(p.fleet.Member(member), web.Namespace)
	if err != nil {
		return nil, err
	}
	object, err := api.Get(ctx, web.Name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	r := &v1alpha1.FleetRollout{}
	return r, runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, r)
}

// read the files of an example's folder, by path in it.
func read(folder string) (map[string]string, error) {
	files := map[string]string{}
	err := fs.WalkDir(examples.Files, folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		body, err := fs.ReadFile(examples.Files, path)
		files[strings.TrimPrefix(path, folder+"/")] = string(body)
		return err
	})
	return files, err
}

// release commits another image of the payload.
func (p *play) release(ctx context.Context, tag, message string) (release, error) {
	payload, err := read("staged/payload")
	if err != nil {
		return release{}, err
	}
	payload["base/web.yaml"] = strings.ReplaceAll(payload["base/web.yaml"], "web:1.0.0", "web:"+tag)
	commit, err := p.fleet.Git.Commit(ctx, "web", "main", message, payload)
	if err != nil {
		return release{}, err
	}
	p.say("commit %s %q", commit[:7], message)
	return release{commit, time.Now()}, nil
}

// seen is the rollout as one member knows it.
func (p *play) seen(ctx context.Context, from string) (readapi.Rollout, error) {
	client, err := readapi.Find(ctx, p.fleet.Member(from).Config)
	if err != nil {
		return readapi.Rollout{}, err
	}
	return client.Rollout(ctx, web)
}

// release is a commit of the payload and when it was made.
type release struct {
	commit string
	at     time.Time
}

// stageTimes waits until the named stages have succeeded with the release, as fra-1 knows it, and says
// how long after the commit each had.
func (p *play) stageTimes(ctx context.Context, of release, stages ...string) (map[string]time.Duration, error) {
	const from, within = "fra-1", 2 * time.Minute
	took := map[string]time.Duration{}
	err := p.fleet.Await(ctx, "stages "+strings.Join(stages, ", "), within, func(ctx context.Context) (bool, string) {
		r, err := p.seen(ctx, from)
		if err != nil {
			return false, err.Error()
		}
		if r.Revision.Commit() != of.commit {
			return false, fmt.Sprintf("%s still knows %s", from, r.Revision.Short())
		}
		for _, s := range r.Stages {
			if _, known := took[s.Name]; !known && s.Succeeded == s.Clusters && slices.Contains(stages, s.Name) {
				took[s.Name] = time.Since(of.at)
				p.say("  %s: %d of %d succeeded", s.Name, s.Succeeded, s.Clusters)
			}
		}
		for _, name := range stages {
			if _, known := took[name]; !known {
				return false, stageSentences(r)
			}
		}
		return true, ""
	})
	return took, err
}

func stageSentences(r readapi.Rollout) string {
	var out []string
	for _, s := range r.Stages {
		out = append(out, fmt.Sprintf("%s %d/%d %s %s", s.Name, s.Succeeded, s.Clusters, s.Phase, s.Because))
	}
	return strings.Join(out, "; ")
}

// said finds when a member stated a milestone of the current plan.
func said(r readapi.Rollout, member, kind string) (time.Time, bool) {
	for _, m := range r.Members {
		if string(m.Name) != member {
			continue
		}
		for _, f := range m.Facts {
			if f.Kind == kind {
				return f.Time, true
			}
		}
	}
	return time.Time{}, false
}

// image that runs in a cluster, by its own API server.
func (p *play) image(ctx context.Context, member string) (string, error) {
	d, err := p.fleet.Member(member).Client.AppsV1().Deployments(web.Namespace).Get(ctx, web.Name, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	_, tag, _ := strings.Cut(d.Spec.Template.Spec.Containers[0].Image, "web:")
	return tag, nil
}

// runs checks by the API servers which image each member has.
func (p *play) runs(ctx context.Context, want map[string]string) error {
	for member, tag := range want {
		have, err := p.image(ctx, member)
		if err != nil {
			return fmt.Errorf("%s: %w", member, err)
		}
		if have != tag {
			return fmt.Errorf("%s runs web:%s, not web:%s", member, have, tag)
		}
	}
	return nil
}
