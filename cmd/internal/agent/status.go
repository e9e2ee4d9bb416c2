// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/cmd/internal/agent/turn"
	"github.com/flotilla-dev/flotilla/cmd/internal/readapi"
	"github.com/flotilla-dev/flotilla/delivery"
	"github.com/flotilla-dev/flotilla/sequencer"
)

// Heard is what the mesh knows of who is there.
type Heard struct {
	// Since the last heartbeat of each member that was heard.
	Since map[fleet.MemberID]time.Duration
	// Presence is what is made of it, in a word of the read API.
	Presence map[fleet.MemberID]string
	// Alone: there are others and none is heard.
	Alone bool
}

// outlook is what a member knows of the fleet beside what its turns report.
type outlook struct {
	agent  *turn.Agent
	ledger *MeshLedger
	heard  Heard
	nameOf func(fleet.MemberID) fleet.Name
}

func (c *Controller) outlook() outlook { return outlook{c.Agent, c.Ledger, c.Heard(), c.NameOf} }

// input for everything that people read of a rollout: one source, so that status, endpoint and CLI
// never tell different stories.
func (o outlook) input(name fleet.RolloutName, r *turn.Report) readapi.Input {
	in := readapi.Input{
		Name: name, Plan: r.Plan, Facts: o.ledger, History: o.ledger, Self: o.agent.Self, NameOf: o.nameOf,
		Statuses: o.ledger.Statuses(name), Heard: o.heard.Since, Presence: o.heard.Presence, Alone: o.heard.Alone,
		Suspended: r.Rollout.Settings.Suspend, Duplicate: o.agent.Duplicate != nil && o.agent.Duplicate(),
		Author: r.Rollout.Author, Subject: r.Subject,
	}
	if r.Rollout.Origin.Type != "" {
		in.Origin = &r.Rollout.Origin
	}
	return in
}

// status is the object's status after a turn. Conditions keep their transition times from before.
func status(before v1alpha1.FleetRolloutStatus, generation int64, r *turn.Report, in readapi.Input) v1alpha1.FleetRolloutStatus {
	after := *before.DeepCopy()
	after.ObservedGeneration = generation
	after.Origin, after.Summary, after.Stages, after.Release = in.Origin, readapi.Summary(in), readapi.StageStatuses(in), readapi.ReleaseStatus(in)
	after.Here = here(r)
	for _, c := range conditions(r, in) {
		c.ObservedGeneration = generation
		c.Message = clipMessage(c.Message)
		meta.SetStatusCondition(&after.Conditions, c)
	}
	for _, onlyIfTrue := range []string{
		v1alpha1.ConditionReconciling, v1alpha1.ConditionStalled, v1alpha1.ConditionPaused, v1alpha1.ConditionDegraded,
	} {
		if c := onlyIf(onlyIfTrue, r, in); c != nil {
			c.ObservedGeneration, c.Message = generation, clipMessage(c.Message)
			meta.SetStatusCondition(&after.Conditions, *c)
		} else {
			meta.RemoveStatusCondition(&after.Conditions, onlyIfTrue)
		}
	}
	return after
}

func here(r *turn.Report) *v1alpha1.MemberRollout {
	h := &v1alpha1.MemberRollout{
		Phase: r.Phase(), Stage: r.Decision.Stage, Because: clipMessage(r.Because()),
		Objects: int32(r.Outcome.Objects), //nolint:gosec // bounded by MaxObjects
	}
	if r.Decision.Stage != "" {
		rank := int32(r.Decision.Rank) //nolint:gosec // bounded by the fleet's size
		h.Rank = &rank
	}
	if i := r.Promise.Installed; i != nil {
		h.AppliedRevision = string(i.Release.Revision)
	}
	if r.Plan != nil && r.Promise.Progress.Plan == r.Plan.Digest {
		h.Attempts = int32(r.Promise.Progress.Attempts) //nolint:gosec // bounded by retries
	}
	return h
}

// conditions that are always there.
func conditions(r *turn.Report, in readapi.Input) []metav1.Condition {
	return []metav1.Condition{
		readapi.ReadyCondition(in), sourceReady(r), sealed(r), applied(r), available(r),
	}
}

