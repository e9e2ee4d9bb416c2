// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// terrain is a fleet to choose neighbours in.
type terrain struct {
	members  []fleet.Member
	outbound map[fleet.MemberID]bool
	down     map[fleet.MemberID]bool
	hostile  map[fleet.MemberID]bool
}

// zoneShapes say in which zone the i-th of so many members is.
var zoneShapes = map[string]func(i, size int) string{
	"one zone":                func(int, int) string { return "only" },
	"forty zones":             func(i, _ int) string { return fmt.Sprintf("zone-%02d", i%40) },
	"one huge, one small":     func(i, size int) string { return map[bool]string{true: "small", false: "huge"}[i < size/100] },
	"one huge and very small": func(i, _ int) string { return map[bool]string{true: fmt.Sprint("tiny-", i%10), false: "huge"}[i < 40] },
}

func newTerrain(shape string, size, outbound int, seed uint64) *terrain {
	r := rand.New(rand.NewPCG(seed, 1))
	t := &terrain{outbound: map[fleet.MemberID]bool{}, down: map[fleet.MemberID]bool{}, hostile: map[fleet.MemberID]bool{}}
	for i := range size {
		m := fleet.Member{ID: fleet.MemberID(fmt.Sprintf("%016x-%d", seed, i)), Zone: zoneShapes[shape](i, size)}
		if r.IntN(100) < outbound {
			t.outbound[m.ID] = true
		}
		t.members = append(t.members, m)
	}
	return t
}

func (t *terrain) pick(into map[fleet.MemberID]bool, percent int, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 2))
	for i := range t.members {
		if r.IntN(100) < percent {
			into[t.members[i].ID] = true
		}
	}
}

func (t *terrain) directory() *directory {
	return newDirectory(t.members, func(m *fleet.Member) bool { return !t.outbound[m.ID] })
}

// graph is who is connected with whom among those that are up and honest, and what everyone dialled.
type graph struct {
	index            map[fleet.MemberID]int
	edges            [][]int
	dialled, inbound []int
}

func (t *terrain) connect(rounds ...uint64) *graph {
	g := &graph{index: map[fleet.MemberID]int{}}
	for i := range t.members {
		if id := t.members[i].ID; !t.down[id] && !t.hostile[id] {
			g.index[id] = len(g.index)
		}
	}
	g.edges, g.dialled, g.inbound = make([][]int, len(g.index)), make([]int, len(g.index)), make([]int, len(g.index))
	d := t.directory()
	stands := func(id fleet.MemberID) footing {
		if t.down[id] {
			return failing
		}
		return open
	}
	for id, i := range g.index {
		for _, round := range rounds {
			for _, other := range choose(plan(surroundings{self: id, directory: d, round: round}), stands) {
				if !t.down[other] && round == rounds[0] {
					g.dialled[i]++
				}
				if j, ok := g.index[other]; ok {
					g.inbound[j]++
					g.edges[i], g.edges[j] = append(g.edges[i], j), append(g.edges[j], i)
				}
			}
		}
	}
	return g
}

// reach is how many are reached from one of them, and in how many steps. It notes whom it saw.
func (g *graph) reach(from int, seen []bool) (size, depth int) {
	distance := make([]int, len(g.edges))
	distance[from] = 1
	queue := []int{from}
	for len(queue) > 0 {
		i := queue[0]
		queue = queue[1:]
		seen[i] = true
		size, depth = size+1, distance[i]-1
		for _, j := range g.edges[i] {
			if distance[j] == 0 {
				distance[j] = distance[i] + 1
				queue = append(queue, j)
			}
		}
	}
	return size, depth
}

// largest part, and how deep it is from somewhere in it.
func (g *graph) largest() (size, depth int) {
	seen := make([]bool, len(g.edges))
	for from := range g.edges {
		if seen[from] {
			continue
		}
		s, d := g.reach(from, seen)
		if s > size {
			size, depth = s, d
		}
	}
	return size, depth
}

func mean(all []int) float64 {
	sum := 0
	for _, n := range all {
		sum += n
	}
	return float64(sum) / float64(max(len(all), 1))
}

