// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// orders is the rollout of examples/helm.
var orders = fleet.RolloutName{Namespace: "orders", Name: "orders"}

// threeInPar is what one member's own variant needs in a rollout.
const threeInPar = `  specialize:
    overrides:
    - name: par
      names: [par-1]
      patches:
      - target: {kind: Deployment, name: web}
        patch: |
          - {op: replace, path: /spec/replicas, value: 3}
  strategy:
`

// differs: an override for one member is a release of the rollout. The others render what they run already.
func differs(ctx context.Context, p *play) (map[string]time.Duration, error) {
	before, err := p.generations(ctx)
	if err != nil {
		return nil, err
	}
	p.rollouts["web"] = strings.Replace(p.rollouts["web"], "  strategy:\n", threeInPar, 1)
	if err := p.declare(ctx, "Three replicas in par-1"); err != nil {
		return nil, err
	}
	at := time.Now()
	took := map[string]time.Duration{}
	err = p.fleet.Await(ctx, "par-1 to run three replicas, and everyone to have succeeded", 2*time.Minute, func(ctx context.Context) (bool, string) {
		r, err := p.seen(ctx, "fra-1")
		if err != nil {
			return false, err.Error()
		}
		d, err := p.fleet.Member("par-1").Client.AppsV1().Deployments(web.Namespace).Get(ctx, web.Name, metav1.GetOptions{})
		if err != nil {
			return false, err.Error()
		}
		for _, s := range r.Stages {
			if s.Succeeded < s.Clusters {
				return false, stageSentences(r)
			}
		}
		return d.Status.ReadyReplicas == 3, fmt.Sprintf("%d of 3 replicas are ready", d.Status.ReadyReplicas)
	})
	if err != nil {
		return nil, err
	}
	took["eu"] = time.Since(at)
	after, err := p.generations(ctx)
	if err != nil {
		return took, err
	}
	for member, generation := range after {
		if changed := generation != before[member]; changed != (member == "par-1") {
			return took, fmt.Errorf("%s: the Deployment was at generation %d and is at %d", member, before[member], generation)
		}
	}
	p.say("  par-1 runs 3 replicas; nothing was written to the other three")
	return took, nil
}

// generations of the Deployment in each cluster: what was written to it.
func (p *play) generations(ctx context.Context) (map[string]int64, error) {
	out := map[string]int64{}
	for _, m := range p.fleet.Members {
		d, err := m.Client.AppsV1().Deployments(web.Namespace).Get(ctx, web.Name, metav1.GetOptions{})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.Name, err)
		}
		out[m.Name] = d.Generation
	}
	return out, nil
}

// helmPerRegion: one chart, the values of each region, the hook before all else.
func helmPerRegion(ctx context.Context, p *play) (map[string]time.Duration, error) {
	for _, m := range p.fleet.Members {
		if err := m.Tenant(ctx, orders.Namespace); err != nil {
			return nil, err
		}
	}
	chart, err := read("helm/payload")
	if err != nil {
		return nil, err
	}
	if _, err := p.fleet.Git.Commit(ctx, "orders", "main", "orders 1.4.2", chart); err != nil {
		return nil, err
	}
	if err := p.take("helm", "orders"); err != nil {
		return nil, err
	}
	if err := p.declare(ctx, "Declare the rollout orders"); err != nil {
		return nil, err
	}
	for member, currency := range map[string]string{"ams-1": "EUR", "fra-1": "EUR", "par-1": "EUR", "nyc-1": "USD"} {
		if err := p.orderedIn(ctx, member, currency); err != nil {
			return nil, err
		}
	}
	p.say("  EUR in ams-1, fra-1 and par-1, USD in nyc-1; everywhere the migration ran before the Deployment was there")
	return nil, nil
}

// orderedIn waits until a cluster has the chart with its region's values, and checks the hook's order.
func (p *play) orderedIn(ctx context.Context, member, currency string) error {
	client := p.fleet.Member(member).Client
	err := p.fleet.Await(ctx, "orders in "+member, 2*time.Minute, func(ctx context.Context) (bool, string) {
		c, err := client.CoreV1().ConfigMaps(orders.Namespace).Get(ctx, orders.Name, metav1.GetOptions{})
		if err != nil {
			return false, err.Error()
		}
		d, err := client.AppsV1().Deployments(orders.Namespace).Get(ctx, orders.Name, metav1.GetOptions{})
		if err != nil {
			return false, err.Error()
		}
		if c.Data["currency"] != currency {
			return false, fmt.Sprintf("its currency is %q", c.Data["currency"])
		}
		return d.Status.ReadyReplicas == *d.Spec.Replicas, fmt.Sprintf("%d of %d replicas are ready", d.Status.ReadyReplicas, *d.Spec.Replicas)
	})
	if err != nil {
		return err
	}
	d, err := client.AppsV1().Deployments(orders.Namespace).Get(ctx, orders.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	job, err := client.BatchV1().Jobs(orders.Namespace).Get(ctx, orders.Name+"-migrate", metav1.GetOptions{})
	if err != nil {
		return err
	}
	if done := job.Status.CompletionTime; done == nil || done.After(d.CreationTimestamp.Time) {
		return fmt.Errorf("%s: the Deployment was there at %s, the migration done at %s", member, d.CreationTimestamp, done)
	}
	return nil
}
