// SPDX-License-Identifier: Apache-2.0

package readapi

import (
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/sequencer"
)

// ReadyCondition says whether the release is everywhere, as far as this member knows. Its message is
// a sentence; its transition time and generation are the writer's to fill in. Without a plan it is
// Unknown.
func ReadyCondition(in Input) metav1.Condition {
	if in.Plan == nil {
		return ready(metav1.ConditionUnknown, v1alpha1.ReasonProgressing, "there is no plan yet")
	}
	return look(in).ready()
}

func ready(status metav1.ConditionStatus, reason, message string) metav1.Condition {
	return metav1.Condition{Type: v1alpha1.ConditionReady, Status: status, Reason: reason, Message: message}
}

// ready asks in the order in which an answer makes the next question idle: what is finished stays
// finished, whoever is heard; who hears nobody cannot say how the others are; a stop explains why
// nothing moves before a failure does.
func (v *picture) ready() metav1.Condition {
	switch {
	case v.over():
		return v.complete()
	case v.Alone:
		return ready(metav1.ConditionUnknown, v1alpha1.ReasonNotHeard, "this member hears no other member; last known: "+v.progress())
	case v.Suspended:
		return ready(metav1.ConditionFalse, v1alpha1.ReasonSuspended, "suspended where it is written: no cluster starts anything new; "+v.progress())
	case len(v.stops) > 0:
		return ready(metav1.ConditionFalse, v1alpha1.ReasonPaused, v.stopSentence()+"; "+v.progress())
	}
	if i, halted := v.halted(); halted {
		return ready(metav1.ConditionFalse, v1alpha1.ReasonHalted, v.stages[i].Because)
	}
	if d := v.decide(v.Self.ID); d.Reason == sequencer.WaitsForStage {
		return ready(metav1.ConditionFalse, v1alpha1.ReasonWaitingForStage, d.Because())
	}
	reason := v1alpha1.ReasonProgressing
	if v.stages[v.current()].Phase == phaseSoaking {
		reason = v1alpha1.ReasonSoaking
	}
	return ready(metav1.ConditionFalse, reason, v.progress())
}

// halted: a stage has more failures than it tolerates, and nobody is at work on a first attempt or
// may start. A retry may still end it.
func (v *picture) halted() (stage int, halted bool) {
	stage = -1
	for i := range v.stages {
		t := &v.tallies[i]
		if t.Counts[sequencer.Progressing] > 0 {
			return 0, false
		}
		if id := v.firstPending(t); id != "" && v.decide(id).Verdict == sequencer.Go {
			return 0, false
		}
		if stage < 0 && v.stages[i].Phase == phaseFailed {
			stage = i
		}
	}
	return stage, stage >= 0
}

func (v *picture) complete() metav1.Condition {
	total, succeeded := v.Plan.Size(), 0
	var exceptions []string
	count := func(what string, names []fleet.Name) {
		if len(names) > 0 {
			exceptions = append(exceptions, fmt.Sprintf("%d %s (%s)", len(names), what, few(names)))
		}
	}
	for _, t := range v.tallies {
		succeeded += t.Succeeded()
	}
	count("gave up", v.inState(sequencer.HasFailed))
	count("ineligible", v.inState(sequencer.LeftPlan))
	count("removed, for saying two things at once", v.inState(sequencer.Removed))
	count("unhealthy after success", v.inState(sequencer.IsDegraded))
	message := fmt.Sprintf("%d of %d clusters succeeded at %s", succeeded, total, v.Plan.Release.Revision.Short())
	if len(exceptions) == 0 {
		return ready(metav1.ConditionTrue, v1alpha1.ReasonRolloutComplete, message)
	}
	return ready(metav1.ConditionTrue, v1alpha1.ReasonRolloutCompleteWithExceptions, message+"; "+strings.Join(exceptions, "; "))
}

func (v *picture) inState(state sequencer.MemberState) []fleet.Name {
	var out []fleet.Name
	for i := range v.Plan.Stages {
		for _, m := range v.Plan.Stages[i].Members {
			if sequencer.StateOf(v.Plan, v.Facts, m.ID) == state {
				out = append(out, m.Name)
			}
		}
	}
	return out
}

// progress of the current stage in words.
func (v *picture) progress() string {
	s := &v.stages[v.current()]
	out := fmt.Sprintf("%s: %d of %d succeeded", s.Name, s.Succeeded, s.Clusters)
	for _, part := range []struct {
		n    int32
		what string
	}{{s.Progressing, "progressing"}, {s.Failed, "failed"}, {s.Degraded, "unhealthy after success"}, {s.Ineligible, "ineligible"}} {
		if part.n > 0 {
			out += fmt.Sprintf(", %d %s", part.n, part.what)
		}
	}
	if s.Phase == phaseSoaking {
		t := &v.tallies[v.current()]
		out += fmt.Sprintf(", %d of %d soaked", t.Counts[sequencer.Complete]+t.Counts[sequencer.IsDegraded], s.Clusters)
	}
	return out
}

func (v *picture) stopSentence() string {
	parts := make([]string, len(v.stops))
	for i, c := range v.stops {
		parts[i] = fmt.Sprintf("paused by %s: %q", v.name(c.By), c.Reason)
		if c.Reason == "" {
			parts[i] = fmt.Sprintf("paused by %s", v.name(c.By))
		}
	}
	return strings.Join(parts, "; ")
}

// few names of a list, the others counted.
func few(names []fleet.Name) string {
	var parts []string
	for i, n := range names {
		if i == mostNames {
			parts = append(parts, fmt.Sprintf("%d more", len(names)-mostNames))
			break
		}
		parts = append(parts, string(n))
	}
	return strings.Join(parts, ", ")
}
