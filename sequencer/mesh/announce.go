// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"maps"
	"slices"
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
)

// announcements are what other members said in reconciliations that they carry, and which shares this member began to
// carry and has not reconciled since. What is remembered only saves bytes: a hello that was made by what is no
// longer true matches nothing, and both sides say anew what they carry.
type announcements struct {
	mu     sync.Mutex
	of     map[fleet.MemberID]announced
	wanted map[lattice.Share]bool
}

// announced is what one member carries: everything, or the shares in order.
type announced struct {
	everything bool
	shares     []lattice.Share
}

func (a announced) carries(share lattice.Share) bool {
	return a.everything || slices.Contains(a.shares, share)
}

func (a *announcements) begin() {
	a.of, a.wanted = map[fleet.MemberID]announced{}, map[lattice.Share]bool{}
}

// keep forgets who is not on the roster.
func (a *announcements) keep(roster Roster) {
	a.mu.Lock()
	defer a.mu.Unlock()
	maps.DeleteFunc(a.of, func(id fleet.MemberID, _ announced) bool {
		_, ok := roster.Member(id)
		return !ok
	})
}

func (a *announcements) note(id fleet.MemberID, c carried) {
	said := announced{everything: c.everything}
	if !c.everything {
		for _, s := range c.shares {
			said.shares = append(said.shares, s.share)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.of[id] = said
}

func (a *announcements) said(id fleet.MemberID) (announced, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	said, ok := a.of[id]
	return said, ok
}

// wantMore notes shares that are to be reconciled with somebody who carries them.
func (a *announcements) wantMore(shares []lattice.Share) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, share := range shares {
		a.wanted[share] = true
	}
}

// reconciled notes that everything in common with a member is equal.
func (a *announcements) reconciled(id fleet.MemberID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	said, ok := a.of[id]
	maps.DeleteFunc(a.wanted, func(share lattice.Share, _ bool) bool { return ok && said.carries(share) })
}

// wants are the shares still wanted of those that are carried.
func (a *announcements) wants(c carries) []lattice.Share {
	a.mu.Lock()
	defer a.mu.Unlock()
	maps.DeleteFunc(a.wanted, func(share lattice.Share, _ bool) bool { return !c.share(share) })
	return slices.Collect(maps.Keys(a.wanted))
}

// commonRoot is the root of what this member and another one both carry, as far as it is known what the other does, and
// the root of everything here where it is not. The names of the shares are in it, those of empty ones too: two sides
// that do not agree on what they have in common never have equal ones.
func (n *Node) commonRoot(id fleet.MemberID) fleet.Digest {
	said, known := n.told.said(id)
	n.setMu.RLock()
	defer n.setMu.RUnlock()
	if !known || said.everything && n.carries.everything {
		return n.set.Root()
	}
	shares := said.shares
	if said.everything {
		shares = n.carries.shares()
	}
	var buf []byte
	for _, share := range shares {
		if !n.carries.share(share) {
			continue
		}
		root := n.set.ShareRoot(share)
		buf = append(appendShare(buf, share), root[:]...)
	}
	return fleet.DigestOf("flotilla.dev/mesh-common", buf)
}

// carriersOf are the connected members that carry a share, by the roster or by what they said.
func (w *wire) carriersOf(share lattice.Share) []peer.ID {
	var carriers []peer.ID
	for _, id := range w.host.Network().Peers() {
		if w.carriedBy(id, share) {
			carriers = append(carriers, id)
		}
	}
	return carriers
}

func (n *Node) carriedBy(id peer.ID, share lattice.Share) bool {
	member := fleet.MemberID(id.String())
	if m, ok := n.roster().Member(member); ok && m.Zone == share.Zone {
		return true
	}
	said, ok := n.told.said(member)
	return ok && said.carries(share)
}
