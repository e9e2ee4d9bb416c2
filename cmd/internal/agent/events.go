// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/cmd/internal/agent/turn"
	"github.com/flotilla-dev/flotilla/delivery"
	"github.com/flotilla-dev/flotilla/sequencer"
)

// Reasons of events. They are about this member; what happens to the fleet is in the conditions.
const (
	EventReleaseAccepted = "ReleaseAccepted" // a newer release is what this member works towards
	EventStarted         = "Started"         // an attempt began
	EventDelivered       = "Delivered"       // objects were written for it
	EventSucceeded       = "Succeeded"       // healthy for minReadyTime
	EventSoaked          = "Soaked"          // and for the stage's soak
	EventFailed          = "Failed"          // an attempt ended without success
	EventGaveUp          = "GaveUp"          // no attempt is left
	EventYielded         = "Yielded"         // this member left the plan before its start
	EventRolledBack      = "RolledBack"      // the last good release takes the failed one's place, here
	EventDegraded        = "Degraded"        // unhealthy after success
	EventDrifted         = "Drifted"         // what runs differs from the release and could not be put right
	EventHealed          = "Healed"          // drift was put right
	EventPaused          = "Paused"          // a stop is in force
	EventResumed         = "Resumed"         // it was lifted
	EventSourceFailed    = "SourceFailed"    // the source cannot be read
	EventSourceRecovered = "SourceRecovered" // it can be again
	EventRenderFailed    = "RenderFailed"    // the payload does not build
	EventApplyFailed     = "ApplyFailed"     // the cluster does not take it

	// Of a FleetMember.
	EventForked         = "Forked"         // a proof is held that its key signed two things in one position
	EventDuplicate      = "Duplicate"      // two live agents use its key
	EventDuplicateEnded = "DuplicateEnded" // only one of them is heard now
)

// AnnotationRevision on an event is the revision that it is about.
const AnnotationRevision = "fleet.flotilla.dev/revision"

// Bounds of what one rollout says: a burst, and then one event in so many seconds. What is beyond is in the status.
const (
	eventBurst    = 20
	eventsASecond = 1.0 / 30
	// maxNote of an event, by the API.
	maxNote = 1024
)

// Event is one thing that happened to a rollout on this member.
type Event struct {
	Reason, Note string
	Warning      bool
	Revision     fleet.Revision
}

// sight of a rollout after a turn: the report, and the stops in force.
type sight struct {
	turn.Report
	stops []fleet.Command
}

// eventsOf two turns, one after the other: what changed from the one to the other. Equal ones give none.
func eventsOf(before, after sight) []Event {
	var out []Event
	for _, of := range []func(before, after *sight) []Event{sourceEvents, stopEvents, releaseEvents, attemptEvents, deliveryEvents, endEvents} {
		out = append(out, of(&before, &after)...)
	}
	for i := range out {
		if out[i].Revision == "" {
			out[i].Revision = after.revision()
		}
		out[i].Note = clipNote(out[i].Note)
	}
	return out
}

// revision that this member works on: the started one, else the accepted one.
func (s *sight) revision() fleet.Revision {
	if s.Promise.Installed != nil && s.Promise.Installed.Release.Plan() == s.Promise.Progress.Plan {
		return s.Promise.Installed.Release.Revision
	}
	return s.Promise.Accepted.Revision
}

func sourceEvents(before, after *sight) []Event {
	was, is := before.Trouble[v1alpha1.ConditionSourceReady], after.Trouble[v1alpha1.ConditionSourceReady]
	switch {
	case is != nil && !sameTrouble(was, is):
		return []Event{{Reason: EventSourceFailed, Note: is.Error(), Warning: true}}
	case was != nil && is == nil:
		return []Event{{Reason: EventSourceRecovered, Note: "the source can be read again"}}
	}
	return nil
}

// sameTrouble by reason: messages count, name addresses and differ each time.
func sameTrouble(a, b error) bool {
	return a != nil && b != nil && fleet.ReasonOf(a, "") == fleet.ReasonOf(b, "")
}

func stopEvents(before, after *sight) []Event {
	was, is := before.stopped(), after.stopped()
	switch {
	case is != "" && is != was:
		return []Event{{Reason: EventPaused, Note: is}}
	case was != "" && is == "":
		return []Event{{Reason: EventResumed, Note: "no stop is in force any more"}}
	}
	return nil
}

// stopped in the decision's words; "" where no stop is in force.
func (s *sight) stopped() string {
	stops := slices.Clone(s.stops)
	if s.Rollout.Settings.Suspend {
		stops = append(stops, fleet.Command{Verb: fleet.Pause, Reason: "spec.suspend is true"})
	}
	if len(stops) == 0 {
		return ""
	}
	words := sequencer.Decision{Reason: sequencer.Stopped, Stops: stops}.Because()
	return strings.TrimPrefix(words, ": ")
}

