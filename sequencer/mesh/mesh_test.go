// SPDX-License-Identifier: Apache-2.0

package mesh_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
	"github.com/flotilla-dev/flotilla/sequencer/mesh"
	"github.com/flotilla-dev/flotilla/sequencer/mesh/meshtest"
	"github.com/flotilla-dev/flotilla/sequencer/store"
)

func TestMain(m *testing.M) {
	if given := os.Getenv(childAddresses); given != "" {
		parts := strings.Split(given, ";")
		var dial [][]string
		for _, list := range parts[1:] {
			dial = append(dial, strings.Split(list, ","))
		}
		if err := child(parts[0], dial); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// say publishes a register with any body.
func say(t testing.TB, n *mesh.Node, key, body string) fleet.Record {
	t.Helper()
	r, err := n.Publish(fleet.KindRegister, key, []byte(body))
	must(t, err)
	return r
}

func hears(n *mesh.Node, r fleet.Record) bool {
	var ok bool
	n.View(func(s *lattice.Set) {
		var held fleet.Record
		held, ok = s.Get(r.Writer, r.Kind, r.Key)
		ok = ok && held.Epoch == r.Epoch && held.Seq == r.Seq
	})
	return ok
}

func length(n *mesh.Node) (size int) {
	n.View(func(s *lattice.Set) { size = s.Len() })
	return size
}

func TestTwoConverge(t *testing.T) {
	for name, option := range map[string]func(*mesh.Config){
		"by gossip":              func(*mesh.Config) {},
		"by reconciliation only": func(c *mesh.Config) { c.NoGossip = true },
		"over QUIC":              func(c *mesh.Config) { c.Listen = []string{"/ip4/127.0.0.1/udp/0/quic-v1"} },
	} {
		t.Run(name, func(t *testing.T) {
			w := meshtest.New(t, 2, option)
			w.AwaitConnected()
			for i := range 10 {
				say(t, w.Node(i%2), fmt.Sprint("key", i), "body")
			}
			w.AwaitEqualRoots()
			if length(w.Node(0)) != 10 || length(w.Node(1)) != 10 {
				t.Errorf("%d and %d records, want 10", length(w.Node(0)), length(w.Node(1)))
			}
		})
	}
}

func TestMembersThatOnlyDialOut(t *testing.T) {
	t.Parallel()
	anchor := fleet.MemberIDOf(meshtest.Key(0).Public().(ed25519.PublicKey))
	w := meshtest.New(t, 4, func(c *mesh.Config) {
		if fleet.MemberIDOf(c.Key.Public().(ed25519.PublicKey)) != anchor {
			c.Listen = nil
		}
	})
	for i := range 4 {
		say(t, w.Node(i), "k", fmt.Sprint(i))
	}
	w.AwaitEqualRoots()
	if meshtest.Connected(w.Node(1), w.Member(2).ID) {
		t.Error("two members without addresses are connected")
	}
	r := say(t, w.Node(3), "through", "the anchor")
	meshtest.Await(t, "news through the anchor", func() bool { return hears(w.Node(1), r) })
}

func TestRestartKeepsEverything(t *testing.T) {
	t.Parallel()
	w := meshtest.New(t, 3)
	w.AwaitConnected()
	first := say(t, w.Node(0), "k", "before")
	w.AwaitEqualRoots()
	root := w.Node(0).Root()
	w.Stop(0)
	say(t, w.Node(1), "meanwhile", "x")
	w.AwaitEqualRoots(1, 2)
	w.Start(0)
	if !hears(w.Node(0), first) {
		t.Error("what it said itself is gone")
	}
	w.AwaitEqualRoots()
	if w.Node(0).Root() == root {
		t.Error("what was said meanwhile did not arrive")
	}
	second := say(t, w.Node(0), "k", "after")
	if second.Epoch <= first.Epoch {
		t.Errorf("epoch %d after the restart, %d before", second.Epoch, first.Epoch)
	}
	w.AwaitEqualRoots()
	if !hears(w.Node(2), second) {
		t.Error("what it said after the restart does not win")
	}
}

func TestLateJoinerGetsAll(t *testing.T) {
	const records = 300 // more than is told again, more than one frame holds
	w := meshtest.New(t, 3)
	w.Stop(2)
	for i := range records {
		say(t, w.Node(i%2), fmt.Sprint("key", i), strings.Repeat("x", 300))
	}
	w.AwaitEqualRoots()
	w.Start(2)
	w.AwaitEqualRoots()
	if got := length(w.Node(2)); got != records {
		t.Errorf("%d records, want %d", got, records)
	}
	meshtest.Await(t, "all records by reconciliation", func() bool { return w.Node(2).Stats().Synced >= records })
}

func TestPartitionHeals(t *testing.T) {
	t.Parallel()
	w := meshtest.New(t, 5)
	w.AwaitConnected()
	west, east := []int{0, 1}, []int{2, 3, 4}
	w.Partition(west, east)
	for i := range 5 {
		say(t, w.Node(i), "k", fmt.Sprint(i))
		say(t, w.Node(i), fmt.Sprint("own", i), "x")
	}
	w.AwaitEqualRoots(west...)
	w.AwaitEqualRoots(east...)
	if w.Node(0).Root() == w.Node(4).Root() || length(w.Node(0)) != 4 || length(w.Node(4)) != 6 {
		t.Errorf("news crossed the cut: %d and %d records", length(w.Node(0)), length(w.Node(4)))
	}
	if meshtest.Connected(w.Node(0), w.Member(4).ID) {
		t.Error("a connection crosses the cut")
	}
	w.Heal()
	w.AwaitEqualRoots()
	if got := length(w.Node(0)); got != 10 {
		t.Errorf("%d records after healing, want 10", got)
	}
}

func TestEqualSetsCostNothing(t *testing.T) {
	t.Parallel()
	w := meshtest.New(t, 2, func(c *mesh.Config) {
		c.NoGossip, c.Heartbeat, c.SyncEvery = true, time.Hour, 50*time.Millisecond
	})
	for i := range 100 {
		say(t, w.Node(0), fmt.Sprint(i), "x")
	}
	w.AwaitEqualRoots()
	settled := func() (sessions, bytes uint64) {
		for i := range 2 {
			s := w.Node(i).Stats()
			sessions, bytes = sessions+s.Sessions, bytes+s.SyncBytes
		}
		return sessions, bytes
	}
	w.AwaitConnected()
	meshtest.Await(t, "a session that finds equal sets", func() bool {
		sessions, bytes := settled()
		meshtest.Await(t, "one more session", func() bool { more, _ := settled(); return more > sessions })
		more, cost := settled()
		each := (cost - bytes) / (more - sessions)
		t.Logf("%d bytes", each)
		return each > 0 && each <= 64
	})
}

func TestUnknownKindsAreCarried(t *testing.T) {
	w := meshtest.New(t, 3)
	w.AwaitConnected()
	for _, kind := range []fleet.Kind{77, 200} {
		r, err := w.Node(0).Publish(kind, "k", []byte{0xff, 0xfe})
		must(t, err)
		meshtest.Await(t, "the unknown kind", func() bool { return hears(w.Node(1), r) && hears(w.Node(2), r) })
	}
}

func TestZonesHearEachOther(t *testing.T) {
	t.Parallel()
	w := meshtest.New(t, 3, func(c *mesh.Config) {
		c.SyncEvery, c.SyncGap, c.Beat, c.Heartbeat = time.Hour, time.Hour, time.Hour, 50*time.Millisecond
	})
	w.AwaitConnected()
	zoned := w.Roster()
	for i := range zoned {
		zoned[i].Zone = fmt.Sprint("zone ", i, "/é")
	}
	for i := range zoned {
		w.Node(i).SetRoster(zoned)
	}
	since := time.Now()
	meshtest.Await(t, "heartbeats across zones", func() bool {
		for i := range zoned {
			for _, p := range w.Node(i).Peers() {
				if !p.Heard || p.Silence >= time.Since(since) { // not since the zones are others
					return false
				}
			}
		}
		return true
	})
	// Reconciliation is off by now: what arrives came by gossip.
	meshtest.Await(t, "gossip across zones", func() bool {
		r := say(t, w.Node(0), "k", time.Now().String())
		return hears(w.Node(1), r) || length(w.Node(1)) > 0 && length(w.Node(2)) > 0
	})
}

func TestWhoLeavesTheRoster(t *testing.T) {
	t.Parallel()
	w := meshtest.New(t, 3)
	w.AwaitConnected()
	last := say(t, w.Node(2), "last", "words")
	w.AwaitEqualRoots()
	everyone := w.Roster()
	for i := range 2 {
		w.Node(i).SetRoster(everyone[:2])
	}
	meshtest.Await(t, "the end of its connections", func() bool {
		return !meshtest.Connected(w.Node(2), w.Member(0).ID) && !meshtest.Connected(w.Node(2), w.Member(1).ID)
	})
	if !hears(w.Node(0), last) {
		t.Error("what it said while it belonged is gone")
	}
	if !w.Node(0).Root().IsZero() {
		t.Error("what it said counts in the root")
	}
	if _, err := w.Node(2).Publish(fleet.KindRegister, "k", nil); err != nil {
		t.Errorf("it does not know yet, and may speak to itself: %v", err)
	}
	for i := range 2 {
		w.Node(i).SetRoster(everyone)
	}
	w.AwaitConnected()
	w.AwaitEqualRoots()
	if w.Node(0).Root().IsZero() {
		t.Error("it came back, and what it said does not count")
	}
}

func TestPeers(t *testing.T) {
	t.Parallel()
	w := meshtest.New(t, 3)
	w.AwaitConnected()
	say(t, w.Node(0), "k", "x")
	meshtest.Await(t, "heartbeats with equal roots", func() bool {
		for _, p := range w.Node(0).Peers() {
			if !p.Heard || !p.SameRoot || !p.Connected || len(p.Addresses) == 0 || p.Silence > time.Second {
				return false
			}
		}
		return true
	})
	peers := w.Node(0).Peers()
	if len(peers) != 2 || peers[0].Member.Name != "member-001" || peers[1].Member.Name != "member-002" {
		t.Errorf("peers are %v", peers)
	}
	self := w.Node(0).Self()
	if self.Member.Name != "member-000" || !self.Connected || self.Duplicate {
		t.Errorf("self is %+v", self)
	}
	w.Stop(2)
	meshtest.Await(t, "silence", func() bool {
		p := w.Node(0).Peers()[1]
		return !p.Connected && p.Silence > 300*time.Millisecond && p.Heard
	})
}

// clone runs a second agent with the key of a network's member.
func clone(t *testing.T, w *meshtest.Network, i int) {
	t.Helper()
	s, err := store.Open(filepath.Join(t.TempDir(), "clone.db"))
	must(t, err)
	cfg := mesh.Test()
	cfg.Key, cfg.Fleet, cfg.Roster, cfg.Store = w.Key(i), w.Fleet(), w.Roster(), s
	n, err := mesh.New(cfg)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		must(t, errors.Join(<-ended, s.Close()))
	})
	<-n.Ready()
}

