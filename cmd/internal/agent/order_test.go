// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/sequencer"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
)

// speaker writes records for a test, in one life of its store.
type speaker struct {
	t   *testing.T
	n   string
	seq uint64
}

func (s *speaker) id() fleet.MemberID { return IDOf(keyOf(s.n)) }

func (s *speaker) say(kind fleet.Kind, key string, body []byte) fleet.Record {
	s.seq++
	r := fleet.Record{Fleet: FleetID("test"), Epoch: 1, Seq: s.seq, Kind: kind, Key: key, Body: body}
	if err := r.Sign(keyOf(s.n)); err != nil {
		s.t.Fatal(err)
	}
	return r
}

// chatter is what three members say of one rollout and two plans of it. They keep to no rule: milestones come in any
// combination and more than once, seals of one number differ, goes name stops and other things.
func chatter(t *testing.T, rng *rand.Rand, name fleet.RolloutName, plans []fleet.Digest) (out []fleet.Record, who []fleet.MemberID) {
	var stops []fleet.Digest
	for n := range 3 {
		s := &speaker{t: t, n: fmt.Sprint(n)}
		who = append(who, s.id())
		for range 12 {
			switch kind := fleet.Started + fleet.FactKind(rng.IntN(7)); rng.IntN(4) {
			case 0:
				seal := fleet.Seal{Rollout: name, Author: string(s.id()), Number: 1 + rng.Uint64N(2), CompileVersion: sequencer.CompileVersion}
				seal.Spec[0] = byte(rng.IntN(3))
				out = append(out, s.say(fleet.KindSeal, seal.SealKey(), seal.Encode()))
			case 1:
				c := fleet.Command{Rollout: name, Verb: fleet.Pause, Time: int64(s.seq)}
				if len(stops) > 0 && rng.IntN(2) == 0 {
					c.Verb, c.Lifts = fleet.Resume, stops[rng.IntN(len(stops)):]
				}
				out = append(out, s.say(fleet.KindCommand, fmt.Sprintf("%s/1.%d", name, s.seq+1), c.Encode()))
				if c.Verb == fleet.Pause {
					stops = append(stops, out[len(out)-1].Digest())
				}
			default:
				f := fleet.Fact{Plan: plans[rng.IntN(2)], Kind: kind, Detail: fmt.Sprint(s.seq), Time: 1}
				out = append(out, s.say(fleet.KindFact, fleet.FactKey(f.Plan, f.Kind), f.Encode()))
			}
		}
	}
	return out, who
}

// TestEqualRecordsEqualLedgers is I17 for what decisions are made of: whoever holds the same records reads the same
// milestones, commands and seals from them, whatever lies are among them and in whatever order they came. The set
// says what is news, as it does in the mesh.
func TestEqualRecordsEqualLedgers(t *testing.T) {
	name := fleet.RolloutName{Namespace: "shop", Name: "web"}
	plans := []fleet.Digest{fleet.DigestOf("test", []byte("a")), fleet.DigestOf("test", []byte("b"))}
	replaced := 0
	for seed := range uint64(80) {
		rng := rand.New(rand.NewPCG(seed, 17))
		records, who := chatter(t, rng, name, plans)
		var first string
		for order := range 3 {
			set, l := lattice.New(), NewMeshLedger(nil)
			l.Follow(plans[0], name)
			for _, i := range rng.Perm(len(records)) {
				change := set.Add(records[i])
				if change.News {
					l.Learn(records[i])
				}
				l.Forget(change.Dropped...)
			}
			read := readOff(l, name, plans, who)
			if order == 0 {
				first = read
			} else if diff := cmp.Diff(first, read); diff != "" {
				t.Fatalf("seed %d: the same records in another order (- one, + other):\n%s", seed, diff)
			}
			if set.Len() < len(records) {
				replaced++
			}
		}
	}
	if replaced < 40 {
		t.Errorf("vacuous: in %d orders a record took the place of another one", replaced)
	}
}

// readOff a ledger: everything that a decision asks it.
func readOff(l *MeshLedger, name fleet.RolloutName, plans []fleet.Digest, who []fleet.MemberID) string {
	var out strings.Builder
	for _, m := range who {
		for _, plan := range plans {
			for kind := fleet.Accepted; kind <= fleet.Yielded; kind++ {
				id, ok := l.Fact(plan, m, kind)
				fmt.Fprintln(&out, plan.Short(), kind, id.Short(), ok)
			}
		}
		fmt.Fprintln(&out, l.Seals(name)[string(m)].Digest().Short())
	}
	commands := l.Commands(name)
	slices.SortFunc(commands, func(a, b fleet.Command) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	for _, c := range commands {
		fmt.Fprintln(&out, c.ID.Short(), c.Verb, len(c.Lifts))
	}
	for _, s := range sequencer.Stops(l.Commands(name)) {
		fmt.Fprintln(&out, "in force", s.ID.Short())
	}
	return out.String()
}

// TestNoAuthorIsFirst: of two members that write one name neither wins by arrival, whoever was heard first.
func TestNoAuthorIsFirst(t *testing.T) {
	name := fleet.RolloutName{Namespace: "shop", Name: "web"}
	a, b := &speaker{t: t, n: "0"}, &speaker{t: t, n: "1"}
	of := func(s *speaker) fleet.Record {
		seal := fleet.Seal{Rollout: name, Author: string(s.id()), Number: 1, CompileVersion: sequencer.CompileVersion}
		return s.say(fleet.KindSeal, seal.SealKey(), seal.Encode())
	}
	seals := []fleet.Record{of(a), of(b)}
	for _, first := range []int{0, 1} {
		homes := &Homes{Ledger: NewMeshLedger(nil), NameOf: func(id fleet.MemberID) fleet.Name { return fleet.Name(id) }}
		homes.Ledger.Learn(seals[first])
		if s, ok, err := homes.authored(name); !ok || err != nil || s.Author != string(seals[first].Writer) {
			t.Errorf("one author alone: %v %v", ok, err)
		}
		homes.Ledger.Learn(seals[1-first])
		if _, ok, err := homes.authored(name); ok || fleet.ReasonOf(err, "") != v1alpha1.ReasonForeignAuthor {
			t.Errorf("%d was heard first: %v, %v", first, ok, err)
		}
	}
}
