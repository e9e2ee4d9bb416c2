// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
	"github.com/flotilla-dev/flotilla/sequencer/lattice/latticetest"
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

// ofSchema2 are the records in schema-2.db: of the first and the eighth a bit was flipped, one before it was opened again
// and one after it.
func ofSchema2(t testing.TB) (all []fleet.Record) {
	t.Helper()
	plan, shop := fleet.DigestOf("plan of schema 2"), fleet.RolloutName{Namespace: "shop", Name: "web"}
	for i := range 70 {
		r := fleet.Record{Fleet: fleet.Digest{1}, Epoch: 1_795_000_000<<30 | uint64(i), Seq: uint64(i + 1), Kind: fleet.KindFact}
		switch i % 7 {
		case 3:
			name := fleet.RolloutName{Namespace: "shop", Name: fmt.Sprint("web-", i)}
			body, err := fleet.Status{Rollout: name, Phase: "Waiting", Time: 1_795_000_000}.Encode()
			must(t, err)
			r.Kind, r.Key, r.Body = fleet.KindRegister, fleet.StatusKey(name), body
		case 4:
			r.Kind, r.Key = fleet.KindCommand, fmt.Sprint("shop/web/Pause/", i)
			r.Body = fleet.Command{Rollout: shop, Verb: fleet.Pause, Reason: "why", Time: 1}.Encode()
		case 5:
			r.Kind, r.Key, r.Body = 77, fmt.Sprint("of a later version ", i), bytes.Repeat([]byte{byte(i)}, i)
		case 6: // a milestone of a later version
			r.Key, r.Body = fleet.FactKey(plan, 200), []byte{2, 3, 4}
		default:
			f := fleet.Fact{Plan: plan, Kind: fleet.FactKind(1 + i%7), Time: 1_795_000_000 + int64(i)}
			if i%2 == 1 {
				f.Detail = fmt.Sprint("attempt ", i)
			}
			r.Key, r.Body = fleet.FactKey(f.Plan, f.Kind), f.Encode()
		}
		must(t, r.Sign(latticetest.Key(i/7)))
		all = append(all, r)
	}
	return all
}

// isSchema2 says that a store has all that schema-2.db had.
func isSchema2(t testing.TB, what string, s *store.Store, wantBad int) {
	t.Helper()
	set, bad := load(t, s)
	if set.Len() != 68 || bad != wantBad || s.Opened() != (store.Opened{}) {
		t.Errorf("%s: %d records, %d bad, opened %+v", what, set.Len(), bad, s.Opened())
	}
	all := ofSchema2(t)
	for i := range all {
		held, ok := set.Get(all[i].Writer, all[i].Kind, all[i].Key)
		if ok != (i != 0 && i != 7) || ok && !bytes.Equal(held.Encode(), all[i].Encode()) {
			t.Errorf("%s: %s %q: held %v, %x", what, all[i].Kind, all[i].Key, ok, held.Encode())
		}
	}
	poison, err := s.Quarantined()
	if err != nil || len(poison) != 1 || !poison[all[4].Digest()] {
		t.Errorf("%s: %d in quarantine %v", what, len(poison), err)
	}
	if content, ok, err := s.Blob(fleet.BlobDigest([]byte("body of a seal"))); !ok || err != nil {
		t.Errorf("%s: blob %q %v", what, content, err)
	}
	for key, want := range map[string]string{"mesh.epoch": "\x00\x00\x00\x00\x00\x00\x00\x07", "agent.roster": "[]"} {
		if value, err := s.Meta(key); err != nil || string(value) != want {
			t.Errorf("%s: %s is %q %v", what, key, value, err)
		}
	}
}

func TestSchema2(t *testing.T) {
	golden, err := os.ReadFile(filepath.Join("testdata", "schema-2.db"))
	must(t, err)
	path := file(t)
	must(t, os.WriteFile(path, golden, 0o600))
	for _, start := range []string{"as it was", "migrated"} {
		s := open(t, path)
		bad := 0
		if start == "as it was" {
			bad = 1
		}
		isSchema2(t, start, s, bad)
		must(t, s.Close())
	}
	if r := checked(t, path); r.Schema != store.Schema || r.Records != 68 || r.Unreadable != 2 || r.Quarantined != 1 {
		t.Errorf("%+v", r)
	}
}

// TestCrashWhileMigrating: whatever of the new pages is on the disk, as long as the page that says so is not, the file is
// what it was, and is brought up to this schema at the next start.
func TestCrashWhileMigrating(t *testing.T) {
	t.Parallel()
	before, err := os.ReadFile(filepath.Join("testdata", "schema-2.db"))
	must(t, err)
	path := file(t)
	must(t, os.WriteFile(path, before, 0o600))
	must(t, open(t, path).Close())
	after, err := os.ReadFile(path)
	must(t, err)
	seed := seedOf()
	random := rand.New(rand.NewPCG(seed, 4))
	for i := range 30 {
		mixed := bytes.Clone(after)
		copy(mixed, before[:2*pageSize]) // the pages that say what is newest
		for page := 2 * pageSize; page < len(mixed); page += pageSize {
			if i > 0 && random.IntN(2) == 0 {
				clear(mixed[page : page+pageSize])
				if page < len(before) {
					copy(mixed[page:page+pageSize], before[page:])
				}
			}
		}
		path := file(t)
		must(t, os.WriteFile(path, mixed, 0o600))
		s := open(t, path)
		isSchema2(t, fmt.Sprintf("seed %d, crash %d", seed, i), s, 1)
		must(t, s.Close())
	}
}

// TestMigratedFileIsCompacted: a large file of schema 2 is small when it was opened, and holds the same.
func TestMigratedFileIsCompacted(t *testing.T) {
	t.Parallel()
	path := file(t)
	records := rolledOut(1000, 5)
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoSync: true})
	must(t, err)
	must(t, db.Update(func(tx *bbolt.Tx) error {
		for _, name := range []string{"records", "blobs", "meta", "quarantine", "poison"} {
			if _, err := tx.CreateBucket([]byte(name)); err != nil {
				return err
			}
		}
		return tx.Bucket([]byte("meta")).Put([]byte("schema"), []byte("2"))
	}))
	want := lattice.New()
	for part := range slices.Chunk(records, 1000) {
		must(t, db.Update(func(tx *bbolt.Tx) error {
			for _, r := range part {
				want.Add(r)
				at, wire := lattice.Position(r.Writer, r.Kind, r.Key), r.Encode()
				sum := crc32.Checksum(wire, crc32.MakeTable(crc32.Castagnoli))
				if err := tx.Bucket([]byte("records")).Put(at[:], append(binary.BigEndian.AppendUint32(nil, sum), wire...)); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	must(t, db.Close())
	s := open(t, path)
	set, bad := load(t, s)
	if set.Root() != want.Root() || bad != 0 {
		t.Errorf("%d records, %d bad, want %d", set.Len(), bad, want.Len())
	}
	info, err := os.Stat(path)
	if err != nil || info.Size() > 5_000_000 || s.Opened().Compacted < 5_000_000 {
		t.Errorf("%d bytes, opened %+v, %v", info.Size(), s.Opened(), err)
	}
	t.Logf("%d bytes after %d were freed", info.Size(), s.Opened().Compacted)
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
