// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/cmd/internal/readapi"
)

// resource of our group.
func resource(name string) schema.GroupVersionResource {
	return v1alpha1.GroupVersion.WithResource(name)
}

func (a *app) getCommand() *cobra.Command {
	get := &cobra.Command{
		Use:   "get",
		Short: "List rollouts, their stages and clusters, or members",
		Args:  cobra.ArbitraryArgs,
		RunE:  unknownOrHelp,
	}
	get.AddCommand(a.getRolloutsCommand(), a.getStagesCommand(), a.getClustersCommand(), a.getMembersCommand())
	return get
}

type getMembers struct {
	listing
	names    []string
	selector string
	states   []string
	// known words for --state, and those that are true of a member.
	known []string
	words func(readapi.FleetMember) []string
	row   func(readapi.FleetMember) []cell
}

// States of a member, for --state.
var memberStates = []string{"true", "unknown", "duplicate", "forked", "heard", "quiet", "doubted", "unheard", "alone"}

func (a *app) getMembersCommand() *cobra.Command {
	o := getMembers{listing: listing{kind: "members", columns: memberColumns}, known: memberStates, row: memberCells}
	o.words = func(m readapi.FleetMember) []string {
		return []string{readyOf(m), presenceOf(m.Presence, m.HeardSeconds)}
	}
	c := &cobra.Command{
		Use:     "members [NAME...]",
		Aliases: []string{"member", "fm"},
		Short:   "List the members of the fleet, as one of them hears them",
		Long: `List the members of the fleet, as the member that your kubeconfig points at hears them.

READY is True for who was heard lately, and Unknown for who was not: no news is not bad news. HEARD
says when that was, and in a word what is made of it: quiet (nothing for three of its heartbeats, which
are rarer in a large zone), doubted (members next to it lost it), hearsay (only a neighbour heard it,
then or earlier), never (nothing since the agent that answers began). 'flotilla members' says whether they hold the same as the one that answers.`,
		Example: `  flotilla get members
  flotilla get members -l region=eu -o wide
  flotilla get members --state unknown -w
  flotilla get members --state doubted`,
		RunE: func(c *cobra.Command, names []string) error {
			o.names = names
			return a.runGetMembers(c.Context(), o)
		},
		ValidArgsFunction: a.completeMembers,
	}
	o.chooseBy(c, "READY")
	return c
}

func (o *getMembers) chooseBy(c *cobra.Command, title string) {
	c.Flags().StringVarP(&o.selector, "selector", "l", "", "only those with these labels")
	stateFlag(c, &o.states, title, o.known)
	o.flags(c)
}

// memberColumns of the table; LABELS is last where the table is narrow, and gives first.
var memberColumns = []column{
	{head: "NAME"}, {head: "READY"}, {head: "ZONE"}, {head: "HEARD", loose: true}, {head: "VERSION"},
	{head: "AGENT", wide: true}, {head: "CONNECTED", wide: true}, {head: "SAME-STATE", wide: true}, {head: "LABELS"}, {head: "ID", wide: true},
}

func (a *app) runGetMembers(ctx context.Context, o getMembers) error {
	if err := o.check(); err != nil {
		return err
	}
	selector, err := labels.Parse(o.selector)
	if err != nil {
		return usage("-l %s: %w", o.selector, err)
	}
	if err := checkStates(o.states, o.known); err != nil {
		return err
	}
	if o.follow {
		return a.followMembers(ctx, &o, selector)
	}
	members, err := a.selectMembers(ctx, &o, selector)
	if err != nil {
		return err
	}
	return a.show(o.listing, o.rows(members), readapi.List[readapi.FleetMember]{Items: members})
}

// lookAgain at members, who have nothing that could be watched.
const lookAgain = 2 * time.Second

func (a *app) followMembers(ctx context.Context, o *getMembers, selector labels.Selector) error {
	p := changes{app: a, listing: o.listing}
	for {
		members, err := a.selectMembers(ctx, o, selector)
		switch {
		case err == nil:
			if err := p.print(o.rows(members)); err != nil {
				return err
			}
		case p.seen == nil, fleet.KindOf(err) != fleet.Retryable, ctx.Err() != nil:
			return err
		default:
			a.interrupted(err)
		}
		if err := wait(ctx, lookAgain); err != nil {
			return err
		}
	}
}

