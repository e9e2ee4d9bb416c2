// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/cmd/internal/readapi"
)

func (a *app) runFrame(ctx context.Context, name string) error {
	r, err := a.rolloutOf(ctx, name)
	if err != nil {
		return err
	}
	printer{app: a, out: a.Out, width: a.width()}.frame(&r)
	return nil
}

// printer of a frame: a screen has another writer than a command, and a width that changes.
type printer struct {
	*app
	out   io.Writer
	width int
}

// frame shows how a rollout stands: its stages with bars, who moves, and the sentence.
func (p printer) frame(r *readapi.Rollout) {
	fmt.Fprintln(p.out, clip(headline(r), p.width))
	if len(r.Stages) > 0 {
		p.stages(r)
	}
	p.moving(r, mostMoving)
	p.verdict(r)
}

// verdict is the sentence, and what helps.
func (p printer) verdict(r *readapi.Rollout) {
	c := r.Condition(v1alpha1.ConditionReady)
	fmt.Fprintf(p.out, "\nReady %s", c.Status)
	if c.Message != "" {
		first := "Ready " + c.Status + ": "
		fmt.Fprintf(p.out, ": %s", wrapTo(p.width, c.Message, len(first), 2))
	}
	fmt.Fprintln(p.out)
	if member, halted := whyHalted(r); halted {
		fmt.Fprintln(p.out, wrapTo(p.width, fmt.Sprintf("to see why: %s explain %s %s -n %s", p.name, r.Name, member, r.Namespace), 0, 2))
	}
	for _, stop := range r.Stops {
		hint := fmt.Sprintf("to lift it: %s resume %s -n %s (at %s)", p.name, r.Name, r.Namespace, stop.By)
		fmt.Fprintln(p.out, wrapTo(p.width, hint, 0, 2))
	}
}

// Columns of the table of stages; together with the names they fill the width.
const (
	mostStageName = 16
	barWidth      = 30
	// leastBar and mostBar of a screen that is narrower or wider.
	leastBar, mostBar = 8, 100
)

func (p printer) stages(r *readapi.Rollout) {
	room := p.bars()
	name := len("STAGE")
	for i := range r.Stages {
		name = max(name, min(mostStageName, len(r.Stages[i].Name)))
	}
	row := func(front, bar string, numbers [4]string) {
		line := pad(front, name) + "  " + bar + " "
		for i, to := range [4]int{9, 6, 6, 7} {
			line += padLeft(numbers[i], to)
		}
		fmt.Fprintln(p.out, strings.TrimRight(line, " "))
	}
	fmt.Fprint(p.out, "\n  ")
	row("STAGE", pad("CLUSTERS", room), [4]string{"DONE", "FAIL", "QUIET", "FOR"})
	for i := range r.Stages {
		s := &r.Stages[i]
		members := membersOf(r, s.Name)
		quiet := 0
		for _, m := range members {
			if unheard(m) {
				quiet++
			}
		}
		fmt.Fprint(p.out, p.mark(s.Phase), " ")
		row(clip(s.Name, mostStageName), p.bar(members, room), [4]string{
			fmt.Sprintf("%d/%d", s.Succeeded, s.Clusters), fmt.Sprint(s.Failed + s.Degraded), fmt.Sprint(quiet), p.took(s, members),
		})
	}
}

// bars take what the columns beside them leave.
func (p printer) bars() int {
	return min(max(leastBar, p.width-(width-barWidth)), mostBar)
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
	mark, color := markOf(phase)
	return a.paint(color, mark)
}

func markOf(phase string) (string, paint) {
	switch phase {
	case "Complete":
		return "✓", green
	case "Failed", "Degraded", "Removed":
		return "✗", red
	case "Progressing", "Soaking":
		return "▶", yellow
	}
	return " ", ""
}

// share of a bar.
type share struct {
	char  string
	color paint
}

// shares in the order in which a bar shows them.
var shares = []share{{"█", green}, {"▓", green}, {"▒", yellow}, {"✗", red}, {"?", yellow}, {"-", grey}, {"·", grey}}

// shareOf a member: an index of shares.
func shareOf(m *readapi.Member) int {
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

// unheard: how it stands now is not known here. That is no failure.
func unheard(m *readapi.Member) bool {
	return !m.Self && presenceOf(m.Presence, m.HeardSeconds) != readapi.PresenceHeard
}

// silence of a member that is unheard, in words.
func silence(m *readapi.Member) string {
	words := "not heard since this agent began"
	if m.HeardSeconds != nil {
		words = "not heard for " + age(seconds(*m.HeardSeconds))
	}
	if m.Presence == readapi.PresenceDoubted {
		words += ", and lost by members next to it"
	}
	return words
}

// bar of a stage: a character per cluster, or to scale where there are more clusters than room.
func (a *app) bar(members []*readapi.Member, room int) string {
	counts := make([]int, len(shares))
	for _, m := range members {
		counts[shareOf(m)]++
	}
	var out strings.Builder
	drawn := 0
	for i, n := range toScale(counts, room) {
		out.WriteString(a.paint(shares[i].color, strings.Repeat(shares[i].char, n)))
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

// moving are the members that something is to be said about, at most so many.
func (p printer) moving(r *readapi.Rollout, most int) {
	var list []*readapi.Member
	name := 0
	for i := range r.Members {
		m := &r.Members[i]
		if done := m.State == "Complete" || m.State == "Ineligible" || m.State == "Removed"; done || m.State == "Pending" && !unheard(m) {
			continue
		}
		list = append(list, m)
	}
	slices.SortStableFunc(list, func(a, b *readapi.Member) int { return cmp.Compare(urgency(a), urgency(b)) })
	shown := list[:min(len(list), most)]
	for _, m := range shown {
		name = max(name, len(m.Name))
	}
	if len(list) > 0 {
		fmt.Fprintln(p.out)
	}
	for _, m := range shown {
		fmt.Fprintln(p.out, p.movingLine(m, name))
	}
	if more := len(list) - len(shown); more > 0 {
		fmt.Fprintf(p.out, "  and %d more\n", more)
	}
}

func (p printer) movingLine(m *readapi.Member, name int) string {
	mark, state, why := p.mark(m.State), m.State, whyOf(m)
	if unheard(m) && m.State != "Failed" && m.State != "Degraded" {
		mark, state = p.paint(yellow, "?"), presenceOf(m.Presence, m.HeardSeconds)
		why = silence(m) + "; " + why
	}
	front := pad(string(m.Name), name) + "  " + pad(state, longestWhat) + "  "
	indent := columns(front) + 2
	return mark + " " + front + wrapTo(p.width, why, indent, indent)
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
