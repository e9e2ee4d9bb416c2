// SPDX-License-Identifier: Apache-2.0

package fleet_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

func TestRecordRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := anyRecord(t)
		got, err := fleet.DecodeRecord(want.Encode())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("-want +got:\n%s", diff)
		}
		if err := got.Verify(want.Fleet); err != nil {
			t.Fatal(err)
		}
		if got.Digest() != want.Digest() {
			t.Fatal("the digest changed on the way")
		}
	})
}

func TestFactRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := fleet.Fact{
			Plan: anyDigest(t), Kind: fleet.FactKind(rapid.Byte().Draw(t, "kind")), Member: memberOf(1),
			Detail: rapid.String().Draw(t, "detail"), Time: rapid.Int64().Draw(t, "time"),
		}
		r := travelled(t, factRecord(want))
		got, err := fleet.DecodeFact(&r)
		if err != nil {
			t.Fatal(err)
		}
		want.Detail = fleet.Cut(want.Detail)
		if got != want {
			t.Fatalf("got %+v, want %+v", got, want)
		}
	})
}

func TestCommandRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := fleet.Command{
			Rollout: anyRollout(t), Verb: fleet.Verb(rapid.Byte().Draw(t, "verb")),
			Lifts:  rapid.SliceOfN(rapid.Custom(anyDigest), 0, fleet.MaxLifts).Draw(t, "lifts"),
			Reason: rapid.String().Draw(t, "reason"), By: memberOf(1), Time: rapid.Int64().Draw(t, "time"),
		}
		r := travelled(t, commandRecord(want))
		got, err := fleet.DecodeCommand(&r)
		if err != nil {
			t.Fatal(err)
		}
		want.Reason, want.ID = fleet.Cut(want.Reason), r.Digest()
		if len(want.Lifts) == 0 {
			want.Lifts = nil
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("-want +got:\n%s", diff)
		}
	})
}

func TestSealRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := anySeal(t)
		r := travelled(t, sealRecord(want))
		got, err := fleet.DecodeSeal(&r)
		if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Fatalf("got %+v, want %+v", got, want)
		}
		if got.Digest() != want.Digest() || got.Content() != want.Content() {
			t.Fatal("a digest changed on the way")
		}
	})
}

// Whatever is changed in a seal changes its digest; only its position leaves the content alone.
func TestSealDigestCoversEverything(t *testing.T) {
	changes := map[string]func(*fleet.Seal){
		"namespace": func(s *fleet.Seal) { s.Rollout.Namespace += "x" },
		"name":      func(s *fleet.Seal) { s.Rollout.Name += "x" },
		"moved": func(s *fleet.Seal) {
			s.Rollout = fleet.RolloutName{Namespace: s.Rollout.Namespace + "c", Name: s.Rollout.Name[1:]}
		},
		"author":  func(s *fleet.Seal) { s.Author = fleet.AuthorGit },
		"compile": func(s *fleet.Seal) { s.CompileVersion ^= 0x100 },
		"spec":    func(s *fleet.Seal) { s.Spec[31]++ },
		"members": func(s *fleet.Seal) { s.Members[0]++ },
		"term":    func(s *fleet.Seal) { s.Term++ },
		"number":  func(s *fleet.Seal) { s.Number++ },
	}
	for what, change := range changes {
		before, after := sampleSeal(), sampleSeal()
		change(&after)
		if before.Digest() == after.Digest() {
			t.Errorf("%s: the digest stayed", what)
		}
		position := what == "term" || what == "number"
		if same := before.Content() == after.Content(); same != position {
			t.Errorf("%s: same content = %v, want %v", what, same, position)
		}
	}
}

func TestStatusRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := fleet.Status{
			Rollout: anyRollout(t), Accepted: fleet.Revision(rapid.String().Draw(t, "accepted")),
			Seal: anyDigest(t), Plan: anyDigest(t), Installed: fleet.Revision(rapid.String().Draw(t, "installed")),
			Phase: rapid.String().Draw(t, "phase"), Because: rapid.String().Draw(t, "because"),
			Objects: rapid.Int().Draw(t, "objects"), Time: rapid.Int64().Draw(t, "time"),
		}
		body, err := want.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := fleet.DecodeStatus(&fleet.Record{
			Kind: fleet.KindRegister, Key: fleet.StatusKey(want.Rollout), Body: body,
		})
		if err != nil {
			t.Fatal(err)
		}
		want.Phase, want.Because = fleet.Cut(want.Phase), fleet.Cut(want.Because)
		if got != want {
			t.Fatalf("got %+v, want %+v", got, want)
		}
	})
}

func TestHeartbeatRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := fleet.Heartbeat{
			Fleet: anyDigest(t), Nonce: [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "nonce")),
			Counter: rapid.Uint64().Draw(t, "counter"), Root: anyDigest(t), Time: rapid.Int64().Draw(t, "time"),
		}
		want.Sign(keyOf(rapid.Byte().Draw(t, "writer")))
		b := want.Encode()
		if len(b) > fleet.MaxHeartbeat {
			t.Fatalf("%d bytes, at most %d", len(b), fleet.MaxHeartbeat)
		}
		got, err := fleet.DecodeHeartbeat(b)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("-want +got:\n%s", diff)
		}
		if err := got.Verify(want.Fleet); err != nil {
			t.Fatal(err)
		}
	})
}

// A decoded record shares no memory with the bytes it came from: a network buffer is used again.
func TestDecodeCopies(t *testing.T) {
	want := signed(t, factRecord(sampleFact()))
	b := want.Encode()
	got, err := fleet.DecodeRecord(b)
	if err != nil {
		t.Fatal(err)
	}
	clear(b)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestBounds(t *testing.T) {
	frame := len(signedEmpty(t).Encode())
	for _, c := range []struct {
		what string
		r    fleet.Record
		want error
	}{
		{"as large as may be", fleet.Record{Body: make([]byte, fleet.MaxRecord-frame)}, nil},
		{"a byte more", fleet.Record{Body: make([]byte, fleet.MaxRecord-frame+1)}, fleet.ErrTooLarge},
		{"more than a length field holds", fleet.Record{Body: make([]byte, 1<<16+10)}, fleet.ErrTooLarge},
		{"longest key", fleet.Record{Key: strings.Repeat("k", fleet.MaxKey)}, nil},
		{"longer key", fleet.Record{Key: strings.Repeat("k", fleet.MaxKey+1)}, fleet.ErrTooLarge},
		{"key is no UTF-8", fleet.Record{Key: "a\xff"}, fleet.ErrMalformed},
		{"key with a line break", fleet.Record{Key: "a\nb"}, fleet.ErrMalformed},
		{"longest register", fleet.Record{Kind: fleet.KindRegister, Body: make([]byte, fleet.MaxRegister)}, nil},
		{"longer register", fleet.Record{Kind: fleet.KindRegister, Body: make([]byte, fleet.MaxRegister+1)}, fleet.ErrTooLarge},
		{"register of another kind", fleet.Record{Kind: 200, Body: make([]byte, fleet.MaxRegister+1)}, nil},
	} {
		t.Run(c.what, func(t *testing.T) {
			err := c.r.Sign(keyOf(1))
			if !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if _, err := fleet.DecodeRecord(c.r.Encode()); c.want == nil && err != nil {
				t.Errorf("Sign took what DecodeRecord refuses: %v", err)
			}
		})
	}
	for _, n := range []int{fleet.MaxRecord + 1, 1 << 20} {
		if _, err := fleet.DecodeRecord(make([]byte, n)); !errors.Is(err, fleet.ErrMalformed) {
			t.Errorf("record of %d bytes: got %v", n, err)
		}
	}
	if _, err := fleet.DecodeHeartbeat(make([]byte, fleet.MaxHeartbeat+1)); !errors.Is(err, fleet.ErrMalformed) {
		t.Errorf("large heartbeat: got %v", err)
	}
}

// The keys of the longest names fit.
func TestLongestKeysFit(t *testing.T) {
	name := fleet.RolloutName{Namespace: strings.Repeat("n", 63), Name: strings.Repeat("r", 253)}
	seal := sampleSeal()
	seal.Rollout, seal.Term, seal.Number = name, ^uint64(0), ^uint64(0)
	for _, key := range []string{
		seal.SealKey(), fleet.StatusKey(name), fleet.FactKey(seal.Spec, fleet.Succeeded),
		fleet.RollupKey(strings.Repeat("z", 63), name), fleet.ProofKey(memberOf(1)), fleet.FloorKey(255),
	} {
		if len(key) > fleet.MaxKey {
			t.Errorf("key of %d bytes, at most %d: %s", len(key), fleet.MaxKey, key)
		}
	}
}

// Keys of seals sort as the seals do, so that a member may look up the newest by key order.
func TestSealKeysSortAsSealsDo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := anySeal(t), anySeal(t)
		b.Rollout = a.Rollout
		older := a.Term < b.Term || a.Term == b.Term && a.Number < b.Number
		if got := a.SealKey() < b.SealKey(); got != older {
			t.Fatalf("%q < %q is %v, want %v", a.SealKey(), b.SealKey(), got, older)
		}
	})
}

