// SPDX-License-Identifier: Apache-2.0

package git

import (
	"fmt"
	"io/fs"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/source"
	"github.com/flotilla-dev/flotilla/source/sourcetest"
)

// modules are submodules by path: the URL that .gitmodules has, and the commit.
type modules map[string]struct {
	url    string
	commit plumbing.Hash
}

// withModules makes a tree of files and submodules, .gitmodules and all.
func (o *origin) withModules(all files, subs modules) plumbing.Hash {
	o.t.Helper()
	whole := files{}
	var listed strings.Builder
	for name, content := range all {
		whole[name] = content
	}
	for at, sub := range subs {
		fmt.Fprintf(&listed, "[submodule %q]\n\tpath = %s\n\turl = %s\n", at, at, sub.url)
		whole[at+"#"] = sub.commit.String()
	}
	if _, own := all[modulesFile]; !own && len(subs) > 0 {
		whole[modulesFile] = listed.String()
	}
	return o.push(whole)
}

func recursive(src source.Origin) source.Origin {
	git := *src.Git
	git.RecurseSubmodules = true
	src.Git = &git
	return src
}

func TestSubmodules(t *testing.T) {
	for name, fresh := range map[string]func(testing.TB) *origin{"version 0": newOrigin, "version 2": newModern} {
		t.Run(name, func(t *testing.T) {
			o, m := fresh(t), newMirrors(t, Limits{})
			lib, inner := o.beside("lib"), o.beside("inner")
			innerOld := inner.push(files{"i": "old"})
			inner.push(files{"i": "new"})
			libHead := lib.withModules(files{"l": "lib", "up@": "../x"}, modules{"deep/inner": {"./../../team/inner.git", innerOld}})
			o.withModules(files{"app/a": "1", "link@": "vendor/lib/deep/inner/i", "x": "outside"}, modules{
				"vendor/lib": {"../lib.git", libHead}, "again": {lib.url(), libHead},
			})
			snap := latest(t, m, recursive(o.src()))
			for name, content := range map[string]string{
				"app/a": "1", "vendor/lib/l": "lib", "vendor/lib/deep/inner/i": "old", "again/deep/inner/i": "old", "link": "old",
			} {
				wantFile(t, snap, name, content)
			}
			// A link of a submodule may lead where it would on a disk.
			if _, err := fs.ReadFile(snap.Files, "vendor/lib/up"); err == nil {
				t.Error("vendor/x is not there")
			}
			wantFile(t, snap, "again/up", "outside")
			if err := fstest.TestFS(mustSub(t, snap.Files, "vendor/lib/deep"), "inner/i"); err != nil {
				t.Error(err)
			}
			if err := fs.WalkDir(snap.Files, ".", func(name string, d fs.DirEntry, err error) error {
				if d.Type()&fs.ModeIrregular != 0 {
					t.Errorf("%s is still a submodule", name)
				}
				return err
			}); err != nil {
				t.Error(err)
			}
			// Unchanged, the submodules cost nothing.
			o.asked()
			latest(t, m, recursive(o.src()))
			if got := strings.Count(o.asked(), ",") + 1; got != 1 {
				t.Errorf("%d requests", got)
			}
			// Without recursion they are listed and not read; the same mirror serves both.
			plain := latest(t, m, o.src())
			_, err := fs.ReadFile(plain.Files, "vendor/lib/l")
			wantError(t, err, fleet.Terminal, v1alpha1.ReasonFetchFailed, "recurseSubmodules")
		})
	}
}

func mustSub(t testing.TB, files fs.FS, at string) fs.FS {
	t.Helper()
	sub, err := fs.Sub(files, at)
	if err != nil {
		t.Fatal(err)
	}
	return sub
}

