// SPDX-License-Identifier: Apache-2.0

package mesh_test

import (
	"fmt"
	"slices"
	"testing"

	pubsub "github.com/libp2p/go-libp2p-pubsub"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
	"github.com/flotilla-dev/flotilla/sequencer/mesh"
	"github.com/flotilla-dev/flotilla/sequencer/mesh/meshtest"
)

// bulky is a record of a kind that nobody knows, so large that no proof has room for it.
func bulky(t *testing.T, i int, fill byte) fleet.Record {
	return by(t, i, fleet.Record{Epoch: 5, Seq: 5, Kind: 200, Key: string('a' + fill), Body: append(make([]byte, 7800), fill)})
}

// TestLargeLiesShieldNoSmallOnes: who first says two things that fit into no proof is convicted all the same of the next two.
func TestLargeLiesShieldNoSmallOnes(t *testing.T) {
	fact := func(plan byte) fleet.Record {
		f := fleet.Fact{Plan: fleet.Digest{plan}, Kind: fleet.Started}
		return by(t, 1, fleet.Record{Epoch: 5, Seq: 5, Kind: fleet.KindFact, Key: fleet.FactKey(f.Plan, f.Kind), Body: f.Encode()})
	}
	for name, said := range map[string][]fleet.Record{
		"large, large, small, small": {bulky(t, 1, 0), bulky(t, 1, 1), fact(1), fact(2)},
		"large, small, small":        {bulky(t, 1, 0), fact(1), fact(2)},
		"small, large, small":        {fact(1), bulky(t, 1, 0), fact(2)},
	} {
		t.Run(name, func(t *testing.T) {
			n := newAlone(t).start(t)
			for i := range said {
				must(t, n.Admit(said[i].Encode()))
			}
			if _, held := proofAgainst(n, memberID(1)); held != 1 || n.Stats().Unprovable != 1 {
				t.Errorf("%d proofs, unprovable %d", held, n.Stats().Unprovable)
			}
		})
	}
}

func encoded(r fleet.Record) []byte { return r.Encode() }

// newThree is newAlone with one member more.
func newThree(t *testing.T) *alone {
	a := newAlone(t)
	a.cfg.Roster = append(a.cfg.Roster.(meshtest.Roster), fleet.Member{ID: memberID(2), Name: "c"})
	return a
}

// proves that the i-th member said two things in one position, as the accuser tells it.
func proves(t *testing.T, accuser, i int) fleet.Record {
	t.Helper()
	lie := func(body byte) fleet.Record {
		return by(t, i, fleet.Record{Epoch: 5, Seq: 5, Kind: 77, Key: "k", Body: []byte{body}})
	}
	body, ok := fleet.Proof{A: lie(1), B: lie(2)}.Encode()
	if !ok {
		t.Fatal("no proof")
	}
	return by(t, accuser, fleet.Record{Epoch: 9, Seq: 9, Kind: fleet.KindProof, Key: fleet.ProofKey(memberID(i)), Body: body})
}

// TestProofsStay: a proof settled somebody's place for good. Its writer cannot take it back, nor can it be pushed out, and it
// outlives the writer's place on the roster.
func TestProofsStay(t *testing.T) {
	t.Run("put in its place", func(t *testing.T) {
		n := newThree(t).start(t)
		must(t, n.Admit(encoded(proves(t, 2, 1))))
		later := proves(t, 2, 1)
		empty := by(t, 2, fleet.Record{Epoch: 1, Seq: 1, Kind: fleet.KindProof, Key: later.Key, Body: []byte{99}})
		_ = n.Admit(empty.Encode())
		if n.Stats().Forked != 1 {
			t.Error("what nobody can read took the proof's place")
		}
	})
	t.Run("pushed out", func(t *testing.T) {
		n := newThree(t).start(t)
		must(t, n.Admit(encoded(proves(t, 2, 1))))
		var lower [][]byte
		for i := 100; len(lower) < fleet.KindProof.Quota(); i++ {
			if memberID(i) > memberID(1) {
				continue
			}
			r := proves(t, 2, i)
			r.Seq = uint64(i)
			must(t, r.Sign(meshtest.Key(2)))
			lower = append(lower, r.Encode())
		}
		must(t, n.Admit(lower...))
		if !forkedHere(n, 1) {
			t.Error("proofs against strangers pushed out the one against a member")
		}
	})
	t.Run("its writer left", func(t *testing.T) {
		a := newThree(t)
		n := a.start(t)
		must(t, n.Admit(encoded(proves(t, 2, 1))))
		without := slices.DeleteFunc(slices.Clone(a.cfg.Roster.Members()), func(m fleet.Member) bool { return m.ID == memberID(2) })
		n.SetRoster(meshtest.Roster(without))
		n.Sweep()
		newcomer := newThree(t).start(t)
		newcomer.SetRoster(meshtest.Roster(without))
		n.View(func(s *lattice.Set) {
			for r := range s.All() {
				_ = newcomer.Admit(r.Encode())
			}
		})
		if !forkedHere(newcomer, 1) {
			t.Error("a newcomer does not hear of it")
		}
	})
}

