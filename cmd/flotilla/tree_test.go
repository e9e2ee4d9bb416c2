// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-dev/flotilla/cmd/internal/readapi"
)

// TestObjectsInTheTree: what is in trouble stands first, each with its own mark and reason.
func TestObjectsInTheTree(t *testing.T) {
	object := func(name, health, because string) readapi.Object {
		return readapi.Object{Kind: "Deployment", Namespace: "apps", Name: name, Health: health, Because: because}
	}
	for name, test := range map[string]struct {
		objects readapi.Objects
		want    []string
	}{
		"each as it is": {
			readapi.Objects{Total: 4, Because: "Deployment apps/c: crashed", Items: []readapi.Object{
				{Kind: "Namespace", Name: "old", Left: true}, object("a", readapi.ObjectHealthy, ""),
				object("b", readapi.ObjectNotReady, "0 of 3 ready"), object("c", readapi.ObjectFailed, "crashed\x1b[2J"),
			}},
			[]string{"✗ Deployment apps/c  crashed [2J", "▶ Deployment apps/b  0 of 3 ready", "✓ Deployment apps/a", "  Namespace old  left by an earlier release"},
		},
		"their health could not be read": {
			readapi.Objects{Total: 1, Because: "web may not get Deployments", Items: []readapi.Object{object("a", "", "")}},
			[]string{"  Deployment apps/a", "  of those without a mark: web may not get Deployments"},
		},
		"nothing": {readapi.Objects{Because: "nothing has been delivered yet"}, []string{"  nothing was delivered here yet"}},
	} {
		var got []string
		for _, b := range (&app{}).objectBranches(&test.objects, false) {
			got = append(got, b.line)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s: -want +got:\n%s", name, diff)
		}
	}
}
