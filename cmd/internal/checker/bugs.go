// SPDX-License-Identifier: Apache-2.0

package checker

import (
	"slices"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer"
)

// Bug is a mistake planted into the rules. Most are lies told to the production code: what it would take a line to
// get wrong inside is as wrong when the facts that it asks for are. The zero Bug is none.
type Bug struct {
	// ID as the list of planted bugs has it, Name in words, Breaks the invariant that refutes it.
	ID, Name, Breaks string
	// Fact replaces what a member has heard of a milestone.
	Fact func(v view, r, i int, kind fleet.FactKind) bool
	// Heard replaces the commands that a member has heard.
	Heard func(v view) []fleet.Command
	// Removed replaces what it has heard of proofs against members.
	Removed func(v view, i int) bool
	// Plan replaces the plan that a member decides by.
	Plan func(v view, p sequencer.Plan) sequencer.Plan
	// Accept replaces the order of releases.
	Accept func(accepted, candidate sequencer.Release, revision sequencer.RevisionOrder) sequencer.Acceptance
	// LeavesInMotion: a member may leave the plan after its start.
	LeavesInMotion bool
	// PublishFirst: a promise is told before it is in the member's own API.
	PublishFirst bool
	// RebuiltKeepsPlace: a cluster that lost its key's home keeps its key.
	RebuiltKeepsPlace bool
	// ForgetsItsWords: a member whose API was restored does not look what others hold of its own. AdoptsAndGoesOn: it binds
	// itself to what it hears, and to nothing that it does not hear.
	ForgetsItsWords, AdoptsAndGoesOn bool
	// In is the smallest model that shows it.
	In Model
}

// lied is a view with a bug's lies in it.
type lied struct {
	view
	bug *Bug
}

func (l lied) Fact(plan fleet.Digest, id fleet.MemberID, kind fleet.FactKind) (fleet.Digest, bool) {
	digest, ok := l.view.Fact(plan, id, kind)
	if l.bug.Fact != nil {
		r, i := l.c.releases[plan], l.c.index[id]
		return l.c.ids[r][i][kind], l.bug.Fact(l.view, r, i, kind)
	}
	return digest, ok
}

func (l lied) Removed(id fleet.MemberID) bool {
	if i, target := l.c.index[id]; target && l.bug.Removed != nil {
		return l.bug.Removed(l.view, i)
	}
	return l.view.Removed(id)
}

func (l lied) Commands(name fleet.RolloutName) []fleet.Command {
	if l.bug.Heard != nil && l.commands {
		return l.bug.Heard(l.view)
	}
	return l.view.Commands(name)
}

func (b *Bug) decide(v view, p *sequencer.Plan) sequencer.Decision {
	self := v.c.members[v.self].ID
	if b.Plan != nil {
		changed := b.Plan(v, *p)
		p = &changed
	}
	return sequencer.Decide(p, lied{v, b}, self, fleet.Moment{})
}

func (b *Bug) accept(accepted, candidate sequencer.Release, revision sequencer.RevisionOrder) sequencer.Acceptance {
	if b.Accept != nil {
		return b.Accept(accepted, candidate, revision)
	}
	return sequencer.Accept(accepted, candidate, revision)
}

// also makes a lie of one kind: it is told where the truth has the kind or the other one.
func also(kind, other fleet.FactKind) func(view, int, int, fleet.FactKind) bool {
	return func(v view, r, i int, k fleet.FactKind) bool {
		m := v.milestones(r, i)
		return m.has(k) || k == kind && i != v.self && m.has(other)
	}
}

// forgets makes a member forget one kind of its own words.
func forgets(kind fleet.FactKind) func(view, int, int, fleet.FactKind) bool {
	return func(v view, r, i int, k fleet.FactKind) bool {
		return v.milestones(r, i).has(k) && (i != v.self || k != kind)
	}
}

// widened gives every stage other bounds.
func widened(change func(v view, stage int, s *sequencer.Stage)) func(view, sequencer.Plan) sequencer.Plan {
	return func(v view, p sequencer.Plan) sequencer.Plan {
		p.Stages = slices.Clone(p.Stages)
		for j := range p.Stages {
			change(v, j, &p.Stages[j])
		}
		return p
	}
}

