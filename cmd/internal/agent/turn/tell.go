// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"context"
	"fmt"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/sequencer"
)

// Phases of a member in a rollout, as status.here has them.
const (
	PhaseNotTargeted = "NotTargeted"
	PhasePending     = "Pending"
	PhaseWaiting     = "Waiting"
	PhaseApplying    = "Applying"
	PhaseChecking    = "Checking"
	PhaseSucceeded   = "Succeeded"
	PhaseFailed      = "Failed"
	PhaseIneligible  = "Ineligible"
)

// RenewAfter so long a register is said again although nothing changed, or it would leave the fleet's state
// ([fleet.Lifetime]). What nobody renews, such as the status of a rollout that has ended, does.
const RenewAfter = 10 * 24 * time.Hour

// tell the others in one line where this member is: for people, and so that a head seen here is looked
// for there. It is written only when it says something new, or before it expires.
func (t *turn) tell(ctx context.Context) error {
	status := fleet.Status{
		Rollout:  t.name,
		Accepted: t.promise.Accepted.Revision,
		Seal:     t.promise.Accepted.Seal,
		Phase:    t.report.Phase(),
		Because:  fleet.Cut(t.report.Because()),
		Objects:  t.report.Outcome.Objects,
	}
	if t.plan != nil {
		status.Plan = t.plan.Digest
	}
	if t.promise.Installed != nil {
		status.Installed = t.promise.Installed.Release.Revision
	}
	last, ok := t.Ledger.Status(t.Self.ID, t.name)
	if status.Phase == PhaseNotTargeted && (!ok || last.Phase == PhaseNotTargeted) {
		return nil // said once, if it had a part before; after that it expires, or who has no part would fill the state
	}
	if ok {
		status.Time = last.Time
		if last == status && t.now.Wall.Sub(time.Unix(last.Time, 0)) < RenewAfter {
			return nil
		}
	}
	status.Time = t.now.Wall.Unix()
	body, err := status.Encode()
	if err != nil {
		return fmt.Errorf("own status: %w", err)
	}
	record, err := t.Ledger.Prepare(fleet.KindRegister, fleet.StatusKey(t.name), body)
	if err != nil {
		return fmt.Errorf("own status: %w", err)
	}
	return t.Ledger.Commit(ctx, record)
}

// Phase of this member.
func (r *Report) Phase() string {
	if r.Plan == nil {
		return PhasePending
	}
	switch r.Decision.Reason {
	case sequencer.NotTargeted:
		return PhaseNotTargeted
	case sequencer.HasYielded, sequencer.WasRemoved:
		return PhaseIneligible
	case sequencer.HasGivenUp:
		return PhaseFailed
	case sequencer.HasSucceeded:
		return PhaseSucceeded
	case sequencer.HasStarted, sequencer.MayStart:
		switch {
		case r.Decision.Reason == sequencer.MayStart && r.Trouble[v1alpha1.ConditionApplied] != nil:
			return PhaseFailed
		case r.Promise.Progress.Phase == sequencer.Retrying, r.Promise.Progress.Phase == sequencer.Resigned:
			return PhaseFailed
		case r.Trouble[v1alpha1.ConditionApplied] != nil:
			return PhaseApplying
		}
		return PhaseChecking
	}
	return PhaseWaiting
}

// Because says in one sentence why this member is where it is: the decision's, unless something is
// in the way that the decision does not know of.
func (r *Report) Because() string {
	if err := r.Trouble[v1alpha1.ConditionApplied]; err != nil {
		return err.Error()
	}
	if r.Plan == nil {
		for _, c := range []string{v1alpha1.ConditionSealed, v1alpha1.ConditionSourceReady} {
			if err := r.Trouble[c]; err != nil {
				return err.Error()
			}
		}
		return "no revision was seen yet"
	}
	because := r.Decision.Because()
	if r.Decision.Reason == sequencer.HasStarted && r.Health.Because != "" {
		because += "; " + r.Health.Because
	}
	return because
}
