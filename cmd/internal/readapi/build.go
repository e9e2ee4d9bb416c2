// SPDX-License-Identifier: Apache-2.0

package readapi

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/sequencer"
)

// Build says all that is known here of a rollout, member by member. The same input gives the same
// answer. Without a plan it says what there is: origin and conditions.
func Build(in Input) Rollout {
	r := Rollout{
		Namespace: in.Name.Namespace, Name: in.Name.Name,
		Author: in.Author, Subject: in.Subject, SeenFrom: in.Self.Name,
	}
	if in.Origin != nil {
		r.Origin = in.Origin.Name
	}
	if in.Plan == nil {
		r.Conditions = conditions(in.Conditions, nil)
		return r
	}
	v := look(in)
	r.Revision, r.Plan = in.Plan.Release.Revision, in.Plan.Digest
	r.Seal, r.Number = in.Plan.Release.Seal, in.Plan.Release.Number
	r.Author = v.author()
	r.Reports = v.reports()
	for i := range v.stages {
		r.Stages = append(r.Stages, v.stage(i))
		for _, m := range v.Plan.Stages[i].Members {
			r.Members = append(r.Members, v.member(m))
		}
	}
	for _, c := range v.stops {
		r.Stops = append(r.Stops, Stop{By: v.name(c.By), Reason: c.Reason, Time: when(c.Time), ID: c.ID})
	}
	now := v.ready()
	r.Conditions = conditions(in.Conditions, &now)
	return r
}

// author of the seal: git, or a member's name.
func (v *picture) author() string {
	if v.Author == "" || v.Author == fleet.AuthorGit {
		return v.Author
	}
	return string(v.name(fleet.MemberID(v.Author)))
}

// conditions with Ready first, and replaced where there is a newer one.
func conditions(of []metav1.Condition, now *metav1.Condition) []Condition {
	var out []Condition
	if now != nil {
		out = append(out, condition(*now))
	}
	for _, c := range of {
		if now == nil || c.Type != v1alpha1.ConditionReady {
			out = append(out, condition(c))
		}
	}
	return out
}

func condition(c metav1.Condition) Condition {
	return Condition{Type: c.Type, Status: string(c.Status), Reason: c.Reason, Message: c.Message}
}

func (v *picture) stage(i int) Stage {
	s, planned := v.stages[i], v.tallies[i].Stage
	out := Stage{
		Name: s.Name, Phase: s.Phase,
		Clusters: int(s.Clusters), Succeeded: int(s.Succeeded), Progressing: int(s.Progressing),
		Failed: int(s.Failed), Degraded: int(s.Degraded), Ineligible: int(s.Ineligible),
		MaxConcurrency: planned.MaxConcurrency, MaxUnavailable: planned.Tolerance,
		SoakSeconds: planned.Soak.Seconds(), Because: s.Because,
	}
	for _, name := range s.Names {
		out.Names = append(out.Names, fleet.Name(name))
	}
	out.ByReport = v.reported(s.Name)
	return out
}

func (v *picture) member(m fleet.Member) Member {
	d, status := v.decide(m.ID), v.Statuses[m.ID]
	out := Member{
		Name: m.Name, Stage: d.Stage, Rank: d.Rank,
		State:     sequencer.StateOf(v.Plan, v.Facts, m.ID).String(),
		Installed: status.Installed, Accepted: status.Accepted,
		Because: d.Because(), Phase: status.Phase, Says: status.Because,
		Presence: v.presence(m.ID), HeardSeconds: v.heard(m.ID), Self: m.ID == v.Self.ID,
	}
	for _, f := range v.history(m.ID) {
		out.Facts = append(out.Facts, Fact{Kind: f.Kind.String(), Time: when(f.Time), Detail: detailOf(f, v.Plan.Release.Revision)})
	}
	return out
}

// detailOf a fact, for people. Where it only names the revision, which is the plan's, it says nothing.
func detailOf(f fleet.Fact, revision fleet.Revision) string {
	if f.Detail == string(revision) {
		return ""
	}
	return f.Detail
}

func (v *picture) presence(id fleet.MemberID) string {
	word, judged := v.Presence[id]
	_, came := v.Heard[id]
	switch {
	case id == v.Self.ID && v.Alone:
		return PresenceAlone
	case id == v.Self.ID, !judged && came:
		return PresenceHeard
	case judged:
		return word
	}
	return PresenceUnheard
}

// heard says how long ago, to the tenth of a second; a member always hears itself.
func (v *picture) heard(id fleet.MemberID) *float64 {
	ago, ok := v.Heard[id]
	if id == v.Self.ID {
		ago, ok = 0, true
	}
	if !ok {
		return nil
	}
	seconds := ago.Round(100 * time.Millisecond).Seconds()
	return &seconds
}