// Models that the bugs are refuted in.
var (
	oneStage = Model{Name: "one stage", Stages: []Shape{{3, 1, 0}}, Versions: []Version{{1, "r1", false}}}
	giveUps  = Model{Name: "giving up", Stages: []Shape{{3, 1, 1}}, Versions: []Version{{1, "r1", false}}, Limits: Limits{Failures: true}}
	canary   = Model{Name: "canary", Stages: []Shape{{2, 2, 0}, {1, 1, 0}}, Versions: []Version{{1, "r1", false}}, Limits: Limits{Failures: true}}
	leavers  = Model{Name: "leavers", Stages: []Shape{{2, 2, 0}, {1, 1, 0}}, Versions: []Version{{1, "r1", false}}, Limits: Limits{Yields: 2}}
	releases = Model{Name: "releases", Stages: []Shape{{2, 1, 0}}, Versions: []Version{{1, "r1", false}, {1, "r2", false}, {2, "r1", false}, {1, "x", false}}}
	stopping = Model{Name: "stops", Stages: []Shape{{2, 1, 0}}, Versions: []Version{{1, "r1", false}, {1, "r2", false}}, Limits: Limits{Stops: 2, Resumes: 1}}
	crashes  = Model{Name: "crashes", Stages: []Shape{{2, 1, 0}}, Versions: []Version{{1, "r1", false}}, Limits: Limits{Yields: 1, Losses: 1}, Views: true}
)

func with(m Model, change func(*Model)) Model {
	change(&m)
	return m
}

