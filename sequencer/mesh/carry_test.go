// SPDX-License-Identifier: Apache-2.0

package mesh_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
	"github.com/flotilla-dev/flotilla/sequencer/mesh"
	"github.com/flotilla-dev/flotilla/sequencer/mesh/meshtest"
)

// inZones is a network whose members carry their zones only, so many members in each of these zones.
func inZones(t *testing.T, each int, zones []string, options ...func(*mesh.Config)) *meshtest.Network {
	t.Helper()
	w := meshtest.New(t, each*len(zones), append(options, func(c *mesh.Config) { c.Flat = 1 })...)
	w.AwaitConnected()
	setZones(w, each, zones)
	return w
}

func setZones(w *meshtest.Network, each int, zones []string) {
	roster := slices.Clone(w.Roster())
	for i := range roster {
		roster[i].Zone = zones[i/each]
	}
	for i := range roster {
		w.Node(i).SetRoster(roster)
	}
}

func fact(t testing.TB, n *mesh.Node, plan byte) fleet.Record {
	t.Helper()
	f := fleet.Fact{Plan: fleet.Digest{plan}, Kind: fleet.Started, Time: 1}
	r, err := n.Publish(fleet.KindFact, fleet.FactKey(f.Plan, f.Kind), f.Encode())
	must(t, err)
	return r
}

// everywhere is what all members carry, of each kind one.
func everywhere(t testing.TB, n *mesh.Node, zone string) []fleet.Record {
	t.Helper()
	name := fleet.RolloutName{Namespace: "shop", Name: "web"}
	seal := fleet.Seal{Rollout: name, Author: string(n.ID()), Number: 1}
	sealed, err := n.Publish(fleet.KindSeal, seal.SealKey(), seal.Encode())
	must(t, err)
	stopped, err := n.Publish(fleet.KindCommand, "stop", fleet.Command{Rollout: name, Verb: fleet.Pause}.Encode())
	must(t, err)
	body, err := fleet.Rollup{Rollout: name, Zone: zone, Members: 4, Time: time.Now().Unix()}.Encode()
	must(t, err)
	counted, err := n.Publish(fleet.KindRollup, fleet.RollupKey(zone, name), body)
	must(t, err)
	return []fleet.Record{sealed, stopped, counted}
}

func shareRoot(n *mesh.Node, share lattice.Share) (root fleet.Digest) {
	n.View(func(s *lattice.Set) { root = s.ShareRoot(share) })
	return root
}

func hearsAll(n *mesh.Node, records []fleet.Record) bool {
	return !slices.ContainsFunc(records, func(r fleet.Record) bool { return !hears(n, r) })
}

func hearsAny(n *mesh.Node, records []fleet.Record) bool {
	return slices.ContainsFunc(records, func(r fleet.Record) bool { return hears(n, r) })
}

// TestZonesCarryTheirOwn: three zones of three, or of two where all goes by reconciliation. Registers and facts stay in
// their zone, seals, commands and rollups reach everyone; who asks for another zone's facts gets those and only those,
// what is there and what comes.
func TestZonesCarryTheirOwn(t *testing.T) {
	zones := []string{"eu", "us", "ap"}
	for name, noGossip := range map[string]bool{"with gossip": false, "by reconciliation only": true} {
		t.Run(name, func(t *testing.T) {
			each := 3
			if noGossip {
				each = 2
			}
			w := inZones(t, each, zones, calm, func(c *mesh.Config) { c.NoGossip, c.SyncEvery = noGossip, 200*time.Millisecond })
			var all []fleet.Record
			statuses, facts := make([][]fleet.Record, 3), make([][]fleet.Record, 3)
			for i := range each * 3 {
				statuses[i/each] = append(statuses[i/each], say(t, w.Node(i), "k", fmt.Sprint(i)))
				facts[i/each] = append(facts[i/each], fact(t, w.Node(i), 1))
				all = append(all, everywhere(t, w.Node(i), zones[i/each])...)
			}
			for i := range each * 3 {
				n, zone := w.Node(i), i/each
				meshtest.Await(t, fmt.Sprint("what member ", i, " carries"), func() bool {
					return hearsAll(n, all) && hearsAll(n, statuses[zone]) && hearsAll(n, facts[zone])
				})
			}
			w.Node(0).Carry(zones[1:2])
			meshtest.Await(t, "the facts of another zone", func() bool { return hearsAll(w.Node(0), facts[1]) })
			later := fact(t, w.Node(each+1), 2)
			meshtest.Await(t, "the later fact", func() bool { return hears(w.Node(0), later) && hears(w.Node(each), later) })

			for i := range each * 3 {
				n := w.Node(i)
				for other := range zones {
					asked := i == 0 && other == 1
					if other != i/each && (hearsAny(n, statuses[other]) || !asked && hearsAny(n, facts[other])) {
						t.Errorf("member %d holds detail of zone %d", i, other)
					}
				}
				for _, share := range []lattice.Share{{Scope: fleet.ScopeFleet}, {Scope: fleet.ScopeDetail, Zone: zones[i/each]}} {
					mate := w.Node(i / each * each)
					if share.Scope == fleet.ScopeFleet {
						mate = w.Node(0)
					}
					if shareRoot(n, share) != shareRoot(mate, share) {
						t.Errorf("member %d: root of %v differs", i, share)
					}
				}
			}
			other := lattice.Share{Scope: fleet.ScopeMilestones, Zone: zones[1]}
			if shareRoot(w.Node(0), other) != shareRoot(w.Node(each), other) || shareRoot(w.Node(0), other).IsZero() {
				t.Error("the root of the share that was asked for differs")
			}
			if gossiped := w.Node(1).Stats().Gossiped; noGossip != (gossiped == 0) {
				t.Errorf("%d records came by gossip", gossiped)
			}
		})
	}
}

