// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"math/bits"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/cmd/internal/agent/turn"
)

// page is where a record lies in the book.
type page int32

// book holds every record that was ever said, once: what a member has heard is a set of page numbers. A thousand
// members with thousands of facts would else hold millions of copies.
type book struct {
	records []fleet.Record
	digests []fleet.Digest
	pages   map[fleet.Digest]page
	// sizes of the records as they travel, in bytes.
	sizes []int32
	// about says which rollout a page is about; -1 where that is not known.
	about []int
	// idle pages are milestones of others that no rule reads: that they accepted, or started.
	idle     []bool
	commands [][]command // by rollout
	proofs   map[fleet.MemberID]page
	names    map[fleet.RolloutName]int
	// members by number, in the order of the world's; plans by digest.
	members map[fleet.MemberID]int
	plans   map[fleet.Digest]*milestones
	// again is where a member said a milestone before, which it does if it lies: any of them is one.
	again map[page]page
	// The plan and the member that were asked for last: a decision asks for one plan, and each member's kinds in a row.
	lastPlan   *milestones
	lastMember fleet.MemberID
	lastNumber int
}

type factKey struct {
	plan   fleet.Digest
	member fleet.MemberID
	kind   fleet.FactKind
}

// milestones of one plan: the page of each, by the member's number and the kind. Nobody's is page 0, which is no fact's.
type milestones struct {
	plan    fleet.Digest
	rollout int
	pages   []page
}

// kinds of milestones, and a place that stays free for the kind 0.
const kinds = int(fleet.Yielded) + 1

// command as it was read once.
type command struct {
	page page
	fleet.Command
}

func newBook(members int) *book {
	// Page 0 is blank.
	return &book{
		records: make([]fleet.Record, 1), digests: make([]fleet.Digest, 1), sizes: make([]int32, 1), about: []int{-1}, idle: make([]bool, 1),
		pages: map[fleet.Digest]page{}, plans: map[fleet.Digest]*milestones{}, names: map[fleet.RolloutName]int{},
		proofs: map[fleet.MemberID]page{}, again: map[page]page{}, members: make(map[fleet.MemberID]int, members),
	}
}

// number of a member; false where it is none of the fleet.
func (b *book) number(id fleet.MemberID) (int, bool) {
	if id == b.lastMember {
		return b.lastNumber, true
	}
	n, ok := b.members[id]
	if ok {
		b.lastMember, b.lastNumber = id, n
	}
	return n, ok
}

// planned gives the milestones of a plan; nil where nobody compiled it.
func (b *book) planned(plan fleet.Digest) *milestones {
	if b.lastPlan == nil || b.lastPlan.plan != plan {
		of := b.plans[plan]
		if of == nil {
			return nil
		}
		b.lastPlan = of
	}
	return b.lastPlan
}

// fact gives the page of a milestone; false where it was never said.
func (b *book) fact(plan fleet.Digest, m fleet.MemberID, kind fleet.FactKind) (page, bool) {
	of := b.planned(plan)
	if of == nil || of.pages == nil || int(kind) >= kinds {
		return 0, false
	}
	n, ok := b.number(m)
	if !ok {
		return 0, false
	}
	at := of.pages[n*kinds+int(kind)]
	return at, at != 0
}

// note that a fact lies on a page. It gives the rollout that it is about; -1 where nobody compiled its plan.
func (b *book) note(f *fleet.Fact, at page) int {
	of := b.planned(f.Plan)
	n, ok := b.number(f.Member)
	if of == nil || !ok || int(f.Kind) >= kinds {
		return -1
	}
	if of.pages == nil {
		of.pages = make([]page, len(b.members)*kinds)
	}
	if before := of.pages[n*kinds+int(f.Kind)]; before != 0 {
		b.again[at] = before
	}
	of.pages[n*kinds+int(f.Kind)] = at
	return of.rollout
}

// page of a record.
func (b *book) page(r fleet.Record) page {
	digest := r.Digest()
	if page, ok := b.pages[digest]; ok {
		return page
	}
	next, about, idle := page(len(b.records)), -1, false
	switch r.Kind {
	case fleet.KindFact:
		if f, err := fleet.DecodeFact(&r); err == nil {
			about, idle = b.note(&f, next), f.Kind == fleet.Accepted || f.Kind == fleet.Started
		}
	case fleet.KindCommand:
		if c, err := fleet.DecodeCommand(&r); err == nil {
			about = b.names[c.Rollout]
			b.commands[about] = append(b.commands[about], command{next, c})
		}
	case fleet.KindProof:
		b.proofs[fleet.MemberID(r.Key)] = next
	}
	b.pages[digest] = next
	b.records, b.digests, b.about = append(b.records, r), append(b.digests, digest), append(b.about, about)
	b.sizes, b.idle = append(b.sizes, int32(len(r.Encode()))), append(b.idle, idle)
	return next
}

// size of these pages as they travel, in bytes.
func (b *book) size(pages []page) (n int) {
	for _, p := range pages {
		n += int(b.sizes[p])
	}
	return n
}

