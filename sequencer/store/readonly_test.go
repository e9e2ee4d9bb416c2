// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// readOnly opens a file on a disk that takes no write any more.
func readOnly(t *testing.T, path string) *Store {
	t.Helper()
	file, err := os.Open(path)
	noError(t, err)
	db, _, err := openFile(path, file)
	noError(t, err)
	t.Cleanup(func() { noError(t, db.Close()) })
	return &Store{db: db}
}

// TestReadOnlyDisk: what is held can be read, and every write says that it failed and can be tried again.
func TestReadOnlyDisk(t *testing.T) {
	path, left := sparseFile(t)
	s := readOnly(t, path)
	noError(t, s.prepare())
	_, putErr := s.PutBlob([]byte("x"))
	for name, err := range map[string]error{
		"blob": putErr, "meta": s.SetMeta("k", nil), "quarantine": s.Quarantine(fleet.Digest{1}), "drop": s.DropBlobs(left...),
	} {
		if err == nil || fleet.KindOf(err) != fleet.Retryable {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, digest := range left {
		if _, ok, err := s.Blob(digest); !ok || err != nil {
			t.Errorf("blob %s: %v %v", digest.Short(), ok, err)
		}
	}
}

// TestSetApartOnAReadOnlyDisk: what does not read back is told, though it has to stay where it is.
func TestSetApartOnAReadOnlyDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	s, err := Open(path)
	noError(t, err)
	stop := fleet.Record{
		Fleet: fleet.Digest{1}, Writer: fleet.MemberIDOf(bytes.Repeat([]byte{7}, 32)), Kind: fleet.KindCommand, Key: "shop/web/Pause/1", Sig: make([]byte, signatureSize),
	}
	noError(t, s.Put(stop))
	at, _ := placeOf(&stop, s.names.number)
	noError(t, s.db.Update(func(tx *bbolt.Tx) error {
		packed := tx.Bucket(bucketPacked)
		damaged := bytes.Clone(packed.Get(at))
		damaged[0] ^= 1
		return packed.Put(at, damaged)
	}))
	noError(t, s.Close())
	s = readOnly(t, path)
	noError(t, s.prepare())
	for range 2 {
		if set, bad, err := s.Load(); err != nil || set.Len() != 0 || bad != 1 {
			t.Errorf("%d records, %d bad, %v", set.Len(), bad, err)
		}
		heads, err := s.SetApart()
		if err != nil || len(heads) != 1 || heads[0].Writer != stop.Writer || heads[0].Kind != stop.Kind || heads[0].Key != stop.Key {
			t.Errorf("heads %+v, %v", heads, err)
		}
	}
}

// TestMigrationIsOneTransaction: where it cannot be written the file stays of schema 1, and is not taken for damaged.
func TestMigrationIsOneTransaction(t *testing.T) {
	golden, err := os.ReadFile(filepath.Join("testdata", "schema-1.db"))
	noError(t, err)
	path := filepath.Join(t.TempDir(), "state.db")
	noError(t, os.WriteFile(path, golden, 0o600))
	if err := readOnly(t, path).prepare(); err == nil || fleet.KindOf(err) != fleet.Retryable {
		t.Errorf("migrating on a disk that takes no write: %v", err)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, golden) {
		t.Errorf("the file was changed, %v", err)
	}
}
