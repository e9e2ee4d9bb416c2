// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/cmd/internal/agent/turn"
)

// This file restores clusters' APIs from older copies, with the store or with the store lost (R13), and is the operator
// who gives such a member a new incarnation.

// backup of one cluster's API: promises, and the objects that run.
type backup struct {
	api     map[fleet.RolloutName][]byte
	kept    map[fleet.RolloutName]turn.Promise
	running []running
	found   turn.Restoration
}

// ownFact is a milestone that a member has told.
type ownFact struct {
	key  factKey
	at   turn.Position
	page page
}

// toldFact notes one, as it goes out.
func (m *member) toldFact(r *fleet.Record, on page) {
	if f, err := fleet.DecodeFact(r); err == nil {
		m.told = append(m.told, ownFact{factKey{f.Plan, m.Self.ID, f.Kind}, turn.Position{Epoch: r.Epoch, Seq: r.Seq}, on})
	}
}

// saidPosition is turn.Agent.Said.
func (m *member) saidPosition() (at turn.Position) {
	for i := range m.told {
		if f := &m.told[i]; at.Before(f.at) && m.heard.has(f.page) {
			at = f.at
		}
	}
	return at
}

// restorations are kept in the member's own API.
type restorations struct{ *member }

// LoadRestoration is in turn.Restorations.
func (r restorations) LoadRestoration(context.Context) (turn.Restoration, error) {
	if r.strikes(r.params.APIFails) {
		r.count("api read failed")
		return turn.Restoration{}, errAPI
	}
	return r.found, nil
}

// SaveRestoration is in turn.Restorations.
func (r restorations) SaveRestoration(_ context.Context, found turn.Restoration) error {
	switch {
	case r.crashes(beforePromise):
		return errCrash
	case r.strikes(r.params.APIFails):
		r.count("api write failed")
		return errAPI
	}
	if r.member.found != found {
		r.seen["a restored API noticed"]++
		r.story(r.member, "notices that its API was restored; incarnation %d says nothing new", found.Incarnation)
	}
	r.member.found, r.lost = found, nil
	if r.crashes(afterPromise) {
		return errCrash
	}
	return nil
}

// Bounds is in turn.Restorations.
func (r restorations) Bounds(context.Context) (map[fleet.RolloutName]turn.Position, error) {
	if r.strikes(r.params.APIFails) {
		r.count("api read failed")
		return nil, errAPI
	}
	r.meet()
	bounds := map[fleet.RolloutName]turn.Position{}
	for name, p := range r.kept {
		bounds[name] = p.LastSaid()
	}
	return bounds, nil
}

// begin the agent's process: it remembers nothing of the one before.
func (m *member) begin() {
	a := m.Agent
	m.Agent = &turn.Agent{
		Self: a.Self, Rollouts: a.Rollouts, Heads: a.Heads, Renderer: a.Renderer, Inputs: a.Inputs, Deliverer: a.Deliverer,
		Promises: a.Promises, Ledger: a.Ledger, Plans: a.Plans, Clock: a.Clock, Log: a.Log,
	}
	if !m.bug.forgetsItsWords {
		m.Said, m.Restorations = m.saidPosition, restorations{m}
	}
}

// planRestores: copies are made at any time in the storm, and put back at a later one.
func (w *World) planRestores() {
	for range w.params.Restores {
		m := w.members[w.rand.IntN(len(w.members))]
		copied := w.between(time.Second, w.params.Storm)
		restored := w.between(copied, w.params.Storm)
		lost, alive := w.rand.IntN(2) == 0, w.rand.IntN(3) == 0
		w.after(copied, func() {
			b := backup{maps.Clone(m.api), maps.Clone(m.kept), slices.Clone(m.running), m.found}
			w.after(restored-copied, func() {
				if w.stormy {
					w.restore(m, b, lost, alive && !lost)
				}
			})
		})
	}
	if w.params.Restores > 0 {
		w.after(operatorLooks, w.reviveRestored)
	}
}

