// SPDX-License-Identifier: Apache-2.0

// Package deliverytest answers: what must every Deliverer do, and where does a test find one without a cluster?
package deliverytest

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/delivery"
)

// Memory is a cluster in a map. Its zero value is ready, and everything that a release asks for is there.
// It is safe for concurrent use; its fields are set before the first call.
type Memory struct {
	// Namespaces that exist; nil: all.
	Namespaces []string
	// ServiceAccounts that exist, as namespace and name; nil: all.
	ServiceAccounts []fleet.RolloutName
	// Apply, if set, is asked before each object is written; an error ends the delivery there. The inventory has been
	// written by then, as in a cluster.
	Apply func(delivery.Release, delivery.ObjectID) error
	// HealthOf, if set, says how what was delivered last is. Otherwise it is healthy as far as it is there.
	HealthOf func(delivery.Inventory) delivery.Health

	mu          sync.Mutex
	objects     map[delivery.ObjectID]*unstructured.Unstructured
	applied     map[delivery.ObjectID]map[string]any // manifests as they were applied last: who owns which field
	inventories map[fleet.RolloutName]delivery.Inventory
	writes      int
}

// key leaves the version out: an object is the same in all of them.
func key(id delivery.ObjectID) delivery.ObjectID {
	id.Version = ""
	return id
}

// Check as a cluster does.
func (m *Memory) Check(_ context.Context, r delivery.Release) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, err := m.check(r)
	return err
}

func (m *Memory) check(r delivery.Release) ([]*unstructured.Unstructured, error) {
	if err := delivery.Validate(r); err != nil {
		return nil, err
	}
	account := fleet.RolloutName{Namespace: r.Rollout.Namespace, Name: r.ServiceAccount}
	if m.ServiceAccounts != nil && !slices.Contains(m.ServiceAccounts, account) {
		return nil, refused(v1alpha1.ReasonServiceAccountNotFound, "service account %s is not here", account)
	}
	objects := make([]*unstructured.Unstructured, len(r.Objects))
	ids := make([]delivery.ObjectID, len(r.Objects))
	for n, o := range r.Objects {
		objects[n] = placed(o, r.Rollout)
		ids[n] = delivery.IDOf(objects[n])
	}
	if err := delivery.CheckTwice(ids); err != nil {
		return nil, err
	}
	for _, id := range ids {
		if err := m.checkObject(r, id, ids); err != nil {
			return nil, err
		}
	}
	if err := m.inventories[r.Rollout].GuardPrune(r, ids); err != nil {
		return nil, err
	}
	return objects, m.checkClaims(r, ids)
}

// checkClaims refuses what another rollout is going to write when one of its waves is ready.
func (m *Memory) checkClaims(r delivery.Release, ids []delivery.ObjectID) error {
	for _, id := range ids {
		if m.objects[key(id)] != nil || slices.ContainsFunc(m.inventories[r.Rollout].Objects, id.Same) {
			continue
		}
		for owner, theirs := range m.inventories {
			if owner != r.Rollout && theirs.Pending && slices.ContainsFunc(theirs.Objects, id.Same) {
				return refused(v1alpha1.ReasonConflict, "%s belongs to rollout %s, not to %s", id, owner, r.Rollout)
			}
		}
	}
	return nil
}

func (m *Memory) checkObject(r delivery.Release, id delivery.ObjectID, payload []delivery.ObjectID) error {
	if !m.knowsKind(id, r.Objects) {
		return refused(v1alpha1.ReasonUnknownKind, "%s: the cluster does not know kind %s", id, id.Kind)
	}
	namespace := delivery.ObjectID{Version: "v1", Kind: "Namespace", Name: id.Namespace}
	if id.Namespace != "" && m.Namespaces != nil && !slices.Contains(m.Namespaces, id.Namespace) &&
		m.objects[key(namespace)] == nil && !slices.ContainsFunc(payload, namespace.Same) {
		return refused(v1alpha1.ReasonNamespaceMissing, "namespace %s is not here, and the payload does not bring it", id.Namespace)
	}
	if o := m.objects[key(id)]; o != nil {
		owner := ownerOf(o)
		if owner != r.Rollout && slices.ContainsFunc(m.inventories[owner].Objects, id.Same) {
			return refused(v1alpha1.ReasonConflict, "%s belongs to rollout %s, not to %s", id, owner, r.Rollout)
		}
	}
	return nil
}

