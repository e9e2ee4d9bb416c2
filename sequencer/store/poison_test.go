// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/store"
)

// crashed is what a process that was killed now would leave: the files as the operating system has them.
func crashed(t testing.TB, path string) string {
	t.Helper()
	left := file(t)
	files, err := filepath.Glob(path + "*")
	must(t, err)
	for _, from := range files {
		content, err := os.ReadFile(from)
		must(t, err)
		must(t, os.WriteFile(left+from[len(path):], content, 0o600))
	}
	return left
}

func digests(n int) (all []fleet.Digest) {
	for i := range n {
		all = append(all, fleet.DigestOf("test", []byte{byte(i >> 8), byte(i)}))
	}
	return all
}

func TestSuspectsOutliveTheProcess(t *testing.T) {
	path := file(t)
	s := open(t, path)
	if left := s.Suspects(); left != nil {
		t.Errorf("a new store suspects %v", left)
	}
	must(t, s.Cleared()) // of nothing
	if _, err := os.Stat(path + ".suspects"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("clearing nothing wrote a file: %v", err)
	}
	for _, step := range []struct {
		name string
		do   func() error
		want []fleet.Digest
	}{
		{"three", func() error { return s.Suspect(digests(3)) }, digests(3)},
		{"one in their place", func() error { return s.Suspect(digests(1)) }, digests(1)},
		{"cleared", s.Cleared, nil},
		{"as many as there may be", func() error { return s.Suspect(digests(store.MaxSuspects)) }, digests(store.MaxSuspects)},
		{"none", func() error { return s.Suspect(nil) }, nil},
		{"five", func() error { return s.Suspect(digests(5)) }, digests(5)},
	} {
		must(t, step.do())
		next := open(t, crashed(t, path))
		if got := next.Suspects(); !slices.Equal(got, step.want) {
			t.Errorf("%s: %d suspects are left, want %d", step.name, len(got), len(step.want))
		}
	}
	err := s.Suspect(make([]fleet.Digest, store.MaxSuspects+1))
	if !errors.Is(err, fleet.ErrTooLarge) || fleet.KindOf(err) != fleet.Terminal {
		t.Errorf("too many: %v", err)
	}

	// Who comes after the crash finds them until it clears them, however often it is started.
	left := crashed(t, path)
	next := open(t, left)
	must(t, next.Close())
	next = open(t, left)
	if got := next.Suspects(); !slices.Equal(got, digests(5)) {
		t.Errorf("%d suspects at the second start", len(got))
	}
	must(t, next.Cleared())
	if got := next.Suspects(); !slices.Equal(got, digests(5)) {
		t.Error("what the crash left changed while the store is open")
	}
	must(t, next.Close())
	if got := open(t, left).Suspects(); got != nil {
		t.Errorf("%d suspects after they were cleared", len(got))
	}
}

func TestMarkerOfAnotherForm(t *testing.T) {
	path := file(t)
	s := open(t, path)
	must(t, s.Suspect(digests(3)))
	must(t, s.Close())
	whole, err := os.ReadFile(path + ".suspects")
	must(t, err)
	for name, content := range map[string][]byte{
		"empty": nil, "short": whole[:7], "cut": whole[:len(whole)-1], "text": []byte("hello, this is no marker at all"),
		"huge count":     append([]byte("FSM1\xff\xff\xff\xff"), whole[8:]...),
		"flipped":        append(bytes.Clone(whole[:40]), append([]byte{whole[40] ^ 1}, whole[41:]...)...),
		"far too long":   bytes.Repeat([]byte("FSM1"), 1<<20),
		"another format": append([]byte("FSM2"), whole[4:]...),
	} {
		must(t, os.WriteFile(path+".suspects", content, 0o600))
		s := open(t, path)
		if left := s.Suspects(); left != nil || s.Opened().Recovered {
			t.Errorf("%s: %d suspects, opened %+v", name, len(left), s.Opened())
		}
		must(t, s.Suspect(digests(2)))
		must(t, s.Close())
		s = open(t, path)
		if left := s.Suspects(); !slices.Equal(left, digests(2)) {
			t.Errorf("%s: %d suspects after it was written anew", name, len(left))
		}
		must(t, s.Close())
	}
	must(t, os.Remove(path+".suspects"))
	must(t, os.Mkdir(path+".suspects", 0o700))
	s = open(t, path)
	if s.Suspects() != nil {
		t.Error("a folder is a marker")
	}
	if err := s.Suspect(digests(1)); err == nil || fleet.KindOf(err) != fleet.Retryable {
		t.Errorf("marking where a folder is: %v", err)
	}
}

