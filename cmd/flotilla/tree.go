// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/cmd/internal/readapi"
)

type tree struct {
	name, member string
	all          bool
	output       output
}

// treeView is a tree for programs.
type treeView struct {
	Rollout readapi.Rollout `json:"rollout"`
	// Objects in the cluster of the member that answers; absent where they could not be read.
	Objects *readapi.Objects `json:"objects,omitempty"`
}

func (a *app) treeCommand() *cobra.Command {
	var o tree
	c := &cobra.Command{
		Use:   "tree ROLLOUT",
		Short: "Show a rollout's stages, their clusters, and the objects in yours",
		Long: `Show a rollout's stages, the clusters of each, and the objects that it has in the cluster your
kubeconfig points at: kind, name, and what is known of their health. Objects of kinds that you may
not get there are counted and not named; what is in an object is never shown.

Of a stage with many clusters those in trouble and at work come first, and the rest is counted.
The mark of an object is what the member found when it looked last: ✓ well, ▶ not ready yet,
✗ will not get there by itself. What is amiss stands behind its name.`,
		Example: `  flotilla tree web -n apps
  flotilla tree web --member eu-1 --context eu-1
  flotilla tree web --all`,
		Args: args(1, 1, "the name of one rollout"),
		RunE: func(c *cobra.Command, names []string) error {
			o.name = names[0]
			return a.runTree(c.Context(), o)
		},
		ValidArgsFunction: a.completeRollouts(1),
	}
	c.Flags().StringVar(&o.member, "member", "", "only this member")
	c.Flags().BoolVar(&o.all, "all", false, "all clusters and objects, however many")
	c.Flags().StringVarP((*string)(&o.output), "output", "o", "", "json or yaml")
	fixed(c, "output", "json", "yaml")
	complete(c, "member", a.completeMembers)
	return c
}

func (a *app) runTree(ctx context.Context, o tree) error {
	if err := o.output.check("json", "yaml"); err != nil {
		return err
	}
	view, missing, err := a.lookAtTree(ctx, o)
	if err != nil {
		return err
	}
	if done, err := o.output.structured(a.Out, view); done {
		return err
	}
	fmt.Fprintln(a.Out, clip(headline(&view.Rollout), a.width()))
	var root branch
	for i := range view.Rollout.Stages {
		if b := a.stageBranch(&view, &view.Rollout.Stages[i], o); b != nil {
			root.below = append(root.below, *b)
		}
	}
	a.printBranches(root.below, "")
	if missing != nil {
		fmt.Fprintf(a.ErrOut, "note: the objects of %s are left out: %v\n", view.Rollout.SeenFrom, missing)
	}
	return nil
}

// lookAtTree gives the rollout, and why its objects are missing where they are.
func (a *app) lookAtTree(ctx context.Context, o tree) (treeView, error, error) {
	var missing error
	view, err := asking(ctx, a, o.name, func(ctx context.Context, agent *readapi.Client, full fleet.RolloutName) (treeView, error) {
		var view treeView
		var err error
		if view.Rollout, err = agent.Rollout(ctx, full); err != nil {
			return view, err
		}
		if o.member != "" {
			if err := only(&view.Rollout, o.member); err != nil {
				return view, err
			}
			if !slices.ContainsFunc(view.Rollout.Members, func(m readapi.Member) bool { return m.Self }) {
				return view, nil // its objects are in its own cluster
			}
		}
		var objects readapi.Objects
		if objects, missing = allObjects(ctx, agent, full); missing == nil {
			view.Objects = &objects
		}
		return view, nil
	})
	return view, missing, err
}

// only one member, and its stage.
func only(r *readapi.Rollout, member string) error {
	at := slices.IndexFunc(r.Members, func(m readapi.Member) bool { return string(m.Name) == member })
	if at < 0 {
		var names []string
		for _, m := range r.Members {
			names = append(names, string(m.Name))
		}
		hint := ""
		if near := nearest(member, names); len(near) > 0 {
			hint = " (did you mean " + strings.Join(near, " or ") + "?)"
		}
		return fmt.Errorf("%s: no member %s among its %d%s", r.FullName(), member, len(r.Members), hint)
	}
	m := r.Members[at]
	r.Members = []readapi.Member{m}
	r.Stages = slices.DeleteFunc(r.Stages, func(s readapi.Stage) bool { return s.Name != m.Stage })
	return nil
}

// allObjects of all pages.
func allObjects(ctx context.Context, agent *readapi.Client, name fleet.RolloutName) (readapi.Objects, error) {
	out, err := agent.Objects(ctx, name, "")
	for err == nil && out.Continue != "" {
		var next readapi.Objects
		next, err = agent.Objects(ctx, name, out.Continue)
		out.Items, out.Continue = append(out.Items, next.Items...), next.Continue
	}
	return out, err
}

