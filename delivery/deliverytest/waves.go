// SPDX-License-Identifier: Apache-2.0

package deliverytest

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/delivery"
)

type wave = delivery.Wave[*unstructured.Unstructured]

// rehearse refuses, before anything is written, what cannot be changed in place and does not ask to be made anew.
func (m *Memory) rehearse(have delivery.Inventory, objects []*unstructured.Unstructured) ([]wave, error) {
	for _, o := range objects {
		anew, err := delivery.MayRecreate(o)
		if err != nil {
			return nil, err
		}
		if m.actionOn(have, o) == delivery.Recreated && !anew {
			return nil, &fleet.Error{
				Kind: fleet.Terminal, Reason: v1alpha1.ReasonImmutableField,
				Err: fmt.Errorf("%s: field is immutable", delivery.IDOf(o)),
			}
		}
	}
	return delivery.Waves(objects, func(o *unstructured.Unstructured) *unstructured.Unstructured { return o })
}

// actionOn an object if it were applied now.
func (m *Memory) actionOn(have delivery.Inventory, o *unstructured.Unstructured) delivery.Action {
	id := delivery.IDOf(o)
	there := m.objects[key(id)]
	switch {
	case there == nil && wasDone(have, o):
		return delivery.Unchanged
	case there == nil:
		return delivery.Created
	case contains(there.Object, o.Object) && reflect.DeepEqual(m.applied[key(id)], o.Object):
		return delivery.Unchanged
	case isImmutable(there, o):
		return delivery.Recreated
	}
	return delivery.Configured
}

// isImmutable: they differ in what the API server lets nobody change: the template of a Job, and the data of a ConfigMap
// or Secret that says so.
func isImmutable(there, o *unstructured.Unstructured) bool {
	switch {
	case delivery.IDOf(o).IsJob():
		have, _, _ := unstructured.NestedMap(there.Object, "spec", "template")
		want, _, _ := unstructured.NestedMap(o.Object, "spec", "template")
		return !reflect.DeepEqual(have, want)
	case there.Object["immutable"] == true:
		return !reflect.DeepEqual(there.Object["data"], o.Object["data"]) || o.Object["immutable"] != true
	}
	return false
}

// wasDone: the Job was complete with this manifest.
func wasDone(have delivery.Inventory, o *unstructured.Unstructured) bool {
	manifest, err := delivery.ManifestOf(o)
	return err == nil && slices.Contains(have.Done, delivery.Done{Object: delivery.IDOf(o), Manifest: manifest})
}

// next is the inventory to write before the first object.
func (m *Memory) next(r delivery.Release, objects []*unstructured.Unstructured, waves bool) delivery.Inventory {
	have := m.inventories[r.Rollout]
	ids := make([]delivery.ObjectID, len(objects))
	var done []delivery.Done
	for n, o := range objects {
		ids[n] = delivery.IDOf(o)
		there := m.objects[key(ids[n])]
		complete := ids[n].IsJob() && m.actionOn(have, o) == delivery.Unchanged && (there == nil || isTrue(there, "Complete"))
		if manifest, err := delivery.ManifestOf(o); err == nil && complete {
			done = append(done, delivery.Done{Object: ids[n], Manifest: manifest})
		}
	}
	slices.SortFunc(done, func(a, b delivery.Done) int { return strings.Compare(a.Object.String(), b.Object.String()) })
	next := have.Next(r, ids)
	next.Pending, next.Done = next.Pending && waves, done
	return next
}

func (m *Memory) applyWaves(ctx context.Context, r delivery.Release, waves []wave) (changes []delivery.Change, waiting string, err error) {
	have := m.inventories[r.Rollout]
	missing := func(o *unstructured.Unstructured) bool {
		action := m.actionOn(have, o)
		return action != delivery.Unchanged && action != delivery.Configured
	}
	for n, w := range waves {
		for _, stage := range delivery.Stages(w.Items, delivery.IDOf) {
			for _, o := range stage {
				if waiting != "" && missing(o) {
					continue
				}
				change, err := m.apply(ctx, r, o)
				if err != nil {
					return changes, "", err
				}
				changes = append(changes, change)
			}
		}
		must := have.Pending && n < len(waves)-1 || slices.ContainsFunc(waves[n+1:], func(w wave) bool { return slices.ContainsFunc(w.Items, missing) })
		if waiting != "" || !must {
			continue
		}
		ids := make([]delivery.ObjectID, len(w.Items))
		for i, o := range w.Items {
			ids[i] = delivery.IDOf(o)
		}
		if health := m.judge(have, ids); health.State != delivery.Healthy {
			waiting = fmt.Sprintf("wave %d is not ready: %s", w.Number, health.Because)
		}
		if waiting != "" && have.Pending {
			return changes, waiting, nil
		}
	}
	return changes, waiting, nil
}

// judge objects by what is there: a Job is well when it is complete, anything else when it exists.
func (m *Memory) judge(have delivery.Inventory, ids []delivery.ObjectID) delivery.Health {
	objects := make([]delivery.ObjectHealth, len(ids))
	for n, id := range ids {
		o := m.objects[key(id)]
		objects[n] = delivery.ObjectHealth{Object: id, State: delivery.Progressing}
		switch {
		case o == nil && !have.IsDone(id):
			objects[n].Because, objects[n].Missing = "is not there", true
		case o == nil, !id.IsJob(), isTrue(o, "Complete"):
			objects[n].State = delivery.Healthy
		case isTrue(o, "Failed"):
			objects[n].State, objects[n].Because = delivery.Failed, "failed: Job has reached the specified backoff limit"
		default:
			objects[n].Because = "is not complete"
		}
	}
	return delivery.Sum(objects)
}

func isTrue(o *unstructured.Unstructured, kind string) bool {
	conditions, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	return slices.ContainsFunc(conditions, func(c any) bool {
		m, ok := c.(map[string]any)
		return ok && m["type"] == kind && m["status"] == "True"
	})
}
