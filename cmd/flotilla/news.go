// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/cmd/internal/readapi"
)

// entry is one line of a watch.
type entry struct {
	at            time.Time
	stage, member string
	what, why     string
}

// news are the lines for what a view says and the last one did not. Each fact is a line with the time
// at which it was signed, however many come with one view. The first view of a plan tells only who is
// at work or in trouble: what is long done is in the stages' counts.
func (f *follower) news(r *readapi.Rollout) []string {
	var lines []string
	first := f.facts == nil || f.plan != r.Plan
	if first {
		f.begin(r)
		lines = append(lines, headline(r))
	}
	now := f.now()
	var entries []entry
	for i := range r.Members {
		entries = append(entries, f.memberNews(&r.Members[i], first, now)...)
	}
	slices.SortStableFunc(entries, func(a, b entry) int { return cmp.Compare(a.at.Unix(), b.at.Unix()) })
	for i := range r.Stages {
		if s := &r.Stages[i]; f.phases[s.Name] != s.Phase {
			f.phases[s.Name] = s.Phase
			entries = append(entries, entry{at: now, stage: s.Name, member: fmt.Sprintf("%d/%d", s.Succeeded, s.Clusters), what: s.Phase, why: s.Because})
		}
	}
	if c := r.Condition(v1alpha1.ConditionReady); first || c.Status != f.ready.Status || c.Reason != f.ready.Reason {
		f.ready = c
		entries = append(entries, entry{at: now, what: orElse(c.Reason, c.Status), why: c.Message})
	}
	for _, e := range entries {
		lines = append(lines, f.line(e))
	}
	return lines
}

// begin a plan: nothing of it was printed.
func (f *follower) begin(r *readapi.Rollout) {
	f.plan, f.facts, f.phases, f.ready = r.Plan, map[fleet.Name]int{}, map[string]string{}, readapi.Condition{}
	f.widths.stage, f.widths.name = 0, 0
	for i := range r.Stages {
		f.widths.stage = max(f.widths.stage, len(r.Stages[i].Name))
	}
	for i := range r.Members {
		f.widths.name = max(f.widths.name, len(r.Members[i].Name), len("999/999"))
	}
}

func headline(r *readapi.Rollout) string {
	out := r.Namespace + "/" + r.Name
	if r.Plan.IsZero() {
		return fmt.Sprintf("%s  no plan yet  seen from %s", out, r.SeenFrom)
	}
	out += "  " + r.Revision.Short()
	if r.Subject != "" {
		out += fmt.Sprintf(" %q", clip(plain(r.Subject), 40))
	}
	return fmt.Sprintf("%s  plan %s  seen from %s", out, r.Plan.Short(), r.SeenFrom)
}

// moving are the states that the first view tells.
var moving = []string{"Progressing", "Soaking", "Failed", "Degraded"}

func (f *follower) memberNews(m *readapi.Member, first bool, now time.Time) []entry {
	from := min(f.facts[m.Name], len(m.Facts))
	f.facts[m.Name] = len(m.Facts)
	if first {
		if !slices.Contains(moving, m.State) {
			return nil
		}
		from = max(0, len(m.Facts)-1)
	}
	var out []entry
	for _, fact := range m.Facts[from:] {
		if fact.Kind == fleet.Accepted.String() {
			continue
		}
		e := entry{at: fact.Time, stage: m.Stage, member: string(m.Name), what: fact.Kind, why: fact.Detail}
		if e.why == "" && fact.Kind == fleet.Started.String() && m.State == "Progressing" {
			e.why = m.Because
		}
		if e.at.IsZero() {
			e.at = now
		}
		out = append(out, e)
	}
	return out
}

// longest of the words in the column of what happened.
const longestWhat = len("Progressing")

func (f *follower) line(e entry) string {
	at := e.at.In(f.now().Location()).Format(time.TimeOnly)
	line := fmt.Sprintf("%s  %s  %s  %s  %s", f.paint(grey, at), pad(e.stage, f.widths.stage), pad(e.member, f.widths.name),
		f.paint(colourOf(e.what), pad(e.what, longestWhat)), plain(e.why))
	return strings.TrimRight(line, " ")
}

func colourOf(what string) paint {
	switch what {
	case "Failed", "GaveUp", "Degraded", "Halted":
		return red
	case "Succeeded", "Soaked", "Complete", v1alpha1.ReasonRolloutComplete, v1alpha1.ReasonRolloutCompleteWithExceptions:
		return green
	case "Paused", "Suspended", "Waiting", "Yielded", "NotHeard":
		return yellow
	}
	return ""
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
