// SPDX-License-Identifier: Apache-2.0

package checker

import (
	"strings"
	"testing"
)

// TestRestoredHolds: with a restored API noticed and its member silent, the rules hold in every state.
func TestRestoredHolds(t *testing.T) { hold(t, bound, Restored, "a restored API is noticed") }

func TestPlantedInRestoredAreRefuted(t *testing.T) { refute(t, PlantedInRestored) }

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
