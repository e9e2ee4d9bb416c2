// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

func (a *app) reconcileCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "reconcile ROLLOUT",
		Short: "Look at a rollout's source now, not when it is due",
		Long: `Let the member your kubeconfig points at look at a rollout's source now. The others hear of what it
finds, and look at once. Nothing starts sooner than its stage lets it: this only asks what is new.

The request is an annotation on that member's copy of the rollout.`,
		Example: `  flotilla reconcile web -n apps

  # after a push: look, and follow it
  flotilla reconcile web && flotilla watch web --revision $(git rev-parse HEAD)`,
		Args:              args(1, 1, "the name of one rollout"),
		RunE:              func(c *cobra.Command, names []string) error { return a.runReconcile(c.Context(), names[0]) },
		ValidArgsFunction: a.completeRollouts(1),
	}
}

func (a *app) runReconcile(ctx context.Context, name string) error {
	ctx, cancel := a.soon(ctx)
	defer cancel()
	rollouts, full, err := a.rolloutsHere(name)
	if err != nil {
		return err
	}
	// Each value is one request.
	asked := a.now().UTC().Format(time.RFC3339Nano)
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{v1alpha1.AnnotationReconcile: asked}}})
	if err != nil {
		return err
	}
	_, err = rollouts.Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: "flotilla-cli"})
	switch {
	case isMissing(err):
		return a.noRollout(ctx, fmt.Sprintf("rollout %s: not found", full), full.Namespace, full.Name)
	case err != nil:
		return apiError("rollout "+full.String(), err)
	}
	fmt.Fprintf(a.Out, "%s: this member looks at the source now, and tells the others what it finds\n", full)
	return nil
}