// wait so long, or until the context ends.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// selectMembers that were asked for, by name.
func (a *app) selectMembers(ctx context.Context, o *getMembers, selector labels.Selector) ([]readapi.FleetMember, error) {
	all, err := a.members(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range o.names {
		if !slices.ContainsFunc(all, func(m readapi.FleetMember) bool { return string(m.Name) == name }) {
			return nil, a.noMember(name, all)
		}
	}
	members := slices.DeleteFunc(all, func(m readapi.FleetMember) bool {
		return !selector.Matches(labels.Set(m.Labels)) || len(o.names) > 0 && !slices.Contains(o.names, string(m.Name)) || !isState(o.states, o.words(m)...)
	})
	slices.SortFunc(members, func(a, b readapi.FleetMember) int { return strings.Compare(string(a.Name), string(b.Name)) })
	return members, nil
}

func (a *app) members(ctx context.Context) ([]readapi.FleetMember, error) {
	ctx, cancel := a.soon(ctx)
	defer cancel()
	agent, err := a.agent(ctx)
	if err != nil {
		return nil, err
	}
	return agent.Members(ctx)
}

func (a *app) noMember(name string, all []readapi.FleetMember) error {
	var names []string
	for _, m := range all {
		names = append(names, string(m.Name))
	}
	hint := a.name + " get members lists all"
	if near := nearest(name, names); len(near) > 0 {
		hint = "did you mean " + strings.Join(near, " or ") + "?"
	}
	return fmt.Errorf("member %s: not found (%s)", name, hint)
}

func (o *getMembers) rows(members []readapi.FleetMember) []row {
	out := make([]row, 0, len(members))
	for _, m := range members {
		out = append(out, row{
			id: string(m.ID), name: "fleetmember." + v1alpha1.GroupVersion.Group + "/" + string(m.Name), object: m, cells: o.row(m),
		})
	}
	return out
}

// memberCells by memberColumns.
func memberCells(m readapi.FleetMember) []cell {
	ready := cell{text: readyOf(m)}
	switch ready.text {
	case "True":
		ready.color = green
	case "Duplicate", "Forked":
		ready.color = red
	default:
		ready.color = yellow
	}
	return slices.Concat(
		text(string(m.Name)), []cell{ready}, text(m.Zone), []cell{heardCell(m)},
		text(orDash(m.KubernetesVersion), orDash(m.AgentVersion), yes(m.Connected || m.Self), yes(m.SameState || m.Self), labelsOf(m.Labels), string(m.ID)),
	)
}

func heardCell(m readapi.FleetMember) cell {
	if m.Self {
		return numbered(heardWords(m.Presence, m.HeardSeconds, true), 0)
	}
	words := heardWords(m.Presence, m.HeardSeconds, false)
	if m.Hearsay {
		words += ", hearsay"
	}
	return cell{text: words, by: m.HeardSeconds}
}

// presenceOf a member, as the member that answers judges it. An agent that says none only knows whom it heard.
func presenceOf(said string, ago *float64) string {
	switch {
	case said != "":
		return said
	case ago == nil:
		return readapi.PresenceUnheard
	}
	return readapi.PresenceHeard
}

func readyOf(m readapi.FleetMember) string {
	switch {
	case m.Forked:
		return "Forked"
	case m.Duplicate:
		return "Duplicate"
	case m.Self, presenceOf(m.Presence, m.HeardSeconds) == readapi.PresenceHeard:
		return "True"
	}
	return "Unknown"
}

// heardWords for a cell: when, and what is made of it where that says more.
func heardWords(presence string, ago *float64, self bool) string {
	when := "never"
	switch {
	case self && presence == readapi.PresenceAlone:
		return "self, alone"
	case self:
		return "self"
	case ago != nil:
		when = age(seconds(*ago)) + " ago"
	}
	switch presence {
	case readapi.PresenceQuiet, readapi.PresenceDoubted:
		return strings.ToLower(presence) + ", " + when
	}
	return when
}

func labelsOf(set map[string]string) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(set)) {
		out = append(out, k+"="+set[k])
	}
	return orDash(strings.Join(out, ","))
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// stateFlag chooses rows by a column with few words; --status-selector is the same.
func stateFlag(c *cobra.Command, into *[]string, title string, known []string) {
	c.Flags().StringSliceVar(into, "state", nil, fmt.Sprintf("only those whose %s is one of %s", title, strings.Join(known, ", ")))
	c.Flags().StringSliceVar(into, "status-selector", nil, "the same as --state")
	hide(c, "status-selector")
	fixed(c, "state", known...)
}

func checkStates(given, known []string) error {
	for _, s := range given {
		if !slices.Contains(known, strings.ToLower(s)) {
			return usage("--state %s: one of %s", s, strings.Join(known, ", "))
		}
	}
	return nil
}

// isState says whether one of the words is asked for; no word asks for all.
func isState(asked []string, words ...string) bool {
	return len(asked) == 0 || slices.ContainsFunc(asked, func(s string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.EqualFold(s, w) })
	})
}
