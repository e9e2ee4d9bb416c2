// SPDX-License-Identifier: Apache-2.0

// Without the race detector: with it, the runtime of Go 1.26.8 has crashed in a bubble of synctest (SIGSEGV in
// timer.maybeRunChan). The same code runs under it over loopback; .ci/test runs these tests apart.

//go:build !race

package mesh_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
	"github.com/flotilla-dev/flotilla/sequencer/mesh"
	"github.com/flotilla-dev/flotilla/sequencer/mesh/meshtest"
)

// simulated is a fleet in virtual time and everything that was said in it.
type simulated struct {
	*meshtest.Sim
	t       *testing.T
	members int
	said    map[fleet.Digest]fleet.Record
}

// simulate runs a test for several seeds, each in virtual time. FLOTILLA_MESH_SEEDS asks for more of them.
func simulate(t *testing.T, model func(seed uint64) meshtest.Model, layout meshtest.Layout, seeds uint64, test func(*simulated, *rand.Rand)) {
	if text := os.Getenv("FLOTILLA_MESH_SEEDS"); text != "" {
		more, err := strconv.ParseUint(text, 10, 32)
		must(t, err)
		seeds = more
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &simulated{
					Sim: meshtest.Simulate(t, model(seed), layout), t: t, members: layout.Members,
					said: map[fleet.Digest]fleet.Record{},
				}
				w.StartAll()
				w.AwaitConnected()
				test(w, rand.New(rand.NewPCG(seed, 1)))
			})
		})
	}
}

// simMembers are how many members there are where nothing depends on it.
const simMembers = 20

// quiet leaves beats and heartbeats rare: they are most of what a fleet sends, and of what simulating it costs.
func quiet(_ int, c *mesh.Config) { c.Heartbeat, c.Beat = time.Minute, 20*time.Second }

// neighbours gives every member the addresses of the next one and of some drawn by the seed: one connected
// graph.
func neighbours(members, each int, seed uint64) func(int) []int {
	return func(i int) []int {
		draw := rand.New(rand.NewPCG(seed, uint64(i)))
		near := []int{(i + 1) % members}
		for len(near) < min(each, members-1) {
			if j := draw.IntN(members); j != i && !slices.Contains(near, j) {
				near = append(near, j)
			}
		}
		return near
	}
}

// lossy is a bad day: one packet in twenty is lost.
func lossy(seed uint64) meshtest.Model {
	m := meshtest.WAN(seed)
	m.Loss = 0.05
	return m
}

// say publishes a milestone of the i-th member, which nothing supersedes.
func (w *simulated) say(i int) fleet.Record {
	w.t.Helper()
	plan := fleet.DigestOf("plan", fmt.Append(nil, len(w.said)))
	r, err := w.Node(i).Publish(fleet.KindFact, fleet.FactKey(plan, fleet.Started), fleet.Fact{Plan: plan, Kind: fleet.Started}.Encode())
	must(w.t, err)
	w.said[r.Digest()] = r
	return r
}

// lacks gives those who run and do not hold a record.
func (w *simulated) lacks(r fleet.Record) (members []int) {
	for i := range w.members {
		if n := w.Node(i); n != nil && !hears(n, r) {
			members = append(members, i)
		}
	}
	return members
}

// everyoneHasAll waits for equal sets, and looks whether what was said is in them.
func (w *simulated) everyoneHasAll() {
	w.t.Helper()
	w.Await("that everyone holds what was said", 100*time.Millisecond, func() bool {
		return length(w.Node(0)) == len(w.said) && w.EqualRoots()
	})
	w.Node(0).View(func(s *lattice.Set) {
		for r := range s.All() {
			if _, ok := w.said[r.Digest()]; !ok {
				w.t.Errorf("%s said %q, and it did not", r.Writer, r.Key)
			}
		}
	})
}

func half(members int) (west, east []int) {
	for i := range members {
		if i%2 == 0 {
			west = append(west, i)
		} else {
			east = append(east, i)
		}
	}
	return west, east
}

