// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// rolledOut are the four milestones of each member in each rollout, of each member together; signed by nobody.
func rolledOut(members, rollouts int) (records []fleet.Record) {
	random := rand.New(rand.NewPCG(1, 1))
	bits := func(b []byte) []byte {
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		return b
	}
	of := fleet.Digest(bits(make([]byte, 32)))
	for range members {
		writer := fleet.MemberIDOf(ed25519.PublicKey(bits(make([]byte, 32))))
		epoch, seq := uint64(1_795_000_000)<<30|random.Uint64N(1<<30), uint64(0)
		for n := range rollouts {
			plan := fleet.DigestOf("plan", []byte{byte(n)})
			for kind := fleet.Accepted; kind <= fleet.Soaked; kind++ {
				seq++
				records = append(records, fleet.Record{
					Fleet: of, Writer: writer, Epoch: epoch, Seq: seq, Kind: fleet.KindFact, Key: fleet.FactKey(plan, kind),
					Body: fleet.Fact{Plan: plan, Kind: kind, Time: 1_795_000_000 + int64(seq)}.Encode(), Sig: bits(make([]byte, 64)),
				})
			}
		}
	}
	return records
}

// orders in which facts may come.
func orders() map[string]func([]fleet.Record) {
	return map[string]func([]fleet.Record){
		"by member": func([]fleet.Record) {},
		"by rollout": func(records []fleet.Record) {
			slices.SortStableFunc(records, func(a, b fleet.Record) int { return bytes.Compare([]byte(a.Key), []byte(b.Key)) })
		},
		"at random": func(records []fleet.Record) {
			rand.New(rand.NewPCG(2, 2)).Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
		},
	}
}

// filled gives the size of the file that so many records at a time make.
func filled(t testing.TB, records []fleet.Record, atOnce int) int64 {
	t.Helper()
	path := file(t)
	s := open(t, path)
	for part := range slices.Chunk(records, atOnce) {
		must(t, s.Put(part...))
	}
	must(t, s.Close())
	info, err := os.Stat(path)
	must(t, err)
	return info.Size()
}

// TestSizeOfFacts: a thousand members' facts in five open rollouts take no more than 5 MB, also where they come in the order
// that makes most of them. A message brings up to 240.
func TestSizeOfFacts(t *testing.T) {
	t.Parallel()
	records := rolledOut(1000, 5)
	orders()["at random"](records)
	if size := filled(t, records, 240); size > 5_000_000 {
		t.Errorf("%d facts: %d bytes", len(records), size)
	}
}

// BenchmarkSize reports the bytes of a file after a thousand members' facts in five open rollouts came, so many at a time.
func BenchmarkSize(b *testing.B) {
	for name, order := range orders() {
		for _, atOnce := range []int{1, 100, 5000} {
			b.Run(fmt.Sprintf("%s/%d at once", name, atOnce), func(b *testing.B) {
				records := rolledOut(1000, 5)
				order(records)
				for b.Loop() {
					b.ReportMetric(float64(filled(b, records, atOnce)), "file-bytes")
				}
			})
		}
	}
}
