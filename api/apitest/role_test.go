// SPDX-License-Identifier: Apache-2.0

package apitest_test

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flotilla-dev/flotilla/api/apitest"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

const system = "flotilla-system"

func newClient(t *testing.T, config *rest.Config) client.Client {
	t.Helper()
	c, err := client.New(config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := v1alpha1.AddToScheme(c.Scheme()); err != nil {
		t.Fatal(err)
	}
	return c
}

func as(config *rest.Config, who rest.ImpersonationConfig) *rest.Config {
	config = rest.CopyConfig(config)
	config.Impersonate = who
	return config
}

// object of any kind, with nothing in it but its name.
func object(apiVersion, kind, namespace, name string) *unstructured.Unstructured {
	o := &unstructured.Unstructured{}
	o.SetAPIVersion(apiVersion)
	o.SetKind(kind)
	o.SetNamespace(namespace)
	o.SetName(name)
	return o
}

// TestAgentCanDoNothingElse: each attempt is refused by the API server, whatever we do ourselves.
func TestAgentCanDoNothingElse(t *testing.T) {
	s := apitest.Start(t)
	config := s.AgentConfig(t)
	ns := apitest.Namespace(t)
	agent := newClient(t, config)
	for _, name := range []string{"flotilla", "deployer"} {
		mustCreate(t, newClient(t, s.Config), object("v1", "ServiceAccount", ns, name))
	}
	const rbac = "rbac.authorization.k8s.io/v1"
	type attempt struct {
		apiVersion, kind, namespace, name string
		verbs                             string // of: get list create update patch delete deletecollection
	}
	for _, a := range []attempt{
		{"apps/v1", "Deployment", ns, "web", "get list create update patch delete deletecollection"},
		{"apps/v1", "DaemonSet", "kube-system", "x", "create"},
		{"apps/v1", "Deployment", system, "flotilla-agent", "get create update patch delete"},
		{"v1", "Pod", ns, "x", "get list create delete"},
		{"v1", "Pod", system, "x", "create"},
		{"v1", "ConfigMap", ns, "x", "get list create update patch delete"},
		{"v1", "ConfigMap", "kube-system", "x", "list create update"},
		{"v1", "ConfigMap", "kube-system", "cluster-info", "get"},
		{"v1", "Secret", ns, "x", "get list create update patch delete"},
		{"v1", "Secret", "kube-system", "x", "get list"},
		{"v1", "Secret", system, "another", "get list update patch delete"},
		{"v1", "Secret", system, "flotilla-agent-key", "list update patch delete"},
		{"v1", "ServiceAccount", ns, "flotilla", "list create update patch delete"},
		{"v1", "ServiceAccount", system, "flotilla-agent", "create update patch delete"},
		{"v1", "Namespace", "", ns, "list create update patch delete"},
		{"v1", "Namespace", "", system, "update patch delete"},
		{"v1", "Node", "", "node-0", "get list update patch delete"},
		{"v1", "PersistentVolume", "", "x", "get list create delete"},
		{"v1", "Event", ns, "x", "get list update delete deletecollection"},
		{"events.k8s.io/v1", "Event", "kube-system", "x", "get list update delete deletecollection"},
		{"v1", "Service", system, "x", "create"},
		{rbac, "Role", ns, "x", "get create update patch delete"},
		{rbac, "RoleBinding", ns, "x", "get create update patch delete"},
		{rbac, "Role", system, "flotilla-agent", "update patch delete"},
		{rbac, "RoleBinding", system, "flotilla-agent", "update patch delete"},
		{rbac, "ClusterRole", "", "flotilla-agent", "get update patch delete"},
		{rbac, "ClusterRole", "", "x", "create"},
		{rbac, "ClusterRoleBinding", "", "x", "create update patch delete"},
		{"apiextensions.k8s.io/v1", "CustomResourceDefinition", "", "fleetrollouts.fleet.flotilla.dev", "get create update patch delete"},
		{"admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy", "", "flotilla-copies", "get update patch delete"},
		{"admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding", "", "flotilla-copies", "update patch delete"},
		{"admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", "", "x", "create"},
		{"coordination.k8s.io/v1", "Lease", "kube-system", "x", "get create update"},
		{"coordination.k8s.io/v1", "Lease", system, "another", "get list update patch delete"},
		{"certificates.k8s.io/v1", "CertificateSigningRequest", "", "x", "create"},
		{"networking.k8s.io/v1", "NetworkPolicy", ns, "x", "create delete"},
		{"batch/v1", "Job", ns, "x", "create"},
	} {
		for _, verb := range strings.Fields(a.verbs) {
			o := object(a.apiVersion, a.kind, a.namespace, a.name)
			wantForbidden(t, verb+" "+a.kind+" "+a.namespace+"/"+a.name, do(agent, verb, o))
		}
	}
	for what, who := range map[string]rest.ImpersonationConfig{
		"another service account of the namespace": {UserName: "system:serviceaccount:" + ns + ":deployer"},
		"the default service account":              {UserName: "system:serviceaccount:" + ns + ":default"},
		"a controller":                             {UserName: "system:serviceaccount:kube-system:namespace-controller"},
		"a person":                                 {UserName: "ada"},
		"the administrator":                        {UserName: "kubernetes-admin"},
		"a node":                                   {UserName: "system:node:node-0"},
		"the account with more groups":             {UserName: "system:serviceaccount:" + ns + ":flotilla", Groups: []string{"system:masters"}},
		"the account with its own groups":          {UserName: "system:serviceaccount:" + ns + ":flotilla", Groups: []string{"system:serviceaccounts"}},
		"the account with an extra":                {UserName: "system:serviceaccount:" + ns + ":flotilla", Extra: map[string][]string{"scopes": {"all"}}},
		"the account with a uid":                   {UserName: "system:serviceaccount:" + ns + ":flotilla", UID: "1"},
	} {
		c := kubernetes.NewForConfigOrDie(as(config, who))
		_, err := c.CoreV1().ConfigMaps(ns).Get(context.Background(), "x", metav1.GetOptions{})
		wantForbidden(t, "impersonate "+what, err)
		if err != nil && !strings.Contains(err.Error(), "cannot impersonate") {
			t.Errorf("impersonate %s: refused for another reason: %v", what, err)
		}
	}
	tokens := kubernetes.NewForConfigOrDie(config).CoreV1()
	_, err := tokens.ServiceAccounts(ns).CreateToken(context.Background(), "flotilla", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	wantForbidden(t, "a token of the account", err)
	err = tokens.RESTClient().Post().Namespace(ns).Resource("pods").Name("x").SubResource("exec").Do(context.Background()).Error()
	wantForbidden(t, "exec", err)
	_, err = tokens.RESTClient().Get().AbsPath("/metrics").DoRaw(context.Background())
	wantForbidden(t, "the server's metrics", err)
}

func do(c client.Client, verb string, o *unstructured.Unstructured) error {
	ctx := context.Background()
	switch verb {
	case "get":
		return c.Get(ctx, client.ObjectKeyFromObject(o), o)
	case "list":
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(schema.FromAPIVersionAndKind(o.GetAPIVersion(), o.GetKind()+"List"))
		return c.List(ctx, list, client.InNamespace(o.GetNamespace()))
	case "create":
		return c.Create(ctx, o)
	case "update":
		o.SetResourceVersion("1")
		return c.Update(ctx, o)
	case "patch":
		return c.Patch(ctx, o, client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"labels":{"x":"y"}}}`)))
	case "delete":
		return c.Delete(ctx, o)
	}
	return c.DeleteAllOf(ctx, o, client.InNamespace(o.GetNamespace()))
}

func wantForbidden(t *testing.T, what string, err error) {
	t.Helper()
	if !apierrors.IsForbidden(err) {
		t.Errorf("%s: got %v, want Forbidden", what, err)
	}
}

func mustCreate(t *testing.T, c client.Client, o client.Object) {
	t.Helper()
	if err := c.Create(context.Background(), o); err != nil {
		t.Fatal(err)
	}
}

// TestAgentCanDoItsWork: the role is enough for what the agent does.
func TestAgentCanDoItsWork(t *testing.T) {
	ctx := context.Background()
	s := apitest.Start(t)
	config := s.AgentConfig(t)
	admin, agent := newClient(t, s.Config), newClient(t, config)
	ns := apitest.Namespace(t)
	mustCreate(t, admin, object("v1", "ServiceAccount", ns, "flotilla"))
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	rollout := rolloutOf(ns, "podinfo")
	must("create a rollout", agent.Create(ctx, rollout))
	rollout.Status.ObservedGeneration = 1
	must("update a rollout's status", agent.Status().Update(ctx, rollout))
	rollout.Finalizers = []string{"fleet.flotilla.dev/home"}
	must("update a rollout", agent.Update(ctx, rollout))
	rollout.Finalizers = nil
	must("update a rollout", agent.Update(ctx, rollout))
	must("list rollouts", agent.List(ctx, &v1alpha1.FleetRolloutList{}))
	must("delete a rollout", agent.Delete(ctx, rollout))
	member := memberOf("role-" + ns)
	must("create a member", agent.Create(ctx, member))
	must("delete a member", agent.Delete(ctx, member))
	must("read a namespace", agent.Get(ctx, client.ObjectKey{Name: ns}, &corev1.Namespace{}))
	must("read a service account", agent.Get(ctx, client.ObjectKey{Namespace: ns, Name: "flotilla"}, &corev1.ServiceAccount{}))
	must("read the authority of client certificates", agent.Get(ctx, client.ObjectKey{Namespace: "kube-system", Name: "extension-apiserver-authentication"}, &corev1.ConfigMap{}))
	config1 := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: "promise-" + ns}}
	must("create a ConfigMap of its own", agent.Create(ctx, config1))
	must("delete a ConfigMap of its own", agent.Delete(ctx, config1))
	key := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: "flotilla-agent-key"}}
	must("create its key", agent.Create(ctx, key))
	must("read its key", agent.Get(ctx, client.ObjectKeyFromObject(key), key))
	must("clean up", admin.Delete(ctx, key))
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: "flotilla-agent"}}
	must("create its lease", agent.Create(ctx, lease))
	must("renew its lease", agent.Update(ctx, lease))
	must("clean up", admin.Delete(ctx, lease))
	said := &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "said"}, EventTime: metav1.NowMicro(), Type: "Normal", Reason: "Started", Action: "Started main@1",
		ReportingController: "flotilla-agent", ReportingInstance: "flotilla-agent-0", Regarding: corev1.ObjectReference{Kind: "FleetRollout", Namespace: ns, Name: "podinfo"},
	}
	must("say what happened", agent.Create(ctx, said))
	must("say it again", agent.Patch(ctx, said, client.RawPatch("application/merge-patch+json", []byte(`{"series":{"count":2,"lastObservedTime":"2026-11-21T12:00:00.000000Z"}}`))))
	review := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: config.BearerToken}}
	must("ask whose a token is", agent.Create(ctx, review))
	if review.Status.User.Username != "system:serviceaccount:flotilla-system:flotilla-agent" {
		t.Errorf("token of %q", review.Status.User.Username)
	}
	must("ask what somebody may", agent.Create(ctx, &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: "ada", ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: "get", Resource: "pods"},
	}}))
	// As the account, with the account's rights and groups, and none of its own.
	account := newClient(t, as(config, rest.ImpersonationConfig{UserName: "system:serviceaccount:" + ns + ":flotilla"}))
	self := &authenticationv1.SelfSubjectReview{}
	must("ask who it is as the account", account.Create(ctx, self))
	if got := strings.Join(self.Status.UserInfo.Groups, " "); got != "system:serviceaccounts system:serviceaccounts:"+ns+" system:authenticated" {
		t.Errorf("groups: %s", got)
	}
	err := account.Get(ctx, client.ObjectKey{Namespace: ns, Name: "flotilla"}, &corev1.ServiceAccount{})
	wantForbidden(t, "as the account, what only the agent may", err)
	mustCreate(t, admin, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "edit"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "edit"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: ns, Name: "flotilla"}},
	})
	eventually(t, "the account may write", func() error {
		return client.IgnoreAlreadyExists(account.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "a"}}))
	})
}

// TestAgentPodIsRestricted: the deployment's pod passes the pod security that its namespace enforces.
func TestAgentPodIsRestricted(t *testing.T) {
	s := apitest.Start(t)
	s.AgentConfig(t) // makes the namespace
	admin := newClient(t, s.Config)
	root, err := apitest.Root()
	if err != nil {
		t.Fatal(err)
	}
	objects, err := apitest.ReadObjects(filepath.Join(root, "deploy", "agent"))
	if err != nil {
		t.Fatal(err)
	}
	n := slices.IndexFunc(objects, func(o *unstructured.Unstructured) bool { return o.GetKind() == "Deployment" })
	if n < 0 {
		t.Fatal("no Deployment in deploy/agent")
	}
	if err := admin.Create(context.Background(), objects[n].DeepCopy(), client.DryRunAll, client.FieldValidation(metav1.FieldValidationStrict)); err != nil {
		t.Error(err)
	}
	spec, _, err := unstructured.NestedMap(objects[n].Object, "spec", "template", "spec")
	if err != nil {
		t.Fatal(err)
	}
	pod := object("v1", "Pod", system, "agent")
	pod.Object["spec"] = spec
	if err := admin.Create(context.Background(), pod, client.DryRunAll); err != nil {
		t.Error(err)
	}
	// The check is one: the same pod with a right more is refused.
	container := spec["containers"].([]any)[0].(map[string]any)
	container["securityContext"] = map[string]any{"privileged": true}
	pod = object("v1", "Pod", system, "agent")
	pod.Object["spec"] = spec
	wantForbidden(t, "a privileged agent", admin.Create(context.Background(), pod, client.DryRunAll))
}
