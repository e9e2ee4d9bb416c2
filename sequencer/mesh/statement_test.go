// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/store"
)

// transactions is how many a store's file has seen.
func transactions(t *testing.T, path string) (count int) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.View(func(tx *bbolt.Tx) error { count = tx.ID(); return nil }); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return count
}

// TestWritersShareTransactions: who comes while the disk is busy waits for one transaction together with the others who
// came; each gets its own answer, and all of it is on disk.
func TestWritersShareTransactions(t *testing.T) {
	const writers = 50
	path := filepath.Join(t.TempDir(), "state.db")
	var on *store.Store
	open := func() *Node {
		s, err := store.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		on = s
		return nodeOf(t, 0, rosterOf("lab"), func(c *Config) { c.Store = s })
	}
	closed := func() {
		if err := on.Close(); err != nil {
			t.Fatal(err)
		}
	}
	n := open()
	earlier, err := n.Prepare(fleet.KindRegister, "earlier", []byte("of another life"))
	if err != nil {
		t.Fatal(err)
	}
	closed()
	before := transactions(t, path)
	n = open()

	said, failed := make([]fleet.Record, writers), make([]error, writers)
	var working sync.WaitGroup
	n.commitMu.Lock() // a transaction on its way to the disk
	for i := range writers {
		working.Go(func() {
			switch i {
			case 0:
				failed[i] = n.Adopt(earlier)
			case 1, 2:
				said[i], failed[i] = n.Publish(fleet.KindRegister, "same", []byte("body"))
			case 3:
				said[i], failed[i] = n.Publish(fleet.KindRegister, "large", make([]byte, 1<<20))
			default:
				said[i], failed[i] = n.Publish(fleet.KindRegister, fmt.Sprint("key", i), []byte("body"))
			}
		})
	}
	waiting := 0
	for deadline := time.Now().Add(time.Minute); waiting < writers && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		n.stated.mu.Lock()
		waiting = len(n.stated.items)
		n.stated.mu.Unlock()
	}
	n.commitMu.Unlock()
	working.Wait()

	positions := map[uint64]bool{}
	for i, err := range failed {
		if (i == 3) != (err != nil) {
			t.Errorf("writer %d: %v", i, err)
		}
		if i > 3 && (positions[said[i].Seq] || said[i].Key != fmt.Sprint("key", i)) {
			t.Errorf("writer %d was given %q at %d", i, said[i].Key, said[i].Seq)
		}
		positions[said[i].Seq] = true
	}
	if said[1].Digest() != said[2].Digest() {
		t.Error("what was said twice was written twice")
	}
	root := n.Root()
	closed()
	if took := transactions(t, path) - before; took >= writers/2 {
		t.Errorf("%d writers took %d transactions", writers, took)
	}
	if n = open(); n.Root() != root {
		t.Error("the disk has something else")
	}
	closed()
}
