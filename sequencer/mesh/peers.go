// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// PeerState is what this member knows of another one, from its heartbeats and connections. It is a local
// judgement, for people and for news; no gate counts it.
type PeerState struct {
	Member    fleet.Member
	Connected bool
	// Heard: a heartbeat of it came since New. Silence is the time since the last one, or since New.
	Heard   bool
	Silence time.Duration
	// Root is what its last heartbeat or reconciliation showed; SameRoot says that it is ours now.
	Root     fleet.Digest
	SameRoot bool
	// Addresses are those of its open connections.
	Addresses []string
	// DiffersFor is how long its root has been another than ours; 0 while they are equal.
	DiffersFor time.Duration
	// Doubted: members next to it lost it, and nothing has been heard of it since.
	Doubted bool
	// Anchor: others dial it.
	Anchor bool
	// Forked: a proof is held that it said two things in one position. What it says counts for nothing.
	Forked bool
	// Duplicate: two agents that live at the same time use its key. Neither should be believed.
	Duplicate bool
}

// Peers are all other members of the roster, by name.
func (n *Node) Peers() []PeerState {
	root := n.Root()
	var peers []PeerState
	for _, member := range n.roster().Members() {
		if member.ID != n.id {
			peers = append(peers, n.peer(member, root))
		}
	}
	slices.SortFunc(peers, func(a, b PeerState) int {
		return cmp.Or(cmp.Compare(a.Member.Name, b.Member.Name), cmp.Compare(a.Member.ID, b.Member.ID))
	})
	return peers
}

// Self is what the others are told of this member. Connected says that Run listens, Addresses where, and
// Duplicate that another live agent uses this key.
func (n *Node) Self() PeerState {
	member, ok := n.roster().Member(n.id)
	if !ok {
		member.ID = n.id
	}
	self := n.peer(member, n.Root())
	self.Connected, self.Addresses = n.running.Load() != nil, n.Addresses()
	self.Duplicate = self.Duplicate || n.doubled.Load()
	return self
}

func (n *Node) peer(member fleet.Member, root fleet.Digest) PeerState {
	state := n.life.state(member.ID, n.cfg.Now())
	state.Member, state.Forked = member, n.forked(member.ID)
	shown, ok := n.life.root(member.ID)
	state.SameRoot = ok && shown == root
	w := n.running.Load()
	id, err := peerID(member.ID)
	if w == nil || err != nil {
		return state
	}
	state.Connected = w.host.Network().Connectedness(id) == network.Connected
	for _, c := range w.host.Network().ConnsToPeer(id) {
		state.Addresses = append(state.Addresses, c.RemoteMultiaddr().String())
	}
	return state
}

// beat tells the others that this member lives and what it holds.
func (w *wire) beat(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for counter := uint64(1); ; counter++ {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		if self, ok := w.roster().Member(w.id); ok {
			h := fleet.Heartbeat{
				Fleet: w.cfg.Fleet, Nonce: w.nonce, Counter: counter, Root: w.Root(), Time: w.cfg.Now().Unix(),
			}
			h.Sign(w.cfg.Key)
			w.life.heard(&h, w.cfg.Now())
			w.publishTo(ctx, heartbeatsTopic(w.cfg.Fleet, self.Zone), h.Encode())
		}
		timer.Reset(w.cfg.Heartbeat*9/10 + rand.N(w.cfg.Heartbeat/5+1))
	}
}

// validateHeartbeat checks as judge does for records, from cheap to dear.
func (w *wire) validateHeartbeat(_ context.Context, from peer.ID, m *pubsub.Message) pubsub.ValidationResult {
	if from == w.host.ID() {
		return pubsub.ValidationAccept
	}
	w.counts.gossipReceived.Add(1)
	h, v := w.judgeHeartbeat(m.Data)
	if counter := w.counterOf(v); counter != nil {
		counter.Add(1)
	}
	switch {
	case v == news:
		m.ValidatorData = &h
		return pubsub.ValidationAccept
	case v.dishonest():
		return pubsub.ValidationReject
	}
	return pubsub.ValidationIgnore
}

func (n *Node) judgeHeartbeat(b []byte) (fleet.Heartbeat, verdict) {
	if len(b) > fleet.MaxHeartbeat {
		return fleet.Heartbeat{}, tooLarge
	}
	h, err := fleet.DecodeHeartbeat(b)
	switch {
	case errors.Is(err, fleet.ErrVersion):
		return h, version
	case err != nil:
		return h, malformed
	case h.Fleet != n.cfg.Fleet:
		return h, otherFleet
	}
	if _, ok := n.roster().Member(h.Writer); !ok {
		return h, stranger
	}
	if !n.life.advances(&h) {
		return h, stale
	}
	if h.Verify(n.cfg.Fleet) != nil {
		return h, badSignature
	}
	return h, news
}

