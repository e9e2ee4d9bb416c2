// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer"
)

// This file keeps what floors are made of (sequencer/retire.go): which plans this member has spoken of, and which
// of them are closed. The floors themselves are the [Keeper]'s.

// forgetAfter so long an ended rollout's milestones are of no use to anybody, and this member's go.
const forgetAfter = fleet.Lifetime * 24 * time.Hour

// recentPlans are the plans that turns were taken on since the agent began, of each rollout the newest few: one may
// close after a newer one was accepted, and its seal is gone by then.
type recentPlans struct {
	mu sync.Mutex
	of map[fleet.RolloutName][]*sequencer.Plan
}

// note a plan and give those that were noted, the newest first.
func (r *recentPlans) note(p *sequencer.Plan) []*sequencer.Plan {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.of == nil {
		r.of = map[fleet.RolloutName][]*sequencer.Plan{}
	}
	plans := r.of[p.Rollout]
	if len(plans) == 0 || plans[0].Digest != p.Digest {
		plans = slices.Insert(slices.Clone(plans), 0, p)
		plans = plans[:min(len(plans), sequencer.OvertakenKept)]
		r.of[p.Rollout] = plans
	}
	return plans
}

// close writes down that a release is everywhere: what this member said of older ones is of no use then.
func (t *turn) close(ctx context.Context) error {
	for _, p := range t.recent.note(t.plan) {
		if p.Digest == t.promise.Closed {
			return nil
		}
		if slices.Contains(t.promise.Plans, p.Digest) && sequencer.Closed(p, t.Ledger) {
			next := t.promise.clone()
			next.Closed = p.Digest
			return t.save(ctx, next)
		}
	}
	return nil
}

// end of the rollout: noted once. Long after it nothing of it is said again.
func (t *turn) end(ctx context.Context) error {
	now := t.now.Wall.Unix()
	next := t.promise.clone()
	switch {
	case len(next.Plans)+len(next.Said) == 0:
		return nil
	case next.Ended == 0:
		next.Ended = now
	case next.endedLongAgo(t.now.Wall) && len(next.Said) > 0:
		next.keepSaid()
	default:
		return nil
	}
	return t.save(ctx, next)
}

func (p *Promise) endedLongAgo(now time.Time) bool {
	return p.Ended > 0 && now.Sub(time.Unix(p.Ended, 0)) > forgetAfter
}

// Spoken is what the promise knows of the plans that this member said something of.
func (p *Promise) Spoken(now time.Time) sequencer.Spoken {
	s := sequencer.Spoken{Plans: p.Plans, Closed: p.Closed, Ended: p.endedLongAgo(now)}
	for _, b := range p.Said {
		if r, err := fleet.DecodeRecord(b); err == nil {
			if f, err := fleet.DecodeFact(&r); err == nil {
				s.Needed = append(s.Needed, f.Plan)
			}
		}
	}
	if s.Ended {
		return s
	}
	s.Needed = append(s.Needed, p.Accepted.Plan(), p.Progress.Plan)
	for _, i := range []*Installed{p.Installed, p.LastGood} {
		if i != nil {
			s.Needed = append(s.Needed, i.Release.Plan())
		}
	}
	return s
}

// spoke of a plan: it is in the list before its first milestone is in the fleet's state, and leaves it after the last one has.
func (p *Promise) spoke(facts sequencer.Facts, self fleet.MemberID, plan fleet.Digest, milestones int) {
	if milestones == 0 || slices.Contains(p.Plans, plan) {
		return
	}
	live := p.Spoken(time.Time{}).Live(false)
	p.Plans = slices.DeleteFunc(p.Plans, func(old fleet.Digest) bool {
		return !slices.Contains(live, old) && !spokenOf(facts, self, old)
	})
	p.Plans = append(p.Plans, plan)
}

// spokenOf: a milestone of the plan is held.
func spokenOf(facts sequencer.Facts, self fleet.MemberID, plan fleet.Digest) bool {
	for kind := fleet.Accepted; kind <= fleet.Yielded; kind++ {
		if _, ok := facts.Fact(plan, self, kind); ok {
			return true
		}
	}
	return false
}
