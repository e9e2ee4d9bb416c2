// SPDX-License-Identifier: Apache-2.0

package kube_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/delivery"
	"github.com/flotilla-dev/flotilla/delivery/kube"
)

// annotate a manifest that is written in one line.
func annotate(manifest, key, value string) string {
	if strings.Contains(manifest, "annotations: {") {
		return strings.Replace(manifest, "annotations: {", fmt.Sprintf("annotations: {%s: %q, ", key, value), 1)
	}
	return strings.Replace(manifest, "metadata: {", fmt.Sprintf("metadata: {annotations: {%s: %q}, ", key, value), 1)
}

func inWave(wave, manifest string) string { return annotate(manifest, v1alpha1.AnnotationWave, wave) }

func forced(manifest string) string {
	return annotate(manifest, v1alpha1.AnnotationForce, v1alpha1.ForceEnabled)
}

func migration(image string) string {
	return fmt.Sprintf(`{apiVersion: batch/v1, kind: Job, metadata: {name: migrate}, spec: {backoffLimit: 0, template: {spec: {restartPolicy: Never, containers: [{name: main, image: %q}]}}}}`, image)
}

func (s *site) jobID() delivery.ObjectID {
	return delivery.ObjectID{Group: "batch", Version: "v1", Kind: "Job", Namespace: s.namespace, Name: "migrate"}
}

// untilDone delivers as an agent does, turn after turn.
func (s *site) untilDone(r delivery.Release) {
	s.Helper()
	s.eventually(string(r.Revision)+" came to its end", func() bool { return s.deliver(r).Waiting == "" })
}

// TestWavesByThemselves: the cluster's own controllers make the waves ready, a Deployment and a Job that really run.
func TestWavesByThemselves(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	r := s.release("1", inWave("-1", web), inWave("1", migration("app:1")), inWave("2", settings))
	outcome := s.deliver(r)
	if !strings.HasPrefix(outcome.Waiting, "wave -1 is not ready: Deployment "+s.namespace+"/web: 0 of 2 ready") {
		t.Errorf("waits for %q", outcome.Waiting)
	}
	if s.get(s.jobID()) != nil || s.get(s.configMap("settings")) != nil {
		t.Error("a later wave is there")
	}
	s.untilDone(r)
	if h := s.health(); h.State != delivery.Progressing && h.State != delivery.Healthy || s.get(s.configMap("settings")) == nil {
		t.Errorf("%+v", h)
	}
	s.eventually("healthy", func() bool { return s.health().State == delivery.Healthy })

	// A Job that fails is the end of it, in the server's own words.
	bad := s.release("2", inWave("-1", web), forced(inWave("1", migration("app:bad"))), inWave("2", strings.Replace(settings, `"1"`, `"2"`, 1)))
	s.eventually("failed", func() bool {
		s.deliver(bad)
		h := s.health()
		return h.State == delivery.Failed && strings.HasPrefix(h.Because, "Job "+s.namespace+"/migrate: failed: Job has reached the specified backoff limit")
	})
	if value, _, _ := unstructured.NestedString(s.get(s.configMap("settings")).Object, "data", "value"); value != "1" {
		t.Errorf("the wave after a failed one was applied: %s", value)
	}
}

// TestDriftWhileAWaveIsUnwell: what is there is put right at once, what is missing waits for its turn.
func TestDriftWhileAWaveIsUnwell(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	others := strings.Replace(settings, "settings", "others", 1)
	r := s.release("1", inWave("-1", web), settings, others)
	s.untilDone(r)
	s.eventually("healthy", func() bool { return s.health().State == delivery.Healthy })
	id := delivery.ObjectID{Group: "apps", Version: "v1", Kind: "Deployment", Namespace: s.namespace, Name: "web"}
	s.eventually("the deployment is unwell", func() bool {
		if d := s.get(id); d.GetAnnotations()["held"] == "" {
			// Pods that find no node. The field is not the release's, so it is no drift.
			d.SetAnnotations(map[string]string{"held": "yes", v1alpha1.AnnotationWave: "-1"})
			_ = unstructured.SetNestedStringMap(d.Object, map[string]string{"nobody": "has-this"}, "spec", "template", "spec", "nodeSelector")
			s.put(d)
		}
		return s.health().State == delivery.Progressing
	})
	s.edit(s.configMap("settings"), "edited")
	s.remove(s.configMap("others"))
	outcome := s.deliver(r)
	s.wantSummary(outcome, "1 configured, 1 unchanged")
	if !strings.Contains(outcome.Waiting, "wave -1 is not ready: Deployment") || s.get(s.configMap("others")) != nil {
		t.Errorf("waits for %q", outcome.Waiting)
	}
}