func TestSubmodulesThatAreRefused(t *testing.T) {
	some := plumbing.NewHash(strings.Repeat("ab", 20))
	o, m := newModern(t), newMirrors(t, Limits{})
	o.beside("lib").push(files{"l": "1"})
	for name, tc := range map[string]struct {
		files  files
		subs   modules
		kind   fleet.ErrorKind
		reason string
		part   string
	}{
		"not listed":     {files{modulesFile: "", "lib#": some.String()}, nil, fleet.Terminal, v1alpha1.ReasonFetchFailed, `submodule "lib": .gitmodules does not say where it comes from`},
		"a broken file":  {files{modulesFile: "[submodule \"", "lib#": some.String()}, nil, fleet.Terminal, v1alpha1.ReasonFetchFailed, ".gitmodules"},
		"a folder":       {files{modulesFile + "/x": "", "lib#": some.String()}, nil, fleet.Terminal, v1alpha1.ReasonFetchFailed, "no file .gitmodules"},
		"itself":         {nil, modules{"self": {"../repo.git", some}}, fleet.Terminal, v1alpha1.ReasonFetchFailed, "holds itself"},
		"a file":         {nil, modules{"lib": {"file:///etc", some}}, fleet.Refused, v1alpha1.ReasonFetchFailed, "only https, http and ssh"},
		"a local path":   {nil, modules{"lib": {"/srv/git/lib", some}}, fleet.Refused, v1alpha1.ReasonFetchFailed, "only https, http and ssh"},
		"an option":      {nil, modules{"lib": {"--upload-pack=evil", some}}, fleet.Refused, v1alpha1.ReasonFetchFailed, "only https, http and ssh"},
		"above":          {nil, modules{"lib": {"../../../../x", some}}, fleet.Refused, v1alpha1.ReasonFetchFailed, "above the root"},
		"credentials":    {nil, modules{"lib": {"https://ada:s3cret@git.example/x", some}}, fleet.Refused, v1alpha1.ReasonFetchFailed, "holds credentials"},
		"metadata":       {nil, modules{"lib": {"http://169.254.169.254/x", some}}, fleet.Refused, v1alpha1.ReasonFetchFailed, "metadata services"},
		"ssh, no key":    {nil, modules{"lib": {"git@git.example:team/lib.git", some}}, fleet.Refused, v1alpha1.ReasonCredentialsMissing, "ssh needs a Secret"},
		"not there":      {nil, modules{"lib": {"../none.git", some}}, fleet.Retryable, v1alpha1.ReasonFetchFailed, `submodule "lib"`},
		"no such commit": {nil, modules{"lib": {"../lib.git", some}}, fleet.Retryable, v1alpha1.ReasonRefNotFound, "does not give commit abab"},
	} {
		t.Run(name, func(t *testing.T) {
			o.withModules(tc.files, tc.subs)
			_, err := m.Latest(t.Context(), recursive(o.src()))
			wantError(t, err, tc.kind, tc.reason, tc.part)
			if strings.Contains(err.Error(), "s3cret") {
				t.Errorf("it tells a secret: %v", err)
			}
			latest(t, m, o.src()) // without them it is as good as ever
		})
	}
}

func TestSubmodulesInACircle(t *testing.T) {
	o, m := newModern(t), newMirrors(t, Limits{})
	lib := o.beside("lib")
	base := o.push(files{"a": "1"})
	libHead := lib.withModules(nil, modules{"back": {"../repo.git", base}})
	o.withModules(nil, modules{"lib": {"../lib.git", libHead}})
	_, err := m.Latest(t.Context(), recursive(o.src()))
	wantError(t, err, fleet.Terminal, v1alpha1.ReasonFetchFailed, `submodule "lib": submodule "lib/back"`)
}

func TestSubmodulesAreBounded(t *testing.T) {
	o := newModern(t)
	lib := o.beside("lib")
	head := lib.push(files{"1": "", "2": "", "3": ""})
	many := modules{}
	for i := range maxModules + 1 {
		many[fmt.Sprintf("m%02d", i)] = struct {
			url    string
			commit plumbing.Hash
		}{"../lib.git", head}
	}
	o.withModules(nil, many)
	_, err := newMirrors(t, Limits{}).Latest(t.Context(), recursive(o.src()))
	wantError(t, err, fleet.Terminal, v1alpha1.ReasonTooLarge, "more than 64 submodules")
	_, err = newMirrors(t, Limits{MaxFiles: 100}).Latest(t.Context(), recursive(o.src()))
	wantError(t, err, fleet.Terminal, v1alpha1.ReasonTooLarge, "with its submodules")

	below := plumbing.ZeroHash
	for i := range maxModuleDepth + 2 {
		level := o.beside(fmt.Sprintf("level%d", i))
		if i == 0 {
			below = level.push(files{"x": "1"})
			continue
		}
		below = level.withModules(nil, modules{"d": {fmt.Sprintf("../level%d.git", i-1), below}})
	}
	top := o.beside("top")
	top.withModules(nil, modules{"d": {fmt.Sprintf("../level%d.git", maxModuleDepth+1), below}})
	_, err = newMirrors(t, Limits{}).Latest(t.Context(), recursive(top.src()))
	wantError(t, err, fleet.Terminal, v1alpha1.ReasonTooLarge, "nested more than 8 deep")
}

