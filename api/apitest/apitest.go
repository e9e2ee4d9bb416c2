// SPDX-License-Identifier: Apache-2.0

// Package apitest answers: where does a test find a real API server that knows our kinds?
//
// A package that needs one calls [Main] from its TestMain and [Start] from its tests. Its tests share one devfleet
// member and keep to a [Namespace] of their own. Bare "go test" skips them with a sentence where no devfleet was
// named; FLOTILLA_TEST=all, as "make test" sets it, fails them instead.
package apitest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Limits of a start. Eight members that start at once on two cores need about 16 s.
const (
	readyLimit = 60 * time.Second
	stopLimit  = 10 * time.Second
	slotLimit  = 10 * time.Minute
)

// Environment variables.
const (
	// EnvDevfleet is the path of the devfleet binary.
	EnvDevfleet = "FLOTILLA_DEVFLEET"
	// EnvTest set to "all" makes a missing devfleet a failure; it is then built.
	EnvTest = "FLOTILLA_TEST"
)

// Server is a real API server with our CRDs and admission policies.
type Server struct {
	// Config of its administrator.
	Config *rest.Config
	// Kubeconfig is the file that Config was read from.
	Kubeconfig string
	// Dir is what the member keeps on disk.
	Dir string

	process *exec.Cmd
	stdin   io.Closer
	ended   chan end
	slot    *os.File
}

// end of the member's process.
type end struct{ how error }

// shared is the one server of a package's tests: a test binary has one, and nobody else can reach it.
var shared struct {
	sync.Mutex
	ready  bool // Main runs
	server *Server
	err    error
}

// Main runs the tests of a package and stops the server afterwards:
//
//	func TestMain(m *testing.M) { apitest.Main(m) }
func Main(m *testing.M) {
	shared.Lock()
	shared.ready = true
	shared.Unlock()
	code := m.Run()
	if err := stopShared(); err != nil {
		fmt.Fprintln(os.Stderr, "apitest:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func stopShared() error {
	shared.Lock()
	defer shared.Unlock()
	if shared.server == nil {
		return nil
	}
	return shared.server.stop()
}

// Start is the package's server, started by the first test that asks. The test is skipped where there is no
// devfleet, and fails instead under FLOTILLA_TEST=all.
func Start(t testing.TB) *Server {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if !shared.ready {
		t.Fatal("apitest: the package needs: func TestMain(m *testing.M) { apitest.Main(m) }")
	}
	if shared.server == nil && shared.err == nil {
		shared.server, shared.err = start()
	}
	if errors.Is(shared.err, errNoDevfleet) {
		t.Skip(shared.err)
	}
	if shared.err != nil {
		t.Fatal("apitest: ", shared.err)
	}
	return shared.server
}

var errNoDevfleet = errors.New("needs a real API server: run 'make test', or set " + EnvDevfleet + " to what '.ci/devfleet' prints")

// binary is the devfleet to run. Building one takes minutes when cold, so a bare "go test" does not.
func binary() (string, error) {
	if path := os.Getenv(EnvDevfleet); path != "" {
		return path, nil
	}
	if os.Getenv(EnvTest) != "all" {
		return "", errNoDevfleet
	}
	root, err := Root()
	if err != nil {
		return "", err
	}
	build := exec.Command(filepath.Join(root, ".ci", "devfleet"))
	build.Stderr = os.Stderr
	out, err := build.Output()
	if err != nil {
		return "", fmt.Errorf(".ci/devfleet: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// Root is the folder of the module that the test belongs to.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "deploy", "crd")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no deploy/crd in this folder or above: run tests inside the module")
		}
		dir = parent
	}
}

func start() (*Server, error) {
	path, err := binary()
	if err != nil {
		return nil, err
	}
	slot, err := takeSlot()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "flotilla-apitest-")
	if err != nil {
		return nil, err
	}
	s := &Server{Dir: filepath.Join(dir, member), slot: slot, ended: make(chan end, 1)}
	s.Kubeconfig = filepath.Join(s.Dir, "kubeconfig")
	if err := s.run(path, dir); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	ctx, cancel := context.WithTimeout(context.Background(), readyLimit)
	defer cancel()
	if err := install(ctx, s.Config); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

const member = "apitest"

// run starts the member's process, which ends when its standard input does: also when the test binary is killed.
func (s *Server) run(path, dir string) error {
	s.process = exec.Command(path, "member", "--name", member, "--dir", dir, "--child")
	s.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C reaches the test, which then stops it
	s.process.Stderr = os.Stderr
	stdin, err := s.process.StdinPipe()
	if err != nil {
		return err
	}
	s.stdin = stdin
	stdout, err := s.process.StdoutPipe()
	if err != nil {
		return err
	}
	if err := s.process.Start(); err != nil {
		return fmt.Errorf("devfleet: %w", err)
	}
	ready := make(chan struct{})
	go func() { s.ended <- follow(stdout, ready, s.process) }()
	select {
	case <-ready:
	case e := <-s.ended:
		s.process = nil
		return fmt.Errorf("devfleet ended before it was ready: %w\n%s", e.how, tail(filepath.Join(s.Dir, "log")))
	case <-time.After(readyLimit):
		return fmt.Errorf("devfleet was not ready after %s\n%s", readyLimit, tail(filepath.Join(s.Dir, "log")))
	}
	s.Config, err = clientcmd.BuildConfigFromFlags("", s.Kubeconfig)
	if err != nil {
		return err
	}
	s.Config.QPS = -1 // tests are in a hurry
	return nil
}

// follow closes ready at the line that says so, and returns when the process has ended.
func follow(stdout io.Reader, ready chan<- struct{}, process *exec.Cmd) end {
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "devfleet member "+member+" ready:") {
			close(ready)
			break
		}
	}
	_, _ = io.Copy(io.Discard, stdout)
	if err := process.Wait(); err != nil {
		return end{err}
	}
	return end{errors.New("exit status 0")}
}

