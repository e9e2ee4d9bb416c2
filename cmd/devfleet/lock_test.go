// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// holdEnv makes this test binary claim the folder it names and wait for its standard input to end.
const holdEnv = "DEVFLEET_TEST_HOLD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(holdEnv); dir != "" {
		os.Exit(hold(dir))
	}
	os.Exit(m.Run())
}

func hold(dir string) int {
	lock, err := folder{dir: dir, name: "one"}.claim()
	if err != nil {
		_, _ = io.WriteString(os.Stdout, err.Error()+"\n")
		return 1
	}
	defer func() { _ = lock.Close() }()
	_, _ = io.WriteString(os.Stdout, "held\n")
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 0
}

// startHolder starts a process that claims the folder, and returns it with what it said.
func startHolder(t *testing.T, f folder) (*exec.Cmd, string) {
	t.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), holdEnv+"="+f.dir)
	if _, err := c.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	said, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return c, strings.TrimSpace(said)
}

func TestOneProcessAtATime(t *testing.T) {
	f := testFolder(t)
	first, said := startHolder(t, f)
	if said != "held" {
		t.Fatal(said)
	}
	if _, said := startHolder(t, f); !strings.Contains(said, "already running in "+f.path()+" as process "+strconv.Itoa(first.Process.Pid)) {
		t.Fatalf("the second said %q", said)
	}
	if pid, err := f.holder(); err != nil || pid != first.Process.Pid {
		t.Fatalf("holder %d, %v; want %d", pid, err, first.Process.Pid)
	}

	if ran, err := f.signal(syscall.SIGKILL); err != nil || !ran {
		t.Fatalf("signal: %v, %v", ran, err)
	}
	awaitHolder(t, f, 0)
	if pid, err := f.readPid(); err != nil || pid != first.Process.Pid {
		t.Fatalf("pid file says %d, %v; a killed process leaves its own, %d", pid, err, first.Process.Pid)
	}
	if c, err := f.condition(t.Context()); err != nil || c.state != stateDead {
		t.Fatalf("condition %+v, %v; want dead", c, err)
	}
	if _, said := startHolder(t, f); said != "held" {
		t.Fatalf("after the first died: %q", said)
	}
}

// A pid file may name a process that has nothing to do with us: ids are used again.
func TestForeignProcessIsLeftAlone(t *testing.T) {
	f := testFolder(t)
	stranger, said := startHolder(t, testFolder(t))
	if said != "held" {
		t.Fatal(said)
	}
	for _, file := range []string{"lock", "pid"} {
		if err := os.WriteFile(f.path(file), []byte(strconv.Itoa(stranger.Process.Pid)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if ran, err := f.signal(syscall.SIGKILL); ran || err != nil {
		t.Fatalf("signal: %v, %v; nobody runs here", ran, err)
	}
	var out strings.Builder
	if err := runDown(t.Context(), f.dir, nil, &out); err != nil || out.String() != "" {
		t.Fatalf("down: %v, printed %q", err, out.String())
	}
	if err := stranger.Process.Signal(syscall.Signal(0)); err != nil {
		t.Fatalf("the stranger is gone: %v", err)
	}
	if c, err := f.condition(t.Context()); err != nil || c.state != stateDead || c.pid != 0 {
		t.Fatalf("condition %+v, %v; want dead", c, err)
	}
}

func TestFrozen(t *testing.T) {
	c, _ := startHolder(t, testFolder(t))
	if isFrozen(c.Process.Pid) {
		t.Fatal("frozen before it was stopped")
	}
	if err := c.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return isFrozen(c.Process.Pid) })
	if isFrozen(0) {
		t.Fatal("a process that does not exist is frozen")
	}
}

func awaitHolder(t *testing.T, f folder, want int) {
	t.Helper()
	eventually(t, func() bool {
		pid, err := f.holder()
		return err == nil && pid == want
	})
}

// eventually polls a real process or server.
func eventually(t *testing.T, done func() bool) {
	t.Helper()
	tick := time.NewTicker(30 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(60 * time.Second); !done(); {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal("not within 60 s")
		}
	}
}
