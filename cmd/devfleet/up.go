// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

// stopLimit is how long members get to stop before they are killed.
const stopLimit = 5 * time.Second

// upOptions say which members to run.
type upOptions struct {
	topology, dir string
	only          []string
}

// fleet is the members that run as children of this process.
type fleet struct {
	children []*child
	events   chan event
	stderr   io.Writer
}

// child is one member's process. Only the fleet's own goroutine touches it.
type child struct {
	folder  folder
	process *exec.Cmd
	stdin   io.Closer // stays open as long as the parent lives
	began   time.Time
	took    time.Duration // until ready; 0 before
	ended   bool
}

// event is what a child has to tell: ready, or ended and how.
type event struct {
	child *child
	ready bool
	how   error // nil for an orderly end
}

// runUp runs the members of a topology as children of this process until it is told to stop.
func runUp(ctx context.Context, o upOptions, stdout, stderr io.Writer) error {
	folders, err := chosenMembers(o)
	if err != nil {
		return err
	}
	ctx, cancel := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	// The kernel kills children when the thread that started them ends: keep to one until they are gone.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	fl := &fleet{events: make(chan event, 2*len(folders)), stderr: stderr}
	defer fl.stop()
	for _, f := range folders {
		if err := fl.start(f); err != nil {
			return err
		}
	}
	if err := fl.awaitReady(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	if err := fl.printTable(stdout); err != nil {
		return err
	}
	fl.watch(ctx)
	return nil
}

// chosenMembers checks all that can be known before anything starts.
func chosenMembers(o upOptions) ([]folder, error) {
	names, err := readTopology(o.topology)
	if err != nil {
		return nil, err
	}
	for _, name := range o.only {
		if !slices.Contains(names, name) {
			return nil, fmt.Errorf("--member %s: %s has no such member, only: %s", name, o.topology, strings.Join(names, ", "))
		}
	}
	var folders []folder
	for _, name := range names {
		if len(o.only) > 0 && !slices.Contains(o.only, name) {
			continue
		}
		f, err := newFolder(o.dir, name)
		if err != nil {
			return nil, err
		}
		pid, err := f.holder()
		if err != nil {
			return nil, err
		}
		if pid > 0 {
			return nil, f.runningError(pid)
		}
		folders = append(folders, f)
	}
	return folders, nil
}

// start starts one member. It dies with this process, however that ends: the kernel kills it, and should it have moved
// to another parent before that was arranged, its standard input ends.
func (fl *fleet) start(f folder) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("member %s: %w", f.name, err)
	}
	c := &child{folder: f, process: exec.Command(self, "member", "--name", f.name, "--dir", f.dir, "--child"), began: time.Now()}
	c.process.Stderr = fl.stderr
	// A group of its own: Ctrl-C is for the parent, which then stops its children in order.
	c.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if c.stdin, err = c.process.StdinPipe(); err != nil {
		return fmt.Errorf("member %s: %w", f.name, err)
	}
	stdout, err := c.process.StdoutPipe()
	if err != nil {
		return fmt.Errorf("member %s: %w", f.name, err)
	}
	if err := c.process.Start(); err != nil {
		return fmt.Errorf("member %s: %w", f.name, err)
	}
	fl.children = append(fl.children, c)
	go follow(c, stdout, fl.events)
	return nil
}

// follow tells of a child's two moments.
func follow(c *child, stdout io.Reader, events chan<- event) {
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "devfleet member "+c.folder.name+" ready:") {
			events <- event{child: c, ready: true}
			break
		}
	}
	_, _ = io.Copy(io.Discard, stdout)
	events <- event{child: c, how: c.process.Wait()}
}

// awaitReady waits for every member; one that ends first is an error.
func (fl *fleet) awaitReady(ctx context.Context) error {
	for waiting := len(fl.children); waiting > 0; {
		select {
		case e := <-fl.events:
			if !e.ready {
				e.child.ended = true
				return fmt.Errorf("member %s ended before it was ready: %s (log: %s)", e.child.folder.name, how(e), e.child.folder.path("log"))
			}
			e.child.took = time.Since(e.child.began)
			waiting--
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

func (fl *fleet) printTable(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "MEMBER\tAPI\tKUBECONFIG\tSECONDS")
	for _, c := range fl.children {
		url, err := c.folder.url()
		if err != nil {
			return err
		}
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%.1f\n", c.folder.name, url, c.folder.kubeconfig(), c.took.Seconds())
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w, "devfleet ready")
	return err
}

// watch says which members end, and leaves the others alone.
func (fl *fleet) watch(ctx context.Context) {
	for {
		select {
		case e := <-fl.events:
			e.child.ended = true
			_, _ = fmt.Fprintln(fl.stderr, epitaph(e))
		case <-ctx.Done():
			return
		}
	}
}

// epitaph says how a member ended. What it died of by itself is in its log.
func epitaph(e event) string {
	text := "member " + e.child.folder.name + " died: " + how(e)
	if e.how == nil {
		return "member " + e.child.folder.name + " stopped"
	}
	if !strings.HasPrefix(how(e), "signal:") {
		text += " (log: " + e.child.folder.path("log") + ")"
	}
	return text
}

// stop ends all children and returns when none is left. A frozen one is woken so that it hears.
func (fl *fleet) stop() {
	for _, c := range fl.children {
		if !c.ended {
			_ = c.process.Process.Signal(syscall.SIGTERM)
			_ = c.process.Process.Signal(syscall.SIGCONT)
		}
	}
	limit := time.After(stopLimit)
	for slices.ContainsFunc(fl.children, func(c *child) bool { return !c.ended }) {
		select {
		case e := <-fl.events:
			e.child.ended = !e.ready
		case <-limit:
			for _, c := range fl.children {
				if !c.ended {
					_ = c.process.Process.Kill()
				}
			}
		}
	}
}

// how is a process's end in words: "signal: killed", "exit status 1".
func how(e event) string {
	var exit *exec.ExitError
	switch {
	case e.how == nil:
		return "exit status 0"
	case errors.As(e.how, &exit):
		return exit.String()
	}
	return e.how.Error()
}
