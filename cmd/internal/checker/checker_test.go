// SPDX-License-Identifier: Apache-2.0

package checker

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// bound of states in a test, and where there is more time.
const (
	bound = 400_000
	most  = 8_000_000
)

// large models, of more than 50,000 states or thousands of lies in each.
var large = []string{"forked", "two at a time", "two stages", "two seals", "three seals", "two liars in a window", "two liars and two successes", "an author's two seals in one position"}

// TestRulesHold goes through every state of models that meet each rule.
func TestRulesHold(t *testing.T) {
	models := slices.Concat(Sound, Unchecked, Lying)
	if raced { // one goroutine has no races; ten times slower, the small ones do
		models = slices.DeleteFunc(models, func(m Model) bool { return slices.Contains(large, m.Name) })
	}
	hold(t, bound, models,
		"a start behind a gate", "a start behind the window", "a yield in the canary", "more gave up than is tolerated", "a release left in motion",
		"a start behind a stage with a liar", "a fleet at rest", "two releases in motion")
}

// TestRulesHoldInDepth goes through models that take minutes: make check-deep.
func TestRulesHoldInDepth(t *testing.T) {
	if os.Getenv("FLOTILLA_CHECK") != "deep" {
		t.Skip("make check-deep runs it")
	}
	hold(t, most, Deep)
}

// hold goes through models, and sees that what must be met was.
func hold(t *testing.T, bound int, models []Model, met ...string) {
	total, states, began := map[string]int{}, 0, time.Now()
	for _, m := range models {
		t.Run(m.Name, func(t *testing.T) {
			began := time.Now()
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
			states += r.States
			t.Logf("%d states, %d steps in %.2f s", r.States, r.Steps, time.Since(began).Seconds())
		})
	}
	for _, what := range met {
		if total[what] == 0 {
			t.Errorf("vacuous: %s was never seen", what)
		}
	}
	t.Logf("%d models, %d states in %.1f s", len(models), states, time.Since(began).Seconds())
}

// TestPlantedBugsAreRefuted: each by the invariant that it is about, in the smallest number of steps.
func TestPlantedBugsAreRefuted(t *testing.T) { refute(t, Planted) }

// refute bugs, each in its model, which holds without it.
func refute(t *testing.T, bugs []Bug) {
	held := map[string]bool{} // many bugs are planted in one model
	for _, bug := range bugs {
		t.Run(bug.ID, func(t *testing.T) {
			r, err := Check(bug.In, bug, bound)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(r.Violation, bug.Breaks+":") {
				t.Fatalf("%s: %s is not broken in %d states: %s", bug.Name, bug.Breaks, r.States, r)
			}
			t.Logf("%s, after %d states:\n%s", bug.Name, r.States, r)
			if held[fmt.Sprint(bug.In)] {
				return
			}
			held[fmt.Sprint(bug.In)] = true
			sound, err := Check(bug.In, Bug{}, bound)
			if err != nil || sound.Violation != "" {
				t.Errorf("without the bug: %v %s", err, sound)
			}
		})
	}
}
