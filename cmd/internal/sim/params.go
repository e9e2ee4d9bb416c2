// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"math/rand/v2"
	"time"

	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// Params of one run. Probabilities are 0 to 1 for each time the thing could happen.
type Params struct {
	// Clusters in the fleet, Targets of each rollout (0: all), Rollouts at once, Releases of each, Zones.
	Clusters, Targets, Rollouts, Releases, Zones int
	// Storm is how long faults last, Calm how long the fleet has to come to rest afterwards.
	Storm, Calm time.Duration
	// Interval between two looks at a source, and of healing.
	Interval time.Duration
	// play somebody's own rollout; nil draws one.
	play *playing

	// OneWay delay of a message with Jitter around it, Loss and Double in 0 to 1, Late is how often a message takes up
	// to LateBy.
	OneWay, Jitter     time.Duration
	Loss, Double, Late float64
	LateBy             time.Duration
	// Coalesce is how long what is said waits for more; Beat how often two neighbours compare what they hold.
	Coalesce, Beat time.Duration
	// Eager members take a turn at all news, as the agent does; the others not at those that no rule reads, such as
	// that another member started.
	Eager bool
	// Partitions in the storm, each of a random form.
	Partitions int

	// Crash at each point where something is kept, Crashes out of the blue, Pauses of a process, stores Lost.
	Crash           float64
	Crashes, Pauses int
	Losses          int
	// Restores of a cluster's API from an older copy.
	Restores int
	// Torn is how often a crash damages records of the store, Wrecked how often a crash in the middle of a turn takes
	// the whole store. StoreFails at each record.
	Torn, Wrecked, StoreFails float64
	// APIFails and ApplyFails at each call, Ineligible at each check before a start.
	APIFails, ApplyFails, Ineligible float64
	// Drift of clocks, to either side; Jumps of the wall clock by up to a year.
	Drift float64
	Jumps int
	// Bad is how likely a release does not get well in one cluster, Sick that it falls sick later, Hopeless that it
	// gets well nowhere. Slow is how many clusters take ten times as long.
	Bad, Sick, Hopeless, Slow float64
	// Forked is how many members see a sibling branch, Frozen how many mirrors stop.
	Forked, Frozen float64
	// Instant payloads are healthy as soon as they are applied. Strategy of every rollout; nil draws one.
	Instant  bool
	Strategy *v1alpha1.Strategy
	// Stops given in the storm, Reseals: the roster or the spec changes.
	Stops, Reseals int
	// Proofs that a member said two things in one position. Replays: members that send old records again and again.
	Proofs, Replays int
	// Lattice: members hold what they heard in the set that agents hold it in.
	Lattice bool
	// Liars among the members, at most: they say anything about themselves, and pass on what they like.
	Liars int
}

// calm is the network and the fleet of the figures: 50 ms of round trip +-10 %, 1 % loss.
func calm(clusters int) Params {
	return Params{
		Clusters: clusters, Rollouts: 1, Releases: 1, Zones: 1,
		Storm: time.Minute, Calm: 6 * time.Hour, Interval: 10 * time.Minute,
		OneWay: 25 * time.Millisecond, Jitter: 2500 * time.Microsecond, Loss: 0.01,
		Coalesce: 50 * time.Millisecond, Beat: 5 * time.Second, Eager: true,
	}
}

// swarm draws the parameters themselves: weather of every kind, and often several kinds missing.
func swarm(r *rand.Rand, clusters int) Params {
	p := calm(clusters)
	some := func(most float64) float64 {
		if r.IntN(2) == 0 {
			return 0
		}
		return most * r.Float64()
	}
	times := func(most int) int {
		if r.IntN(2) == 0 {
			return 0
		}
		return 1 + r.IntN(most)
	}
	p.Rollouts, p.Releases, p.Zones = 1+times(2), 1+times(4), 1+r.IntN(4)
	p.Storm = time.Duration(5+r.IntN(40)) * time.Minute
	p.OneWay = time.Duration(1+r.IntN(200)) * time.Millisecond
	p.Jitter = time.Duration(r.IntN(int(p.OneWay)))
	p.Loss, p.Double, p.Late, p.LateBy = some(0.3), some(0.3), some(0.02), time.Duration(1+r.IntN(120))*time.Minute
	p.Partitions = times(4)
	p.Crash, p.Crashes, p.Pauses, p.Losses = some(0.05), times(8), times(4), times(3)
	p.APIFails, p.ApplyFails, p.Ineligible = some(0.05), some(0.1), some(0.05)
	p.Drift, p.Jumps = some(0.2), times(3)
	p.Bad, p.Sick, p.Hopeless, p.Slow = some(0.2), some(0.1), some(0.5), some(0.2)
	p.Forked, p.Frozen = some(0.2), some(0.2)
	p.Stops, p.Reseals = times(4), times(2)
	p.Proofs = times(2)
	p.Torn, p.Wrecked, p.StoreFails, p.Replays = some(1), some(0.5), some(0.05), times(2)
	p.Eager = r.IntN(2) == 0
	p.Liars = times(2)
	p.Restores = times(2)
	p.Lattice = r.IntN(32) == 0
	return p
}
