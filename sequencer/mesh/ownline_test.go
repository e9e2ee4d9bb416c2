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
