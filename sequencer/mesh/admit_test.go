// SPDX-License-Identifier: Apache-2.0

package mesh_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
	"github.com/flotilla-dev/flotilla/sequencer/mesh"
	"github.com/flotilla-dev/flotilla/sequencer/mesh/meshtest"
)

// told is a consumer that remembers.
type told struct {
	mu         sync.Mutex
	came, left map[fleet.Digest]int
	order      []string
}

func (c *told) note(where *map[fleet.Digest]int, word string, records []fleet.Record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if *where == nil {
		*where = map[fleet.Digest]int{}
	}
	for i := range records {
		(*where)[records[i].Digest()]++
		c.order = append(c.order, fmt.Sprint(word, " ", records[i].Key))
	}
}

func (c *told) news(records []fleet.Record)    { c.note(&c.came, "news", records) }
func (c *told) dropped(records []fleet.Record) { c.note(&c.left, "dropped", records) }

func (c *told) sawNews(r fleet.Record) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.came[r.Digest()] > 0
}

func (c *told) sawDropped(r fleet.Record) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.left[r.Digest()] > 0
}

// by the i-th member, in any position.
func by(t testing.TB, i int, r fleet.Record) fleet.Record {
	t.Helper()
	return signedBy(t, meshtest.Key(i), r)
}

func proofAgainst(n *mesh.Node, accused fleet.MemberID) (proof fleet.Proof, held int) {
	n.View(func(s *lattice.Set) {
		for r := range s.All() {
			if r.Kind == fleet.KindProof && r.Key == fleet.ProofKey(accused) {
				held++
				proof, _ = fleet.DecodeProof(&r)
			}
		}
	})
	return proof, held
}

// TestTwoWordsInOnePosition: whichever way two records of one position come, there is one proof, and it proves.
func TestTwoWordsInOnePosition(t *testing.T) {
	register := func(key, body string) fleet.Record {
		return by(t, 1, fleet.Record{Epoch: 5, Seq: 5, Kind: fleet.KindRegister, Key: key, Body: []byte(body)})
	}
	milestone := func(body byte) fleet.Record {
		return by(t, 1, fleet.Record{Epoch: 5, Seq: 5, Kind: 77, Key: "k", Body: []byte{body}})
	}
	for name, messages := range map[string][][]fleet.Record{
		"under one key":           {{register("k", "a")}, {register("k", "b")}},
		"the other way round":     {{register("k", "b")}, {register("k", "a")}},
		"under two keys":          {{register("k", "a")}, {register("l", "a")}},
		"of two kinds":            {{register("k", "a")}, {milestone(1)}},
		"milestones":              {{milestone(1)}, {milestone(2)}},
		"milestones, other way":   {{milestone(2)}, {milestone(1)}},
		"in one message":          {{register("k", "a"), register("l", "b")}},
		"in one message, one key": {{milestone(1), milestone(2)}},
		"again and again":         {{register("k", "a")}, {register("k", "b")}, {register("k", "a")}, {register("k", "c")}, {register("l", "c")}},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAlone(t)
			n := a.start(t)
			for _, records := range messages {
				var encoded [][]byte
				for i := range records {
					encoded = append(encoded, records[i].Encode())
				}
				must(t, n.Admit(encoded...))
			}
			proof, held := proofAgainst(n, memberID(1))
			if held != 1 || proof.A.Writer != memberID(1) {
				t.Fatalf("%d proofs", held)
			}
			if s := n.Stats(); s.Proven != 1 || s.Forked != 1 {
				t.Errorf("proven %d, forked %d", s.Proven, s.Forked)
			}
			for _, p := range n.Peers() {
				if p.Forked != (p.Member.ID == memberID(1)) {
					t.Errorf("%s is forked: %v", p.Member.Name, p.Forked)
				}
			}
			if _, held := proofAgainst(a.start(t), memberID(1)); held != 1 {
				t.Error("after a restart it is gone")
			}
		})
	}
}

