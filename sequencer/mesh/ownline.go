// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"sync"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// lineMemory is how long an answer says something of this member's own line.
const lineMemory = time.Minute

// ownLine is what reconciliations say of this member's own line. Where it is slow, several of them at once keep each other
// from ever coming to an end: all neighbours see that something is missing here and ask, each for itself.
type ownLine struct {
	mu sync.Mutex
	// late and prompt are when the last answer of each member was so.
	late, prompt map[fleet.MemberID]time.Time
	// own reconciliations that run.
	own int
}

func (l *ownLine) begin() {
	l.late, l.prompt = map[fleet.MemberID]time.Time{}, map[fleet.MemberID]time.Time{}
}

// answered notes how soon a member answered. An answer of a few bytes says nothing of the line but that it is late.
func (l *ownLine) answered(by fleet.MemberID, after time.Duration, size int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case after > windowLate:
		l.late[by] = time.Now()
	case after < windowSoon && size >= windowLeast:
		l.prompt[by] = time.Now()
		delete(l.late, by)
	}
}

// slow says that answers are late from more members than are prompt, and from two at least: of one it is the member's own
// line. It is called with mu held.
func (l *ownLine) slow() bool {
	fresh := func(of map[fleet.MemberID]time.Time) (n int) {
		for id, at := range of {
			if time.Since(at) > lineMemory {
				delete(of, id)
				continue
			}
			n++
		}
		return n
	}
	late := fresh(l.late)
	return late >= 2 && late > fresh(l.prompt)
}

// mayAsk says whether another reconciliation may begin here.
func (l *ownLine) mayAsk() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.own == 0 || !l.slow()
}

// mayServe says whether one of another member may, beside so many.
func (l *ownLine) mayServe(served int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.own+served == 0 || !l.slow()
}

// asking counts one of the own until ended is called.
func (l *ownLine) asking() (ended func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.own++
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.own--
	}
}