// TestCarryFetchesAtOnce: no clock and no heartbeat asks for a reconciliation.
func TestCarryFetchesAtOnce(t *testing.T) {
	t.Parallel()
	w := inZones(t, 2, []string{"eu", "us"}, func(c *mesh.Config) {
		c.NoGossip, c.SyncEvery, c.Heartbeat = true, time.Hour, time.Hour
	})
	facts := []fleet.Record{fact(t, w.Node(2), 1), fact(t, w.Node(3), 1)}
	w.Node(0).Carry([]string{"us"})
	meshtest.Await(t, "a fact", func() bool { return hearsAny(w.Node(0), facts) })
	if hearsAny(w.Node(1), facts) {
		t.Error("who did not ask has them too")
	}
}

// TestZoneWithoutAnchors: its members only dial out, so they meet at anchors of another zone. Those that stand in for it
// carry what they say from one to the other, and no other does; a zone that has anchors of its own needs nobody.
func TestZoneWithoutAnchors(t *testing.T) {
	const anchors, all = 4, 7
	for name, noGossip := range map[string]bool{"with gossip": false, "by reconciliation only": true} {
		t.Run(name, func(t *testing.T) {
			w := meshtest.New(t, all, func(c *mesh.Config) {
				c.Flat, c.NoGossip, c.SyncEvery = 1, noGossip, 200*time.Millisecond
				for i := anchors; i < all; i++ {
					if slices.Equal(c.Key, meshtest.Key(i)) {
						c.Listen = nil
					}
				}
			})
			roster := slices.Clone(w.Roster())
			for i := range roster {
				roster[i].Zone = map[bool]string{true: "inner", false: "outer"}[i < anchors]
			}
			for i := range roster {
				w.Node(i).SetRoster(roster)
			}
			said := map[string][]fleet.Record{}
			for i := range roster {
				said[roster[i].Zone] = append(said[roster[i].Zone], say(t, w.Node(i), "k", fmt.Sprint(i)), fact(t, w.Node(i), 1))
			}
			standing := func() (n int) {
				for i := range anchors {
					if hearsAll(w.Node(i), said["outer"]) {
						n++
					}
				}
				return n
			}
			for i := range all {
				meshtest.Await(t, fmt.Sprint("what the zone of member ", i, " says"), func() bool { return hearsAll(w.Node(i), said[roster[i].Zone]) })
			}
			meshtest.Await(t, "three that stand in", func() bool { return standing() == 3 })
			meshtest.Await(t, "heartbeats from one end to the other", func() bool {
				return slices.ContainsFunc(w.Node(anchors).Peers(), func(p mesh.PeerState) bool {
					return p.Member.ID == w.Member(all-1).ID && p.Presence == mesh.Heard
				})
			})
			for i := range all {
				if i >= anchors && hearsAny(w.Node(i), said["inner"]) {
					t.Errorf("member %d holds detail of the other zone", i)
				}
			}
			if n := standing(); n != 3 {
				t.Errorf("%d stand in", n)
			}
		})
	}
}

// TestZoneWhoseAnchorsAreDown: the others of it meet at anchors of another zone, and hear each other there until one of
// their own is back.
func TestZoneWhoseAnchorsAreDown(t *testing.T) {
	const inner, anchors, all = 3, 4, 6 // the first one of the outer zone can be dialled
	w := meshtest.New(t, all, func(c *mesh.Config) {
		c.Flat = 1
		for i := anchors; i < all; i++ {
			if slices.Equal(c.Key, meshtest.Key(i)) {
				c.Listen = nil
			}
		}
	})
	divide := func() {
		roster := slices.Clone(w.Roster())
		for i := range roster {
			roster[i].Zone = map[bool]string{true: "inner", false: "outer"}[i < inner]
		}
		for i := range roster {
			if n := w.Node(i); n != nil {
				n.SetRoster(roster)
			}
		}
	}
	divide()
	standing := func() (n int) {
		for i := range inner {
			n += w.Node(i).HeartbeatTopics() - 1
		}
		return n
	}
	before := say(t, w.Node(anchors), "before", "x")
	for i := inner; i < all; i++ {
		meshtest.Await(t, "what the zone says", func() bool { return hears(w.Node(i), before) })
	}
	meshtest.Await(t, "nobody that stands in", func() bool { return standing() == 0 })
	for i := inner; i < anchors; i++ {
		w.Stop(i)
	}
	meshtest.Await(t, "three that stand in", func() bool { return standing() == 3 })
	during := say(t, w.Node(anchors), "during", "x")
	for i := anchors; i < all; i++ {
		meshtest.Await(t, "what the zone says without its anchors", func() bool { return hears(w.Node(i), during) })
	}
	w.Start(inner)
	divide()
	meshtest.Await(t, "nobody that stands in any more", func() bool { return standing() == 0 })
	after := say(t, w.Node(anchors), "after", "x")
	meshtest.Await(t, "what the zone says to its anchor", func() bool { return hears(w.Node(inner), after) && hears(w.Node(inner), during) })
}

