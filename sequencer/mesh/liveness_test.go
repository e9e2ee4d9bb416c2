// SPDX-License-Identifier: Apache-2.0

package mesh_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/mesh"
	"github.com/flotilla-dev/flotilla/sequencer/mesh/meshtest"
	"github.com/flotilla-dev/flotilla/sequencer/store"
)

// rarely makes heartbeats as rare as they are in a large zone, and switches off what would hide a lack of beats.
func rarely(c *mesh.Config) { c.Heartbeat, c.SyncEvery = time.Hour, time.Hour }

// star lets only the first member be dialled.
func star(c *mesh.Config) {
	if !c.Key.Equal(meshtest.Key(0)) {
		c.Listen = nil
	}
}

func peerOf(n *mesh.Node, id fleet.MemberID) mesh.PeerState {
	for _, p := range n.Peers() {
		if p.Member.ID == id {
			return p
		}
	}
	return mesh.PeerState{}
}

// awaitPresence of one member as some others judge it.
func awaitPresence(t *testing.T, w *meshtest.Network, of int, want mesh.Presence, by ...int) {
	t.Helper()
	meshtest.Await(t, want.String(), func() bool {
		for _, i := range by {
			if p := peerOf(w.Node(i), w.Member(of).ID); p.Presence != want || p.Doubted != (want == mesh.Doubted) {
				return false
			}
		}
		return true
	})
}

func TestVanishedMemberIsDoubted(t *testing.T) {
	t.Parallel()
	w := meshtest.New(t, 4, rarely)
	for i := range 4 {
		awaitPresence(t, w, i, mesh.Heard, others(4, i)...)
	}
	w.Stop(3)
	awaitPresence(t, w, 3, mesh.Doubted, 0, 1, 2)
	if p := peerOf(w.Node(0), w.Member(3).ID); !p.Heard || p.Silence <= 0 {
		t.Errorf("what was heard of it is forgotten: %+v", p)
	}
	w.Start(3)
	awaitPresence(t, w, 3, mesh.Heard, 0, 1, 2)
	for i := range 3 {
		awaitPresence(t, w, i, mesh.Heard, 3)
	}
}

func others(size, but int) (all []int) {
	for i := range size {
		if i != but {
			all = append(all, i)
		}
	}
	return all
}

// TestNoticeReachesWhoIsNotNextToIt: two members that are connected with the first one only, and a third that
// vanishes.
func TestNoticeReachesWhoIsNotNextToIt(t *testing.T) {
	t.Parallel()
	w := meshtest.New(t, 4, rarely, star)
	for i := range 4 {
		awaitPresence(t, w, i, mesh.Heard, others(4, i)...)
	}
	w.Stop(3)
	awaitPresence(t, w, 3, mesh.Doubted, 0, 1, 2)
	if got := w.Node(0).Stats().Notices; got == 0 {
		t.Error("nobody said it")
	}
	for i := 1; i < 3; i++ {
		if got := w.Node(i).Stats().Notices; got != 0 {
			t.Errorf("member %d told %d losses of whom it was never next to", i, got)
		}
	}
	w.Start(3)
	awaitPresence(t, w, 3, mesh.Heard, 0, 1, 2)
}

func TestWhoHearsNobodySaysNothing(t *testing.T) {
	t.Parallel()
	w := meshtest.New(t, 3, rarely)
	for i := range 3 {
		awaitPresence(t, w, i, mesh.Heard, others(3, i)...)
	}
	w.Partition([]int{0, 1}, []int{2})
	meshtest.Await(t, "being alone", func() bool { return w.Node(2).Self().Presence == mesh.Alone })
	for _, p := range w.Node(2).Peers() {
		if p.Presence != mesh.Quiet || p.Doubted {
			t.Errorf("alone, and %s is %s", p.Member.Name, p.Presence)
		}
	}
	awaitPresence(t, w, 2, mesh.Doubted, 0, 1)
	if got := w.Node(2).Stats().Notices; got != 0 {
		t.Errorf("who is alone said %d times that others are lost", got)
	}
	if got := w.Node(0).Self().Presence; got != mesh.Heard {
		t.Errorf("the others are %s", got)
	}
	w.Heal()
	awaitPresence(t, w, 2, mesh.Heard, 0, 1)
	awaitPresence(t, w, 0, mesh.Heard, 2)
	awaitPresence(t, w, 1, mesh.Heard, 2)
	meshtest.Await(t, "company", func() bool { return w.Node(2).Self().Presence == mesh.Heard })
	if got := w.Node(2).Stats().Notices; got != 0 {
		t.Errorf("who was alone told %d losses when it came back", got)
	}
}

