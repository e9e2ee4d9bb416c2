// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/delivery"
)

// Check says whether the release could be delivered, and writes nothing: the service account and every namespace are
// there or in the payload, the kinds are known, the prune guard holds, the inventory fits, and no object belongs to
// another rollout. Objects that the rollout has already are not asked for again.
func (c *Cluster) Check(ctx context.Context, r delivery.Release) error {
	s, err := c.open(ctx, r)
	if err != nil {
		return err
	}
	if err := s.checkNamespaces(ctx); err != nil {
		return err
	}
	before, err := c.inventory(ctx, s.conn, r.Rollout)
	if err != nil {
		return err
	}
	if err := before.GuardPrune(r, s.ids()); err != nil {
		return err
	}
	if _, err := before.Next(r, s.ids()).Encode(); err != nil {
		return err
	}
	return s.checkOwners(ctx, before.Inventory)
}

// checkNamespaces asks for each namespace that the payload uses and does not bring.
func (s *session) checkNamespaces(ctx context.Context) error {
	asked := map[string]bool{"": true}
	for _, it := range s.items {
		name := it.id.Namespace
		if asked[name] || s.namespaces[name] != nil {
			continue
		}
		asked[name] = true
		found := partial(corev1.SchemeGroupVersion.WithKind("Namespace"))
		err := s.conn.own.Get(ctx, client.ObjectKey{Name: name}, found)
		switch {
		case apierrors.IsNotFound(err):
			return namespaceMissing(name, s.as)
		case err != nil:
			return s.cluster.ownError(err, "read namespace "+name)
		case found.DeletionTimestamp != nil:
			return &fleet.Error{
				Kind: fleet.Retryable, Reason: v1alpha1.ReasonNamespaceMissing,
				Err: fmt.Errorf("namespace %s is being deleted", name),
			}
		}
	}
	return nil
}

// checkOwners asks whose the objects are that this rollout does not have yet.
func (s *session) checkOwners(ctx context.Context, have delivery.Inventory) error {
	known := make(map[delivery.ObjectID]bool, len(have.Objects))
	for _, id := range have.Objects {
		known[id] = true
	}
	var unknown, unasked []*item
	for _, it := range s.items {
		if known[it.id] {
			continue
		}
		unknown = append(unknown, it)
		if it.resource != "" {
			unasked = append(unasked, it)
		}
	}
	err := s.each(ctx, unasked, func(ctx context.Context, it *item) error {
		found := partial(it.object.GroupVersionKind())
		err := s.client.Get(ctx, client.ObjectKeyFromObject(it.object), found)
		if err == nil {
			return s.ownedByOther(ctx, found.Labels, it.id)
		}
		return client.IgnoreNotFound(err)
	})
	if err != nil {
		return err
	}
	return s.checkClaims(ctx, unknown)
}
