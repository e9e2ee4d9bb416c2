// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"strings"
	"testing"
)

func TestSwarm(t *testing.T) {
	faults, seen := map[string]int{}, map[string]int{}
	for seed := range uint64(50) {
		r, err := Swarm(seed, 30, false)
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Violations) > 0 {
			again, _ := Swarm(seed, 30, true)
			t.Fatalf("seed %d:\n%s\n%s", seed, strings.Join(again.Story[max(0, len(again.Story)-60):], "\n"), strings.Join(r.Violations, "\n"))
		}
		for k, n := range r.Faults {
			faults[k] += n
		}
		for k, n := range r.Seen {
			seen[k] += n
		}
	}
	t.Log(faults)
	t.Log(seen)
}
