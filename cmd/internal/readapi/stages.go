// SPDX-License-Identifier: Apache-2.0

package readapi

import (
	"fmt"
	"strings"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/sequencer"
)

// Phases of a stage, as the API has them.
const (
	phasePending     = "Pending"     // nothing has started; its turn may be far
	phaseWaiting     = "Waiting"     // next in turn, or stopped; the sentence says for what
	phaseProgressing = "Progressing" // clusters are at work, or may start now
	phaseSoaking     = "Soaking"     // all successes are there, the soak is not over
	phaseComplete    = "Complete"    // its gate is open and nobody is at work
	phaseFailed      = "Failed"      // more failures than it tolerates
)

// mostNames that a status lists of a stage.
const mostNames = 5

// StageStatuses are the stages of the plan in counts; nil without a plan.
func StageStatuses(in Input) []v1alpha1.StageStatus {
	if in.Plan == nil {
		return nil
	}
	return look(in).stages
}

func (v *picture) stageStatuses() []v1alpha1.StageStatus {
	out := make([]v1alpha1.StageStatus, len(v.tallies))
	next := true // the first stage that may not begin yet waits; those behind it are pending
	for i := range v.tallies {
		out[i] = v.stageStatus(i, next)
		next = next && out[i].Phase != phaseWaiting && out[i].Phase != phasePending
	}
	return out
}

func (v *picture) stageStatus(i int, next bool) v1alpha1.StageStatus {
	t := &v.tallies[i]
	s := v1alpha1.StageStatus{
		Name:        t.Stage.Name,
		Clusters:    int32(len(t.Stage.Members)),
		Succeeded:   int32(t.Succeeded()),
		Progressing: int32(t.Counts[sequencer.Progressing]),
		Failed:      int32(t.Counts[sequencer.HasFailed]),
		Degraded:    int32(t.Counts[sequencer.IsDegraded]),
		Ineligible:  int32(t.Counts[sequencer.LeftPlan] + t.Counts[sequencer.Removed]),
	}
	s.Phase = v.phase(t, next)
	switch {
	case len(t.Trouble) > 0:
		s.Because = v.trouble(t)
	case s.Phase == phaseWaiting:
		s.Because = v.decide(v.firstPending(t)).Because()
	case s.Phase == phaseFailed:
		s.Because = fmt.Sprintf("%s: all %d clusters left the plan; a stage where nobody succeeded opens no other", s.Name, s.Clusters)
	}
	for _, name := range append(append([]fleet.Name(nil), t.Trouble...), t.Awaited...) {
		if len(s.Names) < mostNames {
			s.Names = append(s.Names, string(name))
		}
	}
	return s
}

// phase of a stage; next says that every stage before it has begun.
func (v *picture) phase(t *sequencer.Tally, next bool) string {
	pending, working := t.Counts[sequencer.Pending], t.Counts[sequencer.Progressing]+v.retrying(t)
	idle := pending+working+t.Counts[sequencer.Soaking] == 0
	switch {
	case t.Counts[sequencer.HasFailed] > t.Stage.Tolerance, !v.over() && t.Counts[sequencer.IsDegraded] > t.Stage.Tolerance:
		return phaseFailed
	case idle && t.Passed:
		return phaseComplete
	case idle:
		return phaseFailed
	case working > 0:
		return phaseProgressing
	case pending == 0:
		return phaseSoaking
	}
	return v.notStarted(t, next)
}

// notStarted is the phase of a stage with members left to start and none at work.
func (v *picture) notStarted(t *sequencer.Tally, next bool) string {
	switch v.decide(v.firstPending(t)).Verdict {
	case sequencer.Go:
		return phaseProgressing
	case sequencer.Hold:
		return phaseWaiting
	}
	if next {
		return phaseWaiting
	}
	return phasePending
}

// over: every gate is open and nobody is left to start or at work. Sickness halts nothing any more.
func (v *picture) over() bool {
	for i := range v.tallies {
		t := &v.tallies[i]
		if !t.Passed || t.Counts[sequencer.Pending]+t.Counts[sequencer.Progressing]+t.Counts[sequencer.Soaking]+v.retrying(t) > 0 {
			return false
		}
	}
	return true
}

// retrying counts the members whose attempt failed and that have not given up.
func (v *picture) retrying(t *sequencer.Tally) int {
	n := 0
	for _, m := range t.Stage.Members {
		if sequencer.StateOf(v.Plan, v.Facts, m.ID) == sequencer.HasFailed && !v.said(m.ID, fleet.GaveUp) {
			n++
		}
	}
	return n
}

// firstPending is the member of lowest rank that has not started.
func (v *picture) firstPending(t *sequencer.Tally) fleet.MemberID {
	for _, m := range t.Stage.Members {
		if sequencer.StateOf(v.Plan, v.Facts, m.ID) == sequencer.Pending {
			return m.ID
		}
	}
	return ""
}

// trouble of a stage in one sentence: the first member in its own words, the others in names.
func (v *picture) trouble(t *sequencer.Tally) string {
	var first string
	var others []string
	for _, m := range t.Stage.Members {
		state := sequencer.StateOf(v.Plan, v.Facts, m.ID)
		if state != sequencer.HasFailed && state != sequencer.IsDegraded {
			continue
		}
		if first == "" {
			first = v.troubleOf(m, state)
			continue
		}
		others = append(others, string(m.Name))
	}
	if n := len(others); n > mostNames {
		others = append(others[:mostNames], fmt.Sprintf("%d more", n-mostNames))
	}
	if len(others) > 0 {
		first += "; also " + strings.Join(others, ", ")
	}
	return t.Stage.Name + ": " + first
}

func (v *picture) troubleOf(m fleet.Member, state sequencer.MemberState) string {
	with := func(sentence, detail string) string {
		if detail == "" {
			return sentence
		}
		return sentence + ": " + detail
	}
	switch {
	case state == sequencer.IsDegraded:
		return with(string(m.Name)+" is unhealthy after its success", v.detail(m.ID, fleet.Degraded))
	case v.said(m.ID, fleet.GaveUp):
		return with(string(m.Name)+" gave up", v.detail(m.ID, fleet.GaveUp, fleet.Failed))
	}
	return with(string(m.Name)+" failed", v.detail(m.ID, fleet.Failed)) + "; it keeps its place and retries"
}

// Summary is the rollout in one line; nil without a plan.
func Summary(in Input) *v1alpha1.Summary {
	if in.Plan == nil {
		return nil
	}
	v := look(in)
	succeeded, failed := 0, 0
	for _, t := range v.tallies {
		succeeded += t.Succeeded()
		failed += t.Counts[sequencer.HasFailed]
	}
	return &v1alpha1.Summary{
		Stage:    fmt.Sprintf("%d/%d", v.current()+1, len(v.stages)),
		Clusters: fmt.Sprintf("%d/%d", succeeded, in.Plan.Size()),
		Failed:   int32(failed),
		Revision: in.Plan.Release.Revision.Short(),
	}
}

// current is the first stage that is not complete; the last one where all are.
func (v *picture) current() int {
	for i := range v.stages {
		if v.stages[i].Phase != phaseComplete {
			return i
		}
	}
	return len(v.stages) - 1
}

// ReleaseStatus names the release that the plan is of; nil without a plan.
func ReleaseStatus(in Input) *v1alpha1.Release {
	if in.Plan == nil {
		return nil
	}
	r := in.Plan.Release
	return &v1alpha1.Release{
		Revision: string(r.Revision), Plan: in.Plan.Digest.String(), Seal: r.Seal.String(), Number: int64(r.Number),
	}
}
