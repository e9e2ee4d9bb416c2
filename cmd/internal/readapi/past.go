// SPDX-License-Identifier: Apache-2.0

package readapi

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer"
)

// PastPlan is what is held here of one plan of a rollout.
type PastPlan struct {
	// Plan by digest, always; Release that it is compiled of, as far as it is known.
	Plan    fleet.Digest
	Release sequencer.Release
	// Subject of the revision's commit, where it was seen.
	Subject string
	// Facts of all members about the plan, in any order.
	Facts []fleet.Fact
}

// How many events are on a page where nobody says, and at most.
const (
	DefaultEvents = 1000
	MaxEvents     = 5000
)

// EventQuery says which part of a rollout's past is asked for. Its zero value is the first page of all.
type EventQuery struct {
	// Member whose events; "" is everybody's.
	Member fleet.Name
	// Since when, on the signers' clocks.
	Since time.Time
	// Commands alone, no milestones.
	Commands bool
	// Last gives the newest events in place of the oldest, still oldest first.
	Last bool
	// Limit of the page; 0 is DefaultEvents.
	Limit int
	// Continue is that of the page before.
	Continue string
}

// BuildEvents gives a page of what was signed about a rollout, oldest first. The order is by time and
// then by record, so that a page begins where the one before ended, whatever arrives in between.
func BuildEvents(in Input, past []PastPlan, q EventQuery) (Events, error) {
	after, err := parseCursor(q.Continue)
	if err != nil {
		return Events{}, err
	}
	out := Events{Items: []Event{}, SeenFrom: in.Self.Name}
	v := namesOf(in)
	all := v.commands()
	if !q.Commands {
		all = append(all, v.milestones(past)...)
	}
	all = slices.DeleteFunc(all, func(e Event) bool {
		return q.Member != "" && e.Member != q.Member || e.Time.Before(q.Since) || cursorOf(&e).compare(after) <= 0
	})
	slices.SortFunc(all, func(a, b Event) int { return cursorOf(&a).compare(cursorOf(&b)) })
	limit := min(cmp.Or(q.Limit, DefaultEvents), MaxEvents)
	switch {
	case len(all) <= limit:
	case q.Last:
		all = all[len(all)-limit:]
	default:
		all = all[:limit]
		out.Continue = cursorOf(&all[limit-1]).String()
	}
	out.Items = append(out.Items, all...)
	return out, nil
}

// archive is the input with everybody's name and stage.
type archive struct {
	*Input
	places map[fleet.MemberID]seat
}

// seat of a member in the plan.
type seat struct {
	name  fleet.Name
	stage string
}

func namesOf(in Input) archive {
	v := archive{Input: &in, places: map[fleet.MemberID]seat{in.Self.ID: {name: in.Self.Name}}}
	if in.Plan != nil {
		for i := range in.Plan.Stages {
			for _, m := range in.Plan.Stages[i].Members {
				v.places[m.ID] = seat{m.Name, in.Plan.Stages[i].Name}
			}
		}
	}
	return v
}

func (v archive) name(id fleet.MemberID) fleet.Name {
	if known := v.places[id]; known.name != "" {
		return known.name
	}
	return v.outsider(id)
}

func (v archive) commands() []Event {
	if v.Facts == nil {
		return nil
	}
	var out []Event
	for _, c := range v.Facts.Commands(v.Name) {
		out = append(out, Event{Time: when(c.Time), Member: v.name(c.By), Kind: c.Verb.String(), Detail: c.Reason, ID: c.ID})
	}
	return out
}

func (v archive) milestones(past []PastPlan) []Event {
	var out []Event
	for i := range past {
		p := &past[i]
		revision := p.revision()
		for _, f := range p.Facts {
			e := Event{
				Time: when(f.Time), Member: v.name(f.Member), Kind: f.Kind.String(), Detail: detailOf(f, revision),
				Plan: p.Plan, Revision: revision,
			}
			if v.sealed(p) {
				e.Stage = v.places[f.Member].stage
			}
			e.ID, _ = v.Facts.Fact(p.Plan, f.Member, f.Kind)
			out = append(out, e)
		}
	}
	return out
}

// revision of the plan; of one whose release nobody here remembers, what the first member that accepted or started it said.
func (p *PastPlan) revision() fleet.Revision {
	if p.Release.Revision != "" {
		return p.Release.Revision
	}
	for _, f := range p.Facts {
		if said := fleet.Revision(f.Detail); (f.Kind == fleet.Accepted || f.Kind == fleet.Started) && said.Commit() != f.Detail {
			return said
		}
	}
	return ""
}

// sealed says that the plan has the members, the stages and the ranks of the current one: they are
// the seal's, and a new revision deals nobody anew (R1).
func (v archive) sealed(p *PastPlan) bool {
	return v.Plan != nil && (p.Plan == v.Plan.Digest || p.Release.Seal == v.Plan.Release.Seal)
}

