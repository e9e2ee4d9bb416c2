// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	tea "charm.land/bubbletea/v2"
	"golang.org/x/sync/errgroup"
	"golang.org/x/term"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/cmd/internal/readapi"
)

// isTerminal says that somebody sits there and the screen can be drawn.
func (a *app) isTerminal() bool {
	in, isIn := a.In.(*os.File)
	out, isOut := a.Out.(*os.File)
	return isIn && isOut && os.Getenv("TERM") != "dumb" && term.IsTerminal(int(in.Fd())) && term.IsTerminal(int(out.Fd()))
}

// live shows the rollout on the screen until it is over, the context ends, or somebody leaves. The last
// view stays behind, as lines.
func (f *follower) live(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	model := screen{
		app: f.app, name: f.name,
		explain: func(member fleet.Name) tea.Msg {
			e, err := asking(ctx, f.app, f.name.Name, func(ctx context.Context, agent *readapi.Client, full fleet.RolloutName) (readapi.Explanation, error) {
				return agent.Explain(ctx, full, member)
			})
			return paged{&e, err}
		},
		pause: func(reason string) tea.Msg {
			text, err := f.pauseQuietly(ctx, reason)
			return done{text, err}
		},
	}
	// The context is this function's to watch: bubbletea would take its end for a crash.
	program := tea.NewProgram(model, tea.WithInput(f.In), tea.WithOutput(f.Out), tea.WithoutSignalHandler())
	var group errgroup.Group
	group.Go(func() error {
		err := f.app.follow(ctx, f.name, stream{
			seen: func(r *readapi.Rollout) (bool, error) {
				program.Send(viewed{r})
				return f.over(r)
			},
			interrupted: func(err error) { program.Send(interrupted{err}) },
		})
		program.Send(finished{})
		return err
	})
	last, err := program.Run()
	cancel()
	followed := group.Wait()
	s, ok := last.(screen)
	if err != nil || !ok {
		return fmt.Errorf("the screen: %w; --plain prints lines", errors.Join(err, followed))
	}
	if s.rollout != nil {
		printer{app: f.app, out: f.Out, width: f.width()}.frame(s.rollout)
	}
	if s.left && !s.over {
		return exit{code: exitInterrupted}
	}
	return followed
}

// pauseQuietly says what pause prints.
func (f *follower) pauseQuietly(ctx context.Context, reason string) (string, error) {
	var text strings.Builder
	quiet := *f.app
	quiet.Out = &text
	err := quiet.runPause(ctx, f.name.Name, reason)
	first, _, _ := strings.Cut(text.String(), "\n")
	return first, err
}
