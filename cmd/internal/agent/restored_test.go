// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"maps"
	"testing"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/cmd/internal/agent/turn"
	"github.com/flotilla-dev/flotilla/delivery"
	"github.com/flotilla-dev/flotilla/sequencer"
)

// backup of a cluster's API.
type backup struct {
	held  map[fleet.RolloutName][]byte
	found turn.Restoration
}

func (s *site) backUp() backup { return backup{maps.Clone(s.promises.held), s.promises.found} }

// restore the API, with the store or without it. The agent's process goes on unless it is restarted.
func (s *site) restore(b backup, storeToo bool) {
	s.promises.held, s.promises.found = maps.Clone(b.held), b.found
	if storeToo {
		s.records = map[fleet.Digest]fleet.Record{}
	}
}

// hear what another member holds.
func (s *site) hear(other *site, which func(fleet.Record) bool) {
	for _, r := range other.records {
		if which(r) {
			s.learn(r)
		}
	}
}

func anyRecord(fleet.Record) bool { return true }

// wantRestored wants the member to be held, to say why, and to be silent in its plan.
func (s *site) wantRestored() {
	s.world.t.Helper()
	if d := s.last.Decision; d.Verdict != sequencer.Hold || d.Reason != sequencer.WasRestored {
		s.world.t.Fatalf("%s: %s", s.member.Name, d.Because())
	}
	if c := s.stalled(); c == nil || c.Reason != v1alpha1.ReasonRestored {
		s.world.t.Errorf("Stalled is %+v", c)
	}
}

func (s *site) milestones() (n int) {
	for _, r := range s.records {
		if r.Writer == s.member.ID && r.Kind == fleet.KindFact {
			n++
		}
	}
	return n
}

// TestRestoredAPIAndLostStore: the member started and succeeded, and knows nothing of it. One word of its own that
// somebody holds is enough for it to say nothing new; a new incarnation takes part again.
func TestRestoredAPIAndLostStore(t *testing.T) {
	for _, kind := range []fleet.FactKind{fleet.Accepted, fleet.Started, fleet.Soaked} {
		w := newWorld(t)
		ams, nyc := w.site("ams"), w.site("nyc")
		before := ams.backUp()
		w.git.Commit("main", files("1"))
		w.turns(3 * time.Minute)
		w.want(everyone1)
		plan := ams.last.Plan.Digest
		ams.restore(before, true)
		ams.restart()
		ams.cut = true
		ams.hear(nyc, func(r fleet.Record) bool {
			f, err := fleet.DecodeFact(&r)
			return err == nil && f.Plan == plan && f.Member == ams.member.ID && f.Kind == kind
		})
		w.turns(3 * time.Minute)
		ams.wantRestored()
		if n := ams.milestones(); n != 1 {
			t.Errorf("%s: it has %d milestones, one was heard and nothing may be said", kind, n)
		}
		ams.heal()
		w.turns(time.Minute)
		ams.wantRestored()

		ams.restart() // it is in the API
		w.turns(time.Second)
		ams.wantRestored()

		ams.member.Incarnation = 2
		ams.restart()
		w.seal()
		w.turns(3 * time.Minute)
		if d := ams.last.Decision; d.Reason != sequencer.HasSucceeded {
			t.Errorf("%s: as a new incarnation: %s", kind, d.Because())
		}
		w.git.Commit("main", files("2"))
		w.look()
		w.turns(3 * time.Minute)
		w.want("ams=2 fra=2 par=2 nyc=2")
	}
}

// TestRestoredAPI with the store intact: what the store holds is ahead of the API.
func TestRestoredAPI(t *testing.T) {
	w := released(t)
	ams := w.site("ams")
	before := ams.backUp()
	w.git.Commit("main", files("2"))
	w.look()
	w.turns(3 * time.Minute)
	ams.restore(before, false)
	ams.restart()
	said := ams.milestones()
	w.turns(time.Minute)
	ams.wantRestored()
	if ams.milestones() != said {
		t.Error("it said something new")
	}
	if ams.image() != "1" { // what the restored API says was installed last is healed (R11)
		t.Errorf("it runs %s", ams.image())
	}
	// The first turn as a new incarnation may be on an older seal: silence is a matter of the plan.
	ams.member.Incarnation = 2
	ams.restart()
	w.turns(time.Second)
	ams.wantRestored()
}

// TestRestoredWhileItRuns: the process knows what it wrote.
func TestRestoredWhileItRuns(t *testing.T) {
	w := newWorld(t)
	ams := w.site("ams")
	before := ams.backUp()
	w.git.Commit("main", files("1"))
	w.turns(3 * time.Minute)
	ams.restore(before, false)
	w.turns(time.Second)
	ams.wantRestored()
	if ams.promises.found.Incarnation != 1 {
		t.Errorf("written down: %+v", ams.promises.found)
	}
}

// TestRestorationIsNotForgotten: the turn that sees an older promise ends before it could write that down, as it will while
// an API server comes back; the next one knows.
func TestRestorationIsNotForgotten(t *testing.T) {
	w := newWorld(t)
	nyc := w.site("nyc")
	w.git.Commit("main", files("1"))
	w.turns(time.Second)
	before := nyc.backUp() // it has accepted
	w.turns(3 * time.Minute)
	w.want(everyone1)
	nyc.restore(before, false)
	nyc.Restorations = &refusing{}
	if _, err := nyc.Turn(t.Context(), w.name); err == nil {
		t.Fatal("the turn went on")
	}
	nyc.Restorations = nyc.promises
	w.turns(time.Second)
	nyc.wantRestored()
}

