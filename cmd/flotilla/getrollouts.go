// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"

	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

type getRollouts struct {
	listing
	names    []string
	all      bool
	selector string
	states   []string
}

// rolloutStates for --state: the reason of Ready in small letters, and what people call it.
var rolloutStates = []string{"complete", "progressing", "waiting", "soaking", "paused", "halted", "failed", "stalled", "unknown"}

func (a *app) getRolloutsCommand() *cobra.Command {
	o := getRollouts{listing: listing{kind: "rollouts"}}
	c := &cobra.Command{
		Use:     "rollouts [NAME...]",
		Aliases: []string{"rollout", "frl"},
		Short:   "List rollouts, one line each",
		Long: `List rollouts, one line each: how far each has come through the fleet, as the member that your
kubeconfig points at knows it.`,
		Example: `  flotilla get rollouts -A
  flotilla get rollouts -n apps -o wide
  flotilla get rollouts -A --state failed,halted
  flotilla get rollouts web -n apps -o yaml`,
		RunE: func(c *cobra.Command, names []string) error {
			o.names = names
			return a.runGetRollouts(c.Context(), o)
		},
		ValidArgsFunction: a.completeRollouts(0),
	}
	c.Flags().BoolVarP(&o.all, "all-namespaces", "A", false, "of all namespaces")
	c.Flags().StringVarP(&o.selector, "selector", "l", "", "only those with these labels")
	stateFlag(c, &o.states, "state", rolloutStates)
	o.flags(c)
	return c
}

func rolloutColumns(all bool) []column {
	out := []column{
		{head: "NAME"}, {head: "READY"}, {head: "STAGE"}, {head: "CLUSTERS"}, {head: "FAILED"}, {head: "REVISION"}, {head: "AGE", loose: true},
		{head: "HERE", wide: true}, {head: "STATUS", wide: true},
	}
	if all {
		out = append([]column{{head: "NAMESPACE"}}, out...)
	}
	return out
}

func (a *app) runGetRollouts(ctx context.Context, o getRollouts) error {
	o.columns = rolloutColumns(o.all)
	if err := o.check(); err != nil {
		return err
	}
	if len(o.names) > 0 && (o.all || o.selector != "") {
		return usage("give names, or -A, or -l")
	}
	if o.follow && len(o.names) > 1 {
		return usage("-w watches one rollout, or all: give one name or none")
	}
	if _, err := labels.Parse(o.selector); err != nil {
		return usage("-l %s: %w", o.selector, err)
	}
	if err := checkStates(o.states, rolloutStates); err != nil {
		return err
	}
	if o.follow {
		return a.watchRollouts(ctx, o)
	}
	list, err := a.listRollouts(ctx, o)
	if err != nil {
		return err
	}
	rows, err := a.rolloutRows(list, &o)
	if err != nil {
		return err
	}
	if len(o.names) == 1 && len(list.Items) == 1 {
		return a.show(o.listing, rows, list.Items[0].Object)
	}
	return a.show(o.listing, rows, list.UnstructuredContent())
}

// rolloutsIn the namespaces that are asked for.
func (a *app) rolloutsIn(all bool) (dynamic.ResourceInterface, string, error) {
	client, err := a.kube()
	if err != nil {
		return nil, "", err
	}
	ns, err := a.namespace()
	if err != nil {
		return nil, "", err
	}
	if all {
		ns = metav1.NamespaceAll
	}
	return client.Resource(resource("fleetrollouts")).Namespace(ns), ns, nil
}

func (a *app) listRollouts(ctx context.Context, o getRollouts) (*unstructured.UnstructuredList, error) {
	ctx, cancel := a.soon(ctx)
	defer cancel()
	rollouts, ns, err := a.rolloutsIn(o.all)
	if err != nil {
		return nil, err
	}
	if len(o.names) == 0 {
		list, err := rollouts.List(ctx, metav1.ListOptions{LabelSelector: o.selector})
		return list, apiError("list rollouts", err)
	}
	list := &unstructured.UnstructuredList{Object: map[string]any{"apiVersion": "v1", "kind": "List"}}
	for _, name := range o.names {
		found, err := a.getRollout(ctx, rollouts, ns, name)
		if err != nil {
			return nil, err
		}
		list.Items = append(list.Items, *found)
	}
	return list, nil
}