// BuildReleases gives the releases of a rollout that are known here, newest first.
func BuildReleases(in Input, past []PastPlan) Releases {
	v := namesOf(in)
	out := Releases{Items: []PastRelease{}, SeenFrom: in.Self.Name}
	for i := range past {
		out.Items = append(out.Items, v.release(&past[i]))
	}
	slices.SortStableFunc(out.Items, func(a, b PastRelease) int {
		if a.Current != b.Current {
			return strings.Compare(strconv.FormatBool(b.Current), strconv.FormatBool(a.Current))
		}
		return cmp.Or(cmp.Compare(b.Number, a.Number), b.Accepted.Compare(a.Accepted), strings.Compare(a.Plan.String(), b.Plan.String()))
	})
	return out
}

func (v archive) release(p *PastPlan) PastRelease {
	out := PastRelease{
		Revision: p.revision(), Subject: p.Subject, Plan: p.Plan, Seal: p.Release.Seal, Number: p.Release.Number,
		Current: v.Plan != nil && p.Plan == v.Plan.Digest,
	}
	if out.Current && out.Subject == "" {
		out.Subject = v.Subject
	}
	if v.sealed(p) {
		out.Clusters = v.Plan.Size()
	}
	said := map[fleet.MemberID]map[fleet.FactKind]time.Time{}
	for _, f := range p.Facts {
		if said[f.Member] == nil {
			said[f.Member] = map[fleet.FactKind]time.Time{}
		}
		said[f.Member][f.Kind] = when(f.Time)
		switch f.Kind {
		case fleet.Accepted:
			out.Accepted = earlier(out.Accepted, when(f.Time))
		case fleet.Started:
			out.Started = earlier(out.Started, when(f.Time))
		}
	}
	through, last := 0, time.Time{}
	for _, kinds := range said {
		end, ended := out.count(kinds)
		if ended {
			through++
		}
		if end.After(last) {
			last = end
		}
	}
	if out.Clusters > 0 && through >= out.Clusters {
		out.Completed = last
	}
	return out
}

// count one member, and say when it was through with the release.
func (r *PastRelease) count(said map[fleet.FactKind]time.Time) (end time.Time, ended bool) {
	is := func(k fleet.FactKind) bool { _, ok := said[k]; return ok }
	if is(fleet.Started) || is(fleet.Succeeded) {
		r.Reached++
	}
	switch {
	case is(fleet.Succeeded):
		r.Succeeded++
		return said[fleet.Succeeded], true
	case is(fleet.GaveUp):
		r.Failed++
		return said[fleet.GaveUp], true
	case is(fleet.Failed):
		r.Failed++
	case is(fleet.Yielded):
		return said[fleet.Yielded], true
	}
	return time.Time{}, false
}

// earlier of two times, where zero is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// cursor is a place in the order of events: of what one second brought, milestones come as they are passed.
type cursor struct {
	time int64
	rank int
	id   fleet.Digest
}

// ranks of the kinds of events; commands, which have none here, come first.
var ranks = func() map[string]int {
	out := map[string]int{}
	for k := fleet.Accepted; k <= fleet.Yielded; k++ {
		out[k.String()] = int(k)
	}
	return out
}()

func cursorOf(e *Event) cursor {
	c := cursor{rank: ranks[e.Kind], id: e.ID}
	if !e.Time.IsZero() {
		c.time = e.Time.Unix()
	}
	return c
}

func (c cursor) compare(other cursor) int {
	return cmp.Or(cmp.Compare(c.time, other.time), cmp.Compare(c.rank, other.rank), slices.Compare(c.id[:], other.id[:]))
}

func (c cursor) String() string { return fmt.Sprintf("%d.%d.%s", c.time, c.rank, c.id) }

// parseCursor reads what String wrote; nothing is the place before everything.
func parseCursor(s string) (cursor, error) {
	if s == "" {
		return cursor{time: math.MinInt64}, nil
	}
	var c cursor
	parts := strings.Split(s, ".")
	err := errors.New("three parts")
	if len(parts) == 3 {
		var timeErr, rankErr error
		c.time, timeErr = strconv.ParseInt(parts[0], 10, 64)
		c.rank, rankErr = strconv.Atoi(parts[1])
		err = errors.Join(timeErr, rankErr, c.id.UnmarshalText([]byte(parts[2])))
	}
	if err != nil || c.String() != s {
		return cursor{}, &fleet.Error{
			Kind: fleet.Terminal, Reason: ReasonBadRequest, Hint: "leave it out, and begin with the first page",
			Err: fmt.Errorf("continue=%q: not what a page of this endpoint ended with", fleet.Cut(s)),
		}
	}
	return c, nil
}