// TestNobodyIsFramed: bytes that the accused did not sign accuse nobody, nor do its honest words.
func TestNobodyIsFramed(t *testing.T) {
	n := newAlone(t).start(t)
	said := by(t, 1, fleet.Record{Epoch: 5, Seq: 5, Kind: fleet.KindRegister, Key: "k", Body: []byte("a")})
	must(t, n.Admit(said.Encode()))
	forged := said
	forged.Body = []byte("b")
	if err := n.Admit(forged.Encode()); err == nil {
		t.Error("the session goes on")
	}
	for seq := range uint64(20) {
		next := by(t, 1, fleet.Record{Epoch: 5, Seq: 10 - seq%7, Kind: fleet.KindRegister, Key: "k", Body: []byte{byte(seq % 7)}})
		must(t, n.Admit(next.Encode()))
	}
	if _, held := proofAgainst(n, memberID(1)); held != 0 || n.Stats().BadSignature != 1 || n.Stats().Rivals != 0 {
		t.Errorf("%d proofs, %d bad signatures, %d rivals", held, n.Stats().BadSignature, n.Stats().Rivals)
	}
}

// TestProofThatDoesNotFit is counted once, and nothing breaks.
func TestProofThatDoesNotFit(t *testing.T) {
	n := newAlone(t).start(t)
	for i := range byte(3) {
		large := by(t, 1, fleet.Record{Epoch: 5, Seq: 5, Kind: fleet.KindRegister, Key: "k", Body: append(make([]byte, 4000), i)})
		must(t, n.Admit(large.Encode()))
	}
	if s := n.Stats(); s.Unprovable != 1 || s.Proven != 0 {
		t.Errorf("unprovable %d, proven %d", s.Unprovable, s.Proven)
	}
}

// TestEveryoneHearsOfAFork: of two members each was told one thing. When they compare, everyone holds a proof, whatever was
// said meanwhile.
func TestEveryoneHearsOfAFork(t *testing.T) {
	t.Parallel()
	w := meshtest.New(t, 4, func(c *mesh.Config) { c.SyncEvery = 200 * time.Millisecond })
	w.AwaitConnected()
	w.Partition([]int{0}, []int{1, 2, 3})
	for i := range 2 {
		lie := by(t, 3, fleet.Record{Epoch: 5, Seq: 5, Kind: 77, Key: "k", Body: []byte{byte(i)}})
		must(t, w.Node(i).Admit(lie.Encode()))
	}
	w.Heal()
	meshtest.Await(t, "the proof everywhere", func() bool {
		for i := range 4 {
			if _, held := proofAgainst(w.Node(i), w.Member(3).ID); held == 0 {
				return false
			}
		}
		return true
	})
	w.AwaitEqualRoots()
	if !w.Node(3).Self().Forked {
		t.Error("the accused does not know")
	}
}

// runAlone runs a node that has no network until the test ends.
func runAlone(t *testing.T, n *mesh.Node) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	t.Cleanup(func() { cancel(); must(t, <-ended) })
}

