// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/cmd/internal/agent/turn"
	"github.com/flotilla-dev/flotilla/delivery"
	"github.com/flotilla-dev/flotilla/sequencer"
)

// words of events, as tables write them.
func words(events []Event) []string {
	var out []string
	for _, e := range events {
		kind := "normal"
		if e.Warning {
			kind = "warning"
		}
		out = append(out, fmt.Sprintf("%s %s [%s] %s", kind, e.Reason, e.Revision.Short(), e.Note))
	}
	return out
}

// nthRelease is release number n, with its plan.
func nthRelease(n int) (sequencer.Release, *sequencer.Plan) {
	r := sequencer.Release{Number: uint64(n), Revision: fleet.Revision(fmt.Sprintf("main@sha1:%d", n))}
	return r, &sequencer.Plan{Release: r, Digest: r.Plan()}
}

// sightOf a member that works on release n in a phase.
func sightOf(n int, phase sequencer.Phase, reason sequencer.Reason, change ...func(*sight)) sight {
	release, plan := nthRelease(n)
	installed := &turn.Installed{Release: release, Manifest: release.Plan()}
	s := sight{Report: turn.Report{
		Plan: plan, Decision: sequencer.Decision{Stage: "eu", Reason: reason}, Trouble: map[string]error{},
		Promise: turn.Promise{Accepted: release, Installed: installed, Progress: sequencer.Progress{Plan: plan.Digest, Phase: phase, Attempts: 1}},
	}}
	for _, c := range change {
		c(&s)
	}
	return s
}

func trouble(condition, reason, text string) func(*sight) {
	return func(s *sight) {
		s.Trouble = map[string]error{condition: &fleet.Error{Reason: reason, Err: errors.New(text)}}
	}
}

func wrote(actions ...delivery.Action) func(*sight) {
	return func(s *sight) {
		for n, a := range actions {
			id := delivery.ObjectID{Version: "v1", Kind: "ConfigMap", Namespace: "shop", Name: fmt.Sprint("c", n)}
			s.Outcome.Changes = append(s.Outcome.Changes, delivery.Change{Object: id, Action: a})
		}
	}
}

func attempts(n int) func(*sight) { return func(s *sight) { s.Promise.Progress.Attempts = n } }

// backTo an earlier release.
func backTo(n int) func(*sight) {
	return func(s *sight) {
		release, _ := nthRelease(n)
		s.Promise.Installed = &turn.Installed{Release: release, Manifest: release.Plan()}
	}
}

