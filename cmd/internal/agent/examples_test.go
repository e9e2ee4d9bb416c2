// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"context"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/examples"
)

// example as a user takes it: the payload committed, the rollout applied with kubectl.
type example struct {
	*one
	folder  string
	url     string // as the example has it
	rollout *v1alpha1.FleetRollout
}

// apply examples/<folder>. Its repository is named as its URL ends.
func (o *one) example(folder string, change func(*v1alpha1.FleetRollout)) *example {
	o.t.Helper()
	e := &example{one: o, folder: folder, rollout: &v1alpha1.FleetRollout{}}
	body, err := examples.Files.ReadFile(folder + "/rollout.yaml")
	o.must(err)
	o.must(yaml.UnmarshalStrict(body, e.rollout))
	e.url = e.rollout.Spec.Source.Git.URL
	e.commit("the example", nil)
	e.rollout.Spec.Source.Git.URL = o.git.URL(e.repository())
	if change != nil {
		change(e.rollout)
	}
	o.must(o.member.Tenant(o.t.Context(), e.rollout.Namespace))
	o.must(o.client.Create(o.t.Context(), e.rollout))
	o.t.Cleanup(func() {
		if o.t.Failed() {
			_ = o.client.Get(context.WithoutCancel(o.t.Context()), client.ObjectKeyFromObject(e.rollout), e.rollout)
			o.t.Logf("status: %+v", e.rollout.Status)
		}
	})
	return e
}

func (e *example) repository() string {
	return e.url[strings.LastIndexByte(e.url, '/')+1:]
}

// commit the payload with some of its files changed.
func (e *example) commit(message string, change func(files map[string]string)) {
	e.t.Helper()
	files := map[string]string{}
	root := e.folder + "/payload"
	e.must(fs.WalkDir(examples.Files, root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		body, err := examples.Files.ReadFile(path)
		files[strings.TrimPrefix(path, root+"/")] = string(body)
		return err
	}))
	if change != nil {
		change(files)
	}
	_, err := e.git.Commit(e.t.Context(), e.repository(), "main", message, files)
	e.must(err)
}

// awaitObject until check finds nothing wrong.
func (e *example) awaitObject(o client.Object, name string, check func() error) {
	e.t.Helper()
	e.await(fmt.Sprintf("%T %s", o, name), func() error {
		if err := e.kube.Get(e.t.Context(), client.ObjectKey{Namespace: e.rollout.Namespace, Name: name}, o); err != nil {
			return err
		}
		return check()
	})
}

func (e *example) awaitData(name string, want map[string]string) {
	e.t.Helper()
	found := &corev1.ConfigMap{}
	e.awaitObject(found, name, func() error { return hasAll(found.Data, want) })
}

func hasAll(have, want map[string]string) error {
	for key, value := range want {
		if have[key] != value {
			return fmt.Errorf("%s is %q, not %q", key, have[key], value)
		}
	}
	return nil
}

func (e *example) look(n string) { e.annotate(e.rollout, v1alpha1.AnnotationReconcile, n) }

// Each example is what it says it is, on a real API server.
func TestExamples(t *testing.T) {
	o := startOne(t)
	t.Run("single", func(t *testing.T) { o.in(t).single() })
	t.Run("regions", func(t *testing.T) { o.in(t).regions() })
	t.Run("helm", func(t *testing.T) { o.in(t).helm() })
	t.Run("chart repository", func(t *testing.T) { o.in(t).chartRepository() })
	t.Run("private repository", func(t *testing.T) { o.in(t).privateRepository() })
}

func (o *one) in(t *testing.T) *one {
	inner := *o
	inner.t = t
	return &inner
}