func FuzzMarker(f *testing.F) {
	path := file(f)
	s := open(f, path)
	must(f, s.Suspect(digests(3)))
	must(f, s.Close())
	whole, err := os.ReadFile(path + ".suspects")
	must(f, err)
	f.Add(whole)
	f.Add(whole[:20])
	f.Fuzz(func(t *testing.T, content []byte) {
		must(t, os.WriteFile(path+".suspects", content, 0o600))
		s := open(t, path)
		if left := s.Suspects(); len(left)*32 > len(content) {
			t.Errorf("%d suspects of %d bytes", len(left), len(content))
		}
		must(t, s.Close())
	})
}

func TestQuarantineLasts(t *testing.T) {
	path := file(t)
	s := open(t, path)
	records := many(t, 3)
	must(t, s.Put(records...))
	must(t, s.Quarantine(records[1].Digest()))
	must(t, s.Quarantine(records[1].Digest()))
	s = open(t, crashed(t, path))
	poison, err := s.Quarantined()
	must(t, err)
	if len(poison) != 1 || !poison[records[1].Digest()] {
		t.Errorf("quarantined: %v", poison)
	}
	if set, bad := load(t, s); set.Len() != 3 || bad != 0 {
		t.Errorf("%d records, %d bad: one in quarantine stays in the set", set.Len(), bad)
	}
}

func TestQuarantineIsBounded(t *testing.T) {
	path := file(t)
	s := open(t, path)
	must(t, s.Quarantine(fleet.Digest{1}))
	must(t, s.Quarantine(fleet.Digest{2}))
	must(t, s.Close())
	edit(t, path, "poison", func(b *bbolt.Bucket) error {
		for _, d := range digests(store.MaxQuarantined - 2) {
			at, err := b.NextSequence()
			must(t, err)
			must(t, b.Put(d[:], binary.BigEndian.AppendUint64(nil, at)))
		}
		return nil
	})
	s = open(t, path)
	must(t, s.Quarantine(fleet.Digest{3}))
	poison, err := s.Quarantined()
	must(t, err)
	if len(poison) != store.MaxQuarantined || poison[fleet.Digest{1}] || !poison[fleet.Digest{2}] || !poison[fleet.Digest{3}] {
		t.Errorf("%d quarantined; the first %v, the second %v, the last %v",
			len(poison), poison[fleet.Digest{1}], poison[fleet.Digest{2}], poison[fleet.Digest{3}])
	}
}

func TestBlobsAreListedAndDropped(t *testing.T) {
	s := open(t, file(t))
	var all []fleet.Digest
	for i := range 5 {
		digest, err := s.PutBlob(fmt.Append(nil, "blob ", i))
		must(t, err)
		all = append(all, digest)
	}
	slices.SortFunc(all, func(a, b fleet.Digest) int { return bytes.Compare(a[:], b[:]) })
	held, err := s.Blobs()
	must(t, err)
	if !slices.Equal(held, all) {
		t.Errorf("%d blobs are listed, want %d, in order", len(held), len(all))
	}
	must(t, s.DropBlobs(all[1], all[3], fleet.Digest{9}))
	must(t, s.DropBlobs(all[1]))
	must(t, s.DropBlobs())
	held, err = s.Blobs()
	must(t, err)
	if !slices.Equal(held, []fleet.Digest{all[0], all[2], all[4]}) {
		t.Errorf("%d blobs are left, want three", len(held))
	}
	if _, ok, err := s.Blob(all[1]); ok || err != nil {
		t.Errorf("a blob that was dropped: %v %v", ok, err)
	}
}

func BenchmarkSuspect(b *testing.B) {
	s, marked := open(b, file(b)), digests(16)
	for b.Loop() {
		must(b, s.Suspect(marked))
		must(b, s.Cleared())
	}
}
