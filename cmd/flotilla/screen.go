// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/cmd/internal/readapi"
)

// screen is the live view of a rollout: what was seen last, and what somebody does with the keyboard.
// It asks nobody; what it wants done it returns as commands.
type screen struct {
	app  *app
	name fleet.RolloutName
	// explain a member and pause the rollout are what it may want done.
	explain func(fleet.Name) tea.Msg
	pause   func(reason string) tea.Msg

	width, height int
	mode          mode
	rollout       *readapi.Rollout // nil before the first view
	seen          time.Time
	// interruption says why nothing new comes.
	interruption string
	// note is the outcome of what was done last.
	note string
	// reason that is being typed.
	reason []rune
	// page of text that stands in place of the view, and its first line that is shown.
	page []string
	from int
	// left before the end; over: there is nothing more to wait for.
	left, over bool
}

// mode says what the keys mean.
type mode int

const (
	watching mode = iota
	reading       // a page
	typing        // the reason of a pause
)

// What happens beside the keyboard.
type (
	viewed      struct{ rollout *readapi.Rollout }
	interrupted struct{ err error }
	finished    struct{}
	paged       struct {
		explanation *readapi.Explanation
		err         error
	}
	done struct {
		text string
		err  error
	}
	second struct{}
)

// everySecond the ages on the screen are others.
func everySecond() tea.Cmd { return tea.Tick(time.Second, func(time.Time) tea.Msg { return second{} }) }

// Init is in tea.Model.
func (s screen) Init() tea.Cmd { return everySecond() }

// Update is in tea.Model.
func (s screen) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		s.width, s.height = msg.Width, msg.Height
	case second:
		return s, everySecond()
	case viewed:
		s.rollout, s.seen, s.interruption = msg.rollout, s.app.now(), ""
	case interrupted:
		s.interruption = plain(msg.err.Error())
	case finished:
		s.over = true
		return s, tea.Quit
	case paged:
		return s.explained(msg), nil
	case done:
		if s.note = plain(msg.text); msg.err != nil {
			s.note = plain(msg.err.Error())
		}
	case tea.PasteMsg:
		if s.mode == typing {
			s.reason = append(s.reason, []rune(plain(msg.Content))...)
		}
	case tea.KeyPressMsg:
		return s.key(msg)
	}
	return s, nil
}

func (s screen) explained(msg paged) screen {
	if msg.err != nil {
		s.note = plain(msg.err.Error())
		return s
	}
	var text strings.Builder
	printer{app: s.app, out: &text, width: s.columns()}.explanation(msg.explanation)
	s.mode, s.note = reading, ""
	s.page, s.from = strings.Split(strings.TrimSuffix(text.String(), "\n"), "\n"), 0
	return s
}

func (s screen) key(k tea.KeyPressMsg) (tea.Model, tea.Cmd) {
	if k.String() == "ctrl+c" {
		s.left = true
		return s, tea.Quit
	}
	switch s.mode {
	case typing:
		return s.keyOfReason(k)
	case reading:
		return s.keyOfPage(k), nil
	}
	s.note = ""
	switch k.String() {
	case "q":
		s.left = true
		return s, tea.Quit
	case "e":
		if s.rollout == nil {
			return s, nil
		}
		s.note = "asking ..."
		return s, func() tea.Msg { return s.explain(s.inQuestion()) }
	case "p":
		s.mode, s.reason = typing, nil
	case "?", "h":
		s.mode, s.page, s.from = reading, s.help(), 0
	}
	return s, nil
}

func (s screen) keyOfPage(k tea.KeyPressMsg) screen {
	last := max(0, len(s.page)-s.room())
	switch k.String() {
	case "q", "esc", "e", "?", "enter":
		s.mode, s.page = watching, nil
	case "down", "j":
		s.from = min(s.from+1, last)
	case "up", "k":
		s.from = max(s.from-1, 0)
	case "pgdown", "space":
		s.from = min(s.from+s.room(), last)
	case "pgup":
		s.from = max(s.from-s.room(), 0)
	}
	return s
}

func (s screen) keyOfReason(k tea.KeyPressMsg) (tea.Model, tea.Cmd) {
	switch k.String() {
	case "esc":
		s.mode, s.note = watching, "not paused"
	case "backspace":
		s.reason = s.reason[:max(0, len(s.reason)-1)]
	case "enter":
		reason := strings.TrimSpace(string(s.reason))
		if reason == "" {
			s.note = "say why: everybody who looks at the rollout will see it (esc goes back)"
			return s, nil
		}
		s.mode, s.note = watching, "pausing ..."
		return s, func() tea.Msg { return s.pause(reason) }
	default:
		s.reason = append(s.reason, []rune(plain(k.Text))...)
		if most := fleet.MaxDetail; len(s.reason) > most {
			s.reason = s.reason[:most]
		}
	}
	return s, nil
}

// inQuestion is the member to explain: the first that waits, else whoever is in trouble or at work, else
// the one that answers.
func (s screen) inQuestion() fleet.Name {
	var best *readapi.Member
	for i := range s.rollout.Members {
		m := &s.rollout.Members[i]
		switch {
		case m.State == "Pending":
			return m.Name
		case m.State == "Complete" || m.State == "Ineligible" || m.State == "Removed":
		case best == nil || urgency(m) < urgency(best):
			best = m
		}
	}
	if best == nil {
		return ""
	}
	return best.Name
}

