// SPDX-License-Identifier: Apache-2.0

package localfleet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// spawner starts processes that end with this one, even if it is killed. The kernel ties a child to the
// thread that started it, so all are started by one goroutine that keeps its thread.
type spawner struct {
	starts chan start
}

type start struct {
	cmd  *exec.Cmd
	done chan error
}

func newSpawner() *spawner { return &spawner{starts: make(chan start)} }

func (s *spawner) run(ctx context.Context) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for {
		select {
		case <-ctx.Done():
			return
		case next := <-s.starts:
			next.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
			next.done <- next.cmd.Start()
		}
	}
}

// process is one child: its log, its end, and how to bring that about.
type process struct {
	name string
	cmd  *exec.Cmd
	log  *os.File

	mu    sync.Mutex
	ended chan struct{}
	err   error
}

func (s *spawner) start(ctx context.Context, name, logFile string, cmd *exec.Cmd) (*process, error) {
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	asked := start{cmd: cmd, done: make(chan error, 1)}
	select {
	case s.starts <- asked:
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), log.Close())
	}
	if err := <-asked.done; err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", name, err), log.Close())
	}
	p := &process{name: name, cmd: cmd, log: log, ended: make(chan struct{})}
	go p.wait()
	return p, nil
}

func (p *process) wait() {
	err := p.cmd.Wait()
	if err == nil {
		err = errors.New("exit status 0")
	}
	p.mu.Lock()
	p.err = err
	p.mu.Unlock()
	_ = p.log.Close()
	close(p.ended)
}

// running says whether the process has not ended.
func (p *process) running() bool {
	if p == nil {
		return false
	}
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// kill -9, and wait for the end.
func (p *process) kill() {
	if p.running() {
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
}

// stop asks first, and kills after ten seconds.
func (p *process) stop() {
	if !p.running() {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(10 * time.Second):
		p.kill()
	}
}

// failure says why a process that should run does not.
func (p *process) failure() error {
	if p == nil || p.running() {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	tail, _ := os.ReadFile(p.log.Name())
	const most = 2000
	if len(tail) > most {
		tail = tail[len(tail)-most:]
	}
	return fmt.Errorf("%s ended (%w); the end of %s:\n%s", p.name, p.err, p.log.Name(), tail)
}
