// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/cmd/internal/agent/turn"
	"github.com/flotilla-dev/flotilla/sequencer"
)

// proveAgainst a member that it said two things in one position, and let everybody who is not cut off hear of it.
func (w *world) proveAgainst(name, by string) {
	w.t.Helper()
	liar, witness := w.site(name), w.site(by)
	two := make([]fleet.Record, 2)
	for i := range two {
		fact := fleet.Fact{Plan: fleet.DigestOf("test", []byte{byte(i)}), Kind: fleet.Soaked}
		two[i] = fleet.Record{Fleet: w.fleet, Epoch: 7, Seq: 7, Kind: fleet.KindFact, Key: fleet.FactKey(fact.Plan, fact.Kind), Body: fact.Encode()}
		if err := two[i].Sign(liar.key); err != nil {
			w.t.Fatal(err)
		}
	}
	body, ok := fleet.Proof{A: two[0], B: two[1]}.Encode()
	if !ok {
		w.t.Fatal("the proof is too large")
	}
	record, err := witness.Prepare(fleet.KindProof, fleet.ProofKey(liar.member.ID), body)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := witness.Adopt(record); err != nil {
		w.t.Fatal(err)
	}
}

// TestForkedMemberIsRemoved: it starts nothing more and says so; the others go on as if it had left.
func TestForkedMemberIsRemoved(t *testing.T) {
	w := released(t)
	w.proveAgainst("fra", "nyc")
	w.git.Commit("main", files("2"))
	w.look()
	w.turns(3 * time.Minute)
	w.want("ams=2 fra=1 par=2 nyc=2")
	fra := w.site("fra")
	if d := fra.last.Decision; d.Verdict != sequencer.Out || d.Reason != sequencer.WasRemoved {
		t.Errorf("fra: %s, %s", d.Verdict, d.Because())
	}
	if got := fra.last.Because(); !strings.Contains(got, "two records with its key say different things in one position") {
		t.Errorf("fra says %q", got)
	}
	if c := fra.stalled(); c == nil || c.Reason != v1alpha1.ReasonForked {
		t.Errorf("fra's condition: %+v", c)
	}
	if c := w.site("par").stalled(); c != nil {
		t.Errorf("par's condition: %+v", c)
	}
	fra.cluster.Remove(deploymentID)
	w.turns(2 * time.Second)
	w.want("ams=2 fra=1 par=2 nyc=2") // what runs there is healed all the same (R11)
}

// stalled is the condition on the member's FleetRollout; nil where there is none.
func (s *site) stalled() *metav1.Condition {
	in := outlook{agent: s.Agent, ledger: s.ledger()}.input(s.world.name, &s.last)
	return onlyIf(v1alpha1.ConditionStalled, &s.last, in)
}

// TestForkedCanaryOpensNothing: the one success that a gate needs is not one of a member that says two things.
func TestForkedCanaryOpensNothing(t *testing.T) {
	w := released(t)
	w.proveAgainst("ams", "nyc")
	w.git.Commit("main", files("2"))
	w.look()
	w.turns(3 * time.Minute)
	w.want(everyone1)
	if got := w.site("par").last.Because(); !strings.Contains(got, "nobody has really succeeded yet") {
		t.Errorf("par says %q", got)
	}
}

