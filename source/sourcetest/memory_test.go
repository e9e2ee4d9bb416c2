// SPDX-License-Identifier: Apache-2.0

package sourcetest

import (
	"errors"
	"io/fs"
	"testing"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/source"
)

func spec(ref v1alpha1.GitRef) source.Origin {
	return source.Origin{Source: v1alpha1.Source{Git: &v1alpha1.GitSource{URL: "https://git.example/x", Ref: &ref}}}
}

func TestMemory(t *testing.T) {
	Test(t, func(*testing.T) Fixture {
		m := &Memory{}
		return Fixture{
			Source: m,
			Follow: func(branch string) source.Origin { return spec(v1alpha1.GitRef{Branch: branch}) },
			Pin:    func(commit string) source.Origin { return spec(v1alpha1.GitRef{Commit: commit}) },
			Commit: func(branch string, files map[string]string) fleet.Revision { return m.Commit(branch, Files(files)) },
			Merge: func(branch string, second fleet.Revision, files map[string]string) fleet.Revision {
				return m.Commit(branch, Files(files), second)
			},
			Ask:   spec,
			Tag:   m.Tag,
			Reset: m.Reset,
			Cut:   func() { m.Fail(errors.New("away")) },
		}
	})
}

func TestMemoryIsDeterministic(t *testing.T) {
	var a, b Memory
	for _, m := range []*Memory{&a, &b} {
		m.Commit("main", Txtar("-- x --\n1\n"))
	}
	if x, y := a.Commit("main", Txtar("-- x --\n2\n")), b.Commit("main", Txtar("-- x --\n2\n")); x != y {
		t.Errorf("equal steps give %s and %s", x, y)
	}
	if x, y := a.Commit("main", Txtar("-- x --\n3\n")), b.Commit("main", Txtar("-- x --\n4\n")); x == y {
		t.Errorf("other files give %s as well", x)
	}
}

func TestMemoryCountsLooks(t *testing.T) {
	var m Memory
	rev := m.Commit("main", Txtar("-- x --\n1\n"))
	for range 3 {
		if _, err := m.Latest(t.Context(), source.Origin{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.At(t.Context(), source.Origin{}, rev); err != nil || m.Looks() != 3 {
		t.Errorf("%d looks, %v; want 3: what is held is not asked for", m.Looks(), err)
	}
}

func TestTxtar(t *testing.T) {
	files := Txtar("a comment\n-- a.yaml --\nkind: A\n-- b/c --\n-- b/d --\nd\n")
	for name, want := range map[string]string{"a.yaml": "kind: A\n", "b/c": "", "b/d": "d\n"} {
		if got, err := fs.ReadFile(files, name); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
	}
}

func TestByURL(t *testing.T) {
	var one, two Memory
	first := one.Commit("main", Txtar("-- x --\n1\n"))
	second := two.Commit("main", Txtar("-- x --\n2\n"))
	all := ByURL{"https://git.example/1": &one, "https://git.example/2": &two}
	for url, want := range map[string]fleet.Revision{"https://git.example/1": first, "https://git.example/2": second} {
		src := source.Origin{Source: v1alpha1.Source{Git: &v1alpha1.GitSource{URL: url}}}
		if snap, err := all.Latest(t.Context(), src); err != nil || snap.Revision != want {
			t.Errorf("%s: %s, %v; want %s", url, snap.Revision, err, want)
		}
		if snap, err := all.At(t.Context(), src, want); err != nil || snap.Revision != want {
			t.Errorf("%s: %s, %v; want %s", url, snap.Revision, err, want)
		}
		if got, err := all.Relation(t.Context(), src, want, want); err != nil || got.String() != "same" {
			t.Errorf("%s: %v, %v", url, got, err)
		}
		for c, err := range all.FirstParents(t.Context(), src, want) {
			if err != nil || c.Revision != want || c.Depth != 0 {
				t.Errorf("%s: %s at depth %d, %v", url, c.Revision, c.Depth, err)
			}
		}
	}
	_, err := all.Latest(t.Context(), source.Origin{Source: v1alpha1.Source{Git: &v1alpha1.GitSource{URL: "https://git.example/3"}}})
	wantReason(t, err, v1alpha1.ReasonFetchFailed)
}
