// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/cmd/internal/readapi"
)

// TestWaitingIsNoNews: a member that still differs is not printed again each time somebody looks; one that agrees is.
func TestWaitingIsNoNews(t *testing.T) {
	o := getMembers{listing: listing{columns: holdColumns}, row: holdCells}
	p := changes{listing: o.listing}
	key := func(m readapi.FleetMember) string { return p.key(o.rows([]readapi.FleetMember{m})[0]) }
	ago := 3.0
	m := readapi.FleetMember{Name: "eu-1", HeardSeconds: &ago, DiffersSeconds: 12, Root: fleet.Digest{1}}
	before := key(m)
	later, more := m, 9.0
	later.HeardSeconds, later.DiffersSeconds = &more, 18
	if key(later) != before {
		t.Error("six seconds more of the same are news")
	}
	for what, change := range map[string]func(*readapi.FleetMember){
		"agrees": func(m *readapi.FleetMember) { m.SameState = true }, "doubted": func(m *readapi.FleetMember) { m.Doubted = true },
		"forked": func(m *readapi.FleetMember) { m.Forked = true }, "another root": func(m *readapi.FleetMember) { m.Root = fleet.Digest{2} },
		"connected": func(m *readapi.FleetMember) { m.Connected = true },
	} {
		changed := m
		change(&changed)
		if key(changed) == before {
			t.Errorf("%s is no news", what)
		}
	}
}

// TestHearsayIsMarked: what other zones tell stands in no count of a stage, and is called what it is.
func TestHearsayIsMarked(t *testing.T) {
	o := getParts{rollouts: []string{"web"}}
	r := readapi.Rollout{Name: "web", Stages: []readapi.Stage{{
		Name: "eu", Phase: "Waiting", Clusters: 1000, Succeeded: 12, Because: "eu: waits for stage canary",
		ByReport: &readapi.Reported{Clusters: 750, Succeeded: 240, Failed: 2, Degraded: 1},
	}}}
	var cells []string
	for _, c := range (&app{}).stageRows(&o, &r)[0].cells {
		cells = append(cells, c.text)
	}
	line := strings.Join(cells, "|")
	if !strings.Contains(line, "|12/1000|0|") || !strings.HasSuffix(line, "|by report 240/750 done, 3 failed; waits for stage canary") {
		t.Errorf("the row is %s", line)
	}
}
