// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/cmd/internal/readapi"
)

// Patience with an agent that goes away in the middle: it may be starting again.
const (
	reconnectEvery = time.Second
	reconnectLimit = 2 * time.Minute
)

// stream is what to do with the views of a rollout.
type stream struct {
	// seen is called with each view, until it is done or fails.
	seen func(*readapi.Rollout) (done bool, err error)
	// interrupted is told why there are none for a while.
	interrupted func(error)
}

// interrupted says so where errors are said.
func (a *app) interrupted(err error) {
	fmt.Fprintf(a.ErrOut, "interrupted (%s); trying again\n", plain(err.Error()))
}

// follow a rollout until the stream is done (nil), fails, or the context ends. An agent that was there
// and goes away is waited for; it is found anew each time, since after a start it has another address.
func (a *app) follow(ctx context.Context, name fleet.RolloutName, s stream) error {
	var since time.Time
	again := false
	for {
		seen := false
		var own error // the stream's own end, which is not the connection's
		err := a.connect(ctx, name, func(r *readapi.Rollout) (bool, error) {
			seen, again = true, true
			var done bool
			done, own = s.seen(r)
			return done, own
		})
		switch {
		case err == nil, own != nil:
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !again:
			return a.agentError(ctx, name, err)
		case fleet.KindOf(err) != fleet.Retryable, errors.Is(err, readapi.ErrGone):
			return err
		case seen || since.IsZero():
			since = time.Now()
			s.interrupted(err)
		case time.Since(since) > reconnectLimit:
			return err
		}
		if err := wait(ctx, reconnectEvery); err != nil {
			return err
		}
	}
}

func (a *app) connect(ctx context.Context, name fleet.RolloutName, seen func(*readapi.Rollout) (bool, error)) error {
	agent, err := a.agent(ctx)
	if err != nil {
		return err
	}
	return agent.Watch(ctx, name, func(r readapi.Rollout) (bool, error) { return seen(&r) })
}

// named is a rollout of the namespace that the command is about.
func (a *app) named(name string) (fleet.RolloutName, error) {
	ns, err := a.namespace()
	return fleet.RolloutName{Namespace: ns, Name: name}, err
}

// asking is a question about one rollout: the agent, in the time that an answer may take.
func asking[T any](ctx context.Context, a *app, name string, ask func(context.Context, *readapi.Client, fleet.RolloutName) (T, error)) (T, error) {
	ctx, cancel := a.soon(ctx)
	defer cancel()
	var out T
	full, err := a.named(name)
	if err != nil {
		return out, err
	}
	agent, err := a.agent(ctx)
	if err != nil {
		return out, err
	}
	out, err = ask(ctx, agent, full)
	return out, a.agentError(ctx, full, err)
}

// rolloutOf the namespace, as the agent sees it.
func (a *app) rolloutOf(ctx context.Context, name string) (readapi.Rollout, error) {
	return asking(ctx, a, name, func(ctx context.Context, agent *readapi.Client, full fleet.RolloutName) (readapi.Rollout, error) {
		return agent.Rollout(ctx, full)
	})
}
