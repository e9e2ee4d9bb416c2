// SPDX-License-Identifier: Apache-2.0

package mesh_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-dev/flotilla/sequencer/mesh/meshtest"
)

func TestSimulatedFleetConverges(t *testing.T) {
	for seed := range uint64(2) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			begin := time.Now()
			synctest.Test(t, func(t *testing.T) {
				w := meshtest.Simulate(t, meshtest.WAN(seed), meshtest.Layout{Members: 20})
				w.StartAll()
				w.AwaitConnected()
				for i := range 20 {
					say(t, w.Node(i), "key", "body")
				}
				d := w.AwaitEqualRoots()
				t.Log(d, length(w.Node(0)))
			})
			t.Log("real", time.Since(begin))
		})
	}
}