// branch of a tree: a line, and what is below it.
type branch struct {
	line  string
	below []branch
}

// mostLeaves of one branch that are shown where not all are asked for.
const mostLeaves = 20

func (a *app) stageBranch(v *treeView, s *readapi.Stage, o tree) *branch {
	members := membersOf(&v.Rollout, s.Name)
	if o.member != "" && len(members) == 0 {
		return nil
	}
	out := branch{line: fmt.Sprintf("%s %s  %s  %d/%d", a.mark(s.Phase), s.Name, s.Phase, s.Succeeded, s.Clusters)}
	// The member that answers first: it is the one with objects.
	slices.SortStableFunc(members, func(a, b *readapi.Member) int {
		return cmp.Or(cmp.Compare(selfLast(b), selfLast(a)), cmp.Compare(urgency(a), urgency(b)))
	})
	for i, m := range members {
		if i == mostLeaves && !o.all {
			out.below = append(out.below, branch{line: fmt.Sprintf("  and %d more clusters (--all shows them)", len(members)-mostLeaves)})
			break
		}
		out.below = append(out.below, a.memberBranch(v, m, o))
	}
	return &out
}

func selfLast(m *readapi.Member) int {
	if m.Self {
		return 1
	}
	return 0
}

func (a *app) memberBranch(v *treeView, m *readapi.Member, o tree) branch {
	state := stateCell(m.State, unheard(m))
	mark, _, _ := strings.Cut(state.text, m.State)
	out := branch{line: a.paint(state.color, strings.TrimSuffix(mark, " ")) + " " + string(m.Name) + "  " + m.State}
	if m.Installed != "" {
		out.line += "  runs " + m.Installed.Short()
	}
	if unheard(m) {
		out.line += "  " + silence(m)
	}
	if why := whyOf(m); m.State != "Complete" && why != "" {
		out.line += "  " + plain(without(m.Stage, why))
	}
	switch {
	case m.Self && v.Objects != nil:
		out.below = a.objectBranches(v.Objects, o.all)
	case o.member != "" && !m.Self:
		out.below = []branch{{line: "its objects: ask its own cluster, with --context or --kubeconfig"}}
	}
	return out
}

func (a *app) objectBranches(objects *readapi.Objects, all bool) []branch {
	var out []branch
	list := slices.Clone(objects.Items)
	slices.SortStableFunc(list, func(a, b readapi.Object) int { return cmp.Compare(worry(&a), worry(&b)) })
	for i := range list {
		if i == mostLeaves && !all {
			out = append(out, branch{line: fmt.Sprintf("  and %d more objects (--all shows them)", len(list)-mostLeaves)})
			break
		}
		out = append(out, branch{line: a.objectLine(&list[i])})
	}
	if objects.Hidden > 0 {
		out = append(out, branch{line: fmt.Sprintf("  %s that you may not see", plural(objects.Hidden, "object"))})
	}
	untold := func(o readapi.Object) bool { return o.Health == "" && !o.Left }
	if objects.Because != "" && slices.ContainsFunc(list, untold) {
		out = append(out, branch{line: "  of those without a mark: " + plain(objects.Because)})
	}
	if objects.Total == 0 {
		out = append(out, branch{line: "  nothing was delivered here yet"})
	}
	return out
}

// worry about an object, greatest first.
func worry(o *readapi.Object) int {
	switch {
	case o.Health == readapi.ObjectFailed:
		return 0
	case o.Health == readapi.ObjectNotReady:
		return 1
	case o.Left:
		return 3
	}
	return 2
}

func (a *app) objectLine(o *readapi.Object) string {
	mark, color := " ", paint("")
	switch o.Health {
	case readapi.ObjectHealthy:
		mark, color = "✓", green
	case readapi.ObjectNotReady:
		mark, color = "▶", yellow
	case readapi.ObjectFailed:
		mark, color = "✗", red
	}
	name := o.Name
	if o.Namespace != "" {
		name = o.Namespace + "/" + o.Name
	}
	line := a.paint(color, mark) + " " + plain(o.Kind+" "+name)
	switch {
	case o.Left:
		line += "  left by an earlier release"
	case o.Because != "":
		line += "  " + plain(o.Because)
	}
	return line
}

func (a *app) printBranches(list []branch, before string) {
	for i, b := range list {
		turn, further := "├─ ", "│  "
		if i == len(list)-1 {
			turn, further = "└─ ", "   "
		}
		fmt.Fprintln(a.Out, clip(before+turn+b.line, a.width()))
		a.printBranches(b.below, before+further)
	}
}
