// SPDX-License-Identifier: Apache-2.0

package lattice_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
	"github.com/flotilla-dev/flotilla/sequencer/lattice/latticetest"
)

func register(key string, epoch, seq uint64) fleet.Record {
	return fleet.Record{Writer: writer, Kind: fleet.KindRegister, Key: key, Epoch: epoch, Seq: seq, Sig: make([]byte, 64)}
}

func milestone(key string, epoch, seq uint64) fleet.Record {
	return fleet.Record{Writer: writer, Kind: fleet.KindFact, Key: key, Epoch: epoch, Seq: seq, Sig: make([]byte, 64)}
}

var writer = latticetest.Writer(0)

// facts is the share in which milestones lie.
var facts = lattice.Share{Scope: fleet.ScopeMilestones}

func TestWhichRecordStays(t *testing.T) {
	for _, c := range []struct {
		name string
		said []fleet.Record
		want [2]uint64
	}{
		{"a register's newest", []fleet.Record{register("k", 1, 5), register("k", 2, 1), register("k", 1, 9)}, [2]uint64{2, 1}},
		{"a replayed register does not win", []fleet.Record{register("k", 1, 6), register("k", 1, 5)}, [2]uint64{1, 6}},
		{"a milestone's first", []fleet.Record{milestone("k", 2, 1), milestone("k", 1, 7), milestone("k", 3, 1)}, [2]uint64{1, 7}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := lattice.New()
			for _, r := range c.said {
				s.Add(r)
			}
			got, ok := s.Get(writer, c.said[0].Kind, "k")
			if !ok || [2]uint64{got.Epoch, got.Seq} != c.want || s.Len() != 1 {
				t.Fatalf("%d records, (epoch, seq) %d.%d, want %v", s.Len(), got.Epoch, got.Seq, c.want)
			}
		})
	}
}

func TestWantsForetellsAdd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := lattice.New()
		for range 30 {
			r := register(rapid.SampledFrom([]string{"a", "b"}).Draw(t, "key"),
				rapid.Uint64Range(0, 2).Draw(t, "epoch"), rapid.Uint64Range(0, 2).Draw(t, "seq"))
			wanted := s.Wants(&r)
			if news := s.Add(r).News; news != wanted {
				t.Fatalf("Wants said %v, Add %v", wanted, news)
			}
		}
	})
}

// TestEqualSetsEqualRoots: on sets so large that the trie divides, roots are equal exactly when sets are.
func TestEqualSetsEqualRoots(t *testing.T) {
	keys := rapid.SliceOfN(rapid.IntRange(0, 2000), 0, 400)
	rapid.Check(t, func(t *rapid.T) {
		a := keys.Draw(t, "a")
		b := rapid.OneOf(rapid.Permutation(a), keys).Draw(t, "b")
		inA, inB := map[int]bool{}, map[int]bool{}
		one, other := lattice.New(), lattice.New()
		for _, k := range a {
			inA[k] = true
			one.Add(milestone(fmt.Sprint(k), 1, 1))
			if k%7 == 0 {
				one.Root() // settles half-way
			}
		}
		for _, k := range b {
			inB[k] = true
			other.Add(milestone(fmt.Sprint(k), 1, 1))
		}
		if equal := maps.Equal(inA, inB); equal != (one.Root() == other.Root()) {
			t.Fatalf("sets of %d and %d equal=%v, and the roots say otherwise", len(inA), len(inB), equal)
		}
	})
}

func TestRootFollowsEveryBit(t *testing.T) {
	base := func() fleet.Record { return register("k", 1, 1) }
	roots := map[fleet.Digest]string{}
	for name, change := range map[string]func(*fleet.Record){
		"as it is": func(*fleet.Record) {},
		"fleet":    func(r *fleet.Record) { r.Fleet[0] = 1 },
		"writer":   func(r *fleet.Record) { r.Writer = latticetest.Writer(1) },
		"epoch":    func(r *fleet.Record) { r.Epoch++ },
		"seq":      func(r *fleet.Record) { r.Seq++ },
		"kind":     func(r *fleet.Record) { r.Kind++ },
		"key":      func(r *fleet.Record) { r.Key = "l" },
		"body":     func(r *fleet.Record) { r.Body = []byte{0} },
		"sig":      func(r *fleet.Record) { r.Sig[63] = 1 },
	} {
		r := base()
		change(&r)
		s := lattice.New()
		s.Add(r)
		if other, taken := roots[s.Root()]; taken {
			t.Errorf("%q and %q have one root", name, other)
		}
		roots[s.Root()] = name
	}
}

func TestEmptySet(t *testing.T) {
	s := lattice.New()
	if !s.Root().IsZero() || s.Len() != 0 || len(slices.Collect(s.All())) != 0 {
		t.Fatal("an empty set is not empty")
	}
	if _, ok := s.Get(writer, fleet.KindFact, "k"); ok {
		t.Fatal("an empty set has a record")
	}
	if _, ok := s.At(facts, fleet.Digest{}); ok {
		t.Fatal("an empty set has a position")
	}
}

// TestWhoLeftStaysReadable: what a member said before it left the roster stays, and roots are equal with those who
// never heard it.
func TestWhoLeftStaysReadable(t *testing.T) {
	gone := latticetest.Writer(1)
	old, newcomer := lattice.New(), lattice.New()
	for i := range 100 {
		r := milestone(fmt.Sprint(i), 1, uint64(i))
		old.Add(r)
		newcomer.Add(r)
		r.Writer = gone
		old.Add(r)
	}
	full := old.Root()
	old.Divide(lattice.Division{ZoneOf: func(w fleet.MemberID) (string, bool) { return "", w != gone }})
	if old.Root() != newcomer.Root() {
		t.Error("roots differ by what only a former member said")
	}
	if _, ok := old.Get(gone, fleet.KindFact, "7"); !ok || old.Len() != 200 || len(slices.Collect(old.All())) != 200 {
		t.Error("what a former member said is gone")
	}
	if _, ok := old.At(facts, lattice.Position(gone, fleet.KindFact, "7")); ok {
		t.Error("what a former member said is still given to others")
	}
	late := milestone("late", 1, 1)
	late.Writer = gone
	old.Add(late)
	if old.Root() != newcomer.Root() {
		t.Error("a former member's record moved the root")
	}
	old.Divide(lattice.Division{})
	newcomer.Merge(old)
	if old.Root() != newcomer.Root() || old.Root() == full {
		t.Error("who came back does not count again")
	}
}
