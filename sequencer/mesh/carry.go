// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
)

// carries says which shares this member carries, by one roster and one Carry.
type carries struct {
	everything bool
	// zone is the member's own; present where it is on the roster.
	zone    string
	present bool
	asked   map[string]bool
	// stood are the zones for which this member stands in: see directory.standsIn.
	stood map[string]bool
}

func (c carries) share(s lattice.Share) bool {
	switch {
	case c.everything, s.Scope == fleet.ScopeFleet, c.present && s.Zone == c.zone, c.stood[s.Zone]:
		return true
	}
	return s.Scope == fleet.ScopeMilestones && c.asked[s.Zone]
}

// shares are all of them, in order; nothing where it is everything.
func (c carries) shares() []lattice.Share {
	if c.everything {
		return nil
	}
	shares := []lattice.Share{{Scope: fleet.ScopeFleet}}
	whole := maps.Clone(c.stood)
	if whole == nil {
		whole = map[string]bool{}
	}
	if c.present {
		whole[c.zone] = true
	}
	zones := maps.Clone(whole)
	maps.Copy(zones, c.asked)
	for _, zone := range slices.Sorted(maps.Keys(zones)) {
		shares = append(shares, lattice.Share{Scope: fleet.ScopeMilestones, Zone: zone})
	}
	for _, zone := range slices.Sorted(maps.Keys(whole)) {
		shares = append(shares, lattice.Share{Scope: fleet.ScopeDetail, Zone: zone})
	}
	return shares
}

// divide puts a set into the shares that the roster and Carry make, and gives those that this member did not
// carry before. It is called with setMu held, or before anyone else knows the node.
func (n *Node) divide(set *lattice.Set) (begun []lattice.Share) {
	roster, before := n.roster(), n.carries
	self, present := roster.Member(n.id)
	n.carries = carries{
		everything: len(roster.Members()) <= n.cfg.Flat, zone: self.Zone, present: present, asked: n.asked, stood: n.stood,
	}
	by := lattice.Division{
		ZoneOf: func(writer fleet.MemberID) (string, bool) {
			m, ok := roster.Member(writer)
			return m.Zone, ok
		},
	}
	if !n.carries.everything {
		by.Carries = n.carries.share
	}
	set.Divide(by)
	set.Root()
	for _, share := range n.carries.shares() {
		if !before.share(share) {
			begun = append(begun, share)
		}
	}
	return begun
}

// Carry asks for the milestones of these zones, beside those of the own zone, in place of what was asked for
// before: a gate counts what the members of another zone say. What is newly carried is reconciled at once with
// somebody who carries it, and some who do are dialled. In a fleet that carries everything it changes nothing.
func (n *Node) Carry(zones []string) { n.carry(&n.asked, zones) }

// carry puts zones in the place of those of one reason to carry them: what was asked for, or what is stood in for.
func (n *Node) carry(reason *map[string]bool, zones []string) {
	now := make(map[string]bool, len(zones))
	for _, zone := range zones {
		now[zone] = true
	}
	n.commitMu.Lock()
	n.setMu.Lock()
	if maps.Equal(now, *reason) {
		n.setMu.Unlock()
		n.commitMu.Unlock()
		return
	}
	*reason = now
	var begun []lattice.Share
	if n.carries.everything {
		n.carries.asked, n.carries.stood = n.asked, n.stood
	} else {
		begun = n.divide(n.set)
	}
	n.setMu.Unlock()
	n.commitMu.Unlock()
	n.told.wantMore(begun)
	n.carriedAnew.Add(1)
	if w := n.running.Load(); w != nil {
		wake(w.topicsNow)
		wake(w.sharesNow)
		wake(w.dialNow)
	}
}

// zonesAsked are the other zones of the last Carry, in order; nothing where everything is carried, which whoever is
// dialled anyway does, too.
func (n *Node) zonesAsked() []string {
	n.setMu.RLock()
	defer n.setMu.RUnlock()
	if n.carries.everything {
		return nil
	}
	return slices.Sorted(maps.Keys(n.asked))
}

// carriesRecord says whether a record of a member is in a share that this one carries.
func (n *Node) carriesRecord(r *fleet.Record) bool {
	n.setMu.RLock()
	defer n.setMu.RUnlock()
	share, present := n.set.ShareOf(r)
	return present && n.carries.share(share) || r.Writer == n.id
}

