// SPDX-License-Identifier: Apache-2.0

package git

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

func TestFirstParents(t *testing.T) {
	o, m := newOrigin(t), newMirrors(t, Limits{})
	root := o.push(files{"fleet.yaml": "1", "members/a.yaml": "a"})
	side := o.commit(files{"fleet.yaml": "1", "members/b.yaml": "b"}, root)
	second := o.push(files{"fleet.yaml": "2", "members/a.yaml": "a"})
	third := o.commit(files{"fleet.yaml": "2", "members/a.yaml": "a", "rollouts/r.yaml": "r"}, second, side)
	o.set("main", third)
	latest(t, m, o.src())
	o.breakWith(http.NotFound) // the history is read from here

	var folders, got []string
	for c, err := range m.FirstParents(t.Context(), o.src(), onMain(third)) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%s %d %s", c.Revision, c.Depth, c.Subject))
		members, err := c.Folder("members")
		if err != nil {
			t.Fatal(err)
		}
		folders = append(folders, members)
		rollouts, err := c.Folder("rollouts")
		if err != nil || (rollouts != "") != (c.Depth == 2) {
			t.Errorf("depth %d: folder rollouts %q, %v", c.Depth, rollouts, err)
		}
		if none, err := c.Folder("fleet.yaml"); err != nil || none != "" {
			t.Errorf("a file is a folder: %q, %v", none, err)
		}
	}
	want := fmt.Sprintf("%s 2 change 4\n%s 1 change 3\n%s 0 change 1", onMain(third), onMain(second), onMain(root))
	if strings.Join(got, "\n") != want {
		t.Errorf("history:\n%s\nwant:\n%s", strings.Join(got, "\n"), want)
	}
	if folders[0] != folders[1] || folders[1] != folders[2] || folders[0] != o.tree(files{"a.yaml": "a"}).String() {
		t.Errorf("the folder members never changed, but is %v", folders)
	}

	// Only a part, of another end, and the files of each.
	for c, err := range m.FirstParents(t.Context(), o.src(), fleet.Revision("sha1:"+second.String())) {
		if err != nil {
			t.Fatal(err)
		}
		if c.Revision != fleet.Revision("sha1:"+second.String()) || c.Depth != 1 {
			t.Errorf("%s at depth %d", c.Revision, c.Depth)
		}
		wantFile(t, c.Snapshot, "fleet.yaml", "2")
		break
	}
	for _, err := range m.FirstParents(t.Context(), o.src(), onMain(plumbing.NewHash(strings.Repeat("55", 20)))) {
		wantError(t, err, fleet.Retryable, v1alpha1.ReasonFetchFailed, "404")
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	steps := 0
	for _, err := range m.FirstParents(ctx, o.src(), onMain(third)) {
		cancel()
		if steps++; steps == 2 && !errors.Is(err, context.Canceled) {
			t.Errorf("after the context ended: %v", err)
		}
	}
	if steps != 2 {
		t.Errorf("%d steps", steps)
	}
}

// TestDepthIsTheSameForAll: however the history came here, in one fetch or in many.
func TestDepthIsTheSameForAll(t *testing.T) {
	o, early := newOrigin(t), newMirrors(t, Limits{})
	var head plumbing.Hash
	for i := range 40 {
		head = o.push(files{"a": fmt.Sprint(i)})
		if i%7 == 0 {
			latest(t, early, o.src())
		}
	}
	latest(t, early, o.src())
	late := newMirrors(t, Limits{})
	latest(t, late, o.src())
	for _, m := range []*Mirrors{early, late} {
		next := uint64(39)
		for c, err := range m.FirstParents(t.Context(), o.src(), onMain(head)) {
			if err != nil || c.Depth != next {
				t.Fatalf("depth %d, %v; want %d", c.Depth, err, next)
			}
			next--
		}
	}
}
