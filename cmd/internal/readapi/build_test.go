// SPDX-License-Identifier: Apache-2.0

package readapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/sequencer"
)

// canaryDone is how most stories begin.
var canaryDone = []string{"c1 started", "c1 succeeded", "c1 soaked"}

var stories = []struct {
	name  string
	lines []string
	// from is the member asked; us-1 where empty.
	from      fleet.Name
	alone     bool
	suspended bool
	// phases of canary, eu, us; summary "stage clusters failed"; Ready "status reason message".
	phases, summary, ready string
}{
	{
		name:   "nothing has happened",
		phases: "Progressing Waiting Pending", summary: "1/3 0/8 0",
		ready: "False WaitingForStage us: waits for stage canary (0 of 1 soaked, 1 needed): missing c1",
	},
	{
		name: "seen from the one that may start", from: "c1",
		phases: "Progressing Waiting Pending", summary: "1/3 0/8 0",
		ready: "False Progressing canary: 0 of 1 succeeded",
	},
	{
		name: "the canary works", lines: []string{"c1 started"}, from: "c1",
		phases: "Progressing Waiting Pending", summary: "1/3 0/8 0",
		ready: "False Progressing canary: 0 of 1 succeeded, 1 progressing",
	},
	{
		name: "the canary soaks", lines: canaryDone[:2], from: "c1",
		phases: "Soaking Waiting Pending", summary: "1/3 1/8 0",
		ready: "False Soaking canary: 1 of 1 succeeded, 0 of 1 soaked",
	},
	{
		name: "the canary failed and retries", lines: []string{"c1 started", "c1 failed: Deployment web/api: 0 of 3 ready after 10m"},
		phases: "Failed Waiting Pending", summary: "1/3 0/8 1",
		ready: "False Halted canary: c1 failed: Deployment web/api: 0 of 3 ready after 10m; it keeps its place and retries",
	},
	{
		name:   "the canary gave up",
		lines:  []string{"c1 started", "c1 failed: 0 of 3 ready", "c1 gaveup"},
		phases: "Failed Waiting Pending", summary: "1/3 0/8 1",
		ready: "False Halted canary: c1 gave up: 0 of 3 ready",
	},
	{
		name:   "a retry ends the halt",
		lines:  []string{"c1 started", "c1 failed: 0 of 3 ready", "c1 succeeded", "c1 soaked"},
		phases: "Complete Progressing Waiting", summary: "2/3 1/8 0",
		ready: "False WaitingForStage us: waits for stage eu (0 of 4 soaked, 3 needed): missing eu-1, eu-2, eu-3, eu-4",
	},
	{
		name: "eu is under way", lines: append(canaryDone, "eu-1 started", "eu-2 started", "eu-1 succeeded", "eu-1 soaked"), from: "c1",
		phases: "Complete Progressing Waiting", summary: "2/3 2/8 0",
		ready: "False Progressing eu: 1 of 4 succeeded, 1 progressing",
	},
	{
		name: "one failure of eu is tolerated", lines: append(canaryDone, "eu started", "eu-1 failed: no image"), from: "c1",
		phases: "Complete Progressing Waiting", summary: "2/3 1/8 1",
		ready: "False Progressing eu: 0 of 4 succeeded, 3 progressing, 1 failed",
	},
	{
		name:   "two failures are not, but others are at work",
		lines:  append(canaryDone, "eu started", "eu-1 failed: no image", "eu-2 failed: no image"),
		phases: "Complete Failed Waiting", summary: "2/3 1/8 2", from: "c1",
		ready: "False Progressing eu: 0 of 4 succeeded, 2 progressing, 2 failed",
	},
	{
		name:   "two failures, and nobody at work any more",
		lines:  append(canaryDone, "eu started", "eu-1 failed: no image", "eu-2 failed", "eu-3 soaked", "eu-4 succeeded"),
		phases: "Complete Failed Waiting", summary: "2/3 3/8 2",
		ready: "False Halted eu: eu-1 failed: no image; it keeps its place and retries; also eu-2",
	},
	{
		name:   "a gave-up one beyond maxUnavailable does not close an open gate",
		lines:  append(canaryDone, "eu started", "eu-1 gaveup: no image", "eu-2 soaked", "eu-3 soaked", "eu-4 soaked"),
		phases: "Complete Complete Progressing", summary: "3/3 4/8 1", from: "c1",
		ready: "False Progressing us: 0 of 3 succeeded",
	},
	{
		name:   "a cluster is sick after its success",
		lines:  append(canaryDone, "eu-1 started", "c1 degraded: 1 of 3 ready", "eu-1 soaked"),
		phases: "Failed Waiting Pending", summary: "1/3 2/8 0", from: "c1",
		ready: "False Halted canary: c1 is unhealthy after its success: 1 of 3 ready",
	},
	{
		name: "paused", lines: append(canaryDone, "eu-1 started", "pause by us-2: latency is up"), from: "c1",
		phases: "Complete Progressing Waiting", summary: "2/3 1/8 0",
		ready: `False Paused paused by us-2: "latency is up"; eu: 0 of 4 succeeded, 1 progressing`,
	},
	{
		name: "paused before anything began", lines: []string{"pause by us-2: hold"}, from: "c1",
		phases: "Waiting Pending Pending", summary: "1/3 0/8 0",
		ready: `False Paused paused by us-2: "hold"; canary: 0 of 1 succeeded`,
	},
	{
		name: "resumed", lines: []string{"pause by us-2: hold", "resume"}, from: "c1",
		phases: "Progressing Waiting Pending", summary: "1/3 0/8 0",
		ready: "False Progressing canary: 0 of 1 succeeded",
	},
	{
		name: "suspended", lines: canaryDone, suspended: true,
		phases: "Complete Progressing Waiting", summary: "2/3 1/8 0",
		ready: "False Suspended suspended where it is written: no cluster starts anything new; eu: 0 of 4 succeeded",
	},
	{
		name: "alone", lines: canaryDone, alone: true,
		phases: "Complete Progressing Waiting", summary: "2/3 1/8 0",
		ready: "Unknown NotHeard this member hears no other member; last known: eu: 0 of 4 succeeded",
	},
	{
		name:   "everywhere",
		lines:  append(canaryDone, "eu soaked", "us soaked"),
		phases: "Complete Complete Complete", summary: "3/3 8/8 0", alone: true,
		ready: "True RolloutComplete 8 of 8 clusters succeeded at main@a1b2c3d",
	},
	{
		name:   "everywhere, with exceptions",
		lines:  append(canaryDone, "eu-1 started", "eu-1 gaveup", "eu-2 soaked", "eu-3 soaked", "eu-4 soaked", "us-1 yielded", "us-2 soaked", "us-3 soaked", "c1 degraded"),
		phases: "Complete Complete Complete", summary: "3/3 6/8 1",
		ready: "True RolloutCompleteWithExceptions 6 of 8 clusters succeeded at main@a1b2c3d; 1 gave up (eu-1); 1 ineligible (us-1); 1 unhealthy after success (c1)",
	},
	{
		name: "a member of eu said two things at once", lines: append(canaryDone, "eu-1 started", "eu-1 forked", "eu-2 soaked", "eu-3 soaked", "eu-4 soaked", "us soaked"),
		phases: "Complete Complete Complete", summary: "3/3 7/8 0",
		ready: "True RolloutCompleteWithExceptions 7 of 8 clusters succeeded at main@a1b2c3d; 1 removed, for saying two things at once (eu-1)",
	},
	{
		name: "the canary said two things at once", lines: append(canaryDone, "c1 forked"),
		phases: "Failed Waiting Pending", summary: "1/3 0/8 0",
		ready: "False Halted canary: all 1 clusters left the plan; a stage where nobody succeeded opens no other",
	},
	{
		name: "a stage that everybody left opens nothing", lines: []string{"c1 yielded"},
		phases: "Failed Waiting Pending", summary: "1/3 0/8 0",
		ready: "False Halted canary: all 1 clusters left the plan; a stage where nobody succeeded opens no other",
	},
}

