// SPDX-License-Identifier: Apache-2.0

package sequencer

import (
	"bytes"
	"slices"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// Facts is what this member holds, verified. All of it only grows.
type Facts interface {
	// Fact is the record by which a member stated a milestone of a plan; false where none is held.
	Fact(plan fleet.Digest, member fleet.MemberID, kind fleet.FactKind) (fleet.Digest, bool)
	// Commands for a rollout, in any order. The goes of members that are removed are not among them; their stops are.
	Commands(fleet.RolloutName) []fleet.Command
	// Removed says that a member is out for ever: a proof is held that it said two things in one position. Its
	// place is settled, and what it said counts for nothing (R1).
	Removed(fleet.MemberID) bool
}

// Verdict of a decision.
type Verdict uint8

// The verdicts. Go and Done are final for a member and plan; the others are asked again.
const (
	// Wait: evidence is missing. More facts open it; nothing closes it again.
	Wait Verdict = iota
	// Hold: the evidence is there; a stop withholds the permit.
	Hold
	// Go: start, or go on with what was started.
	Go
	// Done: this member succeeded in the plan.
	Done
	// Out: this member has no part in the plan, or no part any more.
	Out
)

func (v Verdict) String() string { return [...]string{"Wait", "Hold", "Go", "Done", "Out"}[v] }

// Reason of a decision: data, so that it can be counted; Because makes the sentence.
type Reason uint8

// The reasons.
const (
	// MayStart: gates, window and permit are there.
	MayStart Reason = iota
	// HasStarted: this member's attempt is under way; it needs no gate any more.
	HasStarted
	// WaitsForStage: an earlier stage lacks what its gate needs (R3).
	WaitsForStage
	// WaitsForSlot: the success window of the own stage is full (R2).
	WaitsForSlot
	// Stopped: a Pause, or spec.suspend, is in force (R7).
	Stopped
	// Sick: more members became unhealthy after their success than the stage tolerates (R4).
	Sick
	// HasSucceeded: nothing is left to do in this plan.
	HasSucceeded
	// HasGivenUp: no attempt is left here (R5).
	HasGivenUp
	// HasYielded: this member left the plan before it started (R1).
	HasYielded
	// NotTargeted: the plan is not for this member.
	NotTargeted
	// WasRemoved: a proof is held against this member; it starts nothing more (R1).
	WasRemoved
	// TwoAgents: another live agent uses this member's key. No fact says so: the agent that notices adds it.
	TwoAgents
	// WasRestored: this member's API does not know all that the member has said; it says nothing new in the plan (R13). No
	// fact says so: the agent that notices adds it.
	WasRestored
)

// Decision says whether one member may go now, and why.
type Decision struct {
	Verdict Verdict
	Reason  Reason
	// Stage and Rank of this member; Stage is "" where it has none.
	Stage string
	Rank  int
	// Gate is the stage that is waited for or that is sick.
	Gate string
	// Have of Need: what the gate or window counts. Of is the stage's size. Left of Have, for a gate, are
	// members that left the plan or were removed: they fill it, but one at least must really have soaked.
	Have, Need, Of, Left int
	// Missing are the members that would help, by rank; Failed those of them that signed Failed.
	Missing, Failed []fleet.Name
	// Stops in force.
	Stops []fleet.Command
	// Recheck is when time alone may change the decision; 0 where only news can.
	Recheck time.Duration
}

// Decide says whether self may go now: evidence AND permit. It is the one place where a start is
// allowed, in the agent and in the simulator alike. now is for windows of time; no rule reads it yet
// but it is part of what a decision may depend on, and nothing else is.
func Decide(p *Plan, facts Facts, self fleet.MemberID, _ fleet.Moment) Decision {
	place, ok := p.Place(self)
	if !ok {
		return Decision{Verdict: Out, Reason: NotTargeted}
	}
	d := Decision{Stage: p.Stages[place.Stage].Name, Rank: place.Rank, Of: len(p.Stages[place.Stage].Members)}
	if d.settled(p, facts, self) || !d.evidence(p, facts, place) || !d.permit(p, facts) {
		return d
	}
	d.Verdict, d.Reason = Go, MayStart
	return d
}

// settled answers from this member's own milestones, which outlive every view.
func (d *Decision) settled(p *Plan, facts Facts, self fleet.MemberID) bool {
	said := func(k fleet.FactKind) bool { return has(facts, p.Digest, self, k) }
	switch {
	case facts.Removed(self):
		d.Verdict, d.Reason = Out, WasRemoved
	case said(fleet.Yielded):
		d.Verdict, d.Reason = Out, HasYielded
	case said(fleet.GaveUp):
		d.Verdict, d.Reason = Out, HasGivenUp
	case said(fleet.Succeeded), said(fleet.Soaked): // the later one may come first
		d.Verdict, d.Reason = Done, HasSucceeded
	case said(fleet.Started):
		d.Verdict, d.Reason = Go, HasStarted
	default:
		return false
	}
	return true
}

// evidence is the monotone half: the gates of all earlier stages (R3) and the window of the own (R2).
func (d *Decision) evidence(p *Plan, facts Facts, at Place) bool {
	for i := range p.Stages[:at.Stage] {
		if g := gate(p, &p.Stages[i], facts); !g.open {
			d.Verdict, d.Reason, d.Gate = Wait, WaitsForStage, p.Stages[i].Name
			d.Have, d.Need, d.Of, d.Left = g.have, g.need, len(p.Stages[i].Members), g.left
			d.Missing, d.Failed = g.missing, g.failed
			return false
		}
	}
	if w := window(p, &p.Stages[at.Stage], facts, at.Rank); !w.open {
		d.Verdict, d.Reason, d.Gate = Wait, WaitsForSlot, d.Stage
		d.Have, d.Need, d.Missing, d.Failed = w.have, w.need, w.missing, w.failed
		return false
	}
	return true
}

// permit is the half that may close again. It only withholds.
func (d *Decision) permit(p *Plan, facts Facts) bool {
	if stops := Stops(facts.Commands(p.Rollout)); len(stops) > 0 {
		d.Verdict, d.Reason, d.Stops = Hold, Stopped, stops
		return false
	}
	for i := range p.Stages {
		if sick := degraded(p, &p.Stages[i], facts); len(sick) > p.Stages[i].Tolerance {
			d.Verdict, d.Reason, d.Gate = Hold, Sick, p.Stages[i].Name
			d.Have, d.Need, d.Missing = len(sick), p.Stages[i].Tolerance, sick
			return false
		}
	}
	return true
}

// Permitted says whether the stops let an attempt begin that no longer needs evidence: a retry (R5, R7).
func Permitted(p *Plan, facts Facts) bool {
	var d Decision
	return d.permit(p, facts)
}

func has(facts Facts, plan fleet.Digest, m fleet.MemberID, k fleet.FactKind) bool {
	_, ok := facts.Fact(plan, m, k)
	return ok
}

// Stops in force among the commands: those that no go names. A stop that a go's author had not seen
// stays (R7). Sorted by ID, so that the order in which commands arrived shows nowhere (I17).
func Stops(commands []fleet.Command) []fleet.Command {
	lifted := lifts(commands)
	var out []fleet.Command
	for _, c := range commands {
		if c.Verb == fleet.Pause && !lifted[c.ID] {
			out = append(out, c)
		}
	}
	slices.SortFunc(out, func(a, b fleet.Command) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	return out
}

func lifts(commands []fleet.Command) map[fleet.Digest]bool {
	lifted := map[fleet.Digest]bool{}
	for _, c := range commands {
		if c.Verb == fleet.Resume {
			for _, id := range c.Lifts {
				lifted[id] = true
			}
		}
	}
	return lifted
}
