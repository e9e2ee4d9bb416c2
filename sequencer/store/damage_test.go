// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"bytes"
	"crypto/ed25519"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/lattice/latticetest"
	"github.com/flotilla-dev/flotilla/sequencer/store"
)

var flips = flag.Int("flips", 400, "bits that TestBitFlips flips, one after the other; 10,000 with FLOTILLA_SOAK=1")

// pageSize of the files here: that of the machine.
var pageSize = os.Getpagesize()

// truth is what was written into a file; whatever else comes out of it was made up by damage.
type truth struct {
	records map[fleet.Digest]bool
	blobs   map[fleet.Digest][]byte
	meta    map[string]string
}

// written fills a small file with something of everything, in several transactions.
func written(t testing.TB, path string) truth {
	t.Helper()
	s := open(t, path)
	known := truth{map[fleet.Digest]bool{}, map[fleet.Digest][]byte{}, map[string]string{}}
	records := many(t, 80)
	for i := range records {
		known.records[records[i].Digest()] = true
	}
	must(t, s.Put(records[:40]...))
	for i := range 6 {
		content := bytes.Repeat([]byte{byte(i)}, 100+i*1500)
		digest, err := s.PutBlob(content)
		must(t, err)
		known.blobs[digest] = content
		key := fmt.Sprint("key", i)
		known.meta[key] = fmt.Sprint("value of ", i)
		must(t, s.SetMeta(key, []byte(known.meta[key])))
	}
	must(t, s.Quarantine(records[0].Digest()))
	must(t, s.Put(records[40:]...))
	must(t, s.Close())
	return known
}

// outcome of opening a damaged file.
type outcome struct {
	records, bad int
	mended       int
	recovered    bool
	behind       bool
	changed      bool // the file is not the one that was put there any more
}

// opens the file whatever happened to it, and finds nothing in it that was not written. With a record it writes as well.
func (known truth) opens(t *testing.T, name, path string, writes *fleet.Record) (got outcome) {
	t.Helper()
	s, err := store.Open(path)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return outcome{changed: true}
	}
	set, bad := load(t, s)
	got = outcome{records: set.Len(), bad: bad, mended: s.Opened().Mended, recovered: s.Opened().Recovered, behind: s.Opened().Behind}
	got.changed = bad > 0 || got.recovered || got.mended > 0
	for r := range set.All() {
		if !known.records[r.Digest()] {
			t.Errorf("%s: a record that nobody put: %q", name, r.Key)
		}
	}
	blobs, err := s.Blobs()
	must(t, err)
	for _, digest := range blobs {
		if content, ok, err := s.Blob(digest); err != nil || ok && !bytes.Equal(content, known.blobs[digest]) {
			t.Errorf("%s: a blob of %d bytes that nobody put, %v", name, len(content), err)
		}
	}
	for key, want := range known.meta {
		if value, err := s.Meta(key); err != nil || value != nil && string(value) != want {
			t.Errorf("%s: %s is %q, %v", name, key, value, err)
		}
	}
	if writes != nil {
		must(t, s.Put(*writes))
		got.changed = true
	}
	must(t, s.Close())
	if aside, _ := filepath.Glob(path + ".corrupt-*"); len(aside) > 0 != got.recovered {
		t.Errorf("%s: recovered %v, and beside it lies %v", name, got.recovered, aside)
	}
	return got
}

// seedOf the damage: the same in every run, or a way that is rare would be missing in some; another one with FLOTILLA_SOAK.
func seedOf() uint64 {
	if os.Getenv("FLOTILLA_SOAK") != "" {
		return rand.Uint64()
	}
	return 1
}