// TestDefinitionsComeWithTheirFirst: a namespace and a kind are there before what lives in them, whatever their wave.
func TestDefinitionsComeWithTheirFirst(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.allowEverywhere("flotilla")
	group := s.namespace + ".example.com"
	s.dropCRD(group)
	other := s.namespace + "-other"
	namespace := fmt.Sprintf(`{apiVersion: v1, kind: Namespace, metadata: {name: %s}}`, other)
	inside := fmt.Sprintf(`{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: %s}}`, other)
	late := fmt.Sprintf(`{apiVersion: v1, kind: Namespace, metadata: {name: %s-late}}`, s.namespace)
	r := s.release("1", crd(group, "size"), namespace, inWave("-5", inside), inWave("-7", shop(group, "corner", "size")), inWave("9", late))
	s.untilDone(r)
	s.wantSummary(s.deliver(r), "5 unchanged")
	for _, name := range []string{other, s.namespace + "-late"} {
		if err := s.admin.Delete(context.Background(), s.get(delivery.ObjectID{Version: "v1", Kind: "Namespace", Name: name})); err != nil {
			t.Fatal(err)
		}
	}
}

// TestWebhookOfAnEarlierWave: while what would judge a later wave is not up, that wave waits, and the release does not fail.
func TestWebhookOfAnEarlierWave(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.allowEverywhere("flotilla")
	held := strings.Replace(migration("app:1"), "restartPolicy", "nodeSelector: {nobody: has-this}, restartPolicy", 1)
	hook := fmt.Sprintf(`{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingWebhookConfiguration, metadata: {name: %[1]s},
	  webhooks: [{name: check.example.com, failurePolicy: Fail, sideEffects: None, admissionReviewVersions: [v1], timeoutSeconds: 1,
	    clientConfig: {service: {namespace: %[1]s, name: nobody}}, namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: %[1]s}},
	    rules: [{apiGroups: [""], apiVersions: [v1], resources: [configmaps], operations: [CREATE]}]}]}`, s.namespace)
	r := s.release("1", hook, held, inWave("1", settings))
	s.wantSummary(s.deliver(r), "2 created")
	s.eventually("the webhook is asked", func() bool {
		return strings.Contains(fmt.Sprint(s.admin.Create(context.Background(), s.unlabelled("probe"), client.DryRunAll)), "failed calling webhook")
	})
	outcome := s.deliver(r)
	s.wantSummary(outcome, "2 unchanged")
	if !strings.Contains(outcome.Waiting, "Job "+s.namespace+"/migrate: is not complete (") {
		t.Errorf("waits for %q", outcome.Waiting)
	}
	s.finish(s.jobID(), false)
	_, err := s.cluster.Deliver(context.Background(), r)
	s.wantError(err, fleet.Retryable, v1alpha1.ReasonApplyFailed, "ConfigMap "+s.namespace+"/settings: ", "failed calling webhook")
	s.deliver(s.release("2", held)) // takes the webhook out
}

// TestJobRunsAgain when it is changed and asks for that, and never because it is looked at again.
func TestJobRunsAgain(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	done := func() bool { return s.health().State == delivery.Healthy }
	s.deliver(s.release("1", forced(migration("app:1"))))
	s.eventually("complete", done)
	first := s.get(s.jobID()).GetUID()
	for range 3 {
		s.wantSummary(s.deliver(s.release("1", forced(migration("app:1")))), "1 unchanged")
	}
	_, err := s.cluster.Deliver(context.Background(), s.release("2", migration("app:2")))
	s.wantError(err, fleet.Terminal, v1alpha1.ReasonImmutableField, "Job "+s.namespace+"/migrate: ", "fleet.flotilla.dev/force: enabled")
	if s.get(s.jobID()).GetUID() != first {
		t.Fatal("made anew without being asked")
	}
	second := s.release("2", forced(migration("app:2")))
	s.untilDone(second)
	s.eventually("complete again", done)
	if job := s.get(s.jobID()); job.GetUID() == first {
		t.Error("it was not run again")
	}
	before := s.versions()
	if s.deliver(second); before != s.versions() {
		s.deliver(second) // the first one noted that the Job is complete
	}
	before = s.versions()
	s.wantSummary(s.deliver(second), "1 unchanged")
	if before != s.versions() {
		t.Error("written without a change")
	}
}

// TestJobWithATimeToLive is not run again when the cluster has cleaned it up.
func TestJobWithATimeToLive(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	r := s.release("1", strings.Replace(migration("app:1"), "spec: {", "spec: {ttlSecondsAfterFinished: 2, ", 1), inWave("1", settings))
	s.untilDone(r)
	s.eventually("the cluster has cleaned up", func() bool { return s.get(s.jobID()) == nil })
	s.wantSummary(s.deliver(r), "2 unchanged")
	if h := s.health(); h.State != delivery.Healthy || h.Ready != 2 {
		t.Errorf("%+v", h)
	}
}

