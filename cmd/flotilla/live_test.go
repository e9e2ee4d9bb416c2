// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"k8s.io/cli-runtime/pkg/genericiooptions"
)

// buffer that one writes while another reads.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// waitFor a text, for at most ten seconds.
func (b *buffer) waitFor(t *testing.T, text string) {
	t.Helper()
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for !strings.Contains(b.String(), text) {
		select {
		case <-deadline.C:
			t.Fatalf("no %q in:\n%s", text, b.String())
		case <-look.C:
		}
	}
}

// command under way.
type command struct {
	t        *testing.T
	out, err buffer
	stop     context.CancelFunc
	code     chan int
}

// begin a command against the site, which it does not end by itself.
func begin(t *testing.T, kubeconfig string, args ...string) *command {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c := &command{t: t, stop: cancel, code: make(chan int, 1)}
	a := &app{
		IOStreams: genericiooptions.IOStreams{In: strings.NewReader(""), Out: &c.out, ErrOut: &c.err},
		name:      "flotilla", now: now, version: "v0.1.0",
	}
	go func() { c.code <- a.run(ctx, append([]string{"--kubeconfig", kubeconfig}, args...)) }()
	t.Cleanup(cancel)
	return c
}

// end it, as Ctrl-C does.
func (c *command) end(want int) {
	c.t.Helper()
	c.stop()
	select {
	case code := <-c.code:
		if code != want {
			c.t.Errorf("exit code %d, want %d\n%s", code, want, c.err.String())
		}
	case <-time.After(10 * time.Second):
		c.t.Fatal("does not end")
	}
}

func newSite(t *testing.T, story ...string) (*site, string) {
	t.Helper()
	s, kubeconfig := &site{self: "us-1"}, filepath.Join(t.TempDir(), "kubeconfig")
	s.start(inTest{t}, kubeconfig)
	s.tell(inTest{t}, story...)
	return s, kubeconfig
}

// TestFollow: -w prints a list, and then the rows that change, until somebody ends it.
func TestFollow(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
	for name, test := range map[string]struct {
		args         []string
		first, later string
		once         string // is printed one time: what did not change
	}{
		"stages":   {[]string{"get", "stages", "web"}, "canary  ▶ Progressing", "canary  ✓ Complete", "PHASE"},
		"clusters": {[]string{"get", "clusters", "web"}, "c1       canary    Pending", "c1       canary  ✓ Complete", "CLUSTER"},
		"rollouts": {[]string{"get", "rollouts", "-A"}, "web       False    1/3", "web       False    2/3", "store"},
		"one":      {[]string{"get", "rollouts", "web"}, "web   False  1/3", "web   False  2/3", "NAME"},
		"names":    {[]string{"get", "stages", "web", "-o", "name"}, "stage/web/us", "stage/web/canary\nstage/web/eu\n", ""},
		"json":     {[]string{"get", "stages", "web", "-o", "json"}, `"phase": "Waiting"`, `"phase": "Complete"`, ""},
		"yaml":     {[]string{"get", "clusters", "web", "-o", "yaml"}, "---", "state: Complete", ""},
		"events":   {[]string{"events", "web"}, "c1      canary  Accepted", "c1      canary  Soaked", "Accepted"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, kubeconfig := newSite(t, "c1 accepted")
			c := begin(t, kubeconfig, append(test.args, "-w")...)
			c.out.waitFor(t, test.first)
			s.tell(inTest{t}, "c1 started", "c1 succeeded", "c1 soaked")
			c.out.waitFor(t, test.later)
			c.end(exitInterrupted)
			if n := strings.Count(c.out.String(), test.once); test.once != "" && n != 1 {
				t.Errorf("%q %d times:\n%s", test.once, n, c.out.String())
			}
			for line := range strings.Lines(c.out.String()) {
				if columns(strings.TrimSuffix(line, "\n")) > width && !slices.Contains(test.args, "-o") {
					t.Errorf("over %d columns: %q", width, line)
				}
			}
		})
	}
}

// TestFollowEvents: a pause and a resume are told once each, as they come, also after the agent was away.
func TestFollowEvents(t *testing.T) {
	t.Parallel()
	s, kubeconfig := newSite(t, "c1 accepted", "c1 started")
	c := begin(t, kubeconfig, "events", "web", "-w", "--limit", "1")
	c.out.waitFor(t, "Started")
	s.tell(inTest{t}, "pause by us-2: look at this")
	c.out.waitFor(t, "look at this")
	s.stop()
	c.err.waitFor(t, "trying again")
	s.startAgent(inTest{t})
	s.tell(inTest{t}, "resume by us-2", "c1 succeeded")
	c.out.waitFor(t, "Resume")
	c.out.waitFor(t, "Succeeded")
	c.end(exitInterrupted)
	for _, word := range []string{"Started", "Pause", "Resume", "Succeeded"} {
		if n := strings.Count(c.out.String(), word); n != 1 {
			t.Errorf("%s %d times:\n%s", word, n, c.out.String())
		}
	}
	if strings.Contains(c.out.String(), "Accepted") {
		t.Errorf("--limit 1 has the newest alone:\n%s", c.out.String())
	}
}

// TestFollowMembers: they are looked at again and again, and ages are no news.
func TestFollowMembers(t *testing.T) {
	t.Parallel()
	_, kubeconfig := newSite(t)
	c := begin(t, kubeconfig, "get", "members", "us-1", "-w")
	c.out.waitFor(t, "us-1")
	c.end(exitInterrupted)
	c = begin(t, kubeconfig, "get", "members", "us-7", "-w")
	if code := <-c.code; code != exitError || !strings.Contains(c.err.String(), "did you mean us-1") {
		t.Errorf("exit code %d: %s", code, c.err.String())
	}
}
