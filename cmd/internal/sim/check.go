// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/cmd/internal/agent/turn"
	"github.com/flotilla-dev/flotilla/delivery"
	"github.com/flotilla-dev/flotilla/sequencer"
	"github.com/flotilla-dev/flotilla/source"
)

// truth is one plan as it really stands: what its members have bound themselves to, told or not.
type truth struct {
	rollout int
	plan    *sequencer.Plan
	index   map[fleet.MemberID]place
	said    [][]uint16 // stage, rank: a bit for each kind
	// removed are members with a proof against them: their places are settled.
	removed map[fleet.MemberID]bool
	// succeeded is when, by the world's clock.
	succeeded map[fleet.MemberID]time.Duration
	stages    []tally
}

type place struct{ stage, rank int }

// tally of one stage.
type tally struct{ moving, exposed, touched, soaked, left int }

func newTruth(rollout int, p *sequencer.Plan) *truth {
	t := &truth{rollout: rollout, plan: p, index: map[fleet.MemberID]place{}, succeeded: map[fleet.MemberID]time.Duration{}, removed: map[fleet.MemberID]bool{}, stages: make([]tally, len(p.Stages))}
	for i := range p.Stages {
		t.said = append(t.said, make([]uint16, len(p.Stages[i].Members)))
		for rank := range p.Stages[i].Members {
			t.index[p.Stages[i].Members[rank].ID] = place{i, rank}
		}
	}
	return t
}

func bit(k fleet.FactKind) uint16 { return 1 << k }

func (t *truth) of(id fleet.MemberID) uint16 {
	at, ok := t.index[id]
	if !ok {
		return 0
	}
	return t.said[at.stage][at.rank]
}

// counts of one member in its stage's tally.
func counts(said uint16) (c tally) {
	started, succeeded := said&bit(fleet.Started) != 0, said&(bit(fleet.Succeeded)|bit(fleet.Soaked)) != 0
	if started {
		c.touched = 1
	}
	if started && !succeeded {
		c.exposed = 1
		if said&bit(fleet.GaveUp) == 0 {
			c.moving = 1
		}
	}
	if said&bit(fleet.Soaked) != 0 {
		c.soaked = 1
	} else if said&bit(fleet.Yielded) != 0 {
		c.left = 1
	}
	return c
}

func (t *tally) add(c tally, sign int) {
	t.moving += sign * c.moving
	t.exposed += sign * c.exposed
	t.touched += sign * c.touched
	t.soaked += sign * c.soaked
	t.left += sign * c.left
}

func (w *World) violate(m *member, format string, args ...any) {
	text := fmt.Sprintf("%s %s: ", w.now, m.Self.Name) + fmt.Sprintf(format, args...)
	w.violations = append(w.violations, text)
	w.story(m, "VIOLATION %s", fmt.Sprintf(format, args...))
}

// bound looks at a promise as it is kept: its new records are what the member is bound to from now on.
func (w *World) bound(m *member, p *turn.Promise) {
	for _, b := range p.Said {
		if m.saidBefore[string(b)] {
			continue
		}
		m.saidBefore[string(b)] = true
		r, err := fleet.DecodeRecord(b)
		if err != nil {
			w.violate(m, "a promise holds what is no record: %v", err)
			continue
		}
		at := turn.Position{Epoch: r.Epoch, Seq: r.Seq}
		if before, taken := m.positions[at]; taken && before != string(b) {
			w.violate(m, "R1: says two things in one position, and does not lie")
			continue
		}
		m.positions[at] = string(b)
		f, err := fleet.DecodeFact(&r)
		if err != nil {
			w.violate(m, "a promise holds what is no fact: %v", err)
			continue
		}
		w.bind(m, f)
	}
}

