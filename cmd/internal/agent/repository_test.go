// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"maps"
	"testing"

	"github.com/go-logr/logr"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/source"
	"github.com/flotilla-dev/flotilla/source/sourcetest"
)

// shelf is a fleet repository in memory, read by as many agents as a test wants.
type shelf struct {
	t     *testing.T
	git   *sourcetest.Memory
	files map[string]string
}

func newShelf(t *testing.T) *shelf {
	return &shelf{t: t, git: &sourcetest.Memory{}, files: map[string]string{}}
}

// commit a change of some files; an empty body takes a file out.
func (s *shelf) commit(changes map[string]string) fleet.Revision {
	maps.Copy(s.files, changes)
	maps.DeleteFunc(s.files, func(_, body string) bool { return body == "" })
	return s.git.Commit("main", sourcetest.Files(s.files))
}

func (s *shelf) reader() *Repository {
	return &Repository{
		Source: s.git, Origin: source.Origin{Source: v1alpha1.Source{Git: &v1alpha1.GitSource{URL: "https://git.example.com/fleet"}}},
		OnContent: func(RepositoryContent) {}, Log: logr.Discard(),
	}
}

func (s *shelf) read(r *Repository) error {
	s.t.Helper()
	src := r.Origin
	snap, err := s.git.Latest(s.t.Context(), src)
	if err != nil {
		s.t.Fatal(err)
	}
	if snap.Revision == r.content.Revision {
		return nil
	}
	return r.take(s.t.Context(), src, snap)
}

func member(n int) string {
	id := IDOf(keyOf(fmt.Sprint(n)))
	return fmt.Sprintf("apiVersion: fleet.flotilla.dev/v1alpha1\nkind: FleetMember\nmetadata: {name: m%d}\nspec: {peerID: %s}\n", n, id)
}

func webRollout(extra string) string {
	return "apiVersion: fleet.flotilla.dev/v1alpha1\nkind: FleetRollout\nmetadata: {name: web, namespace: shop}\n" +
		"spec:\n  source: {git: {url: \"https://git.example.com/web\"}}\n  targets: {names: [\"*\"]}\n" + extra
}

var shopWeb = fleet.RolloutName{Namespace: "shop", Name: "web"}

// Agents that read every commit and one that reads only the last agree on each seal, and a commit
// that says nothing new of a rollout makes no new seal of it (R1).
func TestSealNumbers(t *testing.T) {
	s := newShelf(t)
	follower := s.reader()
	for _, step := range []struct {
		what    string
		changes map[string]string
		number  uint64
	}{
		{"declared", map[string]string{"members/1.yaml": member(1), "rollouts/web.yaml": webRollout("")}, 1},
		{"a word in the README", map[string]string{"README.md": "hello"}, 1},
		{"another rollout", map[string]string{"rollouts/b.yaml": "# nothing yet\n"}, 1},
		{"an interval, which is not sealed", map[string]string{"rollouts/web.yaml": webRollout("  suspend: true\n")}, 1},
		{"the spec", map[string]string{"rollouts/web.yaml": webRollout("  strategy: {type: AllAtOnce}\n")}, 5},
		{"the roster", map[string]string{"members/2.yaml": member(2)}, 6},
		{"nothing again", map[string]string{"README.md": "hello again"}, 6},
		{"back to what it was", map[string]string{"members/2.yaml": ""}, 8},
	} {
		s.commit(step.changes)
		newcomer := s.reader()
		for who, r := range map[string]*Repository{"the follower": follower, "a newcomer": newcomer} {
			if err := s.read(r); err != nil {
				t.Fatalf("%s: %s: %v", step.what, who, err)
			}
			if got := r.content.Rollouts[shopWeb].Number; got != step.number {
				t.Errorf("%s: %s numbers it %d, want %d", step.what, who, got, step.number)
			}
		}
		if follower.content.Rollouts[shopWeb].Digest() != newcomer.content.Rollouts[shopWeb].Digest() {
			t.Errorf("%s: the two seals differ", step.what)
		}
	}
}

// What cannot be read takes nothing back: the last good word stays (R12).
func TestRepositoryFaults(t *testing.T) {
	s := newShelf(t)
	r := s.reader()
	homes := &Homes{Ledger: NewMeshLedger(nil)}
	r.OnContent = homes.Declare
	s.commit(map[string]string{"members/1.yaml": member(1), "rollouts/web.yaml": webRollout("")})
	if err := s.read(r); err != nil {
		t.Fatal(err)
	}
	good := r.content.Rollouts[shopWeb].Digest()
	for what, body := range map[string]string{"a misspelt field": webRollout("  strateggy: {}\n"), "no YAML": "\t:", "no target": webRollout("") + "  # \n"} {
		if what == "no target" {
			body = "apiVersion: fleet.flotilla.dev/v1alpha1\nkind: FleetRollout\nmetadata: {name: web, namespace: shop}\n" +
				"spec:\n  source: {git: {url: \"https://git.example.com/web\"}}\n  targets: {names: [mars]}\n"
		}
		s.commit(map[string]string{"rollouts/web.yaml": body})
		if err := s.read(r); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if got, ok := r.content.Rollouts[shopWeb]; !ok || got.Digest() != good {
			t.Errorf("%s: the last good seal is gone", what)
		}
		if homes.Gone(shopWeb) {
			t.Errorf("%s counts as taken out", what)
		}
	}
	s.commit(map[string]string{"rollouts/web.yaml": webRollout(""), "members/1.yaml": "\t:"})
	if err := s.read(r); err == nil {
		t.Error("a commit with a broken roster was taken")
	}
	s.commit(map[string]string{"members/1.yaml": member(1), "rollouts/web.yaml": ""})
	if err := s.read(r); err != nil {
		t.Fatal(err)
	}
	if !homes.Gone(shopWeb) {
		t.Error("taking the file out is a positive statement")
	}
}

func TestRepositoryForcePush(t *testing.T) {
	s := newShelf(t)
	r := s.reader()
	first := s.commit(map[string]string{"members/1.yaml": member(1), "rollouts/web.yaml": webRollout("")})
	s.commit(map[string]string{"members/2.yaml": member(2)})
	if err := s.read(r); err != nil {
		t.Fatal(err)
	}
	s.git.Reset("main", first)
	s.commit(map[string]string{"members/2.yaml": "", "members/3.yaml": member(3)})
	if err := s.read(r); err == nil {
		t.Fatal("a rewritten history was followed")
	}
	if len(r.content.Members) != 2 {
		t.Errorf("the roster has %d members", len(r.content.Members))
	}
}
