// SPDX-License-Identifier: Apache-2.0

package readapitest

import (
	"cmp"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"slices"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/verify"
)

// fleetID of a world's records.
var fleetID = fleet.DigestOf("flotilla.dev/readapitest")

// signer gives each member its positions.
type signer struct {
	keys map[fleet.MemberID]ed25519.PrivateKey
	seq  map[fleet.MemberID]uint64
}

// Signed is all that the world's members said, in records that bear their signatures. Everybody holds all of it.
func (w *World) Signed() (verify.Evidence, error) {
	s := signer{map[fleet.MemberID]ed25519.PrivateKey{}, map[fleet.MemberID]uint64{}}
	e := verify.Evidence{Fleet: fleetID, Roster: Members(), Complete: map[fleet.MemberID]bool{}}
	for _, m := range e.Roster {
		seed := sha256.Sum256([]byte(m.Name))
		s.keys[m.ID] = ed25519.NewKeyFromSeed(seed[:])
		e.Complete[m.ID] = true
	}
	sealed, err := deal()
	if err != nil {
		return verify.Evidence{}, err
	}
	spec, members, err := sealed.Bodies()
	if err != nil {
		return verify.Evidence{}, err
	}
	e.Seals, e.Bodies = []fleet.Seal{sealed.Seal}, [][]byte{spec, members}
	if err := s.words(w, &e); err != nil {
		return verify.Evidence{}, err
	}
	for _, m := range e.Roster {
		for i := range 2 {
			if w.proven[m.ID] {
				if err := s.add(&e, fleet.Record{Kind: fleet.KindRegister, Key: "word", Body: []byte{byte(i)}, Writer: m.ID, Seq: 1 << 20}); err != nil {
					return verify.Evidence{}, err
				}
			}
		}
	}
	return e, nil
}

// words in the order in which they were said.
func (s *signer) words(w *World, e *verify.Evidence) error {
	type word struct {
		time   int64
		kind   fleet.FactKind
		record fleet.Record
		stop   *fleet.Command
	}
	var words []word
	for _, p := range w.plans {
		for _, f := range w.FactsOf(p.Digest) {
			words = append(words, word{f.Time, f.Kind, fleet.Record{Kind: fleet.KindFact, Key: fleet.FactKey(f.Plan, f.Kind), Body: f.Encode(), Writer: f.Member}, nil})
		}
	}
	for i := range w.commands {
		words = append(words, word{w.commands[i].Time, 0, fleet.Record{Kind: fleet.KindCommand, Writer: w.commands[i].By}, &w.commands[i]})
	}
	slices.SortStableFunc(words, func(a, b word) int {
		return cmp.Or(cmp.Compare(a.time, b.time), cmp.Compare(a.record.Writer, b.record.Writer), cmp.Compare(a.kind, b.kind))
	})
	ids := map[fleet.Digest]fleet.Digest{}
	for i := range words {
		r := words[i].record
		if c := words[i].stop; c != nil {
			said := *c
			said.Lifts = nil
			for _, id := range c.Lifts {
				said.Lifts = append(said.Lifts, ids[id])
			}
			r.Key, r.Body = fmt.Sprintf("%s/%s/%d", c.Rollout, c.Verb, i), said.Encode()
		}
		if err := s.add(e, r); err != nil {
			return err
		}
		if words[i].stop != nil {
			ids[words[i].stop.ID] = e.Records[len(e.Records)-1].Digest()
		}
	}
	return nil
}

// add a record, signed, in its writer's next position where it has none.
func (s *signer) add(e *verify.Evidence, r fleet.Record) error {
	if r.Seq == 0 {
		s.seq[r.Writer]++
		r.Seq = s.seq[r.Writer]
	}
	r.Fleet, r.Epoch = fleetID, 1
	if err := r.Sign(s.keys[r.Writer]); err != nil {
		return err
	}
	e.Records = append(e.Records, r)
	return nil
}
