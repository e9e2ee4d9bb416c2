// SPDX-License-Identifier: Apache-2.0

package localfleet

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/flotilla-dev/flotilla/cmd/internal/gitserver"
)

// Config of a fleet.
type Config struct {
	// Dir holds everything; it is made where it is not, and left to its owner afterwards.
	Dir string
	// Topology: one member a line, name and labels (name key=value,key=value).
	Topology string
	// Devfleet and Agent are the two programs.
	Devfleet, Agent string
	// Name of the fleet.
	Name string
	// Say is told each step in words; may be nil.
	Say func(format string, args ...any)
}

// Fleet is a running one.
type Fleet struct {
	Config  Config
	Members []*Member
	Git     *gitserver.Server

	spawner *spawner
	stop    context.CancelFunc
	ended   sync.WaitGroup
}

// Start the clusters and the git server, and install Flotilla on each cluster. The agents wait for Join:
// their members must be on the roster first.
func Start(ctx context.Context, cfg Config) (*Fleet, error) {
	members, err := parse(cfg.Topology)
	if err != nil {
		return nil, err
	}
	if cfg.Say == nil {
		cfg.Say = func(string, ...any) {}
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	f := &Fleet{Config: cfg, Members: members, spawner: newSpawner(), stop: stop}
	f.ended.Go(func() { f.spawner.run(running) })
	if err := f.begin(ctx, running); err != nil {
		f.Stop()
		return nil, err
	}
	return f, nil
}

func (f *Fleet) begin(ctx, running context.Context) error {
	var err error
	if f.Git, err = gitserver.New(filepath.Join(f.Config.Dir, "git")); err != nil {
		return fmt.Errorf("git server: %w", err)
	}
	f.ended.Go(func() { _ = f.Git.Run(running) })
	f.Config.Say("starting %d Kubernetes control planes", len(f.Members))
	var group errgroup.Group
	for _, m := range f.Members {
		m.fleet = f
		group.Go(func() error {
			if err := m.StartCluster(ctx); err != nil {
				return err
			}
			return m.install(ctx)
		})
	}
	return group.Wait()
}

// Stop everything, agents first, and wait for the end of it.
func (f *Fleet) Stop() {
	var group errgroup.Group
	for _, m := range f.Members {
		group.Go(func() error {
			cluster, agent := m.processes()
			agent.stop()
			cluster.stop()
			return nil
		})
	}
	_ = group.Wait()
	f.stop()
	f.ended.Wait()
}

// Member by name.
func (f *Fleet) Member(name string) *Member {
	for _, m := range f.Members {
		if m.Name == name {
			return m
		}
	}
	return nil
}

// Check says which cluster or agent has ended that should run.
func (f *Fleet) Check() error {
	var errs []error
	for _, m := range f.Members {
		cluster, agent := m.processes()
		errs = append(errs, cluster.failure(), agent.failure())
	}
	return errors.Join(errs...)
}

// Await polls until ask says yes. It ends early when a process has died, or with the last reason at the deadline.
func (f *Fleet) Await(ctx context.Context, what string, within time.Duration, ask func(context.Context) (bool, string)) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	last := ""
	for {
		ok, why := ask(ctx)
		if ok {
			return nil
		}
		if ctx.Err() == nil || last == "" {
			last = why
		}
		if err := f.Check(); err != nil {
			return fmt.Errorf("waiting for %s: %w", what, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited %s for %s: %s", within, what, last)
		case <-tick.C:
		}
	}
}

// parse a topology: name and labels of each member.
func parse(topology string) ([]*Member, error) {
	var out []*Member
	seen := map[string]bool{}
	lines := bufio.NewScanner(strings.NewReader(topology))
	for n := 1; lines.Scan(); n++ {
		line, _, _ := strings.Cut(lines.Text(), "#")
		line, _, _ = strings.Cut(line, "->")
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		m := &Member{Name: fields[0], Labels: map[string]string{}}
		if seen[m.Name] {
			return nil, fmt.Errorf("topology line %d: a second member %s", n, m.Name)
		}
		seen[m.Name] = true
		for _, pair := range strings.Split(strings.Join(fields[1:], ","), ",") {
			key, value, ok := strings.Cut(pair, "=")
			if pair != "" && !ok {
				return nil, fmt.Errorf("topology line %d: %q is not key=value", n, pair)
			}
			if ok {
				m.Labels[key] = value
			}
		}
		out = append(out, m)
	}
	if len(out) == 0 {
		return nil, errors.New("topology: no member")
	}
	return out, lines.Err()
}

// freePort on loopback, for tcp and udp.
func freePort() (int, error) {
	for range 20 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return 0, err
		}
		port := l.Addr().(*net.TCPAddr).Port
		u, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		_ = l.Close()
		if err == nil {
			return port, u.Close()
		}
	}
	return 0, errors.New("no port that is free for tcp and udp")
}

// MemberFiles are the FleetMember manifests of the fleet, for members/ of its repository.
func (f *Fleet) MemberFiles() map[string]string {
	files := map[string]string{}
	for _, m := range f.Members {
		files["members/"+m.Name+".yaml"] = m.manifest()
	}
	return files
}

// StartAgents of all members.
func (f *Fleet) StartAgents(ctx context.Context) error {
	var group errgroup.Group
	for _, m := range f.Members {
		group.Go(func() error { return m.StartAgent(ctx) })
	}
	return group.Wait()
}
