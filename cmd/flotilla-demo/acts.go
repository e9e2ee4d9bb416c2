// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// act is one thing that happens, and what it must come to.
type act struct {
	name, expect string
	run          func(context.Context, *play) (map[string]time.Duration, error)
}

// acts of the demo, in order.
var acts = []act{
	{"a release", "canary, then eu, then us", firstRelease},
	{"a bad release", "halts at the canary; the others keep and heal 1.0.0", badRelease},
	{"a fix", "everywhere, canary first", fix},
	{"par-1 differs", "an override changes it alone", differs},
	{"Helm per region", "EUR in eu, USD in us; the hook first", helmPerRegion},
	{"git server away", "who has the commit goes on; the others stay", gitAway},
	{"nyc-1 killed (-9)", "the others go on; it catches up", killed},
	{"par-1 dead in eu", "eu tolerates one: us goes on", tolerated},
	{"kubectl on par-1", "reaches all; copies are read-only and can stop it", byKubectl},
}

func firstRelease(ctx context.Context, p *play) (map[string]time.Duration, error) {
	at := time.Now()
	head, err := p.fleet.Git.Head(ctx, "web", "main")
	if err != nil {
		return nil, err
	}
	took, err := p.stageTimes(ctx, release{head, at}, "canary", "eu", "us")
	if err != nil {
		return took, err
	}
	if err := p.inOrder(ctx); err != nil {
		return took, err
	}
	return took, p.runs(ctx, map[string]string{"ams-1": "1.0.0", "fra-1": "1.0.0", "par-1": "1.0.0", "nyc-1": "1.0.0"})
}

// inOrder checks by the signed facts that no stage began before the one in front of it had soaked.
func (p *play) inOrder(ctx context.Context) error {
	r, err := p.seen(ctx, "fra-1")
	if err != nil {
		return err
	}
	for _, step := range [][2]string{{"ams-1", "fra-1"}, {"ams-1", "par-1"}, {"fra-1", "nyc-1"}, {"par-1", "nyc-1"}} {
		soaked, ok := said(r, step[0], fleet.Soaked.String())
		started, ok2 := said(r, step[1], fleet.Started.String())
		if !ok || !ok2 || started.Before(soaked) {
			return fmt.Errorf("%s started at %s, %s soaked at %s", step[1], started, step[0], soaked)
		}
	}
	return nil
}

func badRelease(ctx context.Context, p *play) (map[string]time.Duration, error) {
	bad, err := p.release(ctx, "2.0.0-bad", "web 2.0.0, which never gets ready")
	if err != nil {
		return nil, err
	}
	err = p.fleet.Await(ctx, "the canary to fail", 2*time.Minute, func(ctx context.Context) (bool, string) {
		r, err := p.seen(ctx, "par-1")
		if err != nil {
			return false, err.Error()
		}
		_, failed := said(r, "ams-1", fleet.Failed.String())
		return r.Revision.Commit() == bad.commit && failed, stageSentences(r)
	})
	if err != nil {
		return nil, err
	}
	p.say("  ams-1 failed; deleting the Deployment of par-1 by hand")
	deployments := p.fleet.Member("par-1").Client.AppsV1().Deployments(web.Namespace)
	before, err := deployments.Get(ctx, web.Name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	if err := deployments.Delete(ctx, web.Name, metav1.DeleteOptions{}); err != nil {
		return nil, err
	}
	deleted := time.Now()
	err = p.fleet.Await(ctx, "par-1 to heal", time.Minute, func(ctx context.Context) (bool, string) {
		now, err := deployments.Get(ctx, web.Name, metav1.GetOptions{})
		if err != nil {
			return false, err.Error()
		}
		return now.UID != before.UID && now.Status.ReadyReplicas == 2, "the Deployment is not back"
	})
	if err != nil {
		return nil, err
	}
	p.say("  par-1 healed itself in %.1fs", time.Since(deleted).Seconds())
	return nil, p.onlyCanaryStarted(ctx, bad.commit)
}

// onlyCanaryStarted checks that a release that is bad touched nobody but the canary, which went back.
func (p *play) onlyCanaryStarted(ctx context.Context, commit string) error {
	r, err := p.seen(ctx, "nyc-1")
	if err != nil {
		return err
	}
	if r.Revision.Commit() != commit {
		return fmt.Errorf("nyc-1 knows %s", r.Revision)
	}
	for _, m := range []string{"fra-1", "par-1", "nyc-1"} {
		if _, started := said(r, m, fleet.Started.String()); started {
			return fmt.Errorf("%s started a release that failed at the canary", m)
		}
	}
	return p.fleet.Await(ctx, "everyone to run 1.0.0", time.Minute, func(ctx context.Context) (bool, string) {
		err := p.runs(ctx, map[string]string{"ams-1": "1.0.0", "fra-1": "1.0.0", "par-1": "1.0.0", "nyc-1": "1.0.0"})
		return err == nil, fmt.Sprint(err)
	})
}

func fix(ctx context.Context, p *play) (map[string]time.Duration, error) {
	fixed, err := p.release(ctx, "2.0.1", "web 2.0.1, the fix")
	if err != nil {
		return nil, err
	}
	took, err := p.stageTimes(ctx, fixed, "canary", "eu", "us")
	return took, errors.Join(err, p.inOrder(ctx))
}

func killed(ctx context.Context, p *play) (map[string]time.Duration, error) {
	nyc := p.fleet.Member("nyc-1")
	p.say("  kill -9 nyc-1, cluster and agent")
	nyc.Kill()
	next, err := p.release(ctx, "2.1.0", "web 2.1.0")
	if err != nil {
		return nil, err
	}
	took, err := p.stageTimes(ctx, next, "canary", "eu")
	if err != nil {
		return took, err
	}
	p.say("  nyc-1 comes back")
	back := time.Now()
	if err := nyc.Revive(ctx); err != nil {
		return took, err
	}
	if _, err := p.stageTimes(ctx, next, "us"); err != nil {
		return took, err
	}
	took["us"] = time.Since(back)
	p.say("  nyc-1 caught up %.1fs after it began to start", took["us"].Seconds())
	return took, p.runs(ctx, map[string]string{"ams-1": "2.1.0", "fra-1": "2.1.0", "par-1": "2.1.0", "nyc-1": "2.1.0"})
}
