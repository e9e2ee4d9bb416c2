// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/cmd/internal/agent/turn"
	"github.com/flotilla-dev/flotilla/delivery"
	"github.com/flotilla-dev/flotilla/sequencer"
	"github.com/flotilla-dev/flotilla/source/sourcetest"
)

const everyone1 = "ams=1 fra=1 par=1 nyc=1"

// released is a world in which release 1 is everywhere.
func released(t *testing.T) *world {
	w := newWorld(t)
	w.git.Commit("main", files("1"))
	w.turns(3 * time.Minute)
	w.want(everyone1)
	return w
}

func TestReleaseTravelsInStages(t *testing.T) {
	w := newWorld(t)
	w.git.Commit("main", files("1"))
	w.turns(4 * time.Second)
	w.want("ams=1 fra= par= nyc=") // minReadyTime is not over
	w.turns(8 * time.Second)
	w.want("ams=1 fra= par= nyc=") // succeeded, soaking
	if !w.said("ams", "nyc", fleet.Succeeded) || w.said("ams", "nyc", fleet.Soaked) {
		t.Fatal("the canary should have succeeded and not soaked")
	}
	w.turns(5 * time.Second)
	first, second := "fra", "par"
	if w.site("par").image() == "1" {
		first, second = second, first
	}
	if w.site(first).image() != "1" || w.site(second).image() != "" || w.site("nyc").image() != "" {
		t.Fatalf("one of eu, and nobody else, should have started: %s", w.images())
	}
	w.turns(30 * time.Second)
	w.want(everyone1)
	if got := w.site("nyc").last.Because(); got != "us: succeeded" {
		t.Errorf("nyc says %q", got)
	}
}

func TestBadReleaseHaltsAtTheCanary(t *testing.T) {
	w := released(t)
	w.git.Commit("main", files("2-bad"))
	w.site("ams").bad["web:2-bad"] = true
	w.turns(20 * time.Second)
	w.git.Fail(nil)
	w.turns(70 * time.Second)
	w.want(everyone1) // the canary went back by itself
	for _, name := range []string{"fra", "par", "nyc"} {
		if w.said(name, "ams", fleet.Started) {
			t.Errorf("%s started a release that failed at the canary", name)
		}
		w.site(name).cluster.Remove(delivery.ObjectID{Group: "apps", Version: "v1", Kind: "Deployment", Namespace: "shop", Name: "web"})
	}
	w.turns(2 * time.Second)
	w.want(everyone1) // healed while gated (R11)
	w.git.Commit("main", files("3"))
	w.turns(3 * time.Minute)
	w.want("ams=3 fra=3 par=3 nyc=3")
}

func TestCanaryRetriesThenGivesUp(t *testing.T) {
	w := released(t)
	w.git.Commit("main", files("2-bad"))
	w.site("ams").bad["web:2-bad"] = true
	w.turns(5 * time.Minute)
	ams := w.site("ams")
	if got := ams.last.Promise.Progress.Attempts; got != 2 {
		t.Errorf("%d attempts, want the first and one retry", got)
	}
	if !w.said("ams", "nyc", fleet.GaveUp) {
		t.Fatal("GaveUp was not said")
	}
	for _, f := range ams.ledger().History(ams.last.Plan.Digest, ams.member.ID) {
		if f.Kind == fleet.GaveUp && f.Detail != "restored: true" {
			t.Errorf("GaveUp says %q", f.Detail)
		}
	}
	w.want(everyone1)
	ams.bad = nil
	w.turns(5 * time.Minute)
	w.want(everyone1)
	if w.said("ams", "nyc", fleet.Succeeded) {
		t.Error("a member that gave up succeeded later (R5)")
	}
}

// A crash between writing the promise and telling the fleet: after the restart the very same record is told.
func TestCrashBetweenPromiseAndPublication(t *testing.T) {
	for _, kind := range []fleet.FactKind{fleet.Started, fleet.Succeeded, fleet.Soaked} {
		t.Run(kind.String(), func(t *testing.T) {
			w := newWorld(t)
			w.git.Commit("main", files("1"))
			ams := w.site("ams")
			var lost fleet.Record
			ams.beforeCommit = func(r fleet.Record) error {
				if f, err := fleet.DecodeFact(&r); err == nil && f.Kind == kind && lost.Sig == nil {
					lost = r
					return errCrash
				}
				if lost.Sig != nil {
					return errCrash // dead until it is restarted
				}
				return nil
			}
			for range 40 {
				w.turns(time.Second)
			}
			if lost.Sig == nil {
				t.Fatal("it was never about to be said")
			}
			if w.said("ams", "nyc", kind) {
				t.Fatal("said in spite of the crash")
			}
			ams.beforeCommit = nil
			ams.restart()
			w.turns(time.Second)
			got, ok := ams.Ledger.Fact(lost2plan(t, lost), ams.member.ID, kind)
			if !ok || got != lost.Digest() {
				t.Fatalf("after the restart the record is %s, was %s", got.Short(), lost.Digest().Short())
			}
			w.turns(2 * time.Minute)
			w.want(everyone1)
		})
	}
}

