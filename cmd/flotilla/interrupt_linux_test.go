// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// TestInterruptedTwice: what does not heed the first Ctrl-C ends with another one.
func TestInterruptedTwice(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	deaf := &exec.Cmd{Path: self, Args: []string{"deaf"}, Stderr: os.Stderr}
	out, err := deaf.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := deaf.Start(); err != nil {
		t.Fatal(err)
	}
	defer deaf.Process.Kill() //nolint:errcheck // it has ended by then, or the test has failed
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("it says %q: %v", line, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- deaf.Wait() }()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	deadline := time.After(time.Minute)
	for {
		select {
		case err := <-ended:
			status, ok := deaf.ProcessState.Sys().(syscall.WaitStatus)
			if !ok || status.Signal() != syscall.SIGINT {
				t.Errorf("it ended with %v: %v", deaf.ProcessState, err)
			}
			return
		case <-again.C:
			_ = deaf.Process.Signal(os.Interrupt) // it may just have ended
		case <-deadline:
			t.Fatal("it does not end")
		}
	}
}