func (w *World) bind(m *member, f fleet.Fact) {
	t := w.plans[f.Plan]
	if t == nil {
		w.violate(m, "R1: %s of a plan that nobody sealed", f.Kind)
		return
	}
	at, target := t.index[m.Self.ID]
	if !target {
		if f.Kind != fleet.Accepted {
			w.violate(m, "R1: %s of a plan that is not for it", f.Kind)
		}
		return
	}
	if sealed := t.plan.Stages[at.stage].Members[at.rank].Incarnation; sealed <= m.found.Incarnation {
		w.violate(m, "R13: %s of a plan with incarnation %d, whose API was found to be restored", f.Kind, sealed)
	}
	w.lastWord = w.now
	before := t.said[at.stage][at.rank]
	after := before | bit(f.Kind)
	t.said[at.stage][at.rank] = after
	stage := &t.stages[at.stage]
	if !t.removed[m.Self.ID] {
		stage.add(counts(before), -1)
		stage.add(counts(after), 1)
	}
	w.story(m, "%s %s, stage %s, rank %d", f.Kind, t.release(w), t.plan.Stages[at.stage].Name, at.rank)
	if f.Kind == fleet.Started && before&bit(fleet.Started) == 0 {
		w.checkStart(m, t, at)
		w.started(t)
		if (ledger{m}).proven(m.Self.ID) {
			w.violate(m, "R1: starts, and has heard of the proof against itself")
		}
	}
	w.checkMilestone(m, t, at, before, f.Kind)
	w.checkEarned(m, t, at, f.Kind)
	w.checkMotion(m, t, at)
}

// checkStart: the gates, the order, the permit.
func (w *World) checkStart(m *member, t *truth, at place) {
	for j := range at.stage {
		w.checkGate(m, t, at, j)
	}
	if at.rank >= t.plan.Stages[at.stage].MaxConcurrency {
		w.seen["a start behind the window"]++
	}
	r := w.rollouts[t.rollout]
	for _, other := range w.plans {
		if other.rollout != t.rollout || other == t || other.of(m.Self.ID)&bit(fleet.Started) == 0 {
			continue
		}
		a, b := other.plan.Release, t.plan.Release
		older := r.relation(a.Revision, b.Revision)
		if a.Number > b.Number || older != source.Same && older != source.Descends {
			w.violate(m, "I14: starts %s of seal %d after %s of seal %d", b.Revision.Short(), b.Number, a.Revision.Short(), a.Number)
		}
		if other.of(m.Self.ID)&(bit(fleet.Succeeded)|bit(fleet.GaveUp)) == 0 {
			w.seen["a release left in motion"]++
		}
	}
	w.checkPermit(m, t)
}

// checkPermit: no start under a stop that was heard (I16), nor beside more sickness than is tolerated (I7).
func (w *World) checkPermit(m *member, t *truth) {
	heard := ledger{m}
	commands := heard.believed(w.rollouts[t.rollout].name)
	lifted := func(id fleet.Digest) bool {
		return slices.ContainsFunc(commands, func(c fleet.Command) bool { return c.Verb == fleet.Resume && slices.Contains(c.Lifts, id) })
	}
	for _, stop := range commands {
		if stop.Verb == fleet.Pause && !lifted(stop.ID) {
			w.violate(m, "I16: starts under a stop that it has heard")
		}
	}
	for i := range t.plan.Stages {
		s, sick := &t.plan.Stages[i], 0
		for j := range s.Members {
			id := s.Members[j].ID
			if at, told := heard.held(t.plan.Digest, id, fleet.Degraded); told && !heard.proven(id) && !lifted(w.book.digests[at]) {
				sick++
			}
		}
		if sick > s.Tolerance {
			w.violate(m, "I7: starts, and has heard that %d of stage %s are sick (tolerance %d)", sick, s.Name, s.Tolerance)
		}
	}
}

