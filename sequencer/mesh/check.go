// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// verdict on a record that came from another member, by whichever way.
type verdict uint8

const (
	// news: verified, and not held yet.
	news verdict = iota
	// known, stale: nothing to learn, so nothing was verified. Also what is retired or ended, and what is over the quota of
	// who is known to be. None of it is remembered, so that who makes such records up keeps nobody from anything.
	known
	stale
	// unwelcome: verified, and the set has no place for it: over its writer's quota.
	unwelcome
	// rival: verified, and in the position of a held record that says something else. Its writer is forked.
	rival
	// surplus: more notices than one writer, or all, may have heard at once. beyond: more records than a writer may have
	// heard by gossip, so not verified.
	surplus
	beyond
	// stranger, version, elsewhere, poisoned: not for us to judge. The sender may know more than we do: a newer
	// roster, a newer version. What is elsewhere is in a share that is not carried here; what is poisoned made a decoder panic.
	stranger
	version
	elsewhere
	poisoned
	// misshapen: its writer signed a body that is not what its kind says. Who passes it on may be of a version that
	// carries the kind and does not know it: flood.answers tells.
	misshapen
	// From here on no honest member sends it: each checks before it passes anything on.
	tooLarge
	malformed
	otherFleet
	badSignature
)

// passed says that what came with it may be judged, and told to others, on its own.
func (v verdict) passed() bool { return v <= rival }

// dishonest says that whoever sent the record did not check it, or made it up.
func (v verdict) dishonest() bool { return v >= tooLarge }

// examine is the one door for records from outside. The checks go from cheap to dear. The dear ones are made where there is
// room for the writer, by whatever way the record came.
func (n *Node) examine(b []byte, room func(writer fleet.MemberID) bool) (fleet.Record, verdict) {
	r, v := n.judge(b, room)
	if counter := n.counterOf(v); counter != nil {
		counter.Add(1)
	}
	return r, v
}

func (n *Node) judge(b []byte, room func(fleet.MemberID) bool) (r fleet.Record, v verdict) {
	if len(b) > fleet.MaxRecord {
		return fleet.Record{}, tooLarge
	}
	// A decoder that panics does so again at the next member. The record is refused here, and counted.
	defer func() {
		if p := recover(); p != nil {
			n.cfg.Log.Error(fmt.Errorf("panic: %v", p), "record refused", "writer", r.Writer, "kind", r.Kind, "key", r.Key)
			n.undecodable(&r)
			v = poisoned
		}
	}()
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
	case !n.carriesRecord(&r):
		return r, elsewhere
	}
	v, held := n.compare(&r)
	if v == known || v == stale {
		return r, v
	}
	if !room(r.Writer) {
		return r, beyond
	}
	if bad := n.verify(&r); bad != news {
		return r, bad
	}
	switch v {
	case rival:
		n.accuse(fleet.Proof{A: held, B: r})
	case unwelcome:
		n.refused(&r)
	}
	return r, v
}

// verify does what is dear: news where the body is what its kind says, and the writer signed it.
func (n *Node) verify(r *fleet.Record) verdict {
	err := n.bodies(r)
	switch {
	case errors.Is(err, fleet.ErrVersion):
		return version
	case r.Verify(n.cfg.Fleet) != nil:
		return badSignature
	case err != nil:
		return misshapen
	}
	return news
}

// vouch is verify for what is no news here. Who passes it on vouches for it: to others it may be news.
func (n *Node) vouch(r *fleet.Record) (v verdict) {
	defer func() {
		if p := recover(); p != nil {
			v = poisoned
		}
		if counter := n.counterOf(v); counter != nil {
			counter.Add(1)
		}
	}()
	return n.verify(r)
}

// compare tells a record that would change the set from one that is held and one that is superseded. One that would
// not, and is not the one that is held in its position, is a rival of that: its writer signed both, or somebody else
// signed neither. News may be a rival, too; that is found when it is joined.
func (n *Node) compare(r *fleet.Record) (v verdict, held fleet.Record) {
	n.setMu.RLock()
	defer n.setMu.RUnlock()
	if n.set.Wants(r) {
		return news, held
	}
	if held, ok := n.set.Conflict(r); ok && !n.set.Forked(r.Writer) {
		return rival, held
	}
	held, ok := n.set.Get(r.Writer, r.Kind, r.Key)
	switch {
	case ok && held.Epoch == r.Epoch && held.Seq == r.Seq:
		return known, held
	case n.set.Past(r):
		return stale, held
	case !ok && !n.set.Over(r.Writer):
		return unwelcome, held
	}
	return stale, held
}

// checkBody is n.bodies as far as it does not panic.
func (n *Node) checkBody(r *fleet.Record) (err error) {
	defer func() {
		if p := recover(); p != nil {
			n.counts.poisoned.Add(1)
			err = fmt.Errorf("%s %q: %w: panic: %v", r.Kind, r.Key, fleet.ErrMalformed, p)
		}
	}()
	return n.bodies(r)
}

func (n *Node) counterOf(v verdict) *atomic.Uint64 {
	c := &n.counts
	switch v {
	case known:
		return &c.known
	case stale, unwelcome:
		return &c.stale
	case rival:
		return &c.rivals
	case surplus:
		return &c.noticesRefused
	case stranger:
		return &c.stranger
	case elsewhere:
		return &c.elsewhere
	case poisoned:
		return &c.poisoned
	case version:
		return &c.version
	case tooLarge:
		return &c.tooLarge
	case malformed, misshapen:
		return &c.malformed
	case otherFleet:
		return &c.otherFleet
	case badSignature:
		return &c.badSignature
	}
	return nil
}
