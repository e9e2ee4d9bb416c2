// SPDX-License-Identifier: Apache-2.0

package fleet_test

import (
	"bytes"
	"crypto/ed25519"
	"testing"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// The fleet and the writers of the samples. The seeds are public, as everything in a test is.
var (
	ourFleet   = fleet.DigestOf("test", []byte("our fleet"))
	otherFleet = fleet.DigestOf("test", []byte("another fleet"))
)

func keyOf(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

func memberOf(seed byte) fleet.MemberID {
	return fleet.MemberIDOf(keyOf(seed).Public().(ed25519.PublicKey))
}

func signed(t testing.TB, r fleet.Record) fleet.Record {
	t.Helper()
	if err := r.Sign(keyOf(1)); err != nil {
		t.Fatal(err)
	}
	return r
}

func sampleFact() fleet.Fact {
	return fleet.Fact{
		Plan: fleet.DigestOf("test", []byte("plan")), Kind: fleet.Succeeded, Member: memberOf(1),
		Detail: "12 objects, Grüße aus Köln", Time: 1_770_000_000,
	}
}

func sampleCommand() fleet.Command {
	return fleet.Command{
		Rollout: fleet.RolloutName{Namespace: "shop", Name: "checkout"}, Verb: fleet.Resume,
		Lifts:  []fleet.Digest{fleet.DigestOf("test", []byte("stop 1")), fleet.DigestOf("test", []byte("stop 2"))},
		Reason: "the database is back", By: memberOf(1), Time: -1,
	}
}

func sampleSeal() fleet.Seal {
	return fleet.Seal{
		Rollout: fleet.RolloutName{Namespace: "shop", Name: "checkout"}, Author: string(memberOf(1)),
		Term: 2, Number: 1 << 40, CompileVersion: 0x0102,
		Spec: fleet.DigestOf("test", []byte("spec")), Members: fleet.DigestOf("test", []byte("members")),
	}
}

func sampleStatus() fleet.Status {
	return fleet.Status{
		Rollout:  fleet.RolloutName{Namespace: "shop", Name: "checkout"},
		Accepted: "main@sha1:0123456789abcdef0123456789abcdef01234567",
		Seal:     sampleSeal().Digest(), Plan: fleet.DigestOf("test", []byte("plan")),
		Phase: "Waiting", Because: "stage canary: 2 of 3 soaked", Objects: 12, Time: 1_770_000_000,
	}
}

func factRecord(f fleet.Fact) fleet.Record {
	return fleet.Record{
		Fleet: ourFleet, Epoch: 1_770_000_000, Seq: 7, Kind: fleet.KindFact,
		Key: fleet.FactKey(f.Plan, f.Kind), Body: f.Encode(),
	}
}

func commandRecord(c fleet.Command) fleet.Record {
	return fleet.Record{
		Fleet: ourFleet, Epoch: 1, Seq: 1 << 63, Kind: fleet.KindCommand,
		Key: c.Rollout.String() + "/1", Body: c.Encode(),
	}
}

func sealRecord(s fleet.Seal) fleet.Record {
	return fleet.Record{Fleet: ourFleet, Epoch: 3, Seq: 1, Kind: fleet.KindSeal, Key: s.SealKey(), Body: s.Encode()}
}

func statusRecord(t testing.TB, s fleet.Status) fleet.Record {
	t.Helper()
	body, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return fleet.Record{
		Fleet: ourFleet, Epoch: 3, Seq: 2, Kind: fleet.KindRegister, Key: fleet.StatusKey(s.Rollout), Body: body,
	}
}

func sampleFloor() fleet.Floor {
	return fleet.Floor{
		Kind: fleet.KindFact, Epoch: 1_770_000_000 << 30, Seq: 9, Writer: memberOf(1),
		Keep: []fleet.Group{{1, 2}, {1, 3}, {0xff}},
	}
}

func floorRecord(f fleet.Floor) fleet.Record {
	return fleet.Record{Fleet: ourFleet, Epoch: 3, Seq: 4, Kind: fleet.KindFloor, Key: fleet.FloorKey(f.Kind), Body: f.Encode()}
}

// sampleProof is against the member 2, who told some that it started and others that it did not.
func sampleProof(t testing.TB) fleet.Proof {
	t.Helper()
	started, yielded := sampleFact(), sampleFact()
	started.Kind, yielded.Kind = fleet.Started, fleet.Yielded
	p := fleet.Proof{A: factRecord(started), B: factRecord(yielded)}
	for _, r := range []*fleet.Record{&p.A, &p.B} {
		if err := r.Sign(keyOf(2)); err != nil {
			t.Fatal(err)
		}
	}
	if a, b := p.A.Encode(), p.B.Encode(); bytes.Compare(a, b) > 0 {
		p.A, p.B = p.B, p.A
	}
	return p
}

func proofRecord(t testing.TB, p fleet.Proof) fleet.Record {
	t.Helper()
	body, ok := p.Encode()
	if !ok {
		t.Fatal("the proof does not fit")
	}
	return fleet.Record{Fleet: ourFleet, Epoch: 3, Seq: 5, Kind: fleet.KindProof, Key: fleet.ProofKey(p.A.Writer), Body: body}
}

func sampleRollup() fleet.Rollup {
	return fleet.Rollup{
		Rollout: fleet.RolloutName{Namespace: "shop", Name: "checkout"}, Zone: "eu-1",
		Plan: fleet.DigestOf("test", []byte("plan")), Members: 250,
		Stages: []fleet.StageRollup{
			{Name: "canary", Counts: map[string]int{"Soaked": 2}},
			{Name: "rest", Counts: map[string]int{"Waiting": 247, "Failed": 1}},
		},
		Failing: []fleet.Name{"eu-1-17"}, Root: fleet.DigestOf("test", []byte("root")), Time: 1_770_000_000,
	}
}

func rollupRecord(t testing.TB, u fleet.Rollup) fleet.Record {
	t.Helper()
	body, err := u.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return fleet.Record{
		Fleet: ourFleet, Epoch: 3, Seq: 6, Kind: fleet.KindRollup, Key: fleet.RollupKey(u.Zone, u.Rollout), Body: body,
	}
}

func reachRecord() fleet.Record {
	return fleet.Record{
		Fleet: ourFleet, Epoch: 3, Seq: 7, Kind: fleet.KindReach, Key: "reach",
		Body: []byte(`{"addresses":["/ip4/192.0.2.1/udp/4001/quic-v1"]}`),
	}
}

// futureRecord is of a kind that this version does not know and has to carry all the same.
func futureRecord() fleet.Record {
	return fleet.Record{Fleet: ourFleet, Epoch: 3, Seq: 3, Kind: 77, Key: "what/comes/next", Body: []byte{0, 1, 2, 255}}
}

func sampleHeartbeat() fleet.Heartbeat {
	h := fleet.Heartbeat{
		Fleet: ourFleet, Nonce: [16]byte{15: 9}, Counter: 1 << 33,
		Root: fleet.DigestOf("test", []byte("root")), Time: 1_770_000_000,
	}
	h.Sign(keyOf(1))
	return h
}

// sampleRecords is one signed record of every kind, by the name of its golden file.
func sampleRecords(t testing.TB) map[string]fleet.Record {
	t.Helper()
	pause := sampleCommand()
	pause.Verb, pause.Lifts = fleet.Pause, nil
	return map[string]fleet.Record{
		"fact":           signed(t, factRecord(sampleFact())),
		"command-pause":  signed(t, commandRecord(pause)),
		"command-resume": signed(t, commandRecord(sampleCommand())),
		"seal":           signed(t, sealRecord(sampleSeal())),
		"status":         signed(t, statusRecord(t, sampleStatus())),
		"floor":          signed(t, floorRecord(sampleFloor())),
		"proof":          signed(t, proofRecord(t, sampleProof(t))),
		"rollup":         signed(t, rollupRecord(t, sampleRollup())),
		"reach":          signed(t, reachRecord()),
		"unknown-kind":   signed(t, futureRecord()),
		"empty":          signed(t, fleet.Record{Fleet: ourFleet}),
	}
}
