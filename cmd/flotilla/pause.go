// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/cmd/internal/readapi"
)

func (a *app) pauseCommand() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use:   "pause NAME --reason WHY",
		Short: "Let nobody start anything new of a rollout",
		Long: `Stop a rollout in the whole fleet, from whichever member your kubeconfig points at: no cluster starts
anything new of it, whatever is committed. What has started goes on, and what runs is still healed.

The stop is an annotation on that member's copy of the rollout; resume lifts it there.`,
		Example: `  flotilla pause web -n apps --reason "latency is up"`,
		Args:    args(1, 1, "the name of one rollout"),
		RunE: func(c *cobra.Command, names []string) error {
			if strings.TrimSpace(reason) == "" {
				return usage("say why: --reason \"...\"; everybody who looks at the rollout will see it")
			}
			return a.runPause(c.Context(), names[0], reason)
		},
		ValidArgsFunction: a.completeRollouts(1),
	}
	c.Flags().StringVar(&reason, "reason", "", "why, for everybody who wonders")
	return c
}

func (a *app) resumeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "resume NAME",
		Short: "Lift the stop that pause set on this member",
		Long: `Lift the stop that was set on the member your kubeconfig points at. Where others hold the rollout too,
it says who, and ends with exit code 1: only they can lift theirs.`,
		Example: `  flotilla resume web -n apps`,
		Args:    args(1, 1, "the name of one rollout"),
		RunE:    func(c *cobra.Command, names []string) error { return a.runResume(c.Context(), names[0]) },

		ValidArgsFunction: a.completeRollouts(1),
	}
}

func (a *app) runPause(ctx context.Context, name, reason string) error {
	ctx, cancel := a.soon(ctx)
	defer cancel()
	rollouts, full, err := a.rolloutsHere(name)
	if err != nil {
		return err
	}
	held, paused, err := a.pausedHere(ctx, rollouts, full)
	switch {
	case err != nil:
		return err
	case paused:
		fmt.Fprintf(a.Out, "%s is paused here already: %q\n", full, held)
		return nil
	}
	if err := annotate(ctx, rollouts, name, &reason); err != nil {
		return apiError("rollout "+full.String(), err)
	}
	fmt.Fprintf(a.Out, "%s paused: nobody starts anything new, what runs is still healed\n", full)
	fmt.Fprintf(a.Out, "to lift it: %s resume %s -n %s, with this kubeconfig\n", a.name, name, full.Namespace)
	return nil
}

func (a *app) runResume(ctx context.Context, name string) error {
	ctx, cancel := a.soon(ctx)
	defer cancel()
	rollouts, full, err := a.rolloutsHere(name)
	if err != nil {
		return err
	}
	_, paused, err := a.pausedHere(ctx, rollouts, full)
	if err != nil {
		return err
	}
	if paused {
		if err := annotate(ctx, rollouts, name, nil); err != nil {
			return apiError("rollout "+full.String(), err)
		}
		fmt.Fprintf(a.Out, "%s resumed: the stop of this member is lifted\n", full)
	}
	others, err := a.otherStops(ctx, full)
	switch {
	case err != nil:
		fmt.Fprintf(a.ErrOut, "note: whether others hold it too is not known: %v\n", err)
	case len(others) > 0:
		return stillHeld(full, others)
	case !paused:
		fmt.Fprintf(a.Out, "%s is not paused\n", full)
	}
	return nil
}

// rolloutsHere are the namespace's rollouts on the member that the kubeconfig points at.
func (a *app) rolloutsHere(name string) (dynamic.ResourceInterface, fleet.RolloutName, error) {
	ns, err := a.namespace()
	if err != nil {
		return nil, fleet.RolloutName{}, err
	}
	client, err := a.kube()
	if err != nil {
		return nil, fleet.RolloutName{}, err
	}
	return client.Resource(resource("fleetrollouts")).Namespace(ns), fleet.RolloutName{Namespace: ns, Name: name}, nil
}

func (a *app) pausedHere(ctx context.Context, rollouts dynamic.ResourceInterface, name fleet.RolloutName) (reason string, paused bool, err error) {
	found, err := a.getRollout(ctx, rollouts, name.Namespace, name.Name)
	if err != nil {
		return "", false, err
	}
	reason, paused = found.GetAnnotations()[v1alpha1.AnnotationPause]
	return reason, paused, nil
}

// annotate with a reason, or take the annotation off where it is nil.
func annotate(ctx context.Context, rollouts dynamic.ResourceInterface, name string, reason *string) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]*string{v1alpha1.AnnotationPause: reason}}})
	if err != nil {
		return err
	}
	_, err = rollouts.Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: "flotilla-cli"})
	return err
}

// otherStops are those in force that this member's annotation does not hold.
func (a *app) otherStops(ctx context.Context, name fleet.RolloutName) ([]string, error) {
	agent, err := a.agent(ctx)
	if err != nil {
		return nil, err
	}
	r, err := agent.Rollout(ctx, name)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, stop := range r.Stops {
		if stop.By != r.SeenFrom { // this member's own: the agent is about to lift it
			out = append(out, heldBy(stop))
		}
	}
	if c := r.Condition(v1alpha1.ConditionReady); c.Reason == v1alpha1.ReasonSuspended {
		out = append(out, fmt.Sprintf("suspended by spec.suspend where it is written (%s): set it to false there", orElse(r.Origin, "its home")))
	}
	return out, nil
}

func heldBy(stop readapi.Stop) string {
	why := ""
	if stop.Reason != "" {
		why = fmt.Sprintf(" (%q)", stop.Reason)
	}
	return fmt.Sprintf("paused by %s%s: resume it there", stop.By, why)
}

func stillHeld(name fleet.RolloutName, others []string) error {
	var lines []error
	for _, o := range others {
		lines = append(lines, fmt.Errorf("%s is still %s", name, o))
	}
	return errors.Join(lines...)
}
