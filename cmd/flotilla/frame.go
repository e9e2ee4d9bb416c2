// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/cmd/internal/readapi"
)

func (a *app) runFrame(ctx context.Context, name fleet.RolloutName) error {
	ctx, cancel := a.soon(ctx)
	defer cancel()
	agent, err := a.agent(ctx)
	if err != nil {
		return err
	}
	r, err := agent.Rollout(ctx, name)
	if err != nil {
		return err
	}
	a.printFrame(&r)
	return nil
}

// printFrame shows how a rollout stands: its stages with bars, who moves, and the sentence.
func (a *app) printFrame(r *readapi.Rollout) {
	fmt.Fprintln(a.Out, headline(r))
	if len(r.Stages) > 0 {
		a.printStages(r)
	}
	a.printMoving(r)
	c := r.Condition(v1alpha1.ConditionReady)
	fmt.Fprintf(a.Out, "\nReady %s", c.Status)
	if c.Message != "" {
		first := "Ready " + c.Status + ": "
		fmt.Fprintf(a.Out, ": %s", wrap(c.Message, len(first), 2))
	}
	fmt.Fprintln(a.Out)
	for _, stop := range r.Stops {
		hint := fmt.Sprintf("to lift it: %s resume %s -n %s (at %s)", a.name, r.Name, r.Namespace, stop.By)
		fmt.Fprintln(a.Out, wrap(hint, 0, 2))
	}
}

// Columns of the table of stages; together with the names they fill the width.
const (
	mostStageName = 16
	barWidth      = 30
)

func (a *app) printStages(r *readapi.Rollout) {
	name := len("STAGE")
	for i := range r.Stages {
		name = max(name, min(mostStageName, len(r.Stages[i].Name)))
	}
	row := func(front, bar string, numbers [4]string) {
		line := pad(front, name) + "  " + bar + " "
		for i, to := range [4]int{9, 6, 6, 7} {
			line += padLeft(numbers[i], to)
		}
		fmt.Fprintln(a.Out, strings.TrimRight(line, " "))
	}
	fmt.Fprint(a.Out, "\n  ")
	row("STAGE", pad("CLUSTERS", barWidth), [4]string{"DONE", "FAIL", "OFFL", "FOR"})
	for i := range r.Stages {
		s := &r.Stages[i]
		members := membersOf(r, s.Name)
		offline := 0
		for _, m := range members {
			if unheard(m) {
				offline++
			}
		}
		fmt.Fprint(a.Out, a.mark(s.Phase), " ")
		row(clip(s.Name, mostStageName), a.bar(members, barWidth), [4]string{
			fmt.Sprintf("%d/%d", s.Succeeded, s.Clusters), fmt.Sprint(s.Failed + s.Degraded), fmt.Sprint(offline), a.took(s, members),
		})
	}
}

func membersOf(r *readapi.Rollout, stage string) []*readapi.Member {
	var out []*readapi.Member
	for i := range r.Members {
		if r.Members[i].Stage == stage {
			out = append(out, &r.Members[i])
		}
	}
	return out
}

// mark of a phase or state: shape as well as colour.
func (a *app) mark(phase string) string {
	switch phase {
	case "Complete":
		return a.paint(green, "✓")
	case "Failed", "Degraded":
		return a.paint(red, "✗")
	case "Progressing", "Soaking":
		return a.paint(yellow, "▶")
	}
	return " "
}

// cell of a bar.
type cell struct {
	char  string
	color paint
}

// cells in the order in which a bar shows them.
var cells = []cell{{"█", green}, {"▓", green}, {"▒", yellow}, {"✗", red}, {"?", yellow}, {"-", grey}, {"·", grey}}

// cellOf a member: an index of cells.
func cellOf(m *readapi.Member) int {
	switch m.State {
	case "Complete":
		return 0
	case "Soaking":
		return 1
	case "Failed", "Degraded":
		return 3
	case "Ineligible":
		return 5
	}
	switch {
	case unheard(m):
		return 4
	case m.State == "Progressing":
		return 2
	}
	return 6
}

func unheard(m *readapi.Member) bool {
	return !m.Self && (m.HeardSeconds == nil || seconds(*m.HeardSeconds) >= unheardAfter)
}