func TestPartitionIsDoubtAndHeals(t *testing.T) {
	t.Parallel()
	w := meshtest.New(t, 5, rarely)
	for i := range 5 {
		awaitPresence(t, w, i, mesh.Heard, others(5, i)...)
	}
	w.Partition([]int{0, 1, 2}, []int{3, 4})
	awaitPresence(t, w, 3, mesh.Doubted, 0, 1, 2)
	awaitPresence(t, w, 4, mesh.Doubted, 0, 1, 2)
	for i := range 3 { // these lost most of their neighbours and hold it back, and then say it all the same
		awaitPresence(t, w, i, mesh.Doubted, 3, 4)
	}
	awaitPresence(t, w, 3, mesh.Heard, 4)
	w.Heal()
	for i := range 5 {
		awaitPresence(t, w, i, mesh.Heard, others(5, i)...)
	}
}

// TestBeatsBringReconciliation: with no gossip, no clock and no heartbeats, beats show that the sets differ.
func TestBeatsBringReconciliation(t *testing.T) {
	t.Parallel()
	w := meshtest.New(t, 2, rarely, func(c *mesh.Config) { c.NoGossip = true })
	w.AwaitConnected()
	meshtest.Await(t, "beats", func() bool { return w.Node(0).Stats().Beats > 0 && w.Node(1).Stats().Beats > 0 })
	say(t, w.Node(0), "k", "x")
	meshtest.Await(t, "the difference", func() bool {
		p := w.Node(1).Peers()[0]
		return p.DiffersFor > 0 && !p.SameRoot || w.Node(1).Root() == w.Node(0).Root()
	})
	w.AwaitEqualRoots()
	meshtest.Await(t, "no difference", func() bool {
		p := w.Node(1).Peers()[0]
		return p.DiffersFor == 0 && p.SameRoot
	})
}

// secondAgent runs another agent with the key of a network's member.
func secondAgent(t *testing.T, w *meshtest.Network, i int, options ...func(*mesh.Config)) *mesh.Node {
	t.Helper()
	s, err := store.Open(filepath.Join(t.TempDir(), "second.db"))
	must(t, err)
	cfg := mesh.Test()
	cfg.Key, cfg.Fleet, cfg.Roster, cfg.Store = w.Key(i), w.Fleet(), w.Roster(), s
	for _, option := range options {
		option(&cfg)
	}
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
	return n
}

// TestBothHalvesSeeTheDouble: a cloned disk, in a fleet whose heartbeats are an hour apart.
func TestBothHalvesSeeTheDouble(t *testing.T) {
	t.Parallel()
	w := meshtest.New(t, 3, rarely)
	w.AwaitConnected()
	half := secondAgent(t, w, 0, rarely)
	meshtest.Await(t, "the flag at both halves", func() bool {
		return w.Node(0).Self().Duplicate && half.Self().Duplicate
	})
	meshtest.Await(t, "the flag at the others", func() bool {
		return peerOf(w.Node(1), w.Member(0).ID).Duplicate && peerOf(w.Node(2), w.Member(0).ID).Duplicate
	})
	if w.Node(1).Self().Duplicate || peerOf(w.Node(1), w.Member(2).ID).Duplicate {
		t.Error("others are flagged")
	}
}

// TestClockJump: a wall clock that jumps by a year, there and back, makes nobody silent and nobody double.
func TestClockJump(t *testing.T) {
	t.Parallel()
	var off atomic.Int64
	w := meshtest.New(t, 3, func(c *mesh.Config) {
		if c.Key.Equal(meshtest.Key(0)) {
			c.Now = func() time.Time { return time.Now().Add(time.Duration(off.Load())) }
		}
	})
	for i := range 3 {
		awaitPresence(t, w, i, mesh.Heard, others(3, i)...)
	}
	const year = 365 * 24 * time.Hour
	for _, jump := range []time.Duration{year, -year, 0} {
		off.Store(int64(jump))
		at := [2]mesh.Stats{w.Node(0).Stats(), w.Node(1).Stats()}
		meshtest.Await(t, "heartbeats and beats", func() bool {
			a, b := w.Node(0).Stats(), w.Node(1).Stats()
			return a.Heartbeats > at[0].Heartbeats+8 && b.Heartbeats > at[1].Heartbeats+8 && a.Beats > at[0].Beats+4
		})
		for i := range 3 {
			for _, p := range append(w.Node(i).Peers(), w.Node(i).Self()) {
				if p.Doubted || p.Duplicate || p.Silence > time.Hour || p.Silence < 0 {
					t.Errorf("clock off by %s: member %d says of %s: %+v", jump, i, p.Member.Name, p)
				}
			}
			awaitPresence(t, w, i, mesh.Heard, others(3, i)...)
		}
	}
}

// notice of an intruder, or somebody else.
func notice(key ed25519.PrivateKey, change func(*fleet.Notice)) []byte {
	n := fleet.Notice{Fleet: meshtest.Fleet(), Life: fleet.LifeID{1}, Counter: 1}
	change(&n)
	n.Sign(key)
	return n.Encode()
}

