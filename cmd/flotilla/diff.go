// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/cmd/internal/livediff"
	"github.com/flotilla-dev/flotilla/cmd/internal/preview"
	"github.com/flotilla-dev/flotilla/cmd/internal/readapi"
)

// Exit codes of diff, as those of other programs that compare.
const (
	exitDiffers  = 1
	exitDiffFail = 2
)

// exit ends the command with a code of its own; err is printed where there is one.
type exit struct {
	code int
	err  error
}

func (e exit) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e exit) Unwrap() error { return e.err }

type diff struct {
	files   []string
	members string
	only    []string
	against string
	inputs  preview.Inputs
	output  output
}

func (a *app) diffCommand() *cobra.Command {
	var o diff
	c := &cobra.Command{
		Use:   "diff -f FILE --payload FOLDER (--against FOLDER | --member NAME)",
		Short: "Show what a change would do to every member, or to a cluster",
		Long: `Show what a change of a rollout's payload would do.

With --against it compares two payloads, for every member that the rollout is for or those of --member:
members for which the difference is the same are shown once, together. It needs no cluster, where
--members or the file itself says who the members are. What --chart and --object give is the same for both.

Without --against it compares what one member would run with the cluster that your kubeconfig points
at: the API server is asked, object by object, what applying it as flotilla does would change. Nothing
is written. It needs the right to patch these objects; what the rollout would prune is shown where you
may read its inventory.

The values of Secrets are never shown. Ends with exit code 0 where nothing differs, 1 where something
does, and 2 where it cannot be told.`,
		Example: `  # what would this branch change, and where?
  git worktree add ../before main
  flotilla diff -f rollouts/web.yaml --members members/ --payload . --against ../before

  # line by line, for two members
  flotilla diff -f web.yaml --members members/ --payload . --against ../before --member eu-1 --member us-4 -o diff

  # what would it change in the cluster of the current context, which is eu-1?
  flotilla diff -f web.yaml --members members/ --payload . --member eu-1`,
		Args:   args(0, 0, "no names: give files with -f"),
		PreRun: inTheAgentsZone,
		RunE: func(c *cobra.Command, _ []string) error {
			err := a.runDiff(c.Context(), o)
			var wrong usageError
			var coded exit
			if err == nil || errors.As(err, &wrong) || errors.As(err, &coded) || c.Context().Err() != nil {
				return err
			}
			return exit{exitDiffFail, err}
		},
	}
	c.Flags().StringArrayVarP(&o.files, "filename", "f", nil, "`file` with the rollout, - for standard input")
	c.Flags().StringVar(&o.members, "members", "", "`file` or folder with the FleetMembers; the cluster's where left out")
	c.Flags().StringArrayVar(&o.only, "member", nil, "`name` of a member to show (may be repeated); all that the rollout is for where left out")
	c.Flags().StringVar(&o.against, "against", "", "`folder` with the payload as it was; left out, the cluster")
	inputFlags(c, &o.inputs)
	c.Flags().StringVarP((*string)(&o.output), "output", "o", "", "diff, json or yaml; a summary where left out")
	return c
}

func (a *app) runDiff(ctx context.Context, o diff) error {
	if err := o.output.check("diff", "json", "yaml"); err != nil {
		return err
	}
	switch {
	case o.inputs.Payload == "":
		return usage("say where the payload is: --payload FOLDER, a checkout of the rollout's source")
	case o.against == "" && len(o.only) != 1:
		return usage("compare with what? Give the payload as it was with --against FOLDER, or the member that your cluster is with --member NAME")
	}
	rollout, roster, err := a.one(ctx, o.files, o.members)
	if err != nil {
		return err
	}
	after, err := a.payload(rollout, o.inputs)
	if err != nil {
		return err
	}
	defer after.Close() //nolint:errcheck // read only
	if o.against == "" {
		return a.diffCluster(ctx, rollout, after, roster, o)
	}
	inputs := o.inputs
	inputs.Payload = o.against
	before, err := preview.Open(&rollout.FleetRollout, inputs)
	if err != nil {
		return fmt.Errorf("--against: %w", err)
	}
	defer before.Close() //nolint:errcheck // read only
	members, err := a.shownMembers(rollout, roster, o.only)
	if err != nil {
		return err
	}
	found, err := preview.Difference(before, after, members)
	if err != nil {
		return err
	}
	return a.printDiff(found, o.output)
}

