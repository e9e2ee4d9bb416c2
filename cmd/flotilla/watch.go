// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/cmd/internal/readapi"
)

type watch struct {
	name     string
	follow   bool
	plain    bool
	timeout  time.Duration
	revision string
}

func (a *app) watchCommand() *cobra.Command {
	var o watch
	c := &cobra.Command{
		Use:   "watch NAME",
		Short: "Follow a rollout until it is everywhere or halted",
		Long: `Follow a rollout: in a terminal as a live view with keys (? tells them), elsewhere or with --plain a
line per change: time, stage, member, what it signed, and a sentence.

Ends with exit code 0 when the rollout is complete, and with 1 when it is halted: a stage has more
failures than it tolerates and nobody else is at work. A cluster that failed may retry; that it
succeeds then is not waited for. A rollout that is paused is waited for, unless --timeout is over
before (124). Who leaves before the end leaves with 130, so that what a script does next is not done.`,
		Example: `  flotilla watch web -n apps
  flotilla watch web -n apps --timeout 30m

  # after a push: not before that commit is the one that goes through the fleet
  flotilla watch web -n apps --revision $(git rev-parse HEAD)

  # one look, with bars
  flotilla watch web -n apps --watch=false`,
		Args: args(1, 1, "the name of one rollout"),
		RunE: func(c *cobra.Command, names []string) error {
			o.name = names[0]
			return a.runWatch(c.Context(), o)
		},
		ValidArgsFunction: a.completeRollouts(1),
	}
	c.Flags().BoolVarP(&o.follow, "watch", "w", true, "follow it; false prints how it stands now")
	c.Flags().BoolVar(&o.plain, "plain", false, "print lines in a terminal too")
	c.Flags().DurationVar(&o.timeout, "timeout", 0, "give up after so long, with exit code 124; 0 never does")
	c.Flags().StringVar(&o.revision, "revision", "", "wait for the commit with this hash, or the first digits of it")
	return c
}

func (a *app) runWatch(ctx context.Context, o watch) error {
	ns, err := a.namespace()
	if err != nil {
		return err
	}
	name := fleet.RolloutName{Namespace: ns, Name: o.name}
	if !o.follow {
		return a.runFrame(ctx, o.name)
	}
	if o.timeout < 0 {
		return usage("--timeout %s: a length of time, such as 30m", o.timeout)
	}
	f := &follower{app: a, name: name, revision: o.revision}
	if o.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.timeout)
		defer cancel()
	}
	if a.isTerminal() && !o.plain {
		err = f.live(ctx)
	} else {
		err = f.follow(ctx)
	}
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
		return exit{code: exitTimeout, err: fmt.Errorf("%s is not complete after %s; %s", name, plainDuration(o.timeout), f.last)}
	}
	return err
}

// follower prints what is new in each view of a rollout.
type follower struct {
	*app
	name     fleet.RolloutName
	revision string

	plan   fleet.Digest
	facts  map[fleet.Name]int // how many of a member's facts were printed
	phases map[string]string  // of the stages
	ready  readapi.Condition  // as printed last
	last   string             // sentence about how it stands
	widths struct{ stage, name int }
}

// follow until the rollout is complete (nil), halted, or the context ends.
func (f *follower) follow(ctx context.Context) error {
	return f.app.follow(ctx, f.name, stream{
		seen: func(r *readapi.Rollout) (bool, error) {
			for _, line := range f.news(r) {
				fmt.Fprintln(f.Out, line)
			}
			return f.over(r)
		},
		interrupted: f.interrupted,
	})
}

// over says whether there is anything left to wait for.
func (f *follower) over(r *readapi.Rollout) (bool, error) {
	c := r.Condition(v1alpha1.ConditionReady)
	f.last = "Ready is " + c.Status
	if c.Message != "" {
		f.last += ": " + c.Message
	}
	if f.revision != "" && !strings.HasPrefix(r.Revision.Commit(), f.revision) {
		f.last = fmt.Sprintf("still at %s, waiting for %s", orDash(r.Revision.Short()), f.revision)
		return false, nil
	}
	stalled := r.Condition(v1alpha1.ConditionStalled)
	switch {
	case c.Status == "True":
		return true, nil
	case c.Reason == v1alpha1.ReasonHalted:
		return true, fmt.Errorf("%s halted: %s", f.name, c.Message)
	case stalled.Status == "True" && r.Plan.IsZero():
		return true, fmt.Errorf("%s cannot begin (%s): %s", f.name, stalled.Reason, stalled.Message)
	}
	return false, nil
}
