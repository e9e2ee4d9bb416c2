// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer"
)

// headOf a record: what is left of one that nobody may look at.
func headOf(r fleet.Record) fleet.Record {
	r.Body, r.Sig = nil, nil
	return r
}

// commanded is a command that fra gave and that is held nowhere yet.
func commanded(t *testing.T, w *world, key string, c fleet.Command) fleet.Record {
	t.Helper()
	r, err := w.site("fra").Prepare(fleet.KindCommand, key, c.Encode())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestUnreadableCommandIsAStop: it holds starts of the rollout that its key names, and of all where that names none; until a
// go names it, which somebody gives who can read it, or it is gone.
func TestUnreadableCommandIsAStop(t *testing.T) {
	for name, c := range map[string]struct {
		key string
		is  bool
	}{
		"of the rollout": {"NAME/Pause/1", true}, "a go of it": {"NAME/Resume/1", true}, "of another one": {"shop/another/Pause/1", false},
		"of nobody knows which": {"stop", true},
	} {
		t.Run(name, func(t *testing.T) {
			w := released(t)
			ams := w.site("ams")
			stop := commanded(t, w, strings.Replace(c.key, "NAME", w.name.String(), 1), fleet.Command{Rollout: w.name, Verb: fleet.Pause})
			ams.ledger().Withhold(stop.Digest(), headOf(stop))
			w.git.Commit("main", files("2"))
			w.look()
			w.turns(2 * time.Minute)
			if held := ams.image() == "1"; held != c.is {
				t.Fatalf("ams runs %s", ams.image())
			}
			if !c.is {
				return
			}
			if stops := ams.last.Decision.Stops; len(stops) != 1 || stops[0].ID != stop.Digest() || stops[0].By != stop.Writer || stops[0].Reason != takenForAStop {
				t.Errorf("stops %+v", ams.last.Decision.Stops)
			}
			if c.key == "NAME/Pause/1" {
				ams.learn(commanded(t, w, w.name.String()+"/Resume/2", fleet.Command{Rollout: w.name, Verb: fleet.Resume, Lifts: []fleet.Digest{stop.Digest()}}))
			} else {
				ams.ledger().Release(stop.Digest(), headOf(stop))
			}
			w.turns(time.Minute)
			if ams.image() != "2" {
				t.Errorf("ams runs %s after that", ams.image())
			}
		})
	}
}

// TestCommandOfALaterVersionIsAStop: a newer agent's pause holds older ones as well, until it is gone or a go names it. So does
// its sickness.
func TestCommandOfALaterVersionIsAStop(t *testing.T) {
	l := NewMeshLedger(nil)
	name, plan, writer := fleet.RolloutName{Namespace: "shop", Name: "web"}, fleet.Digest{7}, fleet.MemberID("fra")
	l.Follow(plan, name)
	later := []byte{fleet.WireVersion + 1, 2, 3}
	stop := fleet.Record{Writer: writer, Epoch: 1, Seq: 1, Kind: fleet.KindCommand, Key: "shop/web/Pause/1", Body: later}
	sick := fleet.Record{Writer: writer, Epoch: 1, Seq: 2, Kind: fleet.KindFact, Key: fleet.FactKey(plan, fleet.Degraded), Body: later}
	well := fleet.Record{Writer: writer, Epoch: 1, Seq: 3, Kind: fleet.KindFact, Key: fleet.FactKey(plan, fleet.Succeeded), Body: later}
	for _, r := range []fleet.Record{stop, sick, well} {
		if err := fleet.CheckBody(&r); err != nil {
			t.Fatal(err) // or it would not come this far
		}
	}
	if woken := l.Learn(stop, sick, well); !slices.Equal(woken, []fleet.RolloutName{name}) {
		t.Errorf("it wakes %v", woken)
	}
	stops := l.Commands(name)
	if len(stops) != 1 || stops[0].ID != stop.Digest() || stops[0].Verb != fleet.Pause || stops[0].By != writer || stops[0].Reason != takenForAStop {
		t.Errorf("commands %+v", stops)
	}
	if _, ok := l.Fact(plan, writer, fleet.Degraded); !ok {
		t.Error("its sickness does not count")
	}
	if _, ok := l.Fact(plan, writer, fleet.Succeeded); ok {
		t.Error("a success that nobody can read opens gates")
	}
	if woken := l.Forget(stop, sick); !slices.Contains(woken, name) || len(l.Commands(name)) != 0 {
		t.Errorf("when it is gone it wakes %v, and leaves %+v", woken, l.Commands(name))
	}
	if _, ok := l.Fact(plan, writer, fleet.Degraded); ok {
		t.Error("its sickness stays")
	}
}

// TestUnreadableStopIsNotRetired: its writer cannot know that it is lifted.
func TestUnreadableStopIsNotRetired(t *testing.T) {
	w := newWorld(t)
	fra := w.site("fra")
	stop := commanded(t, w, w.name.String()+"/Pause/1", fleet.Command{Rollout: w.name, Verb: fleet.Pause})
	fra.ledger().Withhold(stop.Digest(), headOf(stop))
	own := fra.ledger().OwnCommands(stop.Writer)
	if len(own) != 1 || own[0].Epoch != stop.Epoch || own[0].Seq != stop.Seq || !sequencer.LiveCommands(own, nil)[stop.Group()] {
		t.Errorf("own commands %+v", own)
	}
}

// TestUnreadableSicknessCounts as one that can be read.
func TestUnreadableSicknessCounts(t *testing.T) {
	l := NewMeshLedger(nil)
	plan, writer := fleet.Digest{7}, fleet.MemberID("fra")
	head := func(kind fleet.FactKind) fleet.Record {
		return fleet.Record{Writer: writer, Kind: fleet.KindFact, Key: fleet.FactKey(plan, kind)}
	}
	l.Withhold(fleet.Digest{1}, head(fleet.Degraded))
	l.Withhold(fleet.Digest{2}, head(fleet.Succeeded))
	if id, ok := l.Fact(plan, writer, fleet.Degraded); !ok || id != (fleet.Digest{1}) {
		t.Errorf("sickness %s %v", id.Short(), ok)
	}
	if _, ok := l.Fact(plan, writer, fleet.Succeeded); ok {
		t.Error("a success that nobody can read opens gates")
	}
	l.Release(fleet.Digest{2}, head(fleet.Degraded))
	if _, ok := l.Fact(plan, writer, fleet.Degraded); !ok {
		t.Error("another record took it away")
	}
	l.Release(fleet.Digest{1}, head(fleet.Degraded))
	if _, ok := l.Fact(plan, writer, fleet.Degraded); ok {
		t.Error("it stays when its record is gone")
	}
}
