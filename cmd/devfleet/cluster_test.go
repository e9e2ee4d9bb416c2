// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// testCluster is what a user would notice if a part of the control plane were missing.
func testCluster(t *testing.T, client kubernetes.Interface) {
	version, err := client.Discovery().ServerVersion()
	if err != nil || !strings.HasPrefix(version.GitVersion, "v1.36.") || version.Minor != "36" {
		t.Errorf("version %+v, %v: charts with kubeVersion would be refused", version, err)
	}
	t.Run("health", func(t *testing.T) { testHealth(t, client) })
	t.Run("jobs", func(t *testing.T) { testJobs(t, client) })
	t.Run("volumes and addresses", func(t *testing.T) { testCloud(t, client) })
	t.Run("garbage", func(t *testing.T) { testGarbage(t, client) })
	t.Run("admission", func(t *testing.T) { testAdmission(t, client) })
	t.Run("aggregation", func(t *testing.T) {
		c, err := client.CoreV1().ConfigMaps("kube-system").Get(t.Context(), "extension-apiserver-authentication", metav1.GetOptions{})
		if err != nil || c.Data["client-ca-file"] == "" || c.Data["requestheader-client-ca-file"] == "" {
			t.Fatalf("%v, %v", c.Data, err)
		}
	})
}

// deployment has three replicas of one container.
type deployment struct {
	name, image, health string
}

func namespaceOf(name string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

func podTemplate(d deployment) corev1.PodTemplateSpec {
	template := corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": d.name}},
		Spec: corev1.PodSpec{
			InitContainers: []corev1.Container{{Name: "init", Image: "init:1"}},
			Containers:     []corev1.Container{{Name: "app", Image: d.image}, {Name: "sidecar", Image: "sidecar:1"}},
		},
	}
	if d.health != "" {
		template.Annotations = map[string]string{"devfleet.flotilla.dev/health": d.health}
	}
	return template
}

func applyDeployment(t *testing.T, client kubernetes.Interface, d deployment) {
	t.Helper()
	replicas := int32(3)
	_, err := client.AppsV1().Deployments("default").Create(t.Context(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: d.name},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": d.name}},
			Template: podTemplate(d),
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

func awaitAvailable(t *testing.T, client kubernetes.Interface, name string, want int32) {
	t.Helper()
	eventually(t, func() bool {
		d, err := client.AppsV1().Deployments("default").Get(t.Context(), name, metav1.GetOptions{})
		return err == nil && d.Status.ObservedGeneration == d.Generation && d.Status.Replicas == 3 && d.Status.AvailableReplicas == want
	})
}

// runningNotReady counts the pods of an app that run and were found not ready.
func runningNotReady(t *testing.T, client kubernetes.Interface, app string) int {
	t.Helper()
	pods, err := client.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{LabelSelector: "app=" + app})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, p := range pods.Items {
		for _, c := range p.Status.Conditions {
			if p.Status.Phase == corev1.PodRunning && c.Type == corev1.PodReady && c.Status == corev1.ConditionFalse {
				n++
			}
		}
	}
	return n
}

func testHealth(t *testing.T, client kubernetes.Interface) {
	good := []deployment{
		{name: "good", image: "registry.example:5000/team-bad/app:1.0"},
		{name: "digest", image: "app:1.0@sha256:" + strings.Repeat("bad0", 16)},
		{name: "declared-good", image: "app:1", health: "good"},
	}
	bad := []deployment{
		{name: "bad-tag", image: "registry.example:5000/app:6.5.1-bad"},
		{name: "bad-tag-and-digest", image: "app:bad@sha256:" + strings.Repeat("0123", 16)},
		{name: "declared-bad", image: "app:1", health: "bad"},
	}
	for _, d := range append(good, bad...) {
		applyDeployment(t, client, d)
	}
	for _, d := range good {
		awaitAvailable(t, client, d.name, 3)
	}
	for _, d := range bad {
		eventually(t, func() bool { return runningNotReady(t, client, d.name) == 3 })
		awaitAvailable(t, client, d.name, 0)
	}

	// Health turns both ways while pods run.
	pods, err := client.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{LabelSelector: "app=good"})
	if err != nil || len(pods.Items) != 3 {
		t.Fatal(len(pods.Items), err)
	}
	turn := func(patch string) {
		if _, err := client.CoreV1().Pods("default").Patch(t.Context(), pods.Items[0].Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	turn(`{"metadata":{"annotations":{"devfleet.flotilla.dev/health":"bad"}}}`)
	awaitAvailable(t, client, "good", 2)
	turn(`{"metadata":{"annotations":{"devfleet.flotilla.dev/health":null}}}`)
	awaitAvailable(t, client, "good", 3)
}

func testJobs(t *testing.T, client kubernetes.Interface) {
	once := int32(0)
	for name, image := range map[string]string{"good": "app:1", "bad": "app:bad"} {
		template := podTemplate(deployment{name: "job-" + name, image: image})
		template.Spec.RestartPolicy = corev1.RestartPolicyNever
		if _, err := client.BatchV1().Jobs("default").Create(t.Context(), &batchv1.Job{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec:       batchv1.JobSpec{BackoffLimit: &once, Template: template},
		}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]batchv1.JobConditionType{"good": batchv1.JobComplete, "bad": batchv1.JobFailed} {
		eventually(t, func() bool {
			job, err := client.BatchV1().Jobs("default").Get(t.Context(), name, metav1.GetOptions{})
			if err != nil {
				return false
			}
			for _, c := range job.Status.Conditions {
				if c.Type == want && c.Status == corev1.ConditionTrue {
					return true
				}
			}
			return false
		})
	}
}

func testCloud(t *testing.T, client kubernetes.Interface) {
	core := client.CoreV1()
	if _, err := core.Services("default").Create(t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "front"},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Port: 80}}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool {
		s, err := core.Services("default").Get(t.Context(), "front", metav1.GetOptions{})
		return err == nil && len(s.Status.LoadBalancer.Ingress) == 1 && s.Status.LoadBalancer.Ingress[0].IP == s.Spec.ClusterIP
	})

	if _, err := core.PersistentVolumeClaims("default").Create(t.Context(), &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: "data"},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool {
		c, err := core.PersistentVolumeClaims("default").Get(t.Context(), "data", metav1.GetOptions{})
		return err == nil && c.Status.Phase == corev1.ClaimBound
	})
	if err := core.PersistentVolumeClaims("default").Delete(t.Context(), "data", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool {
		volumes, err := core.PersistentVolumes().List(t.Context(), metav1.ListOptions{})
		return err == nil && len(volumes.Items) == 0
	})
}

