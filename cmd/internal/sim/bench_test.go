// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"fmt"
	"syscall"
	"testing"
	"time"
)

// BenchmarkSwarm is one seed at a time. seeds/min is by processor time, the garbage collector's included: what else
// runs on the machine takes no part in it.
func BenchmarkSwarm(b *testing.B) {
	for _, clusters := range []int{30, 100} {
		b.Run(fmt.Sprint(clusters), func(b *testing.B) {
			swarm, err := Find("swarm")
			if err != nil {
				b.Fatal(err)
			}
			turns, seed := 0, uint64(0)
			began := processorTime(b)
			for b.Loop() {
				seed++
				r, err := swarm.Run(seed, clusters, false)
				if err != nil || len(r.Violations) > 0 {
					b.Fatal(err, r.Violations)
				}
				turns += r.Turns
			}
			took := processorTime(b) - began
			b.ReportMetric(float64(b.N)/took.Minutes(), "seeds/min")
			b.ReportMetric(float64(turns)/float64(b.N), "turns/seed")
			b.ReportMetric(float64(took.Microseconds())/float64(turns), "µs/turn")
		})
	}
}

// processorTime that this process has used.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
