// SPDX-License-Identifier: Apache-2.0

package lattice_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
	"github.com/flotilla-dev/flotilla/sequencer/lattice/latticetest"
)

// small is a kind that this version does not know: its quota is the least.
const small fleet.Kind = 77

// said is an unsigned record.
func said(kind fleet.Kind, key string, epoch, seq uint64) fleet.Record {
	return fleet.Record{Writer: writer, Kind: kind, Key: key, Epoch: epoch, Seq: seq, Sig: make([]byte, 64)}
}

func holding(records ...fleet.Record) *lattice.Set {
	s := lattice.New()
	for _, r := range records {
		s.Add(r)
	}
	return s
}

func shuffled(seed uint64, records []fleet.Record) []fleet.Record {
	mixed := slices.Clone(records)
	rng := rand.New(rand.NewPCG(seed, 1))
	rng.Shuffle(len(mixed), func(i, j int) { mixed[i], mixed[j] = mixed[j], mixed[i] })
	return mixed
}

// keysOf are the keys that a writer has of a kind, in order.
func keysOf(s *lattice.Set, kind fleet.Kind) (keys []string) {
	for r := range s.All() {
		if r.Kind == kind {
			keys = append(keys, r.Key)
		}
	}
	slices.Sort(keys)
	return keys
}

func TestQuotaKeepsTheLowestKeys(t *testing.T) {
	for _, kind := range []fleet.Kind{small, fleet.KindFact, fleet.KindCommand, fleet.KindRegister, fleet.KindRollup, 250} {
		t.Run(fmt.Sprint(kind), func(t *testing.T) {
			var all []fleet.Record
			for i := range kind.Quota() + 40 {
				r := said(kind, fmt.Sprintf("%05d", i), 1, uint64(i))
				r.Body = []byte(`{"time":1}`) // a rollup says when
				all = append(all, r)
			}
			want := holding(all[:kind.Quota()]...)
			if want.Over(writer) || len(want.AllOver()) > 0 {
				t.Error("over its quota with as many as it may have")
			}
			for seed := range uint64(5) {
				s, gone := lattice.New(), map[fleet.Digest]bool{}
				for _, r := range shuffled(seed, all) {
					wants := s.Wants(&r)
					change := s.Add(r)
					if wants != change.News {
						t.Fatalf("Wants said %v of key %s, Add %v", wants, r.Key, change.News)
					}
					if !change.News && (len(change.Dropped) != 1 || change.Dropped[0].Key != r.Key) {
						t.Fatalf("key %s is refused, and %d others go", r.Key, len(change.Dropped))
					}
					for _, d := range change.Dropped {
						gone[d.Digest()] = true
					}
				}
				if s.Root() != want.Root() || s.Len() != kind.Quota() || len(gone) != 40 {
					t.Errorf("order %d: %d records, %d dropped", seed, s.Len(), len(gone))
				}
				if !s.Over(writer) || !slices.Equal(s.AllOver(), []fleet.MemberID{writer}) {
					t.Errorf("order %d: not over", seed)
				}
			}
		})
	}
}

func seal(rollout string, term, number uint64) fleet.Record {
	s := fleet.Seal{Rollout: fleet.RolloutName{Namespace: "shop", Name: rollout}, Term: term, Number: number}
	return said(fleet.KindSeal, s.SealKey(), 1, number)
}

func TestNewestSealsStay(t *testing.T) {
	var all, newest []fleet.Record
	// Keys of web-1 and web.a sort before those of web, as a slash comes after both signs: rollouts are compared first.
	for _, rollout := range []string{"a", "web", "web-1", "web.a"} {
		for n := range uint64(12) {
			r := seal(rollout, 1+n/9, n+95)
			if all = append(all, r); n >= 12-fleet.SealsKept {
				newest = append(newest, r)
			}
		}
	}
	nested := said(fleet.KindSeal, "shop/web/5/6", 1, 1) // no seal's key, and carried all the same
	all, newest = append(all, nested), append(newest, nested)
	want := holding(newest...)
	for seed := range uint64(20) {
		s := holding(shuffled(seed, all)...)
		if s.Root() != want.Root() {
			t.Fatalf("order %d: %v, want %v", seed, keysOf(s, fleet.KindSeal), keysOf(want, fleet.KindSeal))
		}
		if s.Over(writer) {
			t.Error("seals that newer ones followed count against the quota")
		}
	}
}

