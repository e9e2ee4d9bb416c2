// SPDX-License-Identifier: Apache-2.0

package mesh_test

import (
	"bufio"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/mesh"
	"github.com/flotilla-dev/flotilla/sequencer/mesh/meshtest"
)

// TestNewcomerIsToldWhoIsLost: a member that was away hears of a loss that was told meanwhile from those next to it, with
// the notice as it was signed.
func TestNewcomerIsToldWhoIsLost(t *testing.T) {
	t.Parallel()
	w := meshtest.New(t, 4, rarely)
	for i := range 4 {
		awaitPresence(t, w, i, mesh.Heard, others(4, i)...)
	}
	w.Stop(1)
	awaitPresence(t, w, 1, mesh.Doubted, 0, 2, 3)
	w.Stop(3)
	awaitPresence(t, w, 3, mesh.Doubted, 0, 2)
	w.Start(1)
	awaitPresence(t, w, 3, mesh.Doubted, 1)
	awaitPresence(t, w, 0, mesh.Heard, 1, 2)
	awaitPresence(t, w, 1, mesh.Heard, 0, 2)
	w.Start(3)
	awaitPresence(t, w, 3, mesh.Heard, 0, 1, 2)
}

// TestHearsayIsChecked: a neighbour answers with what nobody signed, with what was not asked for, with an old heartbeat, and
// at last with a good one.
func TestHearsayIsChecked(t *testing.T) {
	t.Parallel()
	absent := meshtest.Key(7)
	heartbeat := func(at time.Time, counter uint64) []byte {
		h := fleet.Heartbeat{Fleet: meshtest.Fleet(), Nonce: [16]byte{1}, Counter: counter, Time: at.Unix()}
		h.Sign(absent)
		return h.Encode()
	}
	forged := heartbeat(time.Now(), 3)
	forged[len(forged)-1] ^= 1
	year := 365 * 24 * time.Hour
	for _, c := range []struct {
		name  string
		sign  []byte
		heard bool
		count func(mesh.Stats) uint64
	}{
		{"forged", forged, false, func(s mesh.Stats) uint64 { return s.BadSignature }},
		{"nonsense", []byte("nonsense"), false, func(s mesh.Stats) uint64 { return s.Malformed }},
		{"of last year", heartbeat(time.Now().Add(-year), 2), false, func(s mesh.Stats) uint64 { return s.Stale }},
		{"of next year", heartbeat(time.Now().Add(year), 2), false, func(s mesh.Stats) uint64 { return s.Stale }},
		{"a good one", heartbeat(time.Now(), 5), true, func(s mesh.Stats) uint64 { return s.Hearsay }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := meshtest.New(t, 8, rarely, forbearing, func(cfg *mesh.Config) {
				if !cfg.Key.Equal(meshtest.Key(0)) {
					cfg.Listen = nil
				}
			})
			for i := range 8 {
				w.Stop(i)
			}
			w.Start(0) // it has heard nobody
			h := intruder(t, w, 1)
			h.SetStreamHandler(mesh.HearsayProtocol, func(s network.Stream) {
				if _, _, err := mesh.ReadFrame(bufio.NewReader(s)); err == nil {
					_, _ = s.Write(mesh.SignsFrame(42, c.sign))
				}
				_ = s.Close()
			})
			meshtest.Await(t, c.name, func() bool { return c.count(w.Node(0).Stats()) > 0 })
			p := peerOf(w.Node(0), w.Member(7).ID)
			if p.Heard != c.heard || p.Hearsay != c.heard {
				t.Errorf("of it is shown %+v", p)
			}
			if c.heard && p.Silence < 42*time.Second {
				t.Errorf("heard %s ago, and it was told 42 s", p.Silence)
			}
		})
	}
}