// TestRestorationIsWrittenFirst: while it cannot be, the turn ends.
func TestRestorationIsWrittenFirst(t *testing.T) {
	w := released(t)
	ams := w.site("ams")
	ams.restore(backup{}, false)
	ams.restart()
	ams.Restorations = &refusing{}
	said := ams.milestones()
	if _, err := ams.Turn(t.Context(), w.name); err == nil || ams.milestones() != said {
		t.Errorf("%v, %d milestones of %d", err, ams.milestones(), said)
	}
}

// TestUnreadPromiseHealsAllTheSame: a promise of another rollout that nobody can read keeps the member from saying
// anything, not from healing what runs (R11).
func TestUnreadPromiseHealsAllTheSame(t *testing.T) {
	w := released(t)
	ams := w.site("ams")
	ams.promises.held[fleet.RolloutName{Namespace: "shop", Name: "broken"}] = []byte("{")
	ams.restart()
	ams.cluster.Remove(delivery.ObjectID{Group: "apps", Version: "v1", Kind: "Deployment", Namespace: "shop", Name: "web"})
	said := ams.milestones()
	if _, err := ams.Turn(t.Context(), w.name); err == nil || ams.milestones() != said {
		t.Errorf("%v, %d milestones of %d", err, ams.milestones(), said)
	}
	w.want(everyone1)
}

type refusing struct{ memoryPromises }

func (*refusing) LoadRestoration(ctx context.Context) (turn.Restoration, error) {
	return turn.Restoration{}, nil
}
func (*refusing) SaveRestoration(context.Context, turn.Restoration) error { return errCrash }

// TestLateWordsOfTheSameRestoration: what somebody brings who was away at the time does not take the new incarnation's
// place away; what that one loses itself does.
func TestLateWordsOfTheSameRestoration(t *testing.T) {
	w := newWorld(t)
	ams, nyc := w.site("ams"), w.site("nyc")
	before := ams.backUp()
	w.git.Commit("main", files("1"))
	w.turns(3 * time.Minute)
	nyc.cut = true // it holds all that was said
	ams.restore(before, true)
	ams.restart()
	ams.hear(nyc, func(r fleet.Record) bool {
		f, err := fleet.DecodeFact(&r)
		return err == nil && f.Member == ams.member.ID && f.Kind == fleet.Accepted
	})
	ams.turn()
	ams.wantRestored()
	ams.member.Incarnation = 2
	ams.restart()
	w.seal()
	ams.hear(nyc, anyRecord)
	ams.turn()
	if d := ams.last.Decision; d.Reason == sequencer.WasRestored {
		t.Fatal("what was lost before is taken for another loss")
	}
	nyc.heal()
	w.turns(3 * time.Minute)
	w.want(everyone1)

	ams.restore(backup{held: before.held, found: ams.promises.found}, true)
	ams.restart()
	ams.hear(nyc, anyRecord)
	ams.turn()
	ams.wantRestored()
	if ams.promises.found.Incarnation != 2 {
		t.Errorf("the second loss is noted of incarnation %d", ams.promises.found.Incarnation)
	}
}

// TestLostStoreIsNoRestoration: an agent whose data folder is new knows all from its API, whoever is away.
func TestLostStoreIsNoRestoration(t *testing.T) {
	w := released(t)
	ams := w.site("ams")
	for _, cut := range []bool{true, false} {
		ams.restore(ams.backUp(), true)
		ams.restart()
		ams.cut = cut
		ams.turn()
		if cut {
			w.git.Commit("main", files("2"))
			w.look()
		} else {
			ams.heal()
		}
		w.turns(3 * time.Minute)
		if ams.last.Decision.Reason == sequencer.WasRestored || ams.promises.found != (turn.Restoration{}) {
			t.Fatalf("cut off: %v: a lost store is taken for a restored API", cut)
		}
	}
	w.want("ams=2 fra=2 par=2 nyc=2")
}

// TestSealNumbersAfterARestore: a home whose API forgot a number gives it to no other seal.
func TestSealNumbersAfterARestore(t *testing.T) {
	w := newWorld(t)
	nyc := w.site("nyc")
	home := func() *Home {
		return &Home{
			Self: nyc.member.ID, Roster: func() []fleet.Member { return w.sealed.Targets }, Promises: nyc.promises, Ledger: nyc.ledger(),
			PutBlob: func(b []byte) (fleet.Digest, error) { return fleet.DigestOf("blob", b), nil }, Clock: nyc.Clock,
		}
	}
	spec := w.spec
	before := nyc.backUp()
	for _, path := range []string{"app", "app/v2"} {
		spec.Source.Path = path
		if err := home().Seal(t.Context(), w.name, spec); err != nil {
			t.Fatal(err)
		}
	}
	nyc.restore(before, false)
	nyc.restart()
	spec.Source.Path = "app/v3"
	if err := home().Seal(t.Context(), w.name, spec); err != nil {
		t.Fatal(err)
	}
	if s := nyc.ledger().Seals(w.name)[string(nyc.member.ID)]; s.Number != 3 {
		t.Errorf("the third seal has number %d", s.Number)
	}
}
