// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/cmd/internal/preview"
	"github.com/flotilla-dev/flotilla/cmd/internal/readapi"
)

type plan struct {
	files   []string
	members string
	inputs  preview.Inputs
	output  output
}

func (a *app) planCommand() *cobra.Command {
	var o plan
	c := &cobra.Command{
		Use:   "plan -f FILE",
		Short: "Show what a rollout would do, before it is there",
		Long: `Show in which stages a rollout would reach which members, how many at a time, and what would be
refused. With --members it needs no cluster: a folder or a file of FleetMembers, such as members/ of
the fleet repository. Without, the members are those that your cluster knows.

With --payload it says how many variants of it there are, and who gets which; 'flotilla render --all'
prints them.

Who goes first within a stage is drawn by lot when the rollout is sealed. 'flotilla simulate' plays
it, with members that are offline or fail. Ends with exit code 1 where the rollout would be refused.`,
		Example: `  flotilla plan -f rollouts/web.yaml --members members/
  flotilla plan -f rollouts/ --members members/ -o yaml
  kubectl get fm -o yaml > members.yaml && flotilla plan -f web.yaml --members members.yaml`,
		Args:   args(0, 0, "no names: give files with -f"),
		PreRun: inTheAgentsZone,
		RunE:   func(c *cobra.Command, _ []string) error { return a.runPlan(c.Context(), o) },
	}
	c.Flags().StringArrayVarP(&o.files, "filename", "f", nil, "`file` or folder with the rollout, - for standard input (may be repeated)")
	c.Flags().StringVar(&o.members, "members", "", "`file` or folder with the FleetMembers; the cluster's where left out")
	inputFlags(c, &o.inputs)
	c.Flags().StringVarP((*string)(&o.output), "output", "o", "", "json or yaml")
	return c
}

func (a *app) runPlan(ctx context.Context, o plan) error {
	if err := o.output.check("json", "yaml"); err != nil {
		return err
	}
	rollouts, beside, err := a.readRollouts(o.files)
	if err != nil {
		return err
	}
	roster, err := a.roster(ctx, o.members, beside)
	if err != nil {
		return err
	}
	if o.inputs.Payload != "" && len(rollouts) != 1 {
		return usage("--payload is that of one rollout; these are %d", len(rollouts))
	}
	var plans []preview.Plan
	var refused []error
	for i := range rollouts {
		r := &rollouts[i]
		p, err := preview.Of(fleet.RolloutName{Namespace: r.Namespace, Name: r.Name}, r.Spec, roster)
		if err != nil {
			refused = append(refused, &preview.Fault{Where: r.Where, Err: err})
			continue
		}
		if o.inputs.Payload != "" {
			if err := a.renderPlan(&p, r, roster, o.inputs); err != nil {
				refused = append(refused, err)
			}
		}
		plans = append(plans, p)
	}
	if err := a.printPlans(plans, o.output); err != nil {
		return err
	}
	return errors.Join(refused...)
}

// renderPlan adds the variants of the payload to a plan.
func (a *app) renderPlan(p *preview.Plan, r *preview.Rollout, roster []fleet.Member, in preview.Inputs) error {
	payload, err := a.payload(r, in)
	if err != nil {
		return err
	}
	defer payload.Close() //nolint:errcheck // read only
	return p.Render(payload, roster)
}

// readRollouts from files; members that lie in them are returned as well.
func (a *app) readRollouts(files []string) ([]preview.Rollout, []preview.Member, error) {
	if len(files) == 0 {
		return nil, nil, usage("give the rollout's file with -f")
	}
	var all preview.Manifests
	var faults []error
	for _, file := range files {
		m, err := preview.Read(file, a.In)
		faults = append(faults, err)
		all.Rollouts, all.Members = append(all.Rollouts, m.Rollouts...), append(all.Members, m.Members...)
	}
	if err := errors.Join(faults...); err != nil {
		return nil, nil, err
	}
	if len(all.Rollouts) == 0 {
		return nil, nil, fmt.Errorf("%s: no FleetRollout", strings.Join(files, ", "))
	}
	ns := *a.flags.Namespace
	for i := range all.Rollouts {
		if r := &all.Rollouts[i]; r.Namespace == "" {
			r.Namespace = orElse(ns, metav1.NamespaceDefault)
		}
	}
	return all.Rollouts, all.Members, nil
}

// roster from --members, else from beside the rollouts, else from the cluster.
func (a *app) roster(ctx context.Context, path string, beside []preview.Member) ([]fleet.Member, error) {
	members := beside
	switch {
	case path != "":
		m, err := preview.Read(path, a.In)
		if err != nil {
			return nil, err
		}
		if len(m.Members) == 0 {
			return nil, fmt.Errorf("%s: no FleetMember", path)
		}
		members = m.Members
	case len(beside) == 0:
		var err error
		if members, err = a.clusterMembers(ctx); err != nil {
			return nil, fmt.Errorf("%w; without a cluster, give the members' files with --members", err)
		}
	}
	return preview.Roster(members)
}

