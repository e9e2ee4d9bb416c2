// SPDX-License-Identifier: Apache-2.0

package readapi

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer"
)

// ErrNoSuchMember is in Explain's error where the plan has no member of that name.
var ErrNoSuchMember = errors.New("no such member in the plan")

// Explain says why a member of the plan may or may not go now, check by check. An empty name asks
// about Self, who may also be outside of the plan. The error of an unknown name is terminal.
func Explain(in Input, member fleet.Name) (Explanation, error) {
	if member == "" {
		member = in.Self.Name
	}
	out := Explanation{
		Member: member, Namespace: in.Name.Namespace, Rollout: in.Name.Name, SeenFrom: in.Self.Name, Checks: []Check{},
	}
	if in.Plan == nil {
		out.Verdict, out.Sentence = sequencer.Wait.String(), "there is no plan yet"
		out.Checks = conditionChecks(in)
		return out, nil
	}
	v := look(in)
	id, planned := v.find(member)
	if !planned && member != in.Self.Name {
		return Explanation{}, v.noSuchMember(member)
	}
	d := v.decide(id)
	out.Verdict, out.Sentence = d.Verdict.String(), d.Because()
	out.Runs, out.Revision = in.Statuses[id].Installed, in.Plan.Release.Revision
	out.Checks = append(out.Checks, v.releaseCheck())
	if !planned {
		out.Checks = append(out.Checks, Check{Name: "plan", Text: fmt.Sprintf("%s: %d members, %s is not one of them", in.Plan.Digest.Short(), in.Plan.Size(), member)})
		return out, nil
	}
	out.State = sequencer.StateOf(in.Plan, in.Facts, id).String()
	out.Checks = append(out.Checks, v.checks(member, id, d)...)
	out.Helps = v.helps(d)
	return out, nil
}

// conditionChecks stand in for checks where nothing is compiled: they say what is missing.
func conditionChecks(in Input) []Check {
	out := []Check{}
	for _, c := range in.Conditions {
		ok := c.Status == "True"
		if c.Type == "Stalled" || c.Type == "Paused" || c.Type == "Degraded" {
			ok = !ok
		}
		out = append(out, Check{OK: ok, Name: c.Type, Text: strings.TrimSpace(c.Reason + " " + c.Message)})
	}
	return out
}

func (v *picture) find(name fleet.Name) (fleet.MemberID, bool) {
	for i := range v.Plan.Stages {
		for _, m := range v.Plan.Stages[i].Members {
			if m.Name == name {
				return m.ID, true
			}
		}
	}
	return v.Self.ID, false
}

func (v *picture) noSuchMember(name fleet.Name) error {
	return &fleet.Error{
		Kind: fleet.Terminal,
		Hint: "it has: " + few(v.all()),
		Err:  fmt.Errorf("%s: member %q: %w (%d members)", v.Plan.Rollout, name, ErrNoSuchMember, v.Plan.Size()),
	}
}

func (v *picture) all() []fleet.Name {
	var out []fleet.Name
	for i := range v.Plan.Stages {
		for _, m := range v.Plan.Stages[i].Members {
			out = append(out, m.Name)
		}
	}
	slices.Sort(out)
	return out
}

// checks in the order in which Decide makes them.
func (v *picture) checks(name fleet.Name, id fleet.MemberID, d sequencer.Decision) []Check {
	place, _ := v.Plan.Place(id)
	stage := &v.Plan.Stages[place.Stage]
	out := []Check{{
		OK: true, Name: "plan",
		Text: fmt.Sprintf("%s: %s is %d of %d in %s, %d at a time", v.Plan.Digest.Short(), name, place.Rank+1, len(stage.Members), stage.Name, stage.MaxConcurrency),
	}}
	for i := range place.Stage {
		out = append(out, v.gateCheck(i))
	}
	settled := d.Verdict == sequencer.Done || d.Verdict == sequencer.Out || d.Reason == sequencer.HasStarted
	switch {
	case d.Reason == sequencer.WasRemoved:
		return append(out, Check{Name: "one voice", Text: "two records with its key say different things in one position; what it says counts for nothing"})
	case settled:
		return append(out, v.ownChecks(id)...)
	case d.Reason == sequencer.WaitsForSlot:
		out = append(out, Check{Name: "slot", Text: fmt.Sprintf("%d of %d successes needed before it: missing %s%s", d.Have, d.Need, few(d.Missing), failed(d.Failed))})
	case d.Reason != sequencer.WaitsForStage && d.Reason != sequencer.WasRestored: // nobody asked then
		out = append(out, Check{OK: true, Name: "slot", Text: fmt.Sprintf("a place among %d is free", stage.MaxConcurrency)})
	}
	if d.Reason == sequencer.TwoAgents {
		out = append(out, Check{Name: "one voice", Text: "another live agent uses this member's key"})
	}
	if d.Reason == sequencer.WasRestored {
		out = append(out, Check{Name: "memory", Text: "it has said more than its cluster's API knows of, which was restored from an older copy; it says nothing new"})
	}
	out = append(out, v.stopChecks()...)
	return append(out, v.sickChecks()...)
}

func (v *picture) releaseCheck() Check {
	text := v.Plan.Release.Revision.Short()
	if v.Subject != "" {
		text += fmt.Sprintf(" %q", v.Subject)
	}
	switch author := v.author(); author {
	case "":
	case fleet.AuthorGit:
		text += ", sealed by commit"
	default:
		text += ", sealed by " + author
	}
	return Check{OK: true, Name: "release", Text: text}
}

