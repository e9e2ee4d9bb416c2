// SPDX-License-Identifier: Apache-2.0

package kube_test

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/delivery"
)

func (s *site) health() delivery.Health {
	s.Helper()
	h, err := s.cluster.Health(context.Background(), s.rollout(), "flotilla")
	if err != nil {
		s.Fatal(err)
	}
	return h
}

// bad pods never get ready.
func bad(deployment string) string {
	return strings.ReplaceAll(deployment, `"web:1"`, `"web:bad"`)
}

func TestHealthOfADeployment(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.deliver(s.release("1", settings, secret, web))
	s.eventually("healthy", func() bool {
		h := s.health()
		return h.State == delivery.Healthy && h.Ready == 3 && h.Total == 3 && h.Because == ""
	})

	// A release that does not get well, while the pods of the last one still run.
	s.deliver(s.release("2", settings, secret, bad(web)))
	s.eventually("progressing", func() bool {
		h := s.health()
		return h.State == delivery.Progressing && h.Ready == 2 && strings.HasPrefix(h.Because, "Deployment "+s.namespace+"/web: ") &&
			!strings.Contains(h.Because, "2 of 2 ready")
	})
	for _, o := range s.health().Objects {
		if deployment := o.Object.Kind == "Deployment"; (o.State == delivery.Healthy) == deployment || (o.Because == "") == deployment {
			t.Errorf("%+v", o)
		}
	}

	// None of its pods ready, and its own deadline over.
	slow := strings.NewReplacer("name: web, c", "name: slow, c", "app: web", "app: slow", "replicas: 2", "replicas: 2\n  progressDeadlineSeconds: 1").Replace(bad(web))
	s.deliver(s.release("3", settings, secret, slow))
	s.eventually("failed", func() bool {
		h := s.health()
		return h.State == delivery.Failed &&
			strings.HasPrefix(h.Because, "Deployment "+s.namespace+"/slow: 0 of 2 ready, Progress deadline exceeded")
	})

	// It leaves the manifest and may not be deleted: it is no matter of the new release's health.
	r := s.release("4", settings, secret)
	r.Prune = false
	s.deliver(r)
	if h := s.health(); h.State != delivery.Healthy || h.Ready != 2 || h.Total != 2 || len(h.Objects) != 2 {
		t.Errorf("%+v", h)
	}
}

func TestHealthOfACustomKind(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.allowEverywhere("flotilla")
	group := s.namespace + ".example.com"
	s.dropCRD(group)
	s.deliver(s.release("1", crd(group, "size"), shop(group, "corner", "size")))
	id := delivery.ObjectID{Group: group, Version: "v1", Kind: "Shop", Namespace: s.namespace, Name: "corner"}
	condition := func(kind, status, message string) {
		t.Helper()
		o := s.get(id)
		conditions := []any{map[string]any{"type": kind, "status": status, "reason": "Because", "message": message}}
		if err := unstructured.SetNestedSlice(o.Object, conditions, "status", "conditions"); err != nil {
			t.Fatal(err)
		}
		if err := s.admin.Status().Update(context.Background(), o); err != nil {
			t.Fatal(err)
		}
	}
	if h := s.health(); h.State != delivery.Healthy {
		t.Errorf("without conditions: %+v", h)
	}
	for _, tc := range []struct {
		kind, status, message string
		want                  delivery.HealthState
		because               string
	}{
		{"Ready", "True", "", delivery.Healthy, ""},
		{"Ready", "False", "shelves are empty", delivery.Progressing, "Shop " + s.namespace + "/corner: shelves are empty"},
		{"Stalled", "True", "no licence", delivery.Failed, "Shop " + s.namespace + "/corner: no licence"},
		{"Reconciling", "True", "opening", delivery.Progressing, "Shop " + s.namespace + "/corner: opening"},
	} {
		condition(tc.kind, tc.status, tc.message)
		if h := s.health(); h.State != tc.want || h.Because != tc.because {
			t.Errorf("%s=%s: %+v", tc.kind, tc.status, h)
		}
	}
}

func TestHealthNamesTheFirstTwo(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	var manifests []string
	for _, name := range []string{"a", "b", "c", "d"} {
		manifests = append(manifests, strings.Replace(settings, "settings", name, 1))
	}
	s.deliver(s.release("1", manifests...))
	for _, name := range []string{"b", "c", "d"} {
		s.remove(s.configMap(name))
	}
	want := delivery.Health{
		Ready: 1, Total: 4,
		Because: "ConfigMap " + s.namespace + "/b: is not there; ConfigMap " + s.namespace + "/c: is not there; and 1 more",
	}
	for _, name := range []string{"a", "b", "c", "d"} {
		o := delivery.ObjectHealth{Object: s.configMap(name), State: delivery.Healthy}
		if name != "a" {
			o.State, o.Because, o.Missing = delivery.Progressing, "is not there", true
		}
		want.Objects = append(want.Objects, o)
	}
	if diff := cmp.Diff(want, s.health()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestHealthOfWhatIsBeingDeleted(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	held := strings.Replace(settings, "name: settings", "name: settings, finalizers: [example.com/held]", 1)
	s.deliver(s.release("1", held))
	if err := s.admin.Delete(context.Background(), s.get(s.configMap("settings"))); err != nil {
		t.Fatal(err)
	}
	if h := s.health(); h.State != delivery.Progressing || h.Because != "ConfigMap "+s.namespace+"/settings: is being deleted" {
		t.Errorf("%+v", h)
	}
	o := s.get(s.configMap("settings"))
	o.SetFinalizers(nil)
	s.put(o)
}

func TestHealthIsReadAsTheAccount(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.deliver(s.release("1", settings))
	_, err := s.cluster.Health(context.Background(), s.rollout(), "default")
	s.wantError(err, fleet.Refused, v1alpha1.ReasonForbidden, "cannot impersonate")
	_, err = s.cluster.Health(context.Background(), s.rollout(), "nobody")
	s.wantError(err, fleet.Refused, v1alpha1.ReasonServiceAccountNotFound, s.namespace+"/nobody is not here")
	for _, name := range []string{"", "a:b", "../flotilla", "system:masters"} {
		_, err = s.cluster.Health(context.Background(), s.rollout(), name)
		s.wantError(err, fleet.Refused, v1alpha1.ReasonServiceAccountNotFound, "is no service account")
	}
}