// TestNeighboursAreFewAndConnected: everyone is reached, in few steps, over few connections, whoever is down. That nobody
// is left out is very likely and not certain, so the fleets are the same ones in every run.
func TestNeighboursAreFewAndConnected(t *testing.T) {
	sizes, outbounds := []int{100, 200, 400}, []int{0, 25, 50, 90}
	if raced {
		sizes, outbounds = []int{100, 400}, []int{0, 90}
	}
	seed := uint64(0)
	for _, shape := range slices.Sorted(maps.Keys(zoneShapes)) {
		for _, size := range sizes {
			for _, outbound := range outbounds {
				for _, down := range []int{0, 10} {
					seed++
					f := newTerrain(shape, size, outbound, seed)
					f.pick(f.down, down, seed)
					t.Run(fmt.Sprintf("%d members, %s, %d outbound only, %d down", size, shape, outbound, down), func(t *testing.T) {
						wantConnected(t, f)
					})
				}
			}
		}
	}
}

// TestNeighboursOfTenThousand is the same at the size that is hard to draw many of.
func TestNeighboursOfTenThousand(t *testing.T) {
	for shape := range zoneShapes {
		for _, outbound := range []int{0, 90} {
			if shape != "forty zones" && os.Getenv("FLOTILLA_SOAK") == "" || raced && outbound == 0 {
				continue // what a zone's size squared takes is for `make soak`
			}
			t.Run(fmt.Sprintf("%s, %d outbound only", shape, outbound), func(t *testing.T) {
				f := newTerrain(shape, 10_000, outbound, 7)
				f.pick(f.down, 10, 8)
				wantConnected(t, f)
			})
		}
	}
}

func wantConnected(t *testing.T, f *terrain) {
	t.Helper()
	g := f.connect(3)
	size, depth := g.largest()
	// Where everyone runs, everyone is connected. With members down, a zone of a few may have lost all its ways for as
	// long as nobody roams there, which is a matter of minutes.
	apart := 0
	if len(f.down) > 0 {
		apart = len(g.edges) * 3 / 100
	}
	if size < len(g.edges)-apart {
		t.Errorf("%d of %d are connected", size, len(g.edges))
	}
	if depth > 12 {
		t.Errorf("%d steps from one end to the other", depth)
	}
	if len(f.directory().all) <= dialEveryone {
		return
	}
	// Of 100 members in 40 zones, the ways between the zones are most.
	if m := mean(g.dialled); m > 12 || m > 10 && len(f.members) >= 400 {
		t.Errorf("a member dials %.1f others", m)
	}
	if most := slices.Max(g.dialled); most > 40 {
		t.Errorf("one dials %d others", most)
	}
	if most := slices.Max(g.inbound); most > 2*membersPerAnchor {
		t.Errorf("one is dialled by %d others", most)
	}
	for id, i := range g.index {
		if f.outbound[id] && g.dialled[i] > nearWanted+1 {
			t.Fatalf("%s only dials out, to %d others", id, g.dialled[i])
		}
	}
}

// TestHalfIsHostile: half the fleet connects and passes nothing on. Nearly all of the others are connected at
// any time, and all of them after a few rounds.
func TestHalfIsHostile(t *testing.T) {
	rounds := make([]uint64, 24)
	for i := range rounds {
		rounds[i] = uint64(i)
	}
	for shape := range zoneShapes {
		for _, outbound := range []int{0, 50, 80} {
			size := 300
			switch {
			case os.Getenv("FLOTILLA_SOAK") != "":
				size = 1000
			case raced:
				size = 150
			}
			t.Run(fmt.Sprintf("%s, %d outbound only", shape, outbound), func(t *testing.T) {
				f := newTerrain(shape, size, outbound, 11)
				f.pick(f.hostile, 50, 12)
				lost := f.lost()
				g := f.connect(0)
				if size, _ := g.largest(); size*100 < (len(g.edges)-lost)*90 {
					t.Errorf("%d of %d are connected at once", size, len(g.edges))
				}
				g = f.connect(rounds...)
				if size, _ := g.largest(); size < len(g.edges)-lost {
					t.Errorf("%d of %d were connected within %d rounds; %d have hostile anchors alone", size, len(g.edges), len(rounds), lost)
				}
			})
		}
	}
}

// lost are the honest members of zones whose anchors are all hostile. Who is there and only dials out has nobody
// else to dial.
func (t *terrain) lost() (lost int) {
	d := t.directory()
	for i := range t.members {
		m := &t.members[i]
		honest := func(id fleet.MemberID) bool { return !t.hostile[id] }
		own := func(a anchor) bool { return honest(a.id) }
		if honest(m.ID) && !slices.ContainsFunc(d.anchors[m.Zone], own) && !slices.ContainsFunc(d.standIns(m.Zone), honest) {
			lost++
		}
	}
	return lost
}