// TestForkedMemberLiftsNothing: its goes count for nothing; its stops stay, and the end of its own rollouts.
func TestForkedMemberLiftsNothing(t *testing.T) {
	w := newWorld(t)
	fra, nyc := w.site("fra"), w.site("nyc")
	for _, verb := range []fleet.Verb{fleet.Pause, fleet.Resume, fleet.Withdraw} {
		c := fleet.Command{Rollout: w.name, Verb: verb, Lifts: []fleet.Digest{{1}}}
		record, err := fra.Prepare(fleet.KindCommand, verb.String(), c.Encode())
		if err != nil {
			t.Fatal(err)
		}
		if err := fra.Adopt(record); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(nyc.Ledger.Commands(w.name)); got != 3 {
		t.Fatalf("%d commands, want 3", got)
	}
	w.proveAgainst("fra", "nyc")
	got := nyc.Ledger.Commands(w.name)
	if len(got) != 2 || slices.ContainsFunc(got, func(c fleet.Command) bool { return c.Verb == fleet.Resume }) {
		t.Errorf("commands of a forked member: %+v", got)
	}
}

// TestForkedAuthorIsNotFollowed: nobody acts on what it wrote, and another home of the same rollout is not blocked by it.
func TestForkedAuthorIsNotFollowed(t *testing.T) {
	w := newWorld(t)
	nyc := w.site("nyc")
	homes := &Homes{Ledger: nyc.ledger(), NameOf: func(fleet.MemberID) fleet.Name { return "fra" }}
	seal := func(by string) {
		s := fleet.Seal{Rollout: w.name, Author: string(w.site(by).member.ID), Number: 1, CompileVersion: sequencer.CompileVersion}
		record, err := w.site(by).Prepare(fleet.KindSeal, s.SealKey(), s.Encode())
		if err != nil {
			t.Fatal(err)
		}
		if err := w.site(by).Adopt(record); err != nil {
			t.Fatal(err)
		}
	}
	seal("fra")
	w.proveAgainst("fra", "nyc")
	if _, ok, err := homes.authored(w.name); ok || fleet.ReasonOf(err, "") != v1alpha1.ReasonForked {
		t.Errorf("a forked author's seal: %v, %v", ok, err)
	}
	seal("par")
	if s, ok, err := homes.authored(w.name); !ok || err != nil || s.Author != string(w.site("par").member.ID) {
		t.Errorf("beside a forked author: %v, %v, %v", s.Author, ok, err)
	}
}

// TestDuplicateStartsNothing until the other agent is gone.
func TestDuplicateStartsNothing(t *testing.T) {
	w := released(t)
	ams, two := w.site("ams"), true
	ams.Duplicate = func() bool { return two }
	w.git.Commit("main", files("2"))
	w.look()
	w.turns(2 * time.Minute)
	w.want(everyone1)
	if d := ams.last.Decision; d.Verdict != sequencer.Hold || d.Reason != sequencer.TwoAgents {
		t.Errorf("ams: %s, %s", d.Verdict, d.Because())
	}
	if c := ams.stalled(); c == nil || c.Reason != v1alpha1.ReasonDuplicate {
		t.Errorf("ams's condition: %+v", c)
	}
	if ams.last.Next == 0 || ams.last.Next > 5*time.Second {
		t.Errorf("it looks again in %s", ams.last.Next)
	}
	two = false
	w.turns(3 * time.Minute)
	w.want("ams=2 fra=2 par=2 nyc=2")
	if c := ams.stalled(); c != nil {
		t.Errorf("ams's condition afterwards: %+v", c)
	}
}

// TestDuplicateTakesNoOtherAgentsStart: that this key has said Started, and this cluster knows nothing of it, is what a second agent
// looks like; with it gone it is an API that was restored, and the attempt goes on.
func TestDuplicateTakesNoOtherAgentsStart(t *testing.T) {
	w := released(t)
	ams, two := w.site("ams"), true
	ams.Duplicate = func() bool { return two }
	w.git.Commit("main", files("2"))
	w.look()
	w.turns(5 * time.Second)
	plan := ams.last.Plan.Digest
	fact := fleet.Fact{Plan: plan, Kind: fleet.Started}
	record, err := ams.Prepare(fleet.KindFact, fleet.FactKey(plan, fleet.Started), fact.Encode())
	if err != nil {
		t.Fatal(err)
	}
	if err := ams.Adopt(record); err != nil {
		t.Fatal(err)
	}
	w.turns(time.Minute)
	w.want(everyone1)
	two = false
	w.turns(3 * time.Minute)
	w.want("ams=2 fra=2 par=2 nyc=2")
}

// TestRegistersAreRenewed: a status is said again before it expires, and not a day sooner than it need be.
func TestRegistersAreRenewed(t *testing.T) {
	w := released(t)
	nyc := w.site("nyc")
	status := func() fleet.Status {
		s, ok := nyc.Ledger.Status(nyc.member.ID, w.name)
		if !ok {
			t.Fatal("no status")
		}
		return s
	}
	w.turns(10 * time.Second)
	first := status()
	for day := range 9 {
		w.now += 24 * time.Hour
		w.turns(2 * time.Second)
		if status() != first {
			t.Fatalf("written after %d days, when nothing had changed", day+1)
		}
	}
	w.now += 25 * time.Hour
	w.turns(2 * time.Second)
	renewed := status()
	if renewed.Time-first.Time < 10*24*60*60 {
		t.Fatalf("not renewed after ten days: it is %d s newer", renewed.Time-first.Time)
	}
	renewed.Time = first.Time
	if renewed != first {
		t.Errorf("it says something else: %+v, was %+v", renewed, first)
	}
}

// keeper of a site.
func (s *site) keeper() *Keeper {
	return &Keeper{
		Self: s.member.ID, Ledger: s.ledger(), Promises: s.promises, Clock: s.Clock, Log: logr.Discard(), Flat: 1000,
		Roster: func() *Roster {
			var members []fleet.Member
			for _, other := range s.world.members {
				members = append(members, other.member)
			}
			return NewRoster(members)
		},
		Reports: func() map[fleet.RolloutName]turn.Report {
			return map[fleet.RolloutName]turn.Report{s.world.name: s.last}
		},
	}
}

func (s *site) own() (n int) {
	for _, records := range s.ledger().Own(s.member.ID) {
		n += len(records)
	}
	return n
}

// TestOwnMilestonesAreRetired through whole agents: over many releases what each member said stays bounded, on every
// member; a restarted agent says nothing again that was retired; and a store that was lost comes back without it.
func TestOwnMilestonesAreRetired(t *testing.T) {
	w := newWorld(t)
	floors := 0
	for n := range 40 {
		w.git.Commit("main", files(fmt.Sprint(n)))
		w.look()
		w.strides(12)
		for _, s := range w.members {
			before := s.Ledger.(*MeshLedger).Floor(s.member.ID, fleet.KindFact)
			if err := s.keeper().retire(t.Context()); err != nil {
				t.Fatal(err)
			}
			if s.ledger().Floor(s.member.ID, fleet.KindFact).Seq != before.Seq {
				floors++
			}
		}
		if n%10 == 5 {
			w.members[n%len(w.members)].restart()
		}
	}
	w.want("ams=39 fra=39 par=39 nyc=39")
	if floors < 4 {
		t.Errorf("vacuous: %d floors", floors)
	}
	for _, s := range w.members {
		if own := s.own(); own > 100 {
			t.Errorf("%s holds %d milestones of its own", s.member.Name, own)
		}
		for _, other := range w.members {
			if a, b := len(s.ledger().Own(other.member.ID)), len(other.ledger().Own(other.member.ID)); a != b {
				t.Errorf("%s holds %d plans of %s, which holds %d", s.member.Name, a, other.member.Name, b)
			}
		}
		if plans := len(s.last.Promise.Plans); plans > 40 {
			t.Errorf("%s remembers %d plans", s.member.Name, plans)
		}
	}
	w.strides(6)
	nyc := w.site("nyc")
	held := nyc.own()
	nyc.restart()
	w.strides(2)
	if nyc.own() != held {
		t.Errorf("after a restart nyc holds %d milestones of its own, before it %d", nyc.own(), held)
	}
	w.git.Commit("main", files("last"))
	w.look()
	w.turns(2 * time.Minute)
	w.want("ams=last fra=last par=last nyc=last")
}

// strides are turns five seconds apart.
func (w *world) strides(n int) {
	w.t.Helper()
	for range n {
		for _, s := range w.members {
			s.turn()
		}
		w.now += 5 * time.Second
	}
}

// TestNothingIsRetiredUnread: a promise that this agent has not read may need what it would retire.
func TestNothingIsRetiredUnread(t *testing.T) {
	w := newWorld(t)
	for n := range 20 {
		w.git.Commit("main", files(fmt.Sprint(n)))
		w.look()
		w.strides(12)
	}
	nyc := w.site("nyc")
	k := nyc.keeper()
	k.Promises = unread{nyc.promises}
	if err := k.retire(t.Context()); err != nil {
		t.Fatal(err)
	}
	if f := nyc.ledger().Floor(nyc.member.ID, fleet.KindFact); f.Seq != 0 {
		t.Errorf("a floor at %d, and a promise unread", f.Seq)
	}
	k.Promises = nyc.promises
	if err := k.retire(t.Context()); err != nil {
		t.Fatal(err)
	}
	if f := nyc.ledger().Floor(nyc.member.ID, fleet.KindFact); f.Seq == 0 {
		t.Error("vacuous: no floor with every promise read")
	}
}

// TestEndedRolloutIsForgotten a month after it was withdrawn, and not before.
func TestEndedRolloutIsForgotten(t *testing.T) {
	w := released(t)
	w.sealed.Withdrawn = true
	w.turns(2 * time.Second)
	nyc := w.site("nyc")
	if nyc.last.Promise.Ended == 0 || len(nyc.last.Promise.Said) == 0 {
		t.Fatalf("promise of an ended rollout: ended %d, %d records", nyc.last.Promise.Ended, len(nyc.last.Promise.Said))
	}
	live := func() int { return len(nyc.last.Promise.Spoken(nyc.Clock().Wall).Live(false)) }
	if live() == 0 {
		t.Error("forgotten at once")
	}
	w.now += 31 * 24 * time.Hour
	w.turns(2 * time.Second)
	if live() != 0 || len(nyc.last.Promise.Said) != 0 {
		t.Errorf("after a month %d plans are live, %d records would be said again", live(), len(nyc.last.Promise.Said))
	}
	w.sealed.Withdrawn = false
	w.git.Commit("main", files("2"))
	w.look()
	w.turns(3 * time.Minute)
	w.want("ams=2 fra=2 par=2 nyc=2")
}

// TestLiftedStopsAreRetired when they are very many; the one in force stays, whatever its key.
func TestLiftedStopsAreRetired(t *testing.T) {
	w := newWorld(t)
	nyc, ams := w.site("nyc"), w.site("ams")
	home := &Home{Self: nyc.member.ID, Promises: nyc.promises, Ledger: nyc.ledger(), Clock: nyc.Clock}
	stop := func(reason string) {
		w.now += time.Second
		if err := home.Stop(t.Context(), w.name, reason); err != nil {
			t.Fatal(err)
		}
	}
	for range 300 {
		stop("the nightly freeze")
		stop("")
	}
	stop("for good")
	promise, err := nyc.promises.Load(t.Context(), w.name)
	if err != nil {
		t.Fatal(err)
	}
	nyc.last.Promise = promise
	if got := len(ams.ledger().OwnCommands(nyc.member.ID)); got != 601 {
		t.Fatalf("%d commands", got)
	}
	if err := nyc.keeper().retire(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := len(ams.ledger().OwnCommands(nyc.member.ID)); got != 1 {
		t.Errorf("%d commands after the floor, want the stop in force", got)
	}
	if stops := sequencer.Stops(ams.Ledger.Commands(w.name)); len(stops) != 1 || stops[0].Reason != "for good" {
		t.Errorf("stops in force: %+v", stops)
	}
	stop("")
	if stops := sequencer.Stops(ams.Ledger.Commands(w.name)); len(stops) != 0 {
		t.Errorf("stops in force after the go: %+v", stops)
	}
}

// TestLedgerObeysFloors whatever comes first, the floor or what it retires; and forgets what the mesh holds no more.
func TestLedgerObeysFloors(t *testing.T) {
	w := newWorld(t)
	nyc, plan, kept := w.site("nyc"), fleet.DigestOf("test", []byte("old")), fleet.DigestOf("test", []byte("kept"))
	var records []fleet.Record
	for _, p := range []fleet.Digest{plan, kept} {
		for kind := fleet.Accepted; kind <= fleet.Soaked; kind++ {
			r, err := nyc.Prepare(fleet.KindFact, fleet.FactKey(p, kind), fleet.Fact{Plan: p, Kind: kind}.Encode())
			if err != nil {
				t.Fatal(err)
			}
			records = append(records, r)
		}
	}
	floor := fleet.Floor{Kind: fleet.KindFact, Epoch: 1, Seq: nyc.seq + 1, Keep: []fleet.Group{fleet.PlanGroup(kept)}}
	retire, err := nyc.Prepare(fleet.KindFloor, fleet.FloorKey(fleet.KindFact), floor.Encode())
	if err != nil {
		t.Fatal(err)
	}
	for _, order := range [][]fleet.Record{append(slices.Clone(records), retire), append([]fleet.Record{retire}, records...)} {
		l := NewMeshLedger(nil)
		l.Learn(order...)
		if own := l.Own(nyc.member.ID); len(own) != 1 || len(own[kept]) != 4 {
			t.Errorf("held: %v", own)
		}
		l.Forget(records[5:]...)
		if own := l.Own(nyc.member.ID); len(own[kept]) != 1 {
			t.Errorf("after the mesh dropped three: %v", own)
		}
	}
}

// TestLedgerForgets what the mesh dropped of each kind, and not what was said in its place since.
func TestLedgerForgets(t *testing.T) {
	w := newWorld(t)
	nyc, plan := w.site("nyc"), fleet.DigestOf("test", []byte("plan"))
	say := func(kind fleet.Kind, key string, body []byte, err error) fleet.Record {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		r, err := nyc.Prepare(kind, key, body)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	status := func(because string) fleet.Record {
		body, err := fleet.Status{Rollout: w.name, Phase: turn.PhaseWaiting, Because: because, Time: 1}.Encode()
		return say(fleet.KindRegister, fleet.StatusKey(w.name), body, err)
	}
	rollup := func(members int) fleet.Record {
		body, err := fleet.Rollup{Rollout: w.name, Zone: "us", Members: members, Time: 1}.Encode()
		return say(fleet.KindRollup, fleet.RollupKey("us", w.name), body, err)
	}
	fact := say(fleet.KindFact, fleet.FactKey(plan, fleet.Started), fleet.Fact{Plan: plan, Kind: fleet.Started}.Encode(), nil)
	command := say(fleet.KindCommand, "stop", fleet.Command{Rollout: w.name, Verb: fleet.Pause}.Encode(), nil)
	oldStatus, newStatus, oldRollup, newRollup := status("a"), status("b"), rollup(1), rollup(2)

	l := NewMeshLedger(nil)
	held := func() string {
		_, started := l.Fact(plan, nyc.member.ID, fleet.Started)
		_, told := l.Status(nyc.member.ID, w.name)
		return fmt.Sprint(started, len(l.Commands(w.name)), told, len(l.Rollups(w.name)))
	}
	l.Forget(fact, command, oldStatus, oldRollup)
	l.Learn(fact, command, oldStatus, newStatus, oldRollup, newRollup)
	l.Forget(oldStatus, oldRollup)
	if got := held(); got != "true 1 true 1" {
		t.Errorf("older ones were dropped, and left are %s", got)
	}
	l.Forget(fact, command, newStatus, newRollup)
	if got := held(); got != "false 0 false 0" {
		t.Errorf("all were dropped, and left are %s", got)
	}
}

// TestOwnRecordDroppedAtOnce: the mesh drops an own record, such as one over a quota, before the turn that said it has
// learnt it. It is not held for ever.
func TestOwnRecordDroppedAtOnce(t *testing.T) {
	w := newWorld(t)
	r, err := w.site("nyc").Prepare(fleet.KindCommand, "stop", fleet.Command{Rollout: w.name, Verb: fleet.Pause}.Encode())
	if err != nil {
		t.Fatal(err)
	}
	forgotten := make(chan struct{})
	l := NewMeshLedger(nil)
	l.Mesh = adopting(func(r fleet.Record) error {
		go func() {
			l.Forget(r)
			close(forgotten)
		}()
		for range 10_000 { // every chance to forget too early
			select {
			case <-forgotten:
				return nil
			default:
				runtime.Gosched()
			}
		}
		return nil
	})
	if err := l.Commit(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	<-forgotten
	if c := l.Commands(w.name); len(c) != 0 {
		t.Errorf("held: %v", c)
	}
}

// adopting is a mesh that only takes records.
type adopting func(fleet.Record) error

func (a adopting) Adopt(r fleet.Record) error { return a(r) }

func (a adopting) Prepare(fleet.Kind, string, []byte) (fleet.Record, error) {
	return fleet.Record{}, errors.New("nothing is said here")
}

// TestZonesAreCarriedAndReported in a fleet that is large: everybody asks for the zones that its gates need, three of
// a zone report, once and not again, and who does not carry a zone shows what it tells as hearsay.
func TestZonesAreCarriedAndReported(t *testing.T) {
	w := released(t)
	for _, s := range w.members {
		s.member.Zone = s.member.Labels["region"]
	}
	w.git.Commit("main", files("2"))
	w.look()
	w.turns(3 * time.Second)
	asked := map[string][]string{}
	keepers := map[string]*Keeper{}
	for _, s := range w.members {
		k := s.keeper()
		k.Flat, k.Carry = 3, func(zones []string) { asked[string(s.member.Name)] = zones }
		keepers[string(s.member.Name)] = k
	}
	everybody := func() (said uint64) {
		for _, s := range w.members {
			keepers[string(s.member.Name)].follow()
			if err := keepers[string(s.member.Name)].reportZone(t.Context()); err != nil {
				t.Fatal(err)
			}
			said += s.seq
		}
		return said
	}
	before := everybody()
	if again := everybody(); again != before {
		t.Errorf("%d more records, and nothing had changed", again-before)
	}
	if got := asked["nyc"]; !slices.Equal(got, []string{"eu"}) {
		t.Errorf("nyc, in the last stage, asked for %v", got)
	}
	if got, ever := asked["fra"]; ever {
		t.Errorf("fra, whose stages are in its own zone, asked for %v", got)
	}
	if got := keepers["nyc"].Hearsay(w.name); len(got) != 0 {
		t.Errorf("nyc carries eu, and shows as hearsay %+v", got)
	}
	hearsay := keepers["ams"].Hearsay(w.name)
	if len(hearsay) != 1 || hearsay[0].Zone != "us" || hearsay[0].Members != 1 {
		t.Fatalf("ams is told %+v", hearsay)
	}
	w.turns(3 * time.Minute)
	w.want("ams=2 fra=2 par=2 nyc=2")
	if everybody() == before {
		t.Error("the end of the release was not reported")
	}
	if got := asked["nyc"]; len(got) != 0 {
		t.Errorf("nyc is through, and still asks for %v", got)
	}
	if got := keepers["ams"].Hearsay(w.name); got[0].Stages[0].Counts[sequencer.Complete.String()] != 1 {
		t.Errorf("ams is told %+v", got)
	}
	small := w.site("ams").keeper()
	if small.Hearsay(w.name) != nil {
		t.Error("hearsay in a fleet where everybody carries everything")
	}
}

// TestStrangersReportsAreIgnored: who is not of the zone, or was removed, tells nothing of it.
func TestStrangersReportsAreIgnored(t *testing.T) {
	w := released(t)
	for _, s := range w.members {
		s.member.Zone = s.member.Labels["region"]
	}
	k := w.site("ams").keeper()
	k.Flat = 3
	tell := func(by, zone string, members int, at int64) {
		u := fleet.Rollup{Rollout: w.name, Zone: zone, Plan: w.site("ams").last.Plan.Digest, Members: members, Time: at}
		body, err := u.Encode()
		if err != nil {
			t.Fatal(err)
		}
		r, err := w.site(by).Prepare(fleet.KindRollup, fleet.RollupKey(zone, w.name), body)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.site(by).Adopt(r); err != nil {
			t.Fatal(err)
		}
	}
	tell("fra", "us", 99, 100)
	if got := k.Hearsay(w.name); len(got) != 0 {
		t.Errorf("a member of eu tells of us: %+v", got)
	}
	tell("nyc", "us", 1, 50)
	if got := k.Hearsay(w.name); len(got) != 1 || got[0].Members != 1 {
		t.Errorf("nyc tells of its own zone: %+v", got)
	}
	w.proveAgainst("nyc", "par")
	if got := k.Hearsay(w.name); len(got) != 0 {
		t.Errorf("a forked member tells: %+v", got)
	}
}

// unread has one more promise than the agent has read.
type unread struct{ turn.Promises }

// All is in turn.Promises.
func (unread) All(context.Context) ([]fleet.RolloutName, error) {
	return []fleet.RolloutName{{Namespace: "shop", Name: "unread"}}, nil
}

// TestSicknessIsNotRetired while somebody may still be on the plan: without it that member would start what made others
// sick.
func TestSicknessIsNotRetired(t *testing.T) {
	w := released(t)
	w.git.Commit("main", files("2"))
	ams, nyc := w.site("ams"), w.site("nyc")
	nyc.cut = true // and never hears of a newer release
	w.turns(3 * time.Minute)
	ams.bad["web:2"] = true
	w.turns(40 * time.Second)
	sick := ams.last.Plan.Digest
	held := func() bool { _, ok := ams.ledger().Fact(sick, ams.member.ID, fleet.Degraded); return ok }
	if !held() {
		t.Fatal("the canary's sickness was not said")
	}
	for n := range 40 {
		w.git.Commit("main", files(fmt.Sprint(n+3)))
		w.look()
		w.strides(12)
		if err := ams.keeper().retire(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if f := ams.ledger().Floor(ams.member.ID, fleet.KindFact); f.Seq == 0 || ams.own() > 150 {
		t.Fatalf("vacuous: a floor at %d, %d milestones", f.Seq, ams.own())
	}
	if !held() {
		t.Error("the sickness that holds nyc was retired")
	}
}

// TestOneReporterHidesNoSickness: of a zone's reporters each tells for itself.
func TestOneReporterHidesNoSickness(t *testing.T) {
	w := released(t)
	for _, s := range w.members {
		s.member.Zone = "us"
	}
	ams := w.site("ams")
	ams.member.Zone = "eu"
	w.git.Commit("main", files("2"))
	w.look()
	ams.turn()
	k := ams.keeper()
	var asked []string
	k.Flat, k.Carry = 3, func(zones []string) { asked = zones }
	for _, report := range []struct {
		by, state string
		at        int64
	}{{"nyc", sequencer.IsDegraded.String(), 50}, {"par", sequencer.Complete.String(), 1 << 40}} {
		u := fleet.Rollup{
			Rollout: w.name, Zone: "us", Plan: ams.last.Plan.Digest, Members: 1, Time: report.at,
			Stages: []fleet.StageRollup{{Name: "last", Counts: map[string]int{report.state: 1}}},
		}
		body, err := u.Encode()
		if err != nil {
			t.Fatal(err)
		}
		r, err := w.site(report.by).Prepare(fleet.KindRollup, fleet.RollupKey("us", w.name), body)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.site(report.by).Adopt(r); err != nil {
			t.Fatal(err)
		}
	}
	if k.follow(); !slices.Equal(asked, []string{"us"}) {
		t.Errorf("ams asks for %v", asked)
	}
}

// TestStopAfterALostGo: who lifts its stop and dies before that is written down, and stops again, has stopped.
func TestStopAfterALostGo(t *testing.T) {
	w := released(t)
	nyc := w.site("nyc")
	home := &Home{Self: nyc.member.ID, Promises: nyc.promises, Ledger: nyc.ledger(), Clock: nyc.Clock}
	stop := func(reason string) error {
		w.now += time.Second
		return home.Stop(t.Context(), w.name, reason)
	}
	inForce := func() []fleet.Command { return sequencer.Stops(w.site("ams").Ledger.Commands(w.name)) }
	if err := stop("holidays"); err != nil || len(inForce()) != 1 {
		t.Fatal(err, inForce())
	}
	home.Promises = deaf{nyc.promises}
	if err := stop(""); err == nil || len(inForce()) != 0 {
		t.Fatal(err, inForce())
	}
	home.Promises = nyc.promises
	for range 2 {
		if err := stop("holidays again"); err != nil {
			t.Fatal(err)
		}
	}
	if got := inForce(); len(got) != 1 || got[0].Reason != "holidays again" {
		t.Errorf("stops in force: %+v", got)
	}
	if err := stop(""); err != nil || len(inForce()) != 0 {
		t.Errorf("%v, stops in force after the go: %+v", err, inForce())
	}
}

// deaf keeps nothing.
type deaf struct{ turn.Promises }

// Save is in turn.Promises.
func (deaf) Save(context.Context, turn.Promise) error { return fmt.Errorf("the API server is away") }

// TestLedgerForgetsToTheLastTrace: a writer over its quota cannot make it grow.
func TestLedgerForgetsToTheLastTrace(t *testing.T) {
	w := newWorld(t)
	nyc, l := w.site("nyc"), NewMeshLedger(nil)
	prepare := func(kind fleet.Kind, key string, body []byte) fleet.Record {
		t.Helper()
		r, err := nyc.Prepare(kind, key, body)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for n := range 20 {
		name := fleet.RolloutName{Namespace: "shop", Name: fmt.Sprint("junk-", n)}
		plan := fleet.DigestOf("test", []byte{byte(n)})
		status, err := fleet.Status{Rollout: name, Phase: "Ready", Time: 1}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		rollup, err := fleet.Rollup{Rollout: name, Zone: "us", Time: 1}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		seal := fleet.Seal{Rollout: name, Author: string(nyc.member.ID), Number: 1}
		records := []fleet.Record{
			prepare(fleet.KindFact, fleet.FactKey(plan, fleet.Started), fleet.Fact{Plan: plan, Kind: fleet.Started}.Encode()),
			prepare(fleet.KindCommand, fmt.Sprint(n), fleet.Command{Rollout: name, Verb: fleet.Pause}.Encode()),
			prepare(fleet.KindSeal, seal.SealKey(), seal.Encode()),
			prepare(fleet.KindRegister, fleet.StatusKey(name), status),
			prepare(fleet.KindRollup, fleet.RollupKey("us", name), rollup),
		}
		l.Learn(records...)
		if len(l.facts)+len(l.commands)+len(l.seals)+len(l.statuses)+len(l.rollups) != 5 {
			t.Fatal("vacuous")
		}
		if touched := l.Forget(records...); len(touched) != 1 || touched[0] != name {
			t.Errorf("touched %v", touched)
		}
		if left := len(l.facts) + len(l.commands) + len(l.seals) + len(l.statuses) + len(l.rollups); left != 0 {
			t.Fatalf("%d entries are left", left)
		}
	}
	// What took its place meanwhile stays.
	name := fleet.RolloutName{Namespace: "shop", Name: "web"}
	var said []fleet.Record
	for phase := range 2 {
		body, err := fleet.Status{Rollout: name, Phase: fmt.Sprint(phase), Time: 1}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		said = append(said, prepare(fleet.KindRegister, fleet.StatusKey(name), body))
	}
	l.Learn(said...)
	l.Forget(said[0])
	if s, ok := l.Status(nyc.member.ID, name); !ok || s.Phase != "1" {
		t.Errorf("the last word is %+v", s)
	}
}

// TestKeeperHearsTheOthersFirst: before that it does not know what it said in an earlier life.
func TestKeeperHearsTheOthersFirst(t *testing.T) {
	w := newWorld(t)
	k := w.site("nyc").keeper()
	looked := false
	k.Settled = make(chan struct{})
	k.Reports = func() map[fleet.RolloutName]turn.Report { looked = true; return nil }
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := k.Run(ctx); err != nil || looked {
		t.Errorf("%v, looked %v", err, looked)
	}
}
