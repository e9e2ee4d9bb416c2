// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"regexp"
	"testing"
)

// TestUnnoticedRestoreIsFound: were a restored API not noticed, a rule about what one member says would be broken.
func TestUnnoticedRestoreIsFound(t *testing.T) {
	swarm, _ := Find("swarm")
	own := regexp.MustCompile(`: (I12|I14|R5|I5|I18):`)
	bug := Bug{ID: "R13", Name: "a restored API is not noticed", Breaks: "I12", forgetsItsWords: true, from: 140}
	for seed := range uint64(budget) {
		r, err := swarm.run(bug.from+seed, 12, false, bug)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range r.Violations {
			if own.MatchString(v) {
				t.Logf("seed %d, %s", r.Seed, v)
				return
			}
		}
	}
	t.Errorf("not found in %d seeds", budget)
}
