// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/cmd/internal/readapi"
)

// getParts lists stages or clusters of rollouts.
type getParts struct {
	listing
	rollouts []string
	all      bool
	stages   []string
	states   []string
	selector string
	// labels of the members, where a selector asks for them.
	labels map[fleet.Name]map[string]string
	match  labels.Selector
	known  []string
	// rows of one rollout.
	rows func(*getParts, *readapi.Rollout) []row
}

var (
	stagePhases   = []string{"pending", "waiting", "progressing", "soaking", "complete", "failed"}
	clusterStates = []string{"pending", "waiting", "progressing", "soaking", "complete", "failed", "degraded", "ineligible", "removed", "unheard", "quiet", "doubted"}
)

func (a *app) getStagesCommand() *cobra.Command {
	o := getParts{listing: listing{kind: "stages"}, known: stagePhases, rows: a.stageRows}
	c := &cobra.Command{
		Use:     "stages [ROLLOUT...]",
		Aliases: []string{"stage"},
		Short:   "List the stages of rollouts, in their order",
		Long: `List the stages of rollouts, in their order: how many clusters of each have come how far, and why
one does not begin.`,
		Example: `  flotilla get stages web -n apps
  flotilla get stages -A --state waiting,failed
  flotilla get stages web -w`,
		RunE: func(c *cobra.Command, names []string) error {
			o.rollouts = names
			return a.runGetParts(c.Context(), o, stageColumns)
		},
		ValidArgsFunction: a.completeRollouts(0),
	}
	o.define(c, "PHASE")
	return c
}

func (a *app) getClustersCommand() *cobra.Command {
	o := getParts{listing: listing{kind: "clusters"}, known: clusterStates, rows: a.clusterRows}
	c := &cobra.Command{
		Use:     "clusters [ROLLOUT...]",
		Aliases: []string{"cluster"},
		Short:   "List the clusters of rollouts, by stage and rank",
		Long: `List the clusters of rollouts, by stage and rank: how far each has come, and why it is not further.

A cluster that has not started is Pending; --state waiting is the same. One that was not heard
lately is marked with a question mark, whatever its state: that is how it stood then. BECAUSE says
whether it is quiet (no news), doubted (members next to it lost it) or unheard (since the agent began).`,
		Example: `  flotilla get clusters web -n apps
  flotilla get clusters web --state failed,unheard
  flotilla get clusters web --stage eu -l tier=edge -o wide
  flotilla get clusters web -w`,
		RunE: func(c *cobra.Command, names []string) error {
			o.rollouts = names
			return a.runGetParts(c.Context(), o, clusterColumns)
		},
		ValidArgsFunction: a.completeRollouts(0),
	}
	c.Flags().StringSliceVar(&o.stages, "stage", nil, "only those of these stages")
	c.Flags().StringVarP(&o.selector, "selector", "l", "", "only members with these labels")
	o.define(c, "STATE")
	return c
}

func (o *getParts) define(c *cobra.Command, title string) {
	c.Flags().BoolVarP(&o.all, "all-namespaces", "A", false, "of all namespaces")
	stateFlag(c, &o.states, title, o.known)
	o.flags(c)
}

var stageColumns = []column{
	{head: "STAGE"}, {head: "PHASE"}, {head: "DONE"}, {head: "FAILED"}, {head: "WORKING"},
	{head: "INELIGIBLE", wide: true}, {head: "AT-ONCE", wide: true}, {head: "MAY-FAIL", wide: true}, {head: "SOAK", wide: true}, {head: "BECAUSE"},
}

var clusterColumns = []column{
	{head: "CLUSTER"}, {head: "STAGE"}, {head: "RANK", wide: true}, {head: "STATE"}, {head: "RUNS"}, {head: "ACCEPTED", wide: true},
	{head: "HEARD", loose: true}, {head: "SINCE", loose: true}, {head: "BECAUSE"},
}

