// SPDX-License-Identifier: Apache-2.0

package git

import (
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/source"
)

func TestKindsOfReferences(t *testing.T) {
	for name, fresh := range map[string]func(testing.TB) *origin{"version 0": newOrigin, "version 2": newModern} {
		t.Run(name, func(t *testing.T) {
			o, m := fresh(t), newMirrors(t, Limits{})
			commits := map[string]plumbing.Hash{}
			for _, tag := range []string{"v1.0.0", "v1.2.0", "1.10.0", "v2.0.0-rc.1", "v2", "v0.9.0", "latest"} {
				commits[tag] = o.push(files{"version": tag})
				o.tag(tag, commits[tag], strings.HasSuffix(tag, "0"))
			}
			o.setRef("refs/pull/4/head", commits["latest"])
			for _, tc := range []struct {
				ref  v1alpha1.GitRef
				want fleet.Revision
			}{
				{v1alpha1.GitRef{Tag: "v1.2.0"}, revisionOf("v1.2.0", commits["v1.2.0"])},
				{v1alpha1.GitRef{Tag: "latest"}, revisionOf("latest", commits["latest"])},
				{v1alpha1.GitRef{SemVer: "1.x"}, revisionOf("1.10.0", commits["1.10.0"])},
				{v1alpha1.GitRef{SemVer: ">=1.0.0 <1.5.0"}, revisionOf("v1.2.0", commits["v1.2.0"])},
				{v1alpha1.GitRef{SemVer: ">=1.0.0"}, revisionOf("1.10.0", commits["1.10.0"])},
				{v1alpha1.GitRef{SemVer: ">=1.0.0-0"}, revisionOf("v2.0.0-rc.1", commits["v2.0.0-rc.1"])},
				{v1alpha1.GitRef{Name: "refs/pull/4/head"}, revisionOf("refs/pull/4/head", commits["latest"])},
				{v1alpha1.GitRef{Name: "refs/tags/v1.0.0"}, revisionOf("refs/tags/v1.0.0", commits["v1.0.0"])},
			} {
				snap, err := m.Latest(t.Context(), o.at(tc.ref))
				if err != nil || snap.Revision != tc.want {
					t.Errorf("%+v: %s, %v; want %s", tc.ref, snap.Revision, err, tc.want)
					continue
				}
				again, err := newMirrors(t, Limits{}).At(t.Context(), o.at(tc.ref), snap.Revision)
				if err != nil || again.Revision != snap.Revision {
					t.Errorf("at %s: %s, %v", snap.Revision, again.Revision, err)
				}
			}
			for part, ref := range map[string]v1alpha1.GitRef{
				`no tag "v7.0.0"`:                       {Tag: "v7.0.0"},
				`no tag with a version in "3.x"`:        {SemVer: "3.x"},
				`no reference "refs/pull/5/head"`:       {Name: "refs/pull/5/head"},
				"tags with versions have three numbers": {SemVer: "7.x"},
			} {
				_, err := m.Latest(t.Context(), o.at(ref))
				wantError(t, err, fleet.Retryable, v1alpha1.ReasonRefNotFound, part)
			}
			for part, ref := range map[string]v1alpha1.GitRef{
				"write a range": {SemVer: "not a range"}, "not a tag name": {Tag: "a..b"}, "not a reference name": {Name: "refs/../x"},
			} {
				_, err := m.Latest(t.Context(), o.at(ref))
				wantError(t, err, fleet.Terminal, v1alpha1.ReasonRefNotFound, part)
			}
		})
	}
}

