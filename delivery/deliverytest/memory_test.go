// SPDX-License-Identifier: Apache-2.0

package deliverytest_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/delivery"
	"github.com/flotilla-dev/flotilla/delivery/deliverytest"
)

func TestMemoryConforms(t *testing.T) {
	deliverytest.Conformance(t, func(*testing.T) deliverytest.World {
		m := &deliverytest.Memory{
			Namespaces:      []string{"apps"},
			ServiceAccounts: []fleet.RolloutName{{Namespace: "apps", Name: "flotilla"}},
		}
		return deliverytest.World{
			Deliverer: m, Namespace: "apps", Get: m.Get, Put: m.Put, Remove: m.Remove, Finish: m.Finish,
			Versions: func() string { return fmt.Sprint(m.Writes(), " writes") },
		}
	})
}

func TestMemoryKnobs(t *testing.T) {
	ctx := context.Background()
	broken := errors.New("broken")
	m := &deliverytest.Memory{
		Apply: func(r delivery.Release, id delivery.ObjectID) error {
			if r.Revision == "bad" && id.Name == "b" {
				return broken
			}
			return nil
		},
		HealthOf: func(i delivery.Inventory) delivery.Health {
			if i.Revision == "sick" {
				return delivery.Health{State: delivery.Failed, Total: len(i.Objects), Because: "sick"}
			}
			return delivery.Health{State: delivery.Healthy, Ready: len(i.Objects), Total: len(i.Objects)}
		},
	}
	rollout := fleet.RolloutName{Namespace: "apps", Name: "podinfo"}
	release := func(revision fleet.Revision) delivery.Release {
		return delivery.Release{Rollout: rollout, Revision: revision, ServiceAccount: "any", Objects: []*unstructured.Unstructured{
			deliverytest.Object("{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}"),
			deliverytest.Object("{apiVersion: v1, kind: ConfigMap, metadata: {name: b}}"),
		}}
	}
	outcome, err := m.Deliver(ctx, release("bad"))
	if !errors.Is(err, broken) || outcome.Summary() != "1 created" || outcome.Objects != 2 {
		t.Errorf("got %v, %s, %d objects", err, outcome.Summary(), outcome.Objects)
	}
	for _, tc := range []struct {
		revision fleet.Revision
		want     delivery.HealthState
	}{{"good", delivery.Healthy}, {"sick", delivery.Failed}, {"good", delivery.Healthy}} {
		if _, err := m.Deliver(ctx, release(tc.revision)); err != nil {
			t.Fatal(err)
		}
		if h, err := m.Health(ctx, rollout, "any"); err != nil || h.State != tc.want {
			t.Errorf("%s: got %s, %v", tc.revision, h.State, err)
		}
	}
}
