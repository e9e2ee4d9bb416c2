// SPDX-License-Identifier: Apache-2.0

package sequencer

import (
	"bytes"
	"maps"
	"slices"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// This file holds what a member of a large fleet needs of the other zones, and what a zone tells them in short. A
// member that carries a part of the state decides as if it had the rest not heard yet: evidence is monotone, so it
// waits too long at worst, until it pulls the milestones that it lacks. Rollups take no part in that. They are counts
// for people, and say where to look; no gate reads them.

// Zones whose milestones a member needs to decide about a plan: those of all earlier stages (R3), and of the lower
// ranks of its own (R2). With them also the zones that a report says somebody is sick in, wherever in the plan: it is
// their own words that hold a start (R4), not the report. None where the member's place is settled. Sorted.
func Zones(p *Plan, facts Facts, self fleet.MemberID, zoneOf func(fleet.MemberID) (string, bool), reports []fleet.Rollup) []string {
	place, ok := p.Place(self)
	var d Decision
	if !ok || d.settled(p, facts, self) && d.Verdict != Go {
		return nil
	}
	needed := map[string]bool{}
	need := func(members []fleet.Member) {
		for i := range members {
			if zone, on := zoneOf(members[i].ID); on {
				needed[zone] = true
			}
		}
	}
	for i := range p.Stages[:place.Stage] {
		need(p.Stages[i].Members)
	}
	need(p.Stages[place.Stage].Members[:place.Rank])
	for i := range reports {
		if reports[i].Plan == p.Digest && sick(&reports[i]) {
			needed[reports[i].Zone] = true
		}
	}
	return slices.Sorted(maps.Keys(needed))
}

func sick(u *fleet.Rollup) bool {
	return slices.ContainsFunc(u.Stages, func(s fleet.StageRollup) bool { return s.Counts[IsDegraded.String()] > 0 })
}

// mostFailing that a rollup names.
const mostFailing = 10

// RollupOf is what the facts say of those members of a plan that are counted: a zone's. Equal facts give equal
// rollups, so it does not matter who of a zone reports. Zone, Root and Time are the reporter's to fill in.
func RollupOf(p *Plan, facts Facts, counted func(fleet.MemberID) bool) fleet.Rollup {
	u := fleet.Rollup{Rollout: p.Rollout, Plan: p.Digest}
	for i := range p.Stages {
		s := fleet.StageRollup{Name: p.Stages[i].Name, Counts: map[string]int{}}
		for _, m := range p.Stages[i].Members {
			if !counted(m.ID) {
				continue
			}
			u.Members++
			state := StateOf(p, facts, m.ID)
			s.Counts[state.String()]++
			if (state == HasFailed || state == IsDegraded) && len(u.Failing) < mostFailing {
				u.Failing = append(u.Failing, m.Name)
			}
		}
		if len(s.Counts) > 0 {
			u.Stages = append(u.Stages, s)
		}
	}
	return u
}

// ReportersPerZone tell the other zones how a rollout stands in theirs: one that is away is not missed.
const ReportersPerZone = 3

// Reports says whether a member is one of those who report on a rollout from its zone: the highest by a hash of
// rollout and member, so nobody is elected, and each rollout has others.
func Reports(self fleet.MemberID, name fleet.RolloutName, zone []fleet.Member) bool {
	weight := func(id fleet.MemberID) fleet.Digest {
		return fleet.DigestOf("flotilla.dev/reporter", []byte(name.String()), []byte(id))
	}
	own, above, there := weight(self), 0, false
	for i := range zone {
		if zone[i].ID == self {
			there = true
			continue
		}
		if w := weight(zone[i].ID); bytes.Compare(w[:], own[:]) > 0 {
			above++
		}
	}
	return there && above < ReportersPerZone
}
