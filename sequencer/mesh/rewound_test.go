// SPDX-License-Identifier: Apache-2.0

package mesh_test

import (
	"bytes"
	"fmt"
	"math"
	"testing"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
)

// TestRewoundMemberIsNotConvicted: a machine is taken back to a snapshot while its agent runs, a hundred times, and says
// other things than it said before. Who holds all of it finds no two words in one position; what is said again
// is the same record.
func TestRewoundMemberIsNotConvicted(t *testing.T) {
	n := newAlone(t).start(t)
	others := lattice.New()
	back := n.Snapshot()
	prepare := func(key, body string) fleet.Record {
		t.Helper()
		r, err := n.Prepare(fleet.KindRegister, key, []byte(body))
		must(t, err)
		if rival, found := others.Conflict(&r); found {
			t.Fatalf("%q and %q are both at %d.%d", rival.Body, r.Body, r.Epoch, r.Seq)
		}
		others.Add(r)
		return r
	}
	for i := range 100 {
		for k := range 5 {
			prepare(fmt.Sprint("k", k), fmt.Sprint("life ", i))
		}
		back()
	}
	first := prepare("same", "words")
	back()
	if again := prepare("same", "words"); !bytes.Equal(first.Encode(), again.Encode()) {
		t.Error("the same words are two records")
	}
	if others.Len() != 6 {
		t.Errorf("%d records", others.Len())
	}
}

// TestRewoundMemberGoesOn: what it said after the snapshot comes back from the others. It goes above that, and what it
// says next stands.
func TestRewoundMemberGoesOn(t *testing.T) {
	n := newAlone(t).start(t)
	back := n.Snapshot()
	said, err := n.Prepare(fleet.KindRegister, "other", []byte("after the snapshot"))
	must(t, err)
	for range 5 {
		said, err = n.Prepare(fleet.KindRegister, "k", []byte("after the snapshot"))
		must(t, err)
	}
	back()
	now := say(t, n, "k", "rewound")
	must(t, n.Adopt(said)) // as by reconciliation
	var held fleet.Record
	n.View(func(s *lattice.Set) { held, _ = s.Get(memberID(0), fleet.KindRegister, "k") })
	if string(held.Body) != "rewound" || held.Epoch <= now.Epoch || n.Self().Duplicate {
		t.Errorf("%q stands, in epoch %d after %d; duplicate: %v", held.Body, held.Epoch, now.Epoch, n.Self().Duplicate)
	}
}

// TestPositionsRise however much one life says.
func TestPositionsRise(t *testing.T) {
	n := newAlone(t).start(t)
	var first, last fleet.Record
	for i := range 6 {
		r := say(t, n, "k", fmt.Sprint(i))
		if i > 0 && !r.Newer(&last) {
			t.Errorf("%d.%d after %d.%d", r.Epoch, r.Seq, last.Epoch, last.Seq)
		}
		if last = r; i == 2 {
			first = r
			n.SetCount(math.MaxUint32 - 1)
		}
	}
	if last.Epoch == first.Epoch {
		t.Error("more was said in one life than there are positions for")
	}
}
