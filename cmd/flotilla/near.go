// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/cmd/internal/readapi"
)

// mostListed names are looked through for one that was meant.
const mostListed = 1000

// mostNear names that a hint gives.
const mostNear = 3

// noRollout says what may have been meant: the same name elsewhere, or a name like it.
func (a *app) noRollout(ctx context.Context, what, ns, name string) error {
	hint := a.name + " get rollouts -A lists all"
	all, _ := a.rolloutNames(ctx, true) // a hint that cannot be given is left out
	if len(all) == 0 {
		all, _ = a.rolloutNames(ctx, false)
	}
	var elsewhere, here []string
	for _, n := range all {
		switch {
		case n.Name == name && n.Namespace != ns:
			elsewhere = append(elsewhere, n.Namespace)
		case n.Namespace == ns:
			here = append(here, n.Name)
		}
	}
	slices.Sort(elsewhere)
	near := nearest(name, here)
	switch {
	case len(elsewhere) == 1:
		hint = fmt.Sprintf("there is one in namespace %s: say -n %s", elsewhere[0], elsewhere[0])
	case len(elsewhere) > 1:
		hint = fmt.Sprintf("there are %d, in namespaces %s: say with -n which one", len(elsewhere), someOf(elsewhere))
	case len(near) > 0:
		hint = "did you mean " + strings.Join(near, " or ") + "?"
	}
	return errors.New(what + " (" + hint + ")")
}

// agentError says what may have been meant by a rollout that the agent does not know.
func (a *app) agentError(ctx context.Context, name fleet.RolloutName, err error) error {
	var status *readapi.StatusError
	if !readapi.IsNotFound(err) || !errors.As(err, &status) || !strings.Contains(status.Problem.Error, "is not known to member") {
		return err
	}
	return a.noRollout(ctx, status.Problem.Error, name.Namespace, name.Name)
}

// rolloutNames of one namespace, or of all.
func (a *app) rolloutNames(ctx context.Context, all bool) ([]fleet.RolloutName, error) {
	rollouts, _, err := a.rolloutsIn(all)
	if err != nil {
		return nil, err
	}
	list, err := rollouts.List(ctx, metav1.ListOptions{Limit: mostListed})
	if err != nil {
		return nil, err
	}
	var out []fleet.RolloutName
	for i := range list.Items {
		out = append(out, fleet.RolloutName{Namespace: list.Items[i].GetNamespace(), Name: list.Items[i].GetName()})
	}
	return out, nil
}

func someOf(names []string) string {
	if more := len(names) - mostNear; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:mostNear], ", "), more)
	}
	return strings.Join(names, ", ")
}

// nearest of the names to one that is none of them, the nearest first.
func nearest(name string, names []string) []string {
	far := max(1, len(name)/3)
	distances := map[string]int{}
	for _, n := range names {
		if n == name {
			continue
		}
		d := fleet.Slips(name, n)
		if strings.HasPrefix(n, name) && name != "" {
			d = min(d, far)
		}
		if d <= far {
			distances[n] = d
		}
	}
	out := make([]string, 0, len(distances))
	for n := range distances {
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b string) int {
		return cmp.Or(cmp.Compare(distances[a], distances[b]), strings.Compare(a, b))
	})
	return out[:min(len(out), mostNear)]
}
