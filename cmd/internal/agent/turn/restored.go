// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer"
)

// This file notices that the cluster's API was restored from an older copy (R13): then this member has bound itself to
// more than it can know of. It shows where a milestone of this member is held that no promise vouches for, or where a
// promise reads as it was before this process wrote it last.

// Position of a record among those of its writer.
type Position struct {
	Epoch uint64 `json:"epoch"`
	Seq   uint64 `json:"seq"`
}

// Before says that p was said before q.
func (p Position) Before(q Position) bool {
	return p.Epoch < q.Epoch || p.Epoch == q.Epoch && p.Seq < q.Seq
}

func later(p, q Position) Position {
	if p.Before(q) {
		return q
	}
	return p
}

// Restoration is that the API was found to be older than what this member has said. It is in the API itself, so that no
// crash and no lost store makes anyone forget it.
type Restoration struct {
	// Incarnation under which this member says nothing new: it may have said anything in plans that have it so. Zero
	// is none.
	Incarnation uint64 `json:"incarnation"`
	// Life is the epoch of the one that found it: what is found of earlier lives later on was lost by the same restoration.
	Life uint64 `json:"life"`
	// Known is the highest position of what was found.
	Known Position `json:"known"`
	// Time it was found, in Unix seconds.
	Time int64 `json:"time"`
}

// Restorations keeps it.
type Restorations interface {
	// LoadRestoration gives the zero one where none was found.
	LoadRestoration(context.Context) (Restoration, error)
	SaveRestoration(context.Context, Restoration) error
	// Bounds of all promises there are ([Promise.LastSaid]). It is no Load of them: what was loaded stays the precondition.
	Bounds(context.Context) (map[fleet.RolloutName]Position, error)
}

// vows is what this process knows of all promises in the API.
type vows struct {
	mu   sync.Mutex
	read bool
	// bounds of the promises as they were last read or written, highest the highest of them.
	bounds  map[fleet.RolloutName]Position
	highest Position
	// lost is how far promises went that this process wrote, where the API has older ones, until that is written down: the turn
	// that sees it may end before.
	lost  map[fleet.RolloutName]Position
	found Restoration
}

// LastSaid is the position of the last milestone that the promise holds or held.
func (p *Promise) LastSaid() Position {
	bound := p.Bound
	for _, b := range p.Said {
		if r, err := fleet.DecodeRecord(b); err == nil {
			bound = later(bound, Position{r.Epoch, r.Seq})
		}
	}
	return bound
}

// readVows once, before the first word: a promise that was not read would look like one that is lost. It is called
// with mu held.
func (a *Agent) readVows(ctx context.Context) error {
	v := &a.vows
	if v.read {
		return nil
	}
	found, err := a.Restorations.LoadRestoration(ctx)
	if err != nil {
		return fmt.Errorf("read whether the API was restored: %w", err)
	}
	bounds, err := a.Restorations.Bounds(ctx)
	if err != nil {
		return fmt.Errorf("own promises: %w", err)
	}
	if v.bounds == nil {
		v.bounds = map[fleet.RolloutName]Position{}
	}
	for name, bound := range bounds {
		v.bounds[name], v.highest = later(v.bounds[name], bound), later(v.highest, bound)
	}
	v.found, v.read = found, true
	return nil
}

// kept notes a promise that was written, before anything of it is told.
func (v *vows) kept(name fleet.RolloutName, bound Position) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.read {
		v.bounds[name], v.highest = bound, later(v.highest, bound)
	}
}

// compare the promise with what this process wrote last. What it holds may be told from then on.
func (t *turn) compare(ctx context.Context) error {
	if t.Said == nil {
		return nil
	}
	v := &t.vows
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := t.readVows(ctx); err != nil {
		return err
	}
	now, known := t.promise.LastSaid(), v.bounds[t.name]
	if now.Before(known) {
		if v.lost == nil {
			v.lost = map[fleet.RolloutName]Position{}
		}
		v.lost[t.name] = later(v.lost[t.name], known)
	}
	v.bounds[t.name], v.highest = now, later(v.highest, now)
	return nil
}

