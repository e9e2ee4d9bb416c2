// SPDX-License-Identifier: Apache-2.0

package readapi

import (
	"fmt"
	"testing"

	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/sequencer"
)

// crowd is a plan for many, half of whom are done.
type crowd map[fleet.MemberID]bool

func (c crowd) Fact(_ fleet.Digest, m fleet.MemberID, k fleet.FactKind) (fleet.Digest, bool) {
	done := k == fleet.Started || k == fleet.Succeeded || k == fleet.Soaked
	return fleet.Digest{}, c[m] && done
}

func (crowd) Commands(fleet.RolloutName) []fleet.Command { return nil }

func (crowd) Removed(fleet.MemberID) bool { return false }

func crowded(tb testing.TB, size int) Input {
	tb.Helper()
	var members []fleet.Member
	for i := range size {
		members = append(members, member(fleet.Name(fmt.Sprintf("c-%d", i))))
	}
	name := fleet.RolloutName{Namespace: "apps", Name: "web"}
	n := intstr.FromString("10%")
	spec := v1alpha1.FleetRolloutSpec{Strategy: &v1alpha1.Strategy{Pacing: v1alpha1.Pacing{MaxConcurrency: &n}}}
	sealed, err := sequencer.Seal(name, sequencer.Position{Author: fleet.AuthorGit, Number: 1}, spec, members)
	if err != nil {
		tb.Fatal(err)
	}
	plan, err := sequencer.Compile(sealed, "main@sha1:1")
	if err != nil {
		tb.Fatal(err)
	}
	facts := crowd{}
	for _, s := range plan.Stages[:len(plan.Stages)-1] {
		for _, m := range s.Members[:len(s.Members)/2+1] {
			facts[m.ID] = true
		}
	}
	return Input{Name: name, Plan: plan, Facts: facts, Self: members[0]}
}

// BenchmarkBuild is what each change costs an agent that somebody watches.
func BenchmarkBuild(b *testing.B) {
	for _, size := range []int{10, 100, 1000} {
		in := crowded(b, size)
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			for b.Loop() {
				if r := Build(in); len(r.Members) != size {
					b.Fatal(len(r.Members))
				}
			}
		})
	}
}
