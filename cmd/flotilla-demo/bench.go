// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/cmd/internal/localfleet"
)

// bench measures how long a commit takes to be ready, and what of it is Flotilla's own, beside kubectl
// doing the same change on the same cluster in turn. It reports; it judges nothing.
type bench struct {
	play    *play
	kubectl string
	rounds  int
}

// lap is one measured commit, and the shares that one agent's log tells of it.
type lap struct {
	total, fetch, decide, render, apply time.Duration
}

// rest is noticing the commit, and waiting for health and for other members.
func (l lap) rest() time.Duration { return l.total - l.fetch - l.decide - l.render - l.apply }

const soloRollout = `apiVersion: fleet.flotilla.dev/v1alpha1
kind: FleetRollout
metadata: {name: web, namespace: solo}
spec:
  source:
    git: {url: %s}
    path: ./base
    interval: 1h
  targets: {names: [ams-1]}
  strategy: {type: AllAtOnce, minReadyTime: 0s}
`

func (b *bench) run(ctx context.Context, w io.Writer) error {
	ams := b.play.fleet.Member("ams-1")
	for _, namespace := range []string{"solo", "plain"} {
		if err := ams.Tenant(ctx, namespace); err != nil {
			return err
		}
	}
	if _, err := b.change(ctx, "1.0.0"); err != nil {
		return err
	}
	if err := ams.Apply(ctx, fmt.Appendf(nil, soloRollout, b.play.fleet.Git.URL("solo"))); err != nil {
		return err
	}
	if err := b.ready(ctx, "solo", "1.0.0"); err != nil {
		return err
	}
	var ours []lap
	var theirs []time.Duration
	for i := range b.rounds + 1 {
		tag := fmt.Sprintf("1.0.%d", i+1)
		took, err := b.byFlotilla(ctx, ams, tag)
		if err != nil {
			return err
		}
		plain, err := b.byKubectl(ctx, ams, tag)
		if err != nil {
			return err
		}
		if i > 0 { // the first round warms both up
			ours, theirs = append(ours, took), append(theirs, plain)
		}
	}
	b.report(w, ours, theirs)
	return b.idle(ctx, w)
}

// change commits another image to the repository solo.
func (b *bench) change(ctx context.Context, tag string) ([]byte, error) {
	payload, err := read("staged/payload")
	if err != nil {
		return nil, err
	}
	payload["base/web.yaml"] = strings.ReplaceAll(payload["base/web.yaml"], "web:1.0.0", "web:"+tag)
	_, err = b.play.fleet.Git.Commit(ctx, "solo", "main", tag, payload)
	return []byte(payload["base/web.yaml"]), err
}

// byFlotilla: from the commit, with a request to look at once, to a Deployment that has rolled out.
func (b *bench) byFlotilla(ctx context.Context, m *localfleet.Member, tag string) (lap, error) {
	began := time.Now()
	if _, err := b.change(ctx, tag); err != nil {
		return lap{}, err
	}
	patch := fmt.Sprintf(`apiVersion: fleet.flotilla.dev/v1alpha1
kind: FleetRollout
metadata: {name: web, namespace: solo, annotations: {reconcile.fleet.flotilla.dev/requestedAt: %q}}
`, tag)
	if err := m.Annotate(ctx, []byte(patch)); err != nil {
		return lap{}, err
	}
	if err := b.ready(ctx, "solo", tag); err != nil {
		return lap{}, err
	}
	total := time.Since(began)
	took, err := lastDelivery(m.AgentLog(), fleet.RolloutName{Namespace: "solo", Name: "web"}, "")
	took.total = total
	return took, err
}

// byKubectl: apply --server-side and rollout status of the same change.
func (b *bench) byKubectl(ctx context.Context, m *localfleet.Member, tag string) (time.Duration, error) {
	manifest, err := b.change(ctx, tag)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	for _, args := range [][]string{
		{"apply", "--server-side", "-n", "plain", "-f", "-"},
		{"rollout", "status", "-n", "plain", "deployment/web"},
	} {
		cmd := exec.CommandContext(ctx, b.kubectl, append([]string{"--kubeconfig", m.Kubeconfig}, args...)...) //nolint:gosec // named by whoever runs the benchmark
		cmd.Stdin = bytes.NewReader(manifest)
		if out, err := cmd.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("kubectl %s: %w: %s", args[0], err, out)
		}
	}
	return time.Since(began), nil
}

