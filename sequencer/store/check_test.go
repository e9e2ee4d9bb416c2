// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/lattice/latticetest"
	"github.com/flotilla-dev/flotilla/sequencer/store"
)

// plain records, each of which passes every check: registers that nobody reads, and facts.
func plain(t testing.TB, n int) (all []fleet.Record) {
	t.Helper()
	for i := range n {
		r := fleet.Record{Fleet: fleet.Digest{1}, Kind: fleet.KindRegister, Key: string(rune('a' + i)), Epoch: uint64(3 + i/4), Seq: uint64(i)}
		if i%2 == 0 {
			fact := fleet.Fact{Plan: fleet.Digest{byte(i)}, Kind: fleet.Started}
			r.Kind, r.Key, r.Body = fleet.KindFact, fleet.FactKey(fact.Plan, fact.Kind), fact.Encode()
		}
		must(t, r.Sign(latticetest.Key(i%3)))
		all = append(all, r)
	}
	return all
}

func checked(t testing.TB, path string) store.Report {
	t.Helper()
	before, err := os.ReadFile(path)
	must(t, err)
	r, err := store.Check(path, fleet.Digest{1})
	must(t, err)
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the check wrote to the file, %v", err)
	}
	return r
}

func whats(r store.Report) (all []string) {
	for _, f := range r.Findings {
		if f.What == "" || f.Where == "" || f.Do == "" {
			all = append(all, "a finding that does not say everything")
		}
		all = append(all, f.What)
	}
	return all
}

func TestCheckSound(t *testing.T) {
	t.Parallel()
	path := file(t)
	s := open(t, path)
	records := plain(t, 12)
	must(t, s.Put(records...))
	_, err := s.PutBlob([]byte("twelve bytes"))
	must(t, err)
	must(t, s.SetMeta("mesh.epoch", []byte{1}))
	must(t, s.Quarantine(records[0].Digest()))
	must(t, s.Suspect(digests(2)))
	if _, err := store.Check(path, fleet.Digest{}); !errors.Is(err, store.ErrBusy) || !strings.Contains(err.Error(), "stop the agent") {
		t.Errorf("checking a file in use: %v", err)
	}
	must(t, s.Close())

	r := checked(t, path)
	if len(r.Findings) != 0 || r.More != 0 || r.Records != 12 || r.Schema != store.Schema || r.Blobs != 1 || r.BlobBytes != 12 ||
		r.Quarantined != 1 || r.Suspects != 2 || r.Unreadable != 0 || !slices.Equal(r.Meta, []string{"mesh.epoch"}) {
		t.Errorf("%+v", r)
	}
	if want := []store.KindCount{{Kind: "fact", Records: 6}, {Kind: "register", Records: 6}}; !slices.Equal(r.Kinds, want) {
		t.Errorf("kinds %+v", r.Kinds)
	}
	if want := []store.FleetCount{{Fleet: fleet.Digest{1}.String(), Records: 12}}; !slices.Equal(r.Fleets, want) {
		t.Errorf("fleets %+v", r.Fleets)
	}
	newest := map[fleet.MemberID][2]uint64{records[9].Writer: {5, 9}, records[10].Writer: {5, 10}, records[11].Writer: {5, 11}}
	if len(r.Writers) != 3 {
		t.Errorf("writers %+v", r.Writers)
	}
	for _, w := range r.Writers {
		if w.Records != 4 || newest[w.Writer] != [2]uint64{w.Epoch, w.Seq} {
			t.Errorf("writer %+v, newest %v", w, newest[w.Writer])
		}
	}
	if r, err := store.Check(path, fleet.Digest{2}); err != nil || len(r.Findings) != 12 || !strings.Contains(r.Findings[0].Do, "--fleet") {
		t.Errorf("as another fleet: %+v %v", r.Findings, err)
	}
}

// first entry of a bucket, of the caller's own.
func first(b *bbolt.Bucket) (key, value []byte) {
	key, value = b.Cursor().First()
	return bytes.Clone(key), bytes.Clone(value)
}