// shownMembers are those that the rollout is for, or the ones that were named.
func (a *app) shownMembers(rollout *preview.Rollout, roster []fleet.Member, only []string) ([]fleet.Member, error) {
	targets, err := preview.Targets(&rollout.FleetRollout, roster)
	if err != nil || len(only) == 0 {
		return targets, err
	}
	var out []fleet.Member
	for _, name := range only {
		is := func(m fleet.Member) bool { return string(m.Name) == name }
		i := slices.IndexFunc(roster, is)
		if i < 0 {
			return nil, fmt.Errorf("%q is not a member", name)
		}
		if !slices.ContainsFunc(targets, is) {
			fmt.Fprintf(a.ErrOut, "note: the rollout is not for %s\n", name)
		}
		out = append(out, roster[i])
	}
	return out, nil
}

// diffCluster compares with the cluster of the kubeconfig.
func (a *app) diffCluster(ctx context.Context, rollout *preview.Rollout, after *preview.Payload, roster []fleet.Member, o diff) error {
	name := fleet.Name(o.only[0])
	rendered, err := preview.Render(after, roster, name)
	if err != nil {
		return err
	}
	if !rendered.Targeted {
		fmt.Fprintf(a.ErrOut, "note: the rollout is not for %s: %s\n", name, rendered.Because)
	}
	config, err := a.config()
	if err != nil {
		return err
	}
	ctx, cancel := a.soon(ctx)
	defer cancel()
	prune := rollout.Spec.Delivery.Prune
	result, err := livediff.Compare(ctx, config, livediff.Release{
		Rollout: fleet.RolloutName{Namespace: rollout.Namespace, Name: rollout.Name},
		Objects: rendered.Objects, Prune: prune == nil || *prune,
	})
	if err != nil {
		return err
	}
	for _, note := range result.Notes {
		fmt.Fprintf(a.ErrOut, "note: %s\n", note)
	}
	return a.printDiff([]preview.MemberDiff{{Members: []fleet.Name{name}, Objects: result.Objects}}, o.output)
}

func (a *app) printDiff(found []preview.MemberDiff, o output) error {
	differs := slices.ContainsFunc(found, func(d preview.MemberDiff) bool { return len(d.Objects) > 0 })
	done, err := o.structured(a.Out, readapi.List[preview.MemberDiff]{Items: found})
	switch {
	case err != nil:
		return err
	case done:
	case o == "diff":
		a.printUnified(found)
	default:
		a.printSummary(found)
	}
	if differs {
		return exit{code: exitDiffers}
	}
	return nil
}

func (a *app) printUnified(found []preview.MemberDiff) {
	for i := range found {
		if len(found[i].Objects) == 0 {
			continue
		}
		fmt.Fprintf(a.Out, "# %s\n", memberNames(found[i].Members))
		for _, d := range found[i].Objects {
			for line := range strings.Lines(d.Unified) {
				fmt.Fprint(a.Out, a.paintLine(line))
			}
		}
	}
}

func (a *app) paintLine(line string) string {
	text := strings.TrimSuffix(line, "\n")
	switch {
	case strings.HasPrefix(line, "+"):
		return a.paint(green, text) + "\n"
	case strings.HasPrefix(line, "-"):
		return a.paint(red, text) + "\n"
	}
	return line
}

func (a *app) printSummary(found []preview.MemberDiff) {
	marks := map[string]string{
		preview.Added: a.paint(green, "+"), preview.Changed: a.paint(yellow, "~"), preview.Removed: a.paint(red, "-"),
	}
	for i := range found {
		d := &found[i]
		counts := count(d.Objects)
		fmt.Fprintf(a.Out, "%s: %s\n", wrap(memberNames(d.Members), 0, 0), counts)
		for _, o := range d.Objects {
			note := ""
			if o.Note != "" {
				note = " (" + o.Note + ")"
			}
			fmt.Fprintf(a.Out, "  %s %s%s\n", marks[o.Action], o.Object, note)
			for _, f := range o.Fields {
				fmt.Fprintf(a.Out, "      %s: %s -> %s\n", f.Path, orElse(f.Old, "(none)"), orElse(f.New, "(none)"))
			}
		}
	}
}

// count the objects in words: "2 changed, 1 added".
func count(objects []preview.ObjectDiff) string {
	if len(objects) == 0 {
		return "no difference"
	}
	counts := map[string]int{}
	for _, o := range objects {
		counts[o.Action]++
	}
	var words []string
	for _, action := range []string{preview.Changed, preview.Added, preview.Removed} {
		if counts[action] > 0 {
			words = append(words, fmt.Sprintf("%d %s", counts[action], action))
		}
	}
	return strings.Join(words, ", ")
}

func memberNames(members []fleet.Name) string {
	names := make([]string, len(members))
	for i, m := range members {
		names[i] = string(m)
	}
	return strings.Join(names, ", ")
}
