// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fluxcd/pkg/ssa"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/delivery"
)

// Waits for what the server does in its own time after a definition was written.
const (
	servedLimit    = 30 * time.Second
	schemaLimit    = 3 * time.Second
	servedInterval = 100 * time.Millisecond
)

// Deliver applies and prunes. What can be known to fail is found out by dry-runs before the first write. The inventory
// is written before the objects and shrunk after pruning, so a delivery that ends anywhere is completed by the next;
// one that has to wait for a wave ends there and says so. A release that is there already causes no write at all.
func (c *Cluster) Deliver(ctx context.Context, r delivery.Release) (delivery.Outcome, error) {
	s, err := c.open(ctx, r)
	if err != nil {
		return delivery.Outcome{}, err
	}
	before, err := c.inventory(ctx, s.conn, r.Rollout)
	if err != nil {
		return delivery.Outcome{}, err
	}
	s.before = before.Inventory
	outcome := delivery.Outcome{Objects: before.Total()}
	if err := before.GuardPrune(r, s.ids()); err != nil {
		return outcome, err
	}
	if err := s.rehearse(ctx); err != nil {
		return outcome, s.better(ctx, err)
	}
	have, err := s.keep(ctx, before, s.next())
	if err != nil {
		return outcome, err
	}
	outcome.Objects = have.Total()
	outcome.Changes, outcome.Waiting, err = s.apply(ctx, have.Pending)
	if err != nil || outcome.Waiting != "" {
		return outcome, err
	}
	have, pruned, err := s.prune(ctx, have)
	outcome.Changes = append(outcome.Changes, pruned...)
	outcome.Objects = have.Total()
	return outcome, err
}

// keep writes the inventory if it changes, behind the fence.
func (s *session) keep(ctx context.Context, before stored, next delivery.Inventory) (stored, error) {
	raw, err := next.Encode()
	if err != nil {
		return before, err
	}
	if before.version != "" && string(raw) == string(before.raw) {
		return before, nil
	}
	if err := s.fence(ctx); err != nil {
		return before, fmt.Errorf("stopped before the inventory: %w", errors.Unwrap(err))
	}
	return s.cluster.keep(ctx, s.conn, before, next)
}

// next is the inventory to write before the first object.
func (s *session) next() delivery.Inventory {
	next := s.before.Next(s.release, s.ids())
	next.Pending = next.Pending && len(s.waves) > 1
	next.Done = s.completed()
	return next
}

// rehearse has the server judge every object of every wave before one is written. Left out are those that cannot be
// judged yet, because the payload itself brings what they need: their kind, or a newer version of it, their namespace,
// and a webhook of an earlier wave. They are rehearsed when that is there, before the rest of their stage is written.
func (s *session) rehearse(ctx context.Context) error {
	for n, wave := range s.waves {
		for _, stage := range delivery.Stages(wave.Items, idOf) {
			now := slices.DeleteFunc(stage, s.needsUnwritten)
			err := s.each(ctx, now, func(ctx context.Context, it *item) error {
				err := s.try(ctx, it)
				if n > 0 && isWebhookAway(err) {
					return nil
				}
				return err
			})
			if err != nil {
				return err
			}
		}
	}
	var unwritten []*item
	for _, it := range s.items {
		if it.live == nil && it.action != delivery.Unchanged && !slices.ContainsFunc(s.before.Objects, it.id.Same) {
			unwritten = append(unwritten, it)
		}
	}
	return s.checkClaims(ctx, unwritten)
}

func idOf(it *item) delivery.ObjectID { return it.id }

// better is a better reason than Forbidden, if there is one: in a namespace that does not exist nobody has rights.
func (s *session) better(ctx context.Context, err error) error {
	if fleet.ReasonOf(err, "") != v1alpha1.ReasonForbidden {
		return err
	}
	if missing := s.checkNamespaces(ctx); fleet.ReasonOf(missing, "") == v1alpha1.ReasonNamespaceMissing {
		return missing
	}
	return err
}

// needsUnwritten: the item lives in what the payload brings and the cluster does not have as the payload has it.
func (s *session) needsUnwritten(it *item) bool {
	if crd := s.kinds[it.object.GroupVersionKind().GroupKind()]; crd != nil && crd.action != delivery.Unchanged {
		return true
	}
	namespace := s.namespaces[it.id.Namespace]
	return it.resource == "" || namespace != nil && namespace.action == delivery.Created
}

