// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
