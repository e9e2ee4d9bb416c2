// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"encoding/binary"
	"math"
	"math/bits"
	"slices"
	"strings"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// Whom a member dials. Everything in this file is a pure function of the roster, of whose addresses are known,
// and of how it stands with each, so that a fleet of 10,000 can be looked at in a test.
//
// Members with addresses are anchors: nothing else makes them different. A small fleet dials every one. In a
// larger one each member has its own order of the anchors of its zone, dials the first few, and goes on to the
// next where one does not answer. One more connection roams: it goes to other anchors every few minutes,
// so that who has only hostile ones around does not stay so. Anchors draw lots for the
// other zones, so that each zone is reached from about as many sides whatever its size.
const (
	// dialEveryone is up to how many anchors everyone dials all of them, if they have room for everyone.
	dialEveryone = 32
	// nearWanted are the connections a member dials in its own zone, and one that roams.
	nearWanted = 5
	// anchorsLeast per zone: where fewer are up, as many anchors of other zones stand in. Where there are none, or all are
	// down, those carry what the zone says.
	anchorsLeast = 3
	// farLinks into a zone from the other zones' anchors, on average: so many that stand, and as many that roam.
	farLinks = 8
	// carriedLinks bounds the connections for the sake of other zones that are carried here.
	carriedLinks = 8
	// membersPerAnchor is how many an anchor takes; half of what it has room for, so that another one may fail.
	membersPerAnchor = 2000
	// ordered is how far an order goes: so many down or blamed ones are passed over.
	ordered = 64
)

// anchor is a member that can be dialled, and its mark in every order.
type anchor struct {
	id   fleet.MemberID
	mark uint64
}

// directory is the roster as the choice needs it. It is made once for a roster and what is known of addresses.
type directory struct {
	zoneOf  map[fleet.MemberID]string
	zones   []string // in order
	members map[string]int
	anchors map[string][]anchor
	all     []anchor
	// ins are the standIns that were asked for.
	ins map[string][]fleet.MemberID
}

// newDirectory of a roster. reachable says whether an address of a member is known.
func newDirectory(members []fleet.Member, reachable func(*fleet.Member) bool) *directory {
	d := &directory{
		zoneOf: make(map[fleet.MemberID]string, len(members)), members: map[string]int{}, anchors: map[string][]anchor{},
		ins: map[string][]fleet.MemberID{},
	}
	for i := range members {
		m := &members[i]
		d.zoneOf[m.ID] = m.Zone
		if d.members[m.Zone] == 0 {
			d.zones = append(d.zones, m.Zone)
		}
		d.members[m.Zone]++
		if reachable(m) {
			a := anchor{m.ID, markOf(string(m.ID))}
			d.anchors[m.Zone] = append(d.anchors[m.Zone], a)
			d.all = append(d.all, a)
		}
	}
	slices.Sort(d.zones)
	return d
}

// markOf a name: nobody can choose an ID with a mark that suits it but by making keys, and each takes a
// roster that has it.
func markOf(name string) uint64 {
	sum := fleet.DigestOf("flotilla.dev/neighbour", []byte(name))
	return binary.BigEndian.Uint64(sum[:])
}

// weigh two marks against each other, and a salt: rendezvous hashing. The lowest weight comes first.
func weigh(a, b, salt uint64) uint64 {
	// The finaliser of splitmix64 over three words; the rotations keep (a, b) from (b, a).
	z := bits.RotateLeft64(a, 17) ^ bits.RotateLeft64(b, 41) ^ salt*0x9e3779b97f4a7c15
	for range 2 {
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		z ^= z >> 31
		z += a
	}
	return z
}

