// SPDX-License-Identifier: Apache-2.0

package lattice_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
	"github.com/flotilla-dev/flotilla/sequencer/lattice/latticetest"
)

// TestForkedFloorRetiresNoCommand: what a forked member stopped stays, whatever floor it puts above it. Its milestones
// may go: they count for nothing.
func TestForkedFloorRetiresNoCommand(t *testing.T) {
	sign := func(by int, r fleet.Record) fleet.Record {
		if err := r.Sign(latticetest.Key(by)); err != nil {
			t.Fatal(err)
		}
		return r
	}
	var (
		stop  = sign(0, fleet.Record{Epoch: 1, Seq: 1, Kind: fleet.KindCommand, Key: "shop/web/pause"})
		fact  = sign(0, fleet.Record{Epoch: 1, Seq: 2, Kind: fleet.KindFact, Key: fleet.FactKey(fleet.Digest{1}, fleet.Started)})
		floor = sign(0, fleet.Record{Epoch: 1, Seq: 3, Kind: fleet.KindFloor, Key: fleet.FloorKey(fleet.KindCommand), Body: fleet.Floor{Kind: fleet.KindCommand, Epoch: 2}.Encode()})
		above = sign(0, fleet.Record{Epoch: 1, Seq: 4, Kind: fleet.KindFloor, Key: fleet.FloorKey(fleet.KindFact), Body: fleet.Floor{Kind: fleet.KindFact, Epoch: 2}.Encode()})
		proof = proofAgainst(t, 0)
	)
	holds := func(s *lattice.Set, r fleet.Record) bool {
		held, ok := s.Get(r.Writer, r.Kind, r.Key)
		return ok && held.Digest() == r.Digest()
	}
	for name, c := range map[string]struct {
		order []fleet.Record
		stays bool
	}{
		"no proof":                         {[]fleet.Record{stop, fact, floor, above}, false},
		"the proof before the floor":       {[]fleet.Record{stop, fact, proof, floor, above}, true},
		"the stop after both":              {[]fleet.Record{proof, floor, above, stop, fact}, true},
		"the stop after the floor, before": {[]fleet.Record{floor, above, stop, fact, proof}, false},
		"told again once it is proven":     {[]fleet.Record{stop, fact, floor, above, proof, stop, fact}, true},
	} {
		s := lattice.New()
		for _, r := range c.order {
			s.Add(r)
		}
		if holds(s, stop) != c.stays || holds(s, fact) {
			t.Errorf("%s: the stop is held: %v, the milestone: %v", name, holds(s, stop), holds(s, fact))
		}
	}

	// What is held together is held together again, in whatever order it is read.
	all := []fleet.Record{stop, floor, above, proof}
	for first := range all {
		order := append(slices.Clone(all[first:]), all[:first]...)
		for range 2 {
			s := lattice.New()
			if s.Fill(slices.Values(order)); s.Len() != len(all) {
				t.Errorf("%d of %d records from %s on", s.Len(), len(all), order[0].Kind)
			}
			slices.Reverse(order)
		}
	}
}

// TestLastProofGone: a writer against whom no proof is held any more is believed again, floors and all.
func TestLastProofGone(t *testing.T) {
	s := lattice.New()
	add := func(r fleet.Record) lattice.Change {
		r.Sig = make([]byte, 64)
		return s.Add(r)
	}
	proof := proofAgainst(t, 0)
	s.Add(proof)
	stop := fleet.Record{Writer: latticetest.Writer(0), Epoch: 1, Seq: 1, Kind: fleet.KindCommand, Key: "shop/web/pause"}
	add(stop)
	add(fleet.Record{
		Writer: latticetest.Writer(0), Epoch: 1, Seq: 2, Kind: fleet.KindFloor, Key: fleet.FloorKey(fleet.KindCommand),
		Body: fleet.Floor{Kind: fleet.KindCommand, Epoch: 2}.Encode(),
	})
	if _, held := s.Get(stop.Writer, stop.Kind, stop.Key); !held {
		t.Fatal("the stop is gone while the proof is held")
	}
	var dropped []fleet.Record
	for i := range fleet.KindProof.Quota() { // the writer of the proof pushes it out, with lower keys
		change := add(fleet.Record{Writer: proof.Writer, Epoch: 2, Seq: uint64(i + 1), Kind: fleet.KindProof, Key: fmt.Sprintf("0%04d", i)})
		dropped = append(dropped, change.Dropped...)
	}
	_, held := s.Get(stop.Writer, stop.Kind, stop.Key)
	if held || s.Forked(stop.Writer) || !slices.ContainsFunc(dropped, func(r fleet.Record) bool { return r.Key == stop.Key }) {
		t.Errorf("held: %v, forked: %v, %d dropped", held, s.Forked(stop.Writer), len(dropped))
	}
}

// proofAgainst a writer, by Writer(1).
func proofAgainst(t *testing.T, i int) fleet.Record {
	t.Helper()
	var two [2]fleet.Record
	for n, key := range []string{"a", "b"} {
		two[n] = fleet.Record{Epoch: 1, Seq: 9, Kind: fleet.KindRegister, Key: key}
		if err := two[n].Sign(latticetest.Key(i)); err != nil {
			t.Fatal(err)
		}
	}
	body, ok := fleet.Proof{A: two[0], B: two[1]}.Encode()
	proof := fleet.Record{Epoch: 1, Seq: 1, Kind: fleet.KindProof, Key: fleet.ProofKey(latticetest.Writer(i)), Body: body}
	if err := proof.Sign(latticetest.Key(1)); err != nil || !ok {
		t.Fatal(err, ok)
	}
	return proof
}
