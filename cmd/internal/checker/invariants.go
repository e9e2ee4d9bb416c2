// SPDX-License-Identifier: Apache-2.0

package checker

import (
	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer"
)

// Every invariant is counted by the whole truth: what members bound themselves to, told or not. What is counted
// here shares no code with what is checked.

// count the members of a stage whose truth has either of the milestones. Who is forked counts where left says so.
func (s *search) count(now *state, r, stage int, either milestones, left bool) (n int) {
	for _, i := range s.stages[r][stage] {
		if now.truth(r, i)&either != 0 || left && now.forked&(1<<i) != 0 {
			n++
		}
	}
	return n
}

// unforked members of a stage that really soaked.
func (s *search) unforked(now *state, r, stage int) (n int) {
	for _, i := range s.stages[r][stage] {
		if now.truth(r, i).has(fleet.Soaked) && now.forked&(1<<i) == 0 {
			n++
		}
	}
	return n
}

func (s *search) truthInMotion(now *state, r, i int) bool {
	m := now.truth(r, i)
	return m.has(fleet.Started) && !m.has(fleet.Succeeded) && !m.has(fleet.GaveUp)
}

// checkStart looks at every rule that a start can break but the window's.
func (s *search) checkStart(now *state, i, r int, h hearing) {
	by := step{int8(i), int8(r), "starts", h}
	if h.proofs && now.forked&(1<<i) != 0 {
		s.violate(by, "R1: a start by a member that knows of the proof against itself")
	}
	if standing := now.issued &^ now.lifted; h.commands && standing != 0 {
		s.violate(by, "I16: a start under a stop that was heard and that nobody lifted")
	}
	at := s.places[r][i]
	for j := range at.Stage {
		s.checkGate(now, by, j)
		s.res.Seen["a start behind a gate"]++
	}
	for earlier := range s.plans {
		if earlier != r && s.truthInMotion(now, earlier, i) {
			s.res.Seen["two releases in motion"]++
		}
		if earlier != r && now.truth(earlier, i).has(fleet.Started) && !s.below(earlier, r) {
			s.violate(by, "I14: %s of seal %d is started after %s of seal %d", s.Versions[r].Revision, s.Versions[r].Number, s.Versions[earlier].Revision, s.Versions[earlier].Number)
		}
	}
	if at.Rank >= s.Stages[at.Stage].MaxConcurrency {
		s.res.Seen["a start behind the window"]++
	}
}

// checkGate of an earlier stage, at a start. Each liar in it may stand for one who has soaked or left, and for one
// success; what is beyond them is true.
func (s *search) checkGate(now *state, by step, j int) {
	r, stage := int(by.release), s.places[by.release][by.member].Stage+1
	shape, liars := s.Stages[j], s.liars(now, r, j)
	need := shape.Size - shape.Tolerance
	settled := s.count(now, r, j, bit(fleet.Soaked)|bit(fleet.Yielded), true)
	if s.Liars == 1 && settled == 0 && (need > 1 || liars == 0) {
		s.violate(by, "I11: a start in stage %d, and one liar alone opened the gate of stage %d", stage, j+1)
	}
	if settled < need-liars {
		s.violate(by, "I2: a start in stage %d, and of the %d of stage %d %d have soaked or left (tolerance %d, %d lie)", stage, shape.Size, j+1, settled, shape.Tolerance, liars)
	}
	successes := s.count(now, r, j, bit(fleet.Soaked), false)
	if by.heard.proofs {
		successes = s.unforked(now, r, j)
	}
	if successes < s.minSuccess()-liars {
		s.violate(by, "I13: a start in stage %d, and in stage %d %d succeeded, of %d (%d lie)", stage, j+1, successes, s.minSuccess(), liars)
	}
	if liars > 0 {
		s.res.Seen["a start behind a stage with a liar"]++
	}
}

// liars in a stage.
func (s *search) liars(now *state, r, stage int) (n int) {
	for _, i := range s.stages[r][stage] {
		if now.lies(i) {
			n++
		}
	}
	return n
}

// openToLiars says whether those who lie could open a gate with nobody's success but their own.
func (s *search) openToLiars(now *state, r, stage int) bool {
	liars, left := s.liars(now, r, stage), s.count(now, r, stage, bit(fleet.Yielded), true)
	shape := s.Stages[stage]
	return liars >= s.minSuccess() && liars+left >= shape.Size-shape.Tolerance
}

// checkOrder: the same facts, heard in another order, give the same decision (I17).
func (s *search) checkOrder(v view, d *sequencer.Decision, r int) {
	v.reversed = true
	if other := s.bug.decide(v, s.plans[r]); other.Verdict != d.Verdict || other.Reason != d.Reason || len(other.Stops) != len(d.Stops) {
		s.violate(step{int8(v.self), int8(r), "decides", v.hearing}, "I17: %s; the same facts in another order: %s", d.Verdict, other.Verdict)
	}
}