// TestRetiredRecordsLeave: what a floor retires leaves the set and the disk, its consumer is told, and what came with the
// floor was never there.
func TestRetiredRecordsLeave(t *testing.T) {
	a := newAlone(t)
	var c told
	a.cfg.OnNews, a.cfg.OnDropped = c.news, c.dropped
	n := a.start(t)
	factAt := func(plan byte, seq uint64) fleet.Record {
		f := fleet.Fact{Plan: fleet.Digest{plan}, Kind: fleet.Started}
		return by(t, 1, fleet.Record{Epoch: 5, Seq: seq, Kind: fleet.KindFact, Key: fleet.FactKey(f.Plan, f.Kind), Body: f.Encode()})
	}
	floor := by(t, 1, fleet.Record{
		Epoch: 5, Seq: 20, Kind: fleet.KindFloor, Key: fleet.FloorKey(fleet.KindFact),
		Body: fleet.Floor{Kind: fleet.KindFact, Epoch: 5, Seq: 10, Keep: []fleet.Group{fleet.PlanGroup(fleet.Digest{3})}}.Encode(),
	})
	before, kept, after, together := factAt(1, 1), factAt(3, 2), factAt(4, 11), factAt(2, 3)
	must(t, n.Admit(before.Encode(), kept.Encode(), after.Encode()))
	must(t, n.Admit(together.Encode(), floor.Encode()))
	if hears(n, before) || hears(n, together) || !hears(n, kept) || !hears(n, after) || !hears(n, floor) {
		t.Error("what is held is not what the floor leaves")
	}
	must(t, n.Admit(before.Encode())) // a replay
	if hears(n, before) {
		t.Error("what was retired is back")
	}
	runAlone(t, n)
	meshtest.Await(t, "word of it", func() bool { return c.sawDropped(before) && c.sawNews(floor) })
	if c.sawNews(together) || c.sawDropped(together) || c.sawDropped(kept) {
		t.Errorf("told %q", c.order)
	}
	say(t, n, "k", "the next write")
	onDisk, _, err := a.store.Load()
	must(t, err)
	raw := 0
	for range onDisk.All() {
		raw++
	}
	if stored := a.stored(t); stored != raw || stored != 4 {
		t.Errorf("%d records on disk, %d of them in a set, want 4", stored, raw)
	}
}

// TestOverQuota: the lowest keys stay, whatever the order; the writer is flagged, and its own agent is told no.
func TestOverQuota(t *testing.T) {
	const kind = 5
	quota := fleet.Kind(kind).Quota()
	key := func(i int) string { return fmt.Sprintf("%04d", i) }
	n := newAlone(t).start(t)
	for i := range quota {
		_, err := n.Publish(kind, key(i+1), nil)
		must(t, err)
	}
	if n.Stats().OverQuota != 0 {
		t.Error("flagged below its quota")
	}
	if _, err := n.Publish(kind, key(quota+1), nil); fleet.KindOf(err) != fleet.Refused {
		t.Errorf("one more: %v", err)
	}
	if _, err := n.Publish(kind, key(0), nil); err != nil || n.Stats().OverQuota != 1 {
		t.Errorf("a lower one: %v, over quota %d", err, n.Stats().OverQuota)
	}
	if length(n) != quota {
		t.Errorf("%d records", length(n))
	}

	// Another member's, in the order in which nothing is ever displaced.
	other := newAlone(t).start(t)
	for i := range quota + 3 {
		r := by(t, 1, fleet.Record{Epoch: 5, Seq: uint64(i + 1), Kind: kind, Key: key(i)})
		must(t, other.Admit(r.Encode()))
	}
	if length(other) != quota || other.Stats().OverQuota != 1 {
		t.Errorf("%d records, over quota %d", length(other), other.Stats().OverQuota)
	}
}

// TestEndedRegistersLeave: at a start, and when a day begins; and they do not come back.
func TestEndedRegistersLeave(t *testing.T) {
	a := newAlone(t)
	now := time.Unix(1_800_000_000, 0)
	a.cfg.Now = func() time.Time { return now }
	n := a.start(t)
	name := fleet.RolloutName{Namespace: "shop", Name: "web"}
	body, err := fleet.Status{Rollout: name, Phase: "Ready", Time: now.Unix()}.Encode()
	must(t, err)
	r := by(t, 1, fleet.Record{Epoch: 5, Seq: 5, Kind: fleet.KindRegister, Key: fleet.StatusKey(name), Body: body})
	must(t, n.Admit(r.Encode()))
	now = now.Add((fleet.Lifetime - 1) * 24 * time.Hour)
	if n.Sweep(); !hears(n, r) {
		t.Error("it ended too early")
	}
	now = now.Add(3 * 24 * time.Hour)
	if n.Sweep(); hears(n, r) {
		t.Error("it did not end")
	}
	must(t, n.Admit(r.Encode()))
	if hears(n, r) || a.stored(t) != 0 {
		t.Error("it is back")
	}
}

