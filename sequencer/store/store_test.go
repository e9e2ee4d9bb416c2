// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
	"go.uber.org/goleak"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
	"github.com/flotilla-dev/flotilla/sequencer/lattice/latticetest"
	"github.com/flotilla-dev/flotilla/sequencer/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func file(t testing.TB) string { return filepath.Join(t.TempDir(), "state.db") }

func open(t testing.TB, path string) *store.Store {
	t.Helper()
	s, err := store.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func load(t testing.TB, s *store.Store) (*lattice.Set, int) {
	t.Helper()
	set, quarantined, err := s.Load()
	if err != nil {
		t.Fatal(err)
	}
	return set, quarantined
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func signed(t testing.TB, kind fleet.Kind, key string, seq uint64) fleet.Record {
	t.Helper()
	r := fleet.Record{Fleet: fleet.Digest{1}, Kind: kind, Key: key, Epoch: 1, Seq: seq, Body: bytes.Repeat([]byte("b"), 200)}
	must(t, r.Sign(latticetest.Key(0)))
	return r
}

func many(t testing.TB, n int) []fleet.Record {
	t.Helper()
	var all []fleet.Record
	for i := range n {
		r := signed(t, fleet.KindRegister, fmt.Sprint("key", i), uint64(i))
		must(t, r.Sign(latticetest.Key(i/500))) // within every writer's quota
		all = append(all, r)
	}
	return all
}

func TestRestartKeepsEverything(t *testing.T) {
	t.Parallel()
	path := file(t)
	s := open(t, path)
	want := lattice.New()
	for _, r := range many(t, 300) {
		want.Add(r)
		must(t, s.Put(r))
	}
	digest, err := s.PutBlob([]byte("body of a seal"))
	must(t, err)
	must(t, s.SetMeta("epoch", []byte("7")))
	must(t, s.Close())

	s = open(t, path)
	if s.Opened().Recovered {
		t.Errorf("recovered a sound file: %s", s.Opened().Detail)
	}
	set, quarantined := load(t, s)
	if set.Root() != want.Root() || quarantined != 0 {
		t.Errorf("%d records, %d quarantined, want %d and none", set.Len(), quarantined, want.Len())
	}
	if content, ok, err := s.Blob(digest); err != nil || !ok || string(content) != "body of a seal" {
		t.Errorf("blob: %q %v %v", content, ok, err)
	}
	if value, err := s.Meta("epoch"); err != nil || string(value) != "7" {
		t.Errorf("meta: %q %v", value, err)
	}
	if value, err := s.Meta("never"); err != nil || value != nil {
		t.Errorf("a value never set is %q %v", value, err)
	}
	if _, ok, err := s.Blob(fleet.Digest{9}); err != nil || ok {
		t.Errorf("a blob never put: %v %v", ok, err)
	}
}

func TestPutJoins(t *testing.T) {
	s := open(t, file(t))
	newer, older := signed(t, fleet.KindRegister, "k", 5), signed(t, fleet.KindRegister, "k", 4)
	first, second := signed(t, fleet.KindFact, "k", 1), signed(t, fleet.KindFact, "k", 2)
	must(t, s.Put(newer, second))
	must(t, s.Put(older, first))
	set, _ := load(t, s)
	if r, _ := set.Get(newer.Writer, fleet.KindRegister, "k"); r.Seq != 5 {
		t.Errorf("register at seq %d after an older one was put", r.Seq)
	}
	if r, _ := set.Get(newer.Writer, fleet.KindFact, "k"); r.Seq != 1 {
		t.Errorf("milestone at seq %d after the first one was put", r.Seq)
	}
}

func TestBlobBounds(t *testing.T) {
	s := open(t, file(t))
	if _, err := s.PutBlob(make([]byte, store.MaxBlob)); err != nil {
		t.Errorf("the largest blob: %v", err)
	}
	_, err := s.PutBlob(make([]byte, store.MaxBlob+1))
	if !errors.Is(err, fleet.ErrTooLarge) || fleet.KindOf(err) != fleet.Terminal {
		t.Errorf("a blob too large: %v", err)
	}
	empty, err := s.PutBlob(nil)
	must(t, err)
	if content, ok, err := s.Blob(empty); err != nil || !ok || len(content) != 0 {
		t.Errorf("the empty blob: %q %v %v", content, ok, err)
	}
}

// edit changes the file behind the store's back.
func edit(t testing.TB, path, bucket string, change func(*bbolt.Bucket) error) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	must(t, err)
	must(t, db.Update(func(tx *bbolt.Tx) error { return change(tx.Bucket([]byte(bucket))) }))
	must(t, db.Close())
}

// placeOf a record in the file: where its signature is.
func placeOf(t testing.TB, b *bbolt.Bucket, r fleet.Record) (at []byte) {
	t.Helper()
	must(t, b.ForEach(func(key, value []byte) error {
		if bytes.HasSuffix(value, r.Sig) {
			at = bytes.Clone(key)
		}
		return nil
	}))
	if at == nil {
		t.Fatalf("%s %q is not in the file", r.Kind, r.Key)
	}
	return at
}

func TestWhatDoesNotDecodeIsQuarantined(t *testing.T) {
	path := file(t)
	s := open(t, path)
	records := many(t, 3)
	must(t, s.Put(records...))
	must(t, s.Close())
	edit(t, path, "packed", func(b *bbolt.Bucket) error {
		flipped, misplaced := placeOf(t, b, records[0]), placeOf(t, b, records[1])
		value := bytes.Clone(b.Get(flipped))
		value[100] ^= 1 // in the body: the record still decodes
		return errors.Join(
			b.Put(flipped, value),
			b.Put(append(bytes.Clone(misplaced), 'x'), bytes.Clone(b.Get(misplaced))),
			b.Put([]byte("short"), []byte("abc")),
		)
	})

	s = open(t, path)
	set, quarantined := load(t, s)
	if set.Len() != 2 || quarantined != 3 {
		t.Errorf("%d records, %d quarantined, want 2 and 3", set.Len(), quarantined)
	}
	if set, quarantined = load(t, s); set.Len() != 2 || quarantined != 0 {
		t.Errorf("%d records, %d quarantined again, want 2 and none", set.Len(), quarantined)
	}
	must(t, s.Put(records[0]))
	if set, _ = load(t, s); set.Len() != 3 {
		t.Errorf("the record does not come back: %d", set.Len())
	}
	must(t, s.Close())
	edit(t, path, "quarantine", func(b *bbolt.Bucket) error {
		if n := b.Stats().KeyN; n != 2 {
			t.Errorf("%d in quarantine, want the 2 that did not come back", n)
		}
		return nil
	})
}

// TestWhatCameAgainIsNotSetApart: a command that did not read back, came again and was retired is not missing. Nor is one
// that a file of before says it still is.
func TestWhatCameAgainIsNotSetApart(t *testing.T) {
	for _, before := range []bool{false, true} {
		path := file(t)
		s := open(t, path)
		stop := signed(t, fleet.KindCommand, "shop/web/Pause/1", 1)
		must(t, s.Put(stop))
		must(t, s.Close())
		var at, damaged []byte
		edit(t, path, "packed", func(b *bbolt.Bucket) error {
			at = placeOf(t, b, stop)
			damaged = bytes.Clone(b.Get(at))
			damaged[len(damaged)-1] ^= 1
			return b.Put(at, damaged)
		})
		s = open(t, path)
		heads := func() int {
			t.Helper()
			all, err := s.SetApart()
			must(t, err)
			return len(all)
		}
		if _, bad := load(t, s); bad != 1 || heads() != 1 {
			t.Fatalf("%d bad, %d heads", bad, heads())
		}
		must(t, s.Put(stop))
		if n := heads(); n != 0 {
			t.Errorf("%d heads of what came again", n)
		}
		if before {
			must(t, s.Close())
			edit(t, path, "quarantine", func(b *bbolt.Bucket) error { return b.Put(at, damaged) })
			s = open(t, path)
		}
		must(t, s.Drop(stop))
		must(t, s.Close())
		s = open(t, path)
		if set, bad := load(t, s); set.Len()+bad+heads() != 0 {
			t.Errorf("%d records, %d bad, %d heads of what was retired", set.Len(), bad, heads())
		}
		must(t, s.Close())
		edit(t, path, "names", func(b *bbolt.Bucket) error {
			if n := b.Stats().KeyN; n != 0 {
				t.Errorf("%d names that nothing uses", n)
			}
			return nil
		})
	}
}

func TestRottenBlobIsAbsent(t *testing.T) {
	path := file(t)
	s := open(t, path)
	digest, err := s.PutBlob([]byte("content"))
	must(t, err)
	must(t, s.Close())
	edit(t, path, "blobs", func(b *bbolt.Bucket) error { return b.Put(digest[:], []byte("c0ntent")) })
	s = open(t, path)
	if content, ok, err := s.Blob(digest); ok || err != nil {
		t.Errorf("rotten blob is given out: %q %v", content, err)
	}
	_, err = s.PutBlob([]byte("content"))
	must(t, err)
	if _, ok, _ := s.Blob(digest); !ok {
		t.Error("a rotten blob cannot be put anew")
	}
}

func TestSchemaKeyIsTheStores(t *testing.T) {
	if err := open(t, file(t)).SetMeta("schema", []byte("9")); fleet.KindOf(err) != fleet.Terminal {
		t.Fatalf("setting the schema: %v", err)
	}
}

func TestBusy(t *testing.T) {
	t.Parallel()
	path := file(t)
	open(t, path)
	if _, err := store.Open(path); !errors.Is(err, store.ErrBusy) {
		t.Fatalf("second opening: %v", err)
	}
	if others, _ := filepath.Glob(path + ".corrupt-*"); len(others) > 0 {
		t.Error("a file in use was moved aside")
	}
}

func TestFolderMissing(t *testing.T) {
	_, err := store.Open(filepath.Join(t.TempDir(), "no", "state.db"))
	if !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("missing folder: %v", err)
	}
}

