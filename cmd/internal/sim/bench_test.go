// SPDX-License-Identifier: Apache-2.0

package sim

import "testing"

// BenchmarkSwarm is one seed of 30 clusters at a time; seeds/min is for one processor.
func BenchmarkSwarm(b *testing.B) {
	swarm, err := Find("swarm")
	if err != nil {
		b.Fatal(err)
	}
	turns, seed := 0, uint64(0)
	for b.Loop() {
		seed++
		r, err := swarm.Run(seed, 30, false)
		if err != nil || len(r.Violations) > 0 {
			b.Fatal(err, r.Violations)
		}
		turns += r.Turns
	}
	b.ReportMetric(60/(b.Elapsed().Seconds()/float64(b.N)), "seeds/min")
	b.ReportMetric(float64(turns)/float64(b.N), "turns/seed")
}
