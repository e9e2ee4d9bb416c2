// SPDX-License-Identifier: Apache-2.0

package sequencer

import (
	"cmp"
	"slices"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// This file decides which of its own milestones and commands a member takes out of the fleet's state. Only the writer
// can: a plan's digest does not say which release it is of, so nobody else knows what a milestone was for. What is
// gone can make somebody wait who is still on an old release, and nobody go. What holds others back is no evidence:
// stops in force stay, and so does sickness while somebody may be on the plan, as far as the quota has room for it.

const (
	// OvertakenKept is how many plans of a rollout stay that were overtaken by newer ones and never closed.
	OvertakenKept = 16
	// retireAtLeast so many records at once: a floor is a record itself, and everybody carries it.
	retireAtLeast = 64
	// retireInNeed at least, once half of the quota is used up.
	retireInNeed = 8
)

// Closed says that every target of a plan has soaked or left: whatever came before it is of no use to anybody.
func Closed(p *Plan, facts Facts) bool {
	for i := range p.Stages {
		for j := range p.Stages[i].Members {
			m := p.Stages[i].Members[j].ID
			if !has(facts, p.Digest, m, fleet.Soaked) && !has(facts, p.Digest, m, fleet.Yielded) && !facts.Removed(m) {
				return false
			}
		}
	}
	return true
}

// Spoken is of which plans of one rollout a member has stated milestones.
type Spoken struct {
	// Plans in the order in which they were accepted, the oldest first.
	Plans []fleet.Digest
	// Closed is the newest of them that is known to be closed; zero where none is.
	Closed fleet.Digest
	// Needed are those that the member acts on, or whose milestones it would say again.
	Needed []fleet.Digest
	// Sick are those in which the member's own sickness holds the others (R4) and no go lifted it.
	Sick []fleet.Digest
	// Ended long ago: nobody decides about the rollout any more.
	Ended bool
}

// Live are the plans of which no milestone may go: what is needed, the newest one, the newest closed one, and those
// between them, unless that are very many; then of the older ones those where the member is sick, because sickness is no
// evidence: without it somebody may go. Scarce spares no room for those between.
func (s Spoken) Live(scarce bool) []fleet.Digest {
	live := slices.Clone(s.Needed)
	if s.Ended || len(s.Plans) == 0 {
		return live
	}
	newest := len(s.Plans) - 1
	live = append(live, s.Plans[newest])
	if !scarce {
		between := s.Plans[min(slices.Index(s.Plans, s.Closed)+1, newest):newest]
		kept := max(0, len(between)-OvertakenKept)
		live = append(live, between[kept:]...)
		for _, plan := range between[:kept] {
			if slices.Contains(s.Sick, plan) {
				live = append(live, plan)
			}
		}
	}
	if !s.Closed.IsZero() {
		live = append(live, s.Closed)
	}
	return live
}

// Own is a record that this member wrote.
type Own struct {
	Epoch, Seq uint64
	Group      fleet.Group
}

// Scarce says that a member has used up half of what it may say in records of a kind.
func Scarce(kind fleet.Kind, own int) bool { return own > kind.Quota()/2 }

// Retire gives the next floor for a member's own records of a kind: all that are held, and those that it would say
// again. The ones of live groups stay. False where it would not pay: few would go. The floor never falls; where the standing
// one retires a live record, such as one that is found in a promise, the next one lets it be said again.
func Retire(kind fleet.Kind, own []Own, live map[fleet.Group]bool, standing fleet.Floor) (fleet.Floor, bool) {
	own = slices.Clone(own)
	slices.SortFunc(own, func(a, b Own) int { return cmp.Or(cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Seq, b.Seq)) })
	next := fleet.Floor{Kind: kind, Epoch: standing.Epoch, Seq: standing.Seq}
	keep := map[fleet.Group]bool{}
	for _, g := range standing.Keep {
		if live[g] {
			keep[g] = true
		}
	}
	retired, wronged := 0, false
	var passed []fleet.Group // live, and not below the floor so far
walk:
	for _, o := range own {
		switch {
		case live[o.Group] && under(o, &standing):
			wronged = wronged || !keep[o.Group]
			keep[o.Group] = true
		case live[o.Group]:
			passed = append(passed, o.Group)
		case under(o, &next):
			retired++
		case !makeRoom(keep, passed):
			break walk
		default:
			passed, retired = nil, retired+1
			next.Epoch, next.Seq = o.Epoch, o.Seq+1
		}
	}
	for g := range keep {
		next.Keep = append(next.Keep, g)
	}
	slices.SortFunc(next.Keep, func(a, b fleet.Group) int { return slices.Compare(a[:], b[:]) })
	return next, wronged || retired >= retireAtLeast || retired >= retireInNeed && Scarce(kind, len(own))
}

func under(o Own, f *fleet.Floor) bool {
	return o.Epoch < f.Epoch || o.Epoch == f.Epoch && o.Seq < f.Seq
}

// makeRoom for groups among those that a floor keeps; false where it cannot keep so many, and then for none.
func makeRoom(keep map[fleet.Group]bool, groups []fleet.Group) bool {
	var added []fleet.Group
	for _, g := range groups {
		if !keep[g] {
			keep[g] = true
			added = append(added, g)
		}
	}
	if len(keep) <= fleet.MaxKeep {
		return true
	}
	for _, g := range added {
		delete(keep, g)
	}
	return false
}

// OwnCommand is a command that this member wrote.
type OwnCommand struct {
	Own
	fleet.Command
}

// LiveCommands are the groups of a member's own commands that must stay. A stop may go once this member lifted it
// itself: its floor says so then, with the same authority as its go did. A go may go with the stops that it lifts, when it lifts
// no others: a floor takes both at once out of every view, and nobody is left with the stop alone. Needed are
// stops that the member would say again.
func LiveCommands(own []OwnCommand, needed []fleet.Digest) map[fleet.Group]bool {
	lifted, stops := map[fleet.Digest]bool{}, map[fleet.Digest]bool{}
	for _, c := range own {
		switch c.Verb {
		case fleet.Pause:
			stops[c.ID] = !slices.Contains(needed, c.ID)
		case fleet.Resume:
			for _, id := range c.Lifts {
				lifted[id] = true
			}
		}
	}
	live := map[fleet.Group]bool{}
	for _, c := range own {
		goes := false
		switch c.Verb {
		case fleet.Pause:
			goes = stops[c.ID] && lifted[c.ID]
		case fleet.Resume:
			goes = !slices.ContainsFunc(c.Lifts, func(id fleet.Digest) bool { return !stops[id] })
		}
		if !goes {
			live[c.Group] = true
		}
	}
	return live
}