func sourceReady(r *turn.Report) metav1.Condition {
	if err := r.Trouble[v1alpha1.ConditionSourceReady]; err != nil {
		return condition(v1alpha1.ConditionSourceReady, metav1.ConditionFalse, fleet.ReasonOf(err, v1alpha1.ReasonFetchFailed), err.Error())
	}
	if r.Promise.Accepted.Revision == "" {
		return condition(v1alpha1.ConditionSourceReady, metav1.ConditionUnknown, v1alpha1.ReasonProgressing, "no revision was seen yet")
	}
	return condition(v1alpha1.ConditionSourceReady, metav1.ConditionTrue, v1alpha1.ReasonFetched, string(r.Promise.Accepted.Revision))
}

func sealed(r *turn.Report) metav1.Condition {
	if err := r.Trouble[v1alpha1.ConditionSealed]; err != nil {
		return condition(v1alpha1.ConditionSealed, metav1.ConditionFalse, fleet.ReasonOf(err, v1alpha1.ReasonInvalid), err.Error())
	}
	if r.Rollout.Author == "" {
		return condition(v1alpha1.ConditionSealed, metav1.ConditionUnknown, v1alpha1.ReasonProgressing, "no seal was seen yet")
	}
	reason := v1alpha1.ReasonSealedByAuthor
	if r.Rollout.Author == fleet.AuthorGit {
		reason = v1alpha1.ReasonSealedByCommit
	}
	message := fmt.Sprintf("%d members by %s, number %d", len(r.Rollout.Targets), r.Rollout.Origin.Name, r.Rollout.Number)
	if len(r.Unmatched) > 0 {
		message += "; among these members: " + strings.Join(r.Unmatched, "; ")
	}
	return condition(v1alpha1.ConditionSealed, metav1.ConditionTrue, reason, message)
}

func applied(r *turn.Report) metav1.Condition {
	if err := r.Trouble[v1alpha1.ConditionApplied]; err != nil {
		return condition(v1alpha1.ConditionApplied, metav1.ConditionFalse, fleet.ReasonOf(err, v1alpha1.ReasonApplyFailed), err.Error())
	}
	if r.Promise.Installed == nil {
		return condition(v1alpha1.ConditionApplied, metav1.ConditionFalse, v1alpha1.ReasonWaiting, r.Because())
	}
	if r.Outcome.Waiting != "" {
		return condition(v1alpha1.ConditionApplied, metav1.ConditionFalse, v1alpha1.ReasonWaitingForWave, r.Outcome.Waiting)
	}
	return condition(v1alpha1.ConditionApplied, metav1.ConditionTrue, v1alpha1.ReasonApplied,
		fmt.Sprintf("%s, %d objects", r.Promise.Installed.Release.Revision.Short(), r.Outcome.Objects))
}

func available(r *turn.Report) metav1.Condition {
	if c, is := failed(r); is {
		return c
	}
	if err := r.Trouble[v1alpha1.ConditionAvailable]; err != nil {
		return condition(v1alpha1.ConditionAvailable, metav1.ConditionUnknown, v1alpha1.ReasonChecking, err.Error())
	}
	switch {
	case r.Promise.Installed == nil && r.Decision.Reason == sequencer.NotTargeted:
		return condition(v1alpha1.ConditionAvailable, metav1.ConditionUnknown, v1alpha1.ReasonNotTargeted, r.Because())
	case r.Promise.Installed == nil && r.Decision.Reason == sequencer.HasYielded:
		return condition(v1alpha1.ConditionAvailable, metav1.ConditionUnknown, v1alpha1.ReasonIneligible, r.Because())
	case r.Promise.Installed == nil:
		return condition(v1alpha1.ConditionAvailable, metav1.ConditionFalse, v1alpha1.ReasonWaiting, r.Because())
	case r.Health.State == delivery.Healthy:
		return condition(v1alpha1.ConditionAvailable, metav1.ConditionTrue, v1alpha1.ReasonHealthy,
			fmt.Sprintf("%d of %d objects of %s", r.Health.Ready, r.Health.Total, r.Promise.Installed.Release.Revision.Short()))
	case r.Promise.Progress.Degraded:
		return condition(v1alpha1.ConditionAvailable, metav1.ConditionFalse, v1alpha1.ReasonDegraded, r.Health.Because)
	}
	return condition(v1alpha1.ConditionAvailable, metav1.ConditionFalse, v1alpha1.ReasonChecking, orSentence(r.Health.Because, "health was not read yet"))
}

