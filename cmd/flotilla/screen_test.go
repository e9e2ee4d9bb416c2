// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/cmd/internal/readapi"
	"github.com/flotilla-dev/flotilla/cmd/internal/readapi/readapitest"
)

// played is a screen that a test plays with, and what it wanted done.
type played struct {
	*testing.T
	screen
	site      *site
	explained []fleet.Name
	paused    []string
	quit      bool
}

func newPlayed(t *testing.T, story ...string) *played {
	t.Helper()
	w, err := readapitest.New()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Tell(story...); err != nil {
		t.Fatal(err)
	}
	p := &played{T: t, site: &site{self: "us-1", world: w}}
	p.screen = screen{
		app: &app{now: now, name: "flotilla"}, name: w.Plan.Rollout, width: 80, height: 24,
		explain: func(m fleet.Name) tea.Msg {
			p.explained = append(p.explained, m)
			e, err := readapi.Explain(p.site.input(), m)
			return paged{&e, err}
		},
		pause: func(reason string) tea.Msg {
			p.paused = append(p.paused, reason)
			return done{text: "apps/web paused: nobody starts anything new, what runs is still healed"}
		},
	}
	return p
}

// send a message, and whatever comes of it.
func (p *played) send(msg tea.Msg) *played {
	next, cmd := p.screen.Update(msg)
	p.screen = next.(screen)
	if cmd == nil {
		return p
	}
	switch answer := cmd().(type) {
	case tea.QuitMsg:
		p.quit = true
	case paged, done:
		p.send(answer)
	default:
		p.Fatalf("%T asked for a %T", msg, answer)
	}
	return p
}

// look at the rollout as it is now.
func (p *played) look() *played {
	r := readapi.Build(p.site.input())
	return p.send(viewed{&r})
}

// press keys, by their names; a word in quotes is typed.
func (p *played) press(keys ...string) *played {
	for _, k := range keys {
		if word, typed := strings.CutPrefix(k, "'"); typed {
			for _, r := range word {
				p.send(tea.KeyPressMsg{Code: r, Text: string(r)})
			}
			continue
		}
		p.send(keyOf(k))
	}
	return p
}

func keyOf(name string) tea.KeyPressMsg {
	switch name {
	case "enter":
		return tea.KeyPressMsg{Code: tea.KeyEnter}
	case "esc":
		return tea.KeyPressMsg{Code: tea.KeyEscape}
	case "backspace":
		return tea.KeyPressMsg{Code: tea.KeyBackspace}
	case "down":
		return tea.KeyPressMsg{Code: tea.KeyDown}
	case "pgdown":
		return tea.KeyPressMsg{Code: tea.KeyPgDown}
	case "ctrl+c":
		return tea.KeyPressMsg{Code: 'c', Mod: tea.ModCtrl}
	}
	return tea.KeyPressMsg{Code: rune(name[0]), Text: name}
}

var underWay = []string{
	"c1 started", "c1 succeeded", "c1 soaked", "eu-1 started", "eu-2 started", "eu-3 started",
	"eu-1 failed: Deployment web/api: 0 of 3 ready after 10m", "eu-2 succeeded", "eu-2 soaked",
}

