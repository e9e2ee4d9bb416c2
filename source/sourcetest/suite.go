// SPDX-License-Identifier: Apache-2.0

// Package sourcetest answers: what does every source promise?
//
// [Test] is the promise as a suite that each implementation runs; [Memory] is a source for tests of
// others, without a server or a disk.
package sourcetest

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/source"
)

// Fixture is a source under test and its origin: one empty repository that the suite writes in. The
// functions end the test when they fail.
type Fixture struct {
	Source source.Source
	// Follow is the spec that follows a branch of the origin, Pin the one that stays at a commit.
	Follow func(branch string) source.Origin
	Pin    func(commit string) source.Origin
	// Ask is the spec that names any other reference.
	Ask func(ref v1alpha1.GitRef) source.Origin
	// Commit puts a commit with exactly these files on top of a branch, which it makes where it is missing.
	Commit func(branch string, files map[string]string) fleet.Revision
	// Merge puts a commit with these files on top of a branch, with a second parent.
	Merge func(branch string, second fleet.Revision, files map[string]string) fleet.Revision
	// Reset lets a branch point at a revision, as a force-push does.
	Reset func(branch string, to fleet.Revision)
	// Tag a revision, or move a tag to it.
	Tag func(name string, at fleet.Revision)
	// Cut takes the origin away for good.
	Cut func()
}

// Test runs the suite; each test starts with a fresh fixture.
func Test(t *testing.T, fresh func(t *testing.T) Fixture) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, Fixture)
	}{
		{"empty source", emptySource},
		{"missing branch and commit", missing},
		{"follows a branch", followsABranch},
		{"snapshots never change", snapshotsStay},
		{"pinned commit", pinned},
		{"file system", fileSystem},
		{"relation", relation},
		{"force-push", forcePush},
		{"tags and versions", versions},
		{"origin away", originAway},
		{"history", history},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, fresh(t)) })
	}
}

// Latest is what a source says of a branch; the test ends where it fails.
func (f Fixture) latest(t *testing.T, branch string) source.Snapshot {
	t.Helper()
	snap, err := f.Source.Latest(t.Context(), f.Follow(branch))
	if err != nil {
		t.Fatalf("latest of %s: %v", branch, err)
	}
	return snap
}

func wantReason(t *testing.T, err error, reason string) {
	t.Helper()
	var e *fleet.Error
	if !errors.As(err, &e) || e.Reason != reason {
		t.Errorf("error %v with reason %q, want a fleet.Error with %q", err, fleet.ReasonOf(err, "none"), reason)
	}
}

// wantFiles checks all files of a snapshot.
func wantFiles(t *testing.T, snap source.Snapshot, want map[string]string) {
	t.Helper()
	got := map[string]string{}
	err := fs.WalkDir(snap.Files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := fs.ReadFile(snap.Files, name)
		got[name] = string(content)
		return err
	})
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("%s holds %q, %v; want %q", snap.Revision, got, err, want)
	}
}

func emptySource(t *testing.T, f Fixture) {
	_, err := f.Source.Latest(t.Context(), f.Follow("main"))
	wantReason(t, err, v1alpha1.ReasonEmptySource)
}

func missing(t *testing.T, f Fixture) {
	rev := f.Commit("main", map[string]string{"a": "1"})
	_, err := f.Source.Latest(t.Context(), f.Follow("none"))
	wantReason(t, err, v1alpha1.ReasonRefNotFound)
	nobody := strings.Repeat("5", len(rev.Commit()))
	_, err = f.Source.Latest(t.Context(), f.Pin(nobody))
	wantReason(t, err, v1alpha1.ReasonRefNotFound)
	_, err = f.Source.At(t.Context(), f.Follow("main"), fleet.Revision(strings.ReplaceAll(string(rev), rev.Commit(), nobody)))
	wantReason(t, err, v1alpha1.ReasonRefNotFound)
	_, err = f.Source.At(t.Context(), f.Follow("main"), "no revision at all")
	wantReason(t, err, v1alpha1.ReasonRefNotFound)
	if fleet.KindOf(err) != fleet.Terminal {
		t.Errorf("what is no revision can be retried: %v", err)
	}
}

