// SPDX-License-Identifier: Apache-2.0

package readapi

import (
	"testing"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/cmd/internal/readapi/readapitest"
)

// began is when the stories of the tests begin.
var began = readapitest.Began()

var idOf, member = readapitest.IDOf, readapitest.Member

// world is a readapitest.World whose slips end the test.
type world struct {
	*readapitest.World
	t testing.TB
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w, err := readapitest.New()
	if err != nil {
		t.Fatal(err)
	}
	return &world{w, t}
}

func (w *world) tell(lines ...string) *world {
	w.t.Helper()
	if err := w.Tell(lines...); err != nil {
		w.t.Fatal(err)
	}
	return w
}

// seenFrom gives the input of a member.
func (w *world) seenFrom(name fleet.Name) Input {
	return Input{
		Name: w.Plan.Rollout, Plan: w.Plan, Facts: w, History: w, Self: member(name),
		Author: fleet.AuthorGit, Subject: "raise the limits",
		Origin: &v1alpha1.Origin{Type: "Repository", Name: "https://git.example/fleet", Revision: "main@sha1:77ab01c"},
	}
}