// testGarbage: what belongs to something deleted goes with it, and a deleted namespace takes all it holds.
func testGarbage(t *testing.T, client kubernetes.Interface) {
	apps, core := client.AppsV1(), client.CoreV1()
	applyDeployment(t, client, deployment{name: "short-lived", image: "app:1"})
	awaitAvailable(t, client, "short-lived", 3)
	if err := apps.Deployments("default").Delete(t.Context(), "short-lived", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool {
		pods, err := core.Pods("default").List(t.Context(), metav1.ListOptions{LabelSelector: "app=short-lived"})
		return err == nil && len(pods.Items) == 0
	})

	if _, err := core.Namespaces().Create(t.Context(), namespaceOf("gone"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool {
		_, err := core.ServiceAccounts("gone").Get(t.Context(), "default", metav1.GetOptions{})
		_, err2 := core.ConfigMaps("gone").Get(t.Context(), "kube-root-ca.crt", metav1.GetOptions{})
		return err == nil && err2 == nil
	})
	if err := core.Namespaces().Delete(t.Context(), "gone", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool {
		_, err := core.Namespaces().Get(t.Context(), "gone", metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
}

// testAdmission: validating admission policies are in force.
func testAdmission(t *testing.T, client kubernetes.Interface) {
	admission := client.AdmissionregistrationV1()
	policy := &admissionv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "no-secrets-named-forbidden"},
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{
				RuleWithOperations: admissionv1.RuleWithOperations{
					Operations: []admissionv1.OperationType{admissionv1.Create},
					Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"secrets"}},
				},
			}}},
			Validations: []admissionv1.Validation{{Expression: "object.metadata.name != 'forbidden'"}},
		},
	}
	if _, err := admission.ValidatingAdmissionPolicies().Create(t.Context(), policy, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	binding := &admissionv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: policy.Name},
		Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: policy.Name, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
		},
	}
	if _, err := admission.ValidatingAdmissionPolicyBindings().Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool {
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "forbidden"}}
		_, err := client.CoreV1().Secrets("default").Create(t.Context(), secret, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err != nil && strings.Contains(err.Error(), policy.Name)
	})
}

// testServiceAccount: a token acts with the rights of its account and no others.
func testServiceAccount(t *testing.T, in installation, admin kubernetes.Interface) {
	if out, err := in.try("kubeconfig", "one", "--service-account", "default/agent"); err == nil || !strings.Contains(out, "create it first") {
		t.Fatalf("an account that does not exist: %v, %s", err, out)
	}
	if out, err := in.try("kubeconfig", "one", "--service-account", "agent"); err == nil || !strings.Contains(out, "namespace/name") {
		t.Fatalf("no namespace: %v, %s", err, out)
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "agent"}}
	if _, err := admin.CoreV1().ServiceAccounts("default").Create(t.Context(), account, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	agent := clientFor(t, strings.TrimSpace(in.must(t, "kubeconfig", "one", "--service-account", "default/agent")))
	if _, err := agent.CoreV1().Secrets("default").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Fatalf("without a role: %v, want forbidden", err)
	}
	if _, err := admin.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "agent"},
		RoleRef:    rbacv1.RoleRef{APIGroup: "rbac.authorization.k8s.io", Kind: "ClusterRole", Name: "admin"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "default", Name: "agent"}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool {
		_, err := agent.CoreV1().Secrets("default").List(t.Context(), metav1.ListOptions{})
		return err == nil
	})
}
