// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"slices"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/cmd/internal/agent/turn"
	"github.com/flotilla-dev/flotilla/sequencer"
)

// This file counts what makes the rules worth asking: a run in which nobody ever waited for a gate says nothing about
// gates. What is counted here is in [Result.Seen].

// withheld are the reasons for which a rule withholds a start, or ends a member's part.
var withheld = map[sequencer.Reason]string{
	sequencer.WaitsForStage: "a start withheld by a gate",
	sequencer.WaitsForSlot:  "a start withheld by the window",
	sequencer.Stopped:       "a start withheld by a stop",
	sequencer.Sick:          "a start withheld by sickness",
	sequencer.WasRemoved:    "a start withheld from a removed member",
	sequencer.NotTargeted:   "a turn of who is not targeted",
	sequencer.HasYielded:    "a turn of who has yielded",
}

// reported looks at what a turn says of itself.
func (w *World) reported(r *turn.Report) {
	if r.Plan != nil {
		if what, counted := withheld[r.Decision.Reason]; counted {
			w.seen[what]++
		}
		if r.Decision.Verdict == sequencer.Wait && r.Outcome.Objects > 0 {
			w.seen["what runs is healed while a release waits"]++
		}
	}
	if fleet.ReasonOf(r.Trouble[v1alpha1.ConditionSourceReady], "") == v1alpha1.ReasonNotDescending {
		w.seen["a sibling revision refused"]++
	}
}

// started looks at what else is in motion when a member starts.
func (w *World) started(t *truth) {
	for _, other := range w.plans {
		if other == t || !slices.ContainsFunc(other.stages, func(s tally) bool { return s.moving > 0 }) {
			continue
		}
		switch {
		case other.rollout != t.rollout:
			w.seen["rollouts in motion at once"]++
		case other.plan.Release.Seal != t.plan.Release.Seal:
			w.seen["two live seals"]++
		default:
			w.seen["releases in motion at once"]++
		}
	}
}

// proofAgainst looks at whose proof comes up: a member of a first stage that was counted on.
func (w *World) proofAgainst(m *member) {
	if _, proven := w.book.proofs[m.Self.ID]; proven {
		return
	}
	for _, t := range w.plans {
		at, target := t.index[m.Self.ID]
		if target && at.stage == 0 && len(t.plan.Stages) > 1 && t.of(m.Self.ID)&(bit(fleet.Started)|bit(fleet.Soaked)) != 0 {
			w.seen["a removed canary"]++
			return
		}
	}
}

// roster looks at how the targets of a rollout change.
func (w *World) roster(r *rollout, before, after []fleet.Member) {
	without := func(from, these []fleet.Member) (n int) {
		ids := map[fleet.MemberID]bool{}
		for _, m := range these {
			ids[m.ID] = true
		}
		for _, m := range from {
			if !ids[m.ID] {
				n++
			}
		}
		return n
	}
	left, joined := without(before, after), without(after, before)
	if left > 0 {
		w.count("members leave")
	}
	if joined > 0 {
		w.count("members join")
	}
	if left+joined > 0 && w.isOpen(r) {
		w.seen["a changed roster during an open plan"]++
	}
}

// isOpen: a plan of the rollout was started, and not everyone is through.
func (w *World) isOpen(r *rollout) bool {
	for _, t := range w.plans {
		if w.rollouts[t.rollout] != r {
			continue
		}
		touched, through, size := 0, 0, 0
		for i, s := range t.stages {
			touched, through, size = touched+s.touched, through+s.soaked+s.left, size+len(t.plan.Stages[i].Members)
		}
		if touched > 0 && through < size {
			return true
		}
	}
	return false
}

// coalesced counts the revisions that nobody started, because a newer one came.
func (w *World) coalesced() {
	for i, r := range w.rollouts {
		for _, c := range r.commits[:len(r.commits)-1] {
			if !slices.ContainsFunc(append(w.plansWith(i, c.revision), w.plansWith(i, c.sibling)...), func(t *truth) bool {
				return slices.ContainsFunc(t.said, func(stage []uint16) bool {
					return slices.ContainsFunc(stage, func(said uint16) bool { return said&bit(fleet.Started) != 0 })
				})
			}) {
				w.seen["a revision that nobody started"]++
			}
		}
	}
}
