// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/cmd/internal/agent/turn"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
)

// This file lets the members of some worlds hold what they heard in the set that agents hold it in. What a member is
// told comes from that set, and is compared with the pages that it heard; members that heard the same must have equal
// roots, whatever the order it came in (I17). It costs too much for every world, and for large ones.

// add a page to what is heard, and its record to the set; false where it was heard.
func (m *member) add(p page) bool {
	if !m.heard.add(p) {
		return false
	}
	m.join(p)
	return true
}

// join a page's record into the set.
func (m *member) join(p page) {
	r := &m.book.records[p]
	if m.set != nil && (m.bug.set == nil || m.bug.set(m, r)) {
		m.set.Add(*r)
	}
}

// reload the set from what is stored, as a process does that begins.
func (m *member) reload() {
	if !m.params.Lattice {
		return
	}
	m.set, m.marks = lattice.New(), map[fleet.MemberID]turn.Position{}
	for _, p := range m.hoard() {
		m.join(p)
	}
}

// stands gives the milestone that the set holds, which must hold one if it was heard.
func (l ledger) stands(k factKey, heard bool) (fleet.Digest, bool) {
	r, stands := l.set.Get(k.member, fleet.KindFact, fleet.FactKey(k.plan, k.kind))
	if stands != heard {
		l.violate(l.member, "I17: the set holds %s of %s: %t; it was heard: %t", k.kind, k.member, stands, heard)
	}
	return r.Digest(), stands
}

// removed says whether the set holds a proof, which it must if it was heard.
func (l ledger) removed(id fleet.MemberID, heard bool) bool {
	forked := l.set.Forked(id)
	if forked != heard {
		l.violate(l.member, "I17: the set takes %s for forked: %t; a proof was heard: %t", id, forked, heard)
	}
	return forked
}

// agrees with another one, who heard the same.
func (m *member) agrees(other *member) {
	if m.set == nil || other.set == nil {
		return
	}
	m.seen["equal roots of who heard the same"]++
	if m.set.Root() != other.set.Root() {
		m.violate(m, "I17: %s heard the same, and its root differs", other.Self.Name)
	}
}