// TestSimulatedPartition: one that outlives every connection.
func TestSimulatedPartition(t *testing.T) {
	members := simMembers
	layout := meshtest.Layout{Members: members, Near: neighbours(members, 4, 3), Configure: quiet}
	simulate(t, lossy, layout, 1, func(w *simulated, draw *rand.Rand) {
		w.say(0)
		w.everyoneHasAll()
		west, east := half(members)
		w.Partition(west, east)
		there, here := w.say(west[draw.IntN(len(west))]), w.say(east[draw.IntN(len(east))])
		w.Pass(70 * time.Second)
		if got := w.lacks(there); !slices.Equal(got, east) {
			t.Errorf("%v lack what the west said, want %v", got, east)
		}
		if got := w.lacks(here); !slices.Equal(got, west) {
			t.Errorf("%v lack what the east said, want %v", got, west)
		}
		w.Heal()
		w.everyoneHasAll()
	})
}

// TestSimulatedWithoutGossip: reconciliation alone makes sets equal.
func TestSimulatedWithoutGossip(t *testing.T) {
	members := simMembers
	layout := meshtest.Layout{
		Members: members, Near: neighbours(members, 3, 5),
		Configure: func(i int, c *mesh.Config) {
			quiet(i, c)
			c.NoGossip = true
		},
	}
	simulate(t, lossy, layout, 1, func(w *simulated, _ *rand.Rand) {
		for i := range members {
			w.say(i)
		}
		w.everyoneHasAll()
	})
}

// TestSimulatedIslands: two islands whose members know only each other, and one member that is on both.
func TestSimulatedIslands(t *testing.T) {
	const bridge = 3
	members := simMembers
	island := members / 2
	layout := meshtest.Layout{Members: members, Configure: quiet, Near: func(i int) []int {
		here, there := i/island*island, (members-island)-i/island*island
		var near []int
		for _, at := range neighbours(island, 4, 7)(i % island) {
			near = append(near, here+at)
		}
		if i == bridge {
			near = append(near, there, there+1)
		}
		return near
	}}
	simulate(t, meshtest.Wide, layout, 1, func(w *simulated, _ *rand.Rand) {
		w.say(0)
		w.say(members - 1)
		w.everyoneHasAll()
		w.Stop(bridge)
		first, last := w.say(0), w.say(members-1)
		w.Pass(time.Minute)
		if got := w.lacks(first); !slices.Equal(got, span(island, members)) {
			w.t.Errorf("without the bridge %v lack what the first island said", got)
		}
		if got := w.lacks(last); !slices.Equal(got, slices.DeleteFunc(span(0, island), func(i int) bool { return i == bridge })) {
			w.t.Errorf("without the bridge %v lack what the second island said", got)
		}
		w.Start(bridge)
		w.everyoneHasAll()
	})
}

func span(from, to int) (all []int) {
	for i := from; i < to; i++ {
		all = append(all, i)
	}
	return all
}

// TestSimulatedOneWayCut: a member that hears everyone and is heard by nobody.
func TestSimulatedOneWayCut(t *testing.T) {
	const mute = 4
	members := simMembers
	layout := meshtest.Layout{Members: members, Near: neighbours(members, 4, 11), Configure: quiet}
	simulate(t, meshtest.WAN, layout, 1, func(w *simulated, _ *rand.Rand) {
		w.Cut(func(from, _ int) bool { return from == mute })
		r := w.say(mute)
		w.say(0)
		w.Pass(50 * time.Second)
		if got := w.lacks(r); len(got) != members-1 {
			w.t.Errorf("%d members lack what nobody could hear, want %d", len(got), members-1)
		}
		w.Heal()
		w.everyoneHasAll()
	})
}

