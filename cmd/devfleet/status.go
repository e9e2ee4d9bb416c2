// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"k8s.io/client-go/discovery"
	"k8s.io/client-go/tools/clientcmd"
)

// state is what a member is doing.
type state string

const (
	stateReady    state = "ready"
	stateStarting state = "starting" // runs, does not serve yet
	stateFrozen   state = "frozen"   // runs, but was sent SIGSTOP
	stateDead     state = "dead"     // ended without being stopped
	stateStopped  state = "stopped"
)

// condition is one line of status.
type condition struct {
	state state
	pid   int       // 0 if it does not run
	since time.Time // of the run, or of the end of the last one as far as files tell; zero if unknown
}

// members lists the members that have a folder in dir.
func members(dir string) ([]folder, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("--dir: %w", err)
	}
	var found []folder
	for _, e := range entries {
		if _, err := os.Stat(filepath.Join(dir, e.Name(), "lock")); err != nil {
			continue
		}
		f, err := newFolder(dir, e.Name())
		if err != nil {
			continue
		}
		found = append(found, f)
	}
	return found, nil
}

func runStatus(ctx context.Context, dir string, stdout io.Writer) error {
	found, err := members(dir)
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(stdout, 0, 8, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "MEMBER\tSTATE\tPID\tAPI\tSINCE")
	for _, f := range found {
		c, err := f.condition(ctx)
		if err != nil {
			return err
		}
		pid, since := "-", "-"
		if c.pid > 0 {
			pid = fmt.Sprint(c.pid)
		}
		if !c.since.IsZero() {
			since = c.since.Format(time.RFC3339)
		}
		url, err := f.url()
		if err != nil {
			url = "-"
		}
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", f.name, c.state, pid, url, since)
	}
	return table.Flush()
}

// condition asks the lock who runs, and the API server whether it serves.
func (f folder) condition(ctx context.Context) (condition, error) {
	pid, err := f.holder()
	if err != nil {
		return condition{}, err
	}
	last, err := f.readPid()
	if err != nil {
		return condition{}, err
	}
	since := f.pidWritten()
	switch {
	case pid == 0 && last == 0:
		return condition{state: stateStopped}, nil
	case pid == 0:
		return condition{state: stateDead, since: since}, nil
	case isFrozen(pid):
		return condition{state: stateFrozen, pid: pid, since: since}, nil
	case f.serves(ctx) != nil:
		return condition{state: stateStarting, pid: pid, since: since}, nil
	}
	return condition{state: stateReady, pid: pid, since: since}, nil
}

// pidWritten is when the last run began.
func (f folder) pidWritten() time.Time {
	info, err := os.Stat(f.path("pid"))
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// serves asks the member's API server whether it is ready.
func (f folder) serves(ctx context.Context) error {
	config, err := clientcmd.BuildConfigFromFlags("", f.kubeconfig())
	if err != nil {
		return err
	}
	config.Timeout = 2 * time.Second
	client, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return err
	}
	return client.RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
}

// isFrozen reads the process's state letter: T is stopped by a signal.
func isFrozen(pid int) bool {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	// The letter follows the command's name, which is in brackets and may itself contain any.
	_, rest, _ := strings.Cut(string(raw[max(0, strings.LastIndexByte(string(raw), ')')):]), " ")
	return strings.HasPrefix(rest, "T")
}

// runDown stops what runs in dir and waits until it is gone.
func runDown(ctx context.Context, dir string, only []string, stdout io.Writer) error {
	found, err := members(dir)
	if err != nil {
		return err
	}
	for _, name := range only {
		if !slices.ContainsFunc(found, func(f folder) bool { return f.name == name }) {
			return fmt.Errorf("--member %s: no such member in %s", name, dir)
		}
	}
	if len(only) > 0 {
		found = slices.DeleteFunc(found, func(f folder) bool { return !slices.Contains(only, f.name) })
	}
	var errs []error
	for _, f := range found {
		ran, err := f.signal(syscall.SIGTERM, syscall.SIGCONT)
		if ran {
			err = f.awaitEnd(ctx)
		}
		if err != nil {
			errs = append(errs, err)
		} else if ran {
			_, _ = fmt.Fprintf(stdout, "member %s stopped\n", f.name)
		}
	}
	return errors.Join(errs...)
}

// awaitEnd waits until nobody runs the member, and kills it if it does not stop by itself.
func (f folder) awaitEnd(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	kill := time.After(stopLimit)
	for {
		if pid, err := f.holder(); pid == 0 || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-kill:
			if _, err := f.signal(syscall.SIGKILL); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// runKubeconfig prints the path of the member's kubeconfig: the admin's, or a service account's.
func runKubeconfig(ctx context.Context, dir, name, account string, stdout io.Writer) error {
	f, err := newFolder(dir, name)
	if err != nil {
		return err
	}
	file := f.kubeconfig()
	if _, err := os.Stat(file); err != nil {
		return fmt.Errorf("member %s: %w: start it first, or name its folder with --dir", name, err)
	}
	if account != "" {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		if file, err = serviceAccountKubeconfig(ctx, f, account); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintln(stdout, file)
	return err
}