// TestFewAnchorsStandIn: a zone without anchors meets at those of others, the same ones for all its members.
func TestFewAnchorsStandIn(t *testing.T) {
	f := newTerrain("forty zones", 1000, 0, 5)
	for i := range f.members {
		f.outbound[f.members[i].ID] = f.members[i].Zone == "zone-07"
	}
	d := f.directory()
	met := map[fleet.MemberID]int{}
	for i := range f.members {
		if m := &f.members[i]; m.Zone == "zone-07" {
			for _, id := range choose(plan(surroundings{self: m.ID, directory: d}), func(fleet.MemberID) footing { return open }) {
				met[id]++
			}
		}
	}
	if len(met) != anchorsLeast {
		t.Errorf("the members of a zone without anchors dial %d others, want %d", len(met), anchorsLeast)
	}
	for id, n := range met {
		if n != d.members["zone-07"] {
			t.Errorf("%s is dialled by %d of %d", id, n, d.members["zone-07"])
		}
	}
}

// TestDeserted: a zone's stand-in carries what it says when half of its members come and none of its anchors does.
func TestDeserted(t *testing.T) {
	f := newTerrain("one huge, one small", 1000, 0, 5) // the small one has ten
	var anchors, plain []fleet.MemberID
	for i := range f.members {
		if m := &f.members[i]; m.Zone == "small" {
			if f.outbound[m.ID] = len(anchors) == 2; f.outbound[m.ID] {
				plain = append(plain, m.ID)
			} else {
				anchors = append(anchors, m.ID)
			}
		}
	}
	d, elsewhere := f.directory(), []fleet.MemberID{f.members[500].ID, f.members[501].ID}
	for name, c := range map[string]struct {
		connected      []fleet.MemberID
		fresh, already bool
	}{
		"nobody":                  {elsewhere, false, false},
		"one":                     {plain[:1], false, false},
		"a quarter":               {plain[:2], false, true},
		"half":                    {slices.Concat(elsewhere, plain[:4]), true, true},
		"everybody":               {plain, true, true},
		"everybody and an anchor": {slices.Concat(plain, anchors[1:]), false, false},
	} {
		if got := d.deserted("small", c.connected, false); got != c.fresh {
			t.Errorf("%s: begins to stand in: %v", name, got)
		}
		if got := d.deserted("small", c.connected, true); got != c.already {
			t.Errorf("%s: goes on to stand in: %v", name, got)
		}
	}
}

// TestStandInsKnow that they are: each zone has as many as are dialled for it, the very same ones.
func TestStandInsKnow(t *testing.T) {
	for _, shape := range []string{"forty zones", "one huge and very small"} {
		for _, outbound := range []int{0, 80, 95, 100} {
			f := newTerrain(shape, 1000, outbound, 6)
			for i := range f.members {
				f.outbound[f.members[i].ID] = f.outbound[f.members[i].ID] || f.members[i].Zone == "zone-07"
			}
			d := f.directory()
			stand := map[string][]fleet.MemberID{}
			for i := range f.members {
				for _, zone := range d.standsIn(f.members[i].ID) {
					stand[zone] = append(stand[zone], f.members[i].ID)
				}
			}
			for _, zone := range d.zones {
				want := slices.Sorted(slices.Values(d.standIns(zone)))
				if got := slices.Sorted(slices.Values(stand[zone])); !slices.Equal(got, want) {
					t.Errorf("%s, %d outbound only: %v stand in for %s, want %v", shape, outbound, got, zone, want)
				}
			}
		}
	}
}

