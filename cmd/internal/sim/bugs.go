// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"slices"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/cmd/internal/agent/turn"
	"github.com/flotilla-dev/flotilla/sequencer"
	"github.com/flotilla-dev/flotilla/source"
)

// Bug is a mistake planted between the production turn and what it is told: a line that is wrong inside would do the
// same. The zero Bug is none.
type Bug struct {
	// ID as the list of planted bugs has it, Name in words, Breaks the rule that must be found broken.
	ID, Name, Breaks string
	// from is the seed at which the search for it begins, near one that found it.
	from uint64
	// class of seeds that it shows in, where it is rare in all of them.
	class func(*Params)
	// fact replaces what a member has heard.
	fact func(l ledger, k factKey) bool
	// heard replaces the commands it has heard.
	heard func(l ledger, name fleet.RolloutName, commands []fleet.Command) []fleet.Command
	// relation replaces the order of revisions.
	relation func(source.Relation) source.Relation
	// removed replaces what it has heard of proofs.
	removed func(l ledger, id fleet.MemberID) bool
	// promise changes what the member's own API gives back.
	promise func(*member, *turn.Promise)
	// lateWrites: a promise is written to the API with the next one only.
	lateWrites bool
	// forgetsItsWords: a member whose API was restored does not look what others hold of its own.
	forgetsItsWords bool
	// set says whether the set takes a record.
	set func(*member, *fleet.Record) bool
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
	{ID: "P1", Name: "a newer release frees the slot of the older one", Breaks: "I1", class: overtaking, fact: func(l ledger, k factKey) bool {
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
	{ID: "P2", Name: "heals to what was only accepted", Breaks: "I18", promise: func(_ *member, p *turn.Promise) {
		if p.Installed != nil && p.Accepted.Plan() != p.Installed.Release.Plan() {
			p.Installed = installed(p.Installed, p.Accepted)
		}
	}},
	{ID: "P4", Name: "starts after it left", Breaks: "I12", fact: forgets(fleet.Yielded)},
	{ID: "P6", Name: "no minSuccess", Breaks: "I13", from: 30, fact: also(fleet.Soaked, fleet.Yielded)},
	{ID: "P11", Name: "a promise is told before it is written", Breaks: "I12", from: 95, lateWrites: true},
	{ID: "P13", Name: "a newer life of a store wins over what the older one said", Breaks: "I12", fact: func(l ledger, k factKey) bool {
		at, held := l.held(k.plan, k.member, k.kind)
		n, _ := l.book.number(k.member)
		return held && l.book.records[at].Epoch == l.members[n].epoch
	}},
	{ID: "P14", Name: "what a removed member said is dropped, and its place with it", Breaks: "liveness",
		removed: func(l ledger, id fleet.MemberID) bool { return id == l.Self.ID && l.proven(id) },
		fact:    func(l ledger, k factKey) bool { return l.holds(k) && (k.member == l.Self.ID || !l.proven(k.member)) }},
	{ID: "P16", Name: "a stop expires", Breaks: "I16", heard: func(ledger, fleet.RolloutName, []fleet.Command) []fleet.Command { return nil }},
	{ID: "P18", Name: "a go lifts the stop that its author had not seen", Breaks: "I16", heard: func(_ ledger, _ fleet.RolloutName, all []fleet.Command) []fleet.Command {
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
	{ID: "P25", Name: "a milestone below the highest position of its writer is no news", Breaks: "I17", class: shipped, set: func(m *member, r *fleet.Record) bool {
		at := turn.Position{Epoch: r.Epoch, Seq: r.Seq}
		if at.Before(m.marks[r.Writer]) {
			return false
		}
		m.marks[r.Writer] = at
		return true
	}},
	{ID: "P26", Name: "a gate believes what one member reports of the others", Breaks: "I11", fact: func(l ledger, k factKey) bool {
		reported := slices.ContainsFunc(l.liars, func(liar *member) bool { return l.holds(factKey{k.plan, liar.Self.ID, k.kind}) })
		return l.holds(k) || k.kind == fleet.Soaked && k.member != l.Self.ID && reported
	}},
	{ID: "P35", Name: "every GaveUp frees a slot, tolerated or not", Breaks: "I1", fact: also(fleet.Succeeded, fleet.GaveUp)},
	{ID: "P38", Name: "a gate counts GaveUp", Breaks: "I2", fact: also(fleet.Soaked, fleet.GaveUp)},
	{ID: "P39", Name: "a gate counts Succeeded for Soaked", Breaks: "I2", fact: also(fleet.Soaked, fleet.Succeeded)},
	{ID: "P40", Name: "what is said again is made anew", Breaks: "R1", promise: func(_ *member, p *turn.Promise) {
		for i, b := range p.Said {
			r, _ := fleet.DecodeRecord(b)
			if f, err := fleet.DecodeFact(&r); err == nil {
				f.Detail = "again"
				r.Body = f.Encode()
				p.Said[i] = r.Encode()
			}
		}
	}},
	{ID: "T12", Name: "the soak is measured by the wall clock", Breaks: "R4", from: 45, wallClock: true},
	{ID: "classic 1", Name: "in motion as far as one has heard", Breaks: "I1", fact: func(l ledger, k factKey) bool {
		if l.holds(k) {
			return true
		}
		return k.kind == fleet.Succeeded && k.member != l.Self.ID && !l.holds(factKey{k.plan, k.member, fleet.Started})
	}},
	{ID: "classic 3", Name: "any end of an attempt frees the slot", Breaks: "I1", fact: also(fleet.Succeeded, fleet.Failed)},
	{ID: "R7", Name: "the go of a member that was removed lifts stops", Breaks: "I16", from: 50, heard: func(l ledger, name fleet.RolloutName, _ []fleet.Command) []fleet.Command {
		return l.commands(name, func(*fleet.Command) bool { return true })
	}},
	{ID: "R1", Name: "a member goes on that knows of the proof against itself", Breaks: "R1", removed: func(l ledger, id fleet.MemberID) bool {
		return id != l.Self.ID && l.proven(id)
	}},
	{ID: "I7", Name: "what is told of sickness after success holds nobody", Breaks: "I7", from: 60, fact: func(l ledger, k factKey) bool {
		return l.holds(k) && (k.kind != fleet.Degraded || k.member == l.Self.ID)
	}},
	{ID: "R13", Name: "a restored API is not noticed", Breaks: "I12", class: restoring, forgetsItsWords: true},
	{ID: "I19", Name: "a member heals to a release that it left long ago", Breaks: "I19", promise: func(m *member, p *turn.Promise) {
		if first := m.firstPlan(p); p.Progress.Phase == sequencer.Settled && p.Installed != nil && first != nil {
			p.Installed = installed(p.Installed, first.plan.Release)
		}
	}},
}

// firstPlan that the promise knows; nil where there is none.
func (m *member) firstPlan(p *turn.Promise) *truth {
	if len(p.Plans) == 0 {
		return nil
	}
	return m.plans[p.Plans[0]]
}

// shipped: members hold what they heard in the set that agents hold it in.
func shipped(p *Params) { p.Lattice = true }

// overtaking: releases follow each other fast, in clusters that take long, and some mirrors stay behind.
func overtaking(p *Params) {
	p.Rollouts, p.Releases, p.Storm, p.Liars, p.Proofs = 1, 5, 10*time.Minute, 0, 0
	p.Slow, p.Frozen, p.Forked, p.Hopeless = 0.5, 0.5, 0, 0
}

// restoring: members leave their plans, and their APIs come back from older copies.
func restoring(p *Params) {
	p.Restores, p.Ineligible, p.Liars, p.Hopeless = 12, 0.3, 0, 0
}

// installed as if another release had been.
func installed(i *turn.Installed, r sequencer.Release) *turn.Installed {
	next := *i
	next.Release = r
	manifest, _ := renderer{}.Render(context.Background(), turn.RenderRequest{Revision: r.Revision})
	next.Manifest = manifest.Digest
	return &next
}