// TestNothingIsDeletedForWhatIsRefused: the new object has to be one that the server would take.
func TestNothingIsDeletedForWhatIsRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.deliver(s.release("1", settings, service, migration("app:1")))
	uid := s.get(s.jobID()).GetUID()
	wrong := strings.Replace(migration("app:2"), "restartPolicy: Never", "restartPolicy: Never, activeDeadlineSeconds: -1", 1)
	_, err := s.cluster.Deliver(context.Background(), s.release("2", strings.Replace(settings, `"1"`, `"2"`, 1), service, forced(wrong)))
	s.wantError(err, fleet.Terminal, v1alpha1.ReasonInvalidManifest, "Job "+s.namespace+"/migrate: ", "activeDeadlineSeconds")
	if s.get(s.jobID()).GetUID() != uid {
		t.Error("deleted")
	}
	// What only looks at new objects is asked too: this pod is not for here, which its update alone does not show.
	pod := `{apiVersion: v1, kind: Pod, metadata: {name: root}, spec: {containers: [{name: main, image: "app:1"IMAGE}]}}`
	s.deliver(s.release("3", strings.Replace(pod, "IMAGE", "", 1)))
	id := delivery.ObjectID{Version: "v1", Kind: "Pod", Namespace: s.namespace, Name: "root"}
	uid = s.get(id).GetUID()
	s.eventually("the policy is in force", func() bool {
		namespace := s.get(delivery.ObjectID{Version: "v1", Kind: "Namespace", Name: s.namespace})
		labels := namespace.GetLabels()
		labels["pod-security.kubernetes.io/enforce"] = "baseline"
		namespace.SetLabels(labels)
		s.put(namespace)
		_, err = s.cluster.Deliver(context.Background(), s.release("4", forced(strings.Replace(pod, "IMAGE", ", securityContext: {privileged: true}", 1))))
		return err != nil
	})
	s.wantError(err, fleet.Refused, v1alpha1.ReasonApplyFailed, "Pod "+s.namespace+"/root: ", "violates PodSecurity")
	if s.get(id).GetUID() != uid {
		t.Error("deleted")
	}
}

// TestAFullQuotaIsNoReason not to make anew: what is deleted makes room.
func TestAFullQuotaIsNoReason(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	quota := `{apiVersion: v1, kind: ResourceQuota, metadata: {name: one}, spec: {hard: {count/jobs.batch: "1"}}}`
	s.deliver(s.release("1", quota, migration("app:1")))
	uid := s.get(s.jobID()).GetUID()
	s.eventually("the quota is full", func() bool {
		o := s.get(delivery.ObjectID{Version: "v1", Kind: "ResourceQuota", Namespace: s.namespace, Name: "one"})
		used, _, _ := unstructured.NestedString(o.Object, "status", "used", "count/jobs.batch")
		return used == "1"
	})
	second := s.release("2", quota, forced(migration("app:2")))
	s.eventually("made anew", func() bool {
		// The quota controller counts in its own time that the old one is gone.
		_, err := s.cluster.Deliver(context.Background(), second)
		job := s.get(s.jobID())
		return err == nil && job != nil && job.GetUID() != uid
	})
}

// TestMadeAnewTakesTheRightToDelete: an account that may not delete is told so before anything is written.
func TestMadeAnewTakesTheRightToDelete(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.account("poor")
	s.allow("poor", rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"get", "create", "patch"}})
	meta := metav1.ObjectMeta{Namespace: s.namespace, Name: "flotilla-as-poor"}
	s.create(&rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"serviceaccounts"}, ResourceNames: []string{"poor"}, Verbs: []string{"impersonate"}}}})
	s.create(&rbacv1.RoleBinding{
		ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: meta.Name},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: "flotilla-agent", Namespace: kube.DefaultNamespace}},
	})
	release := func(revision string) delivery.Release {
		r := s.release(revision, forced(fmt.Sprintf(`{apiVersion: v1, kind: ConfigMap, metadata: {name: fixed}, immutable: true, data: {value: %q}}`, revision)))
		r.ServiceAccount = "poor"
		return r
	}
	s.eventually("it may deliver", func() bool {
		_, err := s.cluster.Deliver(context.Background(), release("1"))
		return err == nil
	})
	before := s.versions()
	_, err := s.cluster.Deliver(context.Background(), release("2"))
	s.wantError(err, fleet.Refused, v1alpha1.ReasonForbidden, "ConfigMap "+s.namespace+"/fixed: ", "cannot delete resource")
	if before != s.versions() {
		t.Error("half applied")
	}
}
