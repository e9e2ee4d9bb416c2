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
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

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
		Short: "List rollouts or members",
		Args:  cobra.ArbitraryArgs,
		RunE:  unknownOrHelp,
	}
	get.AddCommand(a.getRolloutsCommand(), a.getMembersCommand())
	return get
}

type getRollouts struct {
	names    []string
	all      bool
	selector string
	output   output
}

func (a *app) getRolloutsCommand() *cobra.Command {
	var o getRollouts
	c := &cobra.Command{
		Use:     "rollouts [NAME...]",
		Aliases: []string{"rollout", "frl"},
		Short:   "List rollouts, one line each",
		Example: `  flotilla get rollouts -A
  flotilla get rollouts -n apps -o wide
  flotilla get rollouts web -n apps -o yaml`,
		RunE: func(c *cobra.Command, names []string) error {
			o.names = names
			return a.runGetRollouts(c.Context(), o)
		},
	}
	c.Flags().BoolVarP(&o.all, "all-namespaces", "A", false, "of all namespaces")
	c.Flags().StringVarP(&o.selector, "selector", "l", "", "only those with these labels")
	c.Flags().StringVarP((*string)(&o.output), "output", "o", "", "json, yaml, wide or name")
	return c
}

func (a *app) runGetRollouts(ctx context.Context, o getRollouts) error {
	if err := o.output.check("json", "yaml", "wide", "name"); err != nil {
		return err
	}
	if len(o.names) > 0 && (o.all || o.selector != "") {
		return usage("give names, or -A, or -l")
	}
	if _, err := labels.Parse(o.selector); err != nil {
		return usage("-l %s: %w", o.selector, err)
	}
	ctx, cancel := a.soon(ctx)
	defer cancel()
	list, err := a.listRollouts(ctx, o)
	if err != nil {
		return err
	}
	if len(o.names) == 1 && len(list.Items) == 1 {
		if done, err := o.output.structured(a.Out, list.Items[0].Object); done {
			return err
		}
	}
	if done, err := o.output.structured(a.Out, list.UnstructuredContent()); done {
		return err
	}
	if o.output == "name" {
		for i := range list.Items {
			fmt.Fprintf(a.Out, "fleetrollout.%s/%s\n", v1alpha1.GroupVersion.Group, list.Items[i].GetName())
		}
		return nil
	}
	return a.printRollouts(list, o)
}

func (a *app) listRollouts(ctx context.Context, o getRollouts) (*unstructured.UnstructuredList, error) {
	client, err := a.kube()
	if err != nil {
		return nil, err
	}
	ns, err := a.namespace()
	if err != nil {
		return nil, err
	}
	if o.all {
		ns = metav1.NamespaceAll
	}
	rollouts := client.Resource(resource("fleetrollouts")).Namespace(ns)
	if len(o.names) == 0 {
		list, err := rollouts.List(ctx, metav1.ListOptions{LabelSelector: o.selector})
		return list, apiError("list rollouts", err)
	}
	list := &unstructured.UnstructuredList{Object: map[string]any{"apiVersion": "v1", "kind": "List"}}
	for _, name := range o.names {
		found, err := getRollout(ctx, rollouts, ns, name)
		if err != nil {
			return nil, err
		}
		list.Items = append(list.Items, *found)
	}
	return list, nil
}

func getRollout(ctx context.Context, rollouts dynamic.ResourceInterface, ns, name string) (*unstructured.Unstructured, error) {
	found, err := rollouts.Get(ctx, name, metav1.GetOptions{})
	return found, apiError(fmt.Sprintf("rollout %s/%s", ns, name), err)
}

// apiError says what a person can do about the two things that most often go wrong.
func apiError(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case apierrors.IsNotFound(err) && strings.Contains(err.Error(), "the server could not find the requested resource"):
		return fmt.Errorf("%s: this cluster does not know FleetRollouts: is it a member of a fleet?", what)
	case apierrors.IsNotFound(err):
		return fmt.Errorf("%s: not found (flotilla get rollouts -A lists all)", what)
	}
	return fmt.Errorf("%s: %w", what, err)
}

func (a *app) printRollouts(list *unstructured.UnstructuredList, o getRollouts) error {
	if len(list.Items) == 0 {
		fmt.Fprintln(a.ErrOut, "no rollouts found")
		return nil
	}
	header := []string{"NAME", "READY", "STAGE", "CLUSTERS", "FAILED", "REVISION", "AGE"}
	if o.all {
		header = append([]string{"NAMESPACE"}, header...)
	}
	if o.output == "wide" {
		header = append(header, "HERE", "STATUS")
	}
	rows := [][]string{header}
	for i := range list.Items {
		var r v1alpha1.FleetRollout
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(list.Items[i].Object, &r); err != nil {
			return fmt.Errorf("rollout %s: %w", list.Items[i].GetName(), err)
		}
		rows = append(rows, a.rolloutRow(&r, o))
	}
	table(a.Out, rows)
	return nil
}