func lost2plan(t *testing.T, r fleet.Record) fleet.Digest {
	t.Helper()
	f, err := fleet.DecodeFact(&r)
	if err != nil {
		t.Fatal(err)
	}
	return f.Plan
}

// A member that lost its whole store finds its promises in its API and says them again.
func TestStoreLost(t *testing.T) {
	w := released(t)
	ams := w.site("ams")
	plan := ams.last.Plan.Digest
	before, _ := ams.Ledger.Fact(plan, ams.member.ID, fleet.Succeeded)
	ams.records = map[fleet.Digest]fleet.Record{}
	ams.restart()
	w.turns(time.Second)
	after, ok := ams.Ledger.Fact(plan, ams.member.ID, fleet.Succeeded)
	if !ok || before != after {
		t.Fatalf("Succeeded is %s after the loss, was %s", after.Short(), before.Short())
	}
	if ams.last.Promise.Progress.Attempts != 1 {
		t.Error("the loss made it start again")
	}
}

// Nothing is written to the cluster while the promise cannot be (R6).
func TestNoPromiseNoWrite(t *testing.T) {
	w := newWorld(t)
	w.git.Commit("main", files("1"))
	ams := w.site("ams")
	ams.promises.fail = errCrash
	w.turns(30 * time.Second)
	if n := ams.cluster.Writes(); n != 0 {
		t.Fatalf("%d writes without a promise", n)
	}
	if w.said("ams", "nyc", fleet.Started) {
		t.Fatal("Started was said without a promise")
	}
	ams.promises.fail = nil
	w.turns(3 * time.Minute)
	w.want(everyone1)
}

func TestSourceAway(t *testing.T) {
	w := released(t)
	w.git.Fail(&fleet.Error{Kind: fleet.Retryable, Reason: v1alpha1.ReasonFetchFailed, Err: errors.New("connection refused")})
	w.turns(2 * time.Minute)
	fra := w.site("fra")
	if err := fra.last.Trouble[v1alpha1.ConditionSourceReady]; fleet.ReasonOf(err, "") != v1alpha1.ReasonFetchFailed {
		t.Fatalf("trouble with the source: %v", err)
	}
	id := delivery.ObjectID{Group: "apps", Version: "v1", Kind: "Deployment", Namespace: "shop", Name: "web"}
	fra.cluster.Remove(id)
	w.turns(2 * time.Second)
	w.want(everyone1)
	w.git.Fail(nil)
	w.git.Commit("main", files("2"))
	w.turns(15 * time.Minute) // the back-off after two minutes of failures is at most ten
	w.want("ams=2 fra=2 par=2 nyc=2")
}

func TestForcePushIsIgnored(t *testing.T) {
	w := newWorld(t)
	first := w.git.Commit("main", files("1"))
	w.git.Commit("main", files("2"))
	w.turns(4 * time.Minute)
	w.want("ams=2 fra=2 par=2 nyc=2")
	w.git.Reset("main", first)
	w.git.Commit("main", files("evil"))
	w.turns(3 * time.Minute)
	w.want("ams=2 fra=2 par=2 nyc=2")
	err := w.site("nyc").last.Trouble[v1alpha1.ConditionSourceReady]
	if fleet.ReasonOf(err, "") != v1alpha1.ReasonNotDescending || !strings.Contains(err.Error(), "force-push") {
		t.Fatalf("trouble with the source: %v", err)
	}
	// Older is no news and no trouble.
	w.git.Reset("main", first)
	w.turns(3 * time.Minute)
	w.want("ams=2 fra=2 par=2 nyc=2")
}

func TestPayloadThatDoesNotBuildStartsNowhere(t *testing.T) {
	w := released(t)
	w.git.Commit("main", sourcetest.Txtar("-- app/kustomization.yaml --\nresources: [missing.yaml]\n"))
	w.turns(2 * time.Minute)
	w.want(everyone1)
	ams := w.site("ams")
	if err := ams.last.Trouble[v1alpha1.ConditionApplied]; err == nil || fleet.KindOf(err) != fleet.Terminal {
		t.Fatalf("trouble: %v", err)
	}
	if w.said("ams", "nyc", fleet.Started) || !w.said("ams", "nyc", fleet.Failed) {
		t.Fatal("the canary should have said Failed and not Started")
	}
	w.git.Commit("main", files("2"))
	w.turns(3 * time.Minute)
	w.want("ams=2 fra=2 par=2 nyc=2")
}