func TestEventsOf(t *testing.T) {
	nothing := sight{Report: turn.Report{Promise: turn.Promise{}}}
	started := func(change ...func(*sight)) sight {
		return sightOf(1, sequencer.Working, sequencer.HasStarted, change...)
	}
	soaked := func(change ...func(*sight)) sight {
		return sightOf(1, sequencer.Settled, sequencer.HasSucceeded, change...)
	}
	failed := func(phase sequencer.Phase, change ...func(*sight)) sight {
		return sightOf(2, phase, sequencer.HasStarted, append([]func(*sight){backTo(1)}, change...)...)
	}
	paused := func(s *sight) { s.stops = []fleet.Command{{Verb: fleet.Pause, Reason: "incident 42"}} }
	for _, tc := range []struct {
		name          string
		before, after sight
		want          []string
	}{
		{"nothing", nothing, nothing, nil},
		{
			"the first release", nothing, started(wrote(delivery.Created, delivery.Created), func(s *sight) { s.Subject = "Fix the cart" }),
			[]string{
				"normal ReleaseAccepted [main@1] accepted main@1: Fix the cart",
				"normal Started [main@1] eu: started main@1",
				"normal Delivered [main@1] main@1: 2 created (ConfigMap shop/c0, ConfigMap shop/c1)",
			},
		},
		{"the same again", started(), started(), nil},
		{
			"a wave", started(func(s *sight) { s.Outcome.Waiting = "wave -1" }), started(wrote(delivery.Created, delivery.Unchanged), func(s *sight) { s.Outcome.Waiting = "wave 0 is not ready: Job shop/migrate: is not complete" }),
			[]string{"normal Delivered [main@1] main@1: 1 created, 1 unchanged (ConfigMap shop/c0); wave 0 is not ready: Job shop/migrate: is not complete"},
		},
		{"success", started(), sightOf(1, sequencer.Ready, sequencer.HasSucceeded), []string{"normal Succeeded [main@1] eu: main@1 succeeded"}},
		{"soaked", sightOf(1, sequencer.Ready, sequencer.HasSucceeded), soaked(), []string{"normal Soaked [main@1] eu: main@1 soaked"}},
		{"both at once", started(), soaked(), []string{"normal Succeeded [main@1] eu: main@1 succeeded", "normal Soaked [main@1] eu: main@1 soaked"}},
		{
			"a failure", sightOf(2, sequencer.Working, sequencer.HasStarted), failed(sequencer.Retrying, func(s *sight) { s.Health.Because = "0 of 2 ready" }),
			[]string{"warning Failed [main@2] eu: main@2 failed: 0 of 2 ready", "warning RolledBack [main@1] back to main@1, the last good release here"},
		},
		{
			"the last good one is put back", failed(sequencer.Retrying), failed(sequencer.Retrying, wrote(delivery.Configured)),
			[]string{"normal Delivered [main@1] main@1: 1 configured (ConfigMap shop/c0)"},
		},
		{
			"a first failure, with nothing to go back to", started(), sightOf(1, sequencer.Retrying, sequencer.HasStarted),
			[]string{"warning Failed [main@1] eu: main@1 failed: not healthy in time"},
		},
		{
			"another attempt", failed(sequencer.Retrying), sightOf(2, sequencer.Working, sequencer.HasStarted, attempts(2)),
			[]string{"normal Started [main@2] eu: started main@2, attempt 2"},
		},
		{
			"an attempt that began and ended between two turns", failed(sequencer.Retrying), failed(sequencer.Resigned, attempts(2)),
			[]string{
				"normal Started [main@2] eu: started main@2, attempt 2", "warning Failed [main@2] eu: main@2 failed: not healthy in time",
				"warning RolledBack [main@1] back to main@1, the last good release here",
			},
		},
		{
			"gave up", failed(sequencer.Resigned), failed(sequencer.Resigned, func(s *sight) { s.Decision.Reason = sequencer.HasGivenUp }),
			[]string{"warning GaveUp [main@2] eu: gave up; runs its last good release"},
		},
		{
			"left the plan", nothing, sight{Report: turn.Report{Plan: started().Plan, Decision: sequencer.Decision{Stage: "eu", Reason: sequencer.HasYielded}}},
			[]string{"warning Yielded [main@1] eu: left the plan before it started"},
		},
		{
			"unhealthy after success", soaked(), soaked(func(s *sight) { s.Promise.Progress.Degraded, s.Health.Because = true, "1 of 2 ready" }),
			[]string{"warning Degraded [main@1] 1 of 2 ready"},
		},
		{"drift", soaked(), soaked(wrote(delivery.Configured, delivery.Unchanged, delivery.Created)), []string{"normal Healed [main@1] main@1: 1 created, 1 configured, 1 unchanged (ConfigMap shop/c0, ConfigMap shop/c2)"}},
		{
			"much drift", soaked(), soaked(wrote(delivery.Created, delivery.Created, delivery.Created, delivery.Created, delivery.Pruned)),
			[]string{"normal Healed [main@1] main@1: 4 created, 1 pruned (ConfigMap shop/c0, ConfigMap shop/c1, ConfigMap shop/c2, and 2 more)"},
		},
		{
			"drift that stays", soaked(), soaked(trouble(v1alpha1.ConditionApplied, v1alpha1.ReasonForbidden, "may not")),
			[]string{"warning Drifted [main@1] may not"},
		},
		{
			"it still stays, in other words", soaked(trouble(v1alpha1.ConditionApplied, v1alpha1.ReasonForbidden, "may not")),
			soaked(trouble(v1alpha1.ConditionApplied, v1alpha1.ReasonForbidden, "may not, for the 2nd time")), nil,
		},
		{
			"a payload that does not build", soaked(), soaked(trouble(v1alpha1.ConditionApplied, v1alpha1.ReasonValuesInvalid, "replicas: want integer")),
			[]string{"warning RenderFailed [main@1] replicas: want integer"},
		},
		{
			"drift before success", started(), started(wrote(delivery.Created)), []string{"normal Healed [main@1] main@1: 1 created (ConfigMap shop/c0)"},
		},
		{
			"what could not be written before", started(trouble(v1alpha1.ConditionApplied, v1alpha1.ReasonForbidden, "may not")), started(wrote(delivery.Created)),
			[]string{"normal Delivered [main@1] main@1: 1 created (ConfigMap shop/c0)"},
		},
		{
			"a cluster that does not take it", sightOf(1, sequencer.Retrying, sequencer.HasStarted), started(attempts(2), trouble(v1alpha1.ConditionApplied, v1alpha1.ReasonForbidden, "may not")),
			[]string{"normal Started [main@1] eu: started main@1, attempt 2", "warning ApplyFailed [main@1] may not"},
		},
		{
			"the source", soaked(), soaked(trouble(v1alpha1.ConditionSourceReady, v1alpha1.ReasonFetchFailed, "503")),
			[]string{"warning SourceFailed [main@1] 503"},
		},
		{
			"the source, otherwise", soaked(trouble(v1alpha1.ConditionSourceReady, v1alpha1.ReasonFetchFailed, "503")),
			soaked(trouble(v1alpha1.ConditionSourceReady, v1alpha1.ReasonAuthFailed, "401")), []string{"warning SourceFailed [main@1] 401"},
		},
		{
			"the source again", soaked(trouble(v1alpha1.ConditionSourceReady, v1alpha1.ReasonFetchFailed, "503")), soaked(),
			[]string{"normal SourceRecovered [main@1] the source can be read again"},
		},
		{"paused", soaked(), soaked(paused), []string{`normal Paused [main@1] paused: "incident 42"`}},
		{"still paused", soaked(paused), soaked(paused), nil},
		{
			"paused twice", soaked(paused), soaked(paused, func(s *sight) { s.Rollout.Settings.Suspend = true }),
			[]string{`normal Paused [main@1] paused: "incident 42", "spec.suspend is true"`},
		},
		{"resumed", soaked(paused), soaked(), []string{"normal Resumed [main@1] no stop is in force any more"}},
		{
			"a long story", soaked(), soaked(trouble(v1alpha1.ConditionSourceReady, "", strings.Repeat("é", maxNote))),
			[]string{"warning SourceFailed [main@1] " + strings.Repeat("é", (maxNote-3)/2) + "..."},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, words(eventsOf(tc.before, tc.after))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			tc.after.Outcome = delivery.Outcome{}
			if again := eventsOf(tc.after, tc.after); len(again) > 0 {
				t.Errorf("the same turn again: %v", words(again))
			}
		})
	}
}