func TestStories(t *testing.T) {
	for _, story := range stories {
		t.Run(story.name, func(t *testing.T) {
			w := newWorld(t).tell(story.lines...)
			if story.from == "" {
				story.from = "us-1"
			}
			in := w.seenFrom(story.from)
			in.Alone, in.Suspended = story.alone, story.suspended
			var phases []string
			for _, s := range StageStatuses(in) {
				phases = append(phases, s.Phase)
			}
			if got := strings.Join(phases, " "); got != story.phases {
				t.Errorf("phases %s, want %s", got, story.phases)
			}
			s := Summary(in)
			if got := fmt.Sprintf("%s %s %d", s.Stage, s.Clusters, s.Failed); got != story.summary {
				t.Errorf("summary %s, want %s", got, story.summary)
			}
			c := ReadyCondition(in)
			if got, want := fmt.Sprintf("%s %s %s", c.Status, c.Reason, c.Message), story.ready; got != want {
				t.Errorf("ready\n got %s\nwant %s", got, want)
			}
		})
	}
}

// TestEverySentenceIsTheSequencers: what the API says of a member is what the member itself would decide.
func TestEverySentenceIsTheSequencers(t *testing.T) {
	for _, story := range stories {
		w := newWorld(t).tell(story.lines...)
		for _, m := range Build(w.seenFrom("us-1")).Members {
			want := sequencer.Decide(w.Plan, w, idOf(m.Name), fleet.Moment{})
			if m.Because != want.Because() || m.Rank != want.Rank || m.Stage != want.Stage {
				t.Errorf("%s: %s says %q (rank %d of %s), it would say %q", story.name, m.Name, m.Because, m.Rank, m.Stage, want.Because())
			}
			explained, err := Explain(w.seenFrom("us-1"), m.Name)
			if err != nil || explained.Sentence != want.Because() || explained.Verdict != want.Verdict.String() {
				t.Errorf("%s: %s is explained by %+v (%v), want %q", story.name, m.Name, explained, err, want.Because())
			}
		}
	}
}

