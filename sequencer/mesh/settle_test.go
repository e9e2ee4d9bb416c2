// SPDX-License-Identifier: Apache-2.0

package mesh_test

import (
	"testing"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/mesh"
	"github.com/flotilla-dev/flotilla/sequencer/mesh/meshtest"
)

func settled(n *mesh.Node) bool {
	select {
	case <-n.Settled():
		return true
	default:
		return false
	}
}

// noGrace is so long that nothing in a test is settled by it.
func noGrace(c *mesh.Config) { c.DialTimeout = time.Hour }

func TestSettledWhenAlone(t *testing.T) {
	w := meshtest.New(t, 1, noGrace)
	meshtest.Await(t, "the only member", func() bool { return settled(w.Node(0)) })
}

// TestSettledAfterReconciling: a member whose disk is gone holds its own last words when it is settled.
func TestSettledAfterReconciling(t *testing.T) {
	w := meshtest.New(t, 2, noGrace, func(c *mesh.Config) { c.NoGossip = true })
	r := say(t, w.Node(0), "k", "former life")
	w.AwaitEqualRoots()
	w.Stop(0)
	w.Wipe(0)
	w.Start(0)
	<-w.Node(0).Settled()
	if !hears(w.Node(0), r) {
		t.Error("it is settled and does not know what it said")
	}
	if next := say(t, w.Node(0), "k", "this life"); !next.Newer(&r) {
		t.Errorf("at %d/%d after %d/%d", next.Epoch, next.Seq, r.Epoch, r.Seq)
	}
}

// TestSettledAfterGrace: a member that reaches nobody works all the same, and speaks before it is settled where it is made to.
func TestSettledAfterGrace(t *testing.T) {
	w := meshtest.New(t, 2, func(c *mesh.Config) { c.DialTimeout, c.StreamTimeout = 100*time.Millisecond, 100*time.Millisecond })
	w.Partition([]int{0}, []int{1})
	w.Stop(0)
	w.Start(0)
	say(t, w.Node(0), "k", "x")
	<-w.Node(0).Settled()
	if hears(w.Node(1), fleet.Record{Writer: w.Member(0).ID, Kind: fleet.KindRegister, Key: "k"}) {
		t.Error("it was not alone")
	}
}
