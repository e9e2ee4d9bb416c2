// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

func noError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// sparseFile had 12 MiB of blobs; one of them is left, and two values.
func sparseFile(t testing.TB) (path string, left []fleet.Digest) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "state.db")
	s, err := Open(path)
	noError(t, err)
	var all []fleet.Digest
	for i := range 12 {
		content := make([]byte, MaxBlob)
		content[0] = byte(i)
		digest, err := s.PutBlob(content)
		noError(t, err)
		all = append(all, digest)
	}
	noError(t, s.SetMeta("epoch", []byte{7}))
	noError(t, s.Quarantine(all[0]))
	noError(t, s.DropBlobs(all[1:]...))
	noError(t, s.Close())
	return path, all[:1]
}

// whole says that nothing of a sparseFile is missing.
func whole(t *testing.T, path string, left []fleet.Digest) Opened {
	t.Helper()
	s, err := Open(path)
	noError(t, err)
	defer func() { noError(t, s.Close()) }()
	for _, digest := range left {
		if content, ok, err := s.Blob(digest); !ok || err != nil || len(content) != MaxBlob {
			t.Errorf("blob %s: %d bytes, %v %v", digest.Short(), len(content), ok, err)
		}
	}
	value, err := s.Meta("epoch")
	poison, poisonErr := s.Quarantined()
	if err != nil || poisonErr != nil || string(value) != "\x07" || len(poison) != 1 {
		t.Errorf("epoch %v %v, %d in quarantine %v", value, err, len(poison), poisonErr)
	}
	if _, err := s.PutBlob([]byte("new")); err != nil {
		t.Errorf("writing: %v", err)
	}
	if others, _ := filepath.Glob(path + ".*"); len(others) > 0 {
		t.Errorf("beside the file: %v", others)
	}
	return s.Opened()
}

func sizeOf(t testing.TB, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	noError(t, err)
	return info.Size()
}

func TestSparseFileIsCompacted(t *testing.T) {
	t.Parallel()
	path, left := sparseFile(t)
	before := sizeOf(t, path)
	opened := whole(t, path, left)
	after := sizeOf(t, path)
	if opened.Compacted < before/2 || after > before/3 || opened.Recovered {
		t.Errorf("%d bytes became %d, opened %+v", before, after, opened)
	}
	if again := whole(t, path, left); again.Compacted != 0 {
		t.Errorf("compacted again: %+v", again)
	}
}

// TestCrashWhileCompacting looks at what lies on the disk at every step, and lets the step fail besides: nothing is ever
// missing.
func TestCrashWhileCompacting(t *testing.T) {
	t.Parallel()
	path, left := sparseFile(t)
	crashes := map[string]string{}
	crash := func(step string) {
		to := filepath.Join(t.TempDir(), "state.db")
		files, err := filepath.Glob(path + "*")
		noError(t, err)
		for _, from := range files {
			content, err := os.ReadFile(from)
			noError(t, err)
			noError(t, os.WriteFile(to+from[len(path):], content, 0o600))
		}
		crashes[step] = to
	}
	failed := errors.New("failed")
	run := func(copied, synced, rename error) (freed int64) {
		s, info, err := open(path)
		noError(t, err)
		defer func() { noError(t, s.Close()) }()
		return s.compactBy(info.Size(), compactSteps{
			copied: func() error { crash("copied, not synced"); return copied },
			synced: func() error { crash("synced, not renamed"); return synced },
			rename: func() error {
				if rename != nil {
					return rename
				}
				err := os.Rename(path+compactSuffix, path)
				crash("renamed, not synced")
				return err
			},
		})
	}
	for name, freed := range map[string]int64{
		"copying": run(failed, nil, nil), "syncing": run(nil, failed, nil), "renaming": run(nil, nil, failed),
	} {
		if freed != 0 {
			t.Errorf("%s failed and %d bytes are free", name, freed)
		}
	}
	crash("failed")
	if run(nil, nil, nil) == 0 {
		t.Error("not compacted")
	}
	if len(crashes) != 4 {
		t.Fatalf("%d crashes, want 4", len(crashes))
	}
	// The copy cut short at some page, and one of which nothing but the length is on the disk.
	for _, size := range []int64{0, 4096, 1 << 20} {
		crash("unfinished copy")
		to := crashes["unfinished copy"]
		noError(t, os.WriteFile(to+compactSuffix, make([]byte, size), 0o600))
		whole(t, to, left)
	}
	for step, at := range crashes {
		t.Run(step, func(t *testing.T) { whole(t, at, left) })
	}
	whole(t, path, left)
}

// TestNoRoomToCompact: where the copy finds no room the file stays as it was.
func TestNoRoomToCompact(t *testing.T) {
	t.Parallel()
	path, left := sparseFile(t)
	noError(t, os.Mkdir(path+compactSuffix, 0o700))
	noError(t, os.WriteFile(filepath.Join(path+compactSuffix, "in the way"), nil, 0o600))
	before := sizeOf(t, path)
	s, err := Open(path)
	noError(t, err)
	if opened := s.Opened(); opened != (Opened{}) || sizeOf(t, path) != before {
		t.Errorf("opened %+v, %d bytes of %d", opened, sizeOf(t, path), before)
	}
	noError(t, s.Close())
	noError(t, os.RemoveAll(path+compactSuffix))
	whole(t, path, left)
}
