// SPDX-License-Identifier: Apache-2.0

package checker

import (
	"strings"
	"testing"
)

// TestRestoredHolds: with a restored API noticed and its member silent, the rules hold in every state.
func TestRestoredHolds(t *testing.T) {
	noticed := 0
	for _, m := range Restored {
		t.Run(m.Name, func(t *testing.T) {
			r, err := Check(m, Bug{}, bound)
			if err != nil {
				t.Fatal(err)
			}
			if r.Violation != "" || !r.Complete {
				t.Fatalf("complete: %v:\n%s", r.Complete, r)
			}
			noticed += r.Seen["a restored API is noticed"]
			t.Logf("%d states, %d steps", r.States, r.Steps)
		})
	}
	if noticed == 0 {
		t.Error("vacuous: no restored API was noticed")
	}
}

func TestPlantedInRestoredAreRefuted(t *testing.T) {
	for _, bug := range PlantedInRestored {
		t.Run(bug.ID, func(t *testing.T) {
			r, err := Check(bug.In, bug, bound)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(r.Violation, bug.Breaks+":") {
				t.Fatalf("%s: %s is not broken in %d states: %s", bug.Name, bug.Breaks, r.States, r)
			}
			t.Logf("%s, after %d states:\n%s", bug.Name, r.States, r)
			if sound, err := Check(bug.In, Bug{}, bound); err != nil || sound.Violation != "" {
				t.Errorf("without the bug: %v %s", err, sound)
			}
		})
	}
}

// TestWhatNobodyHeardIsNotNoticed is what R13 leaves open. Whoever closes it moves the model to those that are sound.
func TestWhatNobodyHeardIsNotNoticed(t *testing.T) {
	r, err := Check(Unheard, Bug{}, bound)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(r.Violation, "I12:") {
		t.Errorf("what nobody has heard breaks nothing any more: %s", r)
	}
	t.Logf("%s", r)
}