func (a *app) runGetParts(ctx context.Context, o getParts, columns []column) error {
	o.columns = o.prefixed(columns)
	if err := o.check(); err != nil {
		return err
	}
	if len(o.rollouts) > 0 && o.all {
		return usage("give names, or -A")
	}
	if o.follow && len(o.rollouts) != 1 {
		return usage("-w watches one rollout: give its name")
	}
	if err := checkStates(o.states, o.known); err != nil {
		return err
	}
	match, err := labels.Parse(o.selector)
	if err != nil {
		return usage("-l %s: %w", o.selector, err)
	}
	if o.match = match; o.selector != "" {
		if err := a.labelMembers(ctx, &o); err != nil {
			return err
		}
	}
	if o.follow {
		return a.followParts(ctx, &o)
	}
	rollouts, err := a.rolloutsWithParts(ctx, &o)
	if err != nil {
		return err
	}
	var rows []row
	for i := range rollouts {
		if err := o.checkStages(&rollouts[i]); err != nil && len(o.rollouts) == 1 {
			return err
		}
		rows = append(rows, o.rows(&o, &rollouts[i])...)
	}
	objects := make([]any, 0, len(rows))
	for _, r := range rows {
		objects = append(objects, r.object)
	}
	return a.show(o.listing, rows, readapi.List[any]{Items: objects})
}

// prefixed columns where there is more than one rollout.
func (o *getParts) prefixed(columns []column) []column {
	switch {
	case o.all:
		return append([]column{{head: "NAMESPACE"}, {head: "ROLLOUT"}}, columns...)
	case len(o.rollouts) != 1:
		return append([]column{{head: "ROLLOUT"}}, columns...)
	}
	return columns
}

func (o *getParts) prefix(r *readapi.Rollout) []cell {
	switch {
	case o.all:
		return text(r.Namespace, r.Name)
	case len(o.rollouts) != 1:
		return text(r.Name)
	}
	return nil
}

func (a *app) labelMembers(ctx context.Context, o *getParts) error {
	members, err := a.members(ctx)
	if err != nil {
		return fmt.Errorf("-l %s: the members' labels: %w", o.selector, err)
	}
	o.labels = map[fleet.Name]map[string]string{}
	for _, m := range members {
		o.labels[m.Name] = m.Labels
	}
	return nil
}

// checkStages that were asked for: a stage that is not there is a slip, and no answer.
func (o *getParts) checkStages(r *readapi.Rollout) error {
	var names []string
	for i := range r.Stages {
		names = append(names, r.Stages[i].Name)
	}
	for _, s := range o.stages {
		if !slices.Contains(names, s) {
			return fmt.Errorf("rollout %s has no stage %s (it has: %s)", r.FullName(), s, orDash(strings.Join(names, ", ")))
		}
	}
	return nil
}