// TestReplayChangesNothing: every message of a rollout that is over, again, and those of another fleet, after a restart.
func TestReplayChangesNothing(t *testing.T) {
	a := newAlone(t)
	n := a.start(t)
	var messages [][]byte
	at := func(fleetID fleet.Digest) {
		for i := range 8 {
			plan := fleet.Digest{byte(i / 4)}
			f := fleet.Fact{Plan: plan, Kind: fleet.FactKind(i%4 + 1)}
			r := fleet.Record{Fleet: fleetID, Epoch: 5, Seq: uint64(2*i + 1), Kind: fleet.KindFact, Key: fleet.FactKey(plan, f.Kind), Body: f.Encode()}
			status := fleet.Record{Fleet: fleetID, Epoch: 5, Seq: uint64(2*i + 2), Kind: fleet.KindRegister, Key: "k", Body: []byte{byte(i)}}
			for _, r := range []fleet.Record{by(t, 1, r), by(t, 1, status)} {
				messages = append(messages, r.Encode())
			}
		}
		floor := fleet.Floor{Kind: fleet.KindFact, Epoch: 5, Seq: 9}
		r := by(t, 1, fleet.Record{Fleet: fleetID, Epoch: 5, Seq: 40, Kind: fleet.KindFloor, Key: fleet.FloorKey(fleet.KindFact), Body: floor.Encode()})
		messages = append(messages, r.Encode())
	}
	at(meshtest.Fleet())
	for _, m := range messages {
		must(t, n.Admit(m))
	}
	at(fleet.Digest{9})
	root, size := n.Root(), length(n)
	if size != 4+2 {
		t.Fatalf("%d records after the rollout", size)
	}
	var c told
	a.cfg.OnNews, a.cfg.OnDropped = c.news, c.dropped
	n = a.start(t)
	for range 2 {
		for _, m := range messages {
			_ = n.Admit(m) // that of another fleet ends a session
		}
		slices.Reverse(messages)
	}
	if n.Root() != root || length(n) != size {
		t.Errorf("%d records, were %d", length(n), size)
	}
	if s := n.Stats(); s.OtherFleet != 2*17 || s.Proven != 0 {
		t.Errorf("of another fleet %d, proven %d", s.OtherFleet, s.Proven)
	}
	runAlone(t, n)
	last := say(t, n, "last", "x")
	meshtest.Await(t, "own news", func() bool { return c.sawNews(last) })
	if len(c.order) != 1 {
		t.Errorf("told %q", c.order)
	}
}

// TestBlobsLeave: a blob that no seal names goes at the second sweep; one that was put before its seal, or is put again,
// stays.
func TestBlobsLeave(t *testing.T) {
	a := newAlone(t)
	n := a.start(t)
	put := func(content string) fleet.Digest {
		t.Helper()
		d, err := n.PutBlob([]byte(content))
		must(t, err)
		return d
	}
	there := func(d fleet.Digest) bool {
		t.Helper()
		_, ok, err := a.store.Blob(d)
		must(t, err)
		return ok
	}
	seal := func(number uint64, spec, members fleet.Digest) {
		t.Helper()
		s := fleet.Seal{Rollout: fleet.RolloutName{Namespace: "shop", Name: "web"}, Author: string(n.ID()), Number: number, Spec: spec, Members: members}
		_, err := n.Publish(fleet.KindSeal, s.SealKey(), s.Encode())
		must(t, err)
	}
	spec, targets, orphan, again := put("spec"), put("members"), put("orphan"), put("again")
	n.Sweep()
	seal(1, spec, targets)
	put("again")
	n.Sweep()
	if !there(spec) || !there(targets) || !there(again) || there(orphan) {
		t.Errorf("spec %v, members %v, again %v, orphan %v", there(spec), there(targets), there(again), there(orphan))
	}
	// Later seals of the rollout take the first one's place.
	for number := range uint64(fleet.SealsKept) {
		seal(number+2, put(fmt.Sprint("spec", number)), targets)
	}
	n.Sweep()
	n.Sweep()
	if there(spec) || !there(targets) || n.Stats().BlobsDropped != 3 {
		t.Errorf("spec %v, members %v, dropped %d", there(spec), there(targets), n.Stats().BlobsDropped)
	}
}