func followsABranch(t *testing.T, f Fixture) {
	for i := range 3 {
		files := map[string]string{"app.yaml": fmt.Sprint(i), "base/x.yaml": "same"}
		rev := f.Commit("main", files)
		f.Commit("other", map[string]string{"other": fmt.Sprint(i)})
		snap := f.latest(t, "main")
		if snap.Revision != rev {
			t.Errorf("latest is %s, want %s", snap.Revision, rev)
		}
		if again := f.latest(t, "main"); again.Revision != rev {
			t.Errorf("unchanged, and latest is %s, want %s", again.Revision, rev)
		}
		if snap.Subject == "" || strings.ContainsRune(snap.Subject, '\n') || snap.Author == "" {
			t.Errorf("subject %q, author %q", snap.Subject, snap.Author)
		}
		wantFiles(t, snap, files)
	}
	wantFiles(t, f.latest(t, "other"), map[string]string{"other": "2"})
}

func snapshotsStay(t *testing.T, f Fixture) {
	f.Commit("main", map[string]string{"a": "1", "gone": "x"})
	first := f.latest(t, "main")
	f.Commit("main", map[string]string{"a": "2"})
	second := f.latest(t, "main")
	wantFiles(t, first, map[string]string{"a": "1", "gone": "x"})
	wantFiles(t, second, map[string]string{"a": "2"})
	content, err := fs.ReadFile(first.Files, "a")
	if err != nil {
		t.Fatal(err)
	}
	content[0] = '!' // the reader's own copy
	wantFiles(t, first, map[string]string{"a": "1", "gone": "x"})
}

func pinned(t *testing.T, f Fixture) {
	old := f.Commit("main", map[string]string{"a": "1"})
	f.Commit("main", map[string]string{"a": "2"})
	snap, err := f.Source.Latest(t.Context(), f.Pin(old.Commit()))
	if err != nil {
		t.Fatal(err)
	}
	if snap.Revision.Commit() != old.Commit() {
		t.Errorf("pinned to %s, got %s", old, snap.Revision)
	}
	wantFiles(t, snap, map[string]string{"a": "1"})
	again, err := f.Source.At(t.Context(), f.Pin(old.Commit()), snap.Revision)
	if err != nil || again.Revision != snap.Revision {
		t.Errorf("at %s: %s, %v", snap.Revision, again.Revision, err)
	}
}

func fileSystem(t *testing.T, f Fixture) {
	files := map[string]string{
		"a": "1", "a.yaml": "between a and a/", "b/c/d.yaml": strings.Repeat("line\n", 5000), "b/c.yaml": "2", "empty": "", "ü/ß": "3",
	}
	f.Commit("main", files)
	if err := fstest.TestFS(f.latest(t, "main").Files, slices.Sorted(maps.Keys(files))...); err != nil {
		t.Error(err)
	}
}

// relations checks both directions at once.
func (f Fixture) relations(t *testing.T, older, newer fleet.Revision, want source.Relation) {
	t.Helper()
	back := map[source.Relation]source.Relation{source.Descends: source.Precedes, source.Same: source.Same, source.Unrelated: source.Unrelated}
	for _, pair := range []struct {
		from, to fleet.Revision
		want     source.Relation
	}{{older, newer, want}, {newer, older, back[want]}} {
		got, err := f.Source.Relation(t.Context(), f.Follow("main"), pair.from, pair.to)
		if err != nil || got != pair.want {
			t.Errorf("%s to %s: %v, %v; want %v", pair.from.Short(), pair.to.Short(), got, err, pair.want)
		}
	}
}

