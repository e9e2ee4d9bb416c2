// SPDX-License-Identifier: Apache-2.0

package mesh_test

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/mesh"
	"github.com/flotilla-dev/flotilla/sequencer/mesh/meshtest"
)

// tellers count how many members were told of a record, and when.
type tellers struct {
	mu   sync.Mutex
	told map[fleet.Digest][]time.Time
}

func (b *tellers) onNews(records []fleet.Record) {
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range records {
		d := records[i].Digest()
		b.told[d] = append(b.told[d], now)
	}
}

func (b *tellers) all(d fleet.Digest, members int) (last time.Time, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	times := b.told[d]
	if len(times) < members {
		return last, false
	}
	return times[len(times)-1], true
}

// BenchmarkConverge: one member writes 512 bytes; until every member has it on disk and its
// consumer was told. But for the coalescing, the settings are LAN's.
func BenchmarkConverge(b *testing.B) {
	for _, members := range []int{4, 20} {
		for _, coalesce := range []time.Duration{time.Nanosecond, mesh.LAN().Coalesce} {
			b.Run(fmt.Sprintf("members=%d/coalesce=%s", members, coalesce), func(b *testing.B) {
				converge(b, members, coalesce)
			})
		}
	}
}

func converge(b *testing.B, members int, coalesce time.Duration) {
	heard := tellers{told: map[fleet.Digest][]time.Time{}}
	heap := heapInUse()
	w := meshtest.New(b, members, func(c *mesh.Config) {
		lan := mesh.LAN()
		c.OnNews, c.Coalesce = heard.onNews, coalesce
		c.Heartbeat, c.SyncEvery, c.SyncGap, c.GossipBeat = lan.Heartbeat, lan.SyncEvery, lan.SyncGap, lan.GossipBeat
	})
	w.AwaitConnected()
	meshtest.Await(b, "everyone heard", func() bool {
		return !slices.ContainsFunc(w.Node(0).Peers(), func(p mesh.PeerState) bool { return !p.Heard })
	})
	perNode := float64(heapInUse()-heap) / float64(members)
	body := make([]byte, 512)
	var spans []time.Duration
	for i := 0; b.Loop(); i++ {
		body[0], body[1] = byte(i), byte(i>>8)
		begin := time.Now()
		r := say(b, w.Node(i%members), fmt.Sprint("key", i%100), string(body))
		meshtest.Await(b, "convergence", func() bool {
			last, ok := heard.all(r.Digest(), members)
			if ok {
				spans = append(spans, last.Sub(begin))
			}
			return ok
		})
	}
	slices.Sort(spans)
	ms := func(share float64) float64 {
		return float64(spans[int(share*float64(len(spans)-1))].Microseconds()) / 1000
	}
	b.ReportMetric(ms(0.5), "p50-ms")
	b.ReportMetric(ms(0.99), "p99-ms")
	b.ReportMetric(perNode/(1<<20), "MiB/node")
}

// heapInUse after a collection, with stacks.
func heapInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

// BenchmarkJoin: a member with an empty store fetches everything from three others, 10,000 records of about
// 500 bytes.
func BenchmarkJoin(b *testing.B) {
	const records = 10_000
	w := meshtest.New(b, 4, func(c *mesh.Config) { c.Heartbeat, c.SyncEvery = time.Hour, time.Hour })
	w.Stop(1)
	w.Stop(2)
	w.Stop(3)
	var size int
	var batch []fleet.Record
	for i := range records {
		r := fleet.Record{Fleet: w.Fleet(), Epoch: 1, Seq: uint64(i), Kind: fleet.KindRegister, Key: fmt.Sprint("key", i), Body: make([]byte, 300)}
		must(b, r.Sign(w.Key(0)))
		batch = append(batch, r)
		size += len(r.Encode())
	}
	must(b, w.Store(0).Put(batch...))
	w.Stop(0)
	w.Start(0)
	for b.Loop() {
		w.Start(3)
		w.AwaitEqualRoots()
		b.StopTimer()
		joined := w.Node(3).Stats()
		meshtest.Await(b, "the end of a session", func() bool {
			return w.Node(0).Stats().Sessions+w.Node(3).Stats().Sessions > 0
		})
		b.ReportMetric(float64(joined.SyncBytes+w.Node(0).Stats().SyncBytes)/float64(size), "bytes/state")
		w.Stop(3)
		w.Wipe(3)
		b.StartTimer()
	}
}
