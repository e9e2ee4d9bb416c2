// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/cmd/internal/agent/turn"
)

const (
	promiseLabel = "fleet.flotilla.dev/promise"
	promiseKey   = "promise.json"
)

// KubePromises keeps each promise in a ConfigMap of the agent's own namespace. Reads go to the API
// server each time: the write fence asks it, and a cache could only answer what was true.
type KubePromises struct {
	Client    kubernetes.Interface
	Namespace string

	mu sync.Mutex
	// loaded is the object each promise was last read from or written to: Save's precondition.
	loaded map[fleet.RolloutName]*corev1.ConfigMap
}

// Load is in turn.Promises.
func (k *KubePromises) Load(ctx context.Context, name fleet.RolloutName) (turn.Promise, error) {
	object, err := k.Client.CoreV1().ConfigMaps(k.Namespace).Get(ctx, promiseName(name), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		k.remember(name, nil)
		return turn.Promise{Rollout: name}, nil
	}
	if err != nil {
		return turn.Promise{}, err
	}
	var p turn.Promise
	if err := json.Unmarshal([]byte(object.Data[promiseKey]), &p); err != nil {
		return turn.Promise{}, fmt.Errorf("ConfigMap %s/%s is not a promise of this version: %w; restore it from a backup, or delete it only if this member never started %s", k.Namespace, object.Name, err, name)
	}
	k.remember(name, object)
	return p, nil
}

// Save is in turn.Promises.
func (k *KubePromises) Save(ctx context.Context, p turn.Promise) error {
	body, err := json.Marshal(p)
	if err != nil {
		return err
	}
	k.mu.Lock()
	held := k.loaded[p.Rollout]
	k.mu.Unlock()
	api := k.Client.CoreV1().ConfigMaps(k.Namespace)
	if held == nil {
		created, err := api.Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: promiseName(p.Rollout), Labels: map[string]string{promiseLabel: "true"}},
			Data:       map[string]string{promiseKey: string(body)},
		}, metav1.CreateOptions{})
		return k.written(p.Rollout, created, err)
	}
	if held.Data[promiseKey] == string(body) {
		return nil
	}
	next := held.DeepCopy()
	next.Data = map[string]string{promiseKey: string(body)}
	updated, err := api.Update(ctx, next, metav1.UpdateOptions{}) // the resourceVersion is the precondition
	return k.written(p.Rollout, updated, err)
}

func (k *KubePromises) written(name fleet.RolloutName, object *corev1.ConfigMap, err error) error {
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("%w: %w", turn.ErrConflict, err)
	}
	if err != nil {
		return err
	}
	k.remember(name, object)
	return nil
}

// All is in turn.Promises.
func (k *KubePromises) All(ctx context.Context) ([]fleet.RolloutName, error) {
	list, err := k.Client.CoreV1().ConfigMaps(k.Namespace).List(ctx, metav1.ListOptions{LabelSelector: promiseLabel + "=true"})
	if err != nil {
		return nil, err
	}
	var names []fleet.RolloutName
	for _, object := range list.Items {
		var p turn.Promise
		if err := json.Unmarshal([]byte(object.Data[promiseKey]), &p); err == nil {
			names = append(names, p.Rollout)
		}
	}
	return names, nil
}

func (k *KubePromises) remember(name fleet.RolloutName, object *corev1.ConfigMap) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.loaded == nil {
		k.loaded = map[fleet.RolloutName]*corev1.ConfigMap{}
	}
	k.loaded[name] = object
}

// promiseName is short whatever the rollout is called, and no two rollouts share one.
func promiseName(name fleet.RolloutName) string {
	return "promise-" + fleet.DigestOf("flotilla.dev/promise", []byte(name.Namespace), []byte(name.Name)).String()[:20]
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
