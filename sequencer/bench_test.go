// SPDX-License-Identifier: Apache-2.0

package sequencer

import (
	"fmt"
	"testing"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

var benchSizes = []int{100, 1_000, 10_000}

func benchSeal(b *testing.B, n int) Sealed {
	b.Helper()
	targets := make([]fleet.Member, n)
	for i := range targets {
		targets[i] = member(fmt.Sprintf("c-%05d", i), fmt.Sprintf("region=r%d", i%10))
	}
	return sealOf(b, byGit, "", targets)
}

func BenchmarkCompile(b *testing.B) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := benchSeal(b, n)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Compile(s, revA); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// held is a ledger that has hashed its records beforehand, as a store has.
type held map[milestone]fleet.Digest

func (h held) Fact(plan fleet.Digest, m fleet.MemberID, k fleet.FactKind) (fleet.Digest, bool) {
	d, ok := h[milestone{plan, m, k}]
	return d, ok
}

func (held) Commands(fleet.RolloutName) []fleet.Command { return nil }

func (held) Removed(fleet.MemberID) bool { return false }

func (h held) say(p *Plan, m fleet.MemberID, kinds ...fleet.FactKind) {
	for _, k := range kinds {
		f := milestone{p.Digest, m, k}
		h[f] = f.record()
	}
}

// BenchmarkDecide asks for the last member of the plan: it looks at every other one. Waits: halfway
// through, nearly all that it waits for is missing. Goes: everything is there, and no permit is withheld.
func BenchmarkDecide(b *testing.B) {
	for _, n := range benchSizes {
		p, err := Compile(benchSeal(b, n), revA)
		if err != nil {
			b.Fatal(err)
		}
		last := p.Stages[len(p.Stages)-1]
		self := last.Members[len(last.Members)-1].ID
		waiting, going := held{}, held{}
		for i, s := range p.Stages {
			for _, m := range s.Members {
				if i < 2 {
					waiting.say(p, m.ID, fleet.Started, fleet.Succeeded, fleet.Soaked)
				}
				if m.ID != self {
					going.say(p, m.ID, fleet.Started, fleet.Succeeded, fleet.Soaked)
				}
			}
		}
		for _, tc := range []struct {
			name   string
			facts  held
			reason Reason
		}{{"waits", waiting, WaitsForStage}, {"goes", going, MayStart}} {
			b.Run(fmt.Sprintf("%s/%d", tc.name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if d := Decide(p, tc.facts, self, at(0)); d.Reason != tc.reason {
						b.Fatal(d.Because())
					}
				}
			})
		}
		b.Run(fmt.Sprintf("tallies/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if got := Tallies(p, waiting); !got[1].Passed {
					b.Fatal("the second stage has not passed")
				}
			}
		})
	}
}
