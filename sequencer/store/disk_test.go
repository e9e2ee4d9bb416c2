// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/store"
)

// update ten keys n times each in turn; each update is a transaction.
func update(t testing.TB, s *store.Store, from, n int) {
	t.Helper()
	r := fleet.Record{Fleet: fleet.Digest{1}, Kind: fleet.KindRegister, Epoch: 1, Sig: make([]byte, 64), Body: bytes.Repeat([]byte("b"), 500)}
	r.Writer = signed(t, fleet.KindRegister, "k", 1).Writer
	for i := range n {
		r.Key, r.Seq = fmt.Sprint("key", i%10), uint64(from+i)
		must(t, s.Put(r))
	}
}

// TestUpdatesTakeNoRoom: the disk holds what is said, not how often.
func TestUpdatesTakeNoRoom(t *testing.T) {
	t.Parallel()
	path := file(t)
	s := open(t, path)
	update(t, s, 0, 100)
	size := func() int64 {
		info, err := os.Stat(path)
		must(t, err)
		return info.Size()
	}
	before := size()
	update(t, s, 100, 200)
	if after := size(); after != before {
		t.Errorf("%d bytes after 100 updates of 10 keys, %d after 300", before, after)
	}
}

// BenchmarkUpdates100k reports the bytes on disk after 1,000 updates of ten keys and after 100,000.
func BenchmarkUpdates100k(b *testing.B) {
	for b.Loop() {
		path := file(b)
		s := open(b, path)
		for i, n := range []int{1000, 99_000} {
			update(b, s, i*1000, n)
			info, err := os.Stat(path)
			must(b, err)
			b.ReportMetric(float64(info.Size()), fmt.Sprintf("B_after_%d", i*1000+n))
		}
		must(b, s.Close())
	}
}

// TestManyOpenADamagedFile: one of them sets it aside and begins anew, and nobody sets that aside.
func TestManyOpenADamagedFile(t *testing.T) {
	path := file(t)
	must(t, os.WriteFile(path, bytes.Repeat([]byte("damaged"), 10_000), 0o600))
	const many = 8
	records := make([]fleet.Record, many)
	for i := range records {
		records[i] = signed(t, fleet.KindFact, fmt.Sprint(i), uint64(i))
	}
	var all sync.WaitGroup
	recovered := make(chan string, many)
	for i := range records {
		all.Go(func() {
			for {
				s, err := store.Open(path)
				if err != nil {
					continue // busy
				}
				if s.Opened().Recovered {
					recovered <- s.Opened().Detail
				}
				if err := s.Put(records[i]); err != nil {
					t.Error(err)
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				return
			}
		})
	}
	all.Wait()
	if set, _ := load(t, open(t, path)); set.Len() != many {
		t.Errorf("%d records, want %d: another's were set aside", set.Len(), many)
	}
	aside, _ := filepath.Glob(path + ".corrupt-*")
	if len(aside) != 1 || len(recovered) > 1 {
		t.Errorf("set aside: %v; %d say so", aside, len(recovered))
	}
}