// first of the anchors in the order of one mark, without one of them, at most so many.
func first(anchors []anchor, mark, salt uint64, most int, without fleet.MemberID) []fleet.MemberID {
	type weighed struct {
		weight uint64
		id     fleet.MemberID
	}
	lowest := make([]weighed, 0, most+1)
	for _, a := range anchors {
		w := weighed{weigh(mark, a.mark, salt), a.id}
		if a.id == without || len(lowest) == most && w.weight >= lowest[most-1].weight {
			continue
		}
		at, _ := slices.BinarySearchFunc(lowest, w, func(x, y weighed) int {
			if x.weight != y.weight {
				return compareUint(x.weight, y.weight)
			}
			return strings.Compare(string(x.id), string(y.id))
		})
		lowest = slices.Insert(lowest, at, w)
		lowest = lowest[:min(len(lowest), most)]
	}
	ids := make([]fleet.MemberID, len(lowest))
	for i, w := range lowest {
		ids[i] = w.id
	}
	return ids
}

func compareUint(a, b uint64) int {
	if a < b {
		return -1
	}
	return 1
}

// standIns of a zone are anchors of others that it turns to where its own are too few or down. They are the same
// for everyone, or its members would not meet.
func (d *directory) standIns(zone string) []fleet.MemberID {
	ids, ok := d.ins[zone]
	if !ok {
		foreign := slices.DeleteFunc(slices.Clone(d.all), func(a anchor) bool { return d.zoneOf[a.id] == zone })
		ids = first(foreign, markOf("zone "+zone), 0, anchorsLeast, "")
		d.ins[zone] = ids
	}
	return ids
}

// standsIn gives the zones of whose stand-ins a member is one. Most members see soon that others come before them.
func (d *directory) standsIn(self fleet.MemberID) (zones []string) {
	at := slices.IndexFunc(d.all, func(a anchor) bool { return a.id == self })
	if at < 0 {
		return nil
	}
	for _, zone := range d.zones {
		if zone != d.zoneOf[self] && d.standsInFor(zone, d.all[at]) {
			zones = append(zones, zone)
		}
	}
	return zones
}

// deserted says that a zone meets at its stand-ins, one of which asks: it has no anchors of its own, or those that it has
// must be down, as none of them is connected here and half of the other members are. They come here one in three while
// they roam. Who stands in already goes on until a quarter is left, so that it does not change its mind all the time.
func (d *directory) deserted(zone string, connected []fleet.MemberID, already bool) bool {
	anchors := d.anchors[zone]
	if len(anchors) == 0 {
		return true
	}
	here := 0
	for _, id := range connected {
		if d.zoneOf[id] != zone {
			continue
		}
		if slices.ContainsFunc(anchors, func(a anchor) bool { return a.id == id }) {
			return false
		}
		here++
	}
	part := 2
	if already {
		part = 4
	}
	return here >= 2 && part*here >= d.members[zone]-len(anchors)
}

func (d *directory) standsInFor(zone string, self anchor) bool {
	mark, before := markOf("zone "+zone), 0
	mine := weigh(mark, self.mark, 0)
	for _, a := range d.all {
		w := weigh(mark, a.mark, 0)
		if w > mine || w == mine && a.id >= self.id || d.zoneOf[a.id] == zone {
			continue
		}
		if before++; before == anchorsLeast {
			return false
		}
	}
	return true
}

// order of a zone's anchors for a mark: its own, and behind them those that stand in.
func (s *surroundings) order(zone string, mark, salt uint64, most int) []fleet.MemberID {
	own := first(s.anchors[zone], mark, salt, most, s.self)
	return append(own, slices.DeleteFunc(slices.Clone(s.standIns(zone)), func(id fleet.MemberID) bool { return id == s.self })...)
}

// slot is a number of connections wanted among members, the first ones first.
type slot struct {
	order []fleet.MemberID
	want  int
}

// surroundings are what a plan is made of.
type surroundings struct {
	self fleet.MemberID
	*directory
	// pinned are members that a person named here: to be connected whatever else.
	pinned []fleet.MemberID
	// carried are the other zones whose milestones are carried here.
	carried []string
	// round goes up every few minutes.
	round uint64
}