// heard is the pages that somebody holds.
type heard struct {
	words []uint64
	count int
}

func (h *heard) has(p page) bool {
	return int(p>>6) < len(h.words) && h.words[p>>6]&(1<<(p&63)) != 0
}

// add a page; false where it was held.
func (h *heard) add(p page) bool {
	for int(p>>6) >= len(h.words) {
		h.words = append(h.words, 0)
	}
	if h.words[p>>6]&(1<<(p&63)) != 0 {
		return false
	}
	h.words[p>>6] |= 1 << (p & 63)
	h.count++
	return true
}

// remove a page; false where it was not held.
func (h *heard) remove(p page) bool {
	if !h.has(p) {
		return false
	}
	h.words[p>>6] &^= 1 << (p & 63)
	h.count--
	return true
}

// missing are the pages that another one holds and this one does not.
func (h *heard) missing(other *heard) []page {
	var pages []page
	for i, word := range other.words {
		if i < len(h.words) {
			word &^= h.words[i]
		}
		for ; word != 0; word &= word - 1 {
			pages = append(pages, page(i<<6+bits.TrailingZeros64(word)))
		}
	}
	return pages
}

func (h *heard) equal(other *heard) bool {
	return h.count == other.count && len(h.missing(other)) == 0
}

// ledger is what a member holds, as its agent reads it.
type ledger struct{ *member }

var _ turn.Ledger = ledger{}

// holds says whether the member has heard of a milestone.
func (l ledger) holds(k factKey) bool {
	_, held := l.held(k.plan, k.member, k.kind)
	return held
}

// held gives the newest page of a milestone that the member has heard.
func (l ledger) held(plan fleet.Digest, m fleet.MemberID, kind fleet.FactKind) (page, bool) {
	at, said := l.book.fact(plan, m, kind)
	for said && !l.heard.has(at) {
		at, said = l.book.again[at]
	}
	return at, said
}

// Fact is in sequencer.Facts.
func (l ledger) Fact(plan fleet.Digest, m fleet.MemberID, kind fleet.FactKind) (fleet.Digest, bool) {
	if l.bug.fact != nil {
		return fleet.DigestOf("flotilla.dev/sim-lie"), l.bug.fact(l, factKey{plan, m, kind})
	}
	at, held := l.held(plan, m, kind)
	switch {
	case l.set != nil:
		return l.stands(factKey{plan, m, kind}, held)
	case !held:
		return fleet.Digest{}, false
	}
	return l.book.digests[at], true
}

// Removed is in sequencer.Facts.
func (l ledger) Removed(id fleet.MemberID) bool {
	if l.bug.removed != nil {
		return l.bug.removed(l, id)
	}
	return l.proven(id)
}

func (l ledger) proven(id fleet.MemberID) bool {
	page, proven := l.book.proofs[id]
	proven = proven && l.heard.has(page)
	if l.set != nil {
		return l.removed(id, proven)
	}
	return proven
}

// Commands is in sequencer.Facts.
func (l ledger) Commands(name fleet.RolloutName) []fleet.Command {
	all := l.believed(name)
	if l.bug.heard != nil {
		return l.bug.heard(l, name, all)
	}
	return all
}

// believed commands are all but the goes of members that were removed.
func (l ledger) believed(name fleet.RolloutName) []fleet.Command {
	return l.commands(name, func(c *fleet.Command) bool { return c.Verb != fleet.Resume || !l.proven(c.By) })
}

// commands that were heard and that count.
func (l ledger) commands(name fleet.RolloutName, count func(*fleet.Command) bool) []fleet.Command {
	var out []fleet.Command
	for _, c := range l.book.commands[l.book.names[name]] {
		if l.heard.has(c.page) && count(&c.Command) {
			out = append(out, c.Command)
		}
	}
	return out
}

// Prepare is in turn.Ledger. Nothing here checks signatures, so none are made: that is the mesh's.
func (l ledger) Prepare(kind fleet.Kind, key string, body []byte) (fleet.Record, error) {
	l.seq++
	return fleet.Record{
		Fleet: simFleet, Writer: l.Self.ID, Epoch: l.epoch, Seq: l.seq, Kind: kind, Key: key, Body: body, Sig: unsigned,
	}, nil
}

// Status is in turn.Ledger. What members say for people alone is left out of the network.
func (l ledger) Status(m fleet.MemberID, name fleet.RolloutName) (fleet.Status, bool) {
	status, ok := l.statuses[name]
	return status, ok && m == l.Self.ID
}

// Commit is in turn.Ledger.
func (l ledger) Commit(_ context.Context, r fleet.Record) error {
	if r.Kind == fleet.KindRegister {
		if status, err := fleet.DecodeStatus(&r); err == nil {
			l.statuses[status.Rollout] = status
		}
		return nil
	}
	if l.crashes(beforePublish) {
		return errCrash
	}
	if l.strikes(l.params.StoreFails) {
		l.count("store write failed")
		return errStore
	}
	said := l.book.page(r)
	l.toldFact(&r, said)
	l.tell(said)
	if l.crashes(afterPublish) {
		return errCrash
	}
	return nil
}
