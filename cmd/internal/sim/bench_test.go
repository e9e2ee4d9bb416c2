// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"fmt"
	"runtime"
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

// BenchmarkSize is a whole rollout of KubeFleet's shape in fleets of several sizes, and what a member of them takes: the
// heap that is in use when the run has ended, and the most memory that the process ever had (of this size, if it is
// asked for alone: -bench Size/1000$).
func BenchmarkSize(b *testing.B) {
	for _, clusters := range []int{1_000, 5_000, 10_000} {
		b.Run(fmt.Sprint(clusters), func(b *testing.B) {
			var heap, virtual, turns, sent, facts float64
			began := processorTime(b)
			for b.Loop() {
				empty := heapInUse()
				w, err := newWorld(1, kubefleet(clusters, 1), Bug{})
				if err != nil {
					b.Fatal(err)
				}
				w.run()
				heap = float64(heapInUse() - empty)
				r := w.result("kubefleet", 1)
				if len(r.Violations) > 0 {
					b.Fatal(r.Violations)
				}
				virtual, turns, sent, facts = r.RolloutSeconds, float64(r.Turns), float64(r.SentBytes), float64(r.FactBytes)
			}
			b.ReportMetric((processorTime(b)-began).Seconds()/float64(b.N), "cpu-s/run")
			b.ReportMetric(virtual, "virtual-s")
			b.ReportMetric(heap/float64(clusters), "heap-B/member")
			b.ReportMetric(turns/float64(clusters), "turns/member")
			b.ReportMetric(facts, "facts-B")
			b.ReportMetric(sent, "sent-B/member")
			b.ReportMetric(float64(usage(b).Maxrss)/1024, "peak-rss-MiB")
		})
	}
}

func heapInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// processorTime that this process has used.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	u := usage(b)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func usage(b *testing.B) (u syscall.Rusage) {
	b.Helper()
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u
}