// restore a member's API. What was told is met again (meet): R13 holds where somebody who holds one word that is not in the API is
// compared with before the first word; where nobody does, nothing can be noticed.
func (w *World) restore(m *member, b backup, storeLost, alive bool) {
	w.story(m, "its API is restored from an older copy (store lost: %v, the agent goes on: %v)", storeLost, alive)
	if !alive {
		m.crash(w.between(time.Second, time.Minute))
	}
	m.api, m.kept, m.running, m.found = maps.Clone(b.api), maps.Clone(b.kept), slices.Clone(b.running), b.found
	w.count("API restored")
	vouched := turn.Position{}
	for _, p := range m.kept {
		vouched = maxPosition(vouched, p.LastSaid())
	}
	w.unbind(m)
	if storeLost {
		m.wipe()
		w.count("API restored and store lost")
	}
	m.lost = slices.DeleteFunc(slices.Clone(m.told), func(f ownFact) bool { return !vouched.Before(f.at) })
	for i := range w.rollouts {
		m.wake(i, m.down-m.now)
	}
}

// meet somebody before the first word, who holds one that was lost.
func (m *member) meet() {
	if len(m.lost) > 0 && !slices.ContainsFunc(m.lost, func(f ownFact) bool { return m.heard.has(f.page) }) {
		m.add(m.lost[m.rand.IntN(len(m.lost))].page)
	}
}

func maxPosition(a, b turn.Position) turn.Position {
	if a.Before(b) {
		return b
	}
	return a
}

// unbind a member from what it promised and never told, now that its API knows nothing of it.
func (w *World) unbind(m *member) {
	told := map[factKey]bool{}
	for _, f := range m.told {
		told[f.key] = true
	}
	for _, p := range m.kept {
		for _, b := range p.Said {
			if r, err := fleet.DecodeRecord(b); err == nil {
				if f, err := fleet.DecodeFact(&r); err == nil {
					told[factKey{f.Plan, m.Self.ID, f.Kind}] = true
				}
			}
		}
	}
	for digest, t := range w.plans {
		at, target := t.index[m.Self.ID]
		if !target {
			continue
		}
		before := t.said[at.stage][at.rank]
		after := before
		for kind := fleet.Accepted; kind <= fleet.Yielded; kind++ {
			if !told[factKey{digest, m.Self.ID, kind}] {
				after &^= bit(kind)
			}
		}
		t.said[at.stage][at.rank] = after
		if !t.removed[m.Self.ID] {
			t.stages[at.stage].add(counts(before), -1)
			t.stages[at.stage].add(counts(after), 1)
		}
	}
}

// heeded is a member whose goes count: no proof is held against it.
func (w *World) heeded() *member {
	for _, m := range w.members {
		if _, proven := w.book.proofs[m.Self.ID]; !proven {
			return m
		}
	}
	return w.members[0]
}

// operatorLooks so often for members that need a new incarnation.
const operatorLooks = 7 * time.Minute

// reviveRestored: an operator raises the incarnation of who says that its API was restored. It is a new seal.
func (w *World) reviveRestored() {
	w.after(operatorLooks, w.reviveRestored)
	revived := false
	for _, m := range w.members {
		if m.found.Incarnation >= m.Self.Incarnation && m.found.Incarnation > 0 {
			m.Self.Incarnation = m.found.Incarnation + 1
			w.seen["a new incarnation"]++
			w.story(m, "is given incarnation %d", m.Self.Incarnation)
			revived = true
		}
	}
	for i, r := range w.rollouts {
		if !revived {
			return
		}
		targets := slices.Clone(r.seals[len(r.seals)-1].rollout.Targets)
		for j := range targets {
			at := slices.IndexFunc(w.members, func(m *member) bool { return m.Self.ID == targets[j].ID })
			targets[j] = w.members[at].Self
		}
		if err := w.reseal(i, w.now, targets); err != nil {
			w.violate(w.members[0], "the same targets cannot be sealed again: %v", err)
		}
		w.tellSeal(i)
		for _, m := range w.members {
			m.wake(i, m.lag+w.between(0, look))
		}
	}
}
