// SPDX-License-Identifier: Apache-2.0

package sequencer

import (
	"fmt"
	"slices"
	"strings"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// Because is the decision in one sentence. The condition message, explain, the read endpoint and the
// golden logs all print this one.
func (d Decision) Because() string {
	switch d.Reason {
	case MayStart:
		return fmt.Sprintf("%s: may start (rank %d of %d)", d.Stage, d.Rank+1, d.Of)
	case HasStarted:
		return fmt.Sprintf("%s: started (rank %d of %d)", d.Stage, d.Rank+1, d.Of)
	case WaitsForStage:
		return fmt.Sprintf("%s: waits for stage %s (%s)%s", d.Stage, d.Gate, d.gateCount(), d.lacking())
	case WaitsForSlot:
		return fmt.Sprintf("%s: waits for a slot (%d of %d successes below rank %d)%s", d.Stage, d.Have, d.Need, d.Rank+1, d.lacking())
	case Stopped:
		return fmt.Sprintf("%s: %s", d.Stage, stopSentence(d.Stops))
	case Sick:
		return fmt.Sprintf("%s: held because stage %s is unhealthy after its success: %s", d.Stage, d.Gate, list(d.Missing))
	case HasSucceeded:
		return fmt.Sprintf("%s: succeeded", d.Stage)
	case HasGivenUp:
		return fmt.Sprintf("%s: gave up; runs its last good release", d.Stage)
	case HasYielded:
		return fmt.Sprintf("%s: left the plan before it started", d.Stage)
	case NotTargeted:
		return "the rollout is not for this member"
	case WasRemoved:
		return fmt.Sprintf("%s: removed: two records with its key say different things in one position; it starts nothing more", d.Stage)
	case TwoAgents:
		return fmt.Sprintf("%s: held because another live agent uses this member's key", d.Stage)
	case WasRestored:
		return fmt.Sprintf("%s: held because this member has said more than its cluster's API knows of: it was restored from an older copy; give its FleetMember a higher incarnation", d.Stage)
	}
	return "unknown reason"
}

// gateCount says what a closed gate counts, and what it wants.
func (d Decision) gateCount() string {
	s := fmt.Sprintf("%d of %d soaked", d.Have-d.Left, d.Of)
	if d.Left > 0 {
		s += fmt.Sprintf(", %d left the plan", d.Left)
	}
	if d.Have >= d.Need {
		return s + "; nobody has really succeeded yet, and one must"
	}
	return s + fmt.Sprintf(", %d needed", d.Need)
}

func (d Decision) lacking() string {
	if len(d.Missing) == 0 {
		return ""
	}
	s := ": missing " + list(d.Missing)
	if len(d.Failed) > 0 {
		s += "; failed " + list(d.Failed)
	}
	return s
}

func stopSentence(stops []fleet.Command) string {
	by := make([]string, 0, len(stops))
	for _, s := range stops {
		reason := s.Reason
		if reason == "" {
			reason = "no reason given"
		}
		by = append(by, fmt.Sprintf("%q", reason))
	}
	slices.Sort(by)
	return "paused: " + strings.Join(slices.Compact(by), ", ")
}

// list prints at most five names and counts the others.
func list(names []fleet.Name) string {
	const most = 5
	parts := make([]string, 0, most+1)
	for i, n := range names {
		if i == most {
			parts = append(parts, fmt.Sprintf("and %d more", len(names)-most))
			break
		}
		parts = append(parts, string(n))
	}
	return strings.Join(parts, ", ")
}