// checkGate of an earlier stage. Each liar in it may stand for one who has soaked or left, and for one success.
func (w *World) checkGate(m *member, t *truth, at place, j int) {
	s, have, here := &t.plan.Stages[j], t.stages[j], t.plan.Stages[at.stage].Name
	liars, settled, need := w.liarsIn(t, j, t.standing), have.soaked+have.left, len(s.Members)-s.Tolerance
	if len(w.liars) == 1 && settled == 0 && (need > 1 || liars == 0) {
		w.violate(m, "I11: starts in stage %s, and one liar alone opened the gate of stage %s", here, s.Name)
	}
	if settled < need-liars {
		w.violate(m, "I2: starts in stage %s, and of the %d of stage %s %d have soaked or left (tolerance %d, %d lie)", here, len(s.Members), s.Name, settled, s.Tolerance, liars)
	}
	credible := w.liarsIn(t, j, func(id fleet.MemberID) bool { return !(ledger{m}).proven(id) })
	if w.believable(m, t, j) < sequencer.MinSuccess-credible {
		w.violate(m, "I13: starts in stage %s, and in stage %s nobody succeeded", here, s.Name)
	}
	w.seen["a start behind a gate"]++
	if credible > 0 {
		w.seen["a start behind a stage with a liar"]++
	}
}

// believable successes of a stage: those of members of whom the starter has heard no proof.
func (w *World) believable(m *member, t *truth, stage int) (n int) {
	for rank, said := range t.said[stage] {
		if said&bit(fleet.Soaked) != 0 && !(ledger{m}).proven(t.plan.Stages[stage].Members[rank].ID) {
			n++
		}
	}
	return n
}

// prove that a member said two things in one position: another one has both.
func (w *World) prove(against, by *member) {
	id := against.Self.ID
	if _, proven := w.book.proofs[id]; proven || against == by {
		return
	}
	w.count("equivocation proven")
	w.story(by, "holds two words of %s in one position", against.Self.Name)
	for _, t := range w.plans {
		if at, target := t.index[id]; target {
			t.stages[at.stage].add(counts(t.said[at.stage][at.rank]), -1)
			t.stages[at.stage].left++
		}
		t.removed[id] = true
	}
	r, _ := ledger{by}.Prepare(fleet.KindProof, fleet.ProofKey(id), twoWords(against))
	by.tell(w.book.page(r))
}

// twoWords of a member in one position: the body of a proof.
func twoWords(of *member) []byte {
	var said [2]fleet.Record
	for i, kind := range []fleet.FactKind{fleet.Soaked, fleet.GaveUp} {
		f := fleet.Fact{Plan: simFleet, Kind: kind}
		said[i] = fleet.Record{Fleet: simFleet, Epoch: math.MaxInt64, Seq: 1, Kind: fleet.KindFact, Key: fleet.FactKey(f.Plan, kind), Body: f.Encode()}
		if err := said[i].Sign(simulatedKey(of.index)); err != nil {
			of.violate(of, "a record cannot be signed: %v", err)
		}
	}
	body, _ := fleet.Proof{A: said[0], B: said[1]}.Encode()
	return body
}

func (w *World) checkMilestone(m *member, t *truth, at place, before uint16, k fleet.FactKind) {
	after := before | bit(k)
	if after&bit(fleet.Started) != 0 && after&bit(fleet.Yielded) != 0 {
		w.violate(m, "I12: has started and left one plan")
	}
	if before&bit(fleet.GaveUp) != 0 && (k == fleet.Started || k == fleet.Succeeded) {
		w.violate(m, "R5: %s after it gave up", k)
	}
	if k == fleet.GaveUp && before&bit(fleet.Succeeded) != 0 {
		w.violate(m, "R5: gives up after success")
	}
	if k == fleet.Yielded && at.stage == 0 && len(t.plan.Stages) > 1 {
		w.seen["a yield in the canary"]++
	}
	if k == fleet.Succeeded && before&bit(fleet.Started) == 0 {
		w.seen["a carry-over"]++
	}
	if k == fleet.GaveUp {
		w.seen["gave up"]++
	}
	if k == fleet.Degraded {
		w.seen["degraded"]++
	}
}