// recorder keeps what is told.
type recorder struct{ told []string }

// AnnotatedEventf is in events.AnnotatedEventRecorder.
func (r *recorder) AnnotatedEventf(_, _ runtime.Object, annotations map[string]string, kind, reason, action, note string, args ...any) {
	r.told = append(r.told, fmt.Sprintf("%s %s (%s) %s: %s", kind, reason, action, annotations[AnnotationRevision], fmt.Sprintf(note, args...)))
}

// TestEventsOfARelease: each once, however many turns are taken.
func TestEventsOfARelease(t *testing.T) {
	w := newWorld(t)
	told := &recorder{}
	events := &Events{Recorder: told}
	object := &v1alpha1.FleetRollout{ObjectMeta: metav1.ObjectMeta{UID: types.UID("1")}}
	turns := func(span time.Duration) {
		for end := w.now + span; w.now < end; {
			w.turns(time.Second)
			ams := w.site("ams")
			events.Turned(w.name, object, sight{ams.last, sequencer.Stops(ams.Ledger.Commands(w.name))})
		}
	}
	w.git.Commit("main", files("1"))
	turns(time.Minute)
	first := w.site("ams").last.Plan.Release.Revision
	w.git.Commit("main", files("2-bad"))
	w.site("ams").bad["web:2-bad"] = true
	turns(10 * time.Minute)
	second := w.site("ams").last.Plan.Release.Revision
	var got []string
	for _, line := range told.told {
		line = strings.NewReplacer(string(first), "FIRST", string(second), "SECOND", first.Short(), "first", second.Short(), "second").Replace(line)
		got = append(got, line)
	}
	want := []string{
		"Normal ReleaseAccepted (ReleaseAccepted first) FIRST: accepted first: change 1",
		"Normal Started (Started first) FIRST: canary: started first",
		"Normal Delivered (Delivered first) FIRST: first: 1 created (Deployment shop/web)",
		"Normal Succeeded (Succeeded first) FIRST: canary: first succeeded",
		"Normal Soaked (Soaked first) FIRST: canary: first soaked",
		"Normal ReleaseAccepted (ReleaseAccepted second) SECOND: accepted second: change 2",
		"Normal Started (Started second) SECOND: canary: started second",
		"Normal Delivered (Delivered second) SECOND: second: 1 configured (Deployment shop/web)",
		"Warning Failed (Failed second) SECOND: canary: second failed: 0 of 1 ready",
		"Warning RolledBack (RolledBack first) FIRST: back to first, the last good release here",
		"Normal Delivered (Delivered first) FIRST: first: 1 configured (Deployment shop/web)",
		"Normal Started (Started second) SECOND: canary: started second, attempt 2",
		"Normal Delivered (Delivered second) SECOND: second: 1 configured (Deployment shop/web)",
		"Warning Failed (Failed second) SECOND: canary: second failed: 0 of 1 ready",
		"Warning RolledBack (RolledBack first) FIRST: back to first, the last good release here",
		"Normal Delivered (Delivered first) FIRST: first: 1 configured (Deployment shop/web)",
		"Warning GaveUp (GaveUp second) SECOND: canary: gave up; runs its last good release",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestEventsAfterARestart: what was so before the agent began is no news.
func TestEventsAfterARestart(t *testing.T) {
	name := fleet.RolloutName{Namespace: "shop", Name: "web"}
	object := &v1alpha1.FleetRollout{ObjectMeta: metav1.ObjectMeta{UID: types.UID("1")}}
	object.Status.Here = &v1alpha1.MemberRollout{Phase: turn.PhaseSucceeded}
	object.Status.Conditions = []metav1.Condition{condition(v1alpha1.ConditionSourceReady, metav1.ConditionFalse, v1alpha1.ReasonAuthFailed, "401")}
	now := sightOf(1, sequencer.Settled, sequencer.HasSucceeded, trouble(v1alpha1.ConditionSourceReady, v1alpha1.ReasonAuthFailed, "401 again"))
	now.Rollout.Author = fleet.AuthorGit
	told := &recorder{}
	events := &Events{Recorder: told}
	events.Turned(name, object, now)
	if len(told.told) != 0 {
		t.Errorf("told again: %v", told.told)
	}
	// What this very turn did is.
	told, drift := &recorder{}, now
	wrote(delivery.Configured)(&drift)
	events = &Events{Recorder: told}
	events.Turned(name, object, drift)
	if len(told.told) != 1 || !strings.Contains(told.told[0], "Healed") {
		t.Errorf("%v", told.told)
	}
	// Without a copy nobody is told; and then nothing is made up for.
	told = &recorder{}
	events = &Events{Recorder: told}
	events.Turned(name, nil, now)
	events.Turned(name, object, now)
	var none *Events
	none.Turned(name, object, now)
	if len(told.told) != 0 {
		t.Errorf("%v", told.told)
	}
}

// TestEventsAreBounded: what fights over an object every second does not fill the cluster with events.
func TestEventsAreBounded(t *testing.T) {
	name := fleet.RolloutName{Namespace: "shop", Name: "web"}
	object := &v1alpha1.FleetRollout{ObjectMeta: metav1.ObjectMeta{UID: types.UID("1")}}
	now := sightOf(1, sequencer.Settled, sequencer.HasSucceeded, wrote(delivery.Configured))
	now.Rollout.Author = fleet.AuthorGit
	told := &recorder{}
	events := &Events{Recorder: told}
	for range 10 * eventBurst {
		events.Turned(name, object, now)
	}
	if n := len(told.told); n < eventBurst || n > eventBurst+2 {
		t.Errorf("%d events", n)
	}
}