// carried is what this member tells the side it reconciles with: where it does not carry everything, also the shares
// that are empty, or the other would not offer what is in them.
func (n *Node) carried() carried {
	n.setMu.RLock()
	defer n.setMu.RUnlock()
	c := carried{everything: n.carries.everything}
	shares := n.carries.shares()
	if c.everything {
		shares = n.set.Shares()
	}
	for _, share := range shares {
		c.shares = append(c.shares, sharePrint{share, n.set.ShareRoot(share)})
	}
	return c
}

// sweepEvery is the time between two sweeps. What two sweeps in a row find to be of no use goes: shares that are not
// carried any more, and blobs that no seal names. Not at once, because a roster that is mended a minute later, a gate that
// asks for a zone again, and a blob whose seal is on its way are common, and fetching a zone costs more than keeping it
// for twenty minutes.
const sweepEvery = 10 * time.Minute

// tidy sweeps now and then, and when a day begins: registers end with the day, everywhere at the same time.
func (n *Node) tidy(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		n.sweep()
		timer.Reset(min(sweepEvery, untilNextDay(n.cfg.Now())))
	}
}

// untilNextDay is a moment more, so that it has begun.
func untilNextDay(now time.Time) time.Duration {
	next := time.Unix((fleet.Day(now)+1)*24*60*60, 0)
	return max(next.Sub(now), 0) + time.Millisecond
}

func (n *Node) sweep() {
	n.age()
	n.commitMu.Lock()
	defer n.commitMu.Unlock()
	n.sweepShares()
	n.inherit()
	n.sweepOut()
	n.sweepBlobs()
}

// age drops the registers that nobody renewed.
func (n *Node) age() {
	n.commitMu.Lock()
	defer n.commitMu.Unlock()
	n.setMu.Lock()
	dropped := n.set.Age(fleet.Day(n.cfg.Now()))
	n.set.Root()
	n.setMu.Unlock()
	n.changed(change{dropped: dropped})
	n.leave(dropped)
}

// sweepShares takes out of the set what was not carried at two sweeps. The member's own records stay for ever: nobody
// else may hold them. So does what others said who are not on the roster now: it is in no share. A member that the
// roster does not have does not know which shares are its own, and keeps all.
func (n *Node) sweepShares() {
	found := map[lattice.Share]bool{}
	var gone []fleet.Record
	if n.carries.present {
		for r := range n.set.All() {
			share, present := n.set.ShareOf(&r)
			if r.Writer == n.id || !present || n.carries.share(share) {
				continue
			}
			found[share] = true
			if n.uncarried[share] {
				gone = append(gone, r)
			}
		}
	}
	n.uncarried = found
	if len(gone) == 0 {
		return
	}
	n.without(gone)
	n.changed(change{dropped: gone})
	n.leave(gone)
}

// without puts a set without these records in the place of the one that holds them. A set only grows, so it is made
// anew; the order in which records come makes no difference.
func (n *Node) without(gone []fleet.Record) {
	left := make(map[fleet.Digest]bool, len(gone))
	for i := range gone {
		left[gone[i].Digest()] = true
	}
	set := lattice.New()
	set.Age(fleet.Day(n.cfg.Now()))
	set.Fill(func(yield func(fleet.Record) bool) {
		n.set.All()(func(r fleet.Record) bool { return left[r.Digest()] || yield(r) })
	})
	n.setMu.Lock()
	defer n.setMu.Unlock()
	n.divide(set)
	n.set = set
}

// sweepBlobs drops blobs that no held seal named at two sweeps, and that nobody put meanwhile.
func (n *Node) sweepBlobs() {
	blobs, err := n.cfg.Store.Blobs()
	if err != nil {
		n.cfg.Log.Error(err, "blobs not swept")
		return
	}
	named := map[fleet.Digest]bool{}
	for r := range n.set.All() {
		if r.Kind != fleet.KindSeal {
			continue
		}
		if seal, err := fleet.DecodeSeal(&r); err == nil {
			named[seal.Spec], named[seal.Members] = true, true
		}
	}
	n.blobsMu.Lock()
	defer n.blobsMu.Unlock()
	found := map[fleet.Digest]bool{}
	var gone []fleet.Digest
	for _, d := range blobs {
		switch {
		case named[d]:
		case n.unnamed[d]:
			gone = append(gone, d)
		default:
			found[d] = true
		}
	}
	n.unnamed = found
	if err := n.cfg.Store.DropBlobs(gone...); err != nil {
		n.cfg.Log.Error(err, "blobs not swept")
		return
	}
	n.counts.blobsDropped.Add(uint64(len(gone)))
}

// needBlob is called before a blob is put: whoever puts one is about to name it.
func (n *Node) needBlob(digest fleet.Digest) {
	n.blobsMu.Lock()
	defer n.blobsMu.Unlock()
	delete(n.unnamed, digest)
}