// ready when the Deployment runs the image with all replicas, as rollout status means it.
func (b *bench) ready(ctx context.Context, namespace, tag string) error {
	m := b.play.fleet.Member("ams-1")
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		d, err := m.Client.AppsV1().Deployments(namespace).Get(ctx, "web", metav1.GetOptions{})
		if err == nil && rolledOut(d, tag) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for web:%s in %s: %w", tag, namespace, errors.Join(ctx.Err(), err))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func rolledOut(d *appsv1.Deployment, tag string) bool {
	s := d.Status
	return strings.HasSuffix(d.Spec.Template.Spec.Containers[0].Image, "web:"+tag) &&
		s.ObservedGeneration >= d.Generation && s.UpdatedReplicas == *d.Spec.Replicas &&
		s.Replicas == *d.Spec.Replicas && s.AvailableReplicas == *d.Spec.Replicas
}

// lastDelivery of a rollout that changed anything, by the agent's own log; of one commit, where that is given.
func lastDelivery(log string, of fleet.RolloutName, commit string) (lap, error) {
	f, err := os.Open(log)
	if err != nil {
		return lap{}, err
	}
	defer func() { _ = f.Close() }()
	var last string
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := lines.Text()
		if strings.Contains(line, "msg=delivered") && strings.Contains(line, "rollout="+of.String()) && strings.Contains(line, commit) {
			last = line
		}
	}
	var l lap
	for key, into := range map[string]*time.Duration{"fetch": &l.fetch, "decide": &l.decide, "render": &l.render, "apply": &l.apply} {
		_, rest, _ := strings.Cut(last, " "+key+"=")
		value, _, _ := strings.Cut(rest, " ")
		if *into, err = time.ParseDuration(value); err != nil {
			return lap{}, fmt.Errorf("%s: no share %s of a delivery in %q", log, key, last)
		}
	}
	return l, lines.Err()
}

func (b *bench) report(w io.Writer, ours []lap, theirs []time.Duration) {
	line := func(name string, of func(lap) time.Duration) {
		var all []time.Duration
		for _, s := range ours {
			all = append(all, of(s))
		}
		fmt.Fprintf(w, "%-42s %s\n", name, spread(all))
	}
	fmt.Fprintf(w, "\none cluster, unstaged, %d rounds in turn: min / median / max\n", len(ours))
	line("flotilla: commit -> rolled out", func(s lap) time.Duration { return s.total })
	line("  fetching", func(s lap) time.Duration { return s.fetch })
	line("  deciding", func(s lap) time.Duration { return s.decide })
	line("  rendering", func(s lap) time.Duration { return s.render })
	line("  applying", func(s lap) time.Duration { return s.apply })
	line("  the rest: noticing, and waiting for health", func(s lap) time.Duration { return s.rest() })
	fmt.Fprintf(w, "%-42s %s\n", "kubectl: apply --server-side, rollout status", spread(theirs))
}

func spread(d []time.Duration) string {
	slices.Sort(d)
	return fmt.Sprintf("%7.3fs / %7.3fs / %7.3fs", d[0].Seconds(), d[len(d)/2].Seconds(), d[len(d)-1].Seconds())
}

// idle memory and processor time of the agents over half a minute in which nothing changes.
func (b *bench) idle(ctx context.Context, w io.Writer) error {
	const over = 30 * time.Second
	before := map[string]time.Duration{}
	for _, m := range b.play.fleet.Members {
		pid, _ := m.Pids()
		before[m.Name] = processorTime(pid)
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(over):
	}
	fmt.Fprintln(w, "\nagents, idle for 30 s: resident memory, share of one core")
	for _, m := range b.play.fleet.Members {
		pid, _ := m.Pids()
		used := processorTime(pid) - before[m.Name]
		fmt.Fprintf(w, "%-8s %4d MiB  %.2f %%\n", m.Name, residentMiB(pid), 100*used.Seconds()/over.Seconds())
	}
	return nil
}

// processorTime of a process, user and system; the kernel counts in hundredths of a second.
func processorTime(pid int) time.Duration {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

func residentMiB(pid int) int {
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	kib, _ := strconv.Atoi(strings.Fields(rest)[0])
	return kib / 1024
}
