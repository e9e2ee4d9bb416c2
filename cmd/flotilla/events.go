// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/cmd/internal/readapi"
)

type events struct {
	listing
	name, member, since string
	limit               int
}

func (a *app) eventsCommand() *cobra.Command {
	o := events{listing: listing{kind: "events", columns: eventColumns}}
	c := &cobra.Command{
		Use:   "events ROLLOUT",
		Short: "Tell what happened in a rollout, oldest first",
		Long: `Tell what happened in a rollout, oldest first: what each member signed about itself, and who paused and
resumed it. It is what the member your kubeconfig points at has heard, of all releases that it holds
records of. Times are those of whoever signed; clocks may differ.`,
		Example: `  flotilla events web -n apps
  flotilla events web --since 2h --member eu-1
  flotilla events web -w -o wide`,
		Args: args(1, 1, "the name of one rollout"),
		RunE: func(c *cobra.Command, names []string) error {
			o.name = names[0]
			return a.runEvents(c.Context(), o)
		},
		ValidArgsFunction: a.completeRollouts(1),
	}
	f := c.Flags()
	f.StringVar(&o.member, "member", "", "only what this member said")
	f.StringVar(&o.since, "since", "", "only what was said since: 2h ago, or 2026-11-21T09:00:00Z")
	f.IntVar(&o.limit, "limit", 0, "only the newest so many; 0 is all")
	o.flags(c)
	complete(c, "member", a.completeMembers)
	return c
}

var eventColumns = []column{
	{head: "TIME"}, {head: "MEMBER"}, {head: "STAGE"}, {head: "WHAT"}, {head: "REVISION", wide: true}, {head: "PLAN", wide: true}, {head: "WHY"},
}

// mostEvents that one command prints: more are of no use to a person.
const mostEvents = 100_000

func (a *app) runEvents(ctx context.Context, o events) error {
	if err := o.check(); err != nil {
		return err
	}
	if o.limit < 0 || o.limit > readapi.MaxEvents {
		return usage("--limit %d: a number of events, at most %d", o.limit, readapi.MaxEvents)
	}
	since, err := a.parseSince(o.since)
	if err != nil {
		return err
	}
	query := readapi.EventQuery{Member: fleet.Name(o.member), Since: since, Limit: readapi.MaxEvents}
	if o.limit > 0 {
		query.Limit, query.Last = o.limit, true
	}
	found, err := a.allEvents(ctx, o.name, query)
	if err != nil {
		return err
	}
	if found.Continue != "" {
		fmt.Fprintf(a.ErrOut, "note: only the first %d events; --since, --member and --limit narrow it\n", len(found.Items))
	}
	if !o.follow {
		return a.show(o.listing, eventRows(found.Items), found)
	}
	return a.followEvents(ctx, &o, query, found)
}

// allEvents of all pages.
func (a *app) allEvents(ctx context.Context, name string, q readapi.EventQuery) (readapi.Events, error) {
	return asking(ctx, a, name, func(ctx context.Context, agent *readapi.Client, full fleet.RolloutName) (readapi.Events, error) {
		out, err := agent.Events(ctx, full, q)
		for err == nil && out.Continue != "" && len(out.Items) < mostEvents {
			q.Continue = out.Continue
			var next readapi.Events
			next, err = agent.Events(ctx, full, q)
			out.Items, out.Continue = append(out.Items, next.Items...), next.Continue
		}
		return out, err
	})
}

// eventID is the same wherever an event comes from: a member says each milestone of a plan once.
func eventID(e *readapi.Event) string {
	if e.IsCommand() {
		return e.ID.String()
	}
	return e.Plan.String() + "/" + string(e.Member) + "/" + e.Kind
}

func eventRows(list []readapi.Event) []row {
	out := make([]row, 0, len(list))
	for i := range list {
		e := &list[i]
		at := cell{}
		if !e.Time.IsZero() {
			at = numbered(e.Time.Local().Format(time.DateTime), float64(e.Time.Unix()))
		}
		plan, why := "", e.Detail
		if e.Kind == fleet.Accepted.String() && why == "" {
			why = e.Revision.Short()
		}
		if !e.IsCommand() {
			plan = e.Plan.Short()
		}
		out = append(out, row{
			id: eventID(e), name: "event/" + eventID(e), object: e,
			cells: slices.Concat([]cell{at}, text(string(e.Member), e.Stage), []cell{{text: e.Kind, color: colourOf(e.Kind)}}, text(e.Revision.Short(), plan, why)),
		})
	}
	return out
}

// followEvents prints what was there, and then what is new in each view of the rollout. A view holds the
// milestones of its plan; commands are asked for when the stops in force change.
func (a *app) followEvents(ctx context.Context, o *events, q readapi.EventQuery, before readapi.Events) error {
	name, err := a.named(o.name)
	if err != nil {
		return err
	}
	t := teller{changes: changes{app: a, listing: o.listing}, query: q, told: map[string]bool{}}
	t.listing.sortBy = "" // what is new comes last
	if o.limit > 0 && len(before.Items) > 0 {
		t.from = before.Items[0].Time
	}
	if err := t.tell(before.Items); err != nil {
		return err
	}
	return a.follow(ctx, name, stream{interrupted: a.interrupted, seen: func(r *readapi.Rollout) (bool, error) {
		err := t.view(ctx, r)
		return err != nil, err
	}})
}

// teller prints events once each.
type teller struct {
	changes
	query readapi.EventQuery
	told  map[string]bool
	// from is when the oldest event that was told happened: what was before it is not asked for.
	from  time.Time
	stops []fleet.Digest
}

