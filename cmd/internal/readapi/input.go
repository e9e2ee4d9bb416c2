// SPDX-License-Identifier: Apache-2.0

package readapi

import (
	"cmp"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/sequencer"
)

// History gives the facts with their details and times.
type History interface {
	// History of one member in one plan, in any order.
	History(plan fleet.Digest, member fleet.MemberID) []fleet.Fact
}

// Input is everything that is known here of one rollout.
type Input struct {
	Name fleet.RolloutName
	// Plan that goes through the fleet, or went through it last; nil where nothing is compiled yet.
	Plan *sequencer.Plan
	// Facts held here; required with Plan.
	Facts sequencer.Facts
	// History of the facts; nil gives neither details nor times.
	History History
	// Self is the member that is asked.
	Self fleet.Member
	// NameOf a member that is not in the plan; nil, or "" as the answer, prints the end of the ID.
	NameOf func(fleet.MemberID) fleet.Name
	// Statuses are the registers held of this rollout.
	Statuses map[fleet.MemberID]fleet.Status
	// Heard is how long ago a member's last heartbeat came; absent where none came since the start.
	Heard map[fleet.MemberID]time.Duration
	// Presence words of the members; one that is not in it is Heard where Heard has it, else Unheard.
	Presence map[fleet.MemberID]string
	// Duplicate: another live agent uses Self's key, so Self starts nothing.
	Duplicate bool
	// Restored: Self's API does not know all that Self has said, so it says nothing new in the plan.
	Restored bool
	// Reports are what other zones tell of themselves, where their members' milestones are not held here. They are
	// hearsay: shown as such, and counted nowhere.
	Reports []fleet.Rollup
	// Alone: this member hears nobody, and there is somebody to be heard.
	Alone bool
	// Suspended: spec.suspend at the rollout's home, where that is known here.
	Suspended bool
	// Origin is the rollout's home.
	Origin *v1alpha1.Origin
	// Author of the seal: fleet.AuthorGit or the ID of the member that sealed it.
	Author string
	// Subject is the first line of the revision's commit message, where it is known.
	Subject string
	// Conditions of the object here. Where there is a plan, a Ready among them is replaced.
	Conditions []metav1.Condition
}

// picture is the input looked at once.
type picture struct {
	Input
	tallies []sequencer.Tally
	stages  []v1alpha1.StageStatus
	stops   []fleet.Command
	names   map[fleet.MemberID]fleet.Name
	// waiting holds, by stage, the decision of a member that waits for an earlier stage: it is the
	// same for all of its stage but for the rank.
	waiting map[int]sequencer.Decision
}

// look needs a plan.
func look(in Input) *picture {
	v := &picture{
		Input:   in,
		tallies: sequencer.Tallies(in.Plan, in.Facts),
		stops:   sequencer.Stops(in.Facts.Commands(in.Plan.Rollout)),
		names:   make(map[fleet.MemberID]fleet.Name, in.Plan.Size()+1),
		waiting: map[int]sequencer.Decision{},
	}
	slices.SortFunc(v.stops, func(a, b fleet.Command) int {
		return cmp.Or(cmp.Compare(a.Time, b.Time), slices.Compare(a.ID[:], b.ID[:]))
	})
	v.names[in.Self.ID] = in.Self.Name
	for i := range in.Plan.Stages {
		for _, m := range in.Plan.Stages[i].Members {
			v.names[m.ID] = m.Name
		}
	}
	v.stages = v.stageStatuses()
	return v
}

// name of a member, for people.
func (v *picture) name(id fleet.MemberID) fleet.Name {
	if name := v.names[id]; name != "" {
		return name
	}
	return v.outsider(id)
}

// outsider is the name of a member that is not in the plan.
func (in *Input) outsider(id fleet.MemberID) fleet.Name {
	if in.NameOf != nil {
		if name := in.NameOf(id); name != "" {
			return name
		}
	}
	const tail = 8
	if len(id) > tail {
		return fleet.Name("..." + id[len(id)-tail:])
	}
	return fleet.Name(id)
}

func (v *picture) said(id fleet.MemberID, kind fleet.FactKind) bool {
	_, ok := v.Facts.Fact(v.Plan.Digest, id, kind)
	return ok
}

// history of a member in the plan, oldest first.
func (v *picture) history(id fleet.MemberID) []fleet.Fact {
	if v.History == nil {
		return nil
	}
	facts := slices.Clone(v.History.History(v.Plan.Digest, id))
	slices.SortFunc(facts, func(a, b fleet.Fact) int {
		return cmp.Or(cmp.Compare(a.Time, b.Time), cmp.Compare(a.Kind, b.Kind))
	})
	return facts
}

// detail of the first of the kinds that the member gave one with.
func (v *picture) detail(id fleet.MemberID, kinds ...fleet.FactKind) string {
	facts := v.history(id)
	for _, kind := range kinds {
		for _, f := range facts {
			if f.Kind == kind && f.Detail != "" {
				return f.Detail
			}
		}
	}
	return ""
}

// decide about a member, from the facts held here.
func (v *picture) decide(id fleet.MemberID) sequencer.Decision {
	place, planned := v.Plan.Place(id)
	pending := planned && sequencer.StateOf(v.Plan, v.Facts, id) == sequencer.Pending
	restored := v.Restored && id == v.Self.ID
	if d, ok := v.waiting[place.Stage]; pending && ok && !restored {
		d.Rank = place.Rank
		return d
	}
	d := sequencer.Decide(v.Plan, v.Facts, id, fleet.Moment{})
	if v.Duplicate && id == v.Self.ID && d.Reason == sequencer.MayStart {
		d.Verdict, d.Reason = sequencer.Hold, sequencer.TwoAgents
	}
	if restored && d.Verdict != sequencer.Out {
		d.Verdict, d.Reason = sequencer.Hold, sequencer.WasRestored
	}
	if pending && d.Reason == sequencer.WaitsForStage {
		v.waiting[place.Stage] = d
	}
	return d
}

// when is the zero time where nobody said.
func when(unix int64) time.Time {
	if unix == 0 {
		return time.Time{}
	}
	return time.Unix(unix, 0).UTC()
}