// failed is the condition while the release that is asked for has failed here: what runs instead may be well, but is
// another release.
func failed(r *turn.Report) (metav1.Condition, bool) {
	gaveUp := r.Decision.Reason == sequencer.HasGivenUp
	if r.Plan == nil || !gaveUp && r.Decision.Reason != sequencer.HasStarted {
		return metav1.Condition{}, false
	}
	f, attempts := r.Promise.Failure, r.Promise.Progress.Attempts
	known := f != nil && r.Promise.Progress.Plan == r.Plan.Digest
	if !known && !gaveUp {
		return metav1.Condition{}, false
	}
	var reason, message string
	revision := r.Plan.Release.Revision.Short()
	switch {
	case !known: // said before this cluster's API was restored
		reason, message = v1alpha1.ReasonGaveUp, fmt.Sprintf("%s: no attempt is left", revision)
	case gaveUp:
		reason, message = v1alpha1.ReasonGaveUp, fmt.Sprintf("%s: no attempt is left after %d: %s", revision, attempts, f.Because)
	default:
		reason, message = f.Reason, fmt.Sprintf("%s: attempt %d failed: %s", revision, attempts, f.Because)
	}
	return condition(v1alpha1.ConditionAvailable, metav1.ConditionFalse, reason, message+"; "+runsInstead(r)), true
}

// runsInstead of a release that failed.
func runsInstead(r *turn.Report) string {
	i := r.Promise.Installed
	if i == nil {
		return "there is no earlier release to go back to"
	}
	words := "it runs " + i.Release.Revision.Short()
	if r.Health.State == delivery.Healthy {
		words += fmt.Sprintf(", %d of %d objects ready", r.Health.Ready, r.Health.Total)
	}
	return words
}

// onlyIf gives a condition that exists only while it is true.
func onlyIf(kind string, r *turn.Report, in readapi.Input) *metav1.Condition {
	is := func(reason, message string) *metav1.Condition {
		c := condition(kind, metav1.ConditionTrue, reason, message)
		return &c
	}
	switch kind {
	case v1alpha1.ConditionReconciling:
		if r.Decision.Verdict == sequencer.Go && r.Phase() != turn.PhaseFailed {
			return is(v1alpha1.ReasonProgressing, r.Because())
		}
	case v1alpha1.ConditionStalled:
		switch r.Decision.Reason {
		case sequencer.WasRemoved:
			return is(v1alpha1.ReasonForked, r.Decision.Because())
		case sequencer.TwoAgents:
			return is(v1alpha1.ReasonDuplicate, r.Decision.Because())
		}
		for _, c := range []string{v1alpha1.ConditionSealed, v1alpha1.ConditionSourceReady, v1alpha1.ConditionApplied} {
			if err := r.Trouble[c]; err != nil && fleet.KindOf(err) != fleet.Retryable {
				return is(fleet.ReasonOf(err, v1alpha1.ReasonInvalid), err.Error())
			}
		}
	case v1alpha1.ConditionPaused:
		if in.Facts != nil {
			if stops := sequencer.Stops(in.Facts.Commands(in.Name)); len(stops) > 0 {
				return is(v1alpha1.ReasonAnnotation, fmt.Sprintf("by %s: %s", in.NameOf(stops[0].By), stops[0].Reason))
			}
		}
	case v1alpha1.ConditionDegraded:
		if r.Promise.Progress.Degraded {
			return is(v1alpha1.ReasonDegraded, r.Health.Because)
		}
	}
	return nil
}

func condition(kind string, s metav1.ConditionStatus, reason, message string) metav1.Condition {
	return metav1.Condition{Type: kind, Status: s, Reason: reason, Message: message}
}

func orSentence(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// clipMessage: the schema allows 32 KiB, a person reads a line.
func clipMessage(s string) string {
	const most = 1024
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