// each does something for all items, a few at a time, and returns the error of the first in the order of applying.
// One that the server did not give a verdict on goes before the others: it says nothing about the payload.
func (s *session) each(ctx context.Context, items []*item, do func(context.Context, *item) error) error {
	failed := make([]error, len(items))
	var g errgroup.Group
	g.SetLimit(concurrency)
	for n, it := range items {
		g.Go(func() error {
			err := do(ctx, it)
			if isUnservedKind(err) {
				s.cluster.forget(s.conn)
			}
			failed[n] = explain(err, it.id, s.as)
			return nil
		})
	}
	_ = g.Wait()
	var first error
	others := -1
	for _, err := range failed {
		if err == nil {
			continue
		}
		others++
		if first == nil || fleet.KindOf(err) == fleet.Retryable && fleet.KindOf(first) != fleet.Retryable {
			first = err
		}
	}
	var known *fleet.Error
	if others > 0 && errors.As(first, &known) {
		more := *known
		more.Err = fmt.Errorf("%w; and %d more of %d objects", known.Err, others, len(items))
		return &more
	}
	return first
}

// try asks the server what applying the item would do, and lets pass what only waits for another of the payload:
// a RoleBinding is judged by the Role that it names.
func (s *session) try(ctx context.Context, it *item) error {
	g := &gate{Client: s.client, session: s, item: it}
	entry, _, _, err := s.manager(g).Diff(ctx, it.object, ssa.DefaultDiffOptions())
	switch {
	case g.refusal == nil && it.live == nil && s.wasDone(it):
		it.action, it.done = delivery.Unchanged, true
		return nil
	case err == nil:
		it.action = actionOf(entry)
		it.done = it.action == delivery.Unchanged && it.id.IsJob() && isTrue(it.live, "Complete")
		return nil
	case it.recreate && it.live != nil && isImmutable(err, err.Error()):
		it.action = delivery.Recreated
		return s.rehearseAnew(ctx, it)
	case s.bringsMissing(err, it):
		return nil
	}
	return err
}

func (s *session) manager(g *gate) *ssa.ResourceManager {
	owner := ssa.Owner{Field: s.cluster.fieldOwner(), Group: v1alpha1.GroupVersion.Group}
	return ssa.NewResourceManager(g, nil, owner)
}

func actionOf(entry *ssa.ChangeSetEntry) delivery.Action {
	switch entry.Action {
	case ssa.CreatedAction:
		return delivery.Created
	case ssa.ConfiguredAction:
		return delivery.Configured
	}
	return delivery.Unchanged
}

// bringsMissing: what the server misses to judge an item is another one of the payload.
func (s *session) bringsMissing(err error, about *item) bool {
	resource, name := missingName(err)
	if name == "" {
		return false
	}
	if resource == about.resource && name == about.id.Name {
		// So it answers to a binding whose role is not there.
		kind, _, _ := unstructured.NestedString(about.object.Object, "roleRef", "kind")
		role, _, _ := unstructured.NestedString(about.object.Object, "roleRef", "name")
		return slices.ContainsFunc(s.items, func(it *item) bool {
			return it.id.Group == about.id.Group && it.id.Kind == kind && it.id.Name == role && isWithin(it, about)
		})
	}
	return slices.ContainsFunc(s.items, func(it *item) bool {
		return it.resource == resource && it.id.Name == name && isWithin(it, about)
	})
}

// isWithin: the item may be meant by a name in the other.
func isWithin(it, about *item) bool {
	return it.id.Namespace == "" || it.id.Namespace == about.id.Namespace
}

// enter makes sure that a stage can be written: nothing overtook the release, what earlier stages brought is served,
// and what could not be rehearsed before is rehearsed now.
func (s *session) enter(ctx context.Context, stage []*item) error {
	var late []*item
	work := false
	for _, it := range stage {
		work = work || it.action != delivery.Unchanged
		if it.action == unknown {
			late = append(late, it)
		}
	}
	if !work {
		return nil
	}
	if err := s.fence(ctx); err != nil {
		return explain(err, stage[0].id, s.as)
	}
	if len(late) == 0 {
		return nil
	}
	if err := s.awaitDefinitions(ctx); err != nil {
		return err
	}
	return s.each(ctx, late, func(ctx context.Context, it *item) error {
		return s.patiently(ctx, it, func(ctx context.Context) error { return s.try(ctx, it) })
	})
}