func TestDuplicateKeyIsFlagged(t *testing.T) {
	t.Parallel()
	w := meshtest.New(t, 3)
	w.AwaitConnected()
	// A restart is no duplicate.
	w.Stop(2)
	w.Start(2)
	w.AwaitConnected()
	clone(t, w, 0)
	meshtest.Await(t, "the flag", func() bool { return w.Node(1).Peers()[0].Duplicate })
	meshtest.Await(t, "the flag at another", func() bool { return w.Node(2).Peers()[0].Duplicate })
	for _, p := range w.Node(1).Peers()[1:] {
		if p.Duplicate {
			t.Errorf("%s is flagged", p.Member.Name)
		}
	}
}

// TestReimagedMemberWins: with an empty disk and a clock set back it still speaks after its former life.
func TestReimagedMemberWins(t *testing.T) {
	now := time.Now
	w := meshtest.New(t, 2, func(c *mesh.Config) { c.Now = func() time.Time { return now() } })
	w.AwaitConnected()
	say(t, w.Node(0), "k", "former life")
	say(t, w.Node(0), "other", "former life")
	w.AwaitEqualRoots()
	w.Stop(0)
	w.Wipe(0)
	w.Stop(1) // so that it speaks before it hears
	now = func() time.Time { return time.Now().Add(-24 * time.Hour) }
	w.Start(0)
	say(t, w.Node(0), "k", "this life")
	w.Start(1)
	w.AwaitEqualRoots()
	body := func(key string) (said string) {
		w.Node(1).View(func(s *lattice.Set) {
			r, _ := s.Get(w.Member(0).ID, fleet.KindRegister, key)
			said = string(r.Body)
		})
		return said
	}
	meshtest.Await(t, "this life's word", func() bool { return body("k") == "this life" })
	if got := body("other"); got != "former life" {
		t.Errorf("what this life did not speak of says %q", got)
	}
	w.Node(0).View(func(s *lattice.Set) {
		if r, _ := s.Get(w.Member(0).ID, fleet.KindRegister, "k"); string(r.Body) != "this life" {
			t.Errorf("at itself it says %q", r.Body)
		}
	})
	say(t, w.Node(0), "other", "this life")
	meshtest.Await(t, "this life's next word", func() bool { return body("other") == "this life" })
}

