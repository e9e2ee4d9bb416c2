// SPDX-License-Identifier: Apache-2.0

package sequencer

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// rules are Decide taken apart, so that a bug can be planted in one of them.
type rules struct {
	settled func(d *Decision, p *Plan, f Facts, self fleet.MemberID) bool
	gate    func(w *world, p *Plan, s *Stage, f Facts) bool
	window  func(w *world, p *Plan, s *Stage, f Facts, rank int) bool
	permit  func(w *world, d *Decision, p *Plan, f Facts) bool
}

// sound are the rules as built.
var sound = rules{
	settled: func(d *Decision, p *Plan, f Facts, self fleet.MemberID) bool { return d.settled(p, f, self) },
	gate:    func(_ *world, p *Plan, s *Stage, f Facts) bool { return gate(p, s, f).open },
	window:  func(_ *world, p *Plan, s *Stage, f Facts, rank int) bool { return window(p, s, f, rank).open },
	permit:  func(_ *world, d *Decision, p *Plan, f Facts) bool { return d.permit(p, f) },
}

func (r rules) decide(w *world, p *Plan, f Facts, self fleet.MemberID) Decision {
	var d Decision
	if r.settled(&d, p, f, self) {
		return d
	}
	place, _ := p.Place(self)
	for i := range p.Stages[:place.Stage] {
		if !r.gate(w, p, &p.Stages[i], f) {
			return Decision{Verdict: Wait, Reason: WaitsForStage}
		}
	}
	if !r.window(w, p, &p.Stages[place.Stage], f, place.Rank) {
		return Decision{Verdict: Wait, Reason: WaitsForSlot}
	}
	if r.permit(w, &d, p, f) {
		d.Verdict, d.Reason = Go, MayStart
	}
	return d
}

// tally of members by what was said of them.
func tally(p *Plan, among []fleet.Member, f Facts, kinds ...fleet.FactKind) (n int) {
	for _, m := range among {
		for _, k := range kinds {
			if has(f, p.Digest, m.ID, k) {
				n++
				break
			}
		}
	}
	return n
}

