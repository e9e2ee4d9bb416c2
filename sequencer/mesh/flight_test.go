// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
)

// TestFlightsAreShared: what another session fetches is left to it, for as long as it may take; then it is fetched by
// whoever finds it missing.
func TestFlightsAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const count = 300
		roster := rosterOf("lab", "lab", "lab")
		a, b := nodeOf(t, 0, roster), nodeOf(t, 1, roster)
		records := registers(t, 1, count, 100)
		commit(t, b, records...)
		var half []fleet.Digest
		for i := range records[:count/2] {
			half = append(half, lattice.Position(records[i].Writer, records[i].Kind, records[i].Key))
		}
		liar := &asker{Node: a}
		if got := a.flights.claim(liar, half, time.Now().Add(a.cfg.StreamTimeout)); len(got) != len(half) {
			t.Fatalf("%d of %d claimed", len(got), len(half))
		}
		asked, _, err := session(a, b, direct)
		if err != nil {
			t.Fatal(err)
		}
		if len(asked.learnt) != count/2 || asked.left != count/2 {
			t.Errorf("%d learnt, %d left, want half of %d each", len(asked.learnt), asked.left, count)
		}
		pass(a.cfg.StreamTimeout + 1)
		if asked, _, err = session(a, b, direct); err != nil {
			t.Fatal(err)
		}
		if asked.left != 0 || a.Root() != b.Root() {
			t.Errorf("%d left to who never brought them", asked.left)
		}
		if asked.records != count/2 {
			t.Errorf("%d records crossed again, want those that did not come", asked.records)
		}
	})
}

// TestBulkIsForThoseWhoBring: sessions that bring much keep others from bringing the same; not longer than they do.
func TestBulkIsForThoseWhoBring(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		roster := rosterOf("lab", "lab")
		a, b := nodeOf(t, 0, roster), nodeOf(t, 1, roster)
		commit(t, b, registers(t, 1, 100, 100)...)
		var others []*asker
		for range bulkAtOnce {
			other := &asker{Node: a}
			others = append(others, other)
			a.flights.brought(other, bulkBytes-1)
		}
		if a.flights.busy(nil, 1) {
			t.Error("little is much")
		}
		for _, other := range others {
			a.flights.brought(other, 1)
		}
		asked, _, err := session(a, b, direct)
		if err != nil || asked.left == 0 || len(asked.learnt) != 0 {
			t.Fatalf("%d learnt, %d left beside %d that bring much: %v", len(asked.learnt), asked.left, bulkAtOnce, err)
		}
		pass(bulkTime)
		for _, other := range others {
			a.flights.brought(other, bulkBytes/8) // a trickle
		}
		asked, _, err = session(a, b, direct)
		if err != nil || asked.left != 0 || a.Root() != b.Root() {
			t.Fatalf("%d left to those who bring next to nothing: %v", asked.left, err)
		}
	})
}

// TestPushesAreBounded: the other side gets what is over the bound by asking.
func TestPushesAreBounded(t *testing.T) {
	const count, pushes = 100, 16
	roster := rosterOf("lab", "lab")
	a, b := nodeOf(t, 0, roster), nodeOf(t, 1, roster)
	commit(t, a, registers(t, 0, count, 100)...)
	asked, answered, err := sessionOf(&asker{Node: a, pushes: pushes}, b, direct)
	if err != nil {
		t.Fatal(err)
	}
	if len(answered.learnt) != pushes || asked.unsaid != count-pushes || asked.left != 0 {
		t.Errorf("%d given, %d not, of %d", len(answered.learnt), asked.unsaid, count)
	}
	if _, _, err := session(b, a, direct); err != nil || a.Root() != b.Root() {
		t.Errorf("who asked did not get the rest: %v", err)
	}
}

func TestWindow(t *testing.T) {
	w := window{windowFirst}
	for range 20 {
		w.answered(windowSoon / 2)
	}
	if w.size != maxFrame || w.prefixes() != asksAtOnce || w.positions() > wantsAtOnce {
		t.Errorf("on a fast line %+v: %d prefixes, %d positions", w, w.prefixes(), w.positions())
	}
	w.answered((windowSoon + windowLate) / 2)
	if w.size != maxFrame {
		t.Errorf("an answer in time makes it %d", w.size)
	}
	for range 20 {
		w.answered(windowLate + 1)
	}
	if w.size != windowLeast || w.prefixes() < 1 || w.positions() < 1 {
		t.Errorf("on a slow line %+v: %d prefixes, %d positions", w, w.prefixes(), w.positions())
	}
}
