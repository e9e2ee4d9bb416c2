// SPDX-License-Identifier: Apache-2.0

package checker

import (
	"fmt"
	"math/bits"
	"strings"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer"
)

// Result of going through a model.
type Result struct {
	// States met, and Steps between them, violation or not.
	States, Steps int
	// Complete says that no state is left; else the bound was met first.
	Complete bool
	// Violation is the first one by the number of steps, empty if there is none. Story leads to it.
	Violation string
	Story     []string
	// Seen counts what a story must have for the model to say anything about a rule.
	Seen map[string]int
}

// String tells the story.
func (r Result) String() string {
	if r.Violation == "" {
		return fmt.Sprintf("%d states, %d steps: every invariant holds", r.States, r.Steps)
	}
	return fmt.Sprintf("%s\n%s\n", strings.Join(r.Story, "\n"), r.Violation)
}

// node of the search: a state and how it was reached.
type node struct {
	state
	from int
	step step
}

// step from one state to the next, as it is told.
type step struct {
	member, release int8
	what            string
	heard           hearing
}

// search is one run of the checker.
type search struct {
	*compiled
	nodes []node
	met   met
	// answers to questions that were asked before.
	answers map[question][]outcome
	res     Result
	// at is the node whose steps are being taken; moved says that one leads to another state.
	at    int
	moved bool
}

// Check goes through a model with a bug, or with none, and ends at the first violation, or after most states.
func Check(m Model, bug Bug, most int) (Result, error) {
	c, err := m.compile(bug)
	if err != nil {
		return Result{}, err
	}
	s := &search{compiled: c, met: newMet(), answers: map[question][]outcome{}, res: Result{Seen: map[string]int{}}}
	s.begin()
	for s.at = 0; s.at < len(s.nodes) && len(s.nodes) < most && s.res.Violation == ""; s.at++ {
		s.expand()
	}
	s.res.States, s.res.Complete = len(s.nodes), s.at == len(s.nodes)
	return s.res, nil
}

// begin with every choice of who lies, and of which of two seals in one position each member heard first.
func (s *search) begin() {
	first := []uint8{0}
	for r := 1; r < len(s.Versions); r++ {
		if s.Versions[r] == s.Versions[0] {
			first = append(first, uint8(r))
		}
	}
	begins := []state{{}}
	for i := range s.members {
		var next []state
		for _, b := range begins {
			for _, r := range first {
				b.accepted[i] = r
				next = append(next, b)
			}
		}
		begins = next
	}
	for lying := range 1 << len(s.members) {
		if bits.OnesCount(uint(lying)) == s.Liars {
			for _, b := range begins {
				b.lying = uint8(lying)
				s.at = -1
				s.add(&b, step{member: -1})
			}
		}
	}
}

// add a state, unless it was met before.
func (s *search) add(next *state, by step) {
	s.res.Steps++
	s.moved = s.moved || s.at >= 0 && *next != s.nodes[s.at].state
	if s.met.add(s.nodes, next) {
		s.nodes = append(s.nodes, node{*next, s.at, by})
	}
}

// violate ends the search with the story of how it came to this.
func (s *search) violate(by step, format string, args ...any) {
	if s.res.Violation != "" {
		return
	}
	s.res.Violation = fmt.Sprintf(format, args...)
	story := []string{s.tell(by)}
	at := s.at
	for ; s.nodes[at].from >= 0; at = s.nodes[at].from {
		story = append(story, s.tell(s.nodes[at].step))
	}
	if who := s.names(s.nodes[at].lying); who != "" {
		story = append(story, who+" lies")
	}
	for i := len(story) - 1; i >= 0; i-- {
		s.res.Story = append(s.res.Story, fmt.Sprintf("%2d. %s", len(story)-i, story[i]))
	}
}

func (s *search) tell(by step) string {
	v := s.Versions[by.release]
	place := s.places[by.release][by.member]
	text := fmt.Sprintf("%s %s (%s of seal %d, stage %d, rank %d)", s.members[by.member].Name, by.what, v.Revision, v.Number, place.Stage+1, place.Rank)
	if by.heard.deafTo != 0 {
		text += ", having heard nothing of " + s.names(by.heard.deafTo)
	}
	for _, lie := range by.heard.lies {
		if said := lie.String(); said != "" {
			text += ", to whom a liar said " + said
		}
	}
	return text
}

// names of members, a bit each.
func (s *search) names(of uint8) string {
	var names []string
	for i := range s.members {
		if of&(1<<i) != 0 {
			names = append(names, string(s.members[i].Name))
		}
	}
	return strings.Join(names, " ")
}

