// SPDX-License-Identifier: Apache-2.0

package lattice_test

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
	"github.com/flotilla-dev/flotilla/sequencer/lattice/latticetest"
)

// reconcile plays both sides of a session over all shares and gives what it cost.
func reconcile(salt lattice.Salt, here, there *lattice.Set) (asked, moved int) {
	shares := here.Shares()
	for _, share := range there.Shares() {
		if !slices.Contains(shares, share) {
			shares = append(shares, share)
		}
	}
	for _, share := range shares {
		a, m := reconcileShare(salt, share, here, there)
		asked, moved = asked+a, moved+m
	}
	return asked, moved
}

func reconcileShare(salt lattice.Salt, share lattice.Share, here, there *lattice.Set) (asked, moved int) {
	asks := []lattice.Prefix{{}}
	for len(asks) > 0 {
		at := asks[len(asks)-1]
		asks = asks[:len(asks)-1]
		asked++
		theirs := there.Summary(salt, share, at)
		if !theirs.Valid() {
			panic("a set made a summary that is not valid")
		}
		d := here.Diff(salt, share, theirs)
		for _, p := range d.Want {
			if r, ok := there.At(share, p); ok && here.Add(r).News {
				moved++
			}
		}
		for _, p := range d.Offer {
			if r, ok := here.At(share, p); ok && there.Add(r).News {
				moved++
			}
		}
		asks = append(asks, d.Ask...)
	}
	return asked, moved
}

func TestReconcileMakesEqual(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		here, there := lattice.New(), lattice.New()
		all := lattice.New()
		for i := range rapid.IntRange(0, 600).Draw(t, "records") {
			seq := uint64(rapid.IntRange(0, 2).Draw(t, "seq"))
			for side, s := range []*lattice.Set{here, there} {
				if rapid.IntRange(0, 3).Draw(t, fmt.Sprint("side", side)) == 0 {
					continue
				}
				r := register(fmt.Sprint(i), 1, seq+uint64(side))
				s.Add(r)
				all.Add(r)
			}
		}
		reconcile(lattice.Salt{7}, here, there)
		if here.Root() != all.Root() || there.Root() != all.Root() {
			t.Fatalf("%d and %d records after reconciling, want %d", here.Len(), there.Len(), all.Len())
		}
	})
}

func TestReconcileCostsWhatDiffers(t *testing.T) {
	const size, differ = 20_000, 10
	writers := []fleet.MemberID{latticetest.Writer(0), latticetest.Writer(1), latticetest.Writer(2), latticetest.Writer(3), latticetest.Writer(4)}
	here, there := lattice.New(), lattice.New()
	for i := range size {
		r := milestone(fmt.Sprint(i), 1, 1)
		r.Writer = writers[i%len(writers)]
		if i%(size/differ) != 0 {
			here.Add(r)
		}
		there.Add(r)
	}
	asked, moved := reconcile(lattice.Salt{1}, here, there)
	if moved != differ || here.Root() != there.Root() {
		t.Fatalf("%d records moved, want %d", moved, differ)
	}
	if most := 1 + differ*4; asked > most { // the root and at most log16(20,000/16)+1 levels below it
		t.Fatalf("asked for %d summaries, want at most %d", asked, most)
	}
	if asked, _ := reconcile(lattice.Salt{1}, here, there); asked != 1 {
		t.Fatalf("equal sets asked for %d summaries, want one", asked)
	}
}

func TestSaltChangesEveryTag(t *testing.T) {
	s := lattice.New()
	for i := range 300 {
		s.Add(milestone(fmt.Sprint(i), 1, 1))
	}
	a, b := s.Summary(lattice.Salt{1}, facts, lattice.Prefix{}), s.Summary(lattice.Salt{2}, facts, lattice.Prefix{})
	if !a.Divided {
		t.Fatal("300 records lie in one bucket")
	}
	for i := range a.Parts {
		if a.Parts[i] == b.Parts[i] {
			t.Errorf("part %d has one tag under two salts", i)
		}
	}
}

func TestInvalidSummaries(t *testing.T) {
	path := fleet.Digest{0xab}
	many := make([]lattice.Entry, lattice.MaxEntries+1)
	for name, m := range map[string]lattice.Summary{
		"digits behind the prefix": {At: lattice.Prefix{Path: path, Digits: 1}},
		"longer than a position":   {At: lattice.Prefix{Digits: 65}},
		"divided below the bottom": {At: lattice.Prefix{Digits: 64}, Divided: true},
		"divided with entries":     {Divided: true, Entries: many[:1]},
		"entry from elsewhere":     {At: lattice.Prefix{Path: path, Digits: 2}, Entries: []lattice.Entry{{}}},
		"too many entries":         {Entries: many},
	} {
		if m.Valid() {
			t.Errorf("%s: passes for valid", name)
		}
	}
	good := lattice.Summary{At: lattice.Prefix{Path: path, Digits: 2}, Entries: []lattice.Entry{{Position: fleet.Digest{0xab, 9}}}}
	if !good.Valid() {
		t.Error("a valid summary is refused")
	}
}