// bar of a stage: a character per cluster, or to scale where there are more clusters than room.
func (a *app) bar(members []*readapi.Member, room int) string {
	counts := make([]int, len(cells))
	for _, m := range members {
		counts[cellOf(m)]++
	}
	var out strings.Builder
	drawn := 0
	for i, n := range toScale(counts, room) {
		out.WriteString(a.paint(cells[i].color, strings.Repeat(cells[i].char, n)))
		drawn += n
	}
	return out.String() + strings.Repeat(" ", max(0, room-drawn))
}

// toScale shrinks counts to at most room, so that whatever is there stays visible: one failed cluster
// of a thousand is the one that matters.
func toScale(counts []int, room int) []int {
	total := 0
	for _, n := range counts {
		total += n
	}
	if total <= room {
		return counts
	}
	out := make([]int, len(counts))
	used := 0
	for i, n := range counts {
		if n > 0 {
			out[i] = max(1, n*room/total)
		}
		used += out[i]
	}
	for ; used > room; used-- { // the longest gives what the shortest were lifted by
		out[slices.Index(out, slices.Max(out))]--
	}
	for ; used < room; used++ { // whoever is furthest below its share gets what rounding left
		most := 0
		for i, n := range counts {
			if n*room-out[i]*total > counts[most]*room-out[most]*total {
				most = i
			}
		}
		out[most]++
	}
	return out
}

// took says how long the stage has been going, or went.
func (a *app) took(s *readapi.Stage, members []*readapi.Member) string {
	var begun, ended time.Time
	for _, m := range members {
		for _, fact := range m.Facts {
			switch {
			case fact.Time.IsZero():
			case fact.Kind == fleet.Started.String() && (begun.IsZero() || fact.Time.Before(begun)):
				begun = fact.Time
			case fact.Kind == fleet.Soaked.String() && fact.Time.After(ended):
				ended = fact.Time
			}
		}
	}
	if begun.IsZero() {
		return ""
	}
	if s.Phase != "Complete" || ended.IsZero() {
		ended = a.now()
	}
	return age(ended.Sub(begun))
}

// mostMoving members that a frame lists.
const mostMoving = 12

func (a *app) printMoving(r *readapi.Rollout) {
	var rows [][2]string // mark and text
	name := 0
	var list []*readapi.Member
	for i := range r.Members {
		m := &r.Members[i]
		if done := m.State == "Complete" || m.State == "Ineligible"; done || m.State == "Pending" && !unheard(m) {
			continue
		}
		list = append(list, m)
		name = max(name, len(m.Name))
	}
	slices.SortStableFunc(list, func(a, b *readapi.Member) int { return cmp.Compare(urgency(a), urgency(b)) })
	for i, m := range list {
		if i == mostMoving {
			rows = append(rows, [2]string{" ", fmt.Sprintf("and %d more", len(list)-mostMoving)})
			break
		}
		mark, state, why := a.mark(m.State), m.State, whyOf(m)
		if unheard(m) && m.State != "Failed" && m.State != "Degraded" {
			mark, state = a.paint(yellow, "?"), "Unheard"
			if m.HeardSeconds == nil {
				why = "not heard since this agent began; " + why
			} else {
				why = fmt.Sprintf("not heard for %s; %s", age(seconds(*m.HeardSeconds)), why)
			}
		}
		front := pad(string(m.Name), name) + "  " + pad(state, longestWhat) + "  "
		indent := len([]rune(front)) + 2
		rows = append(rows, [2]string{mark, front + wrap(why, indent, indent)})
	}
	if len(rows) > 0 {
		fmt.Fprintln(a.Out)
	}
	for _, row := range rows {
		fmt.Fprintln(a.Out, row[0]+" "+row[1])
	}
}

// urgency of a member, lowest first: who is in trouble, at work, soaks, is not heard.
func urgency(m *readapi.Member) int {
	if i := slices.Index([]string{"Failed", "Degraded", "Progressing", "Soaking"}, m.State); i >= 0 {
		return i
	}
	return 4
}

// whyOf a member: what it signed about its trouble, else what is decided about it.
func whyOf(m *readapi.Member) string {
	if n := len(m.Facts); n > 0 && m.Facts[n-1].Detail != "" {
		return m.Facts[n-1].Detail
	}
	return m.Because
}