func TestBadNotices(t *testing.T) {
	t.Parallel()
	w := meshtest.New(t, 3, rarely, forbearing)
	w.AwaitConnected()
	h := intruder(t, w, 2)
	name := mesh.HeartbeatsTopic(meshtest.Fleet(), "lab")
	topic := joinTopic(t, h, name)
	about := w.Member(1).ID
	forged, err := fleet.DecodeNotice(notice(w.Key(2), func(n *fleet.Notice) { n.About = w.Member(0).ID }))
	must(t, err)
	forged.Writer = about
	itself := notice(w.Key(2), func(n *fleet.Notice) { n.About = w.Member(2).ID })
	good := notice(w.Key(2), func(n *fleet.Notice) { n.About, n.Counter = about, 100 })
	heard := w.Node(0).Stats().NoticesHeard
	must(t, topic.Publish(t.Context(), good))
	meshtest.Await(t, "a good one", func() bool { return w.Node(0).Stats().NoticesHeard > heard })
	for _, bad := range []badRecord{
		{"forged", forged.Encode(), func(s mesh.Stats) uint64 { return s.BadSignature }},
		{"long past", notice(w.Key(2), func(n *fleet.Notice) { n.About, n.Counter = about, 5 }), func(s mesh.Stats) uint64 { return s.Stale }},
		{"stranger's", notice(meshtest.Key(99), func(n *fleet.Notice) { n.About = about }), func(s mesh.Stats) uint64 { return s.Stranger }},
		{"about a stranger", notice(w.Key(2), func(n *fleet.Notice) {
			n.Counter, n.About = 109, fleet.MemberIDOf(meshtest.Key(99).Public().(ed25519.PublicKey))
		}), func(s mesh.Stats) uint64 { return s.Stranger }},
		{"about itself", itself, func(s mesh.Stats) uint64 { return s.Malformed }},
		{"of another fleet", notice(w.Key(2), func(n *fleet.Notice) { n.About, n.Fleet = about, fleet.Digest{9} }), func(s mesh.Stats) uint64 { return s.OtherFleet }},
		{"of a later version", append([]byte{'F', 'N', 9}, good[3:]...), func(s mesh.Stats) uint64 { return s.Version }},
		{"cut short", good[:50], func(s mesh.Stats) uint64 { return s.Malformed }},
		{"too large", append([]byte{'F', 'N'}, make([]byte, fleet.MaxNotice)...), func(s mesh.Stats) uint64 { return s.TooLarge }},
	} {
		before := bad.counted(w.Node(0).Stats())
		must(t, topic.Publish(t.Context(), bad.bytes))
		meshtest.Await(t, bad.name, func() bool { return bad.counted(w.Node(0).Stats()) > before })
	}
	if p := peerOf(w.Node(0), about); p.Doubted || p.Presence != mesh.Heard {
		t.Errorf("a neighbour with fresh beats is %s", p.Presence)
	}
}

// TestLiesAreAnswered: an intruder says of everyone that it is lost, to a member that is not next to them.
func TestLiesAreAnswered(t *testing.T) {
	t.Parallel()
	w := meshtest.New(t, 4, rarely, star)
	for i := range 4 {
		awaitPresence(t, w, i, mesh.Heard, others(4, i)...)
	}
	h := intruder(t, w, 3)
	name := mesh.HeartbeatsTopic(meshtest.Fleet(), "lab")
	topic := joinTopic(t, h, name)
	for counter := uint64(1); counter <= 3; counter++ {
		before := w.Node(1).Stats()
		must(t, topic.Publish(t.Context(), notice(w.Key(3), func(n *fleet.Notice) {
			n.Counter, n.About, n.AboutLife, n.AboutCounter = counter, w.Member(2).ID, fleet.LifeID{byte(counter)}, 1<<60
		})))
		meshtest.Await(t, "the answer", func() bool {
			s := w.Node(1).Stats()
			return s.NoticesHeard > before.NoticesHeard && s.Heartbeats > before.Heartbeats
		})
		awaitPresence(t, w, 2, mesh.Heard, 1)
	}
}

func TestNoticesInAFlood(t *testing.T) {
	w := meshtest.New(t, 3, rarely)
	w.AwaitConnected()
	h := intruder(t, w, 2)
	name := mesh.HeartbeatsTopic(meshtest.Fleet(), "lab")
	topic := joinTopic(t, h, name)
	counter := uint64(0)
	meshtest.Await(t, "refusals", func() bool {
		for range 8 {
			counter++
			must(t, topic.Publish(t.Context(), notice(w.Key(2), func(n *fleet.Notice) { n.Counter, n.About = counter, w.Member(1).ID })))
		}
		return w.Node(0).Stats().NoticesRefused > 64
	})
	awaitPresence(t, w, 1, mesh.Heard, 0)
}