func (a *app) clusterMembers(ctx context.Context) ([]preview.Member, error) {
	ctx, cancel := a.soon(ctx)
	defer cancel()
	client, err := a.kube()
	if err != nil {
		return nil, err
	}
	list, err := client.Resource(resource("fleetmembers")).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, apiError("list members", err)
	}
	var out []preview.Member
	for i := range list.Items {
		m := preview.Member{Where: preview.Where{File: "cluster"}}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(list.Items[i].Object, &m.FleetMember); err != nil {
			return nil, fmt.Errorf("member %s: %w", list.Items[i].GetName(), err)
		}
		out = append(out, m)
	}
	return out, nil
}

func (a *app) printPlans(plans []preview.Plan, o output) error {
	switch {
	case len(plans) == 0:
		return nil
	case len(plans) == 1:
		if done, err := o.structured(a.Out, plans[0]); done {
			return err
		}
	default:
		if done, err := o.structured(a.Out, readapi.List[preview.Plan]{Items: plans}); done {
			return err
		}
	}
	for i := range plans {
		if i > 0 {
			fmt.Fprintln(a.Out)
		}
		a.printPlan(&plans[i])
	}
	return nil
}

func (a *app) printPlan(p *preview.Plan) {
	fmt.Fprintf(a.Out, "%s/%s: %d of %s\n", p.Namespace, p.Name, p.Members, plural(p.Fleet, "member"))
	rows := make([][]string, len(p.Stages))
	for i := range p.Stages {
		s := &p.Stages[i]
		row := []string{fmt.Sprintf("  %d", i+1), s.Name, fmt.Sprint(s.Clusters), fmt.Sprintf("%d at a time", s.MaxConcurrency), "", ""}
		if s.SoakSeconds > 0 {
			row[4] = "soak " + plainDuration(seconds(s.SoakSeconds))
		}
		if s.MaxUnavailable > 0 {
			row[5] = fmt.Sprintf("%d may fail", s.MaxUnavailable)
		}
		rows[i] = append(withoutEmpty(row, p.Stages), whoIn(s))
	}
	fit(rows)
	table(a.Out, rows)
	fmt.Fprintln(a.Out, "  "+wrap(fmt.Sprintf("at best %s; at most %s at work at once; a release that fails everywhere reaches %d",
		plainDuration(seconds(p.BestSeconds)), plural(p.AtOnce, "cluster"), p.FailsAt), 2, 2))
	a.printOut(p)
	a.printManifests(p.Manifests)
	for _, w := range p.Warnings {
		fmt.Fprintf(a.Out, "%s %s\n", a.paint(yellow, "!"), wrap(w, 2, 2))
	}
}

// withoutEmpty leaves out the columns that no stage has anything in.
func withoutEmpty(row []string, stages []preview.Stage) []string {
	soak, fail := false, false
	for i := range stages {
		soak = soak || stages[i].SoakSeconds > 0
		fail = fail || stages[i].MaxUnavailable > 0
	}
	out := row[:4:4]
	if soak {
		out = append(out, row[4])
	}
	if fail {
		out = append(out, row[5])
	}
	return out
}

func whoIn(s *preview.Stage) string {
	if s.Drawn {
		return "by lot"
	}
	names := make([]string, len(s.Members))
	for i, n := range s.Members {
		names[i] = string(n)
	}
	return strings.Join(names, " ")
}

// mostReasons that are printed of why members are out.
const mostReasons = 5

func (a *app) printOut(p *preview.Plan) {
	out := p.Fleet - p.Members
	if out == 0 {
		return
	}
	fmt.Fprintf(a.Out, "  %d out:\n", out)
	for i, r := range p.Out {
		if i == mostReasons {
			fmt.Fprintf(a.Out, "    and for %d other reasons\n", len(p.Out)-mostReasons)
			return
		}
		front := fmt.Sprintf("    %s  ", padLeft(fmt.Sprint(r.Clusters), 4))
		fmt.Fprintf(a.Out, "%s%s\n", front, wrap(r.Because, len(front), len(front)))
	}
}

func (a *app) printManifests(manifests []preview.Manifest) {
	if len(manifests) == 0 {
		return
	}
	fmt.Fprintf(a.Out, "  %s:\n", plural(len(manifests), "variant"))
	for _, m := range manifests {
		front := fmt.Sprintf("    %s  ", padLeft(plural(m.Objects, "object"), 12))
		names := make([]string, len(m.Members))
		for i, n := range m.Members {
			names[i] = string(n)
		}
		fmt.Fprintf(a.Out, "%s%s\n", front, wrap(strings.Join(names, " "), len(front), len(front)))
	}
}