func releaseEvents(before, after *sight) []Event {
	accepted := after.Promise.Accepted
	if accepted.IsZero() || accepted == before.Promise.Accepted {
		return nil
	}
	note := "accepted " + accepted.Revision.Short()
	if after.Subject != "" {
		note += ": " + after.Subject
	}
	return []Event{{Reason: EventReleaseAccepted, Note: note, Revision: accepted.Revision}}
}

// attemptEvents are the steps of this member's own work on a plan. What was passed between two turns is said too.
func attemptEvents(before, after *sight) []Event {
	was, is := before.Promise.Progress, after.Promise.Progress
	if was.Plan != is.Plan {
		was = sequencer.Progress{Plan: is.Plan}
	}
	var out []Event
	if is.Attempts > was.Attempts {
		note := after.Decision.Stage + ": started " + after.attempted(is.Plan).Short()
		if is.Attempts > 1 {
			note += fmt.Sprintf(", attempt %d", is.Attempts)
		}
		out = append(out, Event{Reason: EventStarted, Note: note, Revision: after.attempted(is.Plan)})
		was.Phase = sequencer.Working
	}
	if is.Phase != was.Phase {
		out = append(out, after.ended(was.Phase)...)
	}
	if is.Degraded && !was.Degraded {
		out = append(out, Event{Reason: EventDegraded, Note: orSentence(after.Health.Because, "unhealthy after its success"), Warning: true})
	}
	return out
}

// endEvents: this member has no part in the plan any more.
func endEvents(before, after *sight) []Event {
	if after.Plan == nil || after.Decision.Reason == before.Decision.Reason && before.planDigest() == after.planDigest() {
		return nil
	}
	event := Event{Note: after.Decision.Because(), Warning: true, Revision: after.Plan.Release.Revision}
	switch after.Decision.Reason {
	case sequencer.HasGivenUp:
		event.Reason = EventGaveUp
	case sequencer.HasYielded:
		event.Reason = EventYielded
	default:
		return nil
	}
	return []Event{event}
}

// ended are the events of a phase that was reached from another.
func (s *sight) ended(was sequencer.Phase) []Event {
	plan := s.Promise.Progress.Plan
	revision := s.attempted(plan)
	words := func(did string) string { return fmt.Sprintf("%s: %s %s", s.Decision.Stage, revision.Short(), did) }
	succeeded := Event{Reason: EventSucceeded, Note: words("succeeded"), Revision: revision}
	switch s.Promise.Progress.Phase {
	case sequencer.Ready:
		return []Event{succeeded}
	case sequencer.Settled:
		soaked := Event{Reason: EventSoaked, Note: words("soaked"), Revision: revision}
		if was == sequencer.Ready {
			return []Event{soaked}
		}
		return []Event{succeeded, soaked}
	case sequencer.Retrying, sequencer.Resigned:
		why := s.Health.Because
		if err := s.Trouble[v1alpha1.ConditionApplied]; err != nil {
			why = err.Error()
		}
		out := []Event{{Reason: EventFailed, Note: words("failed: " + orSentence(why, "not healthy in time")), Warning: true, Revision: revision}}
		if good := s.Promise.Installed; good != nil && good.Release.Plan() != plan {
			out = append(out, Event{
				Reason: EventRolledBack, Warning: true, Revision: good.Release.Revision,
				Note: fmt.Sprintf("back to %s, the last good release here", good.Release.Revision.Short()),
			})
		}
		return out
	}
	return nil
}

// attempted revision of a plan.
func (s *sight) attempted(plan fleet.Digest) fleet.Revision {
	if s.Plan != nil && s.Plan.Digest == plan {
		return s.Plan.Release.Revision
	}
	return s.revision()
}

func (s *sight) planDigest() fleet.Digest {
	if s.Plan == nil {
		return fleet.Digest{}
	}
	return s.Plan.Digest
}

// deliveryEvents: what was written, and what could not be.
func deliveryEvents(before, after *sight) []Event {
	var out []Event
	healing := isHealing(before, after)
	was, is := before.Trouble[v1alpha1.ConditionApplied], after.Trouble[v1alpha1.ConditionApplied]
	if is != nil && !sameTrouble(was, is) {
		out = append(out, Event{Reason: after.applyReason(is, healing), Note: is.Error(), Warning: true})
	}
	if !after.Outcome.Changed() {
		return out
	}
	event := Event{Reason: EventDelivered}
	if healing {
		event.Reason = EventHealed
	}
	if i := after.Promise.Installed; i != nil {
		event.Revision = i.Release.Revision
	}
	event.Note = event.Revision.Short() + ": " + after.Outcome.Summary() + changedObjects(after.Outcome)
	if after.Outcome.Waiting != "" {
		event.Note += "; " + after.Outcome.Waiting
	}
	return append(out, event)
}

