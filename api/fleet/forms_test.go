// SPDX-License-Identifier: Apache-2.0

package fleet_test

import (
	"testing"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// TestFormsAreOfWhatIsJudged: whoever makes CheckBody judge a kind more has to say since which number it does.
func TestFormsAreOfWhatIsJudged(t *testing.T) {
	newest := uint8(0)
	for kind := range 256 {
		judged := false
		for _, key := range []string{"k", "status/shop/web"} {
			r := fleet.Record{Kind: fleet.Kind(kind), Key: key, Body: []byte{fleet.WireVersion, 0}}
			judged = judged || fleet.CheckBody(&r) != nil
		}
		since := fleet.JudgedSince(&fleet.Record{Kind: fleet.Kind(kind)})
		newest = max(newest, since)
		if judged != (since > 0) {
			t.Errorf("kind %d is judged: %v, and since %d", kind, judged, since)
		}
	}
	if newest != fleet.Forms {
		t.Errorf("the newest kind is judged since %d, forms are at %d", newest, fleet.Forms)
	}
}