// gateCheck of an earlier stage: what R3 counts there.
func (v *picture) gateCheck(i int) Check {
	t := &v.tallies[i]
	c := Check{OK: t.Passed, Name: "stage " + t.Stage.Name}
	soaked, left, removed, total := 0, 0, 0, len(t.Stage.Members)
	var missing, broken []fleet.Name
	for _, m := range t.Stage.Members {
		switch {
		case v.Facts.Removed(m.ID):
			removed++
			continue
		case v.said(m.ID, fleet.Soaked):
			soaked++
			continue
		case v.said(m.ID, fleet.Yielded):
			left++
			continue
		case v.said(m.ID, fleet.Failed), v.said(m.ID, fleet.GaveUp):
			broken = append(broken, m.Name)
		}
		missing = append(missing, m.Name)
	}
	c.Text = fmt.Sprintf("%d of %d soaked", soaked, total)
	if left > 0 {
		c.Text += fmt.Sprintf(", %d left the plan", left)
	}
	if removed > 0 {
		c.Text += fmt.Sprintf(", %d removed", removed)
	}
	if c.OK {
		c.Since = v.latest(t.Stage.Members, fleet.Soaked)
		return c
	}
	need := max(total-t.Stage.Tolerance, sequencer.MinSuccess)
	c.Text += fmt.Sprintf(", needs %d (maxUnavailable %d)", need, t.Stage.Tolerance)
	if len(missing) > 0 {
		c.Text += ": missing " + few(missing) + failed(broken)
	}
	return c
}

// latest time at which one of the members stated the milestone.
func (v *picture) latest(members []fleet.Member, kind fleet.FactKind) (last time.Time) {
	for _, m := range members {
		for _, f := range v.history(m.ID) {
			if at := when(f.Time); f.Kind == kind && at.After(last) {
				last = at
			}
		}
	}
	return last
}

// ownChecks are the milestones of a member that needs no gate any more.
func (v *picture) ownChecks(id fleet.MemberID) []Check {
	var out []Check
	for _, f := range v.history(id) {
		if f.Kind == fleet.Accepted {
			continue
		}
		bad := f.Kind == fleet.Failed || f.Kind == fleet.GaveUp || f.Kind == fleet.Degraded || f.Kind == fleet.Yielded
		out = append(out, Check{OK: !bad, Name: strings.ToLower(f.Kind.String()), Text: detailOf(f, v.Plan.Release.Revision), Since: when(f.Time)})
	}
	return out
}

func (v *picture) stopChecks() []Check {
	if len(v.stops) == 0 {
		return []Check{{OK: true, Name: "no stop", Text: "none is in force"}}
	}
	var out []Check
	for _, c := range v.stops {
		text := "paused by " + string(v.name(c.By))
		if c.Reason != "" {
			text += fmt.Sprintf(": %q", c.Reason)
		}
		out = append(out, Check{Name: "no stop", Text: text, Since: when(c.Time)})
	}
	return out
}

// sickChecks ask all stages: whoever became unhealthy after success holds every start (R4).
func (v *picture) sickChecks() []Check {
	var out []Check
	for i := range v.tallies {
		t := &v.tallies[i]
		var sick []fleet.Name
		for _, m := range t.Stage.Members {
			if sequencer.StateOf(v.Plan, v.Facts, m.ID) == sequencer.IsDegraded {
				sick = append(sick, m.Name)
			}
		}
		if len(sick) == 0 {
			continue
		}
		out = append(out, Check{
			OK: len(sick) <= t.Stage.Tolerance, Name: "health",
			Text:  fmt.Sprintf("stage %s: unhealthy after success: %s (%d tolerated)", t.Stage.Name, few(sick), t.Stage.Tolerance),
			Since: v.latest(t.Stage.Members, fleet.Degraded),
		})
	}
	if len(out) == 0 {
		return []Check{{OK: true, Name: "health", Text: "no cluster became unhealthy after its success"}}
	}
	return out
}

// helps are what a person can do about whatever holds the member back, also behind what it waits for first.
func (v *picture) helps(d sequencer.Decision) (out []string) {
	name := v.Plan.Rollout
	starts := d.Verdict == sequencer.Wait || d.Verdict == sequencer.Hold
	if starts && len(v.stops) > 0 {
		out = append(out, fmt.Sprintf("flotilla resume %s -n %s (at %s)", name.Name, name.Namespace, few(v.stoppers())))
	}
	switch d.Reason {
	case sequencer.WasRemoved:
		out = append(out, "give the cluster a new key, and its FleetMember the new peer ID; see the troubleshooting page, Forked")
	case sequencer.WasRestored:
		out = append(out, "give its FleetMember a higher spec.incarnation; see the troubleshooting page, Restored")
	case sequencer.TwoAgents:
		out = append(out, "stop the other agent that uses this member's key, or give one of the two a new key")
	}
	if d.Reason == sequencer.HasGivenUp || d.Reason == sequencer.Sick || len(d.Failed) > 0 {
		out = append(out, "correct the payload and commit it: a newer revision is a new plan, with new attempts")
	}
	return out
}

func (v *picture) stoppers() []fleet.Name {
	var out []fleet.Name
	for _, c := range v.stops {
		if name := v.name(c.By); !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

func failed(names []fleet.Name) string {
	if len(names) == 0 {
		return ""
	}
	return "; failed " + few(names)
}
