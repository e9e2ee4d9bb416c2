// SPDX-License-Identifier: Apache-2.0

package mesh

import "time"

// moment is the time since New by this process's own monotonic clock: wall clocks jump.
type moment = time.Duration

const (
	// still is up to how many members heartbeats come every Config.Heartbeat.
	still = 8
	// heartbeatCost is what one heartbeat may cost each member that follows its topic, received, in bytes; as much is
	// sent. With 100 members in simulation it costs 1,260: 195 B and 95 B for the topic and the envelope, to or from each
	// neighbour of the gossip mesh, in a packet with 58 B around it, and its mentions. The rest is room for losses.
	heartbeatCost = 2000
	// heartbeatBudget is what all gossip heartbeats may cost one member, received: 3 kbit/s, in bytes per second.
	heartbeatBudget = 375
)

// pace is how often members speak, and after how long a silence something is made of it.
type pace struct{ beat, heartbeat time.Duration }

// interval between two heartbeats by gossip, where so many members follow one another's. Up to still members it
// is Config.Heartbeat. From there it grows with the third power of the size, so that the cost falls to the budget,
// which it meets before 24 members; from there it grows with the size, and the cost stays:
//
//	members x heartbeatCost / interval = heartbeatBudget
//
// At 100 members that is 9 minutes, at 1,000 it is 89. It may be: neighbours beat, and notices tell of who vanished.
func (p pace) interval(members int) time.Duration {
	if members <= still {
		return p.heartbeat
	}
	size := float64(members)
	cube := p.heartbeat.Seconds() * size * size * size / (still * still * still)
	budget := size * heartbeatCost / heartbeatBudget
	const most = 1e9 // seconds, so that no reckoning with it overflows
	return max(p.heartbeat, time.Duration(min(cube, budget, most)*float64(time.Second)))
}

// young is the pause after the n-th heartbeat since this member began to speak: it begins with one beat
// and becomes eight times as long each time, as nobody may have been listening yet.
func (p pace) young(n int, interval time.Duration) time.Duration {
	if n > 5 {
		return interval
	}
	return min(interval, p.beat<<(3*n))
}

// suspectAfter two missed beats a neighbour is asked, and asked again every sixth of a beat: where every twentieth packet
// is lost, three questions and answers that are all lost are an hour's daily bread, nine are not.
func (p pace) suspectAfter() time.Duration { return 2 * p.beat }

// lostAfter three missed beats, and as many questions without an answer, it is lost.
func (p pace) lostAfter() time.Duration { return 7 * p.beat / 2 }

// standstill: who did not get to look at its clock for so long was not listening either.
func (p pace) standstill() time.Duration { return p.beat }

// settled is how long a life has to last before another one of the same key that is heard, too, makes two of them.
func (p pace) settled() time.Duration { return p.beat }

// tick is how often time is looked at.
func (p pace) tick() time.Duration { return p.beat / 4 }

// next is the time until the next beat to a neighbour: +-10 %, so that not all members beat together, and sooner to one
// that is silent. draw gives a random duration below its argument.
func (p pace) next(silence time.Duration, draw func(time.Duration) time.Duration) time.Duration {
	if silence >= p.suspectAfter() {
		return p.beat / 6
	}
	return min(p.beat*9/10+draw(p.beat/5+1), max(1, p.suspectAfter()-silence))
}

// crossing is how long after a beat a question is not answered apart: the two were on their way at the same time. It is
// shorter than the time between two questions of one that is worried.
func (p pace) crossing() time.Duration { return p.beat / 8 }

// tellWithin is the time from which those who lost the same neighbour draw, so that one speaks first and the others
// need not.
func (p pace) tellWithin() time.Duration { return p.beat / 3 }

// holdFor is how long a member keeps to itself that it lost most of its neighbours: it is more likely to be itself
// the one that was cut off.
func (p pace) holdFor() time.Duration { return 10 * p.beat }

// later is by how much a counter must be higher to outweigh a notice. Counters are milliseconds. Who writes a
// notice has heard nothing for lostAfter, so anything up to here came before the loss, over a longer way.
func (p pace) later() uint64 { return uint64(p.suspectAfter() / time.Millisecond) }

// The notices of one writer, and of all, that are told and passed on: so many at once, and then one in so many
// beats. Some hundred members that vanish together are within it; what a cut through the fleet makes thousands of
// members say is told bit by bit. Only notices that say something new count: a vanished member has several neighbours,
// and those that are far apart speak before they have heard each other.
//
// For the same reason more is passed on than anybody begins to tell, and what is too much to be passed on, as somebody
// keeps to nothing, or hundreds vanished at once, is still heard, up to another bound that is for the signatures alone.
// A notice that came and was not heard would never come again.
const (
	noticesOfOne, noticesOfAll = 64, 256
	noticesPassed              = 2 * noticesOfAll
	noticesHeard               = 4 * noticesOfAll
	beatsPerNotice             = 3
	noticesPerBeat             = 3
)

// bucket of tokens: size at most, one more every so often. The zero value of level is made full by the first take.
type bucket struct {
	size  int
	every time.Duration
	spent float64
	at    moment
}

func (b *bucket) has(now moment) bool {
	if b.every > 0 && now > b.at {
		b.spent = max(0, b.spent-float64(now-b.at)/float64(b.every))
		b.at = now
	}
	return b.spent+1 <= float64(b.size)
}

func (b *bucket) take(now moment) bool {
	if !b.has(now) {
		return false
	}
	b.spent++
	return true
}

// spend takes a token that somebody else took: there may be none, and then it is longer until there is one.
func (b *bucket) spend(now moment) {
	b.has(now)
	b.spent = min(b.spent+1, 2*float64(b.size))
}

// ownBucket is what a member begins to tell, writerBucket what the others take of it: a little more, as notices do not come
// as regularly as they were told.
func (p pace) ownBucket() bucket { return bucket{size: noticesOfOne, every: beatsPerNotice * p.beat} }

func (p pace) writerBucket() bucket {
	return bucket{size: noticesOfOne * 3 / 2, every: beatsPerNotice * p.beat}
}

// fleetBucket holds so many notices of all writers. A larger one is filled faster, by as much.
func (p pace) fleetBucket(size int) bucket {
	return bucket{size: size, every: p.beat * noticesOfAll / time.Duration(noticesPerBeat*size)}
}
