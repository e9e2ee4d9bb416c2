// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"slices"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/source"
)

// Bug is a mistake planted between the production turn and what it is told: a line that is wrong inside would do the
// same. The zero Bug is none.
type Bug struct {
	// ID as the list of planted bugs has it, Name in words, Breaks the rule that must be found broken.
	ID, Name, Breaks string
	// from is the seed at which the search for it begins, near one that found it.
	from uint64
	// fact replaces what a member has heard.
	fact func(l ledger, k factKey) bool
	// heard replaces the commands it has heard.
	heard func(l ledger, commands []fleet.Command) []fleet.Command
	// relation replaces the order of revisions.
	relation func(source.Relation) source.Relation
	// lateWrites: a promise is written to the API with the next one only.
	lateWrites bool
	// wallClock: what takes time is measured by the wall clock.
	wallClock bool
}

// also makes a lie of one kind about others: it is told where the truth has it or the other one.
func also(kind, other fleet.FactKind) func(ledger, factKey) bool {
	return func(l ledger, k factKey) bool {
		if l.holds(k) {
			return true
		}
		return k.kind == kind && k.member != l.Self.ID && l.holds(factKey{k.plan, k.member, other})
	}
}

func forgets(kind fleet.FactKind) func(ledger, factKey) bool {
	return func(l ledger, k factKey) bool { return l.holds(k) && (k.member != l.Self.ID || k.kind != kind) }
}

// Planted bugs: the track record. Each is found within a budget of seeds.
var Planted = []Bug{
	{ID: "P1", Name: "a newer release frees the slot of the older one", Breaks: "I1", from: 675, fact: func(l ledger, k factKey) bool {
		if l.holds(k) {
			return true
		}
		of := l.plans[k.plan]
		if of == nil || k.kind != fleet.Succeeded || k.member == l.Self.ID {
			return false
		}
		r := l.rollouts[of.rollout]
		for digest, other := range l.plans {
			newer := r.relation(of.plan.Release.Revision, other.plan.Release.Revision) == source.Descends
			if other.rollout == of.rollout && newer && l.holds(factKey{digest, k.member, fleet.Started}) {
				return true
			}
		}
		return false
	}},
	{ID: "P4", Name: "starts after it left", Breaks: "I12", fact: forgets(fleet.Yielded)},
	{ID: "P6", Name: "no minSuccess", Breaks: "I13", from: 30, fact: also(fleet.Soaked, fleet.Yielded)},
	{ID: "P11", Name: "a promise is told before it is written", Breaks: "I12", from: 95, lateWrites: true},
	{ID: "P16", Name: "a stop expires", Breaks: "I16", heard: func(ledger, []fleet.Command) []fleet.Command { return nil }},
	{ID: "P18", Name: "a go lifts the stop that its author had not seen", Breaks: "I16", heard: func(_ ledger, all []fleet.Command) []fleet.Command {
		if slices.ContainsFunc(all, func(c fleet.Command) bool { return c.Verb == fleet.Resume }) {
			return nil
		}
		return all
	}},
	{ID: "P21", Name: "an incomparable revision is accepted", Breaks: "I14", relation: func(r source.Relation) source.Relation {
		if r == source.Unrelated {
			return source.Descends
		}
		return r
	}},
	{ID: "P35", Name: "every GaveUp frees a slot, tolerated or not", Breaks: "I1", fact: also(fleet.Succeeded, fleet.GaveUp)},
	{ID: "P38", Name: "a gate counts GaveUp", Breaks: "I2", fact: also(fleet.Soaked, fleet.GaveUp)},
	{ID: "P39", Name: "a gate counts Succeeded for Soaked", Breaks: "I2", fact: also(fleet.Soaked, fleet.Succeeded)},
	{ID: "T12", Name: "the soak is measured by the wall clock", Breaks: "R4", from: 45, wallClock: true},
	{ID: "classic 1", Name: "in motion as far as one has heard", Breaks: "I1", fact: func(l ledger, k factKey) bool {
		if l.holds(k) {
			return true
		}
		return k.kind == fleet.Succeeded && k.member != l.Self.ID && !l.holds(factKey{k.plan, k.member, fleet.Started})
	}},
	{ID: "classic 3", Name: "any end of an attempt frees the slot", Breaks: "I1", fact: also(fleet.Succeeded, fleet.Failed)},
}
