// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"errors"
	"strings"
	"sync/atomic"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// verdict on a record that came from another member, by whichever way.
type verdict uint8

const (
	// news: verified, and not held yet.
	news verdict = iota
	// known, stale: nothing to learn, so nothing was verified.
	known
	stale
	// surplus: more notices than one writer, or all, may have heard at once.
	surplus
	// stranger, version: not for us to judge. The sender may know more than we do: a newer roster, a
	// newer version.
	stranger
	version
	// From here on no honest member sends it: each checks before it passes anything on.
	tooLarge
	malformed
	otherFleet
	badSignature
)

// dishonest says that whoever sent the record did not check it, or made it up.
func (v verdict) dishonest() bool { return v >= tooLarge }

// examine is the one door for records from outside. The checks go from cheap to dear.
func (n *Node) examine(b []byte) (fleet.Record, verdict) {
	r, v := n.judge(b)
	if counter := n.counterOf(v); counter != nil {
		counter.Add(1)
	}
	return r, v
}

func (n *Node) judge(b []byte) (fleet.Record, verdict) {
	if len(b) > fleet.MaxRecord {
		return fleet.Record{}, tooLarge
	}
	r, err := fleet.DecodeRecord(b)
	switch {
	case errors.Is(err, fleet.ErrVersion):
		return r, version
	case err != nil:
		return r, malformed
	case r.Fleet != n.cfg.Fleet:
		return r, otherFleet
	case fleet.Authorize(n.roster(), &r) != nil:
		return r, stranger
	}
	if v := n.compare(&r); v != news {
		return r, v
	}
	if checkBody(&r) != nil {
		return r, malformed
	}
	if r.Verify(n.cfg.Fleet) != nil {
		return r, badSignature
	}
	return r, news
}

// compare tells a record that would change the set from one that is held and one that is superseded.
func (n *Node) compare(r *fleet.Record) verdict {
	n.setMu.RLock()
	defer n.setMu.RUnlock()
	if n.set.Wants(r) {
		return news
	}
	if held, _ := n.set.Get(r.Writer, r.Kind, r.Key); held.Epoch == r.Epoch && held.Seq == r.Seq {
		return known
	}
	return stale
}

// checkBody refuses a body that is not what its kind says. Kinds, and versions of bodies, that are not
// known here pass: they are carried for those who know them.
func checkBody(r *fleet.Record) error {
	var err error
	switch {
	case r.Kind == fleet.KindFact:
		_, err = fleet.DecodeFact(r)
	case r.Kind == fleet.KindCommand:
		_, err = fleet.DecodeCommand(r)
	case r.Kind == fleet.KindSeal:
		_, err = fleet.DecodeSeal(r)
	case r.Kind == fleet.KindRegister && strings.HasPrefix(r.Key, statusPrefix):
		_, err = fleet.DecodeStatus(r)
	}
	if errors.Is(err, fleet.ErrMalformed) {
		return err
	}
	return nil
}

// statusPrefix begins the key of every status register; other registers have other bodies.
var statusPrefix = strings.TrimSuffix(fleet.StatusKey(fleet.RolloutName{}), fleet.RolloutName{}.String())

func (n *Node) counterOf(v verdict) *atomic.Uint64 {
	c := &n.counts
	switch v {
	case known:
		return &c.known
	case stale:
		return &c.stale
	case surplus:
		return &c.noticesRefused
	case stranger:
		return &c.stranger
	case version:
		return &c.version
	case tooLarge:
		return &c.tooLarge
	case malformed:
		return &c.malformed
	case otherFleet:
		return &c.otherFleet
	case badSignature:
		return &c.badSignature
	}
	return nil
}
