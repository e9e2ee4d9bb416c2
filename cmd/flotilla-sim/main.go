// SPDX-License-Identifier: Apache-2.0

// Command flotilla-sim answers: does the fleet keep its promises in any weather? It runs whole fleets of production
// agents in virtual time, from nothing but a seed.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/flotilla-dev/flotilla/cmd/internal/sim"
)

const usage = `flotilla-sim runs whole fleets of production agents in virtual time, from nothing but a seed.

Usage:
  flotilla-sim run [-scenario NAME] [-clusters N] [-seed S] [-seeds K] [-story] [-o json]
  flotilla-sim night [-scenario NAME] [-clusters N] [-minutes M] [-state FILE]

A night that is interrupted ends what it has begun, and the next one goes on there.

Exit codes: 0 every rule held, 1 a rule was broken, 2 the command line is wrong or not all could be run.

Scenarios:
`

// Exit codes.
const (
	exitBroken = 1
	exitUsage  = 2
)

func main() {
	debug.SetGCPercent(400) // worlds are small and short-lived
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// options of a run.
type options struct {
	scenario       sim.Scenario
	clusters       int
	seed           uint64
	seeds          int
	story, json    bool
	stdout, stderr io.Writer
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	command := ""
	if len(args) > 0 {
		command, args = args[0], args[1:]
	}
	var broken bool
	var err error
	switch command {
	case "run":
		var o *options
		if o, err = parse(args, stdout, stderr); err == nil {
			broken, err = o.run(ctx)
		}
	case "night":
		var n *night
		var lasts time.Duration
		if n, lasts, err = parseNight(args, stdout, stderr); err == nil {
			err = n.run(ctx, lasts)
			broken = n.broken > 0
		}
	case "help", "-h", "-help", "--help":
		help(stdout)
	case "":
		help(stderr)
		return exitUsage
	default:
		help(stderr)
		err = fmt.Errorf("unknown command %q: run, or night", command)
	}
	return exitCode(broken, err, stderr)
}

func exitCode(broken bool, err error, stderr io.Writer) int {
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(stderr, "Error:", err)
		return exitUsage
	case broken:
		return exitBroken
	}
	return 0
}

func help(w io.Writer) {
	fmt.Fprint(w, usage)
	for _, s := range sim.Scenarios {
		fmt.Fprintf(w, "  %-14s %5d clusters  %s\n", s.Name, s.Clusters, s.About)
	}
}

func parse(args []string, stdout, stderr io.Writer) (*options, error) {
	o := &options{stdout: stdout, stderr: stderr}
	flags := flag.NewFlagSet("flotilla-sim run", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { help(stderr); flags.PrintDefaults() }
	scenario := flags.String("scenario", "swarm", "kind of run")
	flags.IntVar(&o.clusters, "clusters", 0, "clusters in the fleet; 0 is the scenario's own number")
	flags.Uint64Var(&o.seed, "seed", 1, "seed of the first run")
	flags.IntVar(&o.seeds, "seeds", 1, "how many runs, each with the next seed")
	flags.BoolVar(&o.story, "story", false, "tell what happened, line by line")
	output := flags.String("o", "", "json: one object a run")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("unknown argument %q", flags.Arg(0))
	}
	if *output != "" && *output != "json" {
		return nil, fmt.Errorf("-o %s: json, or nothing", *output)
	}
	if o.seeds < 1 {
		return nil, fmt.Errorf("-seeds %d: at least 1", o.seeds)
	}
	var err error
	o.json = *output == "json"
	o.scenario, err = sim.Find(*scenario)
	if o.clusters == 0 {
		o.clusters = o.scenario.Clusters
	}
	return o, err
}

func (o *options) run(ctx context.Context) (broken bool, err error) {
	for n := range o.seeds {
		if ctx.Err() != nil {
			return broken, fmt.Errorf("stopped before seed %d", o.seed+uint64(n))
		}
		r, err := o.scenario.Run(o.seed+uint64(n), o.clusters, o.story)
		if err != nil {
			return broken, err
		}
		broken = broken || len(r.Violations) > 0
		if err := o.print(&r); err != nil {
			return broken, err
		}
	}
	return broken, nil
}

// again is the command that tells a seed once more, from the root of the repository.
func again(r *sim.Result) string {
	return fmt.Sprintf("go run ./cmd/flotilla-sim run -scenario %s -clusters %d -seed %d -story", r.Scenario, r.Clusters, r.Seed)
}

func (o *options) print(r *sim.Result) error {
	if o.json {
		return json.NewEncoder(o.stdout).Encode(r)
	}
	for _, line := range r.Story {
		fmt.Fprintln(o.stdout, line)
	}
	var faults []string
	for _, name := range slices.Sorted(maps.Keys(r.Faults)) {
		faults = append(faults, fmt.Sprintf("%s %d", name, r.Faults[name]))
	}
	fmt.Fprintf(o.stdout, "%s, seed %d: %d clusters, %.0f virtual seconds, last word %.1f s after the last commit, %d turns, %d records\n",
		r.Scenario, r.Seed, r.Clusters, r.VirtualSeconds, r.RolloutSeconds, r.Turns, r.Records)
	fmt.Fprintf(o.stdout, "  records of %d bytes in all, %d bytes sent by each member\n", r.FactBytes, r.SentBytes)
	if r.RestartSeconds > 0 {
		fmt.Fprintf(o.stdout, "  the agent that began again was current after %.1f s\n", r.RestartSeconds)
	}
	fmt.Fprintf(o.stdout, "  faults: %s\n", strings.Join(faults, ", "))
	if len(r.Violations) == 0 {
		fmt.Fprintln(o.stdout, "  every rule held")
		return nil
	}
	for _, v := range r.Violations {
		fmt.Fprintln(o.stdout, "  BROKEN", v)
	}
	fmt.Fprintln(o.stdout, "  again:", again(r))
	return nil
}
