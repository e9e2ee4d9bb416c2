// SPDX-License-Identifier: Apache-2.0

package kube_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/flotilla-dev/flotilla/api/apitest"
	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/delivery"
	"github.com/flotilla-dev/flotilla/delivery/deliverytest"
	"github.com/flotilla-dev/flotilla/delivery/kube"
)

func TestMain(m *testing.M) {
	log.SetLogger(logr.Discard())
	apitest.Main(m)
}

// site is a real API server with a namespace of the test's own, and the agent's real identity in front of it.
type site struct {
	*testing.T
	server    *apitest.Server
	cluster   *kube.Cluster
	admin     client.Client
	namespace string
}

// newSite has a service account "flotilla" that may do everything in its namespace, and nothing outside.
func newSite(t *testing.T) *site {
	t.Helper()
	server := apitest.Start(t)
	admin, err := client.New(server.Config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := &site{
		T: t, server: server, admin: admin, namespace: apitest.Namespace(t),
		cluster: &kube.Cluster{Config: server.AgentConfig(t), Timeout: 10 * time.Second},
	}
	s.account("flotilla")
	s.allow("flotilla", everything)
	server.AwaitAllowed(t, s.namespace, "flotilla", authorizationv1.ResourceAttributes{Verb: "*", Group: "*", Resource: "*", Namespace: s.namespace})
	return s
}

func (s *site) account(name string) {
	s.Helper()
	s.create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: name}})
}

func (s *site) create(o client.Object) {
	s.Helper()
	if err := s.admin.Create(context.Background(), o); err != nil {
		s.Fatal(err)
	}
}

// allow an account something in its namespace.
func (s *site) allow(account string, rules ...rbacv1.PolicyRule) {
	s.Helper()
	meta := metav1.ObjectMeta{Namespace: s.namespace, GenerateName: account + "-"}
	role := &rbacv1.Role{ObjectMeta: meta, Rules: rules}
	s.create(role)
	s.create(&rbacv1.RoleBinding{
		ObjectMeta: meta, Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: account, Namespace: s.namespace}},
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role.Name},
	})
}

// allowEverywhere allows an account everything in the whole cluster.
func (s *site) allowEverywhere(account string) {
	s.Helper()
	name := s.namespace + "-" + account
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: []rbacv1.PolicyRule{everything}}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Name: account, Namespace: s.namespace}},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
	}
	s.create(role)
	s.create(binding)
	s.server.AwaitAllowed(s, s.namespace, account, authorizationv1.ResourceAttributes{Verb: "*", Group: "*", Resource: "*"})
	s.Cleanup(func() {
		if err := errors.Join(s.admin.Delete(context.Background(), role), s.admin.Delete(context.Background(), binding)); err != nil {
			s.Error(err)
		}
	})
}

func (s *site) rollout() fleet.RolloutName {
	return fleet.RolloutName{Namespace: s.namespace, Name: "podinfo"}
}

// release of manifests, one document each.
func (s *site) release(revision string, manifests ...string) delivery.Release {
	r := delivery.Release{
		Rollout: s.rollout(), Revision: fleet.Revision("main@sha1:" + revision), ServiceAccount: "flotilla",
		Plan:   fleet.DigestOf("plan", []byte(revision)),
		Digest: fleet.DigestOf("manifest", []byte(strings.Join(manifests, "---"))),
		Prune:  true, MaxPruneObjects: 10, MaxPrunePercent: 50,
	}
	for _, m := range manifests {
		r.Objects = append(r.Objects, deliverytest.Object(strings.ReplaceAll(m, "NAMESPACE", s.namespace)))
	}
	return r
}

func (s *site) deliver(r delivery.Release) delivery.Outcome {
	s.Helper()
	outcome, err := s.cluster.Deliver(context.Background(), r)
	if err != nil {
		s.Fatalf("%s: %v\n%+v", r.Revision, err, outcome.Changes)
	}
	return outcome
}

func (s *site) wantSummary(o delivery.Outcome, want string) {
	s.Helper()
	if o.Summary() != want {
		s.Errorf("got %q, want %q: %+v", o.Summary(), want, o.Changes)
	}
}

func (s *site) wantError(err error, kind fleet.ErrorKind, reason string, words ...string) {
	s.Helper()
	if err == nil {
		s.Fatalf("no error, want %s", reason)
	}
	if fleet.KindOf(err) != kind || fleet.ReasonOf(err, "") != reason {
		s.Errorf("got kind %d, reason %s; want kind %d, reason %s: %v", fleet.KindOf(err), fleet.ReasonOf(err, ""), kind, reason, err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			s.Errorf("got %v, want %q in it", err, w)
		}
	}
}

