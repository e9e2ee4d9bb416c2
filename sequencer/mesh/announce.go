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
// carry and has not reconciled since. What is remembered only saves bytes; see commonRoot.
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
// the root of everything here where it is not. All that each carries is named in it, empty or not, in the order of
// asker and answerer: a side that began or ceased to carry something makes another one than the other side, whatever
// that one remembers, and both say anew what they carry.
func (n *Node) commonRoot(id fleet.MemberID, asking bool) fleet.Digest {
	theirs, known := n.told.said(id)
	n.setMu.RLock()
	defer n.setMu.RUnlock()
	ours := announced{n.carries.everything, n.carries.shares()}
	if !known || theirs.everything && ours.everything {
		return n.set.Root()
	}
	asker, answerer := ours, theirs
	if !asking {
		asker, answerer = theirs, ours
	}
	shares := ours.shares
	if ours.everything {
		shares = theirs.shares
	}
	var roots []byte
	for _, share := range shares {
		if theirs.carries(share) {
			root := n.set.ShareRoot(share)
			roots = append(roots, root[:]...)
		}
	}
	return fleet.DigestOf("flotilla.dev/mesh-common", asker.names(), answerer.names(), roots)
}

// names of the shares; nothing where it is everything, which is never what somebody carries who does not.
func (a announced) names() (names []byte) {
	for _, share := range a.shares {
		names = appendShare(names, share)
	}
	return names
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
