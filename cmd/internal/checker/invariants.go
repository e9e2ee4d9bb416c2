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
		shape := s.Stages[j]
		if settled := s.count(now, r, j, bit(fleet.Soaked)|bit(fleet.Yielded), true); settled < shape.Size-shape.Tolerance {
			s.violate(by, "I2: a start in stage %d, and of the %d of stage %d %d have soaked or left (tolerance %d)", at.Stage+1, shape.Size, j+1, settled, shape.Tolerance)
		}
		if h.proofs && s.unforked(now, r, j) < sequencer.MinSuccess || s.count(now, r, j, bit(fleet.Soaked), false) < sequencer.MinSuccess {
			s.violate(by, "I13: a start in stage %d, and in stage %d nobody succeeded", at.Stage+1, j+1)
		}
		s.res.Seen["a start behind a gate"]++
	}
	for earlier := range s.plans {
		if earlier != r && now.truth(earlier, i).has(fleet.Started) && !s.below(earlier, r) {
			s.violate(by, "I14: %s of seal %d is started after %s of seal %d", s.Versions[r].Revision, s.Versions[r].Number, s.Versions[earlier].Revision, s.Versions[earlier].Number)
		}
	}
	if at.Rank >= s.Stages[at.Stage].MaxConcurrency {
		s.res.Seen["a start behind the window"]++
	}
}

// checkMonotone: who hears more never has less evidence (I21). It is why a member that has heard everything is the one
// to look at, in models too large for every view.
func (s *search) checkMonotone(by step, evidence []bool) {
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
	if s.Versions[r].Hopeless && (stage > 0 && touched > 0 || touched > shape.MaxConcurrency+shape.Tolerance) {
		s.violate(by, "I4: a release that fails everywhere touched %d members of stage %d", touched, stage+1)
	}
	if s.count(now, r, stage, bit(fleet.GaveUp), false) > shape.Tolerance {
		s.res.Seen["more gave up than is tolerated"]++
	}
}