// heardHeartbeat notes that a member lives, and asks for a reconciliation if it holds something else.
func (w *wire) heardHeartbeat(_ context.Context, m *pubsub.Message) {
	h, ok := m.ValidatorData.(*fleet.Heartbeat)
	if !ok || !w.life.heard(h, w.cfg.Now()) {
		return
	}
	w.counts.heartbeats.Add(1)
	if h.Root != w.Root() {
		if id, err := peerID(h.Writer); err == nil {
			w.askFor(ask{peer: id})
		}
	}
}

const (
	// noncesKept per member. A duplicate has two, a restart leaves one behind.
	noncesKept = 4
	// switchesToTell: a restart whose last old heartbeat came late makes two switches; a third is a second agent.
	switchesToTell = 3
	// duplicateBeats is for how many heartbeats after the last switch a duplicate is flagged.
	duplicateBeats = 20
	// clockTolerance between heartbeats of one key: an old one, replayed to make its writer look like two, is
	// further away.
	clockTolerance = 10 * 60
)

// lives is what heartbeats say of each member.
type lives struct {
	mu     sync.RWMutex
	since  time.Time
	window time.Duration
	of     map[fleet.MemberID]*life
}

// life of one key.
type life struct {
	heardAt time.Time
	heard   bool
	root    fleet.Digest
	// nonces with their highest counters, the one heard last in front.
	nonces []nonce
	// time is the writer's own, of the heartbeat heard last.
	time       int64
	switches   int
	switchedAt time.Time
}

type nonce struct {
	value   lifeID
	counter uint64
}

// lifeID names one start of an agent: the first half of its heartbeats' nonce.
type lifeID [8]byte

func lifeOf(nonce [16]byte) lifeID { return lifeID(nonce[:]) }

func (n *Node) lifeID() lifeID { return lifeOf(n.nonce) }

func (l *lives) begin(now time.Time, heartbeat time.Duration) {
	l.since, l.window, l.of = now, duplicateBeats*heartbeat, map[fleet.MemberID]*life{}
}

// keep forgets who is not on the roster.
func (l *lives) keep(roster Roster) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range l.of {
		if _, ok := roster.Member(id); !ok {
			delete(l.of, id)
		}
	}
}

// advances says whether a heartbeat is newer than what was heard of its nonce: others are replays.
func (l *lives) advances(h *fleet.Heartbeat) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	m := l.of[h.Writer]
	if m == nil {
		return true
	}
	i := m.find(lifeOf(h.Nonce))
	return i < 0 || h.Counter > m.nonces[i].counter
}

func (m *life) find(value lifeID) int {
	return slices.IndexFunc(m.nonces, func(n nonce) bool { return n.value == value })
}

// heard notes a verified heartbeat; false if it is no news after all.
func (l *lives) heard(h *fleet.Heartbeat, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.get(h.Writer)
	i := m.find(lifeOf(h.Nonce))
	if i >= 0 && h.Counter <= m.nonces[i].counter {
		return false
	}
	if max(h.Time-m.time, m.time-h.Time) <= clockTolerance {
		l.noteSwitch(m, i, now)
	}
	m.front(i, nonce{lifeOf(h.Nonce), h.Counter})
	m.heardAt, m.heard, m.root, m.time = now, true, h.Root, h.Time
	return true
}

// met notes who answers at a member's connection, and the root it showed. Nobody can replay that.
func (l *lives) met(id fleet.MemberID, value lifeID, root fleet.Digest, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.get(id)
	i := m.find(value)
	at := nonce{value: value}
	if i >= 0 {
		at = m.nonces[i]
	}
	l.noteSwitch(m, i, now)
	m.front(i, at)
	m.root = root
}

func (l *lives) get(id fleet.MemberID) *life {
	m := l.of[id]
	if m == nil {
		m = &life{}
		l.of[id] = m
	}
	return m
}

// noteSwitch counts that the i-th nonce goes on after another one began.
func (l *lives) noteSwitch(m *life, i int, now time.Time) {
	if i <= 0 {
		return
	}
	if now.Sub(m.switchedAt) > l.window {
		m.switches = 0
	}
	m.switches++
	m.switchedAt = now
}

// front puts a nonce before the others; i is where it was.
func (m *life) front(i int, n nonce) {
	if i >= 0 {
		m.nonces = slices.Delete(m.nonces, i, i+1)
	}
	m.nonces = slices.Insert(m.nonces, 0, n)
	m.nonces = m.nonces[:min(len(m.nonces), noncesKept)]
}

// root is the one a member showed last; false if it never did.
func (l *lives) root(id fleet.MemberID) (fleet.Digest, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	m := l.of[id]
	if m == nil {
		return fleet.Digest{}, false
	}
	return m.root, true
}

func (l *lives) state(id fleet.MemberID, now time.Time) PeerState {
	l.mu.RLock()
	defer l.mu.RUnlock()
	m := l.of[id]
	if m == nil {
		return PeerState{Silence: now.Sub(l.since)}
	}
	state := PeerState{
		Heard: m.heard, Silence: now.Sub(l.since), Root: m.root,
		Duplicate: m.switches >= switchesToTell && now.Sub(m.switchedAt) <= l.window,
	}
	if m.heard {
		state.Silence = now.Sub(m.heardAt)
	}
	return state
}