// TestSealQuotaCountsRollouts: of as many rollouts as there is room for the newest seals stay, in every order.
func TestSealQuotaCountsRollouts(t *testing.T) {
	rollouts := fleet.KindSeal.Quota() / fleet.SealsKept
	var all, kept []fleet.Record
	for i := range rollouts + 3 {
		for n := range uint64(fleet.SealsKept + 2) {
			r := seal(fmt.Sprintf("r%05d", i), 1, n)
			if all = append(all, r); i < rollouts && n >= 2 {
				kept = append(kept, r)
			}
		}
	}
	want := holding(kept...)
	for seed := range uint64(3) {
		s := holding(shuffled(seed, all)...)
		if s.Root() != want.Root() || s.Len() != fleet.KindSeal.Quota() || !s.Over(writer) {
			t.Fatalf("order %d: %d seals, want %d", seed, s.Len(), want.Len())
		}
	}
}

func planKey(plan byte, kind fleet.FactKind) string { return fleet.FactKey(fleet.Digest{plan}, kind) }

func floor(kind fleet.Kind, epoch, seq uint64, position [2]uint64, keep ...fleet.Group) fleet.Record {
	f := fleet.Floor{Kind: kind, Epoch: position[0], Seq: position[1], Keep: keep}
	r := said(fleet.KindFloor, fleet.FloorKey(kind), epoch, seq)
	r.Body = f.Encode()
	return r
}

func TestFloorRetires(t *testing.T) {
	old := said(fleet.KindFact, planKey(1, fleet.Started), 1, 1)
	kept := said(fleet.KindFact, planKey(2, fleet.Started), 1, 2)
	late := said(fleet.KindFact, planKey(1, fleet.Succeeded), 2, 7)
	command := said(fleet.KindCommand, "shop/web/1", 1, 3)
	others := said(fleet.KindFact, planKey(1, fleet.Started), 1, 1)
	others.Writer = latticetest.Writer(1)
	f := floor(fleet.KindFact, 2, 8, [2]uint64{2, 7}, fleet.PlanGroup(fleet.Digest{2}))
	all := []fleet.Record{old, kept, late, command, others, f}
	want := holding(kept, late, command, others, f)
	for seed := range uint64(60) {
		s := holding(shuffled(seed, all)...)
		if s.Root() != want.Root() {
			t.Fatalf("order %d: %d records, want %d", seed, s.Len(), want.Len())
		}
		if s.Wants(&old) {
			t.Error("what is retired is wanted")
		}
		if !s.Past(&old) || s.Past(&kept) || s.Past(&late) || s.Past(&command) || s.Past(&others) {
			t.Error("of what is retired, and of nothing else, the time is over")
		}
	}
	s := holding(old, kept)
	change := s.Add(f)
	if !change.News || len(change.Dropped) != 1 || change.Dropped[0].Key != old.Key {
		t.Errorf("the floor drops %v", change.Dropped)
	}
	if change := s.Add(old); change.News || len(change.Dropped) != 1 {
		t.Error("what is retired is no news, and who wrote it down has to take it off again")
	}
	if !s.Wants(&late) || !s.Add(late).News {
		t.Error("what is said after the floor is refused")
	}
	// A newer floor counts alone, and one that nobody can read retires nothing.
	s.Add(floor(fleet.KindFact, 2, 9, [2]uint64{3, 0}))
	if got := keysOf(s, fleet.KindFact); len(got) != 0 {
		t.Errorf("below the newer floor: %v", got)
	}
	unread := said(fleet.KindFloor, fleet.FloorKey(fleet.KindFact), 2, 10)
	unread.Body = []byte{fleet.WireVersion + 1}
	if s.Add(unread); !s.Wants(&old) {
		t.Error("a floor that is not held any more still retires")
	}
}

// TestFloorMakesRoom: who retires what it said is within its quota again.
func TestFloorMakesRoom(t *testing.T) {
	s := lattice.New()
	for i := range fleet.KindCommand.Quota() + 1 {
		s.Add(said(fleet.KindCommand, fmt.Sprintf("%05d", i), 1, uint64(i)))
	}
	s.Add(floor(fleet.KindCommand, 1, 5000, [2]uint64{1, 10}))
	if s.Over(writer) || len(keysOf(s, fleet.KindCommand)) != fleet.KindCommand.Quota()-10 {
		t.Errorf("%d commands, over: %v", len(keysOf(s, fleet.KindCommand)), s.Over(writer))
	}
	if next := said(fleet.KindCommand, "99999", 1, 5001); !s.Wants(&next) {
		t.Error("there is no room for another one")
	}
}

