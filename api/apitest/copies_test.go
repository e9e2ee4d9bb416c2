// SPDX-License-Identifier: Apache-2.0

package apitest_test

import (
	"context"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flotilla-dev/flotilla/api/apitest"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

func rolloutOf(namespace, name string) *v1alpha1.FleetRollout {
	r := &v1alpha1.FleetRollout{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	r.Spec.Source.Git = &v1alpha1.GitSource{URL: "https://git.example.com/podinfo"}
	r.Spec.Targets.Names = []string{"*"}
	return r
}

func memberOf(name string) *v1alpha1.FleetMember {
	m := &v1alpha1.FleetMember{ObjectMeta: metav1.ObjectMeta{Name: name}}
	m.Spec.PeerID = "12D3KooWD3bfmNbuuuVCYwkjnFt3ukm3qaB3hDED3peHHXawvRAi"
	return m
}

func eventually(t *testing.T, what string, do func() error) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		err := do()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited for: %s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// asCopy marks an object as the agent does.
func asCopy(o client.Object, origin, home string) {
	o.SetLabels(map[string]string{v1alpha1.LabelOrigin: origin})
	o.SetAnnotations(map[string]string{v1alpha1.AnnotationHome: home})
}

// policyInForce waits until the policy is in force: the server takes it in a moment after it was made.
func policyInForce(t *testing.T, admin client.Client, namespace string) {
	t.Helper()
	eventually(t, "the policy is in force", func() error {
		probe := rolloutOf(namespace, "probe")
		asCopy(probe, v1alpha1.OriginMember, "nowhere")
		err := admin.Create(context.Background(), probe, client.DryRunAll)
		if apierrors.IsForbidden(err) {
			return nil
		}
		return context.DeadlineExceeded
	})
}

func TestCopiesAreReadOnly(t *testing.T) {
	ctx := context.Background()
	s := apitest.Start(t)
	admin, agent := newClient(t, s.Config), newClient(t, s.AgentConfig(t))
	ns := apitest.Namespace(t)
	policyInForce(t, admin, ns)
	const home = "ssh://git.example/fleet (rollouts/podinfo.yaml, commit 77ab01c)"
	made := rolloutOf(ns, "podinfo")
	asCopy(made, v1alpha1.OriginRepository, home)
	mustCreate(t, agent, made)
	is := "this is a copy: podinfo comes from " + home + "; "

	// edit what is there, as the administrator, and say what should be answered.
	edit := func(name, want string, change func(*unstructured.Unstructured)) {
		t.Helper()
		r := object(v1alpha1.GroupVersion.String(), "FleetRollout", ns, "podinfo")
		if err := admin.Get(ctx, client.ObjectKey{Namespace: ns, Name: "podinfo"}, r); err != nil {
			t.Fatal(err)
		}
		change(r)
		wantAnswer(t, name, admin.Update(ctx, r), want)
	}
	set := func(value any, path ...string) func(*unstructured.Unstructured) {
		return func(o *unstructured.Unstructured) {
			if err := unstructured.SetNestedField(o.Object, value, path...); err != nil {
				t.Fatal(err)
			}
		}
	}
	drop := func(path ...string) func(*unstructured.Unstructured) {
		return func(o *unstructured.Unstructured) { unstructured.RemoveNestedField(o.Object, path...) }
	}
	edit("spec", is+"change it there", set(true, "spec", "suspend"))
	edit("targets", is+"change it there", set([]any{"eu-1"}, "spec", "targets", "names"))
	edit("spec and origin at once", is+"change it there", func(o *unstructured.Unstructured) {
		set(true, "spec", "suspend")(o)
		set(v1alpha1.OriginLocal, "metadata", "labels", v1alpha1.LabelOrigin)(o)
	})
	origin := is + "its label fleet.flotilla.dev/origin is the agent's"
	edit("origin made local", origin, set(v1alpha1.OriginLocal, "metadata", "labels", v1alpha1.LabelOrigin))
	edit("origin removed", origin, drop("metadata", "labels"))
	edit("origin changed", origin, set(v1alpha1.OriginMember, "metadata", "labels", v1alpha1.LabelOrigin))
	at := is + "its annotation fleet.flotilla.dev/home is the agent's"
	edit("home changed", at, set("here", "metadata", "annotations", v1alpha1.AnnotationHome))
	edit("home removed", at, drop("metadata", "annotations"))
	edit("a pause passes", "", set("smoke", "metadata", "annotations", v1alpha1.AnnotationPause))
	edit("another label passes", "", set("web", "metadata", "labels", "team"))
	edit("nothing passes", "", func(*unstructured.Unstructured) {})
	status := &v1alpha1.FleetRollout{}
	if err := admin.Get(ctx, client.ObjectKey{Namespace: ns, Name: "podinfo"}, status); err != nil {
		t.Fatal(err)
	}
	status.Status.ObservedGeneration = 7
	wantAnswer(t, "status passes", admin.Status().Update(ctx, status), "")

	// The agent writes it.
	if err := agent.Get(ctx, client.ObjectKey{Namespace: ns, Name: "podinfo"}, made); err != nil {
		t.Fatal(err)
	}
	made.Spec.Suspend = true
	made.Annotations[v1alpha1.AnnotationHome] = "elsewhere"
	wantAnswer(t, "the agent", agent.Update(ctx, made), "")
	edit("the new home is named", "this is a copy: podinfo comes from elsewhere; change it there", set(false, "spec", "suspend"))
	wantAnswer(t, "deleting passes", admin.Delete(ctx, made), "")
}

func TestOnlyTheAgentMakesCopies(t *testing.T) {
	ctx := context.Background()
	s := apitest.Start(t)
	admin, agent := newClient(t, s.Config), newClient(t, s.AgentConfig(t))
	ns := apitest.Namespace(t)
	policyInForce(t, admin, ns)
	const words = "the label fleet.flotilla.dev/origin marks copies, which only the agent makes; leave it out"
	forged := rolloutOf(ns, "forged")
	asCopy(forged, v1alpha1.OriginMember, "member eu-1")
	wantAnswer(t, "a copy made by hand", admin.Create(ctx, forged), words)
	own := rolloutOf(ns, "own")
	own.Labels = map[string]string{v1alpha1.LabelOrigin: v1alpha1.OriginLocal}
	wantAnswer(t, "local", admin.Create(ctx, own), "")
	own.Spec.Suspend = true
	wantAnswer(t, "one's own spec", admin.Update(ctx, own), "")
	own.Labels = nil
	wantAnswer(t, "local left out", admin.Update(ctx, own), "")
	own.Labels = map[string]string{v1alpha1.LabelOrigin: v1alpha1.OriginRepository}
	wantAnswer(t, "made a copy by hand", admin.Update(ctx, own), words)

	member := memberOf("copy-" + ns)
	asCopy(member, v1alpha1.OriginRepository, "ssh://git.example/fleet")
	mustCreate(t, agent, member)
	t.Cleanup(func() {
		if err := admin.Delete(ctx, member); err != nil {
			t.Error(err)
		}
	})
	changed := member.DeepCopy()
	changed.Spec.Zone = "elsewhere"
	wantAnswer(t, "a member's spec", admin.Update(ctx, changed), "this is a copy: "+member.Name+" comes from ssh://git.example/fleet; change it there")
	noHome := memberOf("nohome-" + ns)
	noHome.Labels = map[string]string{v1alpha1.LabelOrigin: v1alpha1.OriginMember}
	mustCreate(t, agent, noHome)
	noHome.Spec.Zone = "elsewhere"
	wantAnswer(t, "a copy without a word of its home", admin.Update(ctx, noHome), "comes from another member; change it there")
	wantAnswer(t, "deleting passes", admin.Delete(ctx, noHome), "")
}

func wantAnswer(t *testing.T, what string, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("%s: %v", what, err)
	case want != "" && (!apierrors.IsForbidden(err) || !strings.Contains(err.Error(), want)):
		t.Errorf("%s: got %v, want Forbidden with %q", what, err, want)
	}
}