func (o *one) single() {
	e := o.example("single", func(r *v1alpha1.FleetRollout) { r.Spec.Targets.Names = []string{"solo"} })
	e.awaitData("notes", map[string]string{"todo": "water the plants"})
	e.awaitReason(e.rollout, v1alpha1.ConditionReady, v1alpha1.ReasonRolloutComplete)
	e.commit("another note, and the first one gone", func(files map[string]string) {
		files["more.yaml"] = strings.ReplaceAll(files["notes.yaml"], "notes", "more")
		delete(files, "notes.yaml")
	})
	e.look("1")
	e.awaitData("more", map[string]string{"todo": "water the plants"})
	e.await("the first note to be pruned", func() error {
		_, err := e.member.Client.CoreV1().ConfigMaps("home").Get(e.t.Context(), "notes", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("still there: %w", err)
	})
}

// regions: solo is in eu and labelled flagship.
func (o *one) regions() {
	e := o.example("regions", nil)
	web := &appsv1.Deployment{}
	config := ""
	e.awaitObject(web, "shop", func() error {
		spec := web.Spec.Template.Spec.Containers[0]
		config = spec.EnvFrom[0].ConfigMapRef.Name
		if *web.Spec.Replicas != 5 || spec.Image != "registry.example.com/shop:2.3.1" || web.Spec.Template.Annotations["prometheus.io/scrape"] != "true" {
			return fmt.Errorf("%d replicas of %s, annotations %v", *web.Spec.Replicas, spec.Image, web.Spec.Template.Annotations)
		}
		return nil
	})
	if config == "shop" {
		e.t.Error("the ConfigMap's name has no hash")
	}
	e.awaitData(config, map[string]string{"cluster": "solo", "tier": "flagship", "team": "storefront", "currency": "EUR"})
	e.awaitReason(e.rollout, v1alpha1.ConditionReady, v1alpha1.ReasonRolloutComplete)
}

// helm: the hook's Job first, then the rest with the region's values; then a value of the cluster's own.
func (o *one) helm() {
	e := o.example("helm", nil)
	e.awaitData("orders", map[string]string{"host": "orders.eu.example.com", "currency": "EUR"})
	migrated := &batchv1.Job{}
	e.awaitObject(migrated, "orders-migrate", func() error {
		if migrated.Status.Succeeded != 1 {
			return fmt.Errorf("the Job is %+v", migrated.Status)
		}
		return nil
	})
	web := &appsv1.Deployment{}
	e.awaitObject(web, "orders", func() error {
		if migrated.Status.CompletionTime.After(web.CreationTimestamp.Time) {
			return fmt.Errorf("the Deployment was there at %s, the migration done at %s", web.CreationTimestamp, migrated.Status.CompletionTime)
		}
		if *web.Spec.Replicas != 1 {
			return fmt.Errorf("%d replicas, the override for small clusters says 1", *web.Spec.Replicas)
		}
		return nil
	})
	e.awaitReason(e.rollout, v1alpha1.ConditionReady, v1alpha1.ReasonRolloutComplete)
	_, err := e.member.Client.CoreV1().ConfigMaps("orders").Create(e.t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "orders-values"},
		Data:       map[string]string{"values.yaml": "currency: CHF\n"},
	}, metav1.CreateOptions{})
	e.must(err)
	e.look("1")
	e.awaitData("orders", map[string]string{"currency": "CHF"})
	e.awaitObject(migrated, "orders-migrate", func() error { return nil })
	ran := migrated.UID
	e.commit("orders 3.2.0", func(files map[string]string) {
		files["Chart.yaml"] = strings.ReplaceAll(files["Chart.yaml"], "3.1.0", "3.2.0")
	})
	e.look("2")
	e.awaitObject(web, "orders", func() error {
		if image := web.Spec.Template.Spec.Containers[0].Image; image != "registry.example.com/orders:3.2.0" {
			return fmt.Errorf("it runs %s", image)
		}
		return nil
	})
	e.awaitObject(migrated, "orders-migrate", func() error {
		if migrated.UID == ran {
			return fmt.Errorf("the migration did not run again for the new release")
		}
		return nil
	})
	e.commit("values that the chart's schema refuses", func(files map[string]string) {
		files["regions/eu.yaml"] += "migrate: perhaps\n"
	})
	e.look("3")
	got := e.awaitReason(e.rollout, v1alpha1.ConditionApplied, v1alpha1.ReasonValuesInvalid)
	if !strings.Contains(got.Message, "migrate") {
		e.t.Errorf("the message names no value: %s", got.Message)
	}
	e.awaitData("orders", map[string]string{"currency": "CHF"}) // what ran is left as it was
}