func status(rollout string, seq uint64, at int64) fleet.Record {
	r := said(fleet.KindRegister, "", 1, seq)
	st := fleet.Status{Rollout: fleet.RolloutName{Namespace: "shop", Name: rollout}, Phase: "Healthy", Time: at}
	r.Key = fleet.StatusKey(st.Rollout)
	body, err := st.Encode()
	if err != nil {
		panic(err)
	}
	r.Body = body
	return r
}

func TestRegistersExpire(t *testing.T) {
	at := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	day := fleet.Day(at)
	early, late := status("a", 1, at.Unix()), status("b", 2, at.AddDate(0, 0, 1).Unix())
	stays := said(fleet.KindRegister, "inventory", 1, 3)
	fact := said(fleet.KindFact, planKey(1, fleet.Started), 1, 4)
	s := holding(early, late, stays, fact)
	for _, c := range []struct {
		day  int64
		left int
	}{{day, 4}, {day + fleet.Lifetime, 4}, {day + fleet.Lifetime + 1, 3}, {day + fleet.Lifetime + 1, 3}, {day + 4000, 2}} {
		before := s.Len()
		if dropped := s.Age(c.day); s.Len() != c.left || len(dropped) != before-c.left {
			t.Errorf("day %d: %d records left and %d dropped, want %d", c.day-day, s.Len(), len(dropped), c.left)
		}
	}
	if s.Root() != holding(stays, fact).Root() {
		t.Error("something else than the registers went")
	}
	if change := s.Add(early); change.News || s.Wants(&early) || len(change.Dropped) != 1 {
		t.Error("what ended comes back")
	}
	if !s.Past(&early) || s.Past(&stays) || s.Past(&fact) {
		t.Error("of what ended, and of nothing else, the time is over")
	}
	// What does not say when has ended before the first day.
	for _, at := range []int64{0, -1} {
		never, none := status("never", 9, at), lattice.New()
		if change := none.Add(never); change.News || none.Wants(&never) || len(change.Dropped) != 1 {
			t.Errorf("said at %d, it stays", at)
		}
		if none.Past(&never) {
			t.Errorf("said at %d, it is over and not malformed", at)
		}
	}
}

// TestClockJumps: a member whose clock jumped a year ahead agrees with the others when it is right again.
func TestClockJumps(t *testing.T) {
	at := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	day := fleet.Day(at)
	steady, jumpy := lattice.New(), lattice.New()
	for i := range 30 {
		r := status(fmt.Sprint(i), uint64(i), at.Unix())
		steady.Add(r)
		jumpy.Add(r)
	}
	steady.Age(day)
	jumpy.Age(day)
	if dropped := jumpy.Age(day + 365); len(dropped) != 30 || jumpy.Len() != 0 {
		t.Fatalf("%d dropped, want all 30", len(dropped))
	}
	ahead := status("own", 99, at.AddDate(1, 0, 0).Unix()) // said while the clock was wrong
	jumpy.Add(ahead)
	if reconcile(lattice.Salt{1}, jumpy, steady); jumpy.Root() == steady.Root() {
		t.Fatal("equal a year apart")
	}
	jumpy.Age(day)
	if reconcile(lattice.Salt{1}, jumpy, steady); jumpy.Root() != steady.Root() || steady.Len() != 31 {
		t.Errorf("%d and %d records after the clock was put right", jumpy.Len(), steady.Len())
	}
	right := status("own", 100, at.Unix())
	jumpy.Add(right)
	reconcile(lattice.Salt{1}, jumpy, steady)
	if got, _ := steady.Get(writer, fleet.KindRegister, right.Key); got.Seq != 100 {
		t.Error("the register from the wrong year stays")
	}
}

