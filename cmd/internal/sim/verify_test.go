// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"crypto/ed25519"
	"maps"
	"slices"
	"testing"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/verify"
)

// verifiedSeeds are as many as are looked at: each record of theirs is signed first.
const verifiedSeeds = min(12, seeds/4)

// signer signs what a world said: here signatures were spared.
type signer struct {
	t    *testing.T
	keys map[fleet.MemberID]ed25519.PrivateKey
	// signed names records by what they were named unsigned: goes name the stops that they lift.
	signed map[fleet.Digest]fleet.Digest
}

func newSigner(t *testing.T, w *World) *signer {
	s := &signer{t: t, keys: map[fleet.MemberID]ed25519.PrivateKey{}, signed: map[fleet.Digest]fleet.Digest{}}
	for i, m := range w.members {
		s.keys[m.Self.ID] = simulatedKey(i)
	}
	return s
}

func (s *signer) sign(r fleet.Record) fleet.Record {
	s.t.Helper()
	unsigned := r.Digest()
	if r.Kind == fleet.KindCommand {
		c, err := fleet.DecodeCommand(&r)
		if err != nil {
			s.t.Fatal(err)
		}
		for i, id := range c.Lifts {
			c.Lifts[i] = s.signed[id]
		}
		r.Body = c.Encode()
	}
	key, known := s.keys[r.Writer]
	if !known {
		s.t.Fatalf("%s is no member", r.Writer)
	}
	if err := r.Sign(key); err != nil {
		s.t.Fatal(err)
	}
	s.signed[unsigned] = r.Digest()
	return r
}

// evidence of a world, as all its members together would export it.
func evidence(t *testing.T, w *World) verify.Evidence {
	t.Helper()
	s := newSigner(t, w)
	e := verify.Evidence{Fleet: simFleet, Complete: map[fleet.MemberID]bool{}}
	for _, m := range w.members {
		e.Roster = append(e.Roster, m.Self)
		e.Complete[m.Self.ID] = true
	}
	for _, r := range w.rollouts {
		for i := range r.seals {
			sealed := &r.seals[i].rollout.Sealed
			spec, members, err := sealed.Bodies()
			if err != nil {
				t.Fatal(err)
			}
			e.Seals, e.Bodies = append(e.Seals, sealed.Seal), append(e.Bodies, spec, members)
		}
	}
	for _, r := range w.book.records[1:] {
		e.Records = append(e.Records, s.sign(r))
	}
	for _, m := range w.members { // what is promised and not told yet binds its member, too
		for _, b := range slices.Sorted(maps.Keys(m.saidBefore)) {
			if r, err := fleet.DecodeRecord([]byte(b)); err == nil {
				e.Records = append(e.Records, s.sign(r))
			}
		}
	}
	return e
}

// TestRunsAreVerified: what agents sign in the worst of weather keeps all rules, by the records alone. Clocks drift and
// jump here, so that some of it looks too early by them.
func TestRunsAreVerified(t *testing.T) {
	swarm, _ := Find("swarm")
	checked := map[string]int{}
	for seed := range uint64(verifiedSeeds) {
		w := verifiedWorld(t, swarm, seed, Bug{})
		if w.broken() {
			t.Fatalf("seed %d: %v", seed, w.violations)
		}
		r := verify.Check(evidence(t, w))
		for _, rule := range r.Rules {
			checked[rule.ID] += rule.Checked
			for _, f := range rule.Findings {
				proven := rule.ID == "R1-word" && w.faults["equivocation proven"] > 0
				byClocks := slices.ContainsFunc(f.Lacks, func(l verify.Lack) bool { return l.Why == verify.ByClocks || l.Why == verify.Disbelieved })
				if !proven && !byClocks {
					t.Errorf("seed %d: %s %s: %s: %s %v", seed, rule.ID, f.Verdict, f.Member, f.Story, f.Lacks)
				}
			}
		}
		if r.Judged != r.Plans || r.Plans == 0 {
			t.Errorf("seed %d: %d of %d plans were judged", seed, r.Judged, r.Plans)
		}
	}
	t.Log(checked)
	for id, n := range checked {
		if n == 0 && id != "I12" && id != "I16" && id != "I4" { // rare in few worlds; P4 and the tests of package verify try them
			t.Errorf("vacuous: %s was never tried", id)
		}
	}
}

// TestPlantedBugsAreVerified: what a bug makes members sign is found broken by the records alone. Only bugs are here
// that records can show: none says which stops its writer had heard of.
func TestPlantedBugsAreVerified(t *testing.T) {
	swarm, _ := Find("swarm")
	told := []struct{ id, rule string }{
		{"P1", "R2"}, {"P4", "I12"}, {"P6", "I13"}, {"P35", "R2"}, {"P38", "I1"}, {"P39", "I2"}, {"classic 1", "I1"}, {"classic 3", "R2"},
	}
	for i, want := range told {
		if i%bugsApart != 0 {
			continue
		}
		t.Run(want.id, func(t *testing.T) {
			at := slices.IndexFunc(Planted, func(b Bug) bool { return b.ID == want.id })
			if at < 0 {
				t.Fatal("no such bug is planted")
			}
			for seed := range uint64(budget) {
				w := verifiedWorld(t, swarm, Planted[at].from+seed, Planted[at])
				if !w.broken() {
					continue
				}
				r := verify.Check(evidence(t, w))
				if slices.ContainsFunc(r.Rules, func(rule verify.Rule) bool { return rule.ID == want.rule && rule.Verdict == verify.Broken }) {
					return
				}
			}
			t.Errorf("the records of %d seeds do not show that %s is broken", budget, want.rule)
		})
	}
}

// verifiedWorld has run.
func verifiedWorld(t *testing.T, s Scenario, seed uint64, bug Bug) *World {
	t.Helper()
	w, err := s.world(seed, 12, bug)
	if err != nil {
		t.Fatal(err)
	}
	w.run()
	return w
}