// Of two records of one writer exactly one is newer, and any order of arrival keeps the same one.
func TestNewerIsATotalOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		position := rapid.Uint64Range(0, 2)
		some := make([]fleet.Record, 3)
		for i := range some {
			some[i] = fleet.Record{
				Epoch: position.Draw(t, "epoch"), Seq: position.Draw(t, "seq"),
				Body: rapid.SliceOfN(rapid.Byte(), 0, 2).Draw(t, "body"),
			}
			if err := some[i].Sign(keyOf(1)); err != nil {
				t.Fatal(err)
			}
		}
		a, b, c := &some[0], &some[1], &some[2]
		if same := bytes.Equal(a.Encode(), b.Encode()); a.Newer(b) == b.Newer(a) != same {
			t.Fatalf("newer both ways: %v, same record: %v", a.Newer(b), same)
		}
		if a.Newer(b) && b.Newer(c) && !a.Newer(c) {
			t.Fatal("not transitive")
		}
		if a.Epoch > b.Epoch && !a.Newer(b) || a.Epoch == b.Epoch && a.Seq > b.Seq && !a.Newer(b) {
			t.Fatal("a later position is not newer")
		}
	})
}

func TestKindsAndWords(t *testing.T) {
	for k := range 256 {
		if got, want := fleet.Kind(k).IsRegister(), k >= 128; got != want {
			t.Errorf("kind %d: register = %v, want %v", k, got, want)
		}
	}
	words := map[string]int{}
	for k := fleet.FactKind(1); k <= fleet.Yielded; k++ {
		words[k.String()]++
	}
	for _, v := range []fleet.Verb{fleet.Pause, fleet.Resume, fleet.Withdraw} {
		words[v.String()]++
	}
	for _, k := range []fleet.Kind{fleet.KindSeal, fleet.KindFact, fleet.KindCommand, fleet.KindRegister} {
		words[k.String()]++
	}
	for _, k := range []fleet.Kind{fleet.KindProof, fleet.KindFloor, fleet.KindRollup, fleet.KindReach} {
		words[k.String()]++
	}
	if len(words) != 8+3+8 || words["Unknown"]+words["unknown"] != 0 {
		t.Errorf("every word once: %v", words)
	}
	for _, s := range []string{fleet.FactKind(0).String(), fleet.FactKind(200).String(), fleet.Verb(9).String()} {
		if s != "Unknown" {
			t.Errorf("got %q for what this version does not know", s)
		}
	}
}

func signedEmpty(t testing.TB) *fleet.Record {
	r := signed(t, fleet.Record{})
	return &r
}

// travelled is what arrives of a record at another member.
func travelled(t *rapid.T, r fleet.Record) fleet.Record {
	if err := r.Sign(keyOf(1)); err != nil {
		t.Fatal(err)
	}
	got, err := fleet.DecodeRecord(r.Encode())
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func anyDigest(t *rapid.T) fleet.Digest {
	return fleet.Digest(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "digest"))
}

func anyRollout(t *rapid.T) fleet.RolloutName {
	return fleet.RolloutName{
		Namespace: rapid.StringMatching(`[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?`).Draw(t, "namespace"),
		Name:      rapid.StringMatching(`[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?`).Draw(t, "name"),
	}
}

func anySeal(t *rapid.T) fleet.Seal {
	return fleet.Seal{
		Rollout: anyRollout(t), Author: string(memberOf(1)), Term: rapid.Uint64().Draw(t, "term"),
		Number: rapid.Uint64().Draw(t, "number"), CompileVersion: rapid.Uint16().Draw(t, "compile"),
		Spec: anyDigest(t), Members: anyDigest(t),
	}
}

// anyRecord is signed; its kind and body need not mean anything here.
func anyRecord(t *rapid.T) fleet.Record {
	r := fleet.Record{
		Fleet: anyDigest(t), Epoch: rapid.Uint64().Draw(t, "epoch"), Seq: rapid.Uint64().Draw(t, "seq"),
		Kind: fleet.Kind(rapid.Byte().Draw(t, "kind")), Key: fleet.Cut(rapid.String().Draw(t, "key")),
	}
	most := 7 << 10
	if r.Kind == fleet.KindRegister {
		most = fleet.MaxRegister
	}
	if n := rapid.IntRange(0, most).Draw(t, "size"); n > 0 {
		r.Body = bytes.Repeat([]byte{rapid.Byte().Draw(t, "body")}, n)
	}
	if err := r.Sign(keyOf(rapid.Byte().Draw(t, "writer"))); err != nil {
		t.Fatal(err)
	}
	return r
}
