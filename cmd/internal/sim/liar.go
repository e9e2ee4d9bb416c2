// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"slices"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer"
)

// This file holds members that lie. A liar has its key and its place in the network, and no agent that keeps to any
// rule: it says what it likes about itself, takes nothing back that it could not, and passes on what it likes. What
// the others do is counted by bounds that allow for it (docs/rules.md, "Members that lie"). In the calm it is silent
// about itself, which is the worst that it can do to who waits, and passes everything on, or nobody could say when
// everyone has heard the same.

// lieEvery so often, about, a liar does something.
const lieEvery = 20 * time.Second

// corrupt so many members as the parameters say; the first one is always honest.
func (w *World) corrupt() {
	for range min(w.params.Liars, len(w.members)-1) {
		m := w.members[1+w.rand.IntN(len(w.members)-1)]
		if !m.lying {
			m.lying = true
			w.liars = append(w.liars, m)
			w.count("liar")
		}
	}
}

// liarsIn a stage of a plan that are counted among those who can have said anything.
func (w *World) liarsIn(t *truth, stage int, counts func(fleet.MemberID) bool) (n int) {
	for _, m := range w.liars {
		if at, target := t.index[m.Self.ID]; target && at.stage == stage && counts(m.Self.ID) {
			n++
		}
	}
	return n
}

// standing liars are those whose place no proof has settled.
func (t *truth) standing(id fleet.MemberID) bool { return !t.removed[id] }

// openToLiars says whether those who lie could open the gate of a stage with nobody's success but their own.
func (w *World) openToLiars(t *truth, stage int) bool {
	s := &t.plan.Stages[stage]
	all := w.liarsIn(t, stage, func(fleet.MemberID) bool { return true })
	return all >= sequencer.MinSuccess && w.liarsIn(t, stage, t.standing)+t.stages[stage].left >= len(s.Members)-s.Tolerance
}

// lie is a liar's turn.
func (m *member) lie(rollout int) {
	if !m.stormy {
		return
	}
	if m.now < m.nextLie { // news woke it
		m.wake(rollout, m.nextLie-m.now)
		return
	}
	m.nextLie = m.now + m.between(0, 2*lieEvery)
	m.wake(m.rand.IntN(len(m.rollouts)), m.nextLie-m.now)
	plan := m.anyPlan(rollout)
	if plan == nil {
		return
	}
	switch m.rand.IntN(8) {
	case 0:
		m.equivocate(plan)
	case 1:
		m.sayAgain(m.hoard())
	case 2:
		m.liftAll(rollout)
	default:
		kind := m.anyKind()
		m.count("lie: " + kind.String())
		m.tell(m.book.page(m.claim(plan, kind)))
	}
}

// anyPlan of those that there are by now: of an old seal or of the newest.
func (m *member) anyPlan(rollout int) *sequencer.Plan {
	r := m.rollouts[rollout]
	var plans []*sequencer.Plan
	for _, s := range r.seals {
		for _, c := range r.commits {
			if s.at > m.now || c.at > m.now {
				continue
			}
			sealed := s.rollout.Sealed
			plan, err := m.compiled.Compile(sealed, sequencer.Release{Seal: sealed.Digest(), Term: sealed.Term, Number: sealed.Number, Revision: c.revision})
			if err != nil {
				continue
			}
			if _, target := plan.Place(m.Self.ID); target {
				plans = append(plans, plan)
			}
		}
	}
	if len(plans) == 0 {
		return nil
	}
	return plans[m.rand.IntN(len(plans))]
}

// anyKind of milestone but Accepted, which decides nothing.
func (m *member) anyKind() fleet.FactKind {
	return fleet.Started + fleet.FactKind(m.rand.IntN(int(fleet.Yielded-fleet.Started)+1))
}

// claim a milestone, whether or not anything of it is true.
func (m *member) claim(plan *sequencer.Plan, kind fleet.FactKind) fleet.Record {
	m.story(m, "claims %s of %s", kind, m.plans[plan.Digest].release(m.World))
	fact := fleet.Fact{Plan: plan.Digest, Kind: kind, Detail: "a lie", Time: m.moment().Wall.Unix()}
	r, _ := ledger{m}.Prepare(fleet.KindFact, fleet.FactKey(plan.Digest, kind), fact.Encode())
	return r
}

// equivocate says one thing to some neighbours and another in the same position to the others. Whoever hears both
// holds a proof.
func (m *member) equivocate(plan *sequencer.Plan) {
	one := m.claim(plan, fleet.Soaked)
	m.seq--
	other := m.claim(plan, fleet.GaveUp)
	m.count("lie: two things in one position")
	pages := [2]page{m.book.page(one), m.book.page(other)}
	m.twins[pages[0]], m.twins[pages[1]] = twin{pages[1], m}, twin{pages[0], m}
	for i, j := range m.network.near[m.index] {
		half := pages[i%2 : i%2+1]
		m.send(j, m.book.size(half), func(to *member) { to.hear(half) })
	}
}

// twin of a page: what its writer said elsewhere in the same position.
type twin struct {
	page   page
	writer *member
}

// notice a page whose twin is held: both together prove that their writer lies.
func (m *member) notice(p page) {
	if other, ok := m.twins[p]; ok && !m.lying && m.heard.has(other.page) {
		m.prove(other.writer, m)
	}
}

// liftAll stops that it has heard of, its own among them: until people have keys, any member's go counts.
func (m *member) liftAll(rollout int) {
	name := m.rollouts[rollout].name
	if c := m.liftOf(name); len(c.Lifts) > 0 {
		m.count("lie: a go")
		m.story(m, "lifts every stop of %s", name.Name)
		m.command(m, c)
	}
}

// passes on of a batch what a liar pleases: to some nothing, of others' words only some. An honest member passes on all.
func (m *member) passes(pages []page) []page {
	if !m.lying || !m.stormy {
		return pages
	}
	if m.rand.IntN(3) == 0 {
		m.count("lie: passes nothing on")
		return nil
	}
	return slices.DeleteFunc(slices.Clone(pages), func(p page) bool {
		withheld := m.book.records[p].Writer != m.Self.ID && m.rand.IntN(2) == 0
		if withheld {
			m.count("lie: withholds a record")
		}
		return withheld
	})
}

// word of a liar that decides, as everyone has heard it by now.
func (w *World) word(t *truth, id fleet.MemberID) (said uint16) {
	for kind := fleet.Started; kind <= fleet.Yielded; kind++ {
		if (ledger{w.members[0]}).holds(factKey{t.plan.Digest, id, kind}) {
			said |= bit(kind)
		}
	}
	return said
}
