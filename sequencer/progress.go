// SPDX-License-Identifier: Apache-2.0

package sequencer

import (
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// Phase of a member's own work on a plan.
type Phase string

// The phases. A member passes Working and ends in Soaked or GaveUp; Failed goes back to Working.
const (
	Working  Phase = "Working"
	Ready    Phase = "Ready" // succeeded, soaking
	Settled  Phase = "Soaked"
	Retrying Phase = "Failed"
	Resigned Phase = "GaveUp"
)

// Progress is what a member remembers of its own work on one plan. Kept in its cluster's API, so that
// it survives a restart of the agent (R4). All times are elapsed time within Boot; after a reboot the
// clocks in it begin again, which can only delay a success; a retry that was waited for is due at once.
type Progress struct {
	Plan     fleet.Digest  `json:"plan"`
	Phase    Phase         `json:"phase"`
	Attempts int           `json:"attempts"`
	Boot     string        `json:"boot"`
	Begun    time.Duration `json:"begun"`
	// HealthySince and SickSince: since when without interruption; at most one is set.
	HealthySince *time.Duration `json:"healthySince,omitempty"`
	SickSince    *time.Duration `json:"sickSince,omitempty"`
	// RetryAt is when the next attempt begins, in phase Failed.
	RetryAt time.Duration `json:"retryAt,omitempty"`
	// Degraded says that the sickness after success was stated.
	Degraded bool `json:"degraded,omitempty"`
}

// Pace is what the plan and the rollout say about one member's attempts.
type Pace struct {
	MinReadyTime, Soak, ProgressDeadline time.Duration
	// RetryInterval after the first failure; doubles to at most MaxRetryInterval. Retries bounds them (R5).
	RetryInterval time.Duration
	Retries       int
}

// MaxRetryInterval is the longest pause between two attempts.
const MaxRetryInterval = 10 * time.Minute

// Observation of the cluster at one moment.
type Observation struct {
	Healthy bool
	// Hopeless: something says that it will not get healthy by itself.
	Hopeless bool
}

// Begin an attempt at the plan. The first one is what Started states. Another one follows a failure
// and nothing else: an attempt under way goes on, a success stays, and who gave up never tries again (R5).
func (p Progress) Begin(plan fleet.Digest, now fleet.Moment) Progress {
	if p.Plan != plan {
		p = Progress{Plan: plan}
	}
	if p.Phase != "" && p.Phase != Retrying {
		return p
	}
	return Progress{Plan: plan, Phase: Working, Attempts: p.Attempts + 1, Boot: now.Boot, Begun: now.Elapsed}
}

// CarryOver is the progress of a member that already runs the same payload and is healthy (R1): it
// states Succeeded at once. Not for a plan that it has started, yielded or given up: those stay as they are.
func CarryOver(plan fleet.Digest, now fleet.Moment) Progress {
	return Progress{Plan: plan, Phase: Ready, Boot: now.Boot, Begun: now.Elapsed, HealthySince: &now.Elapsed}
}

// Fail ends the attempt: another one follows after the pause, unless none is left. Without an attempt
// under way it changes nothing: a success is never taken back (R4).
func (p Progress) Fail(pace Pace, now fleet.Moment) (Progress, []fleet.FactKind) {
	if p.Phase != Working {
		return p, nil
	}
	p = p.sinceBoot(now)
	p.Phase, p.HealthySince, p.SickSince = Retrying, nil, nil
	said := []fleet.FactKind{fleet.Failed}
	if p.Attempts > pace.Retries {
		p.Phase = Resigned
		return p, append(said, fleet.GaveUp)
	}
	wait := pace.RetryInterval
	for i := 1; i < p.Attempts && wait < MaxRetryInterval; i++ {
		wait *= 2
	}
	p.RetryAt = now.Elapsed + min(wait, MaxRetryInterval)
	return p, said
}

// MayRetry says whether the pause after a failure is over; wait is what is left of it.
func (p Progress) MayRetry(now fleet.Moment) (due bool, wait time.Duration) {
	p = p.sinceBoot(now)
	if p.Phase != Retrying {
		return false, 0
	}
	return now.Elapsed >= p.RetryAt, max(p.RetryAt-now.Elapsed, 0)
}

// Observe advances the progress by one look at the cluster, and says which milestones that earns
// (R4) and when time alone will change something.
func (p Progress) Observe(o Observation, pace Pace, now fleet.Moment) (Progress, []fleet.FactKind, time.Duration) {
	p = p.sinceBoot(now)
	p = p.note(o.Healthy, now)
	switch p.Phase {
	case Working:
		return p.working(o, pace, now)
	case Ready:
		return p.soaking(pace, now)
	case Settled:
		return p.watching(pace, now)
	case Retrying:
		_, wait := p.MayRetry(now)
		return p, nil, wait
	}
	return p, nil, 0
}

// note keeps since when the cluster has been healthy, or not.
func (p Progress) note(healthy bool, now fleet.Moment) Progress {
	at := now.Elapsed
	switch {
	case healthy && p.HealthySince == nil:
		p.HealthySince, p.SickSince = &at, nil
	case !healthy && p.SickSince == nil:
		p.HealthySince, p.SickSince = nil, &at
	}
	return p
}

func (p Progress) working(o Observation, pace Pace, now fleet.Moment) (Progress, []fleet.FactKind, time.Duration) {
	if p.HealthySince != nil {
		if left := *p.HealthySince + pace.MinReadyTime - now.Elapsed; left > 0 {
			return p, nil, left
		}
		p.Phase = Ready
		at := now.Elapsed
		p.HealthySince = &at // the soak is counted from the success on
		next, more, wait := p.soaking(pace, now)
		return next, append([]fleet.FactKind{fleet.Succeeded}, more...), wait
	}
	left := p.Begun + pace.ProgressDeadline - now.Elapsed
	if o.Hopeless || left <= 0 {
		next, said := p.Fail(pace, now)
		_, wait := next.MayRetry(now)
		return next, said, wait
	}
	return p, nil, left
}

func (p Progress) soaking(pace Pace, now fleet.Moment) (Progress, []fleet.FactKind, time.Duration) {
	if p.HealthySince == nil {
		return p.watching(pace, now)
	}
	if left := *p.HealthySince + pace.Soak - now.Elapsed; left > 0 {
		return p, nil, left
	}
	p.Phase = Settled
	return p, []fleet.FactKind{fleet.Soaked}, 0
}

// watching after success: unhealthy for as long as a start may take is sickness, and is said once.
// A shorter spell is a node that drains or drift that is being corrected.
func (p Progress) watching(pace Pace, now fleet.Moment) (Progress, []fleet.FactKind, time.Duration) {
	if p.SickSince == nil || p.Degraded {
		return p, nil, 0
	}
	if left := *p.SickSince + pace.ProgressDeadline - now.Elapsed; left > 0 {
		return p, nil, left
	}
	p.Degraded = true
	return p, []fleet.FactKind{fleet.Degraded}, 0
}

// sinceBoot restarts the clocks of another boot: what elapsed before it cannot be told.
func (p Progress) sinceBoot(now fleet.Moment) Progress {
	if p.Boot == now.Boot {
		return p
	}
	p.Boot, p.Begun, p.RetryAt = now.Boot, now.Elapsed, now.Elapsed
	p.HealthySince, p.SickSince = nil, nil
	return p
}