func relation(t *testing.T, f Fixture) {
	first := f.Commit("main", map[string]string{"a": "1"})
	f.Reset("side", first)
	side := f.Commit("side", map[string]string{"a": "1", "b": "side"})
	second := f.Commit("main", map[string]string{"a": "2"})
	f.latest(t, "main")
	f.latest(t, "side")
	f.relations(t, first, first, source.Same)
	f.relations(t, first, second, source.Descends)
	f.relations(t, first, side, source.Descends)
	f.relations(t, second, side, source.Unrelated)
	merge := f.Merge("main", side, map[string]string{"a": "2", "b": "side"})
	f.latest(t, "main")
	f.relations(t, side, merge, source.Descends)
	f.relations(t, first, merge, source.Descends)
	unknown := fleet.Revision(strings.ReplaceAll(string(first), first.Commit(), strings.Repeat("5", len(first.Commit()))))
	f.relations(t, unknown, merge, source.Unrelated)
	// One commit is one revision, by whatever name.
	f.relations(t, fleet.Revision(strings.Replace(string(second), "main@", "side@", 1)), second, source.Same)
}

func forcePush(t *testing.T, f Fixture) {
	root := f.Commit("main", map[string]string{"a": "1"})
	running := f.Commit("main", map[string]string{"a": "2"})
	f.latest(t, "main")
	f.Reset("main", root)
	rewritten := f.Commit("main", map[string]string{"a": "3"})
	if snap := f.latest(t, "main"); snap.Revision != rewritten {
		t.Errorf("latest is %s, want %s", snap.Revision, rewritten)
	}
	f.relations(t, running, rewritten, source.Unrelated)
	snap, err := f.Source.At(t.Context(), f.Follow("main"), running)
	if err != nil {
		t.Fatalf("the running revision was pushed away: %v", err)
	}
	wantFiles(t, snap, map[string]string{"a": "2"})
	f.Reset("main", root)
	if snap := f.latest(t, "main"); snap.Revision != root {
		t.Errorf("latest is %s, want %s", snap.Revision, root)
	}
}

func versions(t *testing.T, f Fixture) {
	first := f.Commit("main", map[string]string{"a": "1"})
	second := f.Commit("main", map[string]string{"a": "2"})
	side := f.Commit("side", map[string]string{"a": "side"})
	f.Tag("v1.0.0", second)
	f.Tag("v1.1.0", first)
	f.Tag("v1.10.0-rc.1", second)
	f.Tag("2.0.0", side)
	named := func(label string, rev fleet.Revision) fleet.Revision {
		_, rest, _ := strings.Cut(string(rev), "@")
		return fleet.Revision(label + "@" + rest)
	}
	for _, tc := range []struct {
		ref  v1alpha1.GitRef
		want fleet.Revision
	}{
		{v1alpha1.GitRef{Tag: "v1.0.0"}, named("v1.0.0", second)},
		{v1alpha1.GitRef{SemVer: "1.x"}, named("v1.1.0", first)},
		{v1alpha1.GitRef{SemVer: ">=1.0.0-0 <2.0.0"}, named("v1.10.0-rc.1", second)},
		{v1alpha1.GitRef{SemVer: ">=1.0.0"}, named("2.0.0", side)},
		{v1alpha1.GitRef{Name: "refs/heads/side"}, named("refs/heads/side", side)},
		{v1alpha1.GitRef{Name: "refs/tags/v1.1.0"}, named("refs/tags/v1.1.0", first)},
	} {
		snap, err := f.Source.Latest(t.Context(), f.Ask(tc.ref))
		if err != nil || snap.Revision != tc.want {
			t.Errorf("%+v is %s, %v; want %s", tc.ref, snap.Revision, err, tc.want)
			continue
		}
		if again, err := f.Source.At(t.Context(), f.Ask(tc.ref), tc.want); err != nil || again.Revision != tc.want {
			t.Errorf("at %s: %s, %v", tc.want, again.Revision, err)
		}
	}
	for _, ref := range []v1alpha1.GitRef{{Tag: "none"}, {SemVer: "7.x"}, {Name: "refs/tags/none"}, {SemVer: "no range"}} {
		_, err := f.Source.Latest(t.Context(), f.Ask(ref))
		wantReason(t, err, v1alpha1.ReasonRefNotFound)
	}
	for _, tc := range []struct {
		ref      v1alpha1.GitRef
		from, to fleet.Revision
		want     source.Relation
	}{
		{v1alpha1.GitRef{SemVer: ">=1.0.0"}, named("v1.0.0", second), named("v1.1.0", first), source.Descends},
		{v1alpha1.GitRef{SemVer: ">=1.0.0"}, named("2.0.0", side), named("v1.1.0", first), source.Precedes},
		{v1alpha1.GitRef{SemVer: ">=1.0.0"}, named("v1.0.0", first), named("v1.0.0", second), source.Unrelated},
		{v1alpha1.GitRef{SemVer: ">=1.0.0"}, named("v1.0.0", first), named("1.0.0", first), source.Same},
		{v1alpha1.GitRef{Tag: "v1.0.0"}, named("v1.0.0", first), named("v1.0.0", second), source.Unrelated},
		{v1alpha1.GitRef{Tag: "v1.0.0"}, named("v1.0.0", first), named("v1.0.0", first), source.Same},
		{v1alpha1.GitRef{Name: "refs/heads/main"}, named("refs/heads/main", first), named("refs/heads/main", second), source.Descends},
	} {
		if got, err := f.Source.Relation(t.Context(), f.Ask(tc.ref), tc.from, tc.to); err != nil || got != tc.want {
			t.Errorf("%+v: %s to %s is %v, %v; want %v", tc.ref, tc.from.Short(), tc.to.Short(), got, err, tc.want)
		}
	}
	f.Tag("v1.1.0", second)
	if snap, err := f.Source.Latest(t.Context(), f.Ask(v1alpha1.GitRef{Tag: "v1.1.0"})); err != nil || snap.Revision != named("v1.1.0", second) {
		t.Errorf("a tag that was moved is %s, %v", snap.Revision, err)
	}
}