// TestUncarriedShareLeaves: at the second sweep, the set and the disk; what the member said itself stays, and so does what
// is asked for again in between.
func TestUncarriedShareLeaves(t *testing.T) {
	var dropped told
	w := inZones(t, 1, []string{"eu", "us"}, func(c *mesh.Config) {
		c.SyncEvery, c.OnNews, c.OnDropped = 100*time.Millisecond, dropped.news, dropped.dropped
	})
	n := w.Node(0)
	own, theirs := fact(t, n, 1), fact(t, w.Node(1), 1)
	n.Carry([]string{"us"})
	meshtest.Await(t, "their fact", func() bool { return hears(n, theirs) && dropped.sawNews(theirs) })

	n.Carry(nil)
	n.Sweep()
	n.Carry([]string{"us"})
	n.Sweep()
	n.Sweep()
	if !hears(n, theirs) {
		t.Fatal("it is carried, and gone")
	}
	n.Carry(nil)
	n.Sweep()
	if !hears(n, theirs) {
		t.Error("it left at once")
	}
	n.Sweep()
	if hears(n, theirs) || !hears(n, own) {
		t.Errorf("theirs is held: %v, the own one: %v", hears(n, theirs), hears(n, own))
	}
	meshtest.Await(t, "word of it", func() bool { return dropped.sawDropped(theirs) })
	onDisk, _, err := w.Store(0).Load()
	must(t, err)
	if _, ok := onDisk.Get(theirs.Writer, theirs.Kind, theirs.Key); ok {
		t.Error("it is on disk")
	}
	if _, ok := onDisk.Get(own.Writer, own.Kind, own.Key); !ok {
		t.Error("the own one is not on disk")
	}
	n.Carry([]string{"us"})
	meshtest.Await(t, "their fact again", func() bool { return hears(n, theirs) })
	say(t, n, "k", "the next write")
	n.Sweep()
	if onDisk, _, err = w.Store(0).Load(); err != nil {
		t.Fatal(err)
	}
	if _, ok := onDisk.Get(theirs.Writer, theirs.Kind, theirs.Key); !ok {
		t.Error("it came back, and is not on disk")
	}
}

// TestMemberMovesToAnotherZone: what it said goes with it, for those of the new zone.
func TestMemberMovesToAnotherZone(t *testing.T) {
	t.Parallel()
	w := inZones(t, 2, []string{"eu", "us"}, func(c *mesh.Config) { c.SyncEvery = 100 * time.Millisecond })
	r := say(t, w.Node(0), "k", "x")
	meshtest.Await(t, "its neighbour", func() bool { return hears(w.Node(1), r) })
	if hears(w.Node(2), r) {
		t.Fatal("another zone's member holds it")
	}
	setZones(w, 1, []string{"us", "eu", "us", "us"})
	meshtest.Await(t, "its new neighbours", func() bool { return hears(w.Node(2), r) && hears(w.Node(3), r) })
	w.Node(1).Sweep()
	w.Node(1).Sweep()
	if hears(w.Node(1), r) {
		t.Error("its old neighbour keeps it")
	}
}

// TestFewTopics: a fleet that carries everything has one topic of records, one in zones three and those asked for.
func TestFewTopics(t *testing.T) {
	t.Parallel()
	zones := []string{"a", "b", "c", "d"}
	w := meshtest.New(t, 4)
	setZones(w, 1, zones)
	records := func(n *mesh.Node) int { return n.RecordTopics() }
	for i := range zones {
		meshtest.Await(t, "one topic", func() bool { return records(w.Node(i)) == 1 })
	}
	z := inZones(t, 1, zones)
	meshtest.Await(t, "three topics", func() bool { return records(z.Node(0)) == 3 })
	z.Node(0).Carry([]string{"b", "c"})
	meshtest.Await(t, "five topics", func() bool { return records(z.Node(0)) == 5 })
	z.Node(0).Carry(nil)
	meshtest.Await(t, "three topics again", func() bool { return records(z.Node(0)) == 3 })
	for i := range zones {
		meshtest.Await(t, "the heartbeats of all zones", func() bool { return w.Node(i).HeartbeatTopics() == len(zones) })
		meshtest.Await(t, "the heartbeats of the own zone", func() bool { return z.Node(i).HeartbeatTopics() == 1 })
	}
}