func TestCheckFinds(t *testing.T) {
	records := plain(t, 6)
	forged := records[2]
	forged.Sig = bytes.Repeat([]byte{7}, 64)
	twice := fleet.Record{Fleet: fleet.Digest{1}, Kind: fleet.KindRegister, Key: "twice", Epoch: records[3].Epoch, Seq: records[3].Seq}
	must(t, twice.Sign(latticetest.Key(0)))
	unfit := fleet.Record{Fleet: fleet.Digest{1}, Kind: fleet.KindFact, Key: "no fact", Epoch: 9, Body: []byte{1, 2}}
	must(t, unfit.Sign(latticetest.Key(0)))
	foreign := fleet.Record{Fleet: fleet.Digest{9}, Kind: fleet.KindRegister, Key: "k", Epoch: 9}
	must(t, foreign.Sign(latticetest.Key(0)))
	in := func(bucket string, change func(*bbolt.Bucket) error) func(*testing.T, string) {
		return func(t *testing.T, path string) { edit(t, path, bucket, change) }
	}
	put := func(r fleet.Record) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			s := open(t, path)
			if r.Kind == forged.Kind && r.Key == forged.Key {
				must(t, s.Drop(records[2]))
			}
			must(t, s.Put(r))
			must(t, s.Close())
		}
	}
	for name, c := range map[string]struct {
		damage func(*testing.T, string)
		want   string
	}{
		"checksum": {in("packed", func(b *bbolt.Bucket) error {
			at := placeOf(t, b, records[0])
			value := bytes.Clone(b.Get(at))
			value[len(value)-1] ^= 1
			return b.Put(at, value)
		}), "wrong checksum"},
		"place": {in("packed", func(b *bbolt.Bucket) error {
			at := placeOf(t, b, records[1])
			return b.Put(append(bytes.Clone(at), " of another"...), bytes.Clone(b.Get(at)))
		}), "wrong checksum"},
		"no place": {in("packed", func(b *bbolt.Bucket) error {
			return b.Put([]byte{9, 9}, bytes.Clone(b.Get(placeOf(t, b, records[1]))))
		}), "no place"},
		"form": {in("packed", func(b *bbolt.Bucket) error { return b.Put([]byte("x"), []byte("abc")) }), "3 bytes"},
		"one copy of a name": {in("names", func(b *bbolt.Bucket) error {
			key, name := first(b)
			name[9] ^= 1
			return b.Put(key, name)
		}), "1 values that records use: one of two"},
		"signature": {put(forged), "signature does not match"}, "body": {put(unfit), "malformed"},
		"fleet": {put(foreign), "of another fleet"}, "equivocation": {put(twice), "in one position"},
		"blob": {in("blobs", func(b *bbolt.Bucket) error { return b.Put(make([]byte, 32), []byte("abc")) }), "does not have its digest"},
		"meta": {in("meta", func(b *bbolt.Bucket) error { return b.Put([]byte("mesh.epoch"), []byte{1, 2, 3, 4, 5}) }), "checksum"},
		"pages": {func(t *testing.T, path string) {
			patch(t, path, 3*pageSize, 0xff)
			patch(t, path, 4*pageSize, 0xff)
			patch(t, path, 5*pageSize, 0xff)
		}, "page"},
		"meta page": {func(t *testing.T, path string) { patch(t, path, 20, 0) }, "meta pages"},
		"cut":       {func(t *testing.T, path string) { must(t, os.Truncate(path, int64(pageSize))) }, "damaged"},
		"empty":     {func(t *testing.T, path string) { must(t, os.Truncate(path, 0)) }, "empty"},
		"layout": {func(t *testing.T, path string) {
			db, err := bbolt.Open(path, 0o600, nil)
			must(t, err)
			must(t, db.Update(func(tx *bbolt.Tx) error { return tx.DeleteBucket([]byte("blobs")) }))
			must(t, db.Close())
		}, "no bucket"},
	} {
		t.Run(name, func(t *testing.T) {
			path := file(t)
			s := open(t, path)
			must(t, s.Put(records...))
			must(t, s.SetMeta("mesh.epoch", []byte{1}))
			must(t, s.Close())
			c.damage(t, path)
			r := checked(t, path)
			if got := whats(r); len(got) != 1 || !strings.Contains(got[0], c.want) {
				t.Errorf("findings %q, want one with %q", got, c.want)
			}
		})
	}
}

