// SPDX-License-Identifier: Apache-2.0

// Command flotilla-demo shows a fleet at work: four real Kubernetes control planes, four agents and a
// git server on this machine, and releases that travel canary -> eu -> us.
//
//	flotilla-demo          runs the acts, then leaves everything running to play with; Ctrl-C ends it
//	flotilla-demo --once   runs the acts, checks each outcome, prints a table; exit 1 if any differs
//	flotilla-demo --bench 9   the same, and then measures changes of one cluster beside kubectl
//	flotilla-demo --sizes 3   measures so many commits to 1, 4 and 8 clusters of 10, 100 and 1,000 objects, and ends
//
// It is started by make demo, which builds what it needs: devfleet (FLOTILLA_DEVFLEET) and, beside
// its own binary, flotilla-agent and flotilla.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/flotilla-dev/flotilla/cmd/internal/localfleet"
	"github.com/flotilla-dev/flotilla/deploy"
)

func main() {
	once := flag.Bool("once", false, "run the acts, check them, and end")
	rounds := flag.Int("bench", 0, "after the acts, measure so many changes of one cluster beside kubectl (KUBECTL names it), and end")
	laps := flag.Int("sizes", 0, "measure so many commits to fleets of 1, 4 and 8 clusters with payloads of 10, 100 and 1,000 objects, and end")
	dir := flag.String("dir", "", "keep everything in this folder; left out: a temporary one, removed at the end")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, options{once: *once || *rounds > 0, rounds: *rounds, laps: *laps, dir: *dir})
	stop()
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "flotilla-demo:", err)
		os.Exit(1)
	}
}

// options of one run.
type options struct {
	once         bool
	rounds, laps int
	dir          string
}

func run(ctx context.Context, o options) error {
	devfleet, agent, err := programs()
	if err != nil {
		return err
	}
	if o.dir == "" {
		if o.dir, err = os.MkdirTemp("", "flotilla-demo-"); err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(o.dir) }()
	}
	topology, err := deploy.Files.ReadFile("dev/four.txt")
	if err != nil {
		return err
	}
	began := time.Now()
	say := func(format string, args ...any) {
		fmt.Printf("%5.1fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	config := localfleet.Config{Dir: o.dir, Topology: string(topology), Devfleet: devfleet, Agent: agent, Name: "demo", Say: say}
	if o.laps > 0 {
		return (&sizes{config: config, clusters: []int{1, 4, 8}, objects: []int{10, 100, 1000}, rounds: o.laps}).run(ctx, os.Stdout)
	}
	fleet, err := localfleet.Start(ctx, config)
	if err != nil {
		return err
	}
	defer fleet.Stop()
	play := &play{fleet: fleet, say: say}
	if err := play.open(ctx); err != nil {
		return err
	}
	results := play.perform(ctx, acts)
	printTable(os.Stdout, results)
	if o.rounds > 0 && failure(results) == nil {
		return (&bench{play: play, kubectl: os.Getenv("KUBECTL"), rounds: o.rounds}).run(ctx, os.Stdout)
	}
	if err := failure(results); err != nil || o.once || ctx.Err() != nil {
		return err
	}
	invite(os.Stdout, fleet)
	<-ctx.Done()
	fmt.Println("\nending everything")
	return nil
}

// programs that the demo starts: devfleet by environment, the agent beside this binary.
func programs() (devfleet, agent string, err error) {
	self, err := os.Executable()
	if err != nil {
		return "", "", err
	}
	agent = filepath.Join(filepath.Dir(self), "flotilla-agent")
	if _, err := os.Stat(agent); err != nil {
		return "", "", fmt.Errorf("flotilla-agent is not beside %s: start this with make demo", self)
	}
	devfleet = os.Getenv("FLOTILLA_DEVFLEET")
	if devfleet == "" {
		return "", "", errors.New("FLOTILLA_DEVFLEET does not name the devfleet program: start this with make demo")
	}
	return devfleet, agent, nil
}
