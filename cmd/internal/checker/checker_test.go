// SPDX-License-Identifier: Apache-2.0

package checker

import (
	"strings"
	"testing"
)

// bound of states in a test: what is larger is for a night.
const bound = 400_000

// TestRulesHold goes through every state of models that meet each rule.
func TestRulesHold(t *testing.T) {
	total := map[string]int{}
	for _, m := range Sound {
		t.Run(m.Name, func(t *testing.T) {
			r, err := Check(m, Bug{}, bound)
			if err != nil {
				t.Fatal(err)
			}
			if r.Violation != "" {
				t.Fatalf("the rules are broken:\n%s", r)
			}
			if !r.Complete {
				t.Errorf("%d states are not all", r.States)
			}
			for what, n := range r.Seen {
				total[what] += n
			}
			t.Logf("%d states, %d steps", r.States, r.Steps)
		})
	}
	for _, what := range []string{"a start behind a gate", "a start behind the window", "a yield in the canary", "more gave up than is tolerated", "a release left in motion"} {
		if total[what] == 0 {
			t.Errorf("vacuous: %s was never seen", what)
		}
	}
}

// TestPlantedBugsAreRefuted: each by the invariant that it is about, in the smallest number of steps.
func TestPlantedBugsAreRefuted(t *testing.T) {
	for _, bug := range Planted {
		t.Run(bug.ID, func(t *testing.T) {
			r, err := Check(bug.In, bug, bound)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(r.Violation, bug.Breaks+":") {
				t.Fatalf("%s: %s is not broken in %d states: %s", bug.Name, bug.Breaks, r.States, r)
			}
			t.Logf("%s, after %d states:\n%s", bug.Name, r.States, r)
			sound, err := Check(bug.In, Bug{}, bound)
			if err != nil || sound.Violation != "" {
				t.Errorf("without the bug: %v %s", err, sound)
			}
		})
	}
}