// planted are bugs that somebody could well write. Each must break the invariant that is named.
var planted = []struct {
	name, breaks string
	plant        func(*rules)
	accept       accepter
}{
	{"window off by one", "I1", func(r *rules) {
		r.window = func(_ *world, p *Plan, s *Stage, f Facts, rank int) bool { return window(p, s, f, max(rank-1, 0)).open }
	}, nil},
	{"any terminal state frees the slot", "I1", func(r *rules) {
		r.window = func(_ *world, p *Plan, s *Stage, f Facts, rank int) bool {
			return tally(p, s.Members[:rank], f, fleet.Succeeded, fleet.Yielded, fleet.GaveUp) >= rank-s.MaxConcurrency+1
		}
	}, nil},
	{"a failure frees the slot", "I1", func(r *rules) {
		r.window = func(_ *world, p *Plan, s *Stage, f Facts, rank int) bool {
			return tally(p, s.Members[:rank], f, fleet.Succeeded, fleet.Yielded, fleet.Failed) >= rank-s.MaxConcurrency+1
		}
	}, nil},
	{"in motion as far as I know", "I1", func(r *rules) {
		r.window = func(_ *world, p *Plan, s *Stage, f Facts, _ int) bool {
			return tally(p, s.Members, f, fleet.Started)-tally(p, s.Members, f, fleet.Succeeded, fleet.GaveUp) < s.MaxConcurrency
		}
	}, nil},
	{"the whole stage is counted, not the lower ranks", "I1", func(r *rules) {
		r.window = func(_ *world, p *Plan, s *Stage, f Facts, rank int) bool {
			return tally(p, s.Members, f, fleet.Succeeded, fleet.Yielded) >= rank-s.MaxConcurrency+1
		}
	}, nil},
	{"tolerance widens the window from the start", "I1", func(r *rules) {
		r.window = func(_ *world, p *Plan, s *Stage, f Facts, rank int) bool {
			return window(p, s, f, rank).have >= rank-s.MaxConcurrency-s.Tolerance+1
		}
	}, nil},
	{"a newer release frees the slot", "I1", func(r *rules) {
		r.window = func(w *world, p *Plan, s *Stage, f Facts, rank int) bool {
			settled := 0
			for _, m := range s.Members[:rank] {
				free := has(f, p.Digest, m.ID, fleet.Succeeded) || has(f, p.Digest, m.ID, fleet.Yielded)
				for _, other := range w.plans {
					free = free || below(p.Release, other.Release) && has(f, other.Digest, m.ID, fleet.Started)
				}
				if free {
					settled++
				}
			}
			return settled >= rank-s.MaxConcurrency+1
		}
	}, nil},
	{"gate counts Succeeded instead of Soaked", "I2", func(r *rules) {
		r.gate = func(_ *world, p *Plan, s *Stage, f Facts) bool {
			return tally(p, s.Members, f, fleet.Succeeded, fleet.Yielded) >= len(s.Members)-s.Tolerance && tally(p, s.Members, f, fleet.Succeeded) >= MinSuccess
		}
	}, nil},
	{"gate counts GaveUp", "I2", func(r *rules) {
		r.gate = func(_ *world, p *Plan, s *Stage, f Facts) bool {
			return tally(p, s.Members, f, fleet.Soaked, fleet.Yielded, fleet.GaveUp) >= len(s.Members)-s.Tolerance && tally(p, s.Members, f, fleet.Soaked) >= MinSuccess
		}
	}, nil},
	{"gate subtracts who left from its need, and counts them too", "I2", func(r *rules) {
		r.gate = func(_ *world, p *Plan, s *Stage, f Facts) bool {
			left := tally(p, s.Members, f, fleet.Yielded)
			return tally(p, s.Members, f, fleet.Soaked, fleet.Yielded) >= len(s.Members)-s.Tolerance-left && tally(p, s.Members, f, fleet.Soaked) >= MinSuccess
		}
	}, nil},
	{"gate counts the members it has heard of", "I2", func(r *rules) {
		r.gate = func(_ *world, p *Plan, s *Stage, f Facts) bool {
			known := tally(p, s.Members, f, fleet.Started, fleet.Yielded, fleet.Succeeded)
			return known > 0 && tally(p, s.Members, f, fleet.Soaked, fleet.Yielded) >= known-s.Tolerance && tally(p, s.Members, f, fleet.Soaked) >= MinSuccess
		}
	}, nil},
	{"no minSuccess", "I13", func(r *rules) {
		r.gate = func(_ *world, p *Plan, s *Stage, f Facts) bool {
			g := gate(p, s, f)
			return g.have >= len(s.Members)-s.Tolerance
		}
	}, nil},
	{"revoked facts dropped from U and V", "I21", func(r *rules) {
		r.gate = func(_ *world, p *Plan, s *Stage, f Facts) bool { return gate(p, s, deaf{f}).open }
		r.window = func(_ *world, p *Plan, s *Stage, f Facts, rank int) bool { return window(p, s, deaf{f}, rank).open }
	}, nil},
	{"a liar's success counts for minSuccess", "I13", func(r *rules) {
		r.gate = func(_ *world, p *Plan, s *Stage, f Facts) bool {
			g := gate(p, s, f)
			return g.have >= g.need && tally(p, s.Members, f, fleet.Soaked) >= MinSuccess
		}
	}, nil},
	{"goes on under proof", "R1", func(r *rules) {
		r.settled = func(d *Decision, p *Plan, f Facts, self fleet.MemberID) bool {
			return d.settled(p, f, self) && d.Reason != WasRemoved
		}
	}, nil},
	{"gate from a rollup's count", "I2", func(r *rules) {
		r.gate = func(w *world, p *Plan, s *Stage, f Facts) bool {
			g, reported := gate(p, s, f), 0
			for _, reporter := range w.actors { // counts of what is held here come back from elsewhere
				for _, stage := range RollupOf(p, reporter.view, everyone).Stages {
					if stage.Name == s.Name {
						reported = max(reported, stage.Counts[Complete.String()])
					}
				}
			}
			return g.have+reported >= g.need && max(g.have-g.left, reported) >= MinSuccess
		}
	}, nil},
	{"starts after it left", "I12", func(r *rules) {
		r.settled = func(d *Decision, p *Plan, f Facts, self fleet.MemberID) bool {
			return d.settled(p, f, self) && d.Reason != HasYielded
		}
	}, nil},
	{"goes on after it gave up", "R5", func(r *rules) {
		r.settled = func(d *Decision, p *Plan, f Facts, self fleet.MemberID) bool {
			if !d.settled(p, f, self) {
				return false
			}
			if d.Reason == HasGivenUp {
				d.Verdict, d.Reason = Go, HasStarted
			}
			return true
		}
	}, nil},
	{"a stop is bound to the plan", "I16", func(r *rules) {
		r.permit = func(w *world, d *Decision, p *Plan, f Facts) bool {
			return d.permit(p, f) || d.Reason == Stopped && !anyStop(d.Stops, func(c fleet.Command) bool { return w.issued[c.ID] == p.Digest })
		}
	}, nil},
	{"a go lifts every stop", "I16", func(r *rules) {
		r.permit = func(_ *world, d *Decision, p *Plan, f Facts) bool {
			return d.permit(p, f) || d.Reason == Stopped && len(lifts(f.Commands(p.Rollout))) > 0
		}
	}, nil},
	{"the last command wins", "I17", func(r *rules) {
		r.permit = func(_ *world, d *Decision, p *Plan, f Facts) bool {
			if all := f.Commands(p.Rollout); len(all) > 0 && all[len(all)-1].Verb == fleet.Pause {
				d.Verdict, d.Reason = Hold, Stopped
				return false
			}
			return true
		}
	}, nil},
	{"stops are forgotten", "I16", func(r *rules) {
		r.permit = func(*world, *Decision, *Plan, Facts) bool { return true }
	}, nil},
	{"a lower revision comes with a newer seal", "I14", nil, func(accepted, candidate Release, revision RevisionOrder) Acceptance {
		if candidate.Number > accepted.Number {
			return Take
		}
		return Accept(accepted, candidate, revision)
	}},
	{"an incomparable revision is accepted", "I14", nil, func(accepted, candidate Release, revision RevisionOrder) Acceptance {
		if revision == Incomparable {
			revision = Newer
		}
		return Accept(accepted, candidate, revision)
	}},
	{"the newest revision wins, whatever its seal", "I14", nil, func(accepted, candidate Release, revision RevisionOrder) Acceptance {
		if revision == Newer {
			return Take
		}
		return Accept(accepted, candidate, revision)
	}},
}

