// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/cli-runtime/pkg/genericiooptions"
)

// openTerminal gives both ends of a pseudo-terminal, 80 by 24.
func openTerminal(t *testing.T) (keyboard, screen *os.File) {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminal here: %v", err)
	}
	t.Cleanup(func() { keyboard.Close() })
	number, err := unix.IoctlGetInt(int(keyboard.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Skipf("no pseudo-terminal here: %v", err)
	}
	if err := unix.IoctlSetPointerInt(int(keyboard.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	if screen, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Skipf("no pseudo-terminal here: %v", err)
	}
	t.Cleanup(func() { screen.Close() })
	if err := unix.IoctlSetWinsize(int(keyboard.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80}); err != nil {
		t.Fatal(err)
	}
	return keyboard, screen
}

// TestLive: watch in a real terminal draws a screen, takes keys, pauses the rollout, and ends with it.
func TestLive(t *testing.T) {
	t.Setenv("TERM", "xterm-256color")
	s, kubeconfig := newSite(t, "c1 started")
	keyboard, terminal := openTerminal(t)
	var seen buffer
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.Copy(&seen, keyboard) // ends when the other end is closed
	}()
	watch := func() chan int {
		a := &app{IOStreams: genericiooptions.IOStreams{In: terminal, Out: terminal, ErrOut: io.Discard}, name: "flotilla", now: now, version: "v0.1.0"}
		code := make(chan int, 1)
		go func() { code <- a.run(context.Background(), []string{"--kubeconfig", kubeconfig, "watch", "web"}) }()
		return code
	}
	press := func(keys string) {
		if _, err := keyboard.WriteString(keys); err != nil {
			t.Fatal(err)
		}
	}
	ends := func(code chan int, want int) {
		t.Helper()
		select {
		case got := <-code:
			if got != want {
				t.Errorf("exit code %d, want %d", got, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("does not end:\n%s", seen.String())
		}
	}
	code := watch()
	seen.waitFor(t, "canary")
	press("e")
	seen.waitFor(t, "may not start")
	press("\x1b[A") // up, in a page
	press("q")
	press("p")
	seen.waitFor(t, "why?")
	press("latency is up\r")
	seen.waitFor(t, "apps/web paused")
	press("q")
	ends(code, exitInterrupted)
	s.mu.Lock()
	paused := s.paused
	s.mu.Unlock()
	if paused == nil || *paused != "latency is up" {
		t.Fatalf("paused for %v", paused)
	}
	code = watch()
	seen.waitFor(t, "paused by us-1")
	s.tell(inTest{t}, "resume by us-1", "c1 succeeded", "c1 soaked", "eu started", "eu succeeded", "eu soaked", "us started", "us succeeded", "us soaked")
	ends(code, exitOK)
	seen.waitFor(t, "8 of 8 clusters succeeded")
	terminal.Close()
	<-read
}
