// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"context"
	"sync"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// settling is how this start gets to know what the others know of it, before it says anything itself: a member
// whose disk was lost or restored hears its own last words first.
type settling struct {
	mu   sync.Mutex
	done chan struct{}
	over bool // done is closed
	// running reconciliations that may settle; late: the grace is over.
	running int
	late    bool
}

// Settled is closed when this start has reconciled with a member that carries the own zone; or when the roster has
// nobody else; or after a grace in which nobody was reached. A member waits for it before its first words. Run
// closes it; [Node.Publish] and [Node.Prepare] never wait.
//
// The grace is one attempt to dial and the first frames: who does not answer by then is down or cut off, and would
// not be there a minute later either. A member alone in a partition has to work, and it risks little: its promises lie in
// its own cluster's API, and of its registers those that an earlier life said at a higher position are said again when
// it hears of them. A reconciliation that has begun by then is waited for, because it is under way.
func (n *Node) Settled() <-chan struct{} { return n.settle.done }

// settleGrace is the time in which a member that is there is reached.
func (c *Config) settleGrace() time.Duration { return c.DialTimeout + c.StreamTimeout }

func (s *settling) begin() { s.done = make(chan struct{}) }

// close is called with mu held.
func (s *settling) close() {
	if !s.over {
		s.over = true
		close(s.done)
	}
}

// look closes where nobody could be reconciled with. An empty roster is one that has not been read yet.
func (s *settling) look(n *Node) {
	members := n.roster().Members()
	if n.running.Load() == nil || len(members) != 1 || members[0].ID != n.id {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.close()
}

// settles says whether a reconciliation with a member may settle: it carries the own zone, or nobody else does.
func (n *Node) settles(id fleet.MemberID) bool {
	n.setMu.RLock()
	c := n.carries
	n.setMu.RUnlock()
	if c.everything {
		return true
	}
	mates := false
	for _, m := range n.roster().Members() {
		if m.ID == n.id || m.Zone != c.zone {
			continue
		}
		if m.ID == id {
			return true
		}
		mates = true
	}
	return !mates
}

// reconciling is called when a reconciliation with a member begins; what it gives, when it has ended.
func (n *Node) reconciling(id fleet.MemberID) (ended func(well bool)) {
	if !n.settles(id) {
		return func(bool) {}
	}
	s := &n.settle
	s.mu.Lock()
	s.running++
	s.mu.Unlock()
	return func(well bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.running--
		if well || s.late && s.running == 0 {
			s.close()
		}
	}
}

// settleInTime ends the grace, and, should one slow member follow another, the waiting for those as well.
func (n *Node) settleInTime(ctx context.Context) {
	n.settle.look(n)
	for _, wait := range []time.Duration{n.cfg.settleGrace(), n.cfg.SessionTimeout} {
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-n.settle.done:
			timer.Stop()
			return
		case <-timer.C:
		}
		n.settle.expire()
	}
}

func (s *settling) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running == 0 || s.late {
		s.close()
	}
	s.late = true
}
