// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"crypto/ed25519"
	"fmt"
	"testing"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/selection"
	"github.com/flotilla-dev/flotilla/sequencer"
)

// said is what a member has heard, in the shape that the agent's ledger has.
type said map[fleet.MemberID]map[stated]fleet.Digest

type stated struct {
	plan fleet.Digest
	kind fleet.FactKind
}

func (s said) Fact(plan fleet.Digest, m fleet.MemberID, k fleet.FactKind) (fleet.Digest, bool) {
	d, ok := s[m][stated{plan, k}]
	return d, ok
}

func (said) Commands(fleet.RolloutName) []fleet.Command { return nil }
func (said) Removed(fleet.MemberID) bool                { return false }

// decision is everything from a roster and a spec to whether one member may start: the last one of the plan, who looks
// at all others.
type decision struct {
	roster []fleet.Member
	spec   v1alpha1.FleetRolloutSpec
}

func newDecision(size int) decision {
	var d decision
	for i := range size {
		key := fleet.DigestOf("flotilla.dev/bench", []byte(fmt.Sprint(i)))
		d.roster = append(d.roster, fleet.Member{
			ID: fleet.MemberIDOf(ed25519.PublicKey(key[:])), Name: fleet.Name(fmt.Sprintf("c%05d", i)), Incarnation: 1,
			Labels: map[string]string{"region": fmt.Sprintf("r%d", i%10), "tier": "edge"},
		})
	}
	d.spec.Source = v1alpha1.Source{Git: &v1alpha1.GitSource{URL: "https://git.example.com/web"}, Path: "app"}
	d.spec.Targets.MatchLabels = map[string]string{"tier": "edge"}
	return d
}

func (d *decision) plan(b *testing.B) *sequencer.Plan {
	selected, err := selection.Select(d.spec.Targets, d.roster)
	if err != nil {
		b.Fatal(err)
	}
	at := sequencer.Position{Author: fleet.AuthorGit, Number: 1}
	sealed, err := sequencer.Seal(fleet.RolloutName{Namespace: "shop", Name: "web"}, at, d.spec, selected.Members)
	if err != nil {
		b.Fatal(err)
	}
	plan, err := sequencer.Compile(sealed, "main@sha1:0000000000000000000000000000000000000001")
	if err != nil {
		b.Fatal(err)
	}
	return plan
}

// BenchmarkDecision: "full" selects, seals, compiles and decides; "one new fact" decides with one fact more, by the
// plan that is remembered, as every turn does.
func BenchmarkDecision(b *testing.B) {
	for _, size := range []int{1_000, 10_000} {
		d := newDecision(size)
		plan := d.plan(b)
		facts := said{}
		var self, other fleet.MemberID
		for i, stage := range plan.Stages {
			for rank, m := range stage.Members {
				self = m.ID
				// Everybody before the last stage has soaked, and half of the last one.
				if i < len(plan.Stages)-1 || rank < len(stage.Members)/2 {
					facts[m.ID] = map[stated]fleet.Digest{}
					for _, kind := range []fleet.FactKind{fleet.Accepted, fleet.Started, fleet.Succeeded, fleet.Soaked} {
						facts[m.ID][stated{plan.Digest, kind}] = fleet.DigestOf("flotilla.dev/bench", []byte(m.ID), []byte{byte(kind)})
					}
					other = m.ID
				}
			}
		}
		b.Run(fmt.Sprintf("full/%d", size), func(b *testing.B) {
			b.ReportAllocs()
			began := processorTime(b)
			for b.Loop() {
				if r := sequencer.Decide(d.plan(b), facts, self, fleet.Moment{}); r.Reason != sequencer.WaitsForSlot {
					b.Fatal(r.Because())
				}
			}
			b.ReportMetric(float64((processorTime(b)-began).Microseconds())/float64(b.N)/1000, "cpu-ms/op")
		})
		b.Run(fmt.Sprintf("one new fact/%d", size), func(b *testing.B) {
			key := stated{plan.Digest, fleet.Succeeded}
			word := facts[other][key]
			b.ReportAllocs()
			began := processorTime(b)
			for b.Loop() {
				delete(facts[other], key)
				facts[other][key] = word
				if r := sequencer.Decide(plan, facts, self, fleet.Moment{}); r.Reason != sequencer.WaitsForSlot {
					b.Fatal(r.Because())
				}
			}
			b.ReportMetric(float64((processorTime(b)-began).Microseconds())/float64(b.N)/1000, "cpu-ms/op")
		})
	}
}
