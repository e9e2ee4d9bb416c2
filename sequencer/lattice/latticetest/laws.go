// SPDX-License-Identifier: Apache-2.0

// Package latticetest answers: is this set of records a join, whoever wrote it?
package latticetest

import (
	"crypto/ed25519"
	"iter"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
)

// Set is what the laws are about.
type Set[S any] interface {
	Add(fleet.Record) lattice.Change
	Merge(S) (news []fleet.Record)
	All() iter.Seq[fleet.Record]
	Root() fleet.Digest
}

// Laws checks an implementation on random records that often meet under one key: merging is
// commutative, associative and idempotent; news is exactly what changed the set; equal sets have
// equal roots and others do not; and the outcome is what a plain loop over everything said comes to. These hold
// of every pair of sets as long as nobody retires anything; what holds with floors and with time is Interleave's.
func Laws[S Set[S]](t *testing.T, empty func() S) {
	of := func(records []fleet.Record) S {
		s := empty()
		for _, r := range records {
			s.Add(r)
		}
		return s
	}
	law := func(name string, check func(*rapid.T)) {
		t.Run(name, func(t *testing.T) { rapid.Check(t, check) })
	}
	law("commutative", func(t *rapid.T) {
		a, b := draw(t, "a"), draw(t, "b")
		ab, ba := of(a), of(b)
		ab.Merge(of(b))
		ba.Merge(of(a))
		wantEqual(t, ab, ba)
	})
	law("associative", func(t *rapid.T) {
		a, b, c := draw(t, "a"), draw(t, "b"), draw(t, "c")
		left, right, tail := of(a), of(a), of(b)
		left.Merge(of(b))
		left.Merge(of(c))
		tail.Merge(of(c))
		right.Merge(tail)
		wantEqual(t, left, right)
	})
	law("idempotent", func(t *rapid.T) {
		a := draw(t, "a")
		s := of(a)
		before := contents(s)
		if news := s.Merge(of(a)); len(news) > 0 {
			t.Fatalf("merging what is held gave %d news", len(news))
		}
		if !slices.Equal(before, contents(s)) {
			t.Fatal("merging what is held changed the set")
		}
	})
	law("order does not matter", func(t *rapid.T) {
		a := draw(t, "a")
		wantEqual(t, of(a), of(rapid.Permutation(a).Draw(t, "shuffled")))
	})
	law("news is what changed", func(t *rapid.T) { newsIsWhatChanged(t, of) })
	law("as a plain loop has it", func(t *rapid.T) {
		a := draw(t, "a")
		if got, want := contents(of(a)), digests(Reference(a, 0)); !slices.Equal(got, want) {
			t.Fatalf("set of %d records, want %d", len(got), len(want))
		}
	})
}

func newsIsWhatChanged[S Set[S]](t *rapid.T, of func([]fleet.Record) S) {
	a, b := draw(t, "a"), draw(t, "b")
	one, merged := of(a), of(a)
	var said []fleet.Digest
	for r := range of(b).All() {
		before, root := contents(one), one.Root()
		news := one.Add(r).News
		if changed := !slices.Equal(before, contents(one)); news != changed {
			t.Fatalf("Add said news=%v, and the set changed=%v", news, changed)
		}
		if news == (root == one.Root()) {
			t.Fatalf("Add said news=%v, and the root did not follow", news)
		}
		if news {
			said = append(said, r.Digest())
		}
	}
	var got []fleet.Digest
	for _, r := range merged.Merge(of(b)) {
		got = append(got, r.Digest())
	}
	if !slices.Equal(got, said) {
		t.Fatalf("Merge gave %d news, one by one there were %d", len(got), len(said))
	}
}

func wantEqual[S Set[S]](t *rapid.T, a, b S) {
	equal := slices.Equal(contents(a), contents(b))
	if !equal {
		t.Fatal("the two sets differ")
	}
	if a.Root() != b.Root() {
		t.Fatal("equal sets with different roots")
	}
}

// contents are the digests of all records, sorted.
func contents[S Set[S]](s S) []fleet.Digest {
	return digests(slices.Collect(s.All()))
}

// draw gives records of few writers, keys and positions, so that most of them meet another.
func draw(t *rapid.T, label string) []fleet.Record {
	return rapid.SliceOfN(rapid.Custom(drawRecord), 0, 60).Draw(t, label)
}

func drawRecord(t *rapid.T) fleet.Record {
	kinds := []fleet.Kind{fleet.KindSeal, fleet.KindFact, fleet.KindCommand, 77, fleet.KindRegister, 200}
	return fleet.Record{
		Fleet:  fleet.DigestOf("test", []byte("fleet")),
		Writer: Writer(rapid.IntRange(0, 2).Draw(t, "writer")),
		Epoch:  rapid.Uint64Range(0, 2).Draw(t, "epoch"),
		Seq:    rapid.Uint64Range(0, 3).Draw(t, "seq"),
		Kind:   rapid.SampledFrom(kinds).Draw(t, "kind"),
		Key:    rapid.StringMatching("[a-e]{1,2}|r/[1-9]").Draw(t, "key"),
		Body:   rapid.SliceOfN(rapid.Byte(), 0, 1).Draw(t, "body"),
		Sig:    make([]byte, ed25519.SignatureSize),
	}
}

// Key is the i-th of a fixed row of keys, for tests.
func Key(i int) ed25519.PrivateKey {
	seed := fleet.DigestOf("flotilla.dev/test-key", []byte{byte(i >> 8), byte(i)})
	return ed25519.NewKeyFromSeed(seed[:])
}

// Writer is the ID of Key(i).
func Writer(i int) fleet.MemberID {
	return fleet.MemberIDOf(Key(i).Public().(ed25519.PublicKey))
}
