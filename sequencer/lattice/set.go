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
	"iter"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// Set is a join-semilattice of records. The zero value is not usable; see [New].
// It is not safe for concurrent use: its owner guards it. Root, Summary and Diff settle
// fingerprints that an Add left open, so they count as writing unless Root was called since.
type Set struct {
	slots map[slot]*entry
	// shared holds the entries that count in the fingerprint, apart the others; see Share.
	shared, apart *node
	with          func(fleet.MemberID) bool
}

// slot is where two records meet.
type slot struct {
	writer fleet.MemberID
	kind   fleet.Kind
	key    string
}

// New gives an empty set that shares every writer's records.
func New() *Set {
	return &Set{slots: map[slot]*entry{}, shared: &node{}, apart: &node{}}
}

// Add joins one record into the set and says whether that changed it. The set keeps the record's
// slices: nobody may write to them afterwards.
func (s *Set) Add(r fleet.Record) (news bool) {
	at := slot{r.Writer, r.Kind, r.Key}
	held, ok := s.slots[at]
	if !ok {
		held = &entry{position: Position(r.Writer, r.Kind, r.Key), record: r}
		s.slots[at] = held
		s.trie(r.Writer).insert(held, 0)
		return true
	}
	if !Supersedes(&r, &held.record) {
		return false
	}
	held.record, held.digest = r, fleet.Digest{}
	s.trie(r.Writer).touch(held.position, 0)
	return true
}

// Merge joins another set into this one and gives the records that changed it, in All's order.
func (s *Set) Merge(other *Set) (news []fleet.Record) {
	for r := range other.All() {
		if s.Add(r) {
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

// Get is the record that stands under a key; false where nothing was said.
func (s *Set) Get(writer fleet.MemberID, kind fleet.Kind, key string) (fleet.Record, bool) {
	held, ok := s.slots[slot{writer, kind, key}]
	if !ok {
		return fleet.Record{}, false
	}
	return held.record, true
}

// All gives every record: first the shared ones, then those set apart, each in the order of their
// positions. Equal sets give equal sequences.
func (s *Set) All() iter.Seq[fleet.Record] {
	return func(yield func(fleet.Record) bool) {
		visit := func(e *entry) bool { return yield(e.record) }
		_ = s.shared.walk(visit) && s.apart.walk(visit)
	}
}

// Len is the number of records.
func (s *Set) Len() int { return len(s.slots) }

// Share says whose records count in Root, At, Summary and Diff: those of the present members. A record
// once accepted stays readable when its writer leaves the roster, but a newcomer would not accept
// it any more, and the two could never have equal roots. Nil shares everything. with must give
// the same answer for a writer until the next call of Share.
func (s *Set) Share(with func(fleet.MemberID) bool) {
	s.with = with
	s.shared, s.apart = &node{}, &node{}
	for _, e := range s.slots {
		s.trie(e.record.Writer).insert(e, 0)
	}
}

func (s *Set) trie(writer fleet.MemberID) *node {
	if s.with == nil || s.with(writer) {
		return s.shared
	}
	return s.apart
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
