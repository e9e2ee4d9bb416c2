// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// The stages of an apply. Each is finished, and what it defines is served, before the next begins.
const (
	stageDefinitions = iota // namespaces and kinds that the rest lives in
	stageClasses            // what the rest refers to by class
	stageRest
	stageCount
)

// kindOrder is the order within a stage. A kind that is not listed comes between first and last.
var kindOrder = struct{ first, last []string }{
	first: []string{
		"Namespace", "CustomResourceDefinition",
		"PriorityClass", "RuntimeClass", "StorageClass", "VolumeSnapshotClass", "IngressClass", "GatewayClass",
		"ResourceQuota", "LimitRange", "NetworkPolicy",
		"ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding",
		"PersistentVolume", "PersistentVolumeClaim", "ConfigMap", "Secret",
		"Service", "DaemonSet", "Deployment", "StatefulSet", "ReplicaSet", "Pod", "Job", "CronJob",
		"HorizontalPodAutoscaler", "PodDisruptionBudget", "Ingress",
	},
	// These act on what others write: only once all is there that they ask.
	last: []string{
		"APIService",
		"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding",
		"MutatingWebhookConfiguration", "ValidatingWebhookConfiguration",
	},
}

func kindRank(kind string) int {
	if i := slices.Index(kindOrder.first, kind); i >= 0 {
		return i - len(kindOrder.first)
	}
	return slices.Index(kindOrder.last, kind) + 1
}

func stageOf(id ObjectID) int {
	switch {
	case id.is("", "Namespace"), id.is("apiextensions.k8s.io", "CustomResourceDefinition"):
		return stageDefinitions
	case strings.HasSuffix(id.Kind, "Class"):
		return stageClasses
	}
	return stageRest
}

// compareIDs orders objects as they are applied. It is total on the objects of a cluster:
// only two versions of one object compare equal.
func compareIDs(a, b ObjectID) int {
	return cmp.Or(
		cmp.Compare(stageOf(a), stageOf(b)),
		cmp.Compare(kindRank(a.Kind), kindRank(b.Kind)),
		strings.Compare(a.Kind, b.Kind),
		strings.Compare(a.Group, b.Group),
		strings.Compare(a.Namespace, b.Namespace),
		strings.Compare(a.Name, b.Name),
	)
}

// Stages sorts items into the stages that they are applied in: namespaces and custom resource definitions; then
// classes (storage, ingress, priority and the like); then the rest in the order of their kinds, webhooks last.
// Stages without items are left out; items are not changed.
func Stages[T any](items []T, id func(T) ObjectID) [][]T {
	sorted := slices.Clone(items)
	slices.SortStableFunc(sorted, func(a, b T) int { return compareIDs(id(a), id(b)) })
	all := make([][]T, stageCount)
	for _, item := range sorted {
		stage := stageOf(id(item))
		all[stage] = append(all[stage], item)
	}
	return slices.DeleteFunc(all, func(stage []T) bool { return len(stage) == 0 })
}

// Wave is what is applied together, once everything of the waves before it is ready.
type Wave[T any] struct {
	Number int
	Items  []T
}

// Waves sorts items into the waves that they are applied in, lowest first. Within a wave they keep their order, which
// Stages makes. A namespace or custom resource definition comes no later than the first object that lives in it,
// whatever its own wave: the object could not be applied before.
func Waves[T any](items []T, object func(T) *unstructured.Unstructured) ([]Wave[T], error) {
	numbers := make([]int, len(items))
	first := map[schema.GroupKind]int{} // of the objects of a kind, and of a namespace as Namespace/name
	for n, item := range items {
		o := object(item)
		wave, err := WaveOf(o)
		if err != nil {
			return nil, invalid("%s: %w", IDOf(o), err)
		}
		numbers[n] = wave
		for _, home := range []schema.GroupKind{o.GroupVersionKind().GroupKind(), namespaceKey(o.GetNamespace())} {
			if before, seen := first[home]; !seen || wave < before {
				first[home] = wave
			}
		}
	}
	byNumber := map[int][]T{}
	for n, item := range items {
		wave := numbers[n]
		if needed, is := first[definedBy(object(item))]; is {
			wave = min(wave, needed)
		}
		byNumber[wave] = append(byNumber[wave], item)
	}
	waves := make([]Wave[T], 0, len(byNumber))
	for wave, items := range byNumber {
		waves = append(waves, Wave[T]{wave, items})
	}
	slices.SortFunc(waves, func(a, b Wave[T]) int { return cmp.Compare(a.Number, b.Number) })
	return waves, nil
}

