// SPDX-License-Identifier: Apache-2.0

// Package livediff answers: what would applying these objects change in the cluster behind an API server?
//
// It asks the server itself: a server-side apply of each object as dry-run, under the field manager that the agents
// use, compared with the object as it is. Nothing is written.
package livediff

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/cmd/internal/preview"
	"github.com/flotilla-dev/flotilla/delivery"
)

const (
	// FieldManager is delivery/kube's.
	FieldManager = "flotilla"
	// Namespace of the inventories, where the agents are installed as deploy/agent has it.
	Namespace = "flotilla-system"

	// concurrency of requests.
	concurrency = 8
)

// Release is what would be applied.
type Release struct {
	Rollout fleet.RolloutName
	Objects []*unstructured.Unstructured
	// Prune what the rollout has there and Objects has not.
	Prune bool
}

// Result of a comparison.
type Result struct {
	// Objects that differ: those that would be applied in their order, then those that would be pruned.
	Objects []preview.ObjectDiff
	// Notes on what could not be looked at.
	Notes []string
}

// cluster is where the objects would go.
type cluster struct {
	kinds   meta.RESTMapper
	objects dynamic.Interface
	release Release
	// brings are the kinds and namespaces that come with the release itself.
	brings map[string]bool
}

// Compare a release with a cluster. An error joins those of all objects that the server gives no answer for.
func Compare(ctx context.Context, config *rest.Config, release Release) (Result, error) {
	c, err := connect(config, release)
	if err != nil {
		return Result{}, err
	}
	mapped := make([]*unstructured.Unstructured, len(release.Objects))
	for i, o := range release.Objects {
		mapped[i] = c.marked(o)
	}
	diffs, faults := make([]*preview.ObjectDiff, len(mapped)), make([]error, len(mapped))
	var g errgroup.Group
	g.SetLimit(concurrency)
	for i, o := range mapped {
		g.Go(func() error {
			diffs[i], faults[i] = c.compare(ctx, o)
			return nil
		})
	}
	_ = g.Wait() // each keeps its own error
	if err := errors.Join(faults...); err != nil {
		return Result{}, err
	}
	var result Result
	for _, d := range diffs {
		if d != nil {
			result.Objects = append(result.Objects, *d)
		}
	}
	removals, note := c.removals(ctx, mapped)
	result.Objects = append(result.Objects, removals...)
	if note != "" {
		result.Notes = append(result.Notes, note)
	}
	return result, nil
}

func connect(config *rest.Config, release Release) (*cluster, error) {
	config = rest.CopyConfig(config)
	config.QPS, config.Burst = 100, 200
	config.WarningHandlerWithContext = rest.NoWarnings{}
	found, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("API server: %w", err)
	}
	objects, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("API server: %w", err)
	}
	c := &cluster{
		kinds: restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(found)), objects: objects, release: release,
		brings: map[string]bool{},
	}
	for _, o := range release.Objects {
		switch id := delivery.IDOf(o); {
		case id.Group == "" && id.Kind == "Namespace":
			c.brings["namespace "+id.Name] = true
		case id.Group == "apiextensions.k8s.io" && id.Kind == "CustomResourceDefinition":
			c.brings["kind "+delivery.DefinedKind(o).String()] = true
		}
	}
	return c, nil
}

// marked is the object with the labels that tell whose it is, and a Secret's stringData as data: as it is delivered.
func (c *cluster) marked(o *unstructured.Unstructured) *unstructured.Unstructured {
	o = o.DeepCopy()
	labels := maps.Clone(o.GetLabels())
	if labels == nil {
		labels = map[string]string{}
	}
	labels[v1alpha1.LabelRolloutName], labels[v1alpha1.LabelRolloutNamespace] = c.release.Rollout.Name, c.release.Rollout.Namespace
	o.SetLabels(labels)
	tidy(o)
	if o.GetAPIVersion() != "v1" || o.GetKind() != "Secret" {
		return o
	}
	plain, found, err := unstructured.NestedStringMap(o.Object, "stringData")
	if err != nil || !found {
		return o // the server says what is wrong with it
	}
	data, _, err := unstructured.NestedStringMap(o.Object, "data")
	if err != nil {
		return o
	}
	if data == nil {
		data = map[string]string{}
	}
	for key, value := range plain {
		data[key] = base64.StdEncoding.EncodeToString([]byte(value))
	}
	unstructured.RemoveNestedField(o.Object, "stringData")
	values := map[string]any{}
	for key, value := range data {
		values[key] = value
	}
	o.Object["data"] = values
	return o
}

// tidy takes out what the server writes for itself.
func tidy(o *unstructured.Unstructured) {
	for _, field := range []string{"creationTimestamp", "generation", "managedFields", "resourceVersion", "uid", "selfLink"} {
		unstructured.RemoveNestedField(o.Object, "metadata", field)
	}
}

