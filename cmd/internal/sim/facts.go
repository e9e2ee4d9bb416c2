// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"math/bits"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/cmd/internal/agent/turn"
)

// book holds every record that was ever said, once: what a member has heard is a set of page numbers. A thousand
// members with thousands of facts would else hold millions of copies.
type book struct {
	records []fleet.Record
	digests []fleet.Digest
	pages   map[fleet.Digest]int
	facts   map[factKey]int
	// about says which rollout a page is about; -1 where that is not known.
	about    []int
	commands [][]int // by rollout
	proofs   map[fleet.MemberID]int
	plans    map[fleet.Digest]int
	names    map[fleet.RolloutName]int
}

type factKey struct {
	plan   fleet.Digest
	member fleet.MemberID
	kind   fleet.FactKind
}

func newBook() *book {
	return &book{pages: map[fleet.Digest]int{}, facts: map[factKey]int{}, plans: map[fleet.Digest]int{}, names: map[fleet.RolloutName]int{}, proofs: map[fleet.MemberID]int{}}
}

// page of a record.
func (b *book) page(r fleet.Record) int {
	digest := r.Digest()
	if page, ok := b.pages[digest]; ok {
		return page
	}
	page, about := len(b.records), -1
	switch r.Kind {
	case fleet.KindFact:
		if f, err := fleet.DecodeFact(&r); err == nil {
			b.facts[factKey{f.Plan, f.Member, f.Kind}] = page
			if name, ok := b.plans[f.Plan]; ok {
				about = name
			}
		}
	case fleet.KindCommand:
		if c, err := fleet.DecodeCommand(&r); err == nil {
			about = b.names[c.Rollout]
			b.commands[about] = append(b.commands[about], page)
		}
	case fleet.KindProof:
		b.proofs[fleet.MemberID(r.Key)] = page
	}
	b.pages[digest] = page
	b.records, b.digests, b.about = append(b.records, r), append(b.digests, digest), append(b.about, about)
	return page
}

// heard is the pages that somebody holds.
type heard struct {
	words []uint64
	count int
}

func (h *heard) has(page int) bool {
	return page>>6 < len(h.words) && h.words[page>>6]&(1<<(page&63)) != 0
}

// add a page; false where it was held.
func (h *heard) add(page int) bool {
	for page>>6 >= len(h.words) {
		h.words = append(h.words, 0)
	}
	if h.words[page>>6]&(1<<(page&63)) != 0 {
		return false
	}
	h.words[page>>6] |= 1 << (page & 63)
	h.count++
	return true
}

// missing are the pages that another one holds and this one does not.
func (h *heard) missing(other *heard) []int {
	var pages []int
	for i, word := range other.words {
		if i < len(h.words) {
			word &^= h.words[i]
		}
		for ; word != 0; word &= word - 1 {
			pages = append(pages, i<<6+bits.TrailingZeros64(word))
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
	page, said := l.book.facts[k]
	return said && l.heard.has(page)
}

// Fact is in sequencer.Facts.
func (l ledger) Fact(plan fleet.Digest, m fleet.MemberID, kind fleet.FactKind) (fleet.Digest, bool) {
	k := factKey{plan, m, kind}
	if l.bug.fact != nil {
		return fleet.DigestOf("flotilla.dev/sim-lie"), l.bug.fact(l, k)
	}
	page, said := l.book.facts[k]
	if !said || !l.heard.has(page) {
		return fleet.Digest{}, false
	}
	return l.book.digests[page], true
}

// Removed is in sequencer.Facts.
func (l ledger) Removed(id fleet.MemberID) bool {
	page, proven := l.book.proofs[id]
	return proven && l.heard.has(page)
}

// Commands is in sequencer.Facts.
func (l ledger) Commands(name fleet.RolloutName) []fleet.Command {
	all := l.believed(name)
	if l.bug.heard != nil {
		return l.bug.heard(l, all)
	}
	return all
}

// believed commands are all but the goes of members that were removed.
func (l ledger) believed(name fleet.RolloutName) []fleet.Command {
	var out []fleet.Command
	for _, page := range l.book.commands[l.book.names[name]] {
		if l.heard.has(page) {
			c, err := fleet.DecodeCommand(&l.book.records[page])
			if err == nil && (c.Verb != fleet.Resume || !l.Removed(c.By)) {
				out = append(out, c)
			}
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
	l.tell(l.book.page(r))
	if l.crashes(afterPublish) {
		return errCrash
	}
	return nil
}
