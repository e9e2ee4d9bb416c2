// SPDX-License-Identifier: Apache-2.0

// Package delivery answers: how do these objects get into this cluster, and are they well?
//
// A [Deliverer] applies one manifest under one service account, keeps an inventory of what it
// applied, prunes what is no longer in it, and reads health. What can be decided without a
// cluster is decided here, purely; delivery/kube does the I/O.
//
// An object may name its wave in the annotation fleet.flotilla.dev/wave. A wave is applied when everything of all lower
// ones is ready; within a wave, what others need comes first. Nothing is pruned before the last wave is applied.
package delivery

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// Release is what is delivered: one rendered manifest of one rollout.
type Release struct {
	Rollout fleet.RolloutName
	// Plan and Revision it comes from, for labels, events and messages.
	Plan     fleet.Digest
	Revision fleet.Revision
	// Digest of the manifest.
	Digest  fleet.Digest
	Objects []*unstructured.Unstructured
	// ServiceAccount in the rollout's namespace that every write is made as.
	ServiceAccount string
	// Prune what the inventory has and Objects has not.
	Prune bool
	// MaxPruneObjects and MaxPrunePercent: a release that would prune more than both is refused (R12).
	MaxPruneObjects, MaxPrunePercent int
	// Recheck is how long what was found of it may be relied on while all of its objects are watched; 0 relies on nothing.
	Recheck time.Duration
	// Fence is asked before each write; an error stops the delivery there. It is how a release that has
	// been overtaken stops writing (R6).
	Fence func(context.Context) error
}

// ObjectID names one object of a cluster.
type ObjectID struct {
	Group     string `json:"group,omitempty"`
	Version   string `json:"version"`
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

// String is Kind namespace/name, as messages word it.
func (o ObjectID) String() string {
	if o.Namespace == "" {
		return fmt.Sprintf("%s %s", o.Kind, o.Name)
	}
	return fmt.Sprintf("%s %s/%s", o.Kind, o.Namespace, o.Name)
}

// Action that was taken on an object.
type Action string

// The actions.
const (
	Created    Action = "created"
	Configured Action = "configured"
	Unchanged  Action = "unchanged"
	Pruned     Action = "pruned"
	// Recreated: deleted and made again, because it differed in what cannot be changed in place and asks for that.
	Recreated Action = "recreated"
	// Kept: no longer in the manifest, and left in place (its kind is never pruned, or deleting was refused).
	Kept Action = "kept"
)

// Change is what was done to one object.
type Change struct {
	Object ObjectID
	Action Action
	// Why, where it needs saying.
	Why string
}

// Outcome of a delivery: one change per object that was looked at.
type Outcome struct {
	Changes []Change
	// Objects in the inventory afterwards.
	Objects int
	// Waiting says what the delivery waits for before it goes on; the next Deliver goes on. Empty: it came to its end.
	Waiting string
}

// Changed says whether anything was written.
func (o Outcome) Changed() bool {
	for _, c := range o.Changes {
		if c.Action != Unchanged && c.Action != Kept {
			return true
		}
	}
	return false
}

// Summary counts the changes in words: "2 created, 1 unchanged".
func (o Outcome) Summary() string {
	counts := map[Action]int{}
	for _, c := range o.Changes {
		counts[c.Action]++
	}
	var parts []string
	for _, a := range []Action{Created, Configured, Recreated, Unchanged, Pruned, Kept} {
		if n := counts[a]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, a))
		}
	}
	if len(parts) == 0 {
		return "nothing to do"
	}
	return strings.Join(parts, ", ")
}

// Health of everything a rollout has in a cluster.
type Health struct {
	State HealthState
	// Ready of Total objects are as they should be.
	Ready, Total int
	// Because names the first objects that are not, in the cluster's words.
	Because string
	// Objects one by one, in the inventory's order.
	Objects []ObjectHealth
}

// ObjectHealth is how one object is.
type ObjectHealth struct {
	Object ObjectID
	State  HealthState
	// Because says in the cluster's words what is not as it should be; empty when healthy.
	Because string
	// Missing: it is not there.
	Missing bool
}

// maxNamed objects in Health.Because.
const maxNamed = 2

// Sum makes one health of many objects'. Those that failed are named first, those that are missing last: of a release
// that waits for a wave, all of the later ones are.
func Sum(objects []ObjectHealth) Health {
	health := Health{State: Healthy, Total: len(objects), Objects: objects}
	var failed, progressing, missing []string
	for _, o := range objects {
		words := o.Object.String() + ": " + o.Because
		switch {
		case o.State == Healthy:
			health.Ready++
		case o.State == Failed:
			failed = append(failed, words)
		case o.Missing:
			missing = append(missing, words)
		default:
			progressing = append(progressing, words)
		}
	}
	switch {
	case len(failed) > 0:
		health.State = Failed
	case len(progressing)+len(missing) > 0:
		health.State = Progressing
	}
	named := slices.Concat(failed, progressing, missing)
	health.Because = strings.Join(named[:min(len(named), maxNamed)], "; ")
	if more := len(named) - maxNamed; more > 0 {
		health.Because += fmt.Sprintf("; and %d more", more)
	}
	return health
}

// HealthState in kstatus's words.
type HealthState uint8

const (
	// Progressing: not there yet; nothing says that it will not be.
	Progressing HealthState = iota
	// Healthy: every object is current.
	Healthy
	// Failed: an object says that it will not get there by itself.
	Failed
)

func (s HealthState) String() string { return [...]string{"progressing", "healthy", "failed"}[s] }

// Deliverer brings releases into one cluster. Errors are fleet.Errors with a reason of the condition Applied.
type Deliverer interface {
	// Check says whether the release could be delivered, before anything is promised or written:
	// the service account and every namespace are there, the kinds are known, the prune guard holds.
	Check(ctx context.Context, release Release) error
	// Deliver applies the waves of the release up to the first that is not ready, and prunes after the last. It does
	// not wait: Outcome.Waiting says for what, and doing it again goes on. When all is there it changes nothing, and says so.
	Deliver(ctx context.Context, release Release) (Outcome, error)
	// Health of what the rollout has in the cluster, read as serviceAccount. It is not Healthy before the last wave.
	Health(ctx context.Context, rollout fleet.RolloutName, serviceAccount string) (Health, error)
}
