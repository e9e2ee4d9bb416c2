// SPDX-License-Identifier: Apache-2.0

package crashtest

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/mesh"
	"github.com/flotilla-dev/flotilla/sequencer/mesh/meshtest"
)

// TestStopped: a process that stands still for longer than every timeout, as one does whose machine is put to sleep, goes
// on where it was. Nobody takes it for two, and it does not come back with a storm of connections.
func TestStopped(t *testing.T) {
	const timeout = time.Second
	p := newPair(t, timeout)
	c := p.start(false)
	ask := func(words int64) {
		t.Helper()
		for range words {
			_, err := fmt.Fprintln(c.stdin, "say")
			must(t, err)
		}
	}
	ask(10)
	c.await(10)
	p.settle(c)

	must(t, c.cmd.Process.Signal(syscall.SIGSTOP))
	for i := range 20 {
		_, err := p.stays.Publish(fleet.KindRegister, fmt.Sprint("meanwhile ", i), []byte("x"))
		must(t, err)
	}
	ask(10) // lies in the pipe
	meshtest.Await(t, "silence for longer than every timeout", func() bool {
		return other(p.stays).Silence > 3*timeout
	})
	before := p.asked.Load()
	must(t, c.cmd.Process.Signal(syscall.SIGCONT))
	c.await(20)
	meshtest.Await(t, "to be heard again", func() bool { return other(p.stays).Silence < timeout })
	p.settle(c)
	// A connection asks once or twice. Those that ended are made anew, one after the other.
	if asked := p.asked.Load() - before; asked > 20 {
		t.Errorf("the one that stayed was asked %d times for a connection", asked)
	}
	c.kill()
	p.verify()
}

func other(node *mesh.Node) mesh.PeerState { return node.Peers()[0] }
