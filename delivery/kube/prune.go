// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/delivery"
)

// prune deletes what is left and may go, and shrinks the inventory by it: the release has come to its end. What the server refuses to delete stays in
// the inventory and is tried again with the next release; the delivery has not failed by it.
func (s *session) prune(ctx context.Context, have stored) (stored, []delivery.Change, error) {
	remove, changes := have.Prunable(s.release.Prune)
	var gone []delivery.ObjectID
	for _, id := range remove {
		change, err := s.remove(ctx, id)
		if err != nil {
			// What is gone is found to be gone the next time: the inventory may wait.
			return have, changes, err
		}
		changes = append(changes, change.Change)
		if change.gone {
			gone = append(gone, id)
		}
	}
	next := have.Without(gone)
	next.Pending, next.Done = false, s.completed()
	kept, err := s.keep(ctx, have, next)
	return kept, changes, err
}

// removal is what became of an object, and whether it is no longer the rollout's.
type removal struct {
	delivery.Change
	gone bool
}

func (s *session) remove(ctx context.Context, id delivery.ObjectID) (removal, error) {
	kind, err := s.conn.servedKind(id)
	if meta.IsNoMatchError(err) {
		return removal{delivery.Change{Object: id, Action: delivery.Pruned, Why: "its kind is gone, and all objects of it"}, true}, nil
	}
	if err != nil {
		return removal{}, explain(err, id, s.as)
	}
	result := removal{delivery.Change{Object: id, Action: delivery.Pruned}, true}
	err = retry.RetryOnConflict(retry.DefaultRetry, func() error {
		mine, err := s.removeOnce(ctx, id, kind)
		if err == nil && !mine {
			result = removal{delivery.Change{Object: id, Action: delivery.Kept, Why: "it no longer carries this rollout's labels"}, true}
		}
		return err
	})
	if err == nil {
		return result, nil
	}
	explained := explain(err, id, s.as)
	if fleet.KindOf(explained) == fleet.Retryable || errors.As(err, new(fenceError)) {
		return removal{}, explained
	}
	return removal{delivery.Change{Object: id, Action: delivery.Kept, Why: fmt.Sprintf("deleting was refused: %v", explained)}, false}, nil
}

// removeOnce deletes the object that was looked at and no other. It reports whether it was the rollout's.
func (s *session) removeOnce(ctx context.Context, id delivery.ObjectID, kind schema.GroupVersionKind) (mine bool, err error) {
	found := partial(kind)
	err = s.client.Get(ctx, client.ObjectKey{Namespace: id.Namespace, Name: id.Name}, found)
	if apierrors.IsNotFound(err) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	for key, value := range ownerLabels(s.release.Rollout) {
		if found.Labels[key] != value {
			return false, nil
		}
	}
	if found.DeletionTimestamp != nil {
		return true, nil
	}
	if err := s.fence(ctx); err != nil {
		return false, err
	}
	uid, version := found.UID, found.ResourceVersion
	return true, client.IgnoreNotFound(s.client.Delete(ctx, found,
		client.PropagationPolicy(metav1.DeletePropagationBackground),
		client.Preconditions{UID: &uid, ResourceVersion: &version}))
}

// servedKind is the object's kind in a version that the server has: the one it was applied in may be gone.
func (conn *connection) servedKind(id delivery.ObjectID) (schema.GroupVersionKind, error) {
	kind := schema.GroupKind{Group: id.Group, Kind: id.Kind}
	mapping, err := conn.kinds.RESTMapping(kind, id.Version)
	if meta.IsNoMatchError(err) {
		mapping, err = conn.kinds.RESTMapping(kind)
	}
	if err != nil {
		return schema.GroupVersionKind{}, err
	}
	return mapping.GroupVersionKind, nil
}