// vouch: is what is held of this member's words in its API, too? It comes after recall, which tells what the API has, and before
// the first step that says anything.
func (t *turn) vouch(ctx context.Context) error {
	if t.Said == nil {
		return nil
	}
	v := &t.vows
	v.mu.Lock()
	defer v.mu.Unlock()
	held, lost := t.Said(), v.lost[t.name]
	switch {
	case lost != Position{}:
		if err := t.foundRestored(ctx, later(held, lost), true); err != nil {
			return err
		}
		delete(v.lost, t.name)
	case later(v.highest, v.found.Known).Before(held):
		v.read = false // what another agent wrote last, with this API and this key, may not have been read
		if err := t.readVows(ctx); err != nil {
			return err
		}
		if !later(v.highest, v.found.Known).Before(held) {
			break
		}
		if err := t.foundRestored(ctx, held, held.Epoch >= v.found.Life); err != nil {
			return err
		}
	}
	t.restored = v.found.Incarnation
	return nil
}

// vouchFor a plan that is about to be accepted: of one that this member has spoken of a promise knows.
func (t *turn) vouchFor(ctx context.Context, next *Promise) error {
	plan := next.Accepted.Plan()
	if t.Said == nil || slices.Contains(t.promise.Plans, plan) || t.silent(plan, next) || !spokenOf(t.Ledger, t.Self.ID, plan) {
		return nil
	}
	t.vows.mu.Lock()
	defer t.vows.mu.Unlock()
	if err := t.foundRestored(ctx, t.Said(), true); err != nil {
		return err
	}
	t.restored = t.vows.found.Incarnation
	return nil
}

// foundRestored is written down before anything else is said. It is called with mu held. anew: it is not what an earlier
// restoration has lost.
func (t *turn) foundRestored(ctx context.Context, known Position, anew bool) error {
	next := t.vows.found
	next.Known = later(next.Known, known)
	if anew {
		probe, err := t.Ledger.Prepare(fleet.KindFact, fleet.FactKey(fleet.Digest{}, fleet.Accepted), fleet.Fact{Kind: fleet.Accepted}.Encode())
		if err != nil {
			return fmt.Errorf("own epoch: %w", err)
		}
		next.Life, next.Time = probe.Epoch, t.now.Wall.Unix()
		next.Incarnation = max(next.Incarnation, t.incarnation(), t.sealedAs())
	}
	if err := t.Restorations.SaveRestoration(ctx, next); err != nil {
		return fmt.Errorf("write that the API was restored: %w", err)
	}
	t.vows.found = next
	if anew {
		t.Log.Info("this member has said more than its cluster's API knows of; it says nothing new until it has a higher incarnation", "rollout", t.name.String(), "incarnation", next.Incarnation, "since", time.Unix(next.Time, 0).UTC())
	}
	return nil
}

// incarnation of this member by the roster, at least 1.
func (t *turn) incarnation() uint64 {
	now := t.Self.Incarnation
	if t.Incarnation != nil {
		now = t.Incarnation()
	}
	return max(now, 1)
}

// sealedAs is the incarnation under which the rollout in view has this member; zero where it is not for it.
func (t *turn) sealedAs() uint64 {
	targets := t.report.Rollout.Targets
	if i := slices.IndexFunc(targets, func(m fleet.Member) bool { return m.ID == t.Self.ID }); i >= 0 {
		return targets[i].Incarnation
	}
	return 0
}

// silent says that nothing new may be said in a plan: this member may have said anything there. It may not be so only
// where the plan is known to have a later incarnation of it.
func (t *turn) silent(plan fleet.Digest, next *Promise) bool {
	if t.restored == 0 {
		return false
	}
	sealed := uint64(0)
	if next.Accepted.Plan() == plan && next.Accepted.Seal == t.report.Rollout.Digest() {
		sealed = t.sealedAs()
	}
	for _, i := range []*Installed{next.Installed, next.LastGood, t.promise.Installed} {
		if i != nil && i.Release.Plan() == plan {
			sealed = max(sealed, i.Member.Incarnation)
		}
	}
	return sealed <= t.restored
}

// holdBack the decision of a member that is silent in its plan, unless it is out of it anyway.
func (t *turn) holdBack(d *sequencer.Decision) {
	if d.Verdict != sequencer.Out && t.silent(t.plan.Digest, &t.promise) {
		d.Verdict, d.Reason = sequencer.Hold, sequencer.WasRestored
	}
}
