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

// TestPresenceInWords: what is shown goes by what the agent makes of a silence, whose pace it knows, and not by how long
// that is; and no silence is a failure.
func TestPresenceInWords(t *testing.T) {
	second, hour := 1.0, 3600.0
	for name, c := range map[string]struct {
		presence     string
		ago          *float64
		self         bool
		ready, heard string
		mark, words  string
	}{
		"heard":                {presence: readapi.PresenceHeard, ago: &second, ready: "True", heard: "1s ago"},
		"heard, in its time":   {presence: readapi.PresenceHeard, ago: &hour, ready: "True", heard: "60m ago"},
		"quiet":                {presence: readapi.PresenceQuiet, ago: &hour, ready: "Unknown", heard: "quiet, 60m ago", mark: "?", words: "not heard for 60m"},
		"quiet, soon":          {presence: readapi.PresenceQuiet, ago: &second, ready: "Unknown", heard: "quiet, 1s ago", mark: "?", words: "not heard for 1s"},
		"lost by others":       {presence: readapi.PresenceDoubted, ago: &second, ready: "Unknown", heard: "doubted, 1s ago", mark: "?", words: "not heard for 1s, and lost by members next to it"},
		"never":                {presence: readapi.PresenceUnheard, ready: "Unknown", heard: "never", mark: "?", words: "not heard since this agent began"},
		"itself":               {presence: readapi.PresenceHeard, self: true, ready: "True", heard: "self"},
		"itself, alone":        {presence: readapi.PresenceAlone, self: true, ready: "True", heard: "self, alone"},
		"said by no agent":     {ago: &hour, ready: "True", heard: "60m ago"},
		"not said, not heard":  {ready: "Unknown", heard: "never", mark: "?", words: "not heard since this agent began"},
		"a word of the future": {presence: "Ringing", ago: &second, ready: "Unknown", heard: "1s ago", mark: "?", words: "not heard for 1s"},
	} {
		t.Run(name, func(t *testing.T) {
			fm := readapi.FleetMember{Presence: c.presence, HeardSeconds: c.ago, Self: c.self}
			if got := readyOf(fm); got != c.ready {
				t.Errorf("READY is %s", got)
			}
			if got := heardCell(fm).text; got != c.heard {
				t.Errorf("HEARD is %q", got)
			}
			m := &readapi.Member{State: "Pending", Presence: c.presence, HeardSeconds: c.ago, Self: c.self}
			if mark := strings.TrimSpace(strings.TrimSuffix(stateCell(m.State, unheard(m)).text, m.State)); mark != c.mark {
				t.Errorf("marked %q", mark)
			}
			if unheard(m) && silence(m) != c.words {
				t.Errorf("in words: %s", silence(m))
			}
			line := printer{app: &app{}, width: 200}.movingLine(m, 4)
			if strings.Contains(line, "Failed") || strings.Contains(line, "✗") {
				t.Errorf("a silence is called a failure: %s", line)
			}
		})
	}
}