func originAway(t *testing.T, f Fixture) {
	first := f.Commit("main", map[string]string{"a": "1"})
	second := f.Commit("main", map[string]string{"a": "2"})
	f.latest(t, "main")
	f.Cut()
	_, err := f.Source.Latest(t.Context(), f.Follow("main"))
	wantReason(t, err, v1alpha1.ReasonFetchFailed)
	if fleet.KindOf(err) != fleet.Retryable {
		t.Errorf("an origin that is away is not tried again: %v", err)
	}
	snap, err := f.Source.At(t.Context(), f.Follow("main"), second)
	if err != nil {
		t.Fatalf("what is held cannot be read: %v", err)
	}
	if snap.Revision != second {
		t.Errorf("at %s: %s", second, snap.Revision)
	}
	wantFiles(t, snap, map[string]string{"a": "2"})
	f.relations(t, first, second, source.Descends)
}

func history(t *testing.T, f Fixture) {
	h, ok := f.Source.(source.History)
	if !ok {
		t.Skip("this source has no history")
	}
	first := f.Commit("main", map[string]string{"members/a": "1"})
	f.Reset("side", first)
	side := f.Commit("side", map[string]string{"members/a": "1", "members/b": "2"})
	second := f.Commit("main", map[string]string{"members/a": "1", "rollouts/x": "3"})
	merge := f.Merge("main", side, map[string]string{"members/a": "1", "members/b": "2", "rollouts/x": "3"})
	want := []fleet.Revision{merge, second, first}
	i := 0
	var folders [3]string
	for c, err := range h.FirstParents(t.Context(), f.Follow("main"), merge) {
		if err != nil || i == len(want) {
			t.Fatalf("step %d: %v", i, err)
		}
		if c.Revision != want[i] || c.Depth != uint64(len(want)-1-i) {
			t.Errorf("step %d is %s at depth %d, want %s at %d", i, c.Revision, c.Depth, want[i], len(want)-1-i)
		}
		if folders[i], err = c.Folder("members"); err != nil || folders[i] == "" {
			t.Errorf("step %d: folder %q, %v", i, folders[i], err)
		}
		if none, err := c.Folder("none"); none != "" || err != nil {
			t.Errorf("step %d: a folder that is not there is %q, %v", i, none, err)
		}
		i++
	}
	if i != len(want) {
		t.Errorf("%d steps, want %d", i, len(want))
	}
	if folders[1] != folders[2] || folders[0] == folders[1] {
		t.Errorf("the folder changed in the last commit only, but is %q", folders)
	}
}