// Planted bugs. Each is refuted by the invariant that its rule is there for.
var Planted = []Bug{
	{ID: "P1", Name: "a newer release frees the slot of the older one", Breaks: "I1", In: with(oneStage, func(m *Model) {
		m.Versions = []Version{{1, "r1", false}, {1, "r2", false}}
	}), Fact: func(v view, r, i int, k fleet.FactKind) bool {
		newer := false
		for other := range v.c.plans {
			newer = newer || v.c.below(r, other) && v.milestones(other, i).has(fleet.Started)
		}
		return v.milestones(r, i).has(k) || k == fleet.Succeeded && i != v.self && newer
	}},
	{ID: "P3", Name: "leaves after it started", Breaks: "I12", In: leavers, LeavesInMotion: true},
	{ID: "P4", Name: "starts after it left", Breaks: "I12", In: leavers, Fact: forgets(fleet.Yielded)},
	{ID: "P5", Name: "who left is taken from the need and counted as well", Breaks: "I2", In: with(leavers, func(m *Model) {
		m.Stages = []Shape{{3, 3, 0}, {1, 1, 0}}
	}), Plan: widened(func(v view, _ int, s *sequencer.Stage) {
		for _, m := range s.Members {
			if _, left := v.Fact(v.c.plans[v.s.accepted[v.self]].Digest, m.ID, fleet.Yielded); left {
				s.Tolerance++
			}
		}
	})},
	{ID: "P6", Name: "no minSuccess", Breaks: "I13", In: leavers, Fact: also(fleet.Soaked, fleet.Yielded)},
	{ID: "P11", Name: "a promise is told before it is written, and a crash comes between", Breaks: "I12", In: crashes, PublishFirst: true},
	{ID: "P12", Name: "a rebuilt cluster keeps its place", Breaks: "I12", In: with(crashes, func(m *Model) {
		m.Limits = Limits{Yields: 1, Rebuilds: 1}
	}), RebuiltKeepsPlace: true},
	{ID: "P14", Name: "what a removed member said is dropped, and its place with it", Breaks: "I21", In: with(oneStage, func(m *Model) {
		m.Limits.Forks = 1
	}), Removed: func(v view, i int) bool { return i == v.self && v.removed(i) }, Fact: func(v view, r, i int, k fleet.FactKind) bool {
		return v.milestones(r, i).has(k) && (i == v.self || !v.removed(i))
	}},
	{ID: "P16", Name: "a stop expires", Breaks: "I16", In: stopping, Heard: func(view) []fleet.Command { return nil }},
	{ID: "P17", Name: "a stop is bound to the plan it was given on", Breaks: "I16", In: stopping, Heard: func(v view) []fleet.Command {
		return slices.DeleteFunc(v.Commands(rollout), func(c fleet.Command) bool {
			n := slices.IndexFunc(v.c.stops[:], func(s fleet.Command) bool { return s.ID == c.ID })
			return n >= 0 && v.s.stopOn[n] != v.s.accepted[v.self]
		})
	}},
	{ID: "P18", Name: "a go lifts by number, and with it the stop that its author had not seen", Breaks: "I16", In: stopping, Heard: func(v view) []fleet.Command {
		if v.s.lifted != 0 {
			return nil
		}
		return v.Commands(rollout)
	}},
	{ID: "P20", Name: "a lower revision comes with a newer seal", Breaks: "I14", In: releases, Accept: func(a, c sequencer.Release, o sequencer.RevisionOrder) sequencer.Acceptance {
		if c.Number > a.Number {
			return sequencer.Take
		}
		return sequencer.Accept(a, c, o)
	}},
	{ID: "P21", Name: "an incomparable revision is accepted", Breaks: "I14", In: releases, Accept: func(a, c sequencer.Release, o sequencer.RevisionOrder) sequencer.Acceptance {
		if o == sequencer.Incomparable {
			o = sequencer.Newer
		}
		return sequencer.Accept(a, c, o)
	}},
	{ID: "P26", Name: "a gate opens by a rollup's count, which does not say of which plan", Breaks: "I2", In: with(canary, func(m *Model) {
		m.Versions = []Version{{1, "r1", false}, {1, "r2", false}}
		m.Stages = []Shape{{1, 1, 0}, {1, 1, 0}}
	}), Fact: func(v view, r, i int, k fleet.FactKind) bool {
		soaked := false
		for other := range v.c.plans {
			soaked = soaked || v.milestones(other, i).has(fleet.Soaked)
		}
		return v.milestones(r, i).has(k) || k == fleet.Soaked && i != v.self && soaked
	}},
	{ID: "P26 by a liar", Name: "a gate believes what one member reports of the others", Breaks: "I11", In: gateOfTwo, Fact: func(v view, r, i int, k fleet.FactKind) bool {
		told := v.milestones(r, i).has(k)
		for other := range v.c.members {
			told = told || k == fleet.Soaked && i != v.self && v.s.lies(other) && v.milestones(r, other).has(k)
		}
		return told
	}},
	{ID: "P31", Name: "some deal the ranks by other rules", Breaks: "I1", In: with(oneStage, func(m *Model) {
		m.Versions = []Version{{1, "r1", false}, {2, "r1", false}}
	}), Accept: func(sequencer.Release, sequencer.Release, sequencer.RevisionOrder) sequencer.Acceptance {
		return sequencer.Keep // the other seal is there for its ranks alone
	}, Plan: func(v view, p sequencer.Plan) sequencer.Plan {
		if v.self%2 == 0 {
			return p
		}
		other := *v.c.plans[1]
		other.Digest, other.Release = p.Digest, p.Release
		return other
	}},
	{ID: "P34", Name: "who gave up and was removed counts twice", Breaks: "I1", In: with(giveUps, func(m *Model) {
		m.Stages, m.Limits.Forks = []Shape{{3, 1, 1}}, 1
	}), Plan: widened(func(v view, _ int, s *sequencer.Stage) {
		for _, m := range s.Members {
			if i := v.c.index[m.ID]; v.removed(i) && v.milestones(int(v.s.accepted[v.self]), i).has(fleet.GaveUp) {
				s.MaxConcurrency++
			}
		}
	})},
	{ID: "R1", Name: "a member goes on that knows of the proof against itself", Breaks: "R1", In: with(oneStage, func(m *Model) {
		m.Limits.Forks = 1
	}), Removed: func(v view, i int) bool { return i != v.self && v.removed(i) }},
	{ID: "R1 minSuccess", Name: "the success of a removed member is the one that a gate needs", Breaks: "I13", In: with(leavers, func(m *Model) {
		m.Limits = Limits{Yields: 1, Forks: 1}
	}), Removed: func(v view, i int) bool { return i == v.self && v.removed(i) }},
	{ID: "P34 by a liar", Name: "who says that it gave up and that it succeeded counts twice", Breaks: "I1", In: liarInWindow, Plan: widened(func(v view, _ int, s *sequencer.Stage) {
		for _, m := range s.Members {
			if said := v.milestones(int(v.s.accepted[v.self]), v.c.index[m.ID]); said.has(fleet.GaveUp) && said.has(fleet.Succeeded) {
				s.MaxConcurrency++
			}
		}
	})},
	{ID: "P36", Name: "GaveUp is told before it is written, and the store is lost between", Breaks: "R5", PublishFirst: true, In: with(giveUps, func(m *Model) {
		m.Stages, m.Limits.Losses, m.Views = []Shape{{2, 1, 1}}, 1, true
	})},
	{ID: "P35", Name: "every GaveUp frees a slot, tolerated or not", Breaks: "I1", In: with(giveUps, func(m *Model) { m.Stages = []Shape{{3, 1, 0}} }), Fact: also(fleet.Succeeded, fleet.GaveUp)},
	{ID: "P37", Name: "succeeds after it gave up", Breaks: "R5", In: giveUps, Fact: forgets(fleet.GaveUp)},
	{ID: "P38", Name: "a gate counts GaveUp", Breaks: "I2", In: canary, Fact: also(fleet.Soaked, fleet.GaveUp)},
	{ID: "P39", Name: "a gate counts Succeeded for Soaked", Breaks: "I2", In: canary, Fact: also(fleet.Soaked, fleet.Succeeded)},
	{ID: "P41", Name: "the window counts the whole stage and not the lower ranks", Breaks: "I1", In: with(oneStage, func(m *Model) {
		m.Limits = Limits{CarryOvers: true}
	}), Fact: func(v view, r, i int, k fleet.FactKind) bool {
		place, self := v.c.places[r][i], v.c.places[r][v.self]
		if k != fleet.Succeeded || place.Stage != self.Stage || place.Rank >= self.Rank {
			return v.milestones(r, i).has(k)
		}
		succeeded := 0
		for _, other := range v.c.stages[r][place.Stage] {
			if v.milestones(r, other).has(fleet.Succeeded) {
				succeeded++
			}
		}
		return succeeded > place.Rank
	}},
	{ID: "classic 1", Name: "in motion as far as one has heard", Breaks: "I1", In: with(oneStage, func(m *Model) { m.Views = true }), Fact: func(v view, r, i int, k fleet.FactKind) bool {
		m := v.milestones(r, i)
		return m.has(k) || k == fleet.Succeeded && i != v.self && !m.has(fleet.Started)
	}},
	{ID: "classic 2", Name: "a gate counts the members that one has heard of", Breaks: "I2", In: with(canary, func(m *Model) { m.Views = true }), Plan: widened(func(v view, _ int, s *sequencer.Stage) {
		s.Members = slices.DeleteFunc(slices.Clone(s.Members), func(m fleet.Member) bool {
			i := v.c.index[m.ID]
			return i != v.self && v.milestones(int(v.s.accepted[v.self]), i) == 0
		})
	})},
	{ID: "classic 3", Name: "any end of an attempt frees the slot", Breaks: "I1", In: with(giveUps, func(m *Model) { m.Stages = []Shape{{3, 1, 0}} }), Fact: also(fleet.Succeeded, fleet.Failed)},
	{ID: "classic 4", Name: "window off by one", Breaks: "I1", In: oneStage, Plan: widened(func(_ view, _ int, s *sequencer.Stage) { s.MaxConcurrency++ })},
	{ID: "classic 5", Name: "the tolerance widens the window from the start", Breaks: "I1", In: giveUps, Plan: widened(func(_ view, _ int, s *sequencer.Stage) { s.MaxConcurrency += s.Tolerance })},
	{ID: "I8", Name: "who gave up holds its slot, tolerated or not", Breaks: "I8", In: giveUps, Fact: func(v view, r, i int, k fleet.FactKind) bool {
		return v.milestones(r, i).has(k) && (i == v.self || k != fleet.GaveUp)
	}},
	{ID: "I17", Name: "the last command that is heard wins", Breaks: "I17", In: stopping, Heard: func(v view) []fleet.Command {
		all := v.Commands(rollout)
		if len(all) > 0 && all[len(all)-1].Verb == fleet.Pause {
			return all[len(all)-1:]
		}
		return nil
	}},
	{ID: "R1 seals", Name: "of two seals in one position the last one heard is followed", Breaks: "I14", In: twins, Accept: func(a, c sequencer.Release, o sequencer.RevisionOrder) sequencer.Acceptance {
		if a.Number == c.Number && a.Seal != c.Seal {
			return sequencer.Take
		}
		return sequencer.Accept(a, c, o)
	}},
	{ID: "R3 minSuccess", Name: "one success is enough where more are asked for", Breaks: "I13", In: twoSuccesses, Plan: widened(func(_ view, _ int, s *sequencer.Stage) {
		s.MinSuccess = sequencer.MinSuccess
	})},
}