// isHealing: what is written was all there before. Nothing was started or taken back in between, and no wave was to come.
func isHealing(before, after *sight) bool {
	was, is := before.Promise.Installed, after.Promise.Installed
	if was == nil || is == nil || was.Release != is.Release || was.Manifest != is.Manifest {
		return false
	}
	if before.Promise.Good() && after.Promise.Good() {
		return true
	}
	working := before.Promise.Progress.Phase == sequencer.Working && after.Promise.Progress.Attempts == before.Promise.Progress.Attempts
	return working && before.Outcome.Waiting == "" && before.Trouble[v1alpha1.ConditionApplied] == nil
}

// applyReason tells whose matter it is: the payload's, the cluster's, or drift.
func (s *sight) applyReason(err error, healing bool) string {
	switch fleet.ReasonOf(err, v1alpha1.ReasonApplyFailed) {
	case v1alpha1.ReasonRenderFailed, v1alpha1.ReasonValuesInvalid, v1alpha1.ReasonVariableUnknown, v1alpha1.ReasonInputMissing,
		v1alpha1.ReasonNotReproducible, v1alpha1.ReasonPathNotFound, v1alpha1.ReasonPathVariable, v1alpha1.ReasonEmptyRender,
		v1alpha1.ReasonTooLarge, v1alpha1.ReasonContainsFlotilla, v1alpha1.ReasonInvalidManifest:
		return EventRenderFailed
	}
	if healing {
		return EventDrifted
	}
	return EventApplyFailed
}

// changedObjects names the first objects that were written.
func changedObjects(o delivery.Outcome) string {
	const most = 3
	var names []string
	n := 0
	for _, c := range o.Changes {
		if c.Action == delivery.Unchanged || c.Action == delivery.Kept {
			continue
		}
		if n++; n <= most {
			names = append(names, c.Object.String())
		}
	}
	if n > most {
		names = append(names, fmt.Sprintf("and %d more", n-most))
	}
	return " (" + strings.Join(names, ", ") + ")"
}

func clipNote(note string) string {
	note = strings.ToValidUTF8(note, "?")
	if len(note) <= maxNote {
		return note
	}
	return strings.ToValidUTF8(note[:maxNote-3], "") + "..."
}

// Events tells people what happened to rollouts on this member, as Kubernetes events of its copies. A nil *Events says
// nothing.
type Events struct {
	// Recorder writes them, in its own time.
	Recorder events.AnnotatedEventRecorder

	mu   sync.Mutex
	last map[fleet.RolloutName]sight
	rate map[fleet.RolloutName]flowcontrol.PassiveRateLimiter
}

// Turned tells what a turn changed. object is this member's copy before its status is written, nil where there is none: a
// status on it from before the agent began says that what is so now is no news.
func (e *Events) Turned(name fleet.RolloutName, object *v1alpha1.FleetRollout, now sight) {
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.last == nil {
		e.last, e.rate = map[fleet.RolloutName]sight{}, map[fleet.RolloutName]flowcontrol.PassiveRateLimiter{}
	}
	if gone(&now.Report) {
		delete(e.last, name)
		delete(e.rate, name)
		return
	}
	before, known := e.last[name]
	if !known && object != nil && object.Status.Here != nil {
		before = now
		before.Trouble = knownTrouble(now.Trouble, object.Status.Conditions)
	}
	now.Outcome.Changes = slices.Clone(now.Outcome.Changes)
	e.last[name] = now
	if object == nil || object.UID == "" {
		return
	}
	if e.rate[name] == nil {
		e.rate[name] = flowcontrol.NewTokenBucketPassiveRateLimiter(eventsASecond, eventBurst)
	}
	for _, event := range eventsOf(before, now) {
		if !e.rate[name].TryAccept() {
			return
		}
		kind := corev1.EventTypeNormal
		if event.Warning {
			kind = corev1.EventTypeWarning
		}
		// Events of one action are counted and not kept one by one: the revision makes each its own.
		action := event.Reason + " " + event.Revision.Short()
		e.Recorder.AnnotatedEventf(object, nil, map[string]string{AnnotationRevision: string(event.Revision)}, kind, event.Reason, clipAction(action), "%s", event.Note)
	}
}

// knownTrouble is what the conditions tell of already.
func knownTrouble(trouble map[string]error, told []metav1.Condition) map[string]error {
	known := map[string]error{}
	for kind, err := range trouble {
		c := meta.FindStatusCondition(told, kind)
		if c != nil && c.Status == metav1.ConditionFalse && fleet.ReasonOf(err, c.Reason) == c.Reason {
			known[kind] = err
		}
	}
	return known
}

// clipAction to what the API takes.
func clipAction(action string) string {
	const most = 128
	action = strings.ToValidUTF8(action, "?")
	if len(action) > most {
		action = strings.ToValidUTF8(action[:most], "")
	}
	return action
}
