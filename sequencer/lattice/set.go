// SPDX-License-Identifier: Apache-2.0

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
	writers map[fleet.MemberID]*writer
	size    int
	// shares hold the entries that count in the fingerprints, none of them empty; apart the others. See Divide.
	shares map[Share]*node
	apart  *node
	by     Division
	// root is valid while settled.
	root    fleet.Digest
	settled bool
	// day that registers must reach; see Age.
	day int64
	// forked counts the proofs held against a writer, over the rows in which it has more than its quota.
	forked, over map[fleet.MemberID]int
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
	// place: over their writer's quota, older than the seals that stay, or retired by its floor. The new one itself
	// is among them where the set would not take it for such a reason, or because it has ended: who wrote it to
	// disk first takes it off again.
	Dropped []fleet.Record
}

// New gives an empty set that carries every writer's records.
func New() *Set {
	return &Set{
		writers: map[fleet.MemberID]*writer{}, shares: map[Share]*node{}, apart: &node{},
		forked: map[fleet.MemberID]int{}, over: map[fleet.MemberID]int{},
	}
}

// Add joins one record into the set. The set keeps a copy.
func (s *Set) Add(r fleet.Record) Change {
	p := s.place(&r)
	if p.over {
		s.setOver(p.row, true)
	}
	switch p.verdict {
	case superseded:
		return Change{}
	case unwelcome:
		return Change{Dropped: []fleet.Record{r}}
	}
	change := Change{News: true}
	if p.held != nil {
		s.replace(p.held, &r, p.ends)
	} else {
		for _, e := range p.evicted {
			change.Dropped = append(change.Dropped, e.record())
		}
		for _, e := range p.evicted {
			s.remove(e)
		}
		s.insert(&r, p.ends)
	}
	switch r.Kind {
	case fleet.KindFloor:
		change.Dropped = append(change.Dropped, s.retire(s.writers[r.Writer], r.Key)...)
	case fleet.KindProof:
		for _, e := range append(p.evicted, p.held) {
			change.Dropped = append(change.Dropped, s.believeAgain(e)...)
		}
	}
	return change
}

// Fill joins the records of another set, in any order: what that one held is held here then. One by one it would depend on
// whether a forked writer's floor comes before the proof that takes it out of force.
func (s *Set) Fill(records iter.Seq[fleet.Record]) (news []fleet.Record) {
	var floors []fleet.Record
	for r := range records {
		if r.Kind == fleet.KindFloor && r.Key == commandFloor {
			floors = append(floors, r)
		} else if s.Add(r).News {
			news = append(news, r)
		}
	}
	for _, r := range floors {
		if s.Add(r).News {
			news = append(news, r)
		}
	}
	return news
}

// verdict on a record that is offered.
type verdict uint8

const (
	welcome verdict = iota
	// superseded: what is held under its key is better, or the same.
	superseded
	// unwelcome: over quota, older than the seals that stay, retired, or ended.
	unwelcome
)

// place is where a record would lie, and who would have to go.
type place struct {
	verdict verdict
	// row of the writer's kind, nil where it has none.
	row *row
	// held lies under the record's key, and would be replaced.
	held *entry
	// evicted would have no room any more.
	evicted []*entry
	// over: the writer has more than its quota.
	over bool
	// ends is the record's last day; zero for what stays.
	ends int64
}

// place decides about a record and changes nothing.
func (s *Set) place(r *fleet.Record) place {
	w := s.writers[r.Writer]
	if w == nil {
		p := place{}
		s.time(r, &p)
		return p
	}
	p := place{row: w.row(r.Kind, r.Scope())}
	if p.row != nil {
		p.held = p.row.get(r.Key)
	}
	if p.held != nil {
		if old := p.held.record(); !Supersedes(r, &old) {
			p.verdict = superseded
			return p
		}
	}
	if f := w.floors[r.Kind]; f != nil && s.inForce(f) && f.Retires(r) {
		p.verdict = unwelcome
		return p
	}
	if s.time(r, &p); p.verdict == welcome && p.row != nil && p.held == nil {
		p.row.room(r.Key, &p)
	}
	return p
}