func (s screen) help() []string {
	text := fmt.Sprintf(`q  quit; the rollout goes on, and the exit code is %d
e  explain why the first cluster that waits does so
p  pause the rollout: asks why, and everybody sees it
?  this help

In a bar each cluster is one character, or as many as are to scale:
%s
In a page: up, down, space; esc goes back.`, exitInterrupted, s.legend())
	return strings.Split(text, "\n")
}

// legend of the bars.
func (s screen) legend() string {
	words := []string{"complete", "soaking", "working", "failed or unhealthy", "not heard", "left the plan", "waiting"}
	var out strings.Builder
	for i, share := range shares {
		fmt.Fprintf(&out, "  %s  %s\n", s.app.paint(share.color, share.char), words[i])
	}
	return out.String()
}

func (s screen) columns() int {
	if s.width <= 0 {
		return width
	}
	return s.width
}

// linesOfScreen where nobody said how many there are.
const linesOfScreen = 24

func (s screen) lines() int {
	if s.height <= 0 {
		return linesOfScreen
	}
	return s.height
}

// room for what is above the footer.
func (s screen) room() int { return max(1, s.lines()-len(s.footer())) }

// View is in tea.Model.
func (s screen) View() tea.View {
	v := tea.NewView(strings.Join(s.frame(), "\n"))
	v.AltScreen = true
	v.WindowTitle = "flotilla " + plain(s.name.String())
	return v
}

// frame is all lines of the screen: never more than it has, and none longer than it is wide.
func (s screen) frame() []string {
	var body []string
	switch {
	case s.mode == reading:
		body = s.page[min(s.from, len(s.page)):]
	case s.rollout == nil:
		body = []string{s.name.String(), "", "asking the agent ..."}
	default:
		body = s.body()
	}
	body = slices.Clone(body[:min(len(body), s.room())])
	for len(body) < s.room() {
		body = append(body, "")
	}
	out := slices.Concat(body, s.footer())
	out = out[max(0, len(out)-s.lines()):]
	for i := range out {
		out[i] = clip(out[i], s.columns())
	}
	return out
}

// body of the view, so that it fits: who moves gives first, then stages that are done or far away.
func (s screen) body() []string {
	stages, verdict := s.rollout.Stages, s.part(printer.verdict)
	const head = 1
	rest := s.room() - head - len(verdict)
	for {
		r := *s.rollout
		r.Stages = stages
		table := s.part(func(p printer, _ *readapi.Rollout) {
			if len(stages) > 0 {
				p.stages(&r)
			}
		})
		if len(table) > rest && len(stages) > 1 {
			stages = narrowed(stages)
			continue
		}
		out := append([]string{s.title(len(stages))}, table...)
		return append(append(out, s.movers(rest-len(table))...), verdict...)
	}
}

// title of the view, and how many stages there are beside those that are shown.
func (s screen) title(shown int) string {
	all, note := len(s.rollout.Stages), ""
	if shown < all {
		note = fmt.Sprintf("  %d of %d stages", shown, all)
	}
	return clip(headline(s.rollout), max(1, s.columns()-columns(note))) + s.app.paint(grey, note)
}

// narrowed by the stage that matters least: the first while it is complete, else the last.
func narrowed(stages []readapi.Stage) []readapi.Stage {
	if stages[0].Phase == "Complete" {
		return stages[1:]
	}
	return stages[:len(stages)-1]
}

// movers that fit into so many lines.
func (s screen) movers(room int) []string {
	for most := min(mostMoving, room); most > 0; most-- {
		out := s.part(func(p printer, r *readapi.Rollout) { p.moving(r, most) })
		if len(out) <= room {
			return out
		}
	}
	return nil
}

// part of the frame, in lines.
func (s screen) part(draw func(printer, *readapi.Rollout)) []string {
	var text strings.Builder
	draw(printer{app: s.app, out: &text, width: s.columns()}, s.rollout)
	if text.Len() == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(text.String(), "\n"), "\n")
}

func (s screen) footer() []string {
	keys := "q quit  e explain  p pause  ? help"
	switch s.mode {
	case reading:
		keys = "esc back  up down space scroll  ctrl+c quit"
	case typing:
		keys = "enter pause  esc back"
	}
	if s.rollout != nil {
		keys += s.app.paint(grey, fmt.Sprintf("   seen from %s, %s old", s.rollout.SeenFrom, age(s.app.now().Sub(s.seen))))
	}
	out := []string{""}
	switch {
	case s.mode == typing:
		out = append(out, s.question())
		if s.note != "" {
			out = append(out, s.note)
		}
	case s.interruption != "":
		out = append(out, s.app.paint(yellow, "interrupted ("+s.interruption+"); trying again"))
	case s.note != "":
		out = append(out, s.note)
	}
	return append(out, keys)
}

// question for the reason, of which the end is seen where it is long.
func (s screen) question() string {
	front, typed := fmt.Sprintf("pause %s, why? ", s.name), s.reason
	for len(typed) > 0 && columns(front+string(typed)) >= s.columns() {
		typed = typed[1:]
	}
	return front + string(typed) + "▏"
}

// whyHalted names a command that says more, where a rollout is halted.
func whyHalted(r *readapi.Rollout) (fleet.Name, bool) {
	if r.Condition(v1alpha1.ConditionReady).Reason != v1alpha1.ReasonHalted {
		return "", false
	}
	for i := range r.Members {
		if r.Members[i].State == "Failed" || r.Members[i].State == "Degraded" {
			return r.Members[i].Name, true
		}
	}
	return "", false
}
