// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/fluxcd/pkg/ssa"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// goneLimit is how long one delivery waits for a deleted object to go. What takes longer is for the next one.
const goneLimit = 3 * time.Second

// rehearseAnew asks the server whether the object could be deleted, and whether it would take the new one: deleted for
// one that is refused, it would be lost.
func (s *session) rehearseAnew(ctx context.Context, it *item) error {
	if it.live.GetDeletionTimestamp() == nil {
		if err := s.client.Delete(ctx, it.live.DeepCopy(), s.precisely(it), client.DryRunAll); err != nil {
			return fmt.Errorf("delete, to make it anew: %w", err)
		}
	}
	// The name is taken until then, so the question is asked about another one.
	other := *it
	other.object = it.object.DeepCopy()
	base := strings.TrimRight(it.id.Name[:min(len(it.id.Name), 40)], "-.")
	other.object.SetName(base + "-" + fleet.DigestOf("flotilla.dev/rehearsal", []byte(it.id.Name)).Short())
	g := &gate{Client: s.client, session: s, item: &other}
	_, _, _, err := s.manager(g).Diff(ctx, other.object, ssa.DefaultDiffOptions())
	if err == nil || s.bringsMissing(err, &other) || isOfTheOther(err) {
		return nil
	}
	return err
}

// isOfTheOther: refused because the object that is to be deleted holds what only one can have, or counts against a quota.
func isOfTheOther(err error) bool {
	words := err.Error()
	return strings.Contains(words, "already allocated") || strings.Contains(words, "exceeded quota")
}

// precisely the object that was looked at is deleted. What runs pods goes when they are gone, so that old and new never
// run at once.
func (s *session) precisely(it *item) *client.DeleteOptions {
	uid, how := it.live.GetUID(), metav1.DeletePropagationBackground
	if it.id.Group == "apps" || it.id.Group == "batch" {
		how = metav1.DeletePropagationForeground
	}
	return &client.DeleteOptions{PropagationPolicy: &how, Preconditions: &metav1.Preconditions{UID: &uid}}
}

// makeRoom deletes an object that has to be made anew, behind the fence, and reports whether it is gone.
func (s *session) makeRoom(ctx context.Context, it *item) (gone bool, err error) {
	found := partial(it.object.GroupVersionKind())
	key := client.ObjectKeyFromObject(it.object)
	if err := s.client.Get(ctx, key, found); err != nil {
		return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
	}
	if err := s.ownedByOther(ctx, found.Labels, it.id); err != nil {
		return false, err
	}
	old := it.live.GetUID()
	if found.UID != old {
		return false, &fleet.Error{
			Kind: fleet.Retryable, Reason: v1alpha1.ReasonApplyFailed,
			Err: fmt.Errorf("%s: somebody made it anew in the meantime", it.id),
		}
	}
	if found.DeletionTimestamp == nil {
		if err := s.fence(ctx); err != nil {
			return false, err
		}
		if err := s.client.Delete(ctx, found, s.precisely(it)); client.IgnoreNotFound(err) != nil {
			return false, err
		}
	}
	err = wait.PollUntilContextTimeout(ctx, servedInterval, goneLimit, true, func(ctx context.Context) (bool, error) {
		err := s.client.Get(ctx, key, found)
		return apierrors.IsNotFound(err) || err == nil && found.UID != old, client.IgnoreNotFound(err)
	})
	if wait.Interrupted(err) && ctx.Err() == nil {
		return false, nil
	}
	return err == nil, err
}
