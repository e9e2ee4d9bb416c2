// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// gitAway: the git server fails once one member has fetched a commit. That member holds all of it and goes on; the
// others hear that there is a newer head, cannot read it, and stay where they are until the server is back: facts
// travel between members, payloads do not.
func gitAway(ctx context.Context, p *play) (map[string]time.Duration, error) {
	p.fleet.Git.FailAfter(1)
	defer p.fleet.Git.Recover()
	next, err := p.release(ctx, "2.0.2", "web 2.0.2, which one member sees")
	if err != nil {
		return nil, err
	}
	if err := p.lookNow(ctx, "ams-1"); err != nil {
		return nil, err
	}
	saw, err := p.whoSaw(ctx, next.commit)
	if err != nil {
		return nil, err
	}
	p.say("  the git server is out of order; %s alone has the commit", saw)
	want := map[string]string{"ams-1": "2.0.1", "fra-1": "2.0.1", "par-1": "2.0.1", "nyc-1": "2.0.1"}
	if saw == "ams-1" { // the canary: its turn needs nobody
		if err := p.awaitSaid(ctx, "ams-1", fleet.Soaked); err != nil {
			return nil, err
		}
		want["ams-1"] = "2.0.2"
	}
	err = p.fleet.Await(ctx, "fra-1 to say that it cannot fetch", time.Minute, func(ctx context.Context) (bool, string) {
		why, err := p.sourceTrouble(ctx, "fra-1")
		return err == nil && why != "", fmt.Sprint("SourceReady is not False: ", err)
	})
	if err != nil {
		return nil, err
	}
	if err := p.runs(ctx, want); err != nil {
		return nil, err
	}
	why, err := p.sourceTrouble(ctx, "fra-1")
	if err != nil {
		return nil, err
	}
	p.say("  fra-1 waits, and keeps 2.0.1: %s", why)
	p.fleet.Git.Recover()
	p.say("  the git server is back")
	took, err := p.stageTimes(ctx, next, "canary", "eu", "us")
	return took, err
}

// whoSaw the commit: the one member that had its pack before the server failed.
func (p *play) whoSaw(ctx context.Context, commit string) (saw string, err error) {
	err = p.fleet.Await(ctx, "one member to fetch", time.Minute, func(ctx context.Context) (bool, string) {
		for _, m := range p.fleet.Members {
			r, err := p.seen(ctx, m.Name)
			if err != nil {
				return false, err.Error()
			}
			if p.fleet.Git.Failed() && r.Revision.Commit() == commit {
				saw = m.Name
				return true, ""
			}
		}
		return false, "nobody has it yet"
	})
	return saw, err
}

// awaitSaid waits until a member itself knows that it has said a milestone of its release.
func (p *play) awaitSaid(ctx context.Context, member string, kind fleet.FactKind) error {
	return p.fleet.Await(ctx, fmt.Sprintf("%s of %s", kind, member), time.Minute, func(ctx context.Context) (bool, string) {
		r, err := p.seen(ctx, member)
		if err != nil {
			return false, err.Error()
		}
		_, ok := said(r, member, kind.String())
		return ok, stageSentences(r)
	})
}

// lookNow asks a member to look at the source, as a person does.
func (p *play) lookNow(ctx context.Context, member string) error {
	return p.fleet.Member(member).Annotate(ctx, fmt.Appendf(nil, "metadata: {name: %s, namespace: %s, annotations: {%s: %q}}\n",
		web.Name, web.Namespace, v1alpha1.AnnotationReconcile, time.Now().Format(time.RFC3339Nano)))
}

// sourceTrouble is the message of SourceReady where it is False.
func (p *play) sourceTrouble(ctx context.Context, member string) (string, error) {
	r, err := p.copyOf(ctx, member)
	if err != nil {
		return "", err
	}
	for _, c := range r.Status.Conditions {
		if c.Type == v1alpha1.ConditionSourceReady && c.Status == "False" {
			message, _, _ := strings.Cut(c.Message, "\n")
			return message, nil
		}
	}
	return "", nil
}

// tolerated: a stage that may lack one cluster goes on without it, and opens the next; it catches up when it is back.
func tolerated(ctx context.Context, p *play) (map[string]time.Duration, error) {
	p.rollouts["web"] = strings.Replace(p.rollouts["web"], "      maxConcurrency: 1\n", "      maxConcurrency: 2\n      maxUnavailable: 1\n", 1)
	if err := p.declare(ctx, "Let eu go on without one of its clusters"); err != nil {
		return nil, err
	}
	err := p.fleet.Await(ctx, "the new strategy to be in force", time.Minute, func(ctx context.Context) (bool, string) {
		r, err := p.copyOf(ctx, "fra-1")
		if err != nil {
			return false, err.Error()
		}
		s := r.Spec.Strategy.Stages[1]
		seen, err := p.seen(ctx, "fra-1")
		if err != nil {
			return false, err.Error()
		}
		for _, stage := range seen.Stages {
			if stage.Succeeded < stage.Clusters {
				return false, stageSentences(seen)
			}
		}
		return s.MaxUnavailable != nil, "not yet"
	})
	if err != nil {
		return nil, err
	}
	par := p.fleet.Member("par-1")
	p.say("  kill -9 par-1, cluster and agent")
	par.Kill()
	next, err := p.release(ctx, "2.2.0", "web 2.2.0")
	if err != nil {
		return nil, err
	}
	took, err := p.stageTimes(ctx, next, "canary", "us")
	if err != nil {
		return took, err
	}
	p.say("  us is done, and eu lacks par-1 still")
	back := time.Now()
	if err := par.Revive(ctx); err != nil {
		return took, err
	}
	if _, err := p.stageTimes(ctx, next, "eu"); err != nil {
		return took, err
	}
	took["eu"] = time.Since(back)
	p.say("  par-1 caught up %.1fs after it began to start", took["eu"].Seconds())
	return took, errors.Join(p.runs(ctx, map[string]string{"ams-1": "2.2.0", "fra-1": "2.2.0", "par-1": "2.2.0", "nyc-1": "2.2.0"}))
}