// String names what is said.
func (m milestones) String() string {
	var said []string
	if m&proven != 0 {
		said = append(said, "two things in one position")
	}
	for k := fleet.Started; k <= fleet.Yielded; k++ {
		if m.has(k) {
			said = append(said, k.String())
		}
	}
	return strings.Join(said, " ")
}

// expand takes every step that is possible in the state at s.at.
func (s *search) expand() {
	now := s.nodes[s.at].state
	s.moved = false
	for i := range s.members {
		if now.gone&(1<<i) != 0 || now.lies(i) {
			continue
		}
		if now.forked&(1<<i) != 0 && s.at > 0 {
			s.res.Seen["a member that was found forked goes on"]++
		}
		if !s.mayNotSpeak(&now, i) {
			s.decide(&now, i)
		}
		s.publish(&now, i)
		s.takeRelease(&now, i)
		s.operate(&now, i)
		s.suffer(&now, i)
	}
	if !s.moved {
		s.checkRest(&now)
	}
}

// decide lets one member decide with everything it may have heard, and do what follows.
func (s *search) decide(now *state, i int) {
	r := int(now.accepted[i])
	var done [16]bool // by reason
	for _, o := range s.outcomes(now, i) {
		if o.reason == sequencer.MayStart && o.verdict == sequencer.Go {
			s.checkStart(now, i, r, o.heard)
		}
		if !done[o.reason] {
			done[o.reason] = true
			s.follow(now, step{int8(i), int8(r), "", o.heard}, o)
		}
	}
}

// outcome is a decision that a member may come to, and the first hearing that leads to it.
type outcome struct {
	verdict sequencer.Verdict
	reason  sequencer.Reason
	heard   hearing
}

// question is all that a decision may depend on, whatever part of it was heard. A decision is a pure function, so
// the same question, met in another state, has the same answers.
type question struct {
	said                                   [maxReleases][maxMembers]milestones
	own                                    [maxReleases]milestones
	self, accepted, issued, lifted, forked uint8
	lying                                  uint8
}

func (s *search) outcomes(now *state, i int) []outcome {
	if s.bug.ID != "" { // a bug may look at anything
		return s.answer(now, i)
	}
	q := question{said: now.said, self: uint8(i), accepted: now.accepted[i], issued: now.issued, lifted: now.lifted, forked: now.forked, lying: now.lying}
	for r := range q.own {
		q.own[r] = now.own(r, i)
	}
	known, ok := s.answers[q]
	if !ok {
		known = s.answer(now, i)
		s.answers[q] = known
	}
	return known
}

// answer by asking with every hearing; what the answers must have in common is looked at here.
func (s *search) answer(now *state, i int) (out []outcome) {
	r := int(now.accepted[i])
	var met [2][2][16]bool // whether commands and proofs were heard, and the reason
	var evidence [2][1 << maxMembers]bool
	for _, h := range s.hearings {
		v := view{s.compiled, now, i, h, false}
		d := s.bug.decide(v, s.plans[r])
		if !h.commands && h.lies == [maxLiars]milestones{} {
			evidence[number(h.proofs)][h.deafTo] = d.Verdict != sequencer.Wait
		}
		if h.commands && now.issued != 0 {
			s.checkOrder(v, &d, r)
		}
		if seen := &met[number(h.commands)][number(h.proofs)][d.Reason]; !*seen {
			*seen = true
			out = append(out, outcome{d.Verdict, d.Reason, h})
		}
	}
	if s.Views {
		s.checkMonotone(now, step{int8(i), int8(r), "decides", hearing{}}, evidence[0][:], false)
		if s.Limits.Forks > 0 {
			s.checkMonotone(now, step{int8(i), int8(r), "decides", hearing{}}, evidence[1][:], true)
		}
	}
	if s.Limits.Forks > 0 {
		s.checkProof(now, step{int8(i), int8(r), "decides", hearing{proofs: true}}, evidence[0][0] && !evidence[1][0])
	}
	return out
}

func number(b bool) int {
	if b {
		return 1
	}
	return 0
}

// follow the decision.
func (s *search) follow(now *state, by step, d outcome) {
	i, r := int(by.member), int(by.release)
	hopeless := s.Versions[r].Hopeless
	switch {
	case d.verdict == sequencer.Go && d.reason == sequencer.MayStart:
		s.say(now, by, fleet.Started)
		s.leave(now, by)
	case d.verdict == sequencer.Go:
		if s.bug.LeavesInMotion {
			s.leave(now, by)
		}
		if !hopeless {
			s.say(now, by, fleet.Succeeded)
		}
		if s.Limits.Failures {
			s.say(now, by, fleet.Failed)
			if now.own(r, i).has(fleet.Failed) {
				s.say(now, by, fleet.GaveUp)
			}
		}
	case d.verdict == sequencer.Done:
		s.say(now, by, fleet.Soaked)
	case d.verdict == sequencer.Wait, d.verdict == sequencer.Hold:
		s.leave(now, by)
		if s.Limits.CarryOvers && !hopeless {
			s.say(now, by, fleet.Succeeded)
		}
	}
}