// checkEarned is R4: a success after minReadyTime of health, a soak after its time beyond that, both by the member's
// own clock. A member that carries over serves the soak, and that alone.
func (w *World) checkEarned(m *member, t *truth, at place, k fleet.FactKind) {
	s := &t.plan.Stages[at.stage]
	own := func(since time.Duration) time.Duration { return time.Duration(float64(w.now-since) * m.rate) }
	const rounding = time.Microsecond
	switch k {
	case fleet.Succeeded:
		t.succeeded[m.Self.ID] = w.now
		runs := m.running[t.rollout]
		if runs.sickAt > 0 && w.now >= runs.sickAt {
			w.violate(m, "R4: succeeds while it is sick")
		}
		if t.of(m.Self.ID)&bit(fleet.Started) != 0 && (runs.wellAt < 0 || own(runs.wellAt) < s.MinReadyTime-rounding) {
			w.violate(m, "R4: succeeds after %s of health, of %s", own(runs.wellAt), s.MinReadyTime)
		}
	case fleet.Soaked:
		if served := own(t.succeeded[m.Self.ID]); served < s.Soak-rounding {
			w.violate(m, "R4: has soaked after %s of %s", served, s.Soak)
		}
		w.seen["a soak served"]++
	}
}

// checkMotion is I1 and I4.
func (w *World) checkMotion(m *member, t *truth, at place) {
	s, have := &t.plan.Stages[at.stage], t.stages[at.stage]
	if have.moving > s.MaxConcurrency {
		w.violate(m, "I1: %d in motion in stage %s, at most %d", have.moving, s.Name, s.MaxConcurrency)
	}
	if have.exposed > s.MaxConcurrency+s.Tolerance {
		w.violate(m, "I1: %d started without success in stage %s, at most %d + %d", have.exposed, s.Name, s.MaxConcurrency, s.Tolerance)
	}
	if !w.rollouts[t.rollout].hopeless[t.plan.Release.Revision] || have.touched == 0 {
		return
	}
	opened := true
	for j := range at.stage {
		opened = opened && w.openToLiars(t, j)
	}
	if !opened || have.touched > s.MaxConcurrency+s.Tolerance {
		w.violate(m, "I4: a release that fails everywhere touched %d members of stage %s", have.touched, s.Name)
	}
}

// leaving is a revision that a member applied and went on from.
type leaving struct {
	member   int
	revision fleet.Revision
}

// applied looks at what is written to a cluster: nothing that was only accepted (I18), nothing older (I5) and nothing
// that ran here before (I19) but what a failure brings back.
func (w *World) applied(m *member, rollout int, r delivery.Release) {
	t := w.plans[r.Plan]
	if t == nil || t.of(m.Self.ID)&(bit(fleet.Started)|bit(fleet.Succeeded)) == 0 {
		w.violate(m, "I18: %s is applied, and was not started", r.Revision.Short())
	}
	runs := m.running[rollout].revision
	if runs == "" {
		return
	}
	hasFailed := func(rev fleet.Revision) bool {
		return slices.ContainsFunc(w.plansWith(rollout, rev), func(t *truth) bool {
			return t.of(m.Self.ID)&(bit(fleet.Failed)|bit(fleet.GaveUp)) != 0
		})
	}
	failed := hasFailed(runs)
	if w.left[leaving{m.index, r.Revision}] && !failed && !hasFailed(r.Revision) { // what failed is tried again
		w.violate(m, "I19: %s comes back over %s, which did not fail here", r.Revision.Short(), runs.Short())
	}
	w.left[leaving{m.index, runs}] = true
	if w.rollouts[rollout].relation(runs, r.Revision) != source.Precedes {
		return
	}
	if !failed {
		w.violate(m, "I5: %s is applied over %s, which did not fail here", r.Revision.Short(), runs.Short())
	}
	w.seen["a last good release put back"]++
}

func (w *World) plansWith(rollout int, rev fleet.Revision) (out []*truth) {
	for _, t := range w.plans {
		if t.rollout == rollout && t.plan.Release.Revision == rev {
			out = append(out, t)
		}
	}
	return out
}