// sound writes a file with enough in it that its trees have branches.
func sound(t testing.TB) (content []byte, digests map[fleet.Digest]bool) {
	t.Helper()
	path := file(t)
	s := open(t, path)
	records := many(t, 400)
	digests = map[fleet.Digest]bool{}
	for i := range records {
		digests[records[i].Digest()] = true
	}
	for batch := range 8 { // several transactions leave free pages behind
		must(t, s.Put(records[batch*50:(batch+1)*50]...))
	}
	_, err := s.PutBlob(bytes.Repeat([]byte("blob"), 5000))
	must(t, err)
	must(t, s.Close())
	content, err = os.ReadFile(path)
	must(t, err)
	return content, digests
}

// TestDamagedFile: whatever happens to the file, Open gives a store that works, and never a record that
// was not put.
func TestDamagedFile(t *testing.T) {
	t.Parallel()
	content, digests := sound(t)
	type damage struct {
		name string
		do   func([]byte) []byte
	}
	damages := []damage{
		{"meta pages zeroed", func(b []byte) []byte { clear(b[:8192]); return b }},
		{"all zeroes", func(b []byte) []byte { clear(b); return b }},
		{"not bbolt", func([]byte) []byte { return []byte("hello") }},
		{"a quarter", func(b []byte) []byte { return b[:len(b)/4] }},
		{"last page lost", func(b []byte) []byte { return b[:len(b)-4096] }},
		{"meta only", func(b []byte) []byte { return b[:8192] }},
	}
	recovered := 0
	for _, d := range damages {
		path := file(t)
		must(t, os.WriteFile(path, d.do(bytes.Clone(content)), 0o600))
		if survives(t, d.name, path, digests) {
			recovered++
		}
	}
	t.Logf("%d of %d damaged files were begun anew", recovered, len(damages))
	if recovered < 5 {
		t.Errorf("%d files were begun anew, want at least the five that are beyond reading", recovered)
	}
}

