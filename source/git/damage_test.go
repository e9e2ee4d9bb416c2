// SPDX-License-Identifier: Apache-2.0

package git

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/source"
	"github.com/flotilla-dev/flotilla/source/disk"
)

// one is the only file that matches under a folder.
func one(t testing.TB, dir, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s in %s: %v, %v", pattern, dir, found, err)
	}
	return found[0]
}

func truncate(t testing.TB, path string, bytes int64) {
	t.Helper()
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, bytes); err != nil {
		t.Fatal(err)
	}
}

// flip changes every byte of a file from one offset to another.
func flip(t testing.TB, path string, from, to int64) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if to <= 0 {
		to += int64(len(b))
	}
	for i := from; i < to; i++ {
		b[i] ^= 0x55
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	// In place, as bits rot: whoever has the file open sees it.
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestDamagedMirror: whatever happens to the files of a mirror while no agent runs, the next look mends it.
func TestDamagedMirror(t *testing.T) {
	for _, tc := range []struct {
		name    string
		harm    func(t *testing.T, gen string)
		offline bool // the running revision can be read without the server
	}{
		{"truncated pack", func(t *testing.T, gen string) { truncate(t, one(t, gen, packFolder+"/*.pack"), 60) }, false},
		{"empty pack", func(t *testing.T, gen string) { truncate(t, one(t, gen, packFolder+"/*.pack"), 0) }, false},
		{"rotten pack", func(t *testing.T, gen string) { flip(t, one(t, gen, packFolder+"/*.pack"), 12, -20) }, false},
		{"truncated index", func(t *testing.T, gen string) { truncate(t, one(t, gen, packFolder+"/*.idx"), 1100) }, true},
		{"rotten index", func(t *testing.T, gen string) { flip(t, one(t, gen, packFolder+"/*.idx"), 1032, -40) }, true},
		{"no index", func(t *testing.T, gen string) { remove(t, one(t, gen, packFolder+"/*.idx")) }, true},
		{"no pack", func(t *testing.T, gen string) { remove(t, one(t, gen, packFolder+"/*.pack")) }, false},
		{"empty HEAD", func(t *testing.T, gen string) { truncate(t, filepath.Join(gen, "HEAD"), 0) }, true},
		{"empty reference", func(t *testing.T, gen string) { truncate(t, one(t, gen, refsFolder+"/*"), 0) }, true},
		{"no references", func(t *testing.T, gen string) { remove(t, filepath.Join(gen, "refs")) }, true},
		{"no objects", func(t *testing.T, gen string) { remove(t, filepath.Join(gen, "objects")) }, false},
		{"empty generation", func(t *testing.T, gen string) {
			remove(t, gen)
			if err := os.Mkdir(gen, 0o755); err != nil {
				t.Fatal(err)
			}
		}, false},
		{"left-overs", func(t *testing.T, gen string) {
			for _, name := range []string{packFolder + "/tmp_pack_1", refsFolder + "/tmp_1", "../tmp_2/x"} {
				path := filepath.Join(gen, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte("half"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o, m := newOrigin(t), newMirrors(t, Limits{})
			head := o.push(files{"a": strings.Repeat("payload ", 50), "b/c": "deep"})
			latest(t, m, o.src())
			if err := m.Close(); err != nil {
				t.Fatal(err)
			}
			tc.harm(t, one(t, m.Dir, "*/g1"))

			o.breakWith(http.NotFound)
			snap, err := m.At(t.Context(), o.src(), onMain(head))
			if err == nil {
				_, err = fs.ReadFile(snap.Files, "a")
			}
			if (err == nil) != tc.offline {
				t.Errorf("without the server: %v, want it to work: %v", err, tc.offline)
			}
			o.breakWith(nil)

			snap = latest(t, m, o.src())
			wantFile(t, snap, "a", strings.Repeat("payload ", 50))
			wantFile(t, snap, "b/c", "deep")
			o.asked()
			latest(t, m, o.src())
			if got := o.asked(); got != oneLook {
				t.Errorf("after it was mended an unchanged source is asked %q", got)
			}
			if packs := m.mirror(parsed(t, o.src())).store.packs; len(packs) != 1 {
				t.Errorf("%d packs hold the same", len(packs))
			}
			left, err := filepath.Glob(filepath.Join(m.Dir, "*", disk.TempPrefix+"*"))
			if err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

func remove(t testing.TB, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

// TestRotWhileRunning: a file that rots under an open mirror is noticed when it is read, and the next
// call gives whole files again, also for a snapshot that was given out before.
func TestRotWhileRunning(t *testing.T) {
	o, m := newOrigin(t), newMirrors(t, Limits{})
	o.git("config", "uploadpack.allowReachableSHA1InWant", "true")
	first := o.push(files{"a": strings.Repeat("payload ", 500)})
	snap := latest(t, m, o.src())
	flip(t, one(t, m.Dir, "*/g1/"+packFolder+"/*.pack"), 12, -20)
	_, err := fs.ReadFile(snap.Files, "a")
	if !errors.Is(err, errDamaged) {
		t.Fatalf("reading a rotten file: %v", err)
	}
	again, err := m.At(t.Context(), o.src(), onMain(first))
	if err != nil {
		t.Fatal(err)
	}
	wantFile(t, again, "a", strings.Repeat("payload ", 500))
	wantFile(t, snap, "a", strings.Repeat("payload ", 500))
}

// TestDamageElsewhere: a damaged pack does not keep what is in the others from being read.
func TestDamageElsewhere(t *testing.T) {
	o, m := newOrigin(t), newMirrors(t, Limits{})
	first := o.push(files{"a": "one"})
	latest(t, m, o.src())
	pack := one(t, m.Dir, "*/g1/"+packFolder+"/*.pack")
	second := o.push(files{"a": "two"})
	latest(t, m, o.src())
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	all, err := filepath.Glob(filepath.Join(m.Dir, "*/g1", packFolder, "*.pack"))
	if err != nil || len(all) != 2 {
		t.Fatal(all, err)
	}
	for _, path := range all {
		if path != pack {
			truncate(t, path, 40)
		}
	}
	o.breakWith(http.NotFound)
	snap, err := m.At(t.Context(), o.src(), onMain(first))
	if err != nil {
		t.Fatal(err)
	}
	wantFile(t, snap, "a", "one")
	if _, err := m.At(t.Context(), o.src(), onMain(second)); err == nil {
		t.Error("a lost revision is there")
	}
	o.breakWith(nil)
	wantFile(t, latest(t, m, o.src()), "a", "two")
	if got, err := m.Relation(t.Context(), o.src(), onMain(first), onMain(second)); err != nil || got != source.Descends {
		t.Errorf("relation %v, %v", got, err)
	}
}

// TestBrokenPacks: what the server sends is not whole; nothing of it stays, and it is tried again.
func TestBrokenPacks(t *testing.T) {
	for _, missing := range []float64{1, 0.7, 0.1, 0} {
		t.Run(fmt.Sprint(missing), func(t *testing.T) {
			o, m := newOrigin(t), newMirrors(t, Limits{})
			all := files{}
			for i := range 50 {
				all[fmt.Sprint(i)] = strings.Repeat(fmt.Sprint(i), 100)
			}
			o.push(all)
			whole := recordPack(t, o)
			o.breakAt("git-upload-pack", func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/x-git-upload-pack-result")
				w.Write(whole[:len(whole)-10-int(float64(len(whole)-10)*missing)]) //nolint:errcheck // a test
			})
			_, err := m.Latest(t.Context(), o.src())
			wantError(t, err, fleet.Retryable, v1alpha1.ReasonFetchFailed, "")
			o.breakWith(nil)
			wantFile(t, latest(t, m, o.src()), "7", strings.Repeat("7", 100))
		})
	}
}

// recordPack is what the server answers to a first fetch.
func recordPack(t *testing.T, o *origin) []byte {
	t.Helper()
	head := strings.TrimSpace(o.git("rev-parse", "refs/heads/main"))
	want := "want " + head + " side-band-64k ofs-delta no-progress\n"
	body := fmt.Sprintf("%04x%s0000%04xdone\n", len(want)+4, want, 9)
	res, err := http.Post(o.url()+"/git-upload-pack", "application/x-git-upload-pack-request", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close() //nolint:errcheck // a test
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	out, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestIncompleteServer: the server lost an object. It says so, or leaves it out; nothing is half applied.
func TestIncompleteServer(t *testing.T) {
	o, m := newOrigin(t), newMirrors(t, Limits{})
	head := o.push(files{"a": "one", "b": "two"})
	latest(t, m, o.src())
	lost := o.object(plumbing.BlobObject, "three")
	o.set("main", o.commit(files{"a": "three", "b": "two"}, head))
	path := filepath.Join(o.dir, "objects", lost.String()[:2], lost.String()[2:])
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	remove(t, path)
	_, err = m.Latest(t.Context(), o.src())
	wantError(t, err, fleet.Retryable, v1alpha1.ReasonFetchFailed, "")
	snap, err := m.At(t.Context(), o.src(), onMain(head))
	if err != nil {
		t.Fatal(err)
	}
	wantFile(t, snap, "a", "one")
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	wantFile(t, latest(t, m, o.src()), "a", "three")
}

// TestPackWithoutItsFiles: a server that sends a whole pack, but not of all that belongs to the commit.
func TestPackWithoutItsFiles(t *testing.T) {
	o, m := newOrigin(t), newMirrors(t, Limits{})
	head := o.push(files{"a": "one", "b/c": "two"})
	whole := recordPack(t, o)
	poor := newOrigin(t)
	// The same commit object alone: its tree is another repository's.
	poor.set("main", poor.commitTree(poor.tree(files{"x": "y"})))
	other := recordPack(t, poor)
	o.breakAt("git-upload-pack", func(w http.ResponseWriter, _ *http.Request) { w.Write(other) }) //nolint:errcheck // a test
	_, err := m.Latest(t.Context(), o.src())
	wantError(t, err, fleet.Retryable, v1alpha1.ReasonFetchFailed, "without all that belongs to it")
	o.breakAt("git-upload-pack", func(w http.ResponseWriter, _ *http.Request) { w.Write(whole) }) //nolint:errcheck // a test
	if snap := latest(t, m, o.src()); snap.Revision != onMain(head) {
		t.Errorf("head %s", snap.Revision)
	}
}

// TestDiskFull: the error names the disk and is tried again; it is not taken for damage.
func TestDiskFull(t *testing.T) {
	err := wrap("https://git.example/x (branch main)", disk.Failed("writing a pack", &fs.PathError{Op: "write", Path: "/x", Err: syscall.ENOSPC}))
	wantError(t, err, fleet.Retryable, v1alpha1.ReasonFetchFailed, "the disk is full")
	if !isLocal(err) || errors.Is(packError(&fs.PathError{Op: "open", Path: "/x", Err: syscall.EMFILE}), errDamaged) {
		t.Error("a machine in trouble is taken for a damaged mirror")
	}
}