// TestSimulatedSlowSite: a site on a line of 64 kbit/s, without its store, gets what the others have.
func TestSimulatedSlowSite(t *testing.T) {
	const slow, records = 4, 320
	members := simMembers
	layout := meshtest.Layout{Members: members, Near: neighbours(members, 4, 13), Configure: quiet}
	simulate(t, meshtest.WAN, layout, 1, func(w *simulated, _ *rand.Rand) {
		w.Stop(slow)
		for i := range records {
			w.say(slow + 1 + i%4)
		}
		w.Throttle(slow, 64_000)
		w.Start(slow)
		w.everyoneHasAll()
	})
}

// TestSimulatedSlowLine: a member whose own line is too slow for gossip leaves it by itself; it is heard at once all the
// same, misses nothing, and comes back when the line has room.
func TestSimulatedSlowLine(t *testing.T) {
	const slow, members = 0, 8
	simulate(t, meshtest.WAN, meshtest.Layout{Members: members, Configure: quiet}, 1, func(w *simulated, draw *rand.Rand) {
		out := func() bool { return w.Node(slow).Stats().SlowLine == 1 }
		w.Throttle(slow, 8_000)
		w.Await("that it leaves", time.Second, func() bool {
			for range 4 {
				w.say(1 + draw.IntN(members-1))
			}
			return out()
		})
		w.Throttle(slow, 64_000)
		w.everyoneHasAll()

		gossiped := func() (sum uint64) {
			for i := 1; i < members; i++ {
				sum += w.Node(i).Stats().Gossiped
			}
			return sum
		}
		before := gossiped()
		own := w.say(slow)
		w.Await("its own word", 10*time.Millisecond, func() bool { return len(w.lacks(own)) == 0 })
		if gossiped() == before {
			t.Error("nobody heard it by gossip")
		}
		gossipedHere := func() uint64 { return w.Node(slow).Stats().Gossiped }
		before = gossipedHere()
		w.say(1)
		w.everyoneHasAll()
		if gossipedHere() != before || !out() {
			t.Errorf("out of gossip: %v, and it heard %d records by it", out(), gossipedHere()-before)
		}

		w.Throttle(slow, 0)
		w.Await("that it comes back", time.Second, func() bool { return !out() })
		w.Await("a word by gossip", 5*time.Second, func() bool {
			w.say(1)
			return gossipedHere() > before
		})
		w.everyoneHasAll()
		if left := w.Node(slow).Stats().GossipLeft; left != 1 {
			t.Errorf("it left %d times", left)
		}
		for i := 1; i < members; i++ {
			if w.Node(i).Stats().GossipLeft > 0 {
				t.Errorf("member %d left gossip: its line is well", i)
			}
		}
	})
}

// TestSimulatedStorms: whatever happens to a fleet, once it is over everyone holds what everyone said.
func TestSimulatedStorms(t *testing.T) {
	const acts = 4
	members := simMembers
	layout := meshtest.Layout{Members: members, Near: neighbours(members, 4, 17), Configure: quiet}
	simulate(t, lossy, layout, 1, func(w *simulated, draw *rand.Rand) {
		down := map[int]bool{}
		for range acts {
			switch draw.IntN(5) {
			case 0:
				mixed := draw.Perm(members)
				at := 1 + draw.IntN(members-1)
				w.Partition(mixed[:at], mixed[at:])
			case 1:
				mute := draw.IntN(members)
				w.Cut(func(from, to int) bool { return from == mute || to == (mute+1)%members })
			case 2:
				w.Heal()
			case 3:
				for range 3 {
					i := draw.IntN(members)
					w.Stop(i)
					down[i] = true
				}
			case 4:
				for i := range maps.Keys(down) {
					w.Start(i)
				}
				clear(down)
			}
			for range 5 {
				if i := draw.IntN(members); w.Node(i) != nil {
					w.say(i)
				}
			}
			w.Pass(time.Duration(draw.IntN(40)) * time.Second)
		}
		w.Heal()
		w.StartAll()
		w.everyoneHasAll()
	})
}
