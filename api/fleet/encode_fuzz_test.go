// SPDX-License-Identifier: Apache-2.0

package fleet_test

import (
	"bytes"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// Every decoder meets bytes of strangers. None may panic, and what is taken is canonical: writing it
// again gives the same bytes, or one statement could have two digests.

func FuzzDecodeRecord(f *testing.F) {
	for _, r := range sampleRecords(f) {
		f.Add(r.Encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := fleet.DecodeRecord(b)
		if err != nil {
			return
		}
		if again := r.Encode(); !bytes.Equal(again, b) {
			t.Fatalf("two encodings of one record:\n%x\n%x", b, again)
		}
		if len(b) > fleet.MaxRecord || len(r.Key) > fleet.MaxKey || !utf8.ValidString(r.Key) {
			t.Fatalf("over the bounds: %d bytes, key %q", len(b), r.Key)
		}
		if _, err := r.Writer.PublicKey(); err != nil {
			t.Fatalf("a writer without a key: %v", err)
		}
	})
}

func FuzzDecodeHeartbeat(f *testing.F) {
	h := sampleHeartbeat()
	f.Add(h.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := fleet.DecodeHeartbeat(b)
		if err != nil {
			return
		}
		if again := h.Encode(); !bytes.Equal(again, b) {
			t.Fatalf("two encodings of one heartbeat:\n%x\n%x", b, again)
		}
	})
}

func FuzzDecodeFact(f *testing.F) {
	addBodies(f)
	f.Fuzz(func(t *testing.T, key string, body []byte) {
		r := fleet.Record{Writer: memberOf(1), Kind: fleet.KindFact, Key: key, Body: body}
		fact, err := fleet.DecodeFact(&r)
		if err != nil {
			return
		}
		if again := fact.Encode(); !bytes.Equal(again, body) {
			t.Fatalf("two encodings of one fact:\n%x\n%x", body, again)
		}
		if fact.Member != r.Writer || fleet.FactKey(fact.Plan, fact.Kind) != key || fleet.Cut(fact.Detail) != fact.Detail {
			t.Fatalf("under key %q: %+v", key, fact)
		}
	})
}

func FuzzDecodeCommand(f *testing.F) {
	addBodies(f)
	f.Fuzz(func(t *testing.T, key string, body []byte) {
		r := fleet.Record{Writer: memberOf(1), Kind: fleet.KindCommand, Key: key, Body: body}
		command, err := fleet.DecodeCommand(&r)
		if err != nil {
			return
		}
		if again := command.Encode(); !bytes.Equal(again, body) {
			t.Fatalf("two encodings of one command:\n%x\n%x", body, again)
		}
		if command.By != r.Writer || command.ID != r.Digest() || len(command.Lifts) > fleet.MaxLifts {
			t.Fatalf("got %+v", command)
		}
	})
}

func FuzzDecodeSeal(f *testing.F) {
	addBodies(f)
	f.Fuzz(func(t *testing.T, key string, body []byte) {
		r := fleet.Record{Writer: memberOf(1), Kind: fleet.KindSeal, Key: key, Body: body}
		seal, err := fleet.DecodeSeal(&r)
		if err != nil {
			return
		}
		if again := seal.Encode(); !bytes.Equal(again, body) {
			t.Fatalf("two encodings of one seal:\n%x\n%x", body, again)
		}
		if seal.Author != string(r.Writer) || seal.SealKey() != key {
			t.Fatalf("under key %q: %+v", key, seal)
		}
	})
}

// A status is JSON and grows by fields: it has no one encoding, but what is read stays as it is read.
func FuzzDecodeStatus(f *testing.F) {
	addBodies(f)
	f.Add("status//", []byte("null"))
	f.Add("status/a/b", []byte(`{"rollout":{"namespace":"a","name":"b"},"phase":"p","time":1,"new":[{}]}`))
	f.Fuzz(func(t *testing.T, key string, body []byte) {
		r := fleet.Record{Writer: memberOf(1), Kind: fleet.KindRegister, Key: key, Body: body}
		status, err := fleet.DecodeStatus(&r)
		if err != nil {
			return
		}
		if r.Body, err = status.Encode(); err != nil {
			t.Fatal(err)
		}
		again, err := fleet.DecodeStatus(&r)
		if err != nil || again != status {
			t.Fatalf("read %+v, then %+v, %v", status, again, err)
		}
		if len(status.Because) > fleet.MaxDetail || len(status.Phase) > fleet.MaxDetail {
			t.Fatalf("over the bounds: %+v", status)
		}
	})
}

func FuzzDecodeFloor(f *testing.F) {
	addBodies(f)
	f.Fuzz(func(t *testing.T, key string, body []byte) {
		r := fleet.Record{Writer: memberOf(1), Kind: fleet.KindFloor, Key: key, Body: body}
		floor, err := fleet.DecodeFloor(&r)
		if err != nil {
			return
		}
		if again := floor.Encode(); !bytes.Equal(again, body) {
			t.Fatalf("two encodings of one floor:\n%x\n%x", body, again)
		}
		if floor.Writer != r.Writer || fleet.FloorKey(floor.Kind) != key || len(floor.Keep) > fleet.MaxKeep || floor.Retires(&r) {
			t.Fatalf("under key %q: %+v", key, floor)
		}
	})
}

func FuzzDecodeProof(f *testing.F) {
	addBodies(f)
	f.Fuzz(func(t *testing.T, key string, body []byte) {
		r := fleet.Record{Fleet: ourFleet, Writer: memberOf(1), Kind: fleet.KindProof, Key: key, Body: body}
		proof, err := fleet.DecodeProof(&r)
		if err != nil {
			return
		}
		if again, ok := proof.Encode(); !ok || !bytes.Equal(again, body) {
			t.Fatalf("two encodings of one proof:\n%x\n%x", body, again)
		}
		if fleet.ProofKey(proof.A.Writer) != key || proof.A.Verify(ourFleet) != nil || proof.B.Verify(ourFleet) != nil {
			t.Fatalf("under key %q: %+v", key, proof)
		}
	})
}

// A rollup is JSON like a status.
func FuzzDecodeRollup(f *testing.F) {
	addBodies(f)
	f.Add("rollup///", []byte("null"))
	f.Add("rollup/z/a/b", []byte(`{"rollout":{"namespace":"a","name":"b"},"zone":"z","stages":[{"counts":{"x":-1}}],"time":1,"new":[{}]}`))
	f.Fuzz(func(t *testing.T, key string, body []byte) {
		r := fleet.Record{Writer: memberOf(1), Kind: fleet.KindRollup, Key: key, Body: body}
		rollup, err := fleet.DecodeRollup(&r)
		if err != nil {
			return
		}
		last, expires := r.Expires()
		if r.Body, err = rollup.Encode(); err != nil {
			t.Fatal(err)
		}
		again, err := fleet.DecodeRollup(&r)
		if err != nil || !cmp.Equal(again, rollup, cmpopts.EquateEmpty()) {
			t.Fatalf("read %+v, then %+v, %v", rollup, again, err)
		}
		if day, ok := r.Expires(); ok != expires || day != last {
			t.Fatalf("expires on day %d, written again on %d", last, day)
		}
	})
}

// addBodies seeds a corpus with the body of every sample under its key.
func addBodies(f *testing.F) {
	for _, r := range sampleRecords(f) {
		f.Add(r.Key, r.Body)
	}
}
