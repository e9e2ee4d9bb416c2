// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/kwok/pkg/apis/internalversion"
	"sigs.k8s.io/kwok/pkg/utils/lifecycle"
)

// samplePod is a scheduled pod; ready is its condition, "" for none.
type samplePod struct {
	image, health, phase, ready string
	ofJob, deleted              bool
}

func (s samplePod) pod() *corev1.Pod {
	p := &corev1.Pod{
		Spec:   corev1.PodSpec{Containers: []corev1.Container{{Name: "sidecar", Image: "sidecar"}, {Name: "app", Image: s.image}}},
		Status: corev1.PodStatus{Phase: corev1.PodPhase(s.phase)},
	}
	if s.health != "" {
		p.Annotations = map[string]string{"devfleet.flotilla.dev/health": s.health}
	}
	if s.ready != "" {
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionStatus(s.ready)}}
	}
	if s.ofJob {
		p.OwnerReferences = []metav1.OwnerReference{{Kind: "Job"}}
	}
	if s.deleted {
		p.DeletionTimestamp = &metav1.Time{}
		*p.DeletionTimestamp = metav1.Unix(1, 0)
	}
	return p
}

func TestWhatBecomesOfAPod(t *testing.T) {
	grouped, err := stages()
	if err != nil {
		t.Fatal(err)
	}
	pods, err := lifecycle.NewLifecycle(grouped[internalversion.StageResourceRef{APIGroup: "v1", Kind: "Pod"}])
	if err != nil {
		t.Fatal(err)
	}
	hex := strings.Repeat("bad0", 16)
	for name, tc := range map[string]struct {
		pod  samplePod
		want string // stage; "" if it stays as it is
	}{
		"new":                       {samplePod{image: "app:1", phase: "Pending"}, "pod-ready"},
		"new, no tag":               {samplePod{image: "app", phase: "Pending"}, "pod-ready"},
		"bad in name and port":      {samplePod{image: "bad.example:5000/bad/bad:1", phase: "Pending"}, "pod-ready"},
		"bad in digest":             {samplePod{image: "app@sha256:" + hex, phase: "Pending"}, "pod-ready"},
		"new, declared good":        {samplePod{image: "app:1", health: "good", phase: "Pending"}, "pod-ready"},
		"bad tag":                   {samplePod{image: "app:bad", phase: "Pending"}, "pod-bad"},
		"bad at the end of a tag":   {samplePod{image: "registry.example:5000/app:6.5.1-bad", phase: "Pending"}, "pod-bad"},
		"bad in the middle":         {samplePod{image: "app:1-bad-2", phase: "Pending"}, "pod-bad"},
		"bad tag and a digest":      {samplePod{image: "app:bad@sha256:" + strings.Repeat("0", 64), phase: "Pending"}, "pod-bad"},
		"declared bad":              {samplePod{image: "app:1", health: "bad", phase: "Pending"}, "pod-bad"},
		"ready stays":               {samplePod{image: "app:1", phase: "Running", ready: "True"}, ""},
		"bad stays":                 {samplePod{image: "app:bad", phase: "Running", ready: "False"}, ""},
		"turned bad":                {samplePod{image: "app:1", health: "bad", phase: "Running", ready: "True"}, "pod-bad"},
		"no longer bad":             {samplePod{image: "app:1", phase: "Running", ready: "False"}, "pod-recovered"},
		"job completes":             {samplePod{image: "app:1", phase: "Running", ready: "True", ofJob: true}, "pod-complete"},
		"bad job fails":             {samplePod{image: "app:bad", phase: "Running", ready: "False", ofJob: true}, "pod-fail"},
		"completed stays":           {samplePod{image: "app:1", phase: "Succeeded", ready: "True", ofJob: true}, ""},
		"failed stays":              {samplePod{image: "app:bad", phase: "Failed", ready: "False", ofJob: true}, ""},
		"deleted goes":              {samplePod{image: "app:1", phase: "Running", ready: "True", deleted: true}, "pod-delete"},
		"deleted goes though bad":   {samplePod{image: "app:bad", phase: "Running", ready: "False", deleted: true}, "pod-delete"},
		"deleted goes when pending": {samplePod{image: "app:bad", phase: "Pending", deleted: true}, "pod-delete"},
	} {
		t.Run(name, func(t *testing.T) {
			p := tc.pod.pod()
			got, err := pods.ListAllPossible(t.Context(), &lifecycle.Event{Labels: p.Labels, Annotations: p.Annotations, Data: p})
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, s := range got {
				names = append(names, s.Name())
			}
			if strings.Join(names, ",") != tc.want {
				t.Fatalf("stages %q, want %q", names, tc.want)
			}
		})
	}
}