func survives(t *testing.T, name, path string, digests map[fleet.Digest]bool) (recovered bool) {
	t.Helper()
	s, err := store.Open(path)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return false
	}
	defer func() { _ = s.Close() }()
	set, _ := load(t, s)
	for r := range set.All() {
		if !digests[r.Digest()] {
			t.Errorf("%s: a record that nobody put", name)
		}
	}
	if err := s.Put(signed(t, fleet.KindFact, "after", 1)); err != nil {
		t.Errorf("%s: put: %v", name, err)
	}
	if !s.Opened().Recovered {
		return false
	}
	if _, err := os.Stat(path + ".corrupt-1"); err != nil || !strings.Contains(s.Opened().Detail, path+".corrupt-1") {
		t.Errorf("%s: the damaged file: %v; detail %q", name, err, s.Opened().Detail)
	}
	return true
}

// TestDamagedOften: each damaged file is kept under a name of its own, the last eight of them.
func TestDamagedOften(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state[1]*.db") // no pattern
	must(t, os.WriteFile(path+".corrupt-by-hand", nil, 0o600))
	for n := 1; n <= 12; n++ {
		must(t, os.WriteFile(path, bytes.Repeat([]byte{byte(n)}, 40_000), 0o600))
		must(t, open(t, path).Close())
		for k := 1; k <= n; k++ {
			kept, err := os.ReadFile(fmt.Sprintf("%s.corrupt-%d", path, k))
			if k <= n-8 && !errors.Is(err, os.ErrNotExist) || k > n-8 && (err != nil || kept[0] != byte(k)) {
				t.Fatalf("after %d: damaged file %d: %v", n, k, err)
			}
		}
	}
	if _, err := os.Stat(path + ".corrupt-by-hand"); err != nil {
		t.Error("what somebody else put there is gone")
	}
}

func BenchmarkPut(b *testing.B) {
	s := open(b, file(b))
	r := signed(b, fleet.KindRegister, "k", 1)
	for i := 0; b.Loop(); i++ {
		r.Seq = uint64(i + 2)
		must(b, s.Put(r))
	}
}

func BenchmarkLoad10k(b *testing.B) {
	path := file(b)
	s := open(b, path)
	must(b, s.Put(many(b, 10_000)...))
	must(b, s.Close())
	for b.Loop() {
		s, err := store.Open(path)
		must(b, err)
		set, _ := load(b, s)
		set.Root()
		must(b, s.Close())
	}
}

func BenchmarkVerify(b *testing.B) {
	r := signed(b, fleet.KindRegister, "k", 1)
	for b.Loop() {
		must(b, r.Verify(fleet.Digest{1}))
	}
}

func BenchmarkDigest(b *testing.B) {
	r := signed(b, fleet.KindRegister, "k", 1)
	for b.Loop() {
		r.Digest()
	}
}