// TestMovedTag: what it names now is told, and is unrelated to what it was, whatever the ancestry.
func TestMovedTag(t *testing.T) {
	o, m := newModern(t), newMirrors(t, Limits{})
	first := o.push(files{"a": "1"})
	o.tag("v1.0.0", first, true)
	src := o.at(v1alpha1.GitRef{Tag: "v1.0.0"})
	was := latest(t, m, src).Revision
	second := o.push(files{"a": "2"})
	o.tag("v1.0.0", second, false)
	now := latest(t, m, src).Revision
	if was != revisionOf("v1.0.0", first) || now != revisionOf("v1.0.0", second) {
		t.Fatalf("%s became %s", was, now)
	}
	for _, src := range []source.Origin{src, o.at(v1alpha1.GitRef{SemVer: "1.x"})} {
		if got, err := m.Relation(t.Context(), src, was, now); err != nil || got != source.Unrelated {
			t.Errorf("%v: %v, %v", src.Git.Ref, got, err)
		}
	}
	if got, err := m.Relation(t.Context(), o.src(), onMain(first), onMain(second)); err != nil || got != source.Descends {
		t.Errorf("the branch: %v, %v", got, err)
	}
	// A tag that was taken away: what was delivered is still read.
	if err := o.repo.Storer.RemoveReference("refs/tags/v1.0.0"); err != nil {
		t.Fatal(err)
	}
	_, err := m.Latest(t.Context(), src)
	wantError(t, err, fleet.Retryable, v1alpha1.ReasonRefNotFound, `no tag "v1.0.0"`)
	snap, err := m.At(t.Context(), src, was)
	if err != nil {
		t.Fatal(err)
	}
	wantFile(t, snap, "a", "1")
}

func TestRelationOfVersions(t *testing.T) {
	a, b := plumbing.NewHash(strings.Repeat("0a", 20)), plumbing.NewHash(strings.Repeat("0b", 20))
	semver, tag, branch := ref{kind: bySemVer}, ref{kind: byTag, name: "v1.0.0"}, ref{kind: byBranch, name: "main"}
	for _, tc := range []struct {
		by       ref
		from, to revision
		want     source.Relation
		known    bool
	}{
		{semver, revision{"v1.0.0", b}, revision{"v1.1.0", a}, source.Descends, true},
		{semver, revision{"1.9.0", a}, revision{"v1.10.0", a}, source.Descends, true},
		{semver, revision{"v1.1.0", a}, revision{"v1.0.0", b}, source.Precedes, true},
		{semver, revision{"v1.0.0", a}, revision{"v1.0.0", a}, source.Same, true},
		{semver, revision{"v1.0.0", a}, revision{"1.0.0", a}, source.Same, true},
		{semver, revision{"v1.0.0", a}, revision{"v1.0.0", b}, source.Unrelated, true},
		{semver, revision{"v1.0.0+1", a}, revision{"v1.0.0+2", b}, source.Unrelated, true},
		{semver, revision{"v1.0.0-rc.1", a}, revision{"v1.0.0", b}, source.Descends, true},
		{semver, revision{"main", a}, revision{"v1.0.0", b}, source.Unrelated, false},
		{semver, revision{"main", a}, revision{"v1.0.0", a}, source.Same, true},
		{tag, revision{"v1.0.0", a}, revision{"v1.0.0", b}, source.Unrelated, true},
		{tag, revision{"v1.0.0", a}, revision{"v1.0.0", a}, source.Same, true},
		{tag, revision{"v1.0.0", a}, revision{"v1.1.0", b}, source.Unrelated, false},
		{branch, revision{"v1.0.0", a}, revision{"v1.1.0", b}, source.Unrelated, false},
		{branch, revision{"main", a}, revision{"other", a}, source.Same, true},
	} {
		got, known := tc.by.relation(tc.from, tc.to)
		if got != tc.want || known != tc.known {
			t.Errorf("%s, %s to %s: %v %v, want %v %v", tc.by.kind, tc.from.label, tc.to.label, got, known, tc.want, tc.known)
		}
	}
}

// TestHighestIsTheSameForAll: of tags with equal versions every member chooses the same.
func TestHighestIsTheSameForAll(t *testing.T) {
	r, err := parseRange("1.x")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]plumbing.Hash{}
	for i, name := range []string{"1.2.3", "v1.2.3", "v1.2.3+b", "v1.2.3+a", "1.2.2", "v9.0.0"} {
		all[tagPrefix+name] = plumbing.NewHash(strings.Repeat("0"+string(rune('1'+i)), 20))
	}
	for range 50 { // a map gives them in another order each time
		if label, _, ok := r.highest(all); !ok || label != "v1.2.3+b" {
			t.Fatalf("%q %v", label, ok)
		}
	}
}

func FuzzRevision(f *testing.F) {
	f.Add("main@sha1:0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a")
	f.Add("refs/pull/4/head@sha1:0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a")
	f.Fuzz(func(t *testing.T, raw string) {
		if r, err := parseRevision(fleet.Revision(raw)); err == nil && string(revisionOf(r.label, r.commit)) != raw {
			t.Errorf("%q became %q", raw, revisionOf(r.label, r.commit))
		}
	})
}
