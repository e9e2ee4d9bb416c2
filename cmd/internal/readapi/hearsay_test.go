// SPDX-License-Identifier: Apache-2.0

package readapi

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer"
)

// TestHearsayIsShownAndCountsNowhere: what a zone tells stands beside what is held here, and changes none of it.
func TestHearsayIsShownAndCountsNowhere(t *testing.T) {
	w := newWorld(t).tell(canaryDone...)
	in := w.seenFrom("c1")
	held := Build(in)
	told := func(plan fleet.Digest, zone string, counts map[string]int) fleet.Rollup {
		return fleet.Rollup{
			Rollout: in.Name, Zone: zone, Plan: plan, Members: 4, Time: 1_800_000_000, Failing: []fleet.Name{"eu-3"},
			Stages: []fleet.StageRollup{{Name: "eu", Counts: counts}},
		}
	}
	in.Reports = []fleet.Rollup{
		told(w.Plan.Digest, "north", map[string]int{"Complete": 2, "Soaking": 1, "Degraded": 1, "Failed": -7}),
		told(w.Plan.Digest, "east", map[string]int{"Progressing": 1, "Failed": 1, "Removed": 1, "Ineligible": 1, "SomethingNew": 2}),
		told(fleet.Digest{1}, "of an older plan", map[string]int{"Complete": 4}),
	}
	got := Build(in)
	want := &Reported{Clusters: 10, Succeeded: 4, Progressing: 1, Failed: 1, Degraded: 1, Ineligible: 2}
	if diff := cmp.Diff(want, got.Stages[1].ByReport); diff != "" {
		t.Errorf("by report (- want, + got):\n%s", diff)
	}
	if got.Stages[0].ByReport != nil || got.Stages[2].ByReport != nil {
		t.Error("stages that nobody told of have reports")
	}
	if len(got.Reports) != 2 || got.Reports[0].Zone != "east" || got.Reports[1].Zone != "north" || got.Reports[1].Time.IsZero() {
		t.Errorf("reports: %+v", got.Reports)
	}
	got.Reports, got.Stages[1].ByReport = nil, nil
	if diff := cmp.Diff(held, got); diff != "" {
		t.Errorf("hearsay changed what is held (- without, + with):\n%s", diff)
	}
	for _, m := range []fleet.Name{"eu-1", "us-1"} {
		a, _ := Explain(w.seenFrom("c1"), m)
		b, _ := Explain(in, m)
		if diff := cmp.Diff(a, b); diff != "" {
			t.Errorf("hearsay changed why %s waits:\n%s", m, diff)
		}
	}
}

// TestOneVoiceIsExplained: who was removed, or shares its key, is told so, and what to do about it.
func TestOneVoiceIsExplained(t *testing.T) {
	w := newWorld(t).tell(append(canaryDone, "eu-1 started", "eu-1 forked")...)
	in := w.seenFrom("eu-2")
	e, err := Explain(in, "eu-1")
	if err != nil || e.Verdict != sequencer.Out.String() || e.State != "Removed" || len(e.Helps) != 1 || !strings.Contains(e.Helps[0], "new key") {
		t.Errorf("eu-1: %v, %+v", err, e)
	}
	if last := e.Checks[len(e.Checks)-1]; last.OK || last.Name != "one voice" {
		t.Errorf("eu-1's last check: %+v", last)
	}
	if e, err = Explain(in, "us-1"); err != nil || !strings.Contains(e.Checks[3].Text, "1 removed") {
		t.Errorf("us-1 counts eu as: %v, %+v", err, e.Checks)
	}
	in.Duplicate = true
	if e, err = Explain(in, ""); err != nil || e.Verdict != sequencer.Hold.String() || !strings.Contains(e.Sentence, "another live agent uses this member's key") || len(e.Helps) != 1 {
		t.Errorf("eu-2, whose key two agents use: %v, %+v", err, e)
	}
	if e, err = Explain(in, "eu-3"); err != nil || e.Verdict == sequencer.Hold.String() {
		t.Errorf("eu-3, whose key is its own: %v, %+v", err, e)
	}
}

// TestRestoredIsExplained: of a member whose API was restored it is told why it is held, and nothing of a place that it has not asked for.
func TestRestoredIsExplained(t *testing.T) {
	in := newWorld(t).tell(canaryDone...).seenFrom("eu-3")
	in.Restored = true
	e, err := Explain(in, "")
	if err != nil || e.Verdict != sequencer.Hold.String() || !strings.Contains(e.Sentence, "give its FleetMember a higher incarnation") || len(e.Helps) != 1 {
		t.Errorf("%v, %+v", err, e)
	}
	memory := false
	for _, c := range e.Checks {
		if c.Name == "slot" {
			t.Errorf("it is told of a slot: %s", c.Text)
		}
		memory = memory || c.Name == "memory" && !c.OK
	}
	if !memory {
		t.Errorf("its checks do not say why: %+v", e.Checks)
	}
}
