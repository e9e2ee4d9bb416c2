// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/cmd/internal/localfleet"
	"github.com/flotilla-dev/flotilla/cmd/internal/readapi"
)

// sizes measures how long a commit takes to be ready everywhere, by number of clusters and of objects, and where
// the time goes. It reports; it judges nothing.
type sizes struct {
	config   localfleet.Config
	clusters []int
	objects  []int
	rounds   int
}

var bulk = fleet.RolloutName{Namespace: "bulk", Name: "bulk"}

const bulkRollout = `apiVersion: fleet.flotilla.dev/v1alpha1
kind: FleetRollout
metadata: {name: bulk, namespace: bulk}
spec:
  source: {git: {url: %s}, path: ./%d, interval: 1h}
  targets: {names: ["*"]}
  strategy: {type: AllAtOnce, minReadyTime: 0s, progressDeadline: 30m}
  delivery: {pruneGuard: {maxPercent: 100}}
`

func (s *sizes) run(ctx context.Context, w io.Writer) error {
	fmt.Fprintln(w, "\nclusters  objects  commit            total    fetch   decide   render    apply     rest   (seconds; median of the changes)")
	for _, n := range s.clusters {
		if err := s.fleetOf(ctx, w, n); err != nil {
			return fmt.Errorf("%d clusters: %w", n, err)
		}
	}
	return nil
}

func (s *sizes) fleetOf(ctx context.Context, w io.Writer, n int) error {
	cfg := s.config
	cfg.Dir = filepath.Join(cfg.Dir, fmt.Sprintf("of-%d", n))
	cfg.Topology = ""
	for i := range n {
		cfg.Topology += fmt.Sprintf("m-%d\n", i+1)
	}
	f, err := localfleet.Start(ctx, cfg)
	if err != nil {
		return err
	}
	defer f.Stop()
	for _, m := range f.Members {
		if err := m.Tenant(ctx, bulk.Namespace); err != nil {
			return err
		}
	}
	if _, err := f.Git.Commit(ctx, "fleet", "main", "members", f.MemberFiles()); err != nil {
		return err
	}
	if err := f.StartAgents(ctx); err != nil {
		return err
	}
	for _, objects := range s.objects {
		if err := s.measure(ctx, w, f, objects); err != nil {
			return fmt.Errorf("%d objects: %w", objects, err)
		}
	}
	return nil
}

// measure the first delivery of so many objects, and then changes of one image among them.
func (s *sizes) measure(ctx context.Context, w io.Writer, f *localfleet.Fleet, objects int) error {
	home := f.Members[0]
	commit, began, err := commitBulk(ctx, f, objects, "1.0.0")
	if err != nil {
		return err
	}
	if err := home.Apply(ctx, fmt.Appendf(nil, bulkRollout, f.Git.URL("bulk"), objects)); err != nil {
		return err
	}
	first, err := s.await(ctx, f, commit, began, objects)
	if err != nil {
		return err
	}
	printLap(w, len(f.Members), objects, "all are created", first)
	var laps []lap
	for i := range s.rounds {
		commit, began, err := commitBulk(ctx, f, objects, fmt.Sprintf("1.0.%d", i+1))
		if err != nil {
			return err
		}
		if err := home.Annotate(ctx, fmt.Appendf(nil, "metadata: {name: bulk, namespace: bulk, annotations: {reconcile.fleet.flotilla.dev/requestedAt: %q}}\n", commit)); err != nil {
			return err
		}
		l, err := s.await(ctx, f, commit, began, objects)
		if err != nil {
			return err
		}
		laps = append(laps, l)
	}
	slices.SortFunc(laps, func(a, b lap) int { return int(a.total - b.total) })
	if len(laps) > 0 {
		printLap(w, len(f.Members), objects, "one image", laps[len(laps)/2])
	}
	return nil
}

func printLap(w io.Writer, clusters, objects int, what string, l lap) {
	fmt.Fprintf(w, "%8d  %7d  %-15s %7.2f  %7.2f  %7.2f  %7.2f  %7.2f  %7.2f\n", clusters, objects, what,
		l.total.Seconds(), l.fetch.Seconds(), l.decide.Seconds(), l.render.Seconds(), l.apply.Seconds(), l.rest().Seconds())
}

// commitBulk: of every ten objects one is a Deployment of one replica, one its Service, and eight are ConfigMaps.
func commitBulk(ctx context.Context, f *localfleet.Fleet, objects int, tag string) (string, time.Time, error) {
	files := map[string]string{}
	for i := range objects {
		name, image := fmt.Sprintf("o-%d", i/10), "1.0.0"
		if i == 0 {
			image = tag
		}
		switch i % 10 {
		case 0:
			files[fmt.Sprintf("%d/%04d.yaml", objects, i)] = fmt.Sprintf(bulkDeployment, name, image)
		case 1:
			files[fmt.Sprintf("%d/%04d.yaml", objects, i)] = fmt.Sprintf(bulkService, name)
		default:
			files[fmt.Sprintf("%d/%04d.yaml", objects, i)] = fmt.Sprintf(bulkConfig, i, i)
		}
	}
	began := time.Now()
	commit, err := f.Git.Commit(ctx, "bulk", "main", fmt.Sprintf("%d objects, %s", objects, tag), files)
	return commit, began, err
}

const (
	bulkDeployment = `apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  replicas: 1
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec: {containers: [{name: app, image: "registry.example.com/web:%[2]s"}]}
`
	bulkService = "apiVersion: v1\nkind: Service\nmetadata: {name: %[1]s}\nspec: {selector: {app: %[1]s}, ports: [{port: 80}]}\n"
	bulkConfig  = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c-%d}\ndata: {value: \"%d\"}\n"
)

// await until every member has said that it succeeded, as the first one knows, and take the times from the agents' logs.
func (s *sizes) await(ctx context.Context, f *localfleet.Fleet, commit string, began time.Time, objects int) (lap, error) {
	err := f.Await(ctx, "every member", 30*time.Minute, func(ctx context.Context) (bool, string) {
		client, err := readapi.Find(ctx, f.Members[0].Config)
		if err != nil {
			return false, err.Error()
		}
		r, err := client.Rollout(ctx, bulk)
		if err != nil {
			return false, err.Error()
		}
		if r.Revision.Commit() != commit {
			return false, "it knows " + r.Revision.Short()
		}
		for _, stage := range r.Stages {
			if stage.Succeeded < stage.Clusters {
				return false, stageSentences(r)
			}
		}
		return len(r.Stages) > 0, "no stages"
	})
	l := lap{total: time.Since(began)}
	if err != nil {
		return l, err
	}
	for _, m := range f.Members {
		have, err := m.Client.CoreV1().ConfigMaps(bulk.Namespace).List(ctx, metav1.ListOptions{LabelSelector: "fleet.flotilla.dev/rollout-name=bulk"})
		if err != nil {
			return l, err
		}
		if want := objects * 8 / 10; len(have.Items) != want {
			return l, fmt.Errorf("%s has %d of %d ConfigMaps", m.Name, len(have.Items), want)
		}
		took, err := lastDelivery(m.AgentLog(), bulk, commit)
		if err != nil {
			return l, err
		}
		took.total = l.total
		if took.rest() < l.rest() { // the member that was busy longest
			l = took
		}
	}
	return l, nil
}
