// SPDX-License-Identifier: Apache-2.0

package lattice

import (
	"maps"
	"slices"
	"unique"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// insert puts in a record under a key that is free.
func (s *Set) insert(r *fleet.Record, ends int64) {
	w := s.writers[r.Writer]
	if w == nil {
		w = &writer{id: r.Writer}
		w.zone, w.present = s.zoneOf(r.Writer)
		s.writers[r.Writer] = w
	}
	in := w.row(r.Kind, r.Scope())
	if in == nil {
		in = &row{writer: w, kind: r.Kind, scope: r.Scope()}
		w.rows = append(w.rows, in)
	}
	e := &entry{position: Position(r.Writer, r.Kind, r.Key), row: in, key: unique.Make(r.Key)}
	e.hold(r, ends)
	in.put(e)
	w.index(e)
	s.trie(e, true).insert(e, 0)
	s.size++
	s.settled = false
	s.takeEffect(e, r)
}

// replace puts a record in the place of an older one under its key.
func (s *Set) replace(e *entry, r *fleet.Record, ends int64) {
	s.loseEffect(e)
	e.row.writer.unindex(e)
	e.hold(r, ends)
	e.row.writer.index(e)
	s.trie(e, false).touch(e.position, 0)
	s.settled = false
	s.takeEffect(e, r)
}

func (s *Set) remove(e *entry) {
	e.row.take(e)
	e.row.writer.unindex(e)
	s.forget(e)
}

// forget an entry that lies in no row any more.
func (s *Set) forget(e *entry) {
	s.loseEffect(e)
	in := s.trie(e, false)
	in.remove(e.position, 0)
	if in.count == 0 && in != s.apart {
		delete(s.shares, shareIn(e.row.scope, e.row.writer.zone))
	}
	s.size--
	s.settled = false
}

// takeEffect: floors and proofs are read once, when they come.
func (s *Set) takeEffect(e *entry, r *fleet.Record) {
	switch r.Kind {
	case fleet.KindFloor:
		if f, err := fleet.DecodeFloor(r); err == nil {
			w := e.row.writer
			if w.floors == nil {
				w.floors = map[fleet.Kind]*fleet.Floor{}
			}
			w.floors[f.Kind] = &f
		}
	case fleet.KindProof:
		if p, err := fleet.DecodeProof(r); err == nil {
			e.proves = true
			s.forked[p.A.Writer]++
		}
	}
}

func (s *Set) loseEffect(e *entry) {
	switch e.row.kind {
	case fleet.KindFloor:
		maps.DeleteFunc(e.row.writer.floors, func(kind fleet.Kind, _ *fleet.Floor) bool {
			return fleet.FloorKey(kind) == e.key.Value()
		})
	case fleet.KindProof:
		accused := fleet.MemberID(e.key.Value())
		if !e.proves {
			return
		}
		if e.proves = false; s.forked[accused] > 1 {
			s.forked[accused]--
		} else {
			delete(s.forked, accused)
		}
	}
}

// commandFloor is the key of floors that retire commands.
var commandFloor = fleet.FloorKey(fleet.KindCommand)

// inForce says whether a floor retires anything. One of a forked writer retires no command: its goes count for nothing, and
// what would take a stop away without any go must not count for more.
func (s *Set) inForce(f *fleet.Floor) bool {
	return f.Kind != fleet.KindCommand || !s.Forked(f.Writer)
}

// believeAgain a writer against whom the last proof is gone: its floor is in force.
func (s *Set) believeAgain(proof *entry) []fleet.Record {
	if proof == nil {
		return nil
	}
	accused := fleet.MemberID(proof.key.Value())
	if w := s.writers[accused]; w != nil && !s.Forked(accused) {
		return s.retire(w, commandFloor)
	}
	return nil
}

// retire drops what the floor under a key covers.
func (s *Set) retire(w *writer, key string) (dropped []fleet.Record) {
	for kind, f := range w.floors {
		if fleet.FloorKey(kind) == key && s.inForce(f) {
			dropped = s.dropIf(w, func(e *entry) bool {
				if e.row.kind != kind {
					return false
				}
				r := e.record()
				return f.Retires(&r)
			})
		}
	}
	return dropped
}

// dropIf takes out a writer's entries in one pass.
func (s *Set) dropIf(w *writer, gone func(*entry) bool) (dropped []fleet.Record) {
	leaving := map[*entry]bool{}
	for _, e := range w.said {
		if gone(e) {
			leaving[e] = true
			dropped = append(dropped, e.record())
		}
	}
	if len(leaving) == 0 {
		return nil
	}
	leaves := func(e *entry) bool { return leaving[e] }
	w.said = slices.DeleteFunc(w.said, leaves)
	for _, row := range w.rows {
		row.entries = slices.DeleteFunc(row.entries, leaves)
		row.groups = 0
		for i := range row.entries {
			if i == 0 || row.groupAt(i) != row.groupAt(i-1) {
				row.groups++
			}
		}
		if groups, _ := row.bounds(); row.groups < groups {
			s.setOver(row, false)
		}
	}
	for e := range leaving {
		s.forget(e)
	}
	w.rows = slices.DeleteFunc(w.rows, func(r *row) bool { return len(r.entries) == 0 })
	if len(w.rows) == 0 {
		delete(s.writers, w.id)
	}
	return dropped
}

// Age says which day it is: registers that ended before it are dropped, and refused from now on. Milestones never
// end. It gives what was dropped, and costs nothing while the day is the same.
//
// The day may go back, as clocks do. A member whose clock jumps a year ahead drops every register and takes none,
// and when its clock is right again it takes from the others what they still hold: were the day never to go
// back, it would differ from them for that year. What ended does not come back by it, as nobody on the right day has it.
func (s *Set) Age(day int64) (dropped []fleet.Record) {
	ahead := day > s.day
	s.day = day
	if !ahead {
		return nil
	}
	for _, id := range slices.Sorted(maps.Keys(s.writers)) {
		dropped = append(dropped, s.dropIf(s.writers[id], func(e *entry) bool { return e.ends != 0 && e.ends < day })...)
	}
	return dropped
}

// Conflict is a record held that the same writer signed with the counters of r, under whichever key, and that has
// other bytes: together they are a [fleet.Proof]. Of several it is the shortest, or a long one would keep the others out
// of every proof. Ask before r is added, as it may take the other's place.
func (s *Set) Conflict(r *fleet.Record) (rival fleet.Record, found bool) {
	w := s.writers[r.Writer]
	if w == nil {
		return fleet.Record{}, false
	}
	long := func(r *fleet.Record) int { return len(r.Key) + len(r.Body) }
	for i := w.from(r.Epoch, r.Seq); i < len(w.said); i++ {
		held := w.said[i].record()
		if held.Epoch != r.Epoch || held.Seq != r.Seq {
			break
		}
		differs := held.Fleet == r.Fleet && (held.Kind != r.Kind || held.Key != r.Key || !same(&held, r))
		if differs && (!found || long(&held) < long(&rival)) {
			rival, found = held, true
		}
	}
	return rival, found
}

// Forked says that a proof against the writer is held. What it says is carried and counts for nothing.
func (s *Set) Forked(writer fleet.MemberID) bool { return s.forked[writer] > 0 }

// AllForked are the writers that Forked is true of, in order.
func (s *Set) AllForked() []fleet.MemberID { return slices.Sorted(maps.Keys(s.forked)) }

// Over says that a writer has said more than its quota, so that some of it is missing here. It ends when the writer
// has retired enough, or enough of it has expired.
func (s *Set) Over(writer fleet.MemberID) bool { return s.over[writer] > 0 }

// AllOver are the writers that Over is true of, in order.
func (s *Set) AllOver() []fleet.MemberID { return slices.Sorted(maps.Keys(s.over)) }

func (s *Set) setOver(w *row, over bool) {
	if w.over == over {
		return
	}
	w.over = over
	id := w.writer.id
	if over {
		s.over[id]++
	} else if s.over[id]--; s.over[id] == 0 {
		delete(s.over, id)
	}
}
