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
	// away: the line is too slow for gossip. since is when that began or ended, or when the line began to be slow, or had
	// room again. rest is how long it has to have room before gossip is tried again.
	away  bool
	since turns
	rest  time.Duration
}

// turns are the moments that matter for gossip; zero where there was none.
type turns struct{ slow, room, back time.Time }

const (
	// Who has had a slow line for leaveAfter leaves gossip: it brings everything several times, and what waits for the line
	// keeps reconciliations from bringing it once.
	leaveAfter = 5 * time.Second
	// Who has had room on it for restFirst comes back. A line that is slow again within a trial of as long as the rest was
	// rests twice as long the next time, up to restMost.
	restFirst, restMost = 5 * time.Minute, 2 * time.Hour
)

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
// line. hopeless: nobody's is prompt. Among many slow neighbours it is not, and who has those must not leave them alone. It is called
// with mu held.
func (l *ownLine) slow() (slow, hopeless bool) {
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
	late, prompt := fresh(l.late), fresh(l.prompt)
	return late >= 2 && late > prompt, late >= 2 && prompt == 0
}

// gossips looks at the line, and says whether it is fast enough for gossip, and whether that is another answer than the last.
// It is called every so often.
func (l *ownLine) gossips() (fit, turned bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	slow, hopeless := l.slow()
	l.since.slow, l.since.room = since(hopeless, l.since.slow, now), since(!slow, l.since.room, now)
	switch {
	case !l.away && hopeless && now.Sub(l.since.slow) >= leaveAfter:
		if l.rest == 0 || now.Sub(l.since.back) > l.rest {
			l.rest = restFirst
		} else {
			l.rest = min(2*l.rest, restMost)
		}
		l.away, turned = true, true
	case l.away && !slow && now.Sub(l.since.room) >= l.rest:
		l.away, turned = false, true
		l.since.back = now
	}
	return !l.away, turned
}

// since gives the moment from which on something is so: now, where it was not.
func since(is bool, at, now time.Time) time.Time {
	switch {
	case !is:
		return time.Time{}
	case at.IsZero():
		return now
	}
	return at
}

// tooSlow says that the line is too slow for gossip.
func (l *ownLine) tooSlow() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.away
}

// watchLine leaves gossip where this member's own line is too slow for it, and comes back where it has room.
func (w *wire) watchLine() {
	if w.cfg.NoGossip {
		return
	}
	fit, turned := w.line.gossips()
	if !turned {
		return
	}
	if fit {
		w.cfg.Log.Info("this member's line has had room for a while: records come by gossip again")
	} else {
		w.counts.gossipLeft.Add(1)
		w.cfg.Log.Info("this member's line is too slow for gossip: records come by reconciliation alone until it has room", "for", w.line.resting().String())
	}
	wake(w.topicsNow)
}

// resting is how long the line has to have room before gossip is tried again.
func (l *ownLine) resting() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rest
}

// mayAsk says whether another reconciliation may begin here.
func (l *ownLine) mayAsk() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	slow, _ := l.slow()
	return l.own == 0 || !slow
}

// mayServe says whether one of another member may, beside so many.
func (l *ownLine) mayServe(served int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	slow, _ := l.slow()
	return l.own+served == 0 || !slow
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