func TestEmptyRenderDeletesNothing(t *testing.T) {
	w := released(t)
	w.git.Commit("main", sourcetest.Txtar("-- app/README.md --\nnothing\n"))
	w.turns(2 * time.Minute)
	w.want(everyone1)
}

func TestMissingNamespaceYields(t *testing.T) {
	w := newWorld(t)
	fra := w.site("fra")
	fra.cluster.Namespaces = []string{"default"}
	w.git.Commit("main", files("1"))
	w.turns(3 * time.Minute)
	w.want("ams=1 fra= par=1 nyc=1")
	if !w.said("fra", "nyc", fleet.Yielded) || w.said("fra", "nyc", fleet.Started) {
		t.Fatal("fra should have yielded and not started")
	}
	fra.cluster.Namespaces = nil
	w.turns(3 * time.Minute)
	w.want("ams=1 fra= par=1 nyc=1") // yielded is for ever, in this plan (I12)
	w.git.Commit("main", files("2"))
	w.turns(3 * time.Minute)
	w.want("ams=2 fra=2 par=2 nyc=2")
}

// A cut-off member keeps what it has, waits for evidence, and catches up in order.
func TestCutOffMember(t *testing.T) {
	w := released(t)
	nyc := w.site("nyc")
	nyc.cut = true
	w.git.Commit("main", files("2"))
	w.turns(3 * time.Minute)
	w.want("ams=2 fra=2 par=2 nyc=1")
	if got := nyc.last.Because(); !strings.HasPrefix(got, "us: waits for stage canary") {
		t.Errorf("nyc says %q", got)
	}
	nyc.heal()
	w.turns(30 * time.Second)
	w.want("ams=2 fra=2 par=2 nyc=2")
}

// The same payload under a new seal is not applied again: success is carried over (R1).
func TestNewMemberCarriesOver(t *testing.T) {
	w := released(t)
	writes := w.site("fra").cluster.Writes()
	w.add("lon", "eu", "")
	w.seal()
	w.turns(5 * time.Second)
	if w.said("fra", "ams", fleet.Started) || !w.said("fra", "ams", fleet.Succeeded) {
		t.Fatal("fra should have carried its success over without starting")
	}
	w.turns(3 * time.Minute)
	w.want(everyone1 + " lon=1")
	if got := w.site("fra").cluster.Writes(); got > writes+1 { // the inventory names the new plan
		t.Errorf("%d writes for a carry-over", got-writes)
	}
}

// A turn that finds nothing new persists nothing.
func TestNoChangeNoWrites(t *testing.T) {
	w := released(t)
	w.turns(time.Minute)
	ams := w.site("ams")
	promises, writes, records := ams.promises.writes, ams.cluster.Writes(), len(ams.records)
	w.turns(10 * time.Minute)
	if ams.promises.writes != promises || ams.cluster.Writes() != writes || len(ams.records) != records {
		t.Errorf("in ten idle minutes: %d promises, %d writes, %d records",
			ams.promises.writes-promises, ams.cluster.Writes()-writes, len(ams.records)-records)
	}
}

func TestPauseHoldsAcrossReleases(t *testing.T) {
	w := released(t)
	nyc := w.site("nyc")
	home := &Home{Self: nyc.member.ID, Promises: nyc.promises, Ledger: nyc.ledger(), Clock: nyc.Clock}
	if err := home.Stop(t.Context(), w.name, "holidays"); err != nil {
		t.Fatal(err)
	}
	w.git.Commit("main", files("2"))
	w.turns(2 * time.Minute)
	w.git.Commit("main", files("3"))
	w.turns(2 * time.Minute)
	w.want(everyone1)
	if got := w.site("ams").last; got.Decision.Verdict != sequencer.Hold || !strings.Contains(got.Because(), "holidays") {
		t.Fatalf("ams: %s", got.Because())
	}
	if err := home.Stop(t.Context(), w.name, ""); err != nil {
		t.Fatal(err)
	}
	w.turns(4 * time.Minute)
	w.want("ams=3 fra=3 par=3 nyc=3")
}