// TestScreen: golden frames of what somebody sees.
func TestScreen(t *testing.T) {
	for name, play := range map[string]func(*testing.T) *played{
		"empty":     func(t *testing.T) *played { return newPlayed(t) },
		"under-way": func(t *testing.T) *played { return newPlayed(t, underWay...).look() },
		"wide": func(t *testing.T) *played {
			return newPlayed(t, underWay...).send(tea.WindowSizeMsg{Width: 110, Height: 30}).look()
		},
		"narrow": func(t *testing.T) *played {
			return newPlayed(t, underWay...).look().send(tea.WindowSizeMsg{Width: 44, Height: 14})
		},
		"flat": func(t *testing.T) *played {
			return newPlayed(t, underWay...).look().send(tea.WindowSizeMsg{Width: 80, Height: 9})
		},
		"halted": func(t *testing.T) *played { return newPlayed(t, "c1 started", "c1 failed: no image").look() },
		"paused": func(t *testing.T) *played {
			return newPlayed(t, append(underWay, "pause by c1: latency is up")...).look()
		},
		"complete": func(t *testing.T) *played {
			return newPlayed(t, "c1 soaked", "eu soaked", "us soaked", "c1 succeeded", "eu succeeded", "us succeeded").look()
		},
		"explain": func(t *testing.T) *played { return newPlayed(t, underWay...).look().press("e") },
		"help":    func(t *testing.T) *played { return newPlayed(t, underWay...).look().press("?") },
		"why": func(t *testing.T) *played {
			return newPlayed(t, underWay...).look().press("p", "'latency", "backspace")
		},
		"why-not": func(t *testing.T) *played { return newPlayed(t, underWay...).look().press("p", "enter") },
		"stopped": func(t *testing.T) *played { return newPlayed(t, underWay...).look().press("p", "'why", "enter") },
		"interrupted": func(t *testing.T) *played {
			return newPlayed(t, underWay...).look().send(interrupted{errors.New("connection refused\x1b[2J")})
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := play(t)
			got := p.site.world.Steady(strings.Join(p.frame(), "\n")) + "\n"
			golden := filepath.Join("testdata", "screen", name+".txt")
			if os.Getenv("UPDATE_GOLDEN") != "" {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestScreenFits: whatever the size, no frame has more lines or columns than the screen.
func TestScreenFits(t *testing.T) {
	p := newPlayed(t, underWay...).look()
	modes := map[string]func() *played{
		"view": func() *played { return p },
		"page": func() *played { return p.press("e") },
		"why":  func() *played { return p.press("esc", "p", "'"+strings.Repeat("long ", 60)) },
	}
	for _, name := range []string{"view", "page", "why"} {
		modes[name]()
		for wide := 1; wide < 130; wide += 21 {
			for lines := 1; lines < 40; lines += 7 {
				p.send(tea.WindowSizeMsg{Width: wide, Height: lines})
				frame := p.frame()
				if len(frame) != lines {
					t.Fatalf("%s %dx%d: %d lines", name, wide, lines, len(frame))
				}
				for _, line := range frame {
					if n := columns(line); n > wide {
						t.Fatalf("%s %dx%d: %d columns: %q", name, wide, lines, n, line)
					}
				}
			}
		}
	}
}

// TestScreenKeys: what the keys want done.
func TestScreenKeys(t *testing.T) {
	p := newPlayed(t, underWay...)
	p.press("e") // nothing was seen yet
	p.look().press("e", "esc")
	if len(p.explained) != 1 || p.explained[0] != "eu-4" {
		t.Errorf("explained %v, want the first that waits", p.explained)
	}
	p.press("p", "'why not", "esc", "p", "enter", "'  latency is up ", "enter")
	if len(p.paused) != 1 || p.paused[0] != "latency is up" {
		t.Errorf("paused for %q", p.paused)
	}
	p.press("p", "'q?e") // letters of a reason are no keys
	if p.quit || string(p.reason) != "q?e" {
		t.Errorf("quit %v, reason %q", p.quit, string(p.reason))
	}
	p.send(tea.PasteMsg{Content: "\x1b[31mred"})
	if got := string(p.reason); strings.ContainsRune(got, 0x1b) || !strings.HasSuffix(got, "red") {
		t.Errorf("pasted %q", got)
	}
	p.press("esc", "?", "q")
	if p.quit {
		t.Error("q in a page leaves the page alone")
	}
	if p.press("q"); !p.quit || !p.left || p.over {
		t.Error("q leaves")
	}
	p = newPlayed(t)
	if p.press("p", "ctrl+c"); !p.quit || !p.left {
		t.Error("ctrl+c leaves from anywhere")
	}
	p = newPlayed(t)
	if p.send(finished{}); !p.quit || p.left || !p.over {
		t.Error("the end of the rollout is the end of the screen")
	}
	if view := p.View(); !view.AltScreen || !strings.Contains(view.Content, "q quit") {
		t.Errorf("view %+v", view)
	}
}

// TestScreenScrolls: a page that is longer than the screen is read to its end, and not beyond.
func TestScreenScrolls(t *testing.T) {
	p := newPlayed(t, underWay...).look().send(tea.WindowSizeMsg{Width: 60, Height: 8}).press("e")
	first := p.frame()[0]
	p.press("down")
	if p.frame()[0] == first {
		t.Error("did not move")
	}
	for range 20 {
		p.press("pgdown")
	}
	if last := p.page[len(p.page)-1]; !strings.Contains(strings.Join(p.frame(), "\n"), last) {
		t.Errorf("the last line %q is not shown:\n%s", last, strings.Join(p.frame(), "\n"))
	}
	for range 40 {
		p.press("k")
	}
	if p.frame()[0] != first {
		t.Error("did not come back")
	}
}

// crowded is a view of many members in many stages.
func crowded(members, stages int) *readapi.Rollout {
	r := &readapi.Rollout{Namespace: "apps", Name: "web", Revision: readapitest.Revision, SeenFrom: "c-0000"}
	r.Plan[0] = 1
	for i := range stages {
		r.Stages = append(r.Stages, readapi.Stage{Name: fmt.Sprintf("stage-%02d", i), Phase: "Progressing", Clusters: members / stages})
	}
	states := []string{"Complete", "Soaking", "Progressing", "Failed", "Pending"}
	for i := range members {
		heard := 3.0
		r.Members = append(r.Members, readapi.Member{
			Name: fleet.Name(fmt.Sprintf("cluster-%04d", i)), Stage: fmt.Sprintf("stage-%02d", i%stages), Rank: i, State: states[i%len(states)],
			Installed: readapitest.Revision, Because: "waits for something that takes long to say, for all of them", HeardSeconds: &heard,
			Facts: []readapi.Fact{{Kind: "Started", Time: readapitest.Began()}},
		})
	}
	return r
}

// TestThousandMembers: tables and screens of a large fleet are bounded, and soon there.
func TestThousandMembers(t *testing.T) {
	r := crowded(1000, 40)
	p := newPlayed(t)
	began := time.Now()
	p.send(viewed{r})
	frame := p.frame()
	drawn := time.Since(began)
	if len(frame) != 24 || !strings.Contains(strings.Join(frame, "\n"), " of 40 stages") {
		t.Errorf("frame:\n%s", strings.Join(frame, "\n"))
	}
	var out strings.Builder
	a := &app{now: now, name: "flotilla"}
	a.Out = &out
	o := getParts{listing: listing{kind: "clusters", columns: clusterColumns, sortBy: "rank"}, rollouts: []string{"web"}}
	began = time.Now()
	if err := a.show(o.listing, a.clusterRows(&o, r), nil); err != nil {
		t.Fatal(err)
	}
	listed := time.Since(began)
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != 1001 {
		t.Errorf("%d lines", len(lines))
	}
	for _, line := range lines {
		if columns(line) > width {
			t.Fatalf("%d columns: %q", columns(line), line)
		}
	}
	t.Logf("1,000 members: frame in %s, table in %s", drawn, listed)
}

// BenchmarkTable of a thousand clusters.
func BenchmarkTable(b *testing.B) {
	r := crowded(1000, 12)
	a := &app{now: now}
	o := getParts{listing: listing{columns: clusterColumns}, rollouts: []string{"web"}}
	for b.Loop() {
		var out strings.Builder
		a.Out = &out
		if err := a.show(o.listing, a.clusterRows(&o, r), nil); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFrame of a thousand clusters.
func BenchmarkFrame(b *testing.B) {
	s := screen{app: &app{now: now}, rollout: crowded(1000, 12), width: 80, height: 24}
	for b.Loop() {
		if len(s.frame()) != 24 {
			b.Fatal("lines")
		}
	}
}