// signed is a record of the i-th writer that verifies.
func signed(t testing.TB, i int, r fleet.Record) fleet.Record {
	t.Helper()
	if err := r.Sign(latticetest.Key(i)); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestConflict(t *testing.T) {
	one := signed(t, 0, fleet.Record{Kind: fleet.KindFact, Key: planKey(1, fleet.Started), Epoch: 4, Seq: 7})
	other := one
	other.Kind, other.Key = fleet.KindRegister, "inventory"
	other = signed(t, 0, other)
	s := holding(one, said(fleet.KindFact, "x", 4, 6), said(fleet.KindFact, "y", 4, 8), said(fleet.KindFact, "z", 5, 7))
	if got, ok := s.Conflict(&other); !ok || got.Digest() != one.Digest() {
		t.Errorf("under another key: %v %v", got.Key, ok)
	}
	if _, ok := s.Conflict(&one); ok {
		t.Error("a record is in conflict with itself")
	}
	body := one
	body.Body = []byte{1}
	body = signed(t, 0, body)
	if _, ok := s.Conflict(&body); !ok {
		t.Error("under the same key: none")
	}
	for name, r := range map[string]fleet.Record{
		"another writer": signed(t, 1, other), "another fleet": signed(t, 0, fleet.Record{Fleet: fleet.Digest{1}, Epoch: 4, Seq: 7}),
		"other counters": signed(t, 0, fleet.Record{Epoch: 4, Seq: 9}),
	} {
		if _, ok := s.Conflict(&r); ok {
			t.Errorf("%s: in conflict", name)
		}
	}
	s.Add(other)
	s.Add(floor(fleet.KindFact, 9, 1, [2]uint64{9, 0}))
	if _, ok := s.Conflict(&one); !ok {
		t.Error("the other half is held, and not found")
	}
	if _, ok := s.Conflict(&other); ok {
		t.Error("what was retired is still compared with")
	}
}

func proof(t testing.TB, accuser, accused int, key string) fleet.Record {
	t.Helper()
	a := signed(t, accused, fleet.Record{Kind: fleet.KindFact, Key: "a", Epoch: 1, Seq: 1})
	b := signed(t, accused, fleet.Record{Kind: fleet.KindFact, Key: "b", Epoch: 1, Seq: 1})
	body, ok := fleet.Proof{A: a, B: b}.Encode()
	if !ok {
		t.Fatal("two facts do not fit into a proof")
	}
	return signed(t, accuser, fleet.Record{Kind: fleet.KindProof, Key: key, Epoch: 1, Seq: uint64(accused) + 2, Body: body})
}

func TestForked(t *testing.T) {
	liar, honest := latticetest.Writer(3), latticetest.Writer(4)
	s := lattice.New()
	// A proof under another's key convicts neither.
	s.Add(proof(t, 0, 3, fleet.ProofKey(honest)))
	if s.Forked(honest) || s.Forked(liar) {
		t.Fatal("convicted by a proof that does not decode")
	}
	good := proof(t, 0, 3, fleet.ProofKey(liar))
	s.Add(good)
	s.Add(proof(t, 1, 3, fleet.ProofKey(liar)))
	if !s.Forked(liar) || s.Forked(honest) || !slices.Equal(s.AllForked(), []fleet.MemberID{liar}) {
		t.Fatalf("forked: %v", s.AllForked())
	}
	// The accuser loses one proof for an earlier one; the other accuser's still stands.
	early := good
	early.Epoch, early.Body = 0, nil
	if s.Add(signed(t, 0, early)); !s.Forked(liar) {
		t.Error("acquitted while a proof is held")
	}
	early.Writer = latticetest.Writer(1)
	if s.Add(signed(t, 1, early)); s.Forked(liar) || len(s.AllForked()) > 0 {
		t.Error("convicted without a proof")
	}
}

// TestSharesDoNotDependOnEachOther: a member that carries the fleet's share alone has the root of those that carry
// everything, though floors of one writer lie in three shares.
func TestSharesDoNotDependOnEachOther(t *testing.T) {
	fleetShare := lattice.Share{}
	all := []fleet.Record{
		said(fleet.KindFloor, "a", 1, 1), said(fleet.KindFloor, "b", 1, 2), said(fleet.KindFloor, "c", 1, 3),
		floor(fleet.KindFact, 1, 4, [2]uint64{1, 9}), floor(fleet.KindCommand, 1, 5, [2]uint64{1, 7}),
		said(fleet.KindCommand, "k", 1, 6), said(fleet.KindFact, "f", 1, 7), said(fleet.KindCommand, "l", 1, 8),
	}
	everything, little := lattice.New(), lattice.New()
	little.Divide(lattice.Division{Carries: func(s lattice.Share) bool { return s == fleetShare }})
	for _, r := range all {
		everything.Add(r)
		if share, _ := everything.ShareOf(&r); share == fleetShare {
			little.Add(r)
		}
	}
	if little.ShareRoot(fleetShare) != everything.ShareRoot(fleetShare) || little.ShareRoot(fleetShare).IsZero() {
		t.Errorf("%v here, %v there", keysOf(little, fleet.KindCommand), keysOf(everything, fleet.KindCommand))
	}
}
