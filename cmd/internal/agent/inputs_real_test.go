// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/flotilla-dev/flotilla/api/apitest"
	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/cmd/internal/agent"
	"github.com/flotilla-dev/flotilla/source"
	"github.com/flotilla-dev/flotilla/specialize"
)

// What a rollout names is read as its own account: whatever that may not read, nobody reads through the agent.
func TestInputsAreReadAsTheAccount(t *testing.T) {
	s := apitest.Start(t)
	ns := apitest.Namespace(t)
	admin, err := kubernetes.NewForConfig(s.Config)
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	core := admin.CoreV1()
	_, err = core.ServiceAccounts(ns).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "flotilla"}}, metav1.CreateOptions{})
	must(err)
	_, err = core.ConfigMaps(ns).Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "site"}, Data: map[string]string{"tier": "web"}, BinaryData: map[string][]byte{"logo": {1}},
	}, metav1.CreateOptions{})
	must(err)
	_, err = core.Secrets(ns).Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "git"}, Data: map[string][]byte{"username": []byte("ada")}}, metav1.CreateOptions{})
	must(err)
	inputs := &agent.KubeInputs{Config: s.AgentConfig(t), Namespace: "flotilla-system", Clock: agent.SystemClock()}
	as := source.Reader{Namespace: ns, ServiceAccount: "flotilla"}

	_, err = inputs.Secret(t.Context(), as, "git")
	refused(t, err, v1alpha1.ReasonCredentialsMissing, "Secret "+ns+"/git", "create role")
	refs := []specialize.Reference{{Kind: "ConfigMap", Name: "site"}, {Kind: "ConfigMap", Name: "none"}, {Kind: "Secret", Name: "git"}}
	_, err = inputs.Objects(t.Context(), as, refs)
	refused(t, err, v1alpha1.ReasonInputMissing, "ConfigMap "+ns+"/site", "configmaps")

	allow(t, admin, ns)
	found, err := inputs.Objects(t.Context(), as, refs)
	must(err)
	if len(found) != 2 || found[refs[0]]["tier"] != "web" || found[refs[0]]["logo"] != "\x01" || found[refs[2]]["username"] != "ada" {
		t.Errorf("found %v", found)
	}
	data, err := inputs.Secret(t.Context(), as, "git")
	if err != nil || string(data["username"]) != "ada" {
		t.Errorf("%s %v", data, err)
	}
	_, err = inputs.Secret(t.Context(), as, "another")
	refused(t, err, v1alpha1.ReasonCredentialsMissing, "is not there", "create it")

	if _, err := inputs.Secret(t.Context(), source.Reader{Namespace: ns}, "git"); err == nil {
		t.Error("a reader without account was let into a namespace that is not the agent's")
	}
	_, err = inputs.Secret(t.Context(), source.Reader{Namespace: "flotilla-system"}, "another")
	refused(t, err, v1alpha1.ReasonCredentialsMissing, "flotilla-system/another", "flotilla-repository")

	version, served, err := inputs.Capabilities(t.Context())
	must(err)
	if !strings.HasPrefix(version, "v1.") {
		t.Errorf("version %q", version)
	}
	for _, v := range []string{"v1", "v1/ConfigMap", "apps/v1", "apps/v1/Deployment", "fleet.flotilla.dev/v1alpha1/FleetRollout"} {
		if !slices.Contains(served, v) {
			t.Errorf("%s is not among the %d that are served", v, len(served))
		}
	}
	if !slices.IsSorted(served) {
		t.Error("what is served is in no order")
	}
}

func refused(t *testing.T, err error, reason, says, hint string) {
	t.Helper()
	var e *fleet.Error
	if !errors.As(err, &e) || e.Kind != fleet.Retryable || e.Reason != reason || !strings.Contains(e.Err.Error(), says) || !strings.Contains(e.Hint, hint) {
		t.Errorf("%v, want %s with %q and the hint %q", err, reason, says, hint)
	}
}

// allow the account to read what its namespace holds, and wait until the API server knows.
func allow(t *testing.T, admin kubernetes.Interface, ns string) {
	t.Helper()
	grant(t, admin, ns)
	inputs := &agent.KubeInputs{Config: apitest.Start(t).AgentConfig(t), Namespace: "flotilla-system", Clock: agent.SystemClock()}
	for deadline := time.Now().Add(time.Minute); ; <-time.After(50 * time.Millisecond) {
		_, err := inputs.Secret(t.Context(), source.Reader{Namespace: ns, ServiceAccount: "flotilla"}, "git")
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func grant(t *testing.T, admin kubernetes.Interface, ns string) {
	t.Helper()
	rbac := admin.RbacV1()
	_, err := rbac.Roles(ns).Create(t.Context(), &rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Name: "reads"},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"configmaps", "secrets"}, Verbs: []string{"get"}}},
	}, metav1.CreateOptions{})
	if err == nil {
		_, err = rbac.RoleBindings(ns).Create(t.Context(), &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "reads"},
			RoleRef:    rbacv1.RoleRef{APIGroup: "rbac.authorization.k8s.io", Kind: "Role", Name: "reads"},
			Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: ns, Name: "flotilla"}},
		}, metav1.CreateOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
}
