// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/delivery"
)

// counted is a cluster that counts how often it is asked.
type counted struct {
	delivery.Deliverer
	outcome          delivery.Outcome
	health           delivery.Health
	err              error
	delivers, checks int
	during           func()
}

func (c *counted) Deliver(context.Context, delivery.Release) (delivery.Outcome, error) {
	c.delivers++
	if c.during != nil {
		c.during()
	}
	return c.outcome, c.err
}

func (c *counted) Health(context.Context, fleet.RolloutName, string) (delivery.Health, error) {
	c.checks++
	if c.during != nil {
		c.during()
	}
	return c.health, c.err
}

// What is known is not asked again, and whatever could have made it wrong makes it be asked.
func TestSteady(t *testing.T) {
	name := fleet.RolloutName{Namespace: "shop", Name: "web"}
	first := delivery.Release{Rollout: name, Digest: fleet.DigestOf("a"), Plan: fleet.DigestOf("p"), ServiceAccount: "flotilla", Recheck: time.Minute}
	type world struct {
		*Steady
		cluster *counted
		watched bool
		now     time.Duration
	}
	for what, c := range map[string]struct {
		before, between func(*world, *delivery.Release)
		again           bool // it is asked once more
	}{
		"nothing happened":          {again: false},
		"an object changed":         {between: func(w *world, _ *delivery.Release) { w.Changed(name) }, again: true},
		"another rollout's changed": {between: func(w *world, _ *delivery.Release) { w.Changed(fleet.RolloutName{Name: "x"}) }, again: false},
		"the watch has a gap":       {between: func(w *world, _ *delivery.Release) { w.watched = false }, again: true},
		"it was not watched then":   {before: func(w *world, _ *delivery.Release) { w.watched = false }, between: func(w *world, _ *delivery.Release) { w.watched = true }, again: true},
		"another manifest":          {between: func(_ *world, r *delivery.Release) { r.Digest = fleet.DigestOf("b") }, again: true},
		"another plan":              {between: func(_ *world, r *delivery.Release) { r.Plan = fleet.DigestOf("q") }, again: true},
		"another account":           {between: func(_ *world, r *delivery.Release) { r.ServiceAccount = "other" }, again: true},
		"pruning from now on":       {between: func(_ *world, r *delivery.Release) { r.Prune = true }, again: true},
		"the interval is not over":  {between: func(w *world, _ *delivery.Release) { w.now += 59 * time.Second }, again: false},
		"the interval is over":      {between: func(w *world, _ *delivery.Release) { w.now += time.Minute }, again: true},
		"something was written": {before: func(w *world, _ *delivery.Release) {
			w.cluster.outcome.Changes = []delivery.Change{{Action: delivery.Created}}
		}, again: true},
		"it waits for a wave":         {before: func(w *world, _ *delivery.Release) { w.cluster.outcome.Waiting = "a Job" }, again: true},
		"it failed":                   {before: func(w *world, _ *delivery.Release) { w.cluster.err = errors.New("no") }, again: true},
		"a change while it was asked": {before: func(w *world, _ *delivery.Release) { w.cluster.during = func() { w.Changed(name) } }, again: true},
	} {
		t.Run(what, func(t *testing.T) {
			w := &world{cluster: &counted{outcome: delivery.Outcome{Objects: 3}, health: delivery.Health{State: delivery.Healthy}}, watched: true}
			w.Steady = &Steady{
				Deliverer: w.cluster, Clock: func() fleet.Moment { return fleet.Moment{Elapsed: w.now} },
				Watched: func(fleet.RolloutName, fleet.Digest, string) bool { return w.watched },
			}
			r := first
			for _, step := range []func(*world, *delivery.Release){c.before, c.between} {
				if step != nil {
					step(w, &r)
				}
				if _, err := w.Deliver(t.Context(), r); !errors.Is(err, w.cluster.err) {
					t.Fatal(err)
				}
			}
			if want := map[bool]int{true: 2, false: 1}[c.again]; w.cluster.delivers != want {
				t.Errorf("delivered %d times, want %d", w.cluster.delivers, want)
			}
		})
	}
}

// Bad health is on its way somewhere, so it is read each time.
func TestSteadyReadsBadHealth(t *testing.T) {
	name := fleet.RolloutName{Namespace: "shop", Name: "web"}
	cluster := &counted{health: delivery.Health{State: delivery.Progressing}}
	s := &Steady{
		Deliverer: cluster, Clock: func() fleet.Moment { return fleet.Moment{} },
		Watched: func(fleet.RolloutName, fleet.Digest, string) bool { return true },
	}
	_, _ = s.Deliver(t.Context(), delivery.Release{Rollout: name, ServiceAccount: "a", Recheck: time.Hour})
	for range 3 {
		_, _ = s.Health(t.Context(), name, "a")
	}
	cluster.health.State = delivery.Healthy
	for range 3 {
		_, _ = s.Health(t.Context(), name, "a")
	}
	_, _ = s.Health(t.Context(), name, "b")
	if cluster.checks != 3+1+1 || cluster.delivers != 1 {
		t.Errorf("health was read %d times", cluster.checks)
	}
}