func TestUnhealthyAfterSuccessStopsTheRest(t *testing.T) {
	w := released(t)
	w.git.Commit("main", files("2"))
	nyc := w.site("nyc")
	nyc.cut = true // us cannot go yet
	w.turns(3 * time.Minute)
	w.want("ams=2 fra=2 par=2 nyc=1")
	w.site("ams").bad["web:2"] = true
	w.turns(40 * time.Second)
	if !w.said("ams", "fra", fleet.Degraded) {
		t.Fatal("the canary's sickness was not said")
	}
	nyc.heal()
	w.turns(2 * time.Minute)
	w.want("ams=2 fra=2 par=2 nyc=1")
	if got := nyc.last.Because(); !strings.Contains(got, "unhealthy after its success") {
		t.Errorf("nyc says %q", got)
	}
}

// An agent killed in the middle of an apply goes on where it was.
func TestKilledDuringApply(t *testing.T) {
	w := newWorld(t)
	w.git.Commit("main", files("1"))
	ams := w.site("ams")
	ams.cluster.Apply = func(delivery.Release, delivery.ObjectID) error { return errors.New("killed") }
	w.turns(2 * time.Second)
	ams.cluster.Apply = nil
	ams.restart()
	w.turns(3 * time.Minute)
	w.want(everyone1)
	if ams.last.Promise.Progress.Attempts != 1 {
		t.Errorf("%d attempts for one release", ams.last.Promise.Progress.Attempts)
	}
}

// An attempt that the cluster hinders runs into its deadline: it must not hold its slot for ever.
func TestHinderedAttemptFails(t *testing.T) {
	w := newWorld(t)
	w.git.Commit("main", files("1"))
	ams := w.site("ams")
	ams.cluster.Apply = func(delivery.Release, delivery.ObjectID) error { return errors.New("connection refused") }
	w.turns(40 * time.Second)
	if !w.said("ams", "nyc", fleet.Failed) {
		t.Fatal("the attempt did not fail in 40s, its deadline is 30s")
	}
	ams.cluster.Apply = nil
	w.turns(3 * time.Minute)
	w.want(everyone1) // the retry worked
}

// A rollout that moves from a member to the fleet repository is taken, whatever the numbers are; while the
// repository cannot be read, nobody else's word replaces it.
func TestMoveToAnotherHome(t *testing.T) {
	w := newWorld(t)
	w.sealed.Author = string(w.site("nyc").member.ID)
	w.sealed.Number = 41
	w.git.Commit("main", files("1"))
	w.turns(3 * time.Minute)
	w.want(everyone1)
	w.seal() // by git, with number 2
	w.git.Commit("main", files("2"))
	w.turns(4 * time.Minute)
	w.want("ams=2 fra=2 par=2 nyc=2")
	w.sealed.Author = string(w.site("nyc").member.ID)
	w.sealed.Number = 99
	w.git.Commit("main", files("3"))
	w.turns(4 * time.Minute)
	w.want("ams=2 fra=2 par=2 nyc=2")
}

// A member that a newer seal leaves out keeps its objects, and nobody heals or deletes them any more (R12).
func TestUntargetedMemberIsLeftAlone(t *testing.T) {
	w := released(t)
	w.spec.Targets.Exclude = &v1alpha1.ClusterSelector{Names: []string{"nyc"}}
	nyc := w.site("nyc")
	w.members = w.members[:3]
	w.seal()
	w.members = append(w.members, nyc)
	w.git.Commit("main", files("2"))
	w.turns(3 * time.Minute)
	w.want("ams=2 fra=2 par=2 nyc=1")
	if got := nyc.last.Phase(); got != turn.PhaseNotTargeted {
		t.Errorf("nyc is %s", got)
	}
	// It says once that it has no part any more, and neither renews that nor follows the releases of others.
	left, ok := nyc.Ledger.Status(nyc.member.ID, w.name)
	if !ok || left.Phase != turn.PhaseNotTargeted {
		t.Errorf("nyc said %+v, %v", left, ok)
	}
	w.git.Commit("main", files("3"))
	w.now += turn.RenewAfter
	w.turns(3 * time.Minute)
	w.want("ams=3 fra=3 par=3 nyc=1")
	if again, _ := nyc.Ledger.Status(nyc.member.ID, w.name); again != left {
		t.Errorf("nyc said again %+v", again)
	}
	if renewed, _ := w.site("ams").Ledger.Status(w.site("ams").member.ID, w.name); renewed.Time <= left.Time {
		t.Error("ams did not renew what it said")
	}
	nyc.cluster.Remove(delivery.ObjectID{Group: "apps", Version: "v1", Kind: "Deployment", Namespace: "shop", Name: "web"})
	w.turns(5 * time.Second)
	w.want("ams=3 fra=3 par=3 nyc=")
}