// rolloutsWithParts are those that are named, or all of the namespace.
func (a *app) rolloutsWithParts(ctx context.Context, o *getParts) ([]readapi.Rollout, error) {
	var out []readapi.Rollout
	for _, name := range o.rollouts {
		r, err := a.rolloutOf(ctx, name)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	if len(o.rollouts) > 0 {
		return out, nil
	}
	ctx, cancel := a.soon(ctx)
	defer cancel()
	ns, err := a.namespace()
	if err != nil {
		return nil, err
	}
	if o.all {
		ns = ""
	}
	agent, err := a.agent(ctx)
	if err != nil {
		return nil, err
	}
	if out, err = agent.Rollouts(ctx, ns); err != nil {
		return nil, err
	}
	slices.SortFunc(out, func(a, b readapi.Rollout) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	if o.kind == "stages" {
		return out, nil // lists hold them
	}
	for i := range out {
		if out[i], err = agent.Rollout(ctx, out[i].FullName()); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (a *app) followParts(ctx context.Context, o *getParts) error {
	name, err := a.named(o.rollouts[0])
	if err != nil {
		return err
	}
	p := changes{app: a, listing: o.listing}
	return a.follow(ctx, name, stream{interrupted: a.interrupted, seen: func(r *readapi.Rollout) (bool, error) {
		if err := o.checkStages(r); err != nil {
			return true, err
		}
		err := p.print(o.rows(o, r))
		return err != nil, err
	}})
}

// stageOfRollout is a stage for programs.
type stageOfRollout struct {
	Namespace string `json:"namespace"`
	Rollout   string `json:"rollout"`
	readapi.Stage
}

func (a *app) stageRows(o *getParts, r *readapi.Rollout) []row {
	var out []row
	for i := range r.Stages {
		s := &r.Stages[i]
		if !isState(o.states, s.Phase) {
			continue
		}
		failed := numbered(fmt.Sprint(s.Failed+s.Degraded), float64(s.Failed+s.Degraded))
		if s.Failed+s.Degraded > 0 {
			failed.color = red
		}
		because := without(s.Name, s.Because)
		if by := s.ByReport; by != nil {
			because = strings.Join(nonEmpty(byReport(by), because), "; ")
		}
		out = append(out, row{
			id: r.Namespace + "/" + r.Name + "/" + s.Name, name: "stage/" + r.Name + "/" + s.Name,
			object: stageOfRollout{r.Namespace, r.Name, *s},
			cells: slices.Concat(o.prefix(r), text(s.Name), []cell{
				stateCell(s.Phase, false),
				numbered(fmt.Sprintf("%d/%d", s.Succeeded, s.Clusters), float64(s.Succeeded)), failed,
				numbered(fmt.Sprint(s.Progressing), float64(s.Progressing)), numbered(fmt.Sprint(s.Ineligible), float64(s.Ineligible)),
				numbered(fmt.Sprint(s.MaxConcurrency), float64(s.MaxConcurrency)), numbered(fmt.Sprint(s.MaxUnavailable), float64(s.MaxUnavailable)),
				numbered(plainDuration(seconds(s.SoakSeconds)), s.SoakSeconds),
			}, text(because)),
		})
	}
	return out
}

// byReport is what other zones tell of a stage: no count of the other columns has it.
func byReport(by *readapi.Reported) string {
	said := fmt.Sprintf("by report %d/%d done", by.Succeeded, by.Clusters)
	if bad := by.Failed + by.Degraded; bad > 0 {
		said += fmt.Sprintf(", %d failed", bad)
	}
	return said
}

func nonEmpty(words ...string) []string {
	return slices.DeleteFunc(words, func(w string) bool { return w == "" })
}

// without the stage's name before a sentence: it has a column of its own.
func without(stage, sentence string) string { return strings.TrimPrefix(sentence, stage+": ") }

// stateCell has a shape beside its colour.
func stateCell(state string, unheard bool) cell {
	mark, color := markOf(state)
	if unheard && color != red {
		mark, color = "?", yellow
	}
	return cell{text: mark + " " + state, color: color}
}

// clusterOfRollout is a member's place in a rollout, for programs.
type clusterOfRollout struct {
	Namespace string `json:"namespace"`
	Rollout   string `json:"rollout"`
	readapi.Member
}

func (a *app) clusterRows(o *getParts, r *readapi.Rollout) []row {
	var out []row
	for i := range r.Members {
		m := &r.Members[i]
		if len(o.stages) > 0 && !slices.Contains(o.stages, m.Stage) || !isState(o.states, clusterStatesOf(m)...) ||
			o.labels != nil && !o.match.Matches(labels.Set(o.labels[m.Name])) {
			continue
		}
		since := cell{}
		if n := len(m.Facts); n > 0 && !m.Facts[n-1].Time.IsZero() {
			since = numbered(a.ago(m.Facts[n-1].Time), a.now().Sub(m.Facts[n-1].Time).Seconds())
		}
		heard := cell{text: heardWords("", m.HeardSeconds, m.Self), by: m.HeardSeconds}
		if m.Self {
			heard = numbered(heard.text, 0)
		}
		why := without(m.Stage, whyOf(m))
		if m.State == "Complete" {
			why = ""
		}
		if unheard(m) {
			why = strings.TrimSuffix(strings.ToLower(presenceOf(m.Presence, m.HeardSeconds))+"; "+why, "; ")
		}
		out = append(out, row{
			id: r.Namespace + "/" + r.Name + "/" + string(m.Name), name: "cluster/" + string(m.Name),
			object: clusterOfRollout{r.Namespace, r.Name, *m},
			cells: slices.Concat(o.prefix(r), text(string(m.Name), m.Stage), []cell{
				numbered(fmt.Sprint(m.Rank), float64(m.Rank)), stateCell(m.State, unheard(m)),
			}, text(shortOrDash(m.Installed), shortOrDash(m.Accepted)), []cell{heard, since}, text(why)),
		})
	}
	return out
}

func shortOrDash(r fleet.Revision) string { return orDash(r.Short()) }

// clusterStatesOf a member in words for --state.
func clusterStatesOf(m *readapi.Member) []string {
	out := []string{m.State}
	if m.State == "Pending" {
		out = append(out, "waiting")
	}
	if unheard(m) {
		out = append(out, "unheard", presenceOf(m.Presence, m.HeardSeconds))
	}
	return out
}
