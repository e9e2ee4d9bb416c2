// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/cmd/internal/agent/turn"
	"github.com/flotilla-dev/flotilla/cmd/internal/readapi"
	"github.com/flotilla-dev/flotilla/sequencer"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
	"github.com/flotilla-dev/flotilla/sequencer/verify"
)

// exportOf a site: what its agent would answer, there and back.
func exportOf(t *testing.T, s *site, seals []sequencer.Sealed, heard ...readapi.FleetMember) verify.Evidence {
	t.Helper()
	set := lattice.New()
	for _, r := range s.records {
		set.Add(r)
	}
	var members []fleet.Member
	for _, m := range s.world.members {
		members = append(members, m.member)
	}
	v := &factsView{
		fleet: s.world.fleet, self: s.member, roster: func() *Roster { return NewRoster(members) },
		members: func() []readapi.FleetMember { return heard },
		view:    func(look func(*lattice.Set)) { look(set) },
		seals:   func() []sequencer.Sealed { return seals },
		blob:    func(fleet.Digest) ([]byte, bool, error) { return nil, false, nil },
		now:     func() time.Time { return time.Unix(1_800_000_000, 0) },
	}
	h, e, err := v.Facts()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := verify.Write(&b, h, &e); err != nil {
		t.Fatal(err)
	}
	if _, e, err = verify.Read(&b); err != nil {
		t.Fatal(err)
	}
	return e
}

// TestRealRunIsVerified: what production agents signed through three releases, of which the second was bad at the canary,
// and two seals, keeps all rules; asked of one member, and of all.
func TestRealRunIsVerified(t *testing.T) {
	w := released(t)
	seals := []sequencer.Sealed{w.sealed.Sealed}
	for _, s := range w.members {
		s.bad["2"] = true
	}
	w.git.Commit("main", files("2"))
	w.turns(3 * time.Minute)
	w.git.Commit("main", files("3"))
	w.turns(90 * time.Second)
	w.number++
	w.spec.Strategy.MinReadyTime = nil
	w.seal()
	seals = append(seals, w.sealed.Sealed)
	w.turns(90 * time.Second)

	var everyone []readapi.FleetMember
	for _, s := range w.members {
		everyone = append(everyone, readapi.FleetMember{ID: s.member.ID, SameState: true, Presence: readapi.PresenceHeard})
	}
	one := exportOf(t, w.members[0], seals, everyone...)
	all := exportOf(t, w.members[0], seals)
	for _, s := range w.members[1:] {
		if err := all.Join(exportOf(t, s, seals)); err != nil {
			t.Fatal(err)
		}
	}
	for name, e := range map[string]verify.Evidence{"one": one, "all": all} {
		r := verify.Check(e)
		for _, rule := range r.Rules {
			if rule.Verdict != verify.Kept {
				t.Errorf("%s: %s is %s: %+v", name, rule.ID, rule.Verdict, rule.Findings)
			}
			if vacuous := rule.Checked == 0; vacuous && !slices.Contains([]string{"R1-word", "I12", "I16", "R2"}, rule.ID) {
				t.Errorf("%s: %s was never tried", name, rule.ID)
			}
		}
		if r.Plans != 4 || r.Judged != 4 || r.Members != len(w.members) {
			t.Errorf("%s: looked at %+v", name, r)
		}
	}

	// A start that no gate opened for is found in the same records.
	lie := w.site("nyc")
	plan := sequencer.Release{Seal: w.sealed.Digest(), Number: w.sealed.Number, Revision: "main@sha1:4"}.Plan()
	for _, kind := range []fleet.FactKind{fleet.Accepted, fleet.Started} {
		f := fleet.Fact{Plan: plan, Kind: kind, Detail: "main@sha1:4"}
		record, err := lie.Prepare(fleet.KindFact, fleet.FactKey(plan, kind), f.Encode())
		if err != nil {
			t.Fatal(err)
		}
		lie.learn(record)
	}
	if err := one.Join(exportOf(t, lie, seals)); err != nil {
		t.Fatal(err)
	}
	if r := verify.Check(one); r.Verdict != verify.Broken {
		t.Errorf("a start before all gates is %s", r.Verdict)
	}
}

// TestVerifiedAfterAllStoresWereLost: all agents of a fleet are replaced at once, and with them their stores; what they say
// again is enough that nobody is accused. Some are on a release that the canary has gone on from, and one release changed
// nothing.
func TestVerifiedAfterAllStoresWereLost(t *testing.T) {
	w := released(t)
	seals := []sequencer.Sealed{w.sealed.Sealed}
	w.git.Commit("main", files("1")) // nothing that anybody runs
	w.look()
	w.turns(3 * time.Minute)
	for _, s := range w.members {
		s.bad["2"] = true
	}
	lost := func(after string) {
		var heard []readapi.FleetMember
		for _, s := range w.members {
			s.restore(s.backUp(), true)
			s.restart()
			heard = append(heard, readapi.FleetMember{ID: s.member.ID, SameState: true, Presence: readapi.PresenceHeard})
		}
		w.turns(5 * time.Second)
		r := verify.Check(exportOf(t, w.members[0], seals, heard...))
		if r.Verdict == verify.Broken || r.Judged == 0 {
			t.Errorf("after %s: %s, %d plans judged: %+v", after, r.Verdict, r.Judged, r.Rules)
		}
	}
	lost("a carry-over")
	w.git.Commit("main", files("3"))
	w.look()
	w.turns(3 * time.Minute)
	w.git.Commit("main", files("2"))
	w.look()
	w.turns(20 * time.Second)
	lost("the canary went on")
}

// TestExportIsOfWhoIsHeard: who is not in the same state, or away, may have said more than is held here.
func TestExportIsOfWhoIsHeard(t *testing.T) {
	w := released(t)
	e := exportOf(t, w.members[0], []sequencer.Sealed{w.sealed.Sealed},
		readapi.FleetMember{ID: w.members[1].member.ID, SameState: true, Presence: readapi.PresenceHeard},
		readapi.FleetMember{ID: w.members[2].member.ID, SameState: false, Presence: readapi.PresenceHeard},
		readapi.FleetMember{ID: w.members[3].member.ID, SameState: true, Presence: readapi.PresenceDoubted})
	for i, s := range w.members {
		if got, want := e.Complete[s.member.ID], i < 2; got != want {
			t.Errorf("%s is complete: %t", s.member.Name, got)
		}
	}
	for _, r := range e.Records {
		if r.Kind == fleet.KindReach || r.Kind == fleet.KindRollup {
			t.Errorf("a %s is exported", r.Kind)
		}
	}
}

// TestReplacedSealsAreRemembered: no record holds a seal of the fleet repository.
func TestReplacedSealsAreRemembered(t *testing.T) {
	h := &Homes{}
	name := fleet.RolloutName{Namespace: "shop", Name: "web"}
	for n := range uint64(replacedKept + 10) {
		s := sequencer.Sealed{Seal: fleet.Seal{Rollout: name, Author: fleet.AuthorGit, Number: n + 1}}
		h.Declare(RepositoryContent{Rollouts: map[fleet.RolloutName]turn.Rollout{name: {Sealed: s}}})
		h.Declare(RepositoryContent{Rollouts: map[fleet.RolloutName]turn.Rollout{name: {Sealed: s}}})
	}
	held := h.Seals()
	if len(held) != replacedKept+1 || held[len(held)-1].Number != replacedKept+10 || held[0].Number != 10 {
		t.Errorf("%d seals, from %d to %d", len(held), held[0].Number, held[len(held)-1].Number)
	}
}