// compare one object with the one in the cluster; nil where applying it would change nothing.
func (c *cluster) compare(ctx context.Context, o *unstructured.Unstructured) (*preview.ObjectDiff, error) {
	resource, err := c.resource(o)
	if err != nil || resource == nil {
		return added(o, err, "its kind comes with the payload")
	}
	live, err := resource.Get(ctx, o.GetName(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		live, err = nil, nil
	}
	if err != nil {
		return nil, explain(err, o, "read")
	}
	applied, err := resource.Apply(ctx, o.GetName(), o, metav1.ApplyOptions{
		FieldManager: FieldManager, Force: true, DryRun: []string{metav1.DryRunAll},
	})
	switch {
	case apierrors.IsNotFound(err) && live == nil && c.brings["namespace "+o.GetNamespace()]:
		return added(o, nil, "its namespace comes with the payload")
	case err != nil:
		return nil, explain(err, o, "apply")
	case live == nil:
		return added(o, nil, "")
	}
	for _, each := range []*unstructured.Unstructured{live, applied} {
		tidy(each)
		unstructured.RemoveNestedField(each.Object, "status")
	}
	if d, differs := preview.CompareObject(live, applied); differs {
		return &d, nil
	}
	return nil, nil
}

func added(o *unstructured.Unstructured, err error, note string) (*preview.ObjectDiff, error) {
	if err != nil {
		return nil, err
	}
	d, _ := preview.CompareObject(nil, o)
	d.Note = note
	return &d, nil
}

// resource that the object is one of; nil where the release itself brings its kind. An object without a namespace
// whose kind lives in one gets the rollout's.
func (c *cluster) resource(o *unstructured.Unstructured) (dynamic.ResourceInterface, error) {
	kind := o.GroupVersionKind()
	mapping, err := c.kinds.RESTMapping(kind.GroupKind(), kind.Version)
	switch {
	case meta.IsNoMatchError(err) && c.brings["kind "+kind.GroupKind().String()]:
		return nil, nil
	case meta.IsNoMatchError(err):
		return nil, &fleet.Error{
			Kind: fleet.Terminal, Reason: v1alpha1.ReasonUnknownKind, Hint: "install what defines it, or take it out of the payload",
			Err: fmt.Errorf("%s: the API server does not know %s", delivery.IDOf(o), kind),
		}
	case err != nil:
		return nil, fmt.Errorf("%s: what the API server serves: %w", delivery.IDOf(o), err)
	case mapping.Scope.Name() != meta.RESTScopeNameNamespace:
		o.SetNamespace("")
		return c.objects.Resource(mapping.Resource), nil
	case o.GetNamespace() == "":
		o.SetNamespace(c.release.Rollout.Namespace)
	}
	return c.objects.Resource(mapping.Resource).Namespace(o.GetNamespace()), nil
}

// explain what a server did not do. What it says of a Secret is left out: it may quote a value.
func explain(err error, o *unstructured.Unstructured, what string) error {
	id := delivery.IDOf(o)
	var status apierrors.APIStatus
	if id.Group == "" && id.Kind == "Secret" && errors.As(err, &status) {
		err = &apierrors.StatusError{ErrStatus: metav1.Status{
			Code: status.Status().Code, Reason: status.Status().Reason,
			Message: fmt.Sprintf("%d %s; what it says is not repeated, it may quote a value", status.Status().Code, status.Status().Reason),
		}}
	}
	if apierrors.IsForbidden(err) {
		return &fleet.Error{
			Kind: fleet.Refused, Reason: v1alpha1.ReasonForbidden, Hint: "comparing needs the rights to get and to patch",
			Err: fmt.Errorf("%s: you may not %s it: %w", id, what, err),
		}
	}
	return fmt.Errorf("%s: the API server refuses to %s it: %w", id, what, err)
}

// removals are what the rollout has in the cluster, by its inventory, and what the release has not.
func (c *cluster) removals(ctx context.Context, objects []*unstructured.Unstructured) ([]preview.ObjectDiff, string) {
	const unseen = "what would be pruned is not shown: "
	name := InventoryName(c.release.Rollout)
	held, err := c.objects.Resource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}).
		Namespace(Namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, "" // nothing was ever delivered
	case apierrors.IsForbidden(err):
		return nil, unseen + "you may not read ConfigMap " + Namespace + "/" + name
	case err != nil:
		return nil, unseen + err.Error()
	}
	raw, _, err := unstructured.NestedString(held.Object, "data", InventoryKey)
	if err != nil {
		return nil, unseen + err.Error()
	}
	have, err := delivery.DecodeInventory([]byte(raw))
	if err != nil {
		return nil, unseen + err.Error()
	}
	ids := make([]delivery.ObjectID, len(objects))
	for i, o := range objects {
		ids[i] = delivery.IDOf(o)
	}
	next := have.Next(delivery.Release{Rollout: c.release.Rollout, Objects: objects, Prune: c.release.Prune}, ids)
	remove, kept := next.Prunable(c.release.Prune)
	var out []preview.ObjectDiff
	for _, id := range remove {
		if d := c.removal(ctx, id); d != nil {
			out = append(out, *d)
		}
	}
	notes := ""
	for _, k := range kept {
		if notes == "" {
			notes = "left in place, no longer in the payload: "
		} else {
			notes += ", "
		}
		notes += k.Object.String()
	}
	return out, notes
}

// removal of one object; nil where it is gone already.
func (c *cluster) removal(ctx context.Context, id delivery.ObjectID) *preview.ObjectDiff {
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(schema.GroupVersionKind{Group: id.Group, Version: id.Version, Kind: id.Kind})
	o.SetNamespace(id.Namespace)
	o.SetName(id.Name)
	resource, err := c.resource(o)
	if err == nil && resource != nil {
		live, err := resource.Get(ctx, id.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err == nil && live.GetLabels()[v1alpha1.LabelRolloutName] != c.release.Rollout.Name {
			return nil // no longer the rollout's: it is left in place
		}
		if err == nil {
			tidy(live)
			unstructured.RemoveNestedField(live.Object, "status")
			o = live
		}
	}
	d, _ := preview.CompareObject(o, nil)
	return &d
}