func (a *app) rolloutRow(r *v1alpha1.FleetRollout, o getRollouts) []string {
	ready, message := "Unknown", ""
	if c := meta.FindStatusCondition(r.Status.Conditions, v1alpha1.ConditionReady); c != nil {
		ready, message = string(c.Status), c.Message
	}
	var s v1alpha1.Summary
	if r.Status.Summary != nil {
		s = *r.Status.Summary
	}
	row := []string{r.Name, ready, s.Stage, s.Clusters, fmt.Sprint(s.Failed), s.Revision, a.ago(r.CreationTimestamp.Time)}
	if o.all {
		row = append([]string{r.Namespace}, row...)
	}
	if o.output == "wide" {
		here := ""
		if r.Status.Here != nil {
			here = r.Status.Here.Phase
		}
		row = append(row, here, message)
	}
	return row
}

type getMembers struct {
	names    []string
	selector string
	output   output
}

func (a *app) getMembersCommand() *cobra.Command {
	var o getMembers
	c := &cobra.Command{
		Use:     "members [NAME...]",
		Aliases: []string{"member", "fm"},
		Short:   "List the members of the fleet, as one of them hears them",
		Long: `List the members of the fleet, as the member that your kubeconfig points at hears them.

READY is True for who was heard in the last 15 seconds, and Unknown for who was not: no news is
not bad news.`,
		Example: `  flotilla get members
  flotilla get members -l region=eu -o wide`,
		RunE: func(c *cobra.Command, names []string) error {
			o.names = names
			return a.runGetMembers(c.Context(), o)
		},
	}
	c.Flags().StringVarP(&o.selector, "selector", "l", "", "only those with these labels")
	c.Flags().StringVarP((*string)(&o.output), "output", "o", "", "json, yaml, wide or name")
	return c
}

func (a *app) runGetMembers(ctx context.Context, o getMembers) error {
	if err := o.output.check("json", "yaml", "wide", "name"); err != nil {
		return err
	}
	selector, err := labels.Parse(o.selector)
	if err != nil {
		return usage("-l %s: %w", o.selector, err)
	}
	ctx, cancel := a.soon(ctx)
	defer cancel()
	agent, err := a.agent(ctx)
	if err != nil {
		return err
	}
	members, err := agent.Members(ctx)
	if err != nil {
		return err
	}
	members = slices.DeleteFunc(members, func(m readapi.FleetMember) bool {
		return !selector.Matches(labels.Set(m.Labels)) || len(o.names) > 0 && !slices.Contains(o.names, string(m.Name))
	})
	for _, name := range o.names {
		if !slices.ContainsFunc(members, func(m readapi.FleetMember) bool { return string(m.Name) == name }) {
			return fmt.Errorf("member %s: not found (%s get members lists all)", name, a.name)
		}
	}
	slices.SortFunc(members, func(a, b readapi.FleetMember) int { return strings.Compare(string(a.Name), string(b.Name)) })
	if done, err := o.output.structured(a.Out, readapi.List[readapi.FleetMember]{Items: members}); done {
		return err
	}
	a.printMembers(members, o.output)
	return nil
}

func (a *app) printMembers(members []readapi.FleetMember, o output) {
	if len(members) == 0 {
		fmt.Fprintln(a.ErrOut, "no members found")
		return
	}
	rows := [][]string{{"NAME", "READY", "ZONE", "HEARD", "VERSION", "LABELS"}}
	if o == "wide" {
		rows = [][]string{{"NAME", "READY", "ZONE", "HEARD", "VERSION", "AGENT", "CONNECTED", "SAME-STATE", "LABELS", "ID"}}
	}
	for _, m := range members {
		if o == "name" {
			fmt.Fprintf(a.Out, "fleetmember.%s/%s\n", v1alpha1.GroupVersion.Group, m.Name)
			continue
		}
		row := []string{string(m.Name), readyOf(m), m.Zone, heardOf(m), orDash(m.KubernetesVersion)}
		if o == "wide" {
			row = append(row, orDash(m.AgentVersion), yes(m.Connected || m.Self), yes(m.SameState || m.Self), labelsOf(m.Labels), string(m.ID))
		} else {
			row = append(row, labelsOf(m.Labels))
		}
		rows = append(rows, row)
	}
	if o == "name" {
		return
	}
	if o != "wide" {
		fit(rows)
	}
	table(a.Out, rows)
}

// fit the last column into what the others leave of the width.
func fit(rows [][]string) {
	used := 0
	for column := range len(rows[0]) - 1 {
		widest := 0
		for _, row := range rows {
			widest = max(widest, len([]rune(row[column])))
		}
		used += widest + 2
	}
	const least = 12
	for _, row := range rows {
		last := len(row) - 1
		row[last] = clip(row[last], max(least, width-used))
	}
}

// unheardAfter so long a member is not known to be there: three heartbeats.
const unheardAfter = 15 * time.Second

func readyOf(m readapi.FleetMember) string {
	switch {
	case m.Duplicate:
		return "Duplicate"
	case m.Self, m.HeardSeconds != nil && seconds(*m.HeardSeconds) < unheardAfter:
		return "True"
	}
	return "Unknown"
}

func heardOf(m readapi.FleetMember) string {
	switch {
	case m.Self:
		return "self"
	case m.HeardSeconds == nil:
		return "never"
	}
	return age(seconds(*m.HeardSeconds)) + " ago"
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