// namespaceKey cannot be a kind: those have no slash.
func namespaceKey(name string) schema.GroupKind {
	return schema.GroupKind{Kind: "Namespace/" + name}
}

// definedBy an object is what other objects live in; the zero value for one that nothing lives in.
func definedBy(o *unstructured.Unstructured) schema.GroupKind {
	switch id := IDOf(o); {
	case id.is("", "Namespace"):
		return namespaceKey(id.Name)
	case id.is("apiextensions.k8s.io", "CustomResourceDefinition"):
		return DefinedKind(o)
	}
	return schema.GroupKind{}
}

// DefinedKind is the kind that a CustomResourceDefinition defines.
func DefinedKind(crd *unstructured.Unstructured) schema.GroupKind {
	group, _, _ := unstructured.NestedString(crd.Object, "spec", "group")
	kind, _, _ := unstructured.NestedString(crd.Object, "spec", "names", "kind")
	return schema.GroupKind{Group: group, Kind: kind}
}

// WaveOf an object: the number in its annotation, 0 where it has none.
func WaveOf(o *unstructured.Unstructured) (int, error) {
	text, given, err := annotation(o, v1alpha1.AnnotationWave)
	if err != nil || !given {
		return 0, err
	}
	wave, err := strconv.Atoi(text)
	if err != nil || wave < -v1alpha1.MaxWave || wave > v1alpha1.MaxWave {
		return 0, fmt.Errorf("annotation %s is %q: write a whole number from %d to %d",
			v1alpha1.AnnotationWave, text, -v1alpha1.MaxWave, v1alpha1.MaxWave)
	}
	return wave, nil
}

// MayRecreate says whether an object asks to be deleted and made again where it cannot be changed in place.
func MayRecreate(o *unstructured.Unstructured) (bool, error) {
	text, given, err := annotation(o, v1alpha1.AnnotationForce)
	switch {
	case err != nil || !given || text == v1alpha1.ForceDisabled:
		return false, err
	case text != v1alpha1.ForceEnabled:
		return false, fmt.Errorf("annotation %s is %q: write %q or %q",
			v1alpha1.AnnotationForce, text, v1alpha1.ForceEnabled, v1alpha1.ForceDisabled)
	case neverPruned(IDOf(o)):
		return false, fmt.Errorf("annotation %s: a %s is never deleted, because that takes the data of others with it; leave the annotation out",
			v1alpha1.AnnotationForce, o.GetKind())
	}
	return true, nil
}

// annotation of an object. One that is not text is an error: it would otherwise hide all the others.
func annotation(o *unstructured.Unstructured, key string) (text string, given bool, err error) {
	value, given, err := unstructured.NestedFieldNoCopy(o.Object, "metadata", "annotations", key)
	if err != nil || !given {
		return "", false, nil //nolint:nilerr // annotations that are no map are for the API server to judge
	}
	text, ok := value.(string)
	if !ok {
		return "", false, fmt.Errorf("annotation %s is %v and not text: put it in quotes", key, value)
	}
	return text, true, nil
}

// PruneOrder is the reverse of the order that objects are applied in: what others need goes last.
func PruneOrder(ids []ObjectID) []ObjectID {
	sorted := slices.Clone(ids)
	slices.SortStableFunc(sorted, func(a, b ObjectID) int { return compareIDs(b, a) })
	return sorted
}
