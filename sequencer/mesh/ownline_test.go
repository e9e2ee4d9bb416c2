// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// TestOwnLine: late answers of several members are one's own slow line; those of one, or beside prompt ones, are theirs.
func TestOwnLine(t *testing.T) {
	type answer struct {
		by    fleet.MemberID
		after time.Duration
		size  int
	}
	const late, soon = windowLate + time.Second, windowSoon / 2
	for name, c := range map[string]struct {
		answers []answer
		pass    time.Duration
		slow    bool
	}{
		"nothing heard":          {},
		"one slow member":        {answers: []answer{{"a", late, 9000}}},
		"two, and nobody else":   {answers: []answer{{"a", late, 9000}, {"b", late, 0}}, slow: true},
		"beside prompt ones":     {answers: []answer{{"a", late, 9000}, {"b", late, 0}, {"c", soon, 9000}, {"d", soon, 9000}}},
		"a few bytes say little": {answers: []answer{{"a", late, 9000}, {"b", late, 0}, {"c", soon, 40}, {"d", soon, 40}}, slow: true},
		"they became prompt":     {answers: []answer{{"a", late, 9000}, {"b", late, 0}, {"a", soon, 9000}}},
		"long ago":               {answers: []answer{{"a", late, 9000}, {"b", late, 0}}, pass: lineMemory + time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var l ownLine
				l.begin()
				for _, a := range c.answers {
					l.answered(a.by, a.after, a.size)
				}
				<-time.After(c.pass)
				if !l.mayAsk() || !l.mayServe(0) {
					t.Error("not even one reconciliation may run")
				}
				over := l.asking()
				if l.mayAsk() == c.slow || l.mayServe(0) == c.slow {
					t.Errorf("beside one of the own another may run: %v, want %v", l.mayAsk(), !c.slow)
				}
				over()
				if l.mayServe(1) == c.slow {
					t.Errorf("beside one that is served another may run: %v, want %v", l.mayServe(1), !c.slow)
				}
			})
		})
	}
}

// TestSlowLineLeavesGossip: after it was slow for some time, and comes back after it had room for some time; longer each
// time that the next trial fails soon.
func TestSlowLineLeavesGossip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l ownLine
		l.begin()
		// elapse lets time go by, second by second, with late answers or without, and gives when gossip was left or taken up.
		elapse := func(d time.Duration, late bool) (turns []time.Duration) {
			for at := time.Duration(0); at < d; at += time.Second {
				if late {
					l.answered("a", windowLate+1, 9000)
					l.answered("b", windowLate+1, 9000)
				}
				if _, turned := l.gossips(); turned {
					turns = append(turns, at)
				}
				pass(time.Second)
			}
			return turns
		}
		if got := elapse(leaveAfter-time.Second, true); len(got) != 0 {
			t.Errorf("left at once: %v", got)
		}
		if got := elapse(lineMemory+time.Minute, false); len(got) != 1 || !l.tooSlow() {
			t.Errorf("what was late is remembered for a minute, and it left %d times", len(got))
		}
		rest := restFirst
		for trial := range 8 {
			if got := elapse(rest-time.Minute, false); len(got) > 1 {
				t.Errorf("trial %d: %v", trial, got)
			}
			got := elapse(2*time.Minute+time.Second, false)
			if l.tooSlow() || len(got) != 1 {
				t.Fatalf("trial %d: not back after room for %s: %v", trial, rest, got)
			}
			if got := elapse(time.Minute, true); len(got) != 1 || got[0] != leaveAfter {
				t.Fatalf("trial %d: left again at %v", trial, got)
			}
			rest = min(2*rest, restMost)
			if l.rest != rest {
				t.Errorf("trial %d: rests for %s, want %s", trial, l.rest, rest)
			}
			elapse(lineMemory, false)
		}
		elapse(rest+time.Minute, false)
		elapse(rest, false)
		l.answered("c", windowSoon/2, 9000)
		if got := elapse(lineMemory, true); len(got) != 0 {
			t.Errorf("with one neighbour that answers at once it leaves at %v: the others are slow", got)
		}
		if got := elapse(leaveAfter+2*time.Second, true); len(got) != 1 || l.rest != restFirst {
			t.Errorf("long after the last trial it rests for %s, want %s", l.rest, restFirst)
		}
	})
}