// checkRest: nothing can happen any more. Every stage that may begin is through but for fewer clusters than its
// window and its gate pay for (I8).
func (s *search) checkRest(now *state) {
	r := -1
	for i := range s.members {
		switch accepted := int(now.accepted[i]); {
		case now.lies(i): // it has no state
		case r < 0:
			r = accepted
		case r != accepted:
			return
		}
	}
	if now.issued&^now.lifted != 0 {
		return
	}
	s.res.Seen["a fleet at rest"]++
	for j, shape := range s.Stages {
		var vanished, gaveUp, moved, settled, successes int
		for _, i := range s.stages[r][j] {
			if now.lies(i) { // whatever it says, nobody goes on: all is said that could let another one
				moved, settled, successes = moved+1, settled+1, successes+1
				continue
			}
			m, out := now.truth(r, i), now.forked&(1<<i) != 0
			switch ended := m&(bit(fleet.Succeeded)|bit(fleet.Soaked)|bit(fleet.Yielded)) != 0; {
			case ended || out:
				moved++
			case m.has(fleet.GaveUp):
				gaveUp++
				moved++
			case now.gone&(1<<i) != 0, s.mayNotSpeak(now, i):
				vanished++
			}
			if m.has(fleet.Soaked) || m.has(fleet.Yielded) || out {
				settled++
			}
			if m.has(fleet.Soaked) && !out {
				successes++
			}
		}
		if vanished+max(0, gaveUp-shape.Tolerance) < shape.MaxConcurrency && moved+vanished < shape.Size {
			by := step{int8(s.stages[r][j][0]), int8(r), "waits for ever", hearing{}}
			s.violate(by, "I8: stage %d is stuck: %d of %d moved, %d vanished, %d gave up (N %d, tolerance %d)", j+1, moved, shape.Size, vanished, gaveUp, shape.MaxConcurrency, shape.Tolerance)
		}
		if settled < shape.Size-shape.Tolerance || successes < s.minSuccess() {
			return
		}
	}
}

// checkProof: who hears a proof has no less evidence, unless it was the success of that very member that a gate
// needed (I21).
func (s *search) checkProof(now *state, by step, lost bool) {
	if !lost || now.forked&(1<<by.member) != 0 {
		return
	}
	r := int(by.release)
	for j := range s.places[r][by.member].Stage {
		heard := 0
		for _, i := range s.stages[r][j] {
			if now.said[r][i].has(fleet.Soaked) && now.forked&(1<<i) == 0 {
				heard++
			}
		}
		if heard < s.minSuccess() {
			return
		}
	}
	s.violate(by, "I21: there is evidence, and none any more once the proof is heard")
}

// checkMonotone: who hears more never has less evidence (I21). It is why a member that has heard everything is the one
// to look at, in models too large for every view.
func (s *search) checkMonotone(now *state, by step, evidence []bool, proofs bool) {
	if by.heard.proofs = proofs; proofs && now.forked&(1<<by.member) != 0 {
		return // it is out
	}
	for deafTo := range 1 << len(s.members) {
		for i := range s.members {
			if deafTo&(1<<i) != 0 && evidence[deafTo] && !evidence[deafTo&^(1<<i)] {
				by.heard.deafTo = uint8(deafTo)
				s.violate(by, "I21: there is evidence, and none any more once %s is heard", s.members[i].Name)
			}
		}
	}
}

// checkMilestone looks at what a member has now bound itself to.
func (s *search) checkMilestone(now *state, by step, k fleet.FactKind) {
	m := now.truth(int(by.release), int(by.member))
	if m.has(fleet.Started) && m.has(fleet.Yielded) {
		s.violate(by, "I12: one member has started and left one plan")
	}
	if m.has(fleet.GaveUp) && (k == fleet.Started || k == fleet.Succeeded || k == fleet.GaveUp && m.has(fleet.Succeeded)) {
		s.violate(by, "R5: %s where a member gave up", k)
	}
	if k == fleet.Yielded && s.places[by.release][by.member].Stage == 0 && len(s.Stages) > 1 {
		s.res.Seen["a yield in the canary"]++
	}
}

// checkMotion counts I1 and I4 in the stage that the step is in.
func (s *search) checkMotion(now *state, by step, r int) {
	stage := s.places[r][by.member].Stage
	shape := s.Stages[stage]
	var moving, exposed, touched int
	for _, i := range s.stages[r][stage] {
		m := now.truth(r, i)
		if !m.has(fleet.Started) || now.forked&(1<<i) != 0 {
			continue
		}
		touched++
		if !m.has(fleet.Succeeded) {
			exposed++
		}
		if s.truthInMotion(now, r, i) {
			moving++
		}
	}
	if moving > shape.MaxConcurrency {
		s.violate(by, "I1: %d members of stage %d in motion, at most %d", moving, stage+1, shape.MaxConcurrency)
	}
	if exposed > shape.MaxConcurrency+shape.Tolerance {
		s.violate(by, "I1: %d members of stage %d started without success, at most %d + %d", exposed, stage+1, shape.MaxConcurrency, shape.Tolerance)
	}
	for j := 0; s.Versions[r].Hopeless && j < stage && touched > 0; j++ {
		if !s.openToLiars(now, r, j) {
			s.violate(by, "I4: a release that fails everywhere touched %d members of stage %d", touched, stage+1)
		}
	}
	if s.Versions[r].Hopeless && touched > shape.MaxConcurrency+shape.Tolerance {
		s.violate(by, "I4: a release that fails everywhere touched %d members of stage %d", touched, stage+1)
	}
	if s.count(now, r, stage, bit(fleet.GaveUp), false) > shape.Tolerance {
		s.res.Seen["more gave up than is tolerated"]++
	}
}