// get reads as the administrator; nil where there is nothing.
func (s *site) get(id delivery.ObjectID) *unstructured.Unstructured {
	s.Helper()
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(schema.GroupVersionKind{Group: id.Group, Version: id.Version, Kind: id.Kind})
	err := s.admin.Get(context.Background(), client.ObjectKey{Namespace: id.Namespace, Name: id.Name}, o)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		s.Fatal(err)
	}
	return o
}

func (s *site) configMap(name string) delivery.ObjectID {
	return delivery.ObjectID{Version: "v1", Kind: "ConfigMap", Namespace: s.namespace, Name: name}
}

// put writes as somebody else.
func (s *site) put(o *unstructured.Unstructured) {
	s.Helper()
	if err := s.admin.Update(context.Background(), o, client.FieldOwner("somebody")); err != nil {
		s.Fatal(err)
	}
}

// remove deletes as somebody else, and waits until the object is gone.
func (s *site) remove(id delivery.ObjectID) {
	s.Helper()
	o := s.get(id)
	if o == nil {
		s.Fatalf("%s is not there", id)
	}
	if err := s.admin.Delete(context.Background(), o); err != nil {
		s.Fatal(err)
	}
	s.eventually(id.String()+" is gone", func() bool { return s.get(id) == nil })
}

// finish a Job whose pods find no node, as a kubelet would.
func (s *site) finish(id delivery.ObjectID, failed bool) {
	s.Helper()
	phase, condition := corev1.PodSucceeded, "Complete"
	if failed {
		phase, condition = corev1.PodFailed, "Failed"
	}
	s.eventually(id.String()+" is "+condition, func() bool {
		pods := &corev1.PodList{}
		if err := s.admin.List(context.Background(), pods, client.InNamespace(id.Namespace), client.MatchingLabels{"job-name": id.Name}); err != nil {
			s.Fatal(err)
		}
		for _, pod := range pods.Items {
			if pod.Status.Phase != phase {
				pod.Status.Phase = phase
				if err := s.admin.Status().Update(context.Background(), &pod); err != nil && !apierrors.IsConflict(err) {
					s.Fatal(err)
				}
			}
		}
		conditions, _, _ := unstructured.NestedSlice(s.get(id).Object, "status", "conditions")
		return slices.ContainsFunc(conditions, func(c any) bool {
			m, _ := c.(map[string]any)
			return m["type"] == condition && m["status"] == "True"
		})
	})
}

func (s *site) eventually(what string, is func() bool) {
	s.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !is() {
		if time.Now().After(deadline) {
			s.Fatalf("waited for: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// versions of all that the namespace's rollouts have, and of all ConfigMaps that are made in it, in lines.
func (s *site) versions() string {
	s.Helper()
	var lines []string
	add := func(o *unstructured.Unstructured) {
		if o != nil && o.GetKind() == "Job" {
			// Its status moves when it likes.
			lines = append(lines, fmt.Sprintf("Job %s/%s %s %d %v", o.GetNamespace(), o.GetName(), o.GetUID(), o.GetGeneration(), o.GetAnnotations()))
		} else if o != nil {
			lines = append(lines, fmt.Sprintf("%s %s/%s %s", o.GetKind(), o.GetNamespace(), o.GetName(), o.GetResourceVersion()))
		}
	}
	for _, namespace := range []string{s.namespace, kube.DefaultNamespace} {
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(schema.GroupVersionKind{Version: "v1", Kind: "ConfigMapList"})
		if err := s.admin.List(context.Background(), list, client.InNamespace(namespace)); err != nil {
			s.Fatal(err)
		}
		for _, o := range list.Items {
			if o.GetName() == "kube-root-ca.crt" {
				continue // the server's own, which comes when it comes
			}
			if namespace == s.namespace || strings.Contains(o.GetName(), s.namespace) {
				add(&o)
			}
		}
	}
	have, err := s.cluster.Inventory(context.Background(), s.rollout())
	if err != nil {
		s.Fatal(err)
	}
	for _, id := range slices.Concat(have.Objects, have.Left) {
		if id.Kind != "ConfigMap" {
			add(s.get(id))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func TestKubeConforms(t *testing.T) {
	t.Parallel()
	deliverytest.Conformance(t, func(t *testing.T) deliverytest.World {
		s := newSite(t)
		return deliverytest.World{
			Deliverer: s.cluster, Namespace: s.namespace, Get: s.get, Put: s.put, Remove: s.remove, Finish: s.finish, Versions: s.versions,
		}
	})
}

// apitestNamespace is one more namespace of the test's own, without an account.
func apitestNamespace(s *site) string { return apitest.Namespace(s.T) }

func clientKey(namespace, name string) client.ObjectKey {
	return client.ObjectKey{Namespace: namespace, Name: name}
}
