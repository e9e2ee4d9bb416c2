// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"sync/atomic"
	"testing"

	pubsub "github.com/libp2p/go-libp2p-pubsub"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// milestoneOf is a milestone of the i-th member.
func milestoneOf(t *testing.T, i int, seq uint64) fleet.Record {
	plan := fleet.DigestOf("plan", []byte{byte(seq >> 8), byte(seq)})
	f := fleet.Fact{Plan: plan, Kind: fleet.Started}
	return signed(t, i, fleet.Record{Epoch: 1, Seq: seq, Kind: fleet.KindFact, Key: fleet.FactKey(plan, f.Kind), Body: f.Encode()})
}

// TestRetiredRecordsCostNothing: what was retired and comes again by gossip is dropped unverified, and not at the expense of
// who once said it. Who made it up keeps nobody from hearing what came with it; but passes nothing on by us.
func TestRetiredRecordsCostNothing(t *testing.T) {
	const retired = 2000
	var verified atomic.Int64
	n := nodeOf(t, 0, rosterOf("lab", "lab", "lab"), func(c *Config) { c.Rates.Records = Rate{0.001, 10} })
	n.bodies = func(r *fleet.Record) error {
		verified.Add(1)
		return fleet.CheckBody(r)
	}
	commit(t, n, signed(t, 1, fleet.Record{
		Epoch: 1, Seq: 9000, Kind: fleet.KindFloor, Key: fleet.FloorKey(fleet.KindFact), Body: fleet.Floor{Kind: fleet.KindFact, Epoch: 1, Seq: 8000}.Encode(),
	}))
	run(t, n)
	<-n.Ready()
	for seq := range uint64(retired) {
		r := milestoneOf(t, 1, seq+1)
		if got := JudgeMessage(t, n, keyOf(2), r.Encode()); got != pubsub.ValidationIgnore {
			t.Fatalf("retired record %d: %v", seq, got)
		}
	}
	if verified.Load() != 0 || n.Stats().Stale != retired {
		t.Errorf("%d verified, %d stale, of %d", verified.Load(), n.Stats().Stale, retired)
	}
	news := func(seq uint64) []byte { r := milestoneOf(t, 1, 8000+seq); return r.Encode() }
	if got := JudgeMessage(t, n, keyOf(1), news(1)); got != pubsub.ValidationAccept {
		t.Errorf("what the writer says now: %v", got)
	}
	// Nine of them travel with news, at the expense of who brings them.
	old := milestoneOf(t, 1, 1)
	for i := range uint64(9) {
		if got := JudgeMessage(t, n, keyOf(2), news(2+i), old.Encode()); got != pubsub.ValidationAccept {
			t.Errorf("news with a retired record: %v", got)
		}
	}
	forged := milestoneOf(t, 1, 2)
	forged.Sig = make([]byte, 64)
	if got := JudgeMessage(t, n, keyOf(2), news(20), forged.Encode()); got != pubsub.ValidationReject {
		t.Errorf("news with a record that nobody said: %v", got)
	}
	before := verified.Load()
	if got := JudgeMessage(t, n, keyOf(2), news(21), old.Encode(), old.Encode()); got != pubsub.ValidationIgnore || verified.Load() != before+1 {
		t.Errorf("beyond what a neighbour may bring: %v, %d verified", got, verified.Load()-before)
	}
	if got := JudgeMessage(t, n, keyOf(1), news(22), old.Encode()); got != pubsub.ValidationAccept {
		t.Errorf("from the writer meanwhile: %v", got)
	}
}

// TestWordsBeyondTheRateAreNotVerified: who says more than its rate costs no signatures beyond it, and is blamed in the end. Nobody
// takes another's room by making up words of it.
func TestWordsBeyondTheRateAreNotVerified(t *testing.T) {
	const atOnce, own = 20, 20 + ownBeyond*20
	var verified atomic.Int64
	n := nodeOf(t, 0, rosterOf("lab", "lab", "lab"), func(c *Config) {
		c.Rates.Said, c.Rates.Strikes = Rate{0.001, atOnce}, 1<<30
	})
	n.bodies = func(r *fleet.Record) error {
		verified.Add(1)
		return fleet.CheckBody(r)
	}
	run(t, n)
	<-n.Ready()
	for seq := range uint64(own) {
		r := milestoneOf(t, 2, seq+1)
		r.Sig = make([]byte, 64)
		if got := JudgeMessage(t, n, keyOf(1), r.Encode()); got != pubsub.ValidationReject {
			t.Fatalf("a word that nobody said: %v", got)
		}
	}
	honest := milestoneOf(t, 2, own+1)
	if got := JudgeMessage(t, n, keyOf(1), honest.Encode()); got != pubsub.ValidationAccept {
		t.Errorf("whose words were made up is not heard: %v", got)
	}
	verified.Store(0)
	heard := 0
	for seq := range uint64(own) {
		r := milestoneOf(t, 1, seq+1)
		if JudgeMessage(t, n, keyOf(1), r.Encode()) == pubsub.ValidationAccept {
			heard++
		}
	}
	if heard != atOnce || verified.Load() != atOnce || n.Stats().Blamed != 0 {
		t.Errorf("%d heard, %d verified, %d blamed; want %d, %d, 0", heard, verified.Load(), n.Stats().Blamed, atOnce, atOnce)
	}
	for seq := range uint64(own) {
		r := milestoneOf(t, 1, own+seq+1)
		JudgeMessage(t, n, keyOf(1), r.Encode())
	}
	if n.Stats().Blamed != 1 || verified.Load() != atOnce {
		t.Errorf("blamed %d times, %d verified", n.Stats().Blamed, verified.Load())
	}
}