// deaf to who was removed: its facts are forgotten, and its place with them.
type deaf struct{ Facts }

func (d deaf) Fact(plan fleet.Digest, m fleet.MemberID, k fleet.FactKind) (fleet.Digest, bool) {
	if d.Facts.Removed(m) {
		return fleet.Digest{}, false
	}
	return d.Facts.Fact(plan, m, k)
}

func (deaf) Removed(fleet.MemberID) bool { return false }

func everyone(fleet.MemberID) bool { return true }

func anyStop(stops []fleet.Command, is func(fleet.Command) bool) bool {
	for _, s := range stops {
		if is(s) {
			return true
		}
	}
	return false
}

// TestPlantedBugsAreFound: a checker that finds nothing proves nothing. Each bug must be found, and
// break the very invariant that its rule is there for.
func TestPlantedBugsAreFound(t *testing.T) {
	for _, bug := range planted {
		t.Run(bug.name, func(t *testing.T) {
			r, accept := sound, accepter(Accept)
			if bug.plant != nil {
				bug.plant(&r)
			}
			if bug.accept != nil {
				accept = bug.accept
			}
			others := map[string]int{}
			for seed := range uint64(6000) {
				w, err := newWorld(seeded{rand.New(rand.NewPCG(seed, 1))}, r.decide, accept)
				if err != nil {
					t.Fatal(err)
				}
				w.run(300)
				w.finish()
				if strings.Contains(w.violation, ": "+bug.breaks+":") {
					t.Logf("seed %d, %d members, %s", seed, len(w.actors), w.violation)
					return
				}
				if w.violation != "" {
					others[w.violation]++
				}
			}
			t.Errorf("%s was not broken in 6000 seeds; others: %v", bug.breaks, others)
		})
	}
}

// TestRulesTakenApart: without a bug in it, what the bugs are planted in decides as Decide does.
func TestRulesTakenApart(t *testing.T) {
	for seed := range uint64(200) {
		compared := func(w *world, p *Plan, f Facts, self fleet.MemberID) Decision {
			want, got := asBuilt(w, p, f, self), sound.decide(w, p, f, self)
			if got.Verdict != want.Verdict || got.Reason != want.Reason {
				t.Fatalf("seed %d: %s %d, want %s %d", seed, got.Verdict, got.Reason, want.Verdict, want.Reason)
			}
			return want
		}
		w, err := newWorld(seeded{rand.New(rand.NewPCG(seed, 3))}, compared, Accept)
		if err != nil {
			t.Fatal(err)
		}
		w.run(200)
	}
}
