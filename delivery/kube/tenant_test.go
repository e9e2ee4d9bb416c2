// SPDX-License-Identifier: Apache-2.0

package kube_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flotilla-dev/flotilla/api/apitest"
	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/delivery"
)

// TestTenantStaysInItsNamespace: an account that is admin of its namespace gets nothing out of it, whatever the payload
// says. It is the API server that refuses; the good half of each payload is not written either.
func TestTenantStaysInItsNamespace(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.account("tenant")
	s.create(&rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "tenant-admin"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "admin"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Name: "tenant", Namespace: s.namespace}},
	})
	s.create(&rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "as-tenant"},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"serviceaccounts"}, ResourceNames: []string{"tenant"}, Verbs: []string{"impersonate"}}},
	})
	s.create(&rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "as-tenant"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "as-tenant"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Name: "flotilla-agent", Namespace: "flotilla-system"}},
	})
	other := apitest.Namespace(t)
	r := s.release("0", settings, service, role, binding, account)
	r.ServiceAccount = "tenant"
	s.eventually("the tenant may deliver at all", func() bool {
		_, err := s.cluster.Deliver(context.Background(), r)
		return err == nil
	})
	before := s.versions()
	const rbac = "rbac.authorization.k8s.io/v1"
	in := func(namespace, apiVersion, kind, rest string) string {
		return fmt.Sprintf("{apiVersion: %s, kind: %s, metadata: {name: x, namespace: %s}%s}", apiVersion, kind, namespace, rest)
	}
	everywhere := func(apiVersion, kind, name, rest string) string {
		return fmt.Sprintf("{apiVersion: %s, kind: %s, metadata: {name: %s}%s}", apiVersion, kind, name, rest)
	}
	pod := `, spec: {containers: [{name: x, image: "x:1"}]}`
	clusterAdmin := `, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}, subjects: [{kind: ServiceAccount, name: tenant, namespace: NAMESPACE}]`
	all := `, rules: [{apiGroups: ["*"], resources: ["*"], verbs: ["*"]}]`
	for _, manifest := range []string{
		in(other, "v1", "ConfigMap", ""),
		in(other, "v1", "Secret", ""),
		in(other, "v1", "Pod", pod),
		in(other, "v1", "ServiceAccount", ""),
		in(other, rbac, "Role", all),
		in(other, rbac, "RoleBinding", clusterAdmin),
		in("kube-system", "v1", "ConfigMap", ""),
		in("kube-system", "v1", "Pod", pod),
		in("kube-system", rbac, "RoleBinding", clusterAdmin),
		in("default", "v1", "Secret", ""),
		in("flotilla-system", "v1", "ConfigMap", ""),
		in("flotilla-system", "v1", "Secret", ""),
		in("flotilla-system", "v1", "Pod", pod),
		`{apiVersion: v1, kind: ServiceAccount, metadata: {name: flotilla-agent, namespace: flotilla-system}}`,
		`{apiVersion: v1, kind: ConfigMap, metadata: {name: inventory-NAMESPACE.podinfo, namespace: flotilla-system}, data: {inventory.json: "{}"}}`,
		`{apiVersion: v1, kind: Secret, metadata: {name: flotilla-agent-key, namespace: flotilla-system}}`,
		// In its own namespace, what would give it more than it has.
		in("NAMESPACE", rbac, "Role", all),
		in("NAMESPACE", rbac, "RoleBinding", clusterAdmin),
		in("NAMESPACE", "v1", "ResourceQuota", ""),
		in("NAMESPACE", "v1", "LimitRange", ", spec: {limits: []}"),
		// Without a namespace.
		everywhere("v1", "Namespace", "NAMESPACE-more", ""),
		`{apiVersion: v1, kind: Namespace, metadata: {name: NAMESPACE, labels: {pod-security.kubernetes.io/enforce: privileged}}}`,
		`{apiVersion: v1, kind: Namespace, metadata: {name: kube-system, labels: {x: "y"}}}`,
		everywhere("v1", "PersistentVolume", "x", ", spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], hostPath: {path: /}}"),
		everywhere("v1", "Node", "node-0", ""),
		everywhere(rbac, "ClusterRole", "x", all),
		everywhere(rbac, "ClusterRole", "flotilla-agent", all),
		everywhere(rbac, "ClusterRole", "admin", all),
		everywhere(rbac, "ClusterRoleBinding", "x", clusterAdmin),
		everywhere("storage.k8s.io/v1", "StorageClass", "x", ", provisioner: x"),
		everywhere("scheduling.k8s.io/v1", "PriorityClass", "x", ", value: 1000000000"),
		everywhere("node.k8s.io/v1", "RuntimeClass", "x", ", handler: x"),
		everywhere("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", "x", ""),
		everywhere("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", "x", ""),
		everywhere("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy", "flotilla-copies", ", spec: {}"),
		everywhere("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding", "flotilla-copies", ", spec: {policyName: x}"),
		everywhere("apiregistration.k8s.io/v1", "APIService", "v1.example.com", ", spec: {}"),
		everywhere("certificates.k8s.io/v1", "CertificateSigningRequest", "x", ""),
		crd(s.namespace+".example.com", "size"),
	} {
		id := delivery.IDOf(s.release("1", manifest).Objects[0])
		bad := s.release("1", strings.Replace(settings, `"1"`, `"2"`, 1), manifest)
		bad.ServiceAccount = "tenant"
		_, err := s.cluster.Deliver(context.Background(), bad)
		if fleet.KindOf(err) != fleet.Refused || fleet.ReasonOf(err, "") != v1alpha1.ReasonForbidden ||
			!strings.Contains(fmt.Sprint(err), "is forbidden: ") || !strings.Contains(fmt.Sprint(err), "system:serviceaccount:"+s.namespace+":tenant") {
			t.Errorf("%s: %v", id, err)
		}
	}
	if diff := cmp.Diff(before, s.versions()); diff != "" {
		t.Errorf("half applied:\n%s", diff)
	}
}

// TestPruneIsTheAccounts: what the account may no longer delete stays, and is named.
func TestPruneIsTheAccounts(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.allowEverywhere("flotilla")
	other := apitest.Namespace(t)
	away := fmt.Sprintf(`{apiVersion: v1, kind: ConfigMap, metadata: {name: away, namespace: %s}}`, other)
	s.deliver(s.release("1", settings, away))
	// The account loses its rights there: what it left is named and kept.
	binding := &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: s.namespace + "-flotilla"}}
	if err := s.admin.Delete(context.Background(), binding); err != nil {
		t.Fatal(err)
	}
	s.Cleanup(func() { // newSite's clean-up expects it
		binding.ResourceVersion = ""
		binding.RoleRef = rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: binding.Name}
		s.create(binding)
	})
	s.eventually("the right is gone", func() bool {
		outcome, err := s.cluster.Deliver(context.Background(), s.release("2", settings))
		return err == nil && outcome.Summary() == "1 unchanged, 1 kept"
	})
	kept := &corev1.ConfigMap{}
	if err := s.admin.Get(context.Background(), clientKey(other, "away"), kept); err != nil {
		t.Error(err)
	}
}