// knowsKind: Kubernetes' own groups, and what a CustomResourceDefinition here or in the payload defines.
func (m *Memory) knowsKind(id delivery.ObjectID, payload []*unstructured.Unstructured) bool {
	if !strings.Contains(id.Group, ".") || strings.HasSuffix(id.Group, ".k8s.io") {
		return true
	}
	for _, o := range slices.Concat(payload, slices.Collect(maps.Values(m.objects))) {
		defined := delivery.DefinedKind(o)
		if o.GetKind() == "CustomResourceDefinition" && defined.Group == id.Group && defined.Kind == id.Kind {
			return true
		}
	}
	return false
}

// Deliver as a cluster does.
func (m *Memory) Deliver(ctx context.Context, r delivery.Release) (delivery.Outcome, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	have := m.inventories[r.Rollout]
	outcome := delivery.Outcome{Objects: have.Total()}
	objects, err := m.check(r)
	if err != nil {
		return outcome, err
	}
	waves, err := m.rehearse(have, objects)
	if err != nil {
		return outcome, err
	}
	have = m.next(r, objects, len(waves) > 1)
	if err := m.keep(ctx, r, have); err != nil {
		return outcome, err
	}
	outcome.Objects = have.Total()
	if outcome.Changes, outcome.Waiting, err = m.applyWaves(ctx, r, waves); err != nil || outcome.Waiting != "" {
		return outcome, err
	}
	have, changes, err := m.prune(ctx, r, have)
	outcome.Changes = append(outcome.Changes, changes...)
	outcome.Objects = have.Total()
	return outcome, err
}

func (m *Memory) keep(ctx context.Context, r delivery.Release, next delivery.Inventory) error {
	if reflect.DeepEqual(m.inventories[r.Rollout], next) {
		return nil
	}
	if err := fence(ctx, r); err != nil {
		return err
	}
	if m.inventories == nil {
		m.inventories = map[fleet.RolloutName]delivery.Inventory{}
	}
	m.inventories[r.Rollout] = next
	m.writes++
	return nil
}

func (m *Memory) apply(ctx context.Context, r delivery.Release, o *unstructured.Unstructured) (delivery.Change, error) {
	id := delivery.IDOf(o)
	action := m.actionOn(m.inventories[r.Rollout], o)
	if action == delivery.Unchanged {
		return delivery.Change{Object: id, Action: action}, nil
	}
	if err := fence(ctx, r); err != nil {
		return delivery.Change{}, err
	}
	if m.Apply != nil {
		if err := m.Apply(r, id); err != nil {
			return delivery.Change{}, err
		}
	}
	if m.objects == nil {
		m.objects = map[delivery.ObjectID]*unstructured.Unstructured{}
	}
	if m.applied == nil {
		m.applied = map[delivery.ObjectID]map[string]any{}
	}
	m.writes++
	before := m.applied[key(id)]
	m.applied[key(id)] = o.Object
	if action != delivery.Configured {
		m.objects[key(id)] = o.DeepCopy()
		return delivery.Change{Object: id, Action: action}, nil
	}
	there := m.objects[key(id)]
	disown(there.Object, before, o.Object)
	overlay(there.Object, o.DeepCopy().Object)
	return delivery.Change{Object: id, Action: action}, nil
}

func (m *Memory) prune(ctx context.Context, r delivery.Release, have delivery.Inventory) (delivery.Inventory, []delivery.Change, error) {
	remove, changes := have.Prunable(r.Prune)
	for _, id := range remove {
		there := m.objects[key(id)]
		if there != nil && ownerOf(there) != r.Rollout {
			changes = append(changes, delivery.Change{Object: id, Action: delivery.Kept, Why: "it no longer carries this rollout's labels"})
			continue
		}
		if there != nil {
			if err := fence(ctx, r); err != nil {
				return have, changes, err
			}
			delete(m.objects, key(id))
			delete(m.applied, key(id))
			m.writes++
		}
		changes = append(changes, delivery.Change{Object: id, Action: delivery.Pruned})
	}
	next := have.Without(remove)
	next.Pending = false
	return next, changes, m.keep(ctx, r, next)
}

// Health of what the release that was delivered last has here.
func (m *Memory) Health(_ context.Context, rollout fleet.RolloutName, _ string) (delivery.Health, error) {
	m.mu.Lock()
	have := m.inventories[rollout]
	m.mu.Unlock()
	if len(have.Objects) == 0 {
		return delivery.Health{Because: "nothing has been delivered yet"}, nil
	}
	var health delivery.Health
	if m.HealthOf != nil {
		health = m.HealthOf(have) // it may look at the objects itself
	} else {
		m.mu.Lock()
		health = m.judge(have, have.Objects)
		m.mu.Unlock()
	}
	if health.State == delivery.Healthy && have.Pending {
		health.State, health.Because = delivery.Progressing, "the release is not applied to its last wave"
	}
	return health, nil
}

