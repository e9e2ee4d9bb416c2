// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/cmd/internal/agent/turn"
	"github.com/flotilla-dev/flotilla/sequencer"
	"github.com/flotilla-dev/flotilla/source"
)

// rollout is one FleetRollout of the fleet repository, with its history and that of its payload.
type rollout struct {
	name  fleet.RolloutName
	spec  v1alpha1.FleetRolloutSpec
	seals []sealed
	// commits of the branch, and of a sibling of each that only some see.
	commits []commit
	// hopeless revisions get well nowhere.
	hopeless map[fleet.Revision]bool
}

type sealed struct {
	at      time.Duration
	rollout turn.Rollout
}

type commit struct {
	at                time.Duration
	revision, sibling fleet.Revision
}

// revision whose short form tells the rollout, the commit, and whether it is the branch (0) or the sibling (1).
func revision(rollout, n, branch int) fleet.Revision {
	return fleet.Revision(fmt.Sprintf("main@sha1:%03x%03x%x%033x", rollout, n+1, branch, 0))
}

// head at a moment; before the first commit there is none.
func (r *rollout) head(at time.Duration, sibling bool) (head fleet.Revision) {
	for _, c := range r.commits {
		if c.at > at {
			break
		}
		head = c.revision
		if sibling {
			head = c.sibling
		}
	}
	return head
}

// place of a revision in the history: which commit, and whether it is a sibling of it.
func (r *rollout) place(rev fleet.Revision) (at int, sibling bool) {
	for i, c := range r.commits {
		if c.revision == rev || c.sibling == rev {
			return i, c.sibling == rev
		}
	}
	return -1, false
}

// relation of two revisions: a sibling descends from every commit before it, and nothing descends from it.
func (r *rollout) relation(from, to fleet.Revision) source.Relation {
	a, aside := r.place(from)
	b, beside := r.place(to)
	switch {
	case from == to:
		return source.Same
	case a < b && !aside:
		return source.Descends
	case b < a && !beside:
		return source.Precedes
	}
	return source.Unrelated
}

// seal in force at a moment.
func (r *rollout) seal(at time.Duration) (s turn.Rollout) {
	for _, next := range r.seals {
		if next.at <= at {
			s = next.rollout
		}
	}
	return s
}

// pacing of a stage.
func pacing(concurrency, tolerance int) v1alpha1.Pacing {
	n, u := intstr.FromInt(concurrency), intstr.FromInt(tolerance)
	return v1alpha1.Pacing{MaxConcurrency: &n, MaxUnavailable: &u}
}

// reseal declares the rollout for these members from a moment on.
func (w *World) reseal(i int, at time.Duration, targets []fleet.Member) error {
	r := w.rollouts[i]
	s, err := sequencer.Seal(r.name, sequencer.Position{Author: fleet.AuthorGit, Number: uint64(len(r.seals) + 1)}, r.spec, targets)
	if err != nil {
		return err
	}
	whole := r.spec.WithSchemaDefaults()
	r.seals = append(r.seals, sealed{at, turn.Rollout{
		Sealed: s, Origin: v1alpha1.Origin{Type: "Repository", Name: "sim"},
		Settings: turn.Settings{
			SourceInterval: w.params.Interval, DeliveryInterval: w.params.Interval, RetryInterval: whole.Delivery.RetryInterval.Or(0),
		},
	}})
	return w.compileAll(i, s)
}

// compileAll plans of a seal: what a member may ever act on is known to the check before.
func (w *World) compileAll(i int, s sequencer.Sealed) error {
	for _, c := range w.rollouts[i].commits {
		for _, rev := range []fleet.Revision{c.revision, c.sibling} {
			plan, err := w.compiled.Compile(s, sequencer.Release{Seal: s.Digest(), Term: s.Term, Number: s.Number, Revision: rev})
			if err != nil {
				return err
			}
			w.book.plans[plan.Digest] = &milestones{plan: plan.Digest, rollout: i}
			w.plans[plan.Digest] = newTruth(i, plan)
			for id := range w.book.proofs { // a plan of later still has them as targets
				t := w.plans[plan.Digest]
				if at, target := t.index[id]; target {
					t.stages[at.stage].left++
				}
				t.removed[id] = true
			}
		}
	}
	return nil
}

// declare a rollout with its whole future of commits.
func (w *World) declare(i int) error {
	if w.params.play != nil {
		return w.params.play.declare(w)
	}
	r := &rollout{name: fleet.RolloutName{Namespace: "shop", Name: fmt.Sprintf("web-%03d", i)}, hopeless: map[fleet.Revision]bool{}}
	r.spec = v1alpha1.FleetRolloutSpec{
		Source:   v1alpha1.Source{Git: &v1alpha1.GitSource{URL: "https://git.example.com/" + r.name.Name}, Path: "app"},
		Targets:  v1alpha1.Targets{ClusterSelector: v1alpha1.ClusterSelector{Names: []string{"*"}}},
		Strategy: w.strategy(),
		Delivery: v1alpha1.Delivery{RetryInterval: &v1alpha1.Duration{Duration: v1.Duration{Duration: 20 * time.Second}}},
	}
	retries := int32(w.rand.IntN(3))
	r.spec.Delivery.Retries = &retries
	for n := range w.params.Releases {
		at := time.Second
		if n > 0 {
			at = r.commits[n-1].at + w.between(time.Second, w.params.Storm/time.Duration(w.params.Releases))
		}
		c := commit{at, revision(i, n, 0), revision(i, n, 1)}
		if n > 0 || w.params.Releases == 1 { // the first one is what everyone runs
			r.hopeless[c.revision] = w.strikes(w.params.Hopeless)
		}
		r.commits = append(r.commits, c)
	}
	w.rollouts[i] = r
	w.book.names[r.name], w.book.commands[i], w.sources[r.spec.Source.Git.URL] = i, nil, i
	return w.reseal(i, 0, w.targets())
}

// targets are drawn members.
func (w *World) targets() []fleet.Member {
	size := w.params.Targets
	if size == 0 {
		size = len(w.members)
	}
	var out []fleet.Member
	for _, i := range w.rand.Perm(len(w.members))[:size] {
		out = append(out, w.members[i].Self)
	}
	slices.SortFunc(out, func(a, b fleet.Member) int { return len(a.Name) - len(b.Name) })
	return out
}

func (w *World) rolloutOf(src source.Origin) *rollout { return w.rollouts[w.sources[src.Git.URL]] }