func TestCheckCannotRead(t *testing.T) {
	folder := t.TempDir()
	newer := filepath.Join(folder, "newer.db")
	must(t, open(t, newer).Close())
	edit(t, newer, "meta", func(b *bbolt.Bucket) error { return b.Put([]byte("schema"), []byte("99")) })
	for path, want := range map[string]error{
		filepath.Join(folder, "none.db"): os.ErrNotExist, newer: store.ErrSchema, folder: nil,
	} {
		r, err := store.Check(path, fleet.Digest{})
		if err == nil || want != nil && !errors.Is(err, want) || r.Findings != nil {
			t.Errorf("%s: %v, %+v", path, err, r)
		}
	}
}

func TestCheckOlderSchemas(t *testing.T) {
	r, err := store.Check(filepath.Join("testdata", "schema-1.db"), fleet.Digest{})
	must(t, err)
	if r.Schema != 1 || r.Records != 59 || r.Unreadable != 1 || len(r.Meta) != 2 || len(r.Findings) != 0 {
		t.Errorf("%+v", r)
	}
	// The one of schema 2 has one record more that does not read back, and ten facts that are none.
	r, err = store.Check(filepath.Join("testdata", "schema-2.db"), fleet.Digest{1})
	must(t, err)
	if r.Schema != 2 || r.Records != 68 || r.Unreadable != 1 || r.Quarantined != 1 || len(r.Meta) != 2 || !strings.Contains(whats(r)[0], "checksum") {
		t.Errorf("%+v", r)
	}
}

func TestCheckIsBounded(t *testing.T) {
	path := file(t)
	must(t, open(t, path).Close())
	edit(t, path, "packed", func(b *bbolt.Bucket) error {
		for i := range 300 {
			must(t, b.Put([]byte{byte(i), byte(i >> 8)}, nil))
		}
		return nil
	})
	if r := checked(t, path); len(r.Findings) != store.MaxFindings || r.More != 200 {
		t.Errorf("%d findings and %d more, want 100 and 200", len(r.Findings), r.More)
	}
}

// TestCheckAgreesWithOpen: whatever bits are wrong, the check says sound where Open and Load lose nothing, and finds
// something where they do.
func TestCheckAgreesWithOpen(t *testing.T) {
	t.Parallel()
	path := file(t)
	s := open(t, path)
	must(t, s.Put(plain(t, 12)...))
	must(t, s.Put(plain(t, 20)...))
	must(t, s.Close())
	content, err := os.ReadFile(path)
	must(t, err)
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 3))
	found := 0
	for range 100 {
		damaged := bytes.Clone(content)
		at := random.IntN(len(damaged))
		if random.IntN(2) == 0 {
			at = at/pageSize*pageSize + random.IntN(80)
		}
		damaged[at] ^= 1 << random.IntN(8)
		path := file(t)
		must(t, os.WriteFile(path, damaged, 0o600))
		report := checked(t, path)
		s := open(t, path)
		set, bad := load(t, s)
		loses := s.Opened().Recovered || s.Opened().Behind || s.Opened().Mended > 0 || bad > 0
		if loses != (len(report.Findings) > 0) || set.Len() != report.Records {
			t.Errorf("seed %d, byte %d: opened %+v, %d bad, %d records; found %q, %d records",
				seed, at, s.Opened(), bad, set.Len(), whats(report), report.Records)
		}
		if loses {
			found++
		}
		must(t, s.Close())
	}
	if found == 0 {
		t.Error("nothing was ever damaged")
	}
}
