// SPDX-License-Identifier: Apache-2.0

package git

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

func TestTreeIsAFileSystem(t *testing.T) {
	o, m := newOrigin(t), newMirrors(t, Limits{})
	o.push(files{
		"README.md": "hello\n", "empty": "", "run.sh!": "#!/bin/sh\n", "apps/web/deployment.yaml": strings.Repeat("kind: Deployment\n", 3000),
		"apps.yaml": "sorts between apps and apps/", "apps-old/x": "1", "base/kustomization.yaml": "resources: []\n",
		"overlays/eu/kustomization.yaml": "resources: [../base]\n", "overlays/base@": "../base", "overlays/eu/readme@": "../../README.md",
		"odd \\ name/ä.yaml": "1",
	})
	snap := latest(t, m, o.src())
	// TestFS wants no backslash in a name; git and fs.FS allow it.
	sub, err := fs.Sub(snap.Files, "apps")
	if err != nil {
		t.Fatal(err)
	}
	if err := fstest.TestFS(sub, "web/deployment.yaml"); err != nil {
		t.Error(err)
	}
	wantFile(t, snap, "odd \\ name/ä.yaml", "1")
	wantFile(t, snap, "overlays/base/kustomization.yaml", "resources: []\n")
	wantFile(t, snap, "overlays/eu/readme", "hello\n")
	modes := map[string]string{"run.sh": "-r-xr-xr-x", "README.md": "-r--r--r--", "apps": "dr-xr-xr-x", "overlays/base": "dr-xr-xr-x"}
	for name, want := range modes {
		info, err := fs.Stat(snap.Files, name)
		if err != nil || info.Mode().String() != want {
			t.Errorf("stat %s: %v, %v; want %s", name, info, err, want)
		}
	}
	for _, name := range []string{"none", "README.md/x", "apps/none/x", "overlays/base/none"} {
		if _, err := snap.Files.Open(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("open %s: %v", name, err)
		}
	}
	for _, name := range []string{"", "/", "../x", "apps/", "/README.md", "apps/../README.md"} {
		if _, err := snap.Files.Open(name); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("open %q: %v", name, err)
		}
	}
}

func TestTreePassesTestFS(t *testing.T) {
	o, m := newOrigin(t), newMirrors(t, Limits{})
	o.push(files{
		"a": "1", "b/c": "2", "b/d/e!": "3", "b.d": "", "link@": "b/d", "b/d/up@": "../c", "b/chain@": "d/up",
	})
	if err := fstest.TestFS(latest(t, m, o.src()).Files, "a", "b/c", "b/d/e", "b.d", "link", "b/d/up", "b/chain"); err != nil {
		t.Error(err)
	}
}

func TestLinksAndSubmodules(t *testing.T) {
	o, m := newOrigin(t), newMirrors(t, Limits{})
	o.push(files{
		"in/file": "1", "in/sub/x": "2",
		"absolute@": "/etc/passwd", "up@": "..", "in/out@": "../../etc/passwd", "in/dance@": "../in/../../x", "void@": "",
		"loop@": "loop", "ping@": "pong", "pong@": "ping", "dangling@": "nowhere", "long@": strings.Repeat("./", 3000) + "in/file",
		"tofolder@": "in/sub", "viafolder@": "tofolder/../file", "tomodule@": "module", "module#": "",
	})
	snap := latest(t, m, o.src())
	for name, part := range map[string]string{
		"absolute": "leads out", "up": "leads out", "in/out": "leads out", "in/dance": "leads out", "void": "leads out",
		"loop": "more than 40 symbolic links", "ping": "more than 40 symbolic links", "long": "6007 bytes",
		"module": "is a submodule", "module/x": "is a submodule", "tomodule": "is a submodule",
	} {
		for op, read := range map[string]func() error{
			"open":     func() error { _, err := snap.Files.Open(name); return err },
			"readfile": func() error { _, err := fs.ReadFile(snap.Files, name); return err },
			"readdir":  func() error { _, err := fs.ReadDir(snap.Files, name); return err },
		} {
			err := read()
			var e *fleet.Error
			if !errors.As(err, &e) || e.Kind != fleet.Terminal || !strings.Contains(err.Error(), part) || !strings.Contains(err.Error(), name) {
				t.Errorf("%s %s: %v, want a terminal error with %q", op, name, err, part)
			}
		}
	}
	if _, err := snap.Files.Open("dangling"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("dangling: %v", err)
	}
	// The parent of a linked folder is where the folder is, as on a disk.
	wantFile(t, snap, "viafolder", "1")
	if target, err := fs.ReadLink(snap.Files, "in/out"); err != nil || target != "../../etc/passwd" {
		t.Errorf("readlink: %q, %v", target, err)
	}
	if _, err := fs.ReadLink(snap.Files, "in/file"); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("readlink of a file: %v", err)
	}
	for name, want := range map[string]fs.FileMode{"loop": fs.ModeSymlink, "module": fs.ModeIrregular, "tofolder": fs.ModeSymlink, "in": fs.ModeDir} {
		if info, err := fs.Lstat(snap.Files, name); err != nil || info.Mode().Type() != want {
			t.Errorf("lstat %s: %v, %v", name, info, err)
		}
	}
	// Walking sees everything once and follows nothing.
	var seen []string
	if err := fs.WalkDir(snap.Files, "in", func(name string, _ fs.DirEntry, err error) error {
		seen = append(seen, name)
		return err
	}); err != nil {
		t.Error(err)
	}
	if want := []string{"in", "in/dance", "in/file", "in/out", "in/sub", "in/sub/x"}; !slices.Equal(seen, want) {
		t.Errorf("walked %v, want %v", seen, want)
	}
}
