// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// Result of one run, as `flotilla-sim run -o json` prints it.
type Result struct {
	Scenario string `json:"scenario"`
	Clusters int    `json:"clusters"`
	Seed     uint64 `json:"seed"`
	// VirtualSeconds that went by.
	VirtualSeconds float64 `json:"virtualSeconds"`
	// Violations of the rules; none is what is wanted.
	Violations []string `json:"violations"`
	// Faults that happened, by type.
	Faults map[string]int `json:"faults"`
	// RolloutSeconds from the last commit, or from the beginning where there is one, to the last word said of it.
	RolloutSeconds float64 `json:"rolloutSeconds"`
	// RestartSeconds until an agent that began again was current; only of the scenario that restarts one.
	RestartSeconds float64 `json:"restartSeconds,omitempty"`
	// Seen counts what makes the rules worth asking.
	Seen map[string]int `json:"seen"`
	// Turns of the production agent, and Records said.
	Turns   int `json:"turns"`
	Records int `json:"records"`
	// FactBytes is the size of all records as they travel, signatures included: what a member that has heard
	// everything holds. SentBytes is what a member sent to others, the mean of all; with some sent in vain.
	FactBytes int `json:"factBytes"`
	SentBytes int `json:"sentBytes"`
	// Story line by line, where it was asked for.
	Story []string `json:"story,omitempty"`
}

func (w *World) result(scenario string, seed uint64) Result {
	w.coalesced()
	facts := 0
	for _, size := range w.book.sizes {
		facts += int(size)
	}
	return Result{
		RestartSeconds: w.restarted.Seconds(),
		FactBytes:      facts, SentBytes: int(w.network.sent / uint64(len(w.members))),
		Scenario: scenario, Clusters: len(w.members), Seed: seed, VirtualSeconds: w.now.Seconds(), Violations: append([]string{}, w.violations...),
		RolloutSeconds: (w.lastWord - w.rollouts[0].commits[len(w.rollouts[0].commits)-1].at).Seconds(),
		Faults:         w.faults, Seen: w.seen, Turns: w.turns, Records: len(w.book.records) - 1, Story: w.lines,
	}
}

func (w *World) broken() bool { return len(w.violations) > 0 }

// run both phases.
func (w *World) run() {
	w.until(w.params.Storm, w.broken)
	w.settleDown()
	for end := w.now + w.params.Calm; w.now < end && !w.broken() && w.unrest() != ""; {
		w.until(w.now+time.Minute, w.broken)
	}
	if what := w.unrest(); what != "" && !w.broken() {
		w.violate(w.members[0], "liveness: %s of calm, and %s", w.params.Calm, what)
	}
}

// settleDown ends the storm: the network is whole, everyone runs, mirrors follow, and stops are lifted.
func (w *World) settleDown() {
	w.stormy = false
	w.story(nil, "the storm is over")
	w.network.cut, w.network.epoch = nil, w.network.epoch+1
	for _, m := range w.members {
		m.frozen, m.paused, m.down = 0, min(m.paused, w.now), min(m.down, w.now)
	}
	for i := range w.rollouts {
		for _, m := range w.members {
			m.wake(i, m.lag+w.between(0, time.Second))
			if m.running[i].sickAt > 0 { // somebody mends it
				m.running[i].sickAt = 0
			}
		}
		w.lift(i, w.heeded())
	}
}

// lift every stop and sickness there is: an operator who knows all. What is said later is lifted later.
func (w *World) lift(i int, m *member) {
	r := w.rollouts[i]
	c := fleet.Command{Rollout: r.name, Verb: fleet.Resume, Time: 1}
	for page, record := range w.book.records {
		if w.book.about[page] != i {
			continue
		}
		fact, err := fleet.DecodeFact(&record)
		command, notCommand := fleet.DecodeCommand(&record)
		if err == nil && fact.Kind == fleet.Degraded || notCommand == nil && command.Verb == fleet.Pause {
			c.Lifts = append(c.Lifts, w.book.digests[page])
		}
	}
	for part := range slices.Chunk(c.Lifts, fleet.MaxLifts) {
		c.Lifts = part
		w.command(m, c)
	}
}

