// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"cmp"
	"slices"
	"strings"
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

// PruneOrder is the reverse of the order that objects are applied in: what others need goes last.
func PruneOrder(ids []ObjectID) []ObjectID {
	sorted := slices.Clone(ids)
	slices.SortStableFunc(sorted, func(a, b ObjectID) int { return compareIDs(b, a) })
	return sorted
}
