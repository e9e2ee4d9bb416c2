// SPDX-License-Identifier: Apache-2.0

package sequencer

import "github.com/flotilla-dev/flotilla/api/fleet"

// MemberState is where one member stands in a plan, by the facts held here.
type MemberState uint8

// The states, in the order they are passed.
const (
	Pending MemberState = iota
	Progressing
	Soaking
	Complete
	HasFailed
	LeftPlan
	IsDegraded
	Removed
)

func (s MemberState) String() string {
	return [...]string{"Pending", "Progressing", "Soaking", "Complete", "Failed", "Ineligible", "Degraded", "Removed"}[s]
}

// StateOf one member in the plan.
func StateOf(p *Plan, facts Facts, id fleet.MemberID) MemberState {
	said := func(k fleet.FactKind) bool { return has(facts, p.Digest, id, k) }
	switch {
	case facts.Removed(id):
		return Removed
	case said(fleet.Yielded):
		return LeftPlan
	case isDegraded(p, facts, id):
		return IsDegraded
	case said(fleet.Soaked):
		return Complete
	case said(fleet.Succeeded):
		return Soaking
	case said(fleet.GaveUp), said(fleet.Failed):
		return HasFailed
	case said(fleet.Started):
		return Progressing
	}
	return Pending
}

// Tally counts one stage, for status and tables.
type Tally struct {
	Stage *Stage
	// Open says that the stages before it let it begin.
	Open bool
	// Passed says that its own gate is open.
	Passed bool
	// Counts by state.
	Counts map[MemberState]int
	// Trouble are the members that failed or are degraded, Awaited those that have started and not soaked.
	Trouble, Awaited []fleet.Name
}

// Succeeded counts the members with a success.
func (t Tally) Succeeded() int { return t.Counts[Soaking] + t.Counts[Complete] + t.Counts[IsDegraded] }

// Tallies of all stages, in order.
func Tallies(p *Plan, facts Facts) []Tally {
	out := make([]Tally, len(p.Stages))
	open := true
	for i := range p.Stages {
		s := &p.Stages[i]
		t := Tally{Stage: s, Open: open, Passed: gate(p, s, facts).open, Counts: map[MemberState]int{}}
		for _, m := range s.Members {
			state := StateOf(p, facts, m.ID)
			t.Counts[state]++
			switch state {
			case HasFailed, IsDegraded:
				t.Trouble = append(t.Trouble, m.Name)
			case Progressing, Soaking:
				t.Awaited = append(t.Awaited, m.Name)
			}
		}
		open = open && t.Passed
		out[i] = t
	}
	return out
}