// TestSubmodulesGetCredentialsOfTheirHost: those on the same server the payload's, others none.
func TestSubmodulesGetCredentialsOfTheirHost(t *testing.T) {
	o, m := newModern(t), newMirrors(t, Limits{})
	lib, other := o.beside("lib"), newModern(t)
	libHead, otherHead := lib.push(files{"l": "1"}), other.push(files{"o": "1"})
	home, away := &locked{want: adasBasic, next: o.handler}, &locked{next: other.handler}
	front, elsewhere := httptest.NewServer(home), httptest.NewServer(away)
	t.Cleanup(front.Close)
	t.Cleanup(elsewhere.Close)
	o.withModules(nil, modules{"lib": {"../lib.git", libHead}, "other": {elsewhere.URL + "/team/repo.git", otherHead}})
	secrets := &sourcetest.Secrets{}
	m.Secrets = secrets
	secrets.Put("team", "git", map[string]string{"username": "ada", "password": "s3cret"})
	src := recursive(as(o.src(), ada, "git"))
	src.Git.URL = front.URL + "/team/repo.git"
	snap := latest(t, m, src)
	wantFile(t, snap, "lib/l", "1")
	wantFile(t, snap, "other/o", "1")
	for _, seen := range away.seen {
		if seen != "" {
			t.Errorf("the other server saw %q", seen)
		}
	}
	if len(away.seen) == 0 {
		t.Error("the other server was not asked")
	}
}

func TestModuleURLs(t *testing.T) {
	for _, tc := range []struct{ parent, raw, want string }{
		{"https://git.example/team/repo.git", "../lib.git", "https://git.example/team/lib.git"},
		{"https://git.example/team/repo.git", "../../other/lib", "https://git.example/other/lib"},
		{"https://git.example/team/repo.git", "./sub", "https://git.example/team/repo.git/sub"},
		{"https://git.example/team/repo.git", "https://a.example/x", "https://a.example/x"},
		{"https://git.example/team/repo.git", "git@a.example:team/x.git", "ssh://git@a.example/team/x.git"},
		{"https://git.example/team/repo.git", "git@a.example:/srv/x.git", "ssh://git@a.example/srv/x.git"},
		{"ssh://git@git.example:2222/team/repo.git", "../lib.git", "ssh://git@git.example:2222/team/lib.git"},
		{"https://git.example/te%20am/repo.git", "../lib.git", "https://git.example/te%20am/lib.git"},
		{"https://git.example/repo.git", "../../lib.git", ""},
		{"https://git.example/team/repo.git", "../a/../../b", ""},
		{"https://git.example/team/repo.git", "../", ""},
		{"https://git.example/team/repo.git", "lib.git", ""},
		{"https://git.example/team/repo.git", "", ""},
		{"https://git.example/team/repo.git", "ext::sh -c evil", ""},
	} {
		parent, err := parseURL(tc.parent)
		if err != nil {
			t.Fatal(err)
		}
		got, err := moduleURL(parent, tc.raw)
		if (err == nil) != (tc.want != "") || got.url != tc.want {
			t.Errorf("%s from %s: %q, %v; want %q", tc.raw, tc.parent, got.url, err, tc.want)
		}
	}
}

func FuzzModules(f *testing.F) {
	f.Add([]byte("[submodule \"lib\"]\n\tpath = lib\n\turl = ../lib.git\n"), "../x")
	f.Add([]byte("[submodule \"../../x\"]\n\tpath = ../x\n\turl = --evil\n"), "git@host:x")
	f.Add([]byte("[a \"b\\"), "./../../..")
	parent, err := parseURL("https://git.example/team/repo.git")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw []byte, url string) {
		listed, err := parseModules(raw)
		if err != nil && fleet.KindOf(err) != fleet.Terminal {
			t.Errorf("%v", err)
		}
		for at, m := range listed {
			if !fs.ValidPath(at) {
				t.Errorf("path %q", at)
			}
			if addr, err := moduleURL(parent, m.url); err == nil && addr.base.Hostname() == "" {
				t.Errorf("%q", m.url)
			}
		}
		if addr, err := moduleURL(parent, url); err == nil {
			if again, err := parseURL(addr.url); err != nil || again.url != addr.url {
				t.Errorf("%q became %q, then %q, %v", url, addr.url, again.url, err)
			}
		}
	})
}

func FuzzURL(f *testing.F) {
	for _, seed := range []string{"https://git.example/x", "ssh://git@h:22/~x", "git@h:x", "http://[::1%25lo]:3/x", "https://a/%2F%00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		addr, err := parseURL(raw)
		if err != nil {
			return
		}
		again, err := parseURL(addr.url)
		if err != nil || again.url != addr.url || addr.base.Hostname() == "" || strings.ContainsAny(addr.base.Path, "\x00\n") {
			t.Errorf("%q became %q, then %q, %v", raw, addr.url, again.url, err)
		}
	})
}
