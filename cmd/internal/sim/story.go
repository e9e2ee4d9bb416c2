// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/cmd/internal/agent/turn"
	"github.com/flotilla-dev/flotilla/sequencer"
)

// This file tells what happens, for people who look for the reason of a violation.

// story adds a line to the transcript.
func (w *World) story(m *member, format string, args ...any) {
	if !w.telling {
		return
	}
	who := "fleet"
	if m != nil {
		who = string(m.Self.Name)
	}
	w.lines = append(w.lines, fmt.Sprintf("%12s  %-7s %s", w.now.Round(time.Millisecond), who, fmt.Sprintf(format, args...)))
}

// introduce what is settled before anything happens.
func (w *World) introduce() {
	if !w.telling {
		return
	}
	for i, r := range w.rollouts {
		for _, c := range r.commits {
			end := ""
			if r.hopeless[c.revision] {
				end = ", which gets well nowhere"
			}
			w.story(nil, "%s has %s from %s on%s", r.name.Name, c.revision.Short(), c.at.Round(time.Millisecond), end)
		}
		w.tellSeal(i)
	}
	for _, m := range w.members {
		if m.lying {
			w.story(m, "lies")
		}
		if m.forked {
			w.story(m, "sees a sibling of each commit")
		}
	}
}

// tellSeal that is the last one of a rollout: its stages.
func (w *World) tellSeal(i int) {
	if !w.telling {
		return
	}
	r := w.rollouts[i]
	var stages []string
	for _, s := range w.newest(i, r).plan.Stages {
		stages = append(stages, fmt.Sprintf("%s %d (%d at a time, %d may fail, soaks %s)", s.Name, len(s.Members), s.MaxConcurrency, s.Tolerance, s.Soak))
	}
	w.story(nil, "seal %d of %s: %s", len(r.seals), r.name.Name, strings.Join(stages, ", "))
}

// release as a story names it.
func (t *truth) release(w *World) string {
	of := ""
	if len(w.rollouts) > 1 {
		of = " of " + w.rollouts[t.rollout].name.Name
	}
	return fmt.Sprintf("%s of seal %d%s", t.plan.Release.Revision.Short(), t.plan.Release.Number, of)
}

// becomes says how a payload will do in a cluster.
func (r *running) becomes(now time.Duration) string {
	switch {
	case r.wellAt < 0:
		return "never gets well here"
	case r.sickAt > 0:
		return fmt.Sprintf("is well in %s, and sick after %s", (r.wellAt - now).Round(time.Millisecond), (r.sickAt - now).Round(time.Millisecond))
	}
	return fmt.Sprintf("is well in %s", (r.wellAt - now).Round(time.Millisecond))
}

// shown is what a member was last told to wait for in a rollout.
type shown struct {
	verdict sequencer.Verdict
	reason  sequencer.Reason
	gate    string
	plan    fleet.Digest
}

// tellWait says what a member waits for, where that is another thing than before. A play says it at its end.
func (m *member) tellWait(rollout int, r *turn.Report) {
	if !m.telling || m.params.play != nil || r.Plan == nil {
		return
	}
	now := shown{r.Decision.Verdict, r.Decision.Reason, r.Decision.Gate, r.Plan.Digest}
	if m.shown[rollout] == now {
		return
	}
	m.shown[rollout] = now
	if now.verdict == sequencer.Wait || now.verdict == sequencer.Hold || now.verdict == sequencer.Out {
		m.story(m, "%s: %s", r.Plan.Release.Revision.Short(), r.Because())
	}
}

// names of some members, those of the first few.
func (w *World) names(which func(i int) bool) string {
	const most = 20
	var out []string
	for i, m := range w.members {
		if which(i) {
			out = append(out, string(m.Self.Name))
		}
	}
	if n := len(out); n > most {
		out = slices.Concat(out[:most], []string{fmt.Sprintf("and %d more", n-most)})
	}
	return strings.Join(out, " ")
}