// stop a rollout at any member, or let it go on, by somebody who knows what that member has heard.
func (w *World) stop() {
	m := w.members[w.rand.IntN(len(w.members))]
	r := w.rollouts[w.rand.IntN(len(w.rollouts))]
	c := fleet.Command{Rollout: r.name, Verb: fleet.Pause, Reason: "storm", Time: int64(w.now)}
	w.count("stop")
	w.story(m, "is told to pause %s", r.name.Name)
	w.command(m, c)
	w.after(w.between(time.Second, w.params.Storm/2), func() {
		other := w.members[w.rand.IntN(len(w.members))]
		resume := other.liftOf(r.name)
		if len(resume.Lifts) > 0 {
			w.count("go")
			w.command(other, resume)
		}
	})
}

// liftOf names every stop that the member has heard of.
func (m *member) liftOf(name fleet.RolloutName) fleet.Command {
	resume := fleet.Command{Rollout: name, Verb: fleet.Resume, Time: int64(m.now)}
	for _, known := range (ledger{m}).Commands(name) {
		if known.Verb == fleet.Pause && len(resume.Lifts) < fleet.MaxLifts {
			resume.Lifts = append(resume.Lifts, known.ID)
		}
	}
	return resume
}

func (w *World) command(m *member, c fleet.Command) {
	r, _ := ledger{m}.Prepare(fleet.KindCommand, fmt.Sprintf("%s/%d.%d", c.Rollout, m.epoch, m.seq), c.Encode())
	m.tell(w.book.page(r))
}

// unrest says what is not as it must be in the end; empty is rest.
func (w *World) unrest() string {
	for _, m := range w.members {
		if !m.heard.equal(&w.members[0].heard) {
			return fmt.Sprintf("%s has heard other things than %s (I9)", m.Self.Name, w.members[0].Self.Name)
		}
	}
	for i, r := range w.rollouts {
		if what := w.unrestOf(i, r); what != "" {
			return r.name.Name + ": " + what
		}
	}
	return ""
}

// unrestOf the newest release: a stage may only be stuck by as many as neither window nor gate pays for (I8).
func (w *World) unrestOf(i int, r *rollout) string {
	t := w.newest(i, r)
	for j := range t.plan.Stages {
		s, now := &t.plan.Stages[j], w.restOf(t, j)
		if now.vanished+max(0, now.gaveUp-s.Tolerance) < s.MaxConcurrency && (now.moved < len(s.Members) || now.through < len(s.Members)) {
			return fmt.Sprintf("stage %s: %d of %d moved, %d are through, %d gave up, %d vanished (N %d, tolerance %d)",
				s.Name, now.moved, len(s.Members), now.through, now.gaveUp, now.vanished, s.MaxConcurrency, s.Tolerance)
		}
		if now.soaked+now.left < len(s.Members)-s.Tolerance || now.soaked == 0 {
			return "" // the gate stays closed
		}
	}
	return ""
}

// newest plan of a rollout: its last commit under its last seal.
func (w *World) newest(i int, r *rollout) *truth {
	plans, seal := w.plansWith(i, r.commits[len(r.commits)-1].revision), r.seals[len(r.seals)-1].rollout.Digest()
	return plans[slices.IndexFunc(plans, func(t *truth) bool { return t.plan.Release.Seal == seal })]
}

// rest of a stage: how many have moved, are through, gave up, and never come.
type rest struct {
	tally
	moved, through, gaveUp, vanished int
}

func (w *World) restOf(t *truth, stage int) rest {
	now := rest{tally: t.stages[stage]}
	for rank, said := range t.said[stage] {
		m := w.members[w.book.members[t.plan.Stages[stage].Members[rank].ID]]
		removed := t.removed[m.Self.ID]
		if m.lying && !removed { // it stands as its words have it
			said = w.word(t, m.Self.ID)
			now.add(counts(said), 1)
		}
		ended, gaveUp := said&(bit(fleet.Succeeded)|bit(fleet.Soaked)|bit(fleet.Yielded)) != 0, said&bit(fleet.GaveUp) != 0
		// Of these nothing more comes: who lies is silent now, who accepted a sibling of a commit follows the branch no more.
		over := removed || m.lying || m.forked && said == 0
		switch {
		case removed, m.lying && ended:
		case gaveUp:
			now.gaveUp++
		case over:
			now.vanished++
		}
		if over || ended || said&bit(fleet.Started) != 0 {
			now.moved++
		}
		if over || gaveUp || said&(bit(fleet.Soaked)|bit(fleet.Yielded)) != 0 {
			now.through++
		}
	}
	return now
}