// TestPlanFollowsCarry: who asks for zones is woken to dial into them, and again when it asks for none.
func TestPlanFollowsCarry(t *testing.T) {
	f := newTerrain("forty zones", 1200, 0, 12)
	f.members[0].ID = idOf(0)
	roster := members{}
	for i := range f.members {
		f.members[i].Addresses = []string{"/ip4/192.0.2.1/tcp/4001"}
		roster[f.members[i].ID] = f.members[i]
	}
	n := nodeOf(t, 0, roster)
	w := &wire{Node: n, dialNow: make(chan struct{}, 1), topicsNow: make(chan struct{}, 1), sharesNow: make(chan struct{}, 1)}
	n.running.Store(w)
	d := &dialler{wire: w}
	d.replan()
	alone := len(d.plan)
	for _, c := range []struct{ zones, want int }{{1, 1}, {3, 3}, {0, 0}} {
		zones := d.directory.zones[10 : 10+c.zones]
		n.Carry(zones)
		select {
		case <-w.dialNow:
		default:
			t.Fatalf("nobody dials for %v", zones)
		}
		d.replan()
		if got := len(d.plan) - alone; got != c.want {
			t.Fatalf("%d connections more for %v", got, zones)
		}
		for i, s := range d.plan[alone:] {
			if s.want != 2 || len(s.order) < 2 {
				t.Fatalf("slot %d for %v: %d of %v", i, zones, s.want, s.order)
			}
			for _, id := range s.order[:2] {
				if !slices.Contains(zones, d.directory.zoneOf[id]) {
					t.Errorf("%s of %s is dialled for %v", id, d.directory.zoneOf[id], zones)
				}
			}
		}
	}
}

// TestFewAnchorsOfMany have room for everyone: half of what they take, or all of it where a zone has but two.
func TestFewAnchorsOfMany(t *testing.T) {
	for _, zones := range []int{1, 10} {
		for _, anchors := range []int{3 * zones, 20 * zones} {
			f := newTerrain("one zone", 10_000, 100, 3)
			for i := range f.members {
				f.members[i].Zone = fmt.Sprint("zone-", i%zones)
				f.outbound[f.members[i].ID] = i >= anchors
			}
			g := f.connect(0)
			if size, _ := g.largest(); size != len(g.edges) {
				t.Errorf("%d zones, %d anchors: %d of %d are connected", zones, anchors, size, len(g.edges))
			}
			if most := slices.Max(g.inbound); most > 2*membersPerAnchor {
				t.Errorf("%d zones, %d anchors: one is dialled by %d", zones, anchors, most)
			}
		}
	}
}

// TestChoose: who fails is tried again and replaced, who is barred is only replaced.
func TestChoose(t *testing.T) {
	stands := map[fleet.MemberID]footing{"b": failing, "c": barred}
	for name, c := range map[string]struct {
		slots []slot
		want  []fleet.MemberID
	}{
		"nobody":               {nil, nil},
		"the first":            {[]slot{{[]fleet.MemberID{"a", "d"}, 1}}, []fleet.MemberID{"a"}},
		"one fails":            {[]slot{{[]fleet.MemberID{"b", "a", "d"}, 1}}, []fleet.MemberID{"b", "a"}},
		"one is barred":        {[]slot{{[]fleet.MemberID{"c", "a", "d"}, 1}}, []fleet.MemberID{"a"}},
		"too few":              {[]slot{{[]fleet.MemberID{"b", "c"}, 2}}, []fleet.MemberID{"b"}},
		"two slots for one":    {[]slot{{[]fleet.MemberID{"a"}, 1}, {[]fleet.MemberID{"a", "d"}, 1}}, []fleet.MemberID{"a"}},
		"none of it is wanted": {[]slot{{[]fleet.MemberID{"a"}, 0}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if got := choose(c.slots, func(id fleet.MemberID) footing { return stands[id] }); !slices.Equal(got, c.want) {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}

// TestCarriedZonesAreReached: two anchors of each while they are few, and never more than the bound.
func TestCarriedZonesAreReached(t *testing.T) {
	f := newTerrain("forty zones", 1000, 90, 9)
	d := f.directory()
	for _, many := range []int{0, 1, 4, 5, 39} {
		for i := range f.members {
			s := surroundings{self: f.members[i].ID, directory: d, carried: d.zones[:many]}
			links := 0
			for _, slot := range s.forCarried(markOf(string(s.self)), f.members[i].Zone) {
				links += slot.want
			}
			others := many
			if slices.Contains(s.carried, f.members[i].Zone) {
				others--
			}
			if links > carriedLinks || links < min(others, carriedLinks) {
				t.Fatalf("%d connections for %d zones", links, others)
			}
		}
	}
}

func BenchmarkNeighbours(b *testing.B) {
	f := newTerrain("one zone", 10_000, 0, 1)
	b.Run("directory", func(b *testing.B) {
		for b.Loop() {
			f.directory()
		}
	})
	d := f.directory()
	b.Run("plan", func(b *testing.B) {
		for b.Loop() {
			plan(surroundings{self: f.members[0].ID, directory: d})
		}
	})
}
