// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"cmp"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// PeerState is what this member knows of another one, from its heartbeats and connections. It is a local
// judgement, for people and for news; no gate counts it.
type PeerState struct {
	Member    fleet.Member
	Connected bool
	// Presence is what is made of it all.
	Presence Presence
	// Heard: a beat or a heartbeat of it came since New. Silence is the time since the last one, or since New, by
	// this process's own clock.
	Heard   bool
	Silence time.Duration
	// Hearsay: nothing came of it itself. A neighbour gave a heartbeat that it had signed, and says that it heard of it
	// Silence ago, or longer.
	Hearsay bool
	// Interval is how often a heartbeat of it is due, where it is not connected; 0 where none come here.
	Interval time.Duration
	// Root is what its last heartbeat or reconciliation showed. SameRoot says that what it showed last, by a beat
	// perhaps, is what is held here now, as far as the two carry the same.
	Root     fleet.Digest
	SameRoot bool
	// Addresses are those of its open connections.
	Addresses []string
	// DiffersFor is how long what it shows has been other than what is held here; 0 while it is the same.
	DiffersFor time.Duration
	// Doubted: members next to it lost it, and nothing has been heard of it since.
	Doubted bool
	// Anchor: others dial it.
	Anchor bool
	// Forked: a proof is held that it said two things in one position. What it says counts for nothing.
	Forked bool
	// Blamed: it did what no honest member does, and is not let in for a while.
	Blamed bool
	// Duplicate: two agents that live at the same time use its key. Neither should be believed.
	Duplicate bool
}

// Peers are all other members of the roster, by name.
func (n *Node) Peers() []PeerState {
	audience := n.audience()
	var peers []PeerState
	for _, member := range n.roster().Members() {
		if member.ID != n.id {
			peers = append(peers, n.peer(member, audience))
		}
	}
	slices.SortFunc(peers, func(a, b PeerState) int {
		return cmp.Or(cmp.Compare(a.Member.Name, b.Member.Name), cmp.Compare(a.Member.ID, b.Member.ID))
	})
	return peers
}

// Self is what the others are told of this member. Connected says that Run listens, Addresses where, Duplicate that
// another live agent uses this key; Presence is Heard, or Alone where nobody else is heard.
func (n *Node) Self() PeerState {
	member, ok := n.roster().Member(n.id)
	if !ok {
		member.ID = n.id
	}
	self := n.peer(member, n.audience())
	self.Connected, self.Addresses = n.running.Load() != nil, n.Addresses()
	self.Duplicate = self.Duplicate || n.doubled.Load()
	self.Presence, self.Doubted = Heard, false
	if len(n.roster().Members()) > 1 && n.life.alone(n.now()) {
		self.Presence = Alone
	}
	return self
}

func (n *Node) peer(member fleet.Member, audience audience) PeerState {
	now := n.now()
	state := PeerState{Member: member, Anchor: n.reachable(&member), Forked: n.forked(member.ID), Interval: audience.interval(n.pace(), member.Zone)}
	s := n.life.standing(member.ID, state.Interval, now)
	state.Presence, state.Heard, state.Silence, state.Duplicate = s.presence, s.heard, s.silence, s.duplicate
	state.Hearsay = s.hearsay
	state.Doubted, state.Root = s.presence == Doubted, s.root
	state.SameRoot = s.seen && n.same(s.shown, member.Zone)
	if !state.SameRoot {
		state.DiffersFor = now - s.differsAt
	}
	w := n.running.Load()
	id, err := peerID(member.ID)
	if w == nil || err != nil {
		return state
	}
	state.Blamed = n.flood.blames(id)
	state.Connected = w.host.Network().Connectedness(id) == network.Connected
	for _, c := range w.host.Network().ConnsToPeer(id) {
		state.Addresses = append(state.Addresses, c.RemoteMultiaddr().String())
	}
	return state
}
