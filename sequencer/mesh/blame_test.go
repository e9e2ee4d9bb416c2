// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
)

func peerOf(t *testing.T, i int) peer.ID {
	t.Helper()
	id, err := peerID(idOf(i))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// TestBlameKeepsItsOwnTime: whoever sets the wall clock neither forgives nor punishes; and a rate is of real seconds.
func TestBlameKeepsItsOwnTime(t *testing.T) {
	for name, jump := range map[string]time.Duration{"a year ahead": 365 * 24 * time.Hour, "a year back": -365 * 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var off atomic.Int64
				n := nodeOf(t, 0, rosterOf("lab", "lab"), func(c *Config) {
					c.Now = func() time.Time { return time.Now().Round(0).Add(time.Duration(off.Load())) }
				})
				id := peerOf(t, 1)
				for times, lasts := range []time.Duration{time.Minute, 2 * time.Minute} {
					off.Store(0)
					for range n.cfg.Rates.Strikes {
						n.flood.strike(id, "a test")
					}
					off.Store(int64(jump))
					if !n.flood.blames(id) {
						t.Fatalf("blame %d is forgiven by the wall clock", times+1)
					}
					pass(lasts - time.Second)
					if !n.flood.blames(id) {
						t.Errorf("blame %d is over before %s", times+1, lasts)
					}
					pass(2 * time.Second)
					if n.flood.blames(id) {
						t.Errorf("blame %d lasts longer than %s", times+1, lasts)
					}
				}
				off.Store(0)
				taken := 0
				for n.flood.stream(id) == nil {
					taken++
				}
				if taken != n.cfg.Rates.Streams.AtOnce {
					t.Errorf("%d streams at once, want %d", taken, n.cfg.Rates.Streams.AtOnce)
				}
				off.Store(int64(jump))
				if n.flood.stream(id) == nil {
					t.Error("the wall clock fills a rate")
				}
				pass(time.Second)
				if err := n.flood.stream(id); err != nil {
					t.Errorf("a second does not: %v", err)
				}
			})
		})
	}
}

// TestWhoAnswersForABody: a body that is not what its kind says is its writer's fault, and that of who passes it on and
// judges such bodies. Who carries the kind and does not know it is to blame for nothing.
func TestWhoAnswersForABody(t *testing.T) {
	n := nodeOf(t, 0, rosterOf("lab", "lab", "lab"))
	knowNewKind(n)
	known := signed(t, 1, fleet.Record{Epoch: 1, Seq: 1, Kind: fleet.KindFact, Key: "k", Body: []byte("junk")})
	newer := signed(t, 1, fleet.Record{Epoch: 1, Seq: 2, Kind: newKind, Key: "k", Body: []byte("junk")})
	if _, v := n.examine(newer.Encode(), always); v != misshapen {
		t.Fatalf("verdict %d", v)
	}
	forged := newer
	forged.Sig = make([]byte, 64)
	if _, v := n.examine(forged.Encode(), always); v != badSignature {
		t.Errorf("verdict %d on a body that nobody signed", v)
	}
	for name, c := range map[string]struct {
		from            fleet.MemberID
		says            []uint8 // what it judges
		ofKnown, ofNews bool
	}{
		"the writer":             {from: idOf(1), ofKnown: true, ofNews: true},
		"the writer, an old one": {from: idOf(1), says: []uint8{1}, ofKnown: true, ofNews: true},
		"who has not said":       {from: idOf(2), ofKnown: true},
		"an old one":             {from: idOf(2), says: []uint8{1}, ofKnown: true},
		"a new one":              {from: idOf(2), says: []uint8{1, 2}, ofKnown: true, ofNews: true},
		"a newer one":            {from: idOf(2), says: []uint8{9}, ofKnown: true, ofNews: true},
		"one that went back":     {from: idOf(2), says: []uint8{2, 1}, ofKnown: true},
	} {
		t.Run(name, func(t *testing.T) {
			n.flood.judges(c.from, 0)
			for _, forms := range c.says {
				n.flood.judges(c.from, forms)
			}
			if got := n.flood.answers(c.from, &known); got != c.ofKnown {
				t.Errorf("it answers for a known kind: %v", got)
			}
			if got := n.flood.answers(c.from, &newer); got != c.ofNews {
				t.Errorf("it answers for a new kind: %v", got)
			}
		})
	}
}