// leave the plan: a member finds out that it is not fit for it.
func (s *search) leave(now *state, by step) {
	if now.yields < s.Limits.Yields {
		s.say(now, by, fleet.Yielded)
	}
}

var verbs = map[fleet.FactKind]string{
	fleet.Started: "starts", fleet.Succeeded: "succeeds", fleet.Soaked: "has soaked", fleet.Failed: "fails",
	fleet.GaveUp: "gives up", fleet.Yielded: "leaves the plan",
}

// say a milestone: a sound member keeps it in its own API first, and publishes it in a step of its own.
func (s *search) say(now *state, by step, k fleet.FactKind) {
	i, r := int(by.member), int(by.release)
	by.what = verbs[k]
	if now.own(r, i).has(k) {
		return
	}
	next := *now
	if k == fleet.Yielded {
		next.yields++
	}
	if s.bug.PublishFirst {
		next.said[r][i] |= bit(k)
		next.stored[r][i] |= bit(k)
	} else {
		next.kept[r][i] |= bit(k)
	}
	s.checkMilestone(&next, by, k)
	s.checkMotion(&next, by, r)
	s.add(&next, by)
}

// publish what is kept, or keep what was published first.
func (s *search) publish(now *state, i int) {
	for r := range s.plans {
		by := step{int8(i), int8(r), "publishes what it promised", hearing{}}
		next := *now
		if s.bug.PublishFirst {
			by.what = "writes to its API what it has said"
			next.kept[r][i] |= next.stored[r][i]
		} else {
			next.said[r][i] |= next.kept[r][i]
			next.stored[r][i] |= next.kept[r][i]
		}
		if next != *now {
			s.add(&next, by)
		}
	}
}

func (s *search) takeRelease(now *state, i int) {
	at := int(now.accepted[i])
	for r := range s.plans {
		candidate := s.plans[r].Release
		if s.bug.accept(s.plans[at].Release, candidate, revisionOrder(s.Versions[at].Revision, s.Versions[r].Revision)) != sequencer.Take {
			continue
		}
		next := *now
		next.accepted[i] = uint8(r)
		if s.truthInMotion(now, at, i) {
			s.res.Seen["a release left in motion"]++
		}
		s.add(&next, step{int8(i), int8(r), "accepts the release", hearing{}})
	}
}

// operate: somebody gives a stop, or a go for the stops known there.
func (s *search) operate(now *state, i int) {
	r := now.accepted[i]
	for n := range s.Limits.Stops {
		if now.issued&(1<<n) == 0 {
			next := *now
			next.issued |= 1 << n
			next.stopOn[n] = r
			s.add(&next, step{int8(i), int8(r), fmt.Sprintf("is given stop %d", n+1), hearing{}})
			break
		}
	}
	if now.resumes >= s.Limits.Resumes {
		return
	}
	for n := range s.Limits.Stops { // a go whose author knew this one alone
		if now.issued&^now.lifted&(1<<n) != 0 {
			next := *now
			next.lifted |= 1 << n
			next.resumes++
			s.add(&next, step{int8(i), int8(r), fmt.Sprintf("is given a go that lifts stop %d", n+1), hearing{}})
		}
	}
}

// suffer what disks, backups and thieves do.
func (s *search) suffer(now *state, i int) {
	r := int8(now.accepted[i])
	if now.losses < s.Limits.Losses {
		next := *now
		next.losses++
		for r := range s.plans {
			next.stored[r][i] = 0
		}
		s.add(&next, step{int8(i), r, "loses its store", hearing{}})
	}
	s.restore(now, i)
	if now.forks < s.Limits.Forks && now.forked&(1<<i) == 0 {
		next := *now
		next.forks++
		next.forked |= 1 << i
		s.add(&next, step{int8(i), r, "is found to have said two things at once", hearing{}})
	}
	if now.rebuilds < s.Limits.Rebuilds {
		next := *now
		next.rebuilds++
		next.forget(i)
		if !s.bug.RebuiltKeepsPlace {
			next.gone |= 1 << i
		}
		s.add(&next, step{int8(i), r, "is rebuilt without its store and API", hearing{}})
	}
}
