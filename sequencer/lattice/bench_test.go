// SPDX-License-Identifier: Apache-2.0

package lattice_test

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
)

func BenchmarkAddAndRoot(b *testing.B) {
	s := lattice.New()
	var all []fleet.Record
	for i := range 10_000 {
		r := status(fmt.Sprint("r", i%5), 1, 1_770_000_000)
		r.Writer = fleet.MemberID(fmt.Sprint("writer", i/5)) // no digest depends on it being a key's
		all = append(all, r)
		s.Add(r)
	}
	s.Root()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		r := all[i%len(all)]
		r.Seq = uint64(i + 2)
		s.Add(r)
		s.Root()
	}
}

// What is heard again is most of gossip.
func BenchmarkWantsNot(b *testing.B) {
	s := lattice.New()
	r := milestone(fleet.FactKey(fleet.Digest{1}, fleet.Started), 1, 1)
	s.Add(r)
	b.ReportAllocs()
	for b.Loop() {
		if s.Wants(&r) {
			b.Fatal("wants what it has")
		}
	}
}

// BenchmarkMemory reports what a set takes in memory for each record, bodies and signatures included, when they come
// as they do from others: decoded one by one.
func BenchmarkMemory(b *testing.B) {
	member := func(i int) fleet.MemberID {
		sum := fleet.DigestOf("test", []byte(fmt.Sprint(i)))
		return fleet.MemberIDOf(sum[:])
	}
	for _, c := range []struct {
		name string
		n    int
		each func(i int) fleet.Record
	}{
		{"facts of 1,000 members", 100_000, func(i int) fleet.Record {
			f := fleet.Fact{Plan: fleet.Digest{byte(i / 8000)}, Kind: fleet.FactKind(1 + i/1000%8), Time: 1_770_000_000}
			r := said(fleet.KindFact, fleet.FactKey(f.Plan, f.Kind), 1_770_000_000<<30, uint64(i/1000))
			r.Writer, r.Body = member(i%1000), f.Encode()
			return r
		}},
		{"registers of 10,000 members", 10_000, func(i int) fleet.Record {
			r := status("checkout", 1, 1_770_000_000)
			r.Writer = member(i)
			return r
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				before := heap()
				s := lattice.New()
				for i := range c.n {
					r := c.each(i)
					decoded, err := fleet.DecodeRecord(r.Encode())
					if err != nil {
						b.Fatal(err)
					}
					s.Add(decoded)
				}
				s.Root()
				taken := heap() - before
				b.ReportMetric(float64(taken)/float64(c.n), "B/record")
				b.ReportMetric(float64(taken)/(1<<20), "MiB")
				runtime.KeepAlive(s)
			}
		})
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