func (a *app) getRollout(ctx context.Context, rollouts dynamic.ResourceInterface, ns, name string) (*unstructured.Unstructured, error) {
	found, err := rollouts.Get(ctx, name, metav1.GetOptions{})
	if isMissing(err) {
		return nil, a.noRollout(ctx, fmt.Sprintf("rollout %s/%s: not found", ns, name), ns, name)
	}
	return found, apiError(fmt.Sprintf("rollout %s/%s", ns, name), err)
}

// isMissing says that the object is not there; the kind is.
func isMissing(err error) bool { return apierrors.IsNotFound(err) && !isUnserved(err) }

func isUnserved(err error) bool {
	return apierrors.IsNotFound(err) && strings.Contains(err.Error(), "the server could not find the requested resource")
}

// apiError says what a person can do about what most often goes wrong.
func apiError(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case isUnserved(err):
		return fmt.Errorf("%s: this cluster does not know FleetRollouts: is it a member of a fleet?", what)
	case apierrors.IsForbidden(err):
		return fmt.Errorf("%s: %w (ask for a role with this permission; kubectl auth can-i asks the same)", what, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// rolloutRows of a list, which keeps those that are asked for.
func (a *app) rolloutRows(list *unstructured.UnstructuredList, o *getRollouts) ([]row, error) {
	var rows []row
	var kept []unstructured.Unstructured
	for i := range list.Items {
		var r v1alpha1.FleetRollout
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(list.Items[i].Object, &r); err != nil {
			return nil, fmt.Errorf("rollout %s/%s: %w", list.Items[i].GetNamespace(), list.Items[i].GetName(), err)
		}
		if !isState(o.states, statesOf(&r)...) {
			continue
		}
		kept = append(kept, list.Items[i])
		rows = append(rows, a.rolloutRow(&r, o, list.Items[i].Object))
	}
	list.Items = kept
	return rows, nil
}

// statesOf a rollout in words for --state: it may be several things.
func statesOf(r *v1alpha1.FleetRollout) []string {
	var out []string
	c := meta.FindStatusCondition(r.Status.Conditions, v1alpha1.ConditionReady)
	switch {
	case c == nil || c.Status == metav1.ConditionUnknown:
		out = append(out, "unknown")
	case c.Status == metav1.ConditionTrue:
		out = append(out, "complete")
	case c.Reason == v1alpha1.ReasonWaitingForStage:
		out = append(out, "waiting")
	case c.Reason == v1alpha1.ReasonSuspended:
		out = append(out, "paused")
	case c.Reason == v1alpha1.ReasonHalted:
		out = append(out, "halted", "failed")
	default:
		out = append(out, c.Reason)
	}
	if r.Status.Summary != nil && r.Status.Summary.Failed > 0 {
		out = append(out, "failed")
	}
	if meta.IsStatusConditionTrue(r.Status.Conditions, v1alpha1.ConditionStalled) {
		out = append(out, "stalled")
	}
	return out
}

func (a *app) rolloutRow(r *v1alpha1.FleetRollout, o *getRollouts, object any) row {
	ready, message := cell{text: "Unknown", color: yellow}, ""
	if c := meta.FindStatusCondition(r.Status.Conditions, v1alpha1.ConditionReady); c != nil {
		ready.text, message = string(c.Status), c.Message
		switch {
		case c.Status == metav1.ConditionTrue:
			ready.color = green
		case c.Reason == v1alpha1.ReasonHalted || c.Reason == v1alpha1.ReasonInvalid:
			ready.color = red
		}
	}
	var s v1alpha1.Summary
	if r.Status.Summary != nil {
		s = *r.Status.Summary
	}
	failed := numbered(fmt.Sprint(s.Failed), float64(s.Failed))
	if s.Failed > 0 {
		failed.color = red
	}
	here := ""
	if r.Status.Here != nil {
		here = r.Status.Here.Phase
	}
	cells := slices.Concat(text(r.Name), []cell{ready}, text(s.Stage, s.Clusters), []cell{failed}, text(s.Revision),
		[]cell{numbered(a.ago(r.CreationTimestamp.Time), a.now().Sub(r.CreationTimestamp.Time).Seconds())}, text(here, message))
	if o.all {
		cells = append(text(r.Namespace), cells...)
	}
	return row{
		id: r.Namespace + "/" + r.Name, cells: cells, object: object,
		name: "fleetrollout." + v1alpha1.GroupVersion.Group + "/" + r.Name,
	}
}

// watchRollouts lists, and then prints what the API server tells of. A watch that ends begins anew, and
// what changed in between is seen in the list.
func (a *app) watchRollouts(ctx context.Context, o getRollouts) error {
	p := changes{app: a, listing: o.listing}
	for {
		list, err := a.listForWatch(ctx, &o)
		if err != nil {
			return err
		}
		version := list.GetResourceVersion()
		rows, err := a.rolloutRows(list, &o)
		if err != nil {
			return err
		}
		if err := p.print(rows); err != nil {
			return err
		}
		if err := a.watchFrom(ctx, &o, version, &p); err != nil {
			return err
		}
		if err := wait(ctx, reconnectEvery); err != nil {
			return err
		}
	}
}

// options of a list or watch of what is asked for.
func (o *getRollouts) options() metav1.ListOptions {
	options := metav1.ListOptions{LabelSelector: o.selector}
	if len(o.names) == 1 {
		options.FieldSelector = fields.OneTermEqualSelector("metadata.name", o.names[0]).String()
	}
	return options
}

func (a *app) listForWatch(ctx context.Context, o *getRollouts) (*unstructured.UnstructuredList, error) {
	ctx, cancel := a.soon(ctx)
	defer cancel()
	rollouts, ns, err := a.rolloutsIn(o.all)
	if err != nil {
		return nil, err
	}
	list, err := rollouts.List(ctx, o.options())
	if err != nil {
		return nil, apiError("list rollouts", err)
	}
	if len(o.names) == 1 && len(list.Items) == 0 {
		return nil, a.noRollout(ctx, fmt.Sprintf("rollout %s/%s: not found", ns, o.names[0]), ns, o.names[0])
	}
	return list, nil
}

// watchFrom a list on, until the server ends it (nil) or the context does.
func (a *app) watchFrom(ctx context.Context, o *getRollouts, version string, p *changes) error {
	rollouts, _, err := a.rolloutsIn(o.all)
	if err != nil {
		return err
	}
	options := o.options()
	options.ResourceVersion = version
	events, err := rollouts.Watch(ctx, options)
	if err != nil {
		return apiError("watch rollouts", err)
	}
	defer events.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case event, open := <-events.ResultChan():
			if !open || event.Type == apiwatch.Error {
				return nil // it is begun again from a list
			}
			if err := p.event(event, o); err != nil {
				return err
			}
		}
	}
}

// event of the API server.
func (p *changes) event(event apiwatch.Event, o *getRollouts) error {
	object, ok := event.Object.(*unstructured.Unstructured)
	if !ok {
		return errors.New("watch rollouts: the API server sent something else")
	}
	id := object.GetNamespace() + "/" + object.GetName()
	if event.Type == apiwatch.Deleted {
		if _, known := p.seen[id]; known {
			fmt.Fprintf(p.ErrOut, "rollout %s is deleted\n", id)
		}
		delete(p.seen, id)
		return nil
	}
	rows, err := p.rolloutRows(&unstructured.UnstructuredList{Items: []unstructured.Unstructured{*object}}, o)
	if err != nil || len(rows) == 0 {
		return err
	}
	key := p.key(rows[0])
	if p.seen[id] == key {
		return nil
	}
	p.seen[id] = key
	return p.write(rows)
}