// TestStatusFitsTheSchema: what the CRD bounds.
func TestStatusFitsTheSchema(t *testing.T) {
	for _, story := range stories {
		w := newWorld(t).tell(story.lines...)
		for _, s := range StageStatuses(w.seenFrom("us-1")) {
			if len(s.Names) > 5 || s.Clusters < s.Succeeded+s.Progressing+s.Failed+s.Ineligible {
				t.Errorf("%s: stage %+v", story.name, s)
			}
		}
	}
}

func TestNoPlanYet(t *testing.T) {
	in := Input{
		Name: fleet.RolloutName{Namespace: "apps", Name: "web"}, Self: member("c1"),
		Conditions: []metav1.Condition{
			{Type: "Ready", Status: "Unknown", Reason: v1alpha1.ReasonInvalid, Message: "spec.targets: no member"},
			{Type: "Stalled", Status: "True", Reason: v1alpha1.ReasonInvalid, Message: "spec.targets: no member"},
		},
	}
	if Summary(in) != nil || StageStatuses(in) != nil || ReleaseStatus(in) != nil {
		t.Error("a summary, stages or a release without a plan")
	}
	if c := ReadyCondition(in); c.Status != metav1.ConditionUnknown {
		t.Errorf("Ready %+v", c)
	}
	r := Build(in)
	if got := r.Condition("Ready"); got.Reason != v1alpha1.ReasonInvalid || len(r.Conditions) != 2 {
		t.Errorf("conditions %+v: the object's own are all there is", r.Conditions)
	}
	e, err := Explain(in, "")
	if err != nil || len(e.Checks) != 2 || e.Checks[1].OK || e.Member != "c1" {
		t.Errorf("explanation %+v, %v", e, err)
	}
}

func TestExplainUnknownMember(t *testing.T) {
	w := newWorld(t)
	_, err := Explain(w.seenFrom("c1"), "eu-77")
	if !errors.Is(err, ErrNoSuchMember) || fleet.KindOf(err) != fleet.Terminal || !strings.Contains(err.Error(), "c1, eu-1") {
		t.Errorf("error %v", err)
	}
	e, err := Explain(w.seenFrom("elsewhere"), "")
	if err != nil || e.Verdict != "Out" || e.Checks[len(e.Checks)-1].OK {
		t.Errorf("a member outside of the plan asks about itself: %+v, %v", e, err)
	}
}

func TestNames(t *testing.T) {
	w := newWorld(t).tell("pause by stranger: x", "pause by known")
	in := w.seenFrom("c1")
	in.NameOf = func(id fleet.MemberID) fleet.Name {
		if id == idOf("known") {
			return "known"
		}
		return ""
	}
	in.Author = string(idOf("eu-2"))
	r := Build(in)
	id := string(idOf("stranger"))
	want := []Stop{{By: fleet.Name("..." + id[len(id)-8:]), Reason: "x"}, {By: "known"}}
	if len(r.Stops) != 2 || r.Stops[0].By != want[0].By || r.Stops[1].By != want[1].By || r.Stops[0].ID.IsZero() {
		t.Errorf("stops %+v", r.Stops)
	}
	if r.Author != "eu-2" {
		t.Errorf("author %q", r.Author)
	}
}

// TestGolden keeps the bytes of the API: fields are only ever added to it.
func TestGolden(t *testing.T) {
	w := newWorld(t).tell(append(canaryDone, "eu-1 started", "eu-2 started", "eu-1 failed: Deployment web/api: 0 of 3 ready after 10m", "eu-2 succeeded", "pause by us-2: latency is up")...)
	in := w.seenFrom("us-1")
	in.Heard = map[fleet.MemberID]time.Duration{idOf("c1"): 2345 * time.Millisecond}
	in.Statuses = map[fleet.MemberID]fleet.Status{
		idOf("c1"): {Rollout: w.Plan.Rollout, Installed: w.Plan.Release.Revision, Accepted: w.Plan.Release.Revision, Phase: "Succeeded", Because: "canary: succeeded"},
	}
	in.Conditions = []metav1.Condition{{Type: "Ready", Status: "True", Reason: "Old"}, {Type: "SourceReady", Status: "True", Reason: "Fetched", Message: "main@a1b2c3d"}}
	golden(t, w, "rollout.json", Build(in))
	for _, name := range []fleet.Name{"us-1", "eu-1", "eu-4"} {
		e, err := Explain(in, name)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, w, "explain-"+string(name)+".json", e)
	}
}

func golden(t *testing.T, w *world, name string, v any) {
	t.Helper()
	got, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append([]byte(w.Steady(string(got))), '\n')
	path := filepath.Join("testdata", name)
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got; UPDATE_GOLDEN=1 rewrites):\n%s", path, diff)
	}
}
