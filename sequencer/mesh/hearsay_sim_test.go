// SPDX-License-Identifier: Apache-2.0

//go:build !race

package mesh_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/mesh"
	"github.com/flotilla-dev/flotilla/sequencer/mesh/meshtest"
)

// unheardBy are how many members one shows as other than heard, and of how many it has hearsay.
func unheardBy(n *mesh.Node) (unheard, hearsay int) {
	for _, p := range n.Peers() {
		if p.Presence != mesh.Heard {
			unheard++
		}
		if p.Hearsay {
			hearsay++
		}
	}
	return unheard, hearsay
}

// TestSimulatedRestartHearsEveryone: heartbeats are an hour apart, and a restarted member shows everyone as heard within a minute:
// its neighbours by their beats, all others by hearsay.
func TestSimulatedRestartHearsEveryone(t *testing.T) {
	const again = 7
	members := simMembers
	layout := meshtest.Layout{
		Members: members, Near: neighbours(members, 3, 23),
		Configure: func(_ int, c *mesh.Config) { c.Heartbeat = time.Hour },
	}
	simulate(t, lossy, layout, 1, func(w *simulated, _ *rand.Rand) {
		w.Await("that everyone hears everyone", time.Second, func() bool {
			for i := range members {
				if unheard, _ := unheardBy(w.Node(i)); unheard > 0 {
					return false
				}
			}
			return true
		})
		w.Pass(5 * time.Minute) // nobody is young any more
		w.Stop(again)
		w.Pass(5 * time.Second)
		w.Start(again)
		begin := time.Now()
		w.Pass(time.Minute)
		unheard, hearsay := unheardBy(w.Node(again))
		if unheard > 0 || hearsay == 0 {
			t.Errorf("%s after its restart it does not show %d of %d as heard, and %d by hearsay", time.Since(begin), unheard, members, hearsay)
		}
	})
}

// TestSimulatedRestartInAThousand: three of a thousand run, and two of them have heard all others. It tells the bytes
// that the third one's questions cost.
func TestSimulatedRestartInAThousand(t *testing.T) {
	const members, size = 3, 1000
	layout := meshtest.Layout{Members: members, Writers: size - members}
	simulate(t, meshtest.WAN, layout, 1, func(w *simulated, _ *rand.Rand) {
		for i := members; i < size; i++ {
			h := fleet.Heartbeat{Fleet: meshtest.Fleet(), Nonce: [16]byte{byte(i), byte(i >> 8)}, Counter: 1000, Time: time.Now().Unix()}
			h.Sign(meshtest.Key(i))
			w.Node(0).Hears(&h)
			w.Node(1).Hears(&h)
		}
		w.Pass(time.Minute)
		w.Stop(2)
		w.Pass(30 * time.Second)
		quiet, idle := w.Traffic(0).SentBytes, time.Now()
		w.Pass(time.Minute)
		perSecond := float64(w.Traffic(0).SentBytes-quiet) / time.Since(idle).Seconds()
		before, other := w.Traffic(2), w.Traffic(0).SentBytes
		w.Start(2)
		w.Pass(time.Minute)
		if unheard, hearsay := unheardBy(w.Node(2)); unheard > 0 || hearsay != size-members {
			t.Errorf("a minute after its restart it does not show %d of %d as heard, and %d by hearsay", unheard, size, hearsay)
		}
		at := w.Traffic(2)
		t.Logf("the restarted member received %d B and sent %d B in that minute; another one sent %d B, %.0f B/s before",
			at.ReceivedBytes-before.ReceivedBytes, at.SentBytes-before.SentBytes, w.Traffic(0).SentBytes-other, perSecond)
		asked := w.Node(0).Stats().Hearsay + w.Node(1).Stats().Hearsay
		w.Pass(10 * time.Minute)
		if got := w.Node(0).Stats().Hearsay + w.Node(1).Stats().Hearsay; got != asked {
			t.Errorf("those who heard everyone were told %d more", got-asked)
		}
	})
}