func forkedHere(n *mesh.Node, i int) (forked bool) {
	n.View(func(s *lattice.Set) { forked = s.Forked(memberID(i)) })
	return forked
}

// TestWhatIsPassedOnIsVouchedFor: a message with something in it that is old here and would be refused elsewhere is not passed
// on, or whoever it is news to would blame this member.
func TestWhatIsPassedOnIsVouchedFor(t *testing.T) {
	n := newAlone(t).start(t)
	runAlone(t, n)
	<-n.Ready()
	name := fleet.RolloutName{Namespace: "shop", Name: "web"}
	body, err := fleet.Status{Rollout: name, Phase: "Ready", Time: 1_800_000_000}.Encode()
	must(t, err)
	register := func(seq uint64, key string, body []byte) []byte {
		r := by(t, 1, fleet.Record{Epoch: 5, Seq: seq, Kind: fleet.KindRegister, Key: key, Body: body})
		return r.Encode()
	}
	must(t, n.Admit(register(9, fleet.StatusKey(name), body)))
	old, nonsense := register(3, fleet.StatusKey(name), body), register(4, fleet.StatusKey(name), []byte("{"))
	if got := mesh.JudgeMessage(t, n, meshtest.Key(2), register(20, "news", nil), old); got != pubsub.ValidationAccept {
		t.Errorf("news with an old word: %v", got)
	}
	if got := mesh.JudgeMessage(t, n, meshtest.Key(2), register(21, "more", nil), nonsense); got != pubsub.ValidationReject {
		t.Errorf("news with an old word that is malformed: %v", got)
	}
}

// TestStopThatIsNotKeptIsAnError: who says more than the fleet keeps hears that its stop is not in force.
func TestStopThatIsNotKeptIsAnError(t *testing.T) {
	n := newAlone(t).start(t)
	command := fleet.Command{Rollout: fleet.RolloutName{Namespace: "shop", Name: "web"}, Verb: fleet.Pause}
	for i := range fleet.KindCommand.Quota() {
		_, err := n.Publish(fleet.KindCommand, fmt.Sprintf("a%06d", i), command.Encode())
		must(t, err)
	}
	stop, err := n.Prepare(fleet.KindCommand, "b", command.Encode())
	must(t, err)
	if err := n.Adopt(stop); fleet.KindOf(err) != fleet.Refused {
		t.Errorf("a stop that nobody hears of: %v", err)
	}
}

// TestSaidAgainIsOnDisk: what takes the place of a record that has left the set, and lies on the disk still, is on the disk.
func TestSaidAgainIsOnDisk(t *testing.T) {
	a := newAlone(t)
	n := a.start(t)
	f := fleet.Fact{Plan: fleet.Digest{1}, Kind: fleet.Failed}
	fact := func(epoch uint64) fleet.Record {
		return by(t, 1, fleet.Record{Epoch: epoch, Seq: 1, Kind: fleet.KindFact, Key: fleet.FactKey(f.Plan, f.Kind), Body: f.Encode()})
	}
	floor := by(t, 1, fleet.Record{
		Epoch: 6, Seq: 1, Kind: fleet.KindFloor, Key: fleet.FloorKey(fleet.KindFact), Body: fleet.Floor{Kind: fleet.KindFact, Epoch: 6}.Encode(),
	})
	first, again := fact(5), fact(7)
	must(t, n.Admit(first.Encode()))
	must(t, n.Admit(floor.Encode()))
	must(t, n.Admit(again.Encode()))
	if !hears(n, again) || hears(n, first) {
		t.Fatal("what is held is not what was said again")
	}
	if !hears(a.start(t), again) {
		t.Error("after a restart it is gone")
	}
}
