// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/store"
)

// TestSchema1 opens a file that schema 1 wrote: 60 records, of which one was put into quarantine, a blob, and two values.
func TestSchema1(t *testing.T) {
	golden, err := os.ReadFile(filepath.Join("testdata", "schema-1.db"))
	must(t, err)
	path := file(t)
	must(t, os.WriteFile(path, golden, 0o600))
	for _, start := range []string{"as it was", "migrated"} {
		s := open(t, path)
		set, quarantined := load(t, s)
		if set.Len() != 59 || quarantined != 0 || s.Opened() != (store.Opened{}) {
			t.Errorf("%s: %d records, %d quarantined, opened %+v", start, set.Len(), quarantined, s.Opened())
		}
		for r := range set.All() {
			must(t, r.Verify(fleet.Digest{1}))
		}
		if content, ok, err := s.Blob(fleet.BlobDigest([]byte("body of a seal"))); !ok || err != nil {
			t.Errorf("%s: blob %q %v", start, content, err)
		}
		for key, want := range map[string]string{"mesh.epoch": "\x00\x00\x00\x00\x00\x00\x00\x07", "agent.roster": "[]"} {
			if value, err := s.Meta(key); err != nil || string(value) != want {
				t.Errorf("%s: %s is %q %v", start, key, value, err)
			}
		}
		must(t, s.Quarantine(fleet.Digest{1}))
		must(t, s.Close())
	}
	edit(t, path, "meta", func(b *bbolt.Bucket) error {
		if got, want := string(b.Get([]byte("schema"))), fmt.Sprint(store.Schema); got != want {
			t.Errorf("schema %s, want %s", got, want)
		}
		return nil
	})
}

func TestNewerSchemaIsRefused(t *testing.T) {
	path := file(t)
	must(t, open(t, path).Close())
	edit(t, path, "meta", func(b *bbolt.Bucket) error {
		return b.Put([]byte("schema"), fmt.Append(nil, store.Schema+1))
	})
	before, err := os.ReadFile(path)
	must(t, err)
	_, err = store.Open(path)
	if !errors.Is(err, store.ErrSchema) || fleet.KindOf(err) != fleet.Terminal {
		t.Fatalf("newer schema: %v", err)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(after, before) {
		t.Error("a newer file was written to")
	}
	if others, _ := filepath.Glob(path + ".*"); len(others) > 0 {
		t.Errorf("beside a newer file: %v", others)
	}
}

func TestRottenMetaWasNeverSet(t *testing.T) {
	path := file(t)
	s := open(t, path)
	must(t, s.SetMeta("epoch", []byte{0, 0, 0, 7}))
	must(t, s.SetMeta("empty", nil))
	if value, err := s.Meta("empty"); err != nil || value == nil || len(value) != 0 {
		t.Errorf("an empty value is %v %v", value, err)
	}
	must(t, s.Close())
	edit(t, path, "meta", func(b *bbolt.Bucket) error {
		value := bytes.Clone(b.Get([]byte("epoch")))
		value[4] ^= 0x80
		return errors.Join(b.Put([]byte("epoch"), value), b.Put([]byte("short"), []byte("abc")))
	})
	s = open(t, path)
	for _, key := range []string{"epoch", "short"} {
		if value, err := s.Meta(key); value != nil || err != nil {
			t.Errorf("%s reads %v %v", key, value, err)
		}
	}
	must(t, s.SetMeta("epoch", []byte{8}))
	if value, _ := s.Meta("epoch"); string(value) != "\x08" {
		t.Errorf("epoch %v after it was set anew", value)
	}
}