// patiently repeats what fails because the server has not taken in a definition that was written a moment ago.
func (s *session) patiently(ctx context.Context, it *item, do func(context.Context) error) error {
	if s.kinds[it.object.GroupVersionKind().GroupKind()] == nil {
		return do(ctx)
	}
	var last error
	err := wait.PollUntilContextTimeout(ctx, servedInterval, schemaLimit, true, func(context.Context) (bool, error) {
		err := do(ctx)
		if err == nil {
			return true, nil
		}
		last = err
		switch fleet.ReasonOf(explain(err, it.id, s.as), "") {
		case v1alpha1.ReasonUnknownKind, v1alpha1.ReasonInvalidManifest:
			return false, nil
		}
		return false, err
	})
	if err != nil && last != nil {
		return last
	}
	return err
}

// awaitDefinitions waits until the payload's kinds that are written are established, and its namespaces active.
func (s *session) awaitDefinitions(ctx context.Context) error {
	for _, it := range s.items {
		if !it.written {
			continue
		}
		var ready func(*unstructured.Unstructured) bool
		switch it {
		case s.kinds[delivery.DefinedKind(it.object)]:
			ready = isEstablished
		case s.namespaces[it.id.Name]:
			ready = isActive
		default:
			continue
		}
		if err := s.await(ctx, it, ready); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) await(ctx context.Context, it *item, ready func(*unstructured.Unstructured) bool) error {
	found := &unstructured.Unstructured{}
	err := wait.PollUntilContextTimeout(ctx, servedInterval, servedLimit, true, func(ctx context.Context) (bool, error) {
		found.SetGroupVersionKind(it.object.GroupVersionKind())
		if err := s.client.Get(ctx, client.ObjectKeyFromObject(it.object), found); err != nil {
			return false, err
		}
		return ready(found), nil
	})
	if wait.Interrupted(err) && ctx.Err() == nil {
		return &fleet.Error{
			Kind: fleet.Retryable, Reason: v1alpha1.ReasonApplyFailed,
			Err: fmt.Errorf("%s is applied and was not ready after %s%s", it.id, servedLimit, refusalOf(found)),
		}
	}
	return explain(err, it.id, s.as)
}

func isActive(namespace *unstructured.Unstructured) bool {
	phase, _, _ := unstructured.NestedString(namespace.Object, "status", "phase")
	return phase == "Active"
}

func isEstablished(crd *unstructured.Unstructured) bool {
	return conditionOf(crd, "Established")["status"] == "True"
}

// refusalOf is why the server does not serve a kind: its names may be taken.
func refusalOf(crd *unstructured.Unstructured) string {
	names := conditionOf(crd, "NamesAccepted")
	if names["status"] != "False" {
		return ""
	}
	return fmt.Sprintf(": %v", names["message"])
}

func conditionOf(o *unstructured.Unstructured, kind string) map[string]any {
	conditions, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	for _, c := range conditions {
		if m, ok := c.(map[string]any); ok && m["type"] == kind {
			return m
		}
	}
	return nil
}

// write applies one item. It says what it waits for where the object that was there is still on its way out.
func (s *session) write(ctx context.Context, it *item) (waiting string, err error) {
	anew := it.action == delivery.Recreated
	if anew {
		gone, err := s.makeRoom(ctx, it)
		if err != nil {
			return "", explain(err, it.id, s.as)
		}
		if !gone {
			return it.id.String() + ": is being deleted, to be made anew", nil
		}
	}
	g := &gate{Client: s.client, session: s, item: it}
	err = s.patiently(ctx, it, func(ctx context.Context) error {
		entry, err := s.manager(g).Apply(ctx, it.object, ssa.ApplyOptions{})
		if err == nil {
			it.action = actionOf(entry)
		}
		return err
	})
	if err == nil && anew {
		it.action = delivery.Recreated
	}
	return "", explain(err, it.id, s.as)
}
