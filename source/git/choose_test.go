// SPDX-License-Identifier: Apache-2.0

package git

import (
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/source"
)

// shown is all files of a snapshot.
func shown(t testing.TB, snap source.Snapshot) []string {
	t.Helper()
	var out []string
	if err := fs.WalkDir(snap.Files, ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			out = append(out, name)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestChoose(t *testing.T) {
	payload := files{
		"README.md": "", "apps/web/a.yaml": "", "apps/web/README.md": "", "apps/web/img/logo.png": "", "apps/db/b.yaml": "",
		"base/c.yaml": "", "docs/d.md": "", "appsx/e.yaml": "", "link@": "docs/d.md",
	}
	o, m := newModern(t), newMirrors(t, Limits{})
	for name, tc := range map[string]struct {
		sparse []string
		ignore string
		files  files // more of them
		want   string
	}{
		"everything":              {want: "README.md apps/db/b.yaml apps/web/README.md apps/web/a.yaml apps/web/img/logo.png appsx/e.yaml base/c.yaml docs/d.md link"},
		"sparse":                  {sparse: []string{"apps"}, want: "apps/db/b.yaml apps/web/README.md apps/web/a.yaml apps/web/img/logo.png"},
		"two, as people do":       {sparse: []string{"./apps/web/", "base"}, want: "apps/web/README.md apps/web/a.yaml apps/web/img/logo.png base/c.yaml"},
		"all of it":               {sparse: []string{"apps", "."}, ignore: "*.md", want: "apps/db/b.yaml apps/web/a.yaml apps/web/img/logo.png appsx/e.yaml base/c.yaml link"},
		"ignore":                  {ignore: "# words\n*.md\n/docs/\n", want: "apps/db/b.yaml apps/web/a.yaml apps/web/img/logo.png appsx/e.yaml base/c.yaml link"},
		"only what is taken back": {ignore: "/*\n!/apps\n/apps/**/*.md\n", want: "apps/db/b.yaml apps/web/a.yaml apps/web/img/logo.png"},
		"both":                    {sparse: []string{"apps"}, ignore: "*.md\nimg/", want: "apps/db/b.yaml apps/web/a.yaml"},
		"sourceignore":            {files: files{ignoreFile: "docs/\n*.png\n", "apps/web/" + ignoreFile: "/a.yaml\n"}, want: ".sourceignore README.md apps/db/b.yaml apps/web/.sourceignore apps/web/README.md appsx/e.yaml base/c.yaml link"},
		"the source says more":    {files: files{ignoreFile: "*\n"}, ignore: "!/base\n", want: "base/c.yaml"},
		"nothing is left":         {ignore: "*", want: ""},
	} {
		t.Run(name, func(t *testing.T) {
			all := files{}
			for _, more := range []files{payload, tc.files} {
				for name, content := range more {
					all[name] = content
				}
			}
			o.push(all)
			src := o.src()
			src.Git.SparseCheckout, src.Ignore = tc.sparse, tc.ignore
			snap := latest(t, m, src)
			got := shown(t, snap)
			if strings.Join(got, " ") != tc.want {
				t.Errorf("shown is\n%s\nwant\n%s", strings.Join(got, " "), tc.want)
			}
			if err := fstest.TestFS(snap.Files, got...); err != nil && !strings.Contains(tc.want, "link") {
				t.Error(err)
			}
			for name := range all {
				name = strings.TrimSuffix(name, "@")
				if _, err := fs.Lstat(snap.Files, name); (err == nil) != slices.Contains(got, name) {
					t.Errorf("lstat %s: %v", name, err)
				}
			}
			again := latest(t, m, src)
			if again.Files != snap.Files {
				t.Error("an unchanged view was made again")
			}
		})
	}
}

// TestLinksToWhatIsLeftOut lead nowhere.
func TestLinksToWhatIsLeftOut(t *testing.T) {
	o, m := newModern(t), newMirrors(t, Limits{})
	o.push(files{"in/link@": "../out/x", "in/folder@": "../out", "out/x": "1"})
	src := o.src()
	src.Git.SparseCheckout = []string{"in"}
	snap := latest(t, m, src)
	for _, name := range []string{"in/link", "in/folder/x", "out/x", "out"} {
		if _, err := fs.ReadFile(snap.Files, name); err == nil {
			t.Errorf("%s is read", name)
		}
	}
}

func TestChooseErrors(t *testing.T) {
	o, m := newModern(t), newMirrors(t, Limits{})
	o.push(files{"apps/a": "1", "file": "2", "link@": "apps"})
	for _, sparse := range []string{"none", "file", "link", "../x", "/apps", "apps/none"} {
		src := o.src()
		src.Git.SparseCheckout = []string{sparse}
		_, err := m.Latest(t.Context(), src)
		wantError(t, err, fleet.Terminal, v1alpha1.ReasonPathNotFound, "sparseCheckout")
	}
	src := o.src()
	src.Ignore = strings.Repeat("x\n", maxIgnores+1)
	_, err := m.Latest(t.Context(), src)
	wantError(t, err, fleet.Terminal, v1alpha1.ReasonTooLarge, "1001 patterns")
	o.push(files{ignoreFile: strings.Repeat("#", maxIgnoreBytes+1)})
	_, err = m.Latest(t.Context(), o.src())
	wantError(t, err, fleet.Terminal, v1alpha1.ReasonTooLarge, ".sourceignore")
}

// TestChooseInSubmodules: patterns are of the whole payload, and a submodule's own for its place in it.
func TestChooseInSubmodules(t *testing.T) {
	o, m := newModern(t), newMirrors(t, Limits{})
	lib := o.beside("lib")
	head := lib.push(files{"l.yaml": "1", "l.md": "2", "test/x": "3", ignoreFile: "/test\n"})
	o.withModules(files{"a.md": "1", "test/y": "2"}, modules{"vendor/lib": {"../lib.git", head}})
	src := recursive(o.src())
	src.Ignore = "*.md\n.*\n"
	if got, want := strings.Join(shown(t, latest(t, m, src)), " "), "test/y vendor/lib/l.yaml"; got != want {
		t.Errorf("shown is %s, want %s", got, want)
	}
	// A submodule that is left out is not even asked for.
	o.withModules(files{"a.md": "1", "test/y": "2"}, modules{"vendor/lib": {"../lib.git", head}, "gone": {"../gone.git", head}})
	_, err := m.Latest(t.Context(), src)
	wantError(t, err, fleet.Retryable, v1alpha1.ReasonFetchFailed, `submodule "gone"`)
	src.Git.SparseCheckout = []string{"vendor"}
	if got, want := strings.Join(shown(t, latest(t, m, src)), " "), "vendor/lib/l.yaml"; got != want {
		t.Errorf("shown is %s, want %s", got, want)
	}
	src.Git.SparseCheckout = []string{"vendor/lib/test"}
	if got := shown(t, latest(t, m, src)); len(got) != 0 {
		t.Errorf("shown is %s", got)
	}
}
