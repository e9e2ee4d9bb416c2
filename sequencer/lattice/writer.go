// SPDX-License-Identifier: Apache-2.0

package lattice

import (
	"cmp"
	"slices"
	"sort"
	"strings"
	"unique"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// entry is one record in its place. Records of many members lie under the same few keys, and in one fleet: those
// are kept once. digest is zero until a fingerprint needs it.
type entry struct {
	position fleet.Digest
	digest   fleet.Digest
	row      *row
	fleet    unique.Handle[fleet.Digest]
	key      unique.Handle[string]
	// epoch and seq are the record's counters.
	epoch, seq uint64
	// tail is the body, up to body, and the signature.
	tail []byte
	body int32
	// proves: a proof that was verified.
	proves bool
	// ends is the last day of a register; zero for what stays.
	ends int64
}

// record is what was added. It shares the entry's memory.
func (e *entry) record() fleet.Record {
	r := fleet.Record{
		Fleet: e.fleet.Value(), Writer: e.row.writer.id, Epoch: e.epoch, Seq: e.seq,
		Kind: e.row.kind, Key: e.key.Value(), Sig: e.tail[e.body:],
	}
	if e.body > 0 {
		r.Body = e.tail[:e.body:e.body]
	}
	return r
}

// hold takes the record in. A key, once there, stays.
func (e *entry) hold(r *fleet.Record) {
	e.fleet = unique.Make(r.Fleet)
	e.epoch, e.seq, e.digest = r.Epoch, r.Seq, fleet.Digest{}
	e.tail = append(append(make([]byte, 0, len(r.Body)+len(r.Sig)), r.Body...), r.Sig...)
	e.body, e.ends = int32(len(r.Body)), 0
	if last, ok := r.Expires(); ok {
		e.ends = last
	}
}

func (e *entry) recordDigest() fleet.Digest {
	if e.digest.IsZero() {
		r := e.record()
		e.digest = r.Digest()
	}
	return e.digest
}

// writer is what one member said.
type writer struct {
	id fleet.MemberID
	// zone, while it is on the roster.
	zone    string
	present bool
	rows    []*row
	// said are all of its entries in the order of their counters.
	said []*entry
	// floors in force, by the kind that they retire.
	floors map[fleet.Kind]*fleet.Floor
}

func (w *writer) row(kind fleet.Kind, scope fleet.Scope) *row {
	for _, row := range w.rows {
		if row.kind == kind && row.scope == scope {
			return row
		}
	}
	return nil
}

// from is where in said the entries with these counters, and later ones, begin.
func (w *writer) from(epoch, seq uint64) int {
	return sort.Search(len(w.said), func(i int) bool {
		return cmp.Or(cmp.Compare(w.said[i].epoch, epoch), cmp.Compare(w.said[i].seq, seq)) >= 0
	})
}

func (w *writer) index(e *entry) { w.said = slices.Insert(w.said, w.from(e.epoch, e.seq), e) }

func (w *writer) unindex(e *entry) {
	i := w.from(e.epoch, e.seq)
	for w.said[i] != e {
		i++ // a forked writer has several
	}
	w.said = slices.Delete(w.said, i, i+1)
}

// row is what one writer said of one kind in one scope, in the order of groups and, in a group, of keys. Of a
// seal the group is its rollout, of which each may have some; everything else is a group by itself. Only floors of
// one kind lie in several scopes: what happens in a share must not depend on another one.
type row struct {
	writer  *writer
	kind    fleet.Kind
	scope   fleet.Scope
	entries []*entry
	groups  int
	// over: the writer said more groups than there is room for.
	over bool
}

// bounds are how many groups a row has room for, and how many entries a group has.
func (w *row) bounds() (groups, each int) {
	if w.kind == fleet.KindSeal {
		return w.kind.Quota() / fleet.SealsKept, fleet.SealsKept
	}
	return w.kind.Quota(), 1
}

// group of a key: all of it, but of a seal's only the rollout.
func (w *row) group(key string) string {
	if w.kind == fleet.KindSeal {
		if i := strings.LastIndexByte(key, '/'); i >= 0 {
			return key[:i]
		}
	}
	return key
}

func (w *row) groupAt(i int) string { return w.group(w.entries[i].key.Value()) }

// find is where a key lies or would lie.
func (w *row) find(key string) (i int, found bool) {
	group := w.group(key)
	i = sort.Search(len(w.entries), func(i int) bool {
		other := w.entries[i].key.Value()
		return cmp.Or(cmp.Compare(w.group(other), group), cmp.Compare(other, key)) >= 0
	})
	return i, i < len(w.entries) && w.entries[i].key.Value() == key
}

func (w *row) get(key string) *entry {
	if i, found := w.find(key); found {
		return w.entries[i]
	}
	return nil
}

// room says what a new key takes: it is over the quota or too old, or others have to go.
func (w *row) room(key string, p *place) {
	groups, each := w.bounds()
	group := w.group(key)
	i, _ := w.find(key)
	first, end := w.extent(i, group)
	switch {
	case end-first >= each: // of a rollout the newest seals stay
		if i == first {
			p.verdict = unwelcome
		} else {
			p.evicted = w.entries[first : first+1]
		}
	case end == first && w.groups >= groups: // of all else the lowest keys
		p.over = true
		if last := w.groupAt(len(w.entries) - 1); group > last {
			p.verdict = unwelcome
		} else {
			first, _ = w.extent(len(w.entries), last)
			p.evicted = w.entries[first:]
		}
	}
	p.evicted = slices.Clone(p.evicted)
}

// extent of a group around an index.
func (w *row) extent(i int, group string) (first, end int) {
	first, end = i, i
	for first > 0 && w.groupAt(first-1) == group {
		first--
	}
	for end < len(w.entries) && w.groupAt(end) == group {
		end++
	}
	return first, end
}

func (w *row) put(e *entry) {
	i, _ := w.find(e.key.Value())
	if first, end := w.extent(i, w.group(e.key.Value())); first == end {
		w.groups++
	}
	w.entries = slices.Insert(w.entries, i, e)
}

func (w *row) take(e *entry) {
	i, _ := w.find(e.key.Value())
	w.entries = slices.Delete(w.entries, i, i+1)
	if first, end := w.extent(i, w.group(e.key.Value())); first == end {
		w.groups--
	}
}