func (t *teller) tell(list []readapi.Event) error {
	var news []readapi.Event
	for i := range list {
		if id := eventID(&list[i]); !t.told[id] {
			t.told[id] = true
			news = append(news, list[i])
		}
	}
	return t.write(eventRows(news))
}

// view of the rollout: what it says beyond what was told.
func (t *teller) view(ctx context.Context, r *readapi.Rollout) error {
	list := eventsIn(r)
	var stops []fleet.Digest
	for _, s := range r.Stops {
		stops = append(stops, s.ID)
	}
	if !slices.Equal(stops, t.stops) {
		commands, err := t.allEvents(ctx, r.Name, readapi.EventQuery{Commands: true})
		if err != nil {
			return err
		}
		t.stops, list = stops, append(list, commands.Items...)
	}
	list = slices.DeleteFunc(list, func(e readapi.Event) bool {
		return t.query.Member != "" && e.Member != t.query.Member || e.Time.Before(t.query.Since) || e.Time.Before(t.from)
	})
	slices.SortStableFunc(list, func(a, b readapi.Event) int { return a.Time.Compare(b.Time) })
	return t.tell(list)
}

// eventsIn a view: the milestones of its plan.
func eventsIn(r *readapi.Rollout) []readapi.Event {
	var out []readapi.Event
	for i := range r.Members {
		m := &r.Members[i]
		for _, f := range m.Facts {
			out = append(out, readapi.Event{Time: f.Time, Member: m.Name, Stage: m.Stage, Kind: f.Kind, Detail: f.Detail, Plan: r.Plan, Revision: r.Revision})
		}
	}
	return out
}

// parseSince reads 2h or 2026-11-21T09:00:00Z; nothing is the beginning.
func (a *app) parseSince(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return a.now().Add(-d), nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	return time.Time{}, usage("--since %s: a length of time such as 2h, or a moment such as 2026-11-21T09:00:00Z", s)
}

type history struct {
	listing
	name string
}

func (a *app) historyCommand() *cobra.Command {
	o := history{listing: listing{kind: "releases", columns: historyColumns}}
	c := &cobra.Command{
		Use:   "history ROLLOUT",
		Short: "List the releases of a rollout, newest first",
		Long: `List the releases of a rollout that the member your kubeconfig points at holds records of, newest
first: how far each came, and how long ago it was started and completed.

CLUSTERS is how many succeeded, of how many the release was for; a question mark where the member does
not hold its seal any more. Completed is a release with which every cluster is through: succeeded,
given up or left.`,
		Example: `  flotilla history web -n apps
  flotilla history web -n apps -o wide
  flotilla history web -n apps -o json`,
		Args: args(1, 1, "the name of one rollout"),
		RunE: func(c *cobra.Command, names []string) error {
			o.name = names[0]
			return a.runHistory(c.Context(), o)
		},
		ValidArgsFunction: a.completeRollouts(1),
	}
	o.flags(c)
	hide(c, "watch")
	return c
}

var historyColumns = []column{
	{head: "REVISION"}, {head: "PLAN"}, {head: "SEAL", wide: true}, {head: "NUMBER", wide: true}, {head: "ACCEPTED", wide: true},
	{head: "STARTED"}, {head: "COMPLETED"}, {head: "CLUSTERS"}, {head: "FAILED"}, {head: "SUBJECT"},
}

func (a *app) runHistory(ctx context.Context, o history) error {
	if err := o.check(); err != nil {
		return err
	}
	if o.follow {
		return usage("history does not follow: %s events %s -w does", a.name, o.name)
	}
	found, err := asking(ctx, a, o.name, func(ctx context.Context, agent *readapi.Client, full fleet.RolloutName) (readapi.Releases, error) {
		return agent.Releases(ctx, full)
	})
	if err != nil {
		return err
	}
	var rows []row
	for i := range found.Items {
		rows = append(rows, a.releaseRow(&found.Items[i]))
	}
	return a.show(o.listing, rows, found)
}

func (a *app) releaseRow(r *readapi.PastRelease) row {
	of := "?"
	if r.Clusters > 0 {
		of = fmt.Sprint(r.Clusters)
	}
	state := ""
	switch {
	case r.Failed > 0:
		state = "Failed"
	case !r.Completed.IsZero():
		state = "Complete"
	case r.Current:
		state = "Progressing"
	}
	mark, color := markOf(state)
	seal := ""
	if !r.Seal.IsZero() {
		seal = r.Seal.Short()
	}
	ago := func(t time.Time) cell {
		if t.IsZero() {
			return cell{text: "-"}
		}
		return numbered(a.ago(t)+" ago", a.now().Sub(t).Seconds())
	}
	failed := numbered(fmt.Sprint(r.Failed), float64(r.Failed))
	if r.Failed > 0 {
		failed.color = red
	}
	return row{
		id: r.Plan.String(), name: "release/" + r.Plan.String(), object: r,
		cells: slices.Concat(
			[]cell{{text: mark + " " + orDash(r.Revision.Short()), color: color}}, text(r.Plan.Short(), seal),
			[]cell{numbered(fmt.Sprint(r.Number), float64(r.Number)), ago(r.Accepted), ago(r.Started), ago(r.Completed)},
			[]cell{numbered(fmt.Sprintf("%d/%s", r.Succeeded, of), float64(r.Succeeded)), failed}, text(r.Subject),
		),
	}
}
