// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/flotilla-dev/flotilla/cmd/internal/sim"
)

// night runs seed after seed on every processor until the time is up, and remembers where it stopped.
type night struct {
	scenario sim.Scenario
	clusters int
	state    string
	stdout   io.Writer

	mu sync.Mutex
	// next seed to run, and those that were begun and not ended: the lowest of them is where the next night begins.
	next   uint64
	begun  map[uint64]bool
	done   int
	broken int
}

func parseNight(args []string, stdout, stderr io.Writer) (*night, time.Duration, error) {
	n := &night{stdout: stdout, begun: map[uint64]bool{}}
	flags := flag.NewFlagSet("flotilla-sim night", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { help(stderr); flags.PrintDefaults() }
	scenario := flags.String("scenario", "swarm", "kind of run")
	minutes := flags.Float64("minutes", 10, "how long")
	flags.IntVar(&n.clusters, "clusters", 0, "clusters in the fleet; 0 is the scenario's own number")
	flags.StringVar(&n.state, "state", "", "file that holds the next seed; without one every night begins with seed 1")
	if err := flags.Parse(args); err != nil {
		return nil, 0, err
	}
	if flags.NArg() > 0 || *minutes <= 0 {
		return nil, 0, errors.New("want -minutes above 0 and no other argument")
	}
	var err error
	if n.scenario, err = sim.Find(*scenario); err != nil {
		return nil, 0, err
	}
	if n.clusters == 0 {
		n.clusters = n.scenario.Clusters
	}
	n.next, err = readSeed(n.state)
	return n, time.Duration(*minutes * float64(time.Minute)), err
}

func readSeed(file string) (uint64, error) {
	if file == "" {
		return 1, nil
	}
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return 1, nil
	}
	if err != nil {
		return 0, err
	}
	seed, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: not a seed: write the next one into it, or remove it to begin with 1", file)
	}
	return seed, nil
}

// run until the time is up or the context ends; what was begun is ended.
func (n *night) run(ctx context.Context, lasts time.Duration) error {
	began, first := time.Now(), n.next
	ctx, cancel := context.WithTimeout(ctx, lasts)
	defer cancel()
	var work sync.WaitGroup
	var failed error
	for range runtime.GOMAXPROCS(0) {
		work.Go(func() {
			for ctx.Err() == nil {
				if err := n.one(); err != nil {
					n.mu.Lock()
					failed = errors.Join(failed, err)
					n.mu.Unlock()
					return
				}
			}
		})
	}
	work.Wait()
	took := time.Since(began)
	fmt.Fprintf(n.stdout, "%s: %d seeds of %d clusters in %s (%.0f an hour), from seed %d to %d: ",
		n.scenario.Name, n.done, n.clusters, took.Round(time.Millisecond), float64(n.done)/took.Hours(), first, n.next-1)
	if n.broken == 0 {
		fmt.Fprintln(n.stdout, "every rule held")
	} else {
		fmt.Fprintf(n.stdout, "%d broke a rule\n", n.broken)
	}
	return failed
}

func (n *night) one() error {
	n.mu.Lock()
	seed := n.next
	n.next++
	n.begun[seed] = true
	n.mu.Unlock()
	r, err := n.scenario.Run(seed, n.clusters, false)
	n.mu.Lock()
	defer n.mu.Unlock()
	if err != nil {
		return err
	}
	delete(n.begun, seed)
	n.done++
	if len(r.Violations) > 0 {
		n.broken++
		fmt.Fprintf(n.stdout, "seed %d: %s\n  again: %s\n", seed, r.Violations[0], again(&r))
	}
	return n.remember()
}

// remember the lowest seed that is not done. Called with mu held. The file is replaced as a whole: a night that is
// killed leaves the old number or the new one.
func (n *night) remember() error {
	if n.state == "" {
		return nil
	}
	lowest := n.next
	for seed := range n.begun {
		lowest = min(lowest, seed)
	}
	next, err := os.CreateTemp(filepath.Dir(n.state), filepath.Base(n.state)+".*")
	if err != nil {
		return fmt.Errorf("remember seed %d: %w", lowest, err)
	}
	_, err = fmt.Fprintln(next, lowest)
	if err = errors.Join(err, next.Close()); err == nil {
		err = os.Rename(next.Name(), n.state)
	}
	if err != nil {
		return fmt.Errorf("remember seed %d: %w", lowest, errors.Join(err, os.Remove(next.Name())))
	}
	return nil
}