// plan says with whom a member wants to be connected, in each of several respects.
func plan(s surroundings) []slot {
	slots := []slot{{s.pinned, len(s.pinned)}}
	if len(s.all) <= dialEveryone && len(s.zoneOf) <= membersPerAnchor {
		everyone := make([]fleet.MemberID, 0, len(s.all))
		for _, a := range s.all {
			if a.id != s.self {
				everyone = append(everyone, a.id)
			}
		}
		return append(slots, slot{everyone, len(everyone)})
	}
	mark, zone := markOf(string(s.self)), s.zoneOf[s.self]
	anchors := max(len(s.anchors[zone]), min(anchorsLeast, len(s.all)))
	want := min(max(anchors*membersPerAnchor/max(s.members[zone], 1), 1), nearWanted, anchors)
	near := s.order(zone, mark, 0, ordered)
	slots = append(slots, slot{near, want})
	if want*s.members[zone] < anchors*membersPerAnchor {
		slots = append(slots, slot{s.roaming(zone, near[:min(want, len(near))], mark), 1})
	}
	if slices.ContainsFunc(s.anchors[zone], func(a anchor) bool { return a.id == s.self }) {
		slots = append(slots, s.far(mark, zone)...)
	}
	return append(slots, s.forCarried(mark, zone)...)
}

// roaming goes through all anchors of the zone and those that stand in, one each round, and passes over those that
// have a connection anyway.
func (s *surroundings) roaming(zone string, standing []fleet.MemberID, mark uint64) []fleet.MemberID {
	own, ins := s.anchors[zone], s.standIns(zone)
	n := uint64(len(own) + len(ins))
	var order []fleet.MemberID
	for i := range n {
		var id fleet.MemberID
		if at := (mark%n + s.round%n + i) % n; at < uint64(len(own)) {
			id = own[at].id
		} else {
			id = ins[at-uint64(len(own))]
		}
		if id != s.self && !slices.Contains(standing, id) {
			order = append(order, id)
		}
		if len(order) == nearWanted {
			break
		}
	}
	return order
}

// far are the lots that an anchor won: a connection into another zone each. What a zone gets does not grow with
// the number of those that draw, or a small zone would be overrun by a large one.
func (s *surroundings) far(mark uint64, zone string) []slot {
	var slots []slot
	for _, salt := range []uint64{0, 1 + s.round} {
		for _, other := range s.zones {
			if other == zone {
				continue
			}
			drawing := len(s.all) - len(s.anchors[other])
			if chance := float64(farLinks) / float64(max(drawing, 1)); float64(weigh(mark, markOf("lot "+other), salt)) < chance*math.MaxUint64 {
				slots = append(slots, slot{s.order(other, mark, salt, farLinks), 1})
			}
		}
	}
	return slots
}

// forCarried reaches those who say what is carried here: two anchors of each zone while they are few. Who carries
// many shares that with its neighbours, who decide by the same rollouts.
func (s *surroundings) forCarried(mark uint64, zone string) []slot {
	var zones []anchor // ordered like anchors
	for _, other := range s.carried {
		if other != zone {
			zones = append(zones, anchor{fleet.MemberID(other), markOf("carried " + other)})
		}
	}
	want := 1
	if 2*len(zones) <= carriedLinks {
		want = 2
	}
	var slots []slot
	for _, other := range first(zones, mark, 0, carriedLinks, "") {
		slots = append(slots, slot{s.order(string(other), mark, 0, farLinks), want})
	}
	return slots
}

// footing of a member with who would dial it.
type footing uint8

const (
	// open: connected, or nothing is known against it.
	open footing = iota
	// failing: it did not answer lately. It is tried again, and another one beside it.
	failing
	// barred: off the roster, or blamed. It is not dialled.
	barred
)

// choose the members to be connected with: in each slot the first that are well, and those before them that fail.
func choose(slots []slot, stands func(fleet.MemberID) footing) []fleet.MemberID {
	var chosen []fleet.MemberID
	met := map[fleet.MemberID]bool{}
	for _, s := range slots {
		missing := s.want
		for _, id := range s.order {
			if missing <= 0 {
				break
			}
			is := stands(id)
			if is == barred {
				continue
			}
			if is == open {
				missing--
			}
			if !met[id] {
				met[id] = true
				chosen = append(chosen, id)
			}
		}
	}
	return chosen
}
