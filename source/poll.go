// SPDX-License-Identifier: Apache-2.0

package source

import (
	"math"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

const (
	// DefaultInterval between looks, where spec.source.interval says nothing.
	DefaultInterval = time.Minute
	// DefaultTimeout of one look, where spec.source.timeout says nothing.
	DefaultTimeout = time.Minute
	// shortest wait after a failure, and between two looks that news asked for.
	shortest = 5 * time.Second
	// backoffCap bounds the wait after failures; a longer interval bounds it instead.
	backoffCap = 10 * time.Minute
	// jitterShare of the interval is added or taken away at random.
	jitterShare = 0.1
)

// Poll is when one source is looked at again. It is due at once until the first look. Times are the
// Elapsed of a [fleet.Moment]: they compare within one start of the agent. Not safe for concurrent use.
//
//   - After a look that worked: Interval, give or take a tenth.
//   - After failures in a row 1, 2, 3, ...: F, 2F, 4F, ... to at most C, each drawn from the upper half
//     of its range, where F is the smaller of Interval and 5 s, C the larger of Interval and 10 min.
//   - Told of a head that is not the one here: F after the last look. A look that was asked for and
//     found nothing new doubles that wait, so that a liar costs the server at most log2(Interval/F)
//     looks per Interval, and in the end none; a look that finds something new resets it.
type Poll struct {
	// Interval between looks; DefaultInterval where it is not positive.
	Interval time.Duration
	// Seed of the jitter: differs from member to member and from rollout to rollout, so that a fleet
	// that starts together does not look together.
	Seed uint64

	next, last       time.Duration
	draws            uint64
	failures, misses int
	looked, asked    bool
	found, heard     fleet.Revision
}

// Wait is how long from now the next look is; 0 means that it is due.
func (p *Poll) Wait(now time.Duration) time.Duration { return max(0, p.next-now) }

// Every is how often whoever asks now wants a look. Where several rollouts share a source, the shortest interval
// counts: a look that was timed by a longer one is brought forward.
func (p *Poll) Every(interval time.Duration) {
	p.Interval = interval
	if at := p.last + p.interval(); p.looked && p.failures == 0 && at < p.next {
		p.next = max(at, 0)
	}
}

// Looked notes a look that ended now and found a revision, or failed with err.
func (p *Poll) Looked(now time.Duration, found fleet.Revision, err error) {
	news := err == nil && found != p.found
	switch {
	case news:
		p.found, p.misses = found, 0
	case p.asked:
		p.misses++
	case err == nil && p.misses > 0:
		p.misses--
	}
	p.asked, p.looked, p.last = false, true, now
	if err == nil {
		p.failures = 0
		p.next = now + p.spread(p.interval(), 1-jitterShare, 1+jitterShare)
		return
	}
	p.failures++
	p.next = now + p.spread(p.backoff(p.failures-1, max(p.interval(), backoffCap)), 0.5, 1)
}

// Told notes that a member has verified head. It brings the next look forward unless head is the
// revision found here, or one that was told before.
func (p *Poll) Told(head fleet.Revision) {
	if head == "" || head == p.found || head == p.heard {
		return
	}
	p.heard = head
	if !p.looked {
		return
	}
	if at := p.last + p.backoff(p.misses, p.interval()); at < p.next {
		p.next, p.asked = at, true
	}
}

// Ask makes the next look due at once: a person asked for it, or the spec changed.
func (p *Poll) Ask() { p.next, p.asked = 0, false }

func (p *Poll) interval() time.Duration {
	if p.Interval <= 0 {
		return DefaultInterval
	}
	return p.Interval
}

// backoff is F, doubled so many times, at most most.
func (p *Poll) backoff(doublings int, most time.Duration) time.Duration {
	wait := min(p.interval(), shortest)
	for range doublings {
		if wait >= most/2 {
			return most
		}
		wait *= 2
	}
	return min(wait, most)
}

// spread draws from [low, high] times wait.
func (p *Poll) spread(wait time.Duration, low, high float64) time.Duration {
	p.draws++
	share := low + (high-low)*float64(mix(p.Seed+p.draws*0x9e3779b97f4a7c15)>>11)/(1<<53)
	return time.Duration(math.Min(float64(wait)*share, math.MaxInt64/2))
}

// mix is the finalizer of splitmix64: neighbouring seeds give unrelated draws.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
