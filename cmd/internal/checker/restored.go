// SPDX-License-Identifier: Apache-2.0

package checker

import "github.com/flotilla-dev/flotilla/api/fleet"

// restore a member's API from any older copy, with its store or with the store lost (R13). What was told and is in neither
// of them is found again in what others hold, and the member is silent in the plans that have it in this incarnation;
// what was never told binds nobody.
func (s *search) restore(now *state, i int) {
	if now.restores >= s.Limits.Restores || s.born(now, i) {
		return
	}
	for accepted := range s.plans {
		if accepted != int(now.accepted[i]) && !s.below(accepted, int(now.accepted[i])) {
			continue
		}
		from := *now
		from.accepted[i] = uint8(accepted)
		s.older(&from, i, 0, func(older state) {
			older.restores++
			s.restored(&older, i, "gets its API back from an older copy")
			for r := range s.plans {
				older.stored[r][i] = 0
			}
			s.restored(&older, i, "loses its store and gets its API back from an older copy")
		})
	}
}

// inOrder are the milestones as one member comes to them in one release; what is in one place excludes each other.
var inOrder = []milestones{
	bit(fleet.Started) | bit(fleet.Yielded), bit(fleet.Failed), bit(fleet.Succeeded), bit(fleet.Soaked) | bit(fleet.GaveUp),
}

// older gives every API that this one may have been: of each release the first of what is kept, and nothing of one
// that was not accepted yet.
func (s *search) older(now *state, i, r int, visit func(state)) {
	if r == len(s.plans) {
		visit(*now)
		return
	}
	accepted := int(now.accepted[i])
	next, kept := *now, now.kept[r][i]
	next.kept[r][i] = 0
	s.older(&next, i, r+1, visit)
	for _, m := range inOrder {
		if kept&m != 0 && (r == accepted || s.below(r, accepted)) {
			next.kept[r][i] |= kept & m
			s.older(&next, i, r+1, visit)
		}
	}
}

// restored: does it notice, and what does it do then?
func (s *search) restored(next *state, i int, what string) {
	by := step{int8(i), int8(next.accepted[i]), what, hearing{}}
	lost := false
	for r := range s.plans {
		lost = lost || (next.said[r][i]|next.stored[r][i])&^next.kept[r][i] != 0
	}
	switch {
	case !lost, s.bug.ForgetsItsWords, s.Limits.Unheard:
		s.add(next, by)
	case s.bug.AdoptsAndGoesOn:
		s.adopt(next, i, by)
	default:
		silent := *next
		silent.silent |= 1 << i
		s.res.Seen["a restored API is noticed"]++
		s.add(&silent, by)
	}
}

// adopt one word that somebody holds, and go on.
func (s *search) adopt(next *state, i int, by step) {
	for r := range s.plans {
		for k := fleet.Accepted; k <= fleet.Yielded; k++ {
			if next.said[r][i].has(k) {
				adopted := *next
				adopted.stored[r][i] |= bit(k)
				s.add(&adopted, by)
			}
		}
	}
}

// mayNotSpeak in its accepted release. The seals from the second on have the member in its next incarnation.
func (s *search) mayNotSpeak(now *state, i int) bool {
	return now.silent&(1<<i) != 0 && s.Versions[now.accepted[i]].Number == 1
}

// born again: it has said something in its next incarnation.
func (s *search) born(now *state, i int) bool {
	for r, v := range s.Versions {
		if v.Number > 1 && now.truth(r, i) != 0 {
			return true
		}
	}
	return false
}

// Restored are models with the rule about restored APIs, in which the others must hold.
var Restored = []Model{
	{
		Name: "restored", Stages: []Shape{{3, 1, 1}}, Versions: []Version{{1, "r1", false}},
		Limits: Limits{Yields: 1, Restores: 1, Failures: true},
	},
	{
		Name: "restored, every view", Stages: []Shape{{2, 1, 0}, {1, 1, 0}}, Versions: []Version{{1, "r1", false}},
		Limits: Limits{Yields: 1, Restores: 1}, Views: true,
	},
	{
		Name: "restored between two releases", Stages: []Shape{{2, 1, 0}}, Versions: []Version{{1, "r1", false}, {1, "r2", false}},
		Limits: Limits{Yields: 1, Restores: 1},
	},
	{
		Name: "restored and born again", Stages: []Shape{{2, 1, 0}}, Versions: []Version{{1, "r1", false}, {2, "r1", false}},
		Limits: Limits{Yields: 1, Restores: 1, CarryOvers: true},
	},
	{
		Name: "restored after giving up", Stages: []Shape{{2, 1, 1}}, Versions: []Version{{1, "r1", false}},
		Limits: Limits{Restores: 1, Failures: true}, Views: true,
	},
}

// Unheard is a model in which the rules do not hold, and no rule can make them: a cluster's API comes back from an older
// copy, its store is lost, and nobody whom the member meets has heard anything that it said since the copy was made.
var Unheard = Model{
	Name: "restored, and nobody has heard", Stages: []Shape{{3, 1, 0}}, Versions: []Version{{1, "r1", false}},
	Limits: Limits{Yields: 1, Restores: 1, Unheard: true}, Views: true,
}

// PlantedInRestored are mistakes about restored APIs.
var PlantedInRestored = []Bug{
	{ID: "R13", Name: "a restored API with a lost store is not noticed", Breaks: "I12", In: Restored[1], ForgetsItsWords: true},
	{ID: "R13 R5", Name: "the same, where the member had come to an end", Breaks: "R5", In: Restored[4], ForgetsItsWords: true},
	{ID: "R13 I14", Name: "a restored API with the store intact is not noticed", Breaks: "I14", In: with(Restored[2], func(m *Model) { m.Limits.Yields = 0 }), ForgetsItsWords: true},
	{ID: "R13 adopts", Name: "what is heard is adopted, and the member goes on", Breaks: "R5", In: Restored[4], AdoptsAndGoesOn: true},
}