// TestBitFlips: of a file with one wrong bit, anywhere, Open makes a store that works. At most one record is put into
// quarantine, or a name is mended, or the file is set aside and begun anew, or it is known to be perhaps one transaction behind; what comes out
// is what was put in.
func TestBitFlips(t *testing.T) {
	t.Parallel()
	flips := *flips
	if os.Getenv("FLOTILLA_SOAK") != "" {
		flips = 10_000
	}
	after := signed(t, fleet.KindFact, "after", 1)
	path := file(t)
	known := written(t, path)
	content, err := os.ReadFile(path)
	must(t, err)
	var keys []int // where the writer's key is, in pages of now and of before
	writer := latticetest.Key(0).Public().(ed25519.PublicKey)
	for at := bytes.Index(content, writer); at >= 0; {
		keys = append(keys, at)
		next := bytes.Index(content[at+1:], writer)
		if next < 0 {
			break
		}
		at += 1 + next
	}
	seed := seedOf()
	random := rand.New(rand.NewPCG(seed, 1))
	var sound, recovered, quarantined, behind, mended int
	for i := range flips {
		at, bit := random.IntN(len(content)), byte(1)<<random.IntN(8)
		if i%4 == 0 { // where pages keep what bbolt follows
			at = at/pageSize*pageSize + at%64
		} else if i%8 == 1 { // what records use
			at = keys[at%len(keys)] + at%40
		}
		patch(t, path, at, content[at]^bit)
		var writes *fleet.Record
		if i%10 == 0 {
			writes = &after
		}
		got := known.opens(t, fmt.Sprintf("seed %d, bit %08b of byte %d", seed, bit, at), path, writes)
		switch {
		case got.recovered:
			recovered++
		case got.behind && got.bad == 0 && (got.records == 40 || got.records == 80):
			behind++
		case got.bad == 1 && got.records == 79:
			quarantined++
		case got.bad == 0 && got.records == 80 && got.mended > 0:
			mended++
		case got.bad == 0 && got.records == 80:
			sound++
		default:
			t.Errorf("seed %d, bit %08b of byte %d: %+v", seed, bit, at, got)
		}
		if !got.changed {
			patch(t, path, at, content[at])
			continue
		}
		aside, _ := filepath.Glob(path + ".*")
		for _, name := range aside {
			must(t, os.Remove(name))
		}
		must(t, os.WriteFile(path, content, 0o600))
	}
	t.Logf("%d flips in %d bytes: %d sound, %d mended, %d perhaps a transaction behind, %d with a record in quarantine, %d begun anew",
		flips, len(content), sound, mended, behind, quarantined, recovered)
	if sound == 0 || recovered == 0 || quarantined == 0 || behind == 0 || mended == 0 {
		t.Error("one of the ways was never taken")
	}
}

func patch(t testing.TB, path string, at int, value byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt([]byte{value}, int64(at))
	must(t, err)
	must(t, f.Close())
}

// TestCutShort: at every page, and of the first ones a byte before and after, Open makes a store that works of what is left.
func TestCutShort(t *testing.T) {
	t.Parallel()
	path := file(t)
	known := written(t, path)
	content, err := os.ReadFile(path)
	must(t, err)
	after := signed(t, fleet.KindFact, "after", 1)
	for page := 0; page*pageSize <= len(content); page++ {
		for _, size := range []int{page*pageSize - 1, page * pageSize, page*pageSize + 1} {
			if size < 0 || size > len(content) || page > 4 && size%pageSize != 0 {
				continue
			}
			path := file(t)
			must(t, os.WriteFile(path, content[:size], 0o600))
			got := known.opens(t, fmt.Sprintf("%d of %d bytes", size, len(content)), path, &after)
			switch {
			case size == 0 && (got.recovered || got.records != 0):
				t.Errorf("an empty file: %+v", got)
			case size > 0 && size < len(content) && !got.recovered && got.records != 80:
				t.Errorf("%d of %d bytes: %+v", size, len(content), got)
			}
		}
	}
}

// TestTornTransaction: of the last transaction only some pages reached the disk, whatever the disk said. What opens then
// holds what was put and nothing else; what is missing the other members have.
func TestTornTransaction(t *testing.T) {
	t.Parallel()
	path := file(t)
	known := written(t, path)
	seed := seedOf()
	random := rand.New(rand.NewPCG(seed, 2))
	torn, old, recovered := 0, 0, 0
	for i := range 20 {
		before, err := os.ReadFile(path)
		must(t, err)
		s := open(t, path)
		next := signed(t, fleet.KindRegister, fmt.Sprint("next", i), 1)
		known.records[next.Digest()] = true
		must(t, s.Put(next))
		must(t, s.Close())
		after, err := os.ReadFile(path)
		must(t, err)
		for range 6 {
			mixed := bytes.Clone(after)
			for page := 0; page < len(before); page += pageSize {
				if random.IntN(2) == 0 {
					copy(mixed[page:page+pageSize], before[page:])
				}
			}
			left := file(t)
			must(t, os.WriteFile(left, mixed, 0o600))
			got := known.opens(t, fmt.Sprintf("seed %d, transaction %d", seed, i), left, nil)
			switch torn++; {
			case got.recovered:
				recovered++
			case got.bad > 0:
				t.Errorf("seed %d, transaction %d: %d records in quarantine", seed, i, got.bad)
			case got.records == 80+i:
				old++
			}
		}
	}
	t.Logf("%d torn transactions: %d as before it, %d begun anew", torn, old, recovered)
	if old == 0 || recovered == 0 {
		t.Error("one of the ways was never taken")
	}
}