func TestNewsComesInOrderAndOnce(t *testing.T) {
	var (
		mu   sync.Mutex
		told = map[fleet.MemberID][]fleet.Digest{}
	)
	w := meshtest.New(t, 2, func(c *mesh.Config) {
		id := fleet.MemberIDOf(c.Key.Public().(ed25519.PublicKey))
		c.OnNews = func(records []fleet.Record) {
			mu.Lock()
			defer mu.Unlock()
			for _, r := range records {
				told[id] = append(told[id], r.Digest())
			}
		}
	})
	var want []fleet.Digest
	for i := range 20 {
		r := say(t, w.Node(0), "k", fmt.Sprint(i))
		want = append(want, r.Digest())
	}
	w.AwaitEqualRoots()
	at := func(i int) []fleet.Digest {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(told[w.Member(i).ID])
	}
	meshtest.Await(t, "own news", func() bool { return len(at(0)) >= 20 })
	meshtest.Await(t, "news", func() bool { return slices.Contains(at(1), want[19]) })
	if !slices.Equal(at(0), want) {
		t.Errorf("own news came %d times, or out of order", len(at(0)))
	}
	got, next := at(1), 0
	for _, d := range got { // some may have been overwritten on the way
		i := slices.Index(want, d)
		if i < next {
			t.Fatalf("news %d came after news %d", i, next-1)
		}
		next = i + 1
	}
	w.Stop(1)
	w.Start(1)
	w.AwaitConnected()
	if len(at(1)) != len(got) {
		t.Error("what was loaded at the start was told as news")
	}
}

func TestGossipOffNeverGossips(t *testing.T) {
	w := meshtest.New(t, 3, func(c *mesh.Config) { c.NoGossip = true })
	for i := range 3 {
		say(t, w.Node(i), "k", "x")
	}
	w.AwaitEqualRoots()
	meshtest.Await(t, "records by reconciliation", func() bool {
		return w.Node(0).Stats().Synced > 0 && w.Node(1).Stats().Synced > 0 && w.Node(2).Stats().Synced > 0
	})
	for i := range 3 {
		if s := w.Node(i).Stats(); s.Gossiped != 0 {
			t.Errorf("member %d: gossiped %d", i, s.Gossiped)
		}
	}
}