// Inventory of a rollout; the zero inventory where nothing was ever delivered.
func (m *Memory) Inventory(_ context.Context, rollout fleet.RolloutName) (delivery.Inventory, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.inventories[rollout], nil
}

// Get is a copy of an object, nil where there is none.
func (m *Memory) Get(id delivery.ObjectID) *unstructured.Unstructured {
	m.mu.Lock()
	defer m.mu.Unlock()
	if o := m.objects[key(id)]; o != nil {
		return o.DeepCopy()
	}
	return nil
}

// Put is somebody else's write.
func (m *Memory) Put(o *unstructured.Unstructured) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.objects == nil {
		m.objects = map[delivery.ObjectID]*unstructured.Unstructured{}
	}
	m.objects[key(delivery.IDOf(o))] = o.DeepCopy()
}

// Remove is somebody else's delete.
func (m *Memory) Remove(id delivery.ObjectID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.objects, key(id))
}

// Finish a Job: it is complete, or it has failed.
func (m *Memory) Finish(id delivery.ObjectID, failed bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	condition := map[string]any{"type": "Complete", "status": "True"}
	if failed {
		condition = map[string]any{"type": "Failed", "status": "True", "message": "Job has reached the specified backoff limit"}
	}
	m.objects[key(id)].Object["status"] = map[string]any{"conditions": []any{condition}}
}

// Writes of all deliveries so far, inventories included.
func (m *Memory) Writes() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.writes
}

func fence(ctx context.Context, r delivery.Release) error {
	if r.Fence == nil {
		return nil
	}
	if err := r.Fence(ctx); err != nil {
		return fmt.Errorf("stopped: %w", err)
	}
	return nil
}

// placed is a copy of an object in its namespace and with its owner's labels.
func placed(o *unstructured.Unstructured, rollout fleet.RolloutName) *unstructured.Unstructured {
	o = o.DeepCopy()
	switch {
	case isClusterScoped(o.GetKind()):
		o.SetNamespace("")
	case o.GetNamespace() == "":
		o.SetNamespace(rollout.Namespace)
	}
	labels := maps.Clone(o.GetLabels())
	if labels == nil {
		labels = map[string]string{}
	}
	labels[v1alpha1.LabelRolloutName] = rollout.Name
	labels[v1alpha1.LabelRolloutNamespace] = rollout.Namespace
	o.SetLabels(labels)
	return o
}

func isClusterScoped(kind string) bool {
	switch kind {
	case "Namespace", "CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding", "PersistentVolume", "APIService",
		"ValidatingWebhookConfiguration", "MutatingWebhookConfiguration",
		"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding":
		return true
	}
	return strings.HasSuffix(kind, "Class")
}

func ownerOf(o *unstructured.Unstructured) fleet.RolloutName {
	labels := o.GetLabels()
	return fleet.RolloutName{Namespace: labels[v1alpha1.LabelRolloutNamespace], Name: labels[v1alpha1.LabelRolloutName]}
}

// contains: all that want says is so in have, which may say more, as others own fields too.
func contains(have, want any) bool {
	wanted, ok := want.(map[string]any)
	if !ok {
		return reflect.DeepEqual(have, want)
	}
	there, ok := have.(map[string]any)
	if !ok {
		return false
	}
	for k, v := range wanted {
		if !contains(there[k], v) {
			return false
		}
	}
	return true
}

// disown takes out what was applied before and is no longer said.
func disown(have, before, now map[string]any) {
	for k, v := range before {
		said, still := now[k]
		if !still {
			delete(have, k)
			continue
		}
		inner, isMap := v.(map[string]any)
		next, nextIsMap := said.(map[string]any)
		there, thereIsMap := have[k].(map[string]any)
		if isMap && nextIsMap && thereIsMap {
			disown(there, inner, next)
		}
	}
}

// overlay writes what is said over what is there.
func overlay(have, now map[string]any) {
	for k, v := range now {
		next, nextIsMap := v.(map[string]any)
		there, thereIsMap := have[k].(map[string]any)
		if nextIsMap && thereIsMap {
			overlay(there, next)
			continue
		}
		have[k] = v
	}
}

func refused(reason, format string, args ...any) error {
	return &fleet.Error{Kind: fleet.Refused, Reason: reason, Err: fmt.Errorf(format, args...)}
}

var _ delivery.Deliverer = (*Memory)(nil)
