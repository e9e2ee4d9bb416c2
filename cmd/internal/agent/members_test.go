// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/sequencer/mesh"
)

// TestHeardCondition: Ready is never False, however bad the news.
func TestHeardCondition(t *testing.T) {
	for name, c := range map[string]struct {
		state  mesh.PeerState
		self   bool
		want   metav1.ConditionStatus
		reason string
	}{
		"itself":             {mesh.PeerState{Presence: mesh.Alone}, true, metav1.ConditionTrue, v1alpha1.ReasonHeard},
		"heard":              {mesh.PeerState{Presence: mesh.Heard, Heard: true}, false, metav1.ConditionTrue, v1alpha1.ReasonHeard},
		"heard, in its time": {mesh.PeerState{Presence: mesh.Heard, Heard: true, Silence: time.Hour}, false, metav1.ConditionTrue, v1alpha1.ReasonHeard},
		"quiet":              {mesh.PeerState{Presence: mesh.Quiet, Heard: true}, false, metav1.ConditionUnknown, v1alpha1.ReasonNotHeard},
		"never heard":        {mesh.PeerState{}, false, metav1.ConditionUnknown, v1alpha1.ReasonNotHeard},
		"lost":               {mesh.PeerState{Presence: mesh.Doubted, Doubted: true, Heard: true}, false, metav1.ConditionUnknown, v1alpha1.ReasonLost},
	} {
		t.Run(name, func(t *testing.T) {
			got := heardCondition(&c.state, c.self)
			if got.Type != v1alpha1.ConditionReady || got.Status != c.want || got.Reason != c.reason || got.Message == "" {
				t.Errorf("got %+v", got)
			}
			if heard(&c.state) != (c.want == metav1.ConditionTrue) && !c.self {
				t.Errorf("heard is %v", heard(&c.state))
			}
		})
	}
}

// TestUnbelievedMembers: the condition stands while it is so, and each change of it is told once, also by an agent that
// began anew.
func TestUnbelievedMembers(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	c := fake.NewClientBuilder().WithScheme(scheme).WithStatusSubresource(&v1alpha1.FleetMember{}).Build()
	peer := mesh.PeerState{Member: fleet.Member{Name: "nyc", ID: "nyc-id", Zone: "us"}, Presence: mesh.Heard}
	for i, step := range []struct {
		forked, duplicate bool
		reason, told      string
	}{
		{},
		{duplicate: true, reason: v1alpha1.ReasonDuplicate, told: "Warning Duplicate (Duplicate) : two live agents use its key; neither starts anything"},
		{duplicate: true, reason: v1alpha1.ReasonDuplicate},
		{told: "Normal DuplicateEnded (DuplicateEnded) : one agent uses its key"},
		{forked: true, duplicate: true, reason: v1alpha1.ReasonForked, told: "Warning Forked (Forked) : two records with its key say different things in one position; what it says counts for nothing"},
		{forked: true, reason: v1alpha1.ReasonForked},
		{},
	} {
		told := &recorder{}
		m := &Members{
			Client: c, Home: "here", Roster: func() *Roster { return NewRoster([]fleet.Member{peer.Member}) }, Recorder: told,
			Self: func() mesh.PeerState { return mesh.PeerState{} }, Peers: func() []mesh.PeerState { return []mesh.PeerState{peer} },
		}
		peer.Forked, peer.Duplicate = step.forked, step.duplicate
		for range 2 {
			if err := m.show(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if got := strings.Join(told.told, "\n"); got != step.told {
			t.Errorf("step %d: told %q", i, got)
		}
		var held v1alpha1.FleetMember
		if err := c.Get(t.Context(), client.ObjectKey{Name: "nyc"}, &held); err != nil {
			t.Fatal(err)
		}
		stalled, ready := meta.FindStatusCondition(held.Status.Conditions, v1alpha1.ConditionStalled), meta.FindStatusCondition(held.Status.Conditions, v1alpha1.ConditionReady)
		if stalled == nil != (step.reason == "") || stalled != nil && stalled.Reason != step.reason || ready == nil || ready.Status != metav1.ConditionTrue {
			t.Errorf("step %d: %+v", i, held.Status.Conditions)
		}
	}
}