// time says how long a record has: none where it has ended.
func (s *Set) time(r *fleet.Record, p *place) {
	if !r.Kind.IsRegister() {
		return
	}
	if last, ok := r.Expires(); ok {
		if p.ends = last; last < s.day {
			p.verdict = unwelcome
		}
	}
}

// Merge joins another set into this one and gives the records that changed it, in All's order, but floors of commands
// last.
func (s *Set) Merge(other *Set) (news []fleet.Record) { return s.Fill(other.All()) }

// Wants says whether Add would change the set.
func (s *Set) Wants(r *fleet.Record) bool { return s.place(r).verdict == welcome }

// Past says that a record has no place here any more, whatever else is held: its writer retired it, or it has ended.
// Of one that does not say when, this is not said: it never had a place, and who checks bodies says why.
func (s *Set) Past(r *fleet.Record) bool {
	if w := s.writers[r.Writer]; w != nil {
		if f := w.floors[r.Kind]; f != nil && f.Retires(r) {
			return true
		}
	}
	if day, _ := r.Expires(); day == fleet.Undated {
		return false
	}
	var p place
	s.time(r, &p)
	return p.verdict == unwelcome
}

// Get is the record that stands under a key; false where nothing was said.
func (s *Set) Get(writer fleet.MemberID, kind fleet.Kind, key string) (fleet.Record, bool) {
	w := s.writers[writer]
	if w == nil {
		return fleet.Record{}, false
	}
	row := w.row(kind, (&fleet.Record{Kind: kind, Key: key}).Scope())
	if row == nil {
		return fleet.Record{}, false
	}
	if held := row.get(key); held != nil {
		return held.record(), true
	}
	return fleet.Record{}, false
}

// All gives every record: first the carried shares, in order, then those set apart, each in the order of their
// positions. Equal sets that are divided alike give equal sequences.
func (s *Set) All() iter.Seq[fleet.Record] {
	return func(yield func(fleet.Record) bool) {
		visit := func(e *entry) bool { return yield(e.record()) }
		for _, share := range s.Shares() {
			if !s.shares[share].walk(visit) {
				return
			}
		}
		_ = s.apart.walk(visit)
	}
}

// Len is the number of records.
func (s *Set) Len() int { return s.size }

// Shares that are carried and not empty, in order.
func (s *Set) Shares() []Share {
	return slices.SortedFunc(maps.Keys(s.shares), func(a, b Share) int {
		return cmp.Or(cmp.Compare(a.Scope, b.Scope), cmp.Compare(a.Zone, b.Zone))
	})
}

// Divide puts every record into its share. The answers of by must not change until the next call.
func (s *Set) Divide(by Division) {
	s.by = by
	s.shares, s.apart, s.settled = map[Share]*node{}, &node{}, false
	for _, w := range s.writers {
		w.zone, w.present = s.zoneOf(w.id)
		for _, row := range w.rows {
			for _, e := range row.entries {
				s.trie(e, true).insert(e, 0)
			}
		}
	}
}

// ShareOf a record; false where its writer is not on the roster.
func (s *Set) ShareOf(r *fleet.Record) (Share, bool) {
	zone, present := s.zoneOf(r.Writer)
	return shareIn(r.Scope(), zone), present
}

func (s *Set) zoneOf(writer fleet.MemberID) (zone string, present bool) {
	if s.by.ZoneOf == nil {
		return "", true
	}
	return s.by.ZoneOf(writer)
}

func shareIn(scope fleet.Scope, zone string) Share {
	if scope == fleet.ScopeFleet {
		zone = ""
	}
	return Share{Scope: scope, Zone: zone}
}

// trie that an entry belongs into; made where there is none yet and it is to grow.
func (s *Set) trie(e *entry, grow bool) *node {
	share := shareIn(e.row.scope, e.row.writer.zone)
	if !e.row.writer.present || s.by.Carries != nil && !s.by.Carries(share) {
		return s.apart
	}
	if s.shares[share] == nil && grow {
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
