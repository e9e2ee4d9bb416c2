// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/flotilla-dev/flotilla/cmd/internal/localfleet"
)

// result of one act.
type result struct {
	act  act
	took map[string]time.Duration
	err  error
}

// perform the acts in order; after one that differs from what it must come to, the others are not begun.
func (p *play) perform(ctx context.Context, acts []act) []result {
	var out []result
	for i, a := range acts {
		p.say("act %d: %s -> %s", i+1, a.name, a.expect)
		took, err := a.run(ctx, p)
		out = append(out, result{a, took, err})
		if err != nil {
			p.say("  %v", err)
			break
		}
	}
	return out
}

func failure(results []result) error {
	for _, r := range results {
		if r.err != nil {
			return fmt.Errorf("act %q: %w", r.act.name, r.err)
		}
	}
	if len(results) < len(acts) {
		return errors.New("not all acts were played")
	}
	return nil
}

// printTable of act, outcome and seconds from commit to success of each stage.
func printTable(w io.Writer, results []result) {
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ACT\tOUTCOME\tCANARY\tEU\tUS\t")
	for _, r := range results {
		outcome := r.act.expect
		if r.err != nil {
			outcome = "DIFFERS: " + r.err.Error()
		}
		fmt.Fprintf(t, "%s\t%s", r.act.name, outcome)
		for _, stage := range []string{"canary", "eu", "us"} {
			if d, ok := r.took[stage]; ok {
				fmt.Fprintf(t, "\t%.1fs", d.Seconds())
			} else {
				fmt.Fprint(t, "\t-")
			}
		}
		fmt.Fprintln(t, "\t")
	}
	_ = t.Flush()
	fmt.Fprintln(w, "seconds from commit to success; of a killed cluster from its restart")
}

// invite to play: everything is still running.
func invite(w io.Writer, f *localfleet.Fleet) {
	m := f.Members[0]
	fmt.Fprintf(w, `
The fleet is yours. In another terminal:

  export KUBECONFIG=%s
  bin/flotilla get rollouts -A
  bin/flotilla get members
  bin/flotilla explain web -n shop
  bin/flotilla watch web -n shop

Release something: edit, commit and push, and watch it travel.

  git clone %s && cd web && sed -i 's/web:2.2.0/web:2.3.0/' base/web.yaml && git commit -qam "web 2.3.0" && git push

The other clusters:
`, m.Kubeconfig, f.Git.URL("web"))
	for _, m := range f.Members[1:] {
		agent, cluster := m.Pids()
		fmt.Fprintf(w, "  KUBECONFIG=%s   (%s: agent %d, cluster %d)\n", m.Kubeconfig, m.Name, agent, cluster)
	}
	fmt.Fprintln(w, "\nCtrl-C ends all of it.")
}