func tail(file string) string {
	raw, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	return string(raw[max(0, len(raw)-2048):])
}

// stop ends the member and leaves nothing of it behind.
func (s *Server) stop() error {
	if s.stdin != nil {
		_ = s.stdin.Close()
	}
	if s.process != nil && s.process.Process != nil {
		_ = s.process.Process.Signal(syscall.SIGCONT)
		select {
		case <-s.ended:
		case <-time.After(stopLimit):
			_ = s.process.Process.Kill()
			<-s.ended
		}
	}
	return errors.Join(os.RemoveAll(filepath.Dir(s.Dir)), s.slot.Close())
}

// Freeze stops the member in its tracks, as a site that hangs: it answers nothing and closes nothing, until thaw.
// Only for tests that do not run in parallel.
func (s *Server) Freeze(t testing.TB) (thaw func()) {
	t.Helper()
	if err := s.process.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	awaitStopped(t, s.process.Process.Pid)
	var once sync.Once
	thaw = func() {
		once.Do(func() {
			if err := s.process.Process.Signal(syscall.SIGCONT); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(thaw)
	return thaw
}

// awaitStopped waits for every thread: the signal is taken by one of them, and until that one is scheduled the others run on.
func awaitStopped(t testing.TB, pid int) {
	t.Helper()
	deadline := time.Now().Add(stopLimit)
	for {
		stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		if err != nil || len(stats) == 0 {
			t.Fatalf("threads of process %d: %v", pid, err)
		}
		if !slices.ContainsFunc(stats, runs) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("process %d does not stop", pid)
		}
		time.Sleep(time.Millisecond)
	}
}

// runs says whether a thread is anything but stopped; its state comes after its name in brackets.
func runs(stat string) bool {
	raw, err := os.ReadFile(stat)
	if err != nil {
		return false // ended
	}
	_, state, _ := strings.Cut(string(raw[max(0, strings.LastIndexByte(string(raw), ')')):]), " ")
	return !strings.HasPrefix(state, "T")
}

// slots is how many members run on one machine at once, whatever the number of packages under test.
const slots = 2

// takeSlot waits for one of the slots. The lock ends with the process, however that ends.
func takeSlot() (*os.File, error) {
	deadline := time.Now().Add(slotLimit)
	for {
		for n := range slots {
			file, err := os.OpenFile(filepath.Join(os.TempDir(), fmt.Sprintf("flotilla-devfleet-%d.lock", n)), os.O_RDWR|os.O_CREATE, 0o600)
			if err != nil {
				return nil, err
			}
			if syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
				return file, nil
			}
			_ = file.Close()
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("waited %s: %d members run on this machine already", slotLimit, slots)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
