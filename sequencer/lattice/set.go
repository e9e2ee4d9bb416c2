// SPDX-License-Identifier: Apache-2.0

// Package lattice answers: what do we know when what I heard and what you heard are put together?
//
// A [Set] keeps one record per (writer, kind, key). Adding a record is a join: commutative,
// associative and idempotent, so that any two members that heard the same records, in whatever
// order and however often, hold the same set. Of a register the newest record stays; of a
// milestone, and of every kind below [fleet.KindRegister] that this version does not know, the
// first one said stays. The writer's own counters decide which that is; no clock does.
//
// The package decides nothing about who may speak: records are verified before they get here.
package lattice

import (
	"bytes"
	"cmp"
	"iter"
	"maps"
	"slices"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// Set is a join-semilattice of records. The zero value is not usable; see [New].
// It is not safe for concurrent use: its owner guards it. Root, ShareRoot, Summary and Diff settle
// fingerprints that an Add left open, so they count as writing unless Root was called since.
type Set struct {
	slots map[slot]*entry
	// shares hold the entries that count in the fingerprints, apart the others; see Divide.
	shares map[Share]*node
	apart  *node
	by     Division
}

// slot is where two records meet.
type slot struct {
	writer fleet.MemberID
	kind   fleet.Kind
	key    string
}

// Share is a part of the state that a member carries as a whole or not at all. In ScopeFleet there is one,
// with no zone.
type Share struct {
	Scope fleet.Scope
	Zone  string
}

// Division says which record belongs to which share.
type Division struct {
	// ZoneOf a writer; false where it is not on the roster: such records stay readable and are in no share.
	// A newcomer would not accept them any more, and the two could never have equal roots. Nil puts
	// everyone into the zone "".
	ZoneOf func(fleet.MemberID) (zone string, present bool)
	// Carries says which shares are compared with others. Nil carries all.
	Carries func(Share) bool
}

// Change is what one Add did to a set.
type Change struct {
	// News: the record is in the set now and was not before.
	News bool
	// Dropped are records that are not in the set any more, for a reason other than that the new one took their
	// place: over their writer's quota, or retired by its floor. The new one itself may be among them.
	Dropped []fleet.Record
}

// New gives an empty set that carries every writer's records.
func New() *Set {
	return &Set{slots: map[slot]*entry{}, shares: map[Share]*node{}, apart: &node{}}
}

// Add joins one record into the set. The set keeps the record's slices: nobody may write to them afterwards.
func (s *Set) Add(r fleet.Record) Change {
	at := slot{r.Writer, r.Kind, r.Key}
	held, ok := s.slots[at]
	if !ok {
		held = &entry{position: Position(r.Writer, r.Kind, r.Key), record: r}
		s.slots[at] = held
		s.trie(&r).insert(held, 0)
		return Change{News: true}
	}
	if !Supersedes(&r, &held.record) {
		return Change{}
	}
	held.record, held.digest = r, fleet.Digest{}
	s.trie(&r).touch(held.position, 0)
	return Change{News: true}
}

// Merge joins another set into this one and gives the records that changed it, in All's order.
func (s *Set) Merge(other *Set) (news []fleet.Record) {
	for r := range other.All() {
		if s.Add(r).News {
			news = append(news, r)
		}
	}
	return news
}

// Wants says whether Add would change the set.
func (s *Set) Wants(r *fleet.Record) bool {
	held, ok := s.slots[slot{r.Writer, r.Kind, r.Key}]
	return !ok || Supersedes(r, &held.record)
}

// Conflict is a record held in the position of r, by the same writer, with other bytes: together they are a
// [fleet.Proof].
func (s *Set) Conflict(r *fleet.Record) (fleet.Record, bool) {
	held, ok := s.slots[slot{r.Writer, r.Kind, r.Key}]
	if !ok || held.record.Epoch != r.Epoch || held.record.Seq != r.Seq || same(r, &held.record) {
		return fleet.Record{}, false
	}
	return held.record, true
}

// Forked says that a proof against the writer is held. What it says is carried and counts for nothing.
func (s *Set) Forked(writer fleet.MemberID) bool { return false }

// Age drops the registers that ended before a day, and refuses them from now on. It gives what was dropped.
func (s *Set) Age(day int64) (dropped []fleet.Record) { return nil }

// Get is the record that stands under a key; false where nothing was said.
func (s *Set) Get(writer fleet.MemberID, kind fleet.Kind, key string) (fleet.Record, bool) {
	held, ok := s.slots[slot{writer, kind, key}]
	if !ok {
		return fleet.Record{}, false
	}
	return held.record, true
}

// All gives every record: first the carried shares, in order, then those set apart, each in the order of their
// positions. Equal sets that are divided alike give equal sequences.
func (s *Set) All() iter.Seq[fleet.Record] {
	return func(yield func(fleet.Record) bool) {
		visit := func(e *entry) bool { return yield(e.record) }
		for _, share := range s.Shares() {
			if !s.shares[share].walk(visit) {
				return
			}
		}
		_ = s.apart.walk(visit)
	}
}

// Len is the number of records.
func (s *Set) Len() int { return len(s.slots) }

// Shares that are carried and not empty, in order.
func (s *Set) Shares() []Share {
	shares := slices.Collect(maps.Keys(s.shares))
	slices.SortFunc(shares, func(a, b Share) int {
		return cmp.Or(cmp.Compare(a.Scope, b.Scope), cmp.Compare(a.Zone, b.Zone))
	})
	return shares
}

// Divide puts every record into its share. The answers of by must not change until the next call.
func (s *Set) Divide(by Division) {
	s.by = by
	s.shares, s.apart = map[Share]*node{}, &node{}
	for _, e := range s.slots {
		s.trie(&e.record).insert(e, 0)
	}
}

// ShareOf a record; false where its writer is not on the roster.
func (s *Set) ShareOf(r *fleet.Record) (Share, bool) {
	zone, present := "", true
	if s.by.ZoneOf != nil {
		zone, present = s.by.ZoneOf(r.Writer)
	}
	share := Share{Scope: r.Scope(), Zone: zone}
	if share.Scope == fleet.ScopeFleet {
		share.Zone = ""
	}
	return share, present
}

func (s *Set) trie(r *fleet.Record) *node {
	share, present := s.ShareOf(r)
	if !present || s.by.Carries != nil && !s.by.Carries(share) {
		return s.apart
	}
	if s.shares[share] == nil {
		s.shares[share] = &node{}
	}
	return s.shares[share]
}

// Supersedes says whether r takes old's place when both lie under one key: the newest register,
// or the first milestone said. It is a strict total order over records of one key.
func Supersedes(r, old *fleet.Record) bool {
	if same(r, old) {
		return false
	}
	if r.Kind.IsRegister() {
		return r.Newer(old)
	}
	return old.Newer(r)
}

// same spares the digests of a record that was heard before, which is what gossip mostly brings.
func same(a, b *fleet.Record) bool {
	return a.Epoch == b.Epoch && a.Seq == b.Seq && a.Fleet == b.Fleet &&
		bytes.Equal(a.Sig, b.Sig) && bytes.Equal(a.Body, b.Body)
}
