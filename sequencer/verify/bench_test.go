// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"fmt"
	"testing"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// BenchmarkCheck looks at ten releases that went through a thousand members.
func BenchmarkCheck(b *testing.B) {
	s := newScene(&testing.T{}, 0+1)
	for i := range 999 {
		s.Roster = append(s.Roster, s.join(fleet.Name(fmt.Sprintf("m-%d", i))))
	}
	s.seal(2, "main", 50, 1)
	for r := range 10 {
		s.take(fleet.Revision(fmt.Sprintf("r%d", r)))
		for i := range s.plan.Stages {
			for _, m := range s.plan.Stages[i].Members {
				s.say(m.Name, whole...)
			}
		}
	}
	b.ReportMetric(float64(len(s.Records)), "records")
	for b.Loop() {
		if r := Check(s.Evidence); r.Verdict != Kept {
			b.Fatal(told(&r)[0])
		}
	}
}