// newKind is one that a version to come judges.
const newKind fleet.Kind = 100

// knowNewKind makes a node one of that version: no body of the kind passes.
func knowNewKind(n *Node) {
	n.forms = 2
	n.bodies = func(r *fleet.Record) error {
		if r.Kind == newKind {
			return fleet.ErrMalformed
		}
		return fleet.CheckBody(r)
	}
	n.judgedSince = func(r *fleet.Record) uint8 {
		if r.Kind == newKind {
			return 2
		}
		return fleet.JudgedSince(r)
	}
}

// mixed is a newer member and an older one that are connected by a third: only that one is dialled.
type mixed struct{ newer, between, older *Node }

func mix(t *testing.T, options ...func(*Config)) mixed {
	t.Helper()
	roster := rosterOf("lab", "lab", "lab")
	hurried := func(c *Config) {
		quick := Test()
		c.Beat, c.Heartbeat, c.Coalesce, c.SyncEvery, c.SyncGap = quick.Beat, quick.Heartbeat, quick.Coalesce, quick.SyncEvery, quick.SyncGap
		c.DialMin, c.DialMax, c.GossipBeat = quick.DialMin, quick.DialMax, quick.GossipBeat
		c.StreamTimeout = quick.StreamTimeout
		c.Rates.Strikes = 1
		for _, option := range options {
			option(c)
		}
	}
	var m mixed
	m.between = nodeOf(t, 1, roster, hurried, func(c *Config) { c.Listen = []string{"/ip4/127.0.0.1/tcp/0"} })
	run(t, m.between)
	<-m.between.Ready()
	dials := func(c *Config) { c.Peers = []string{m.between.Addresses()[0] + "/p2p/" + string(m.between.id)} }
	m.newer, m.older = nodeOf(t, 0, roster, hurried, dials), nodeOf(t, 2, roster, hurried, dials)
	knowNewKind(m.newer)
	return m
}

// run runs a node until the test ends.
func run(t *testing.T, n *Node) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for: %s", what)
		}
	}
}

func holds(n *Node, r fleet.Record) (held bool) {
	n.View(func(s *lattice.Set) { _, held = s.Get(r.Writer, r.Kind, r.Key) })
	return held
}

// TestOlderMembersCarryNewKinds: what a newer member refuses, and older ones carry, makes it blame none of them; what else
// they say goes on. Who says that it judges the kind, and brings it, is blamed.
func TestOlderMembersCarryNewKinds(t *testing.T) {
	for name, silent := range map[string]bool{"by gossip": false, "by reconciliation": true} {
		t.Run(name, func(t *testing.T) {
			m := mix(t, func(c *Config) { c.NoGossip = silent })
			run(t, m.newer)
			run(t, m.older)
			junk, err := m.older.Publish(newKind, "k", []byte("junk"))
			if err != nil {
				t.Fatal(err)
			}
			await(t, "the one between", func() bool { return holds(m.between, junk) })
			await(t, "the newer one", func() bool { return m.newer.Stats().Malformed > 0 })
			good, err := m.older.Publish(fleet.KindRegister, "k", []byte("good"))
			if err != nil {
				t.Fatal(err)
			}
			await(t, "what else is said", func() bool { return holds(m.newer, good) })
			if s := m.newer.Stats(); s.Blamed != 0 || holds(m.newer, junk) {
				t.Errorf("%d blamed, holds what it refuses: %v", s.Blamed, holds(m.newer, junk))
			}
		})
	}
	t.Run("one that should know", func(t *testing.T) {
		m := mix(t, func(c *Config) { c.NoGossip = true })
		m.older.forms = 2 // and lets it pass
		junk := signed(t, 1, fleet.Record{Epoch: 1, Seq: 1, Kind: newKind, Key: "k", Body: []byte("junk")})
		commit(t, m.older, junk)
		m.newer.forms = 2
		if asked, _, err := session(m.newer, m.older, direct); err == nil || len(asked.learnt) > 0 {
			t.Errorf("%d learnt: %v", len(asked.learnt), err)
		}
	})
}
