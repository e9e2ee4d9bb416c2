// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/sequencer"
)

// Promise is what this member has bound itself to in one rollout. It lives in the cluster's own API
// and is written, with a precondition, before anything that follows from it is done or said (R1, R5, R6).
type Promise struct {
	Rollout fleet.RolloutName `json:"rollout"`
	// Accepted is the highest release ever accepted here; nothing below it is started (R6).
	Accepted sequencer.Release `json:"accepted,omitzero"`
	// AcceptedFrom is the source that Accepted's revision belongs to: revisions of two sources do not compare.
	AcceptedFrom string `json:"acceptedFrom,omitempty"`
	// Author of Accepted's seal.
	Author string `json:"author,omitempty"`
	// Progress on the release that was started last.
	Progress sequencer.Progress `json:"progress,omitzero"`
	// Failure of the last attempt at Progress's plan, until the next one begins; nil where it has not failed.
	Failure *Failure `json:"failure,omitempty"`
	// Installed is what was started last and has not failed, else the last good: what is healed (R11).
	Installed *Installed `json:"installed,omitempty"`
	// LastGood is the last release that succeeded here.
	LastGood *Installed `json:"lastGood,omitempty"`
	// Plans that this member stated milestones of, the oldest first, as long as the fleet may hold them: a plan's
	// digest does not say which rollout it is of. Closed is the newest of them that is known to be everywhere.
	Plans  []fleet.Digest `json:"plans,omitempty"`
	Closed fleet.Digest   `json:"closed,omitzero"`
	// Ended is when this member learnt that the rollout was withdrawn or taken out, in Unix seconds.
	Ended int64 `json:"ended,omitempty"`
	// Said are the exact records of the milestones of Progress.Plan and Accepted's plan, encoded. What is
	// found here and not in the fleet's state is said again, to the byte (R5).
	Said [][]byte `json:"said,omitempty"`
	// Bound is the position of the last milestone that was ever in Said. What this member said of the rollout above it, the
	// API does not know of (R13).
	Bound Position `json:"bound,omitzero"`
	// Authored is the newest seal that this member wrote, where it is the rollout's home.
	Authored *Authored `json:"authored,omitempty"`
	// Stop is this member's own Pause in force.
	Stop *OwnStop `json:"stop,omitempty"`
}

// Installed is a release that was started here, with all that is needed to apply it again without
// its seal: the seal may be gone from every store by then.
type Installed struct {
	Release sequencer.Release `json:"release"`
	Source  v1alpha1.Source   `json:"source"`
	// Specialize of the sealed spec, and the member as the seal has it: today's labels may be others.
	Specialize *v1alpha1.Specialize `json:"specialize,omitempty"`
	Member     fleet.Member         `json:"member,omitzero"`
	Delivery   v1alpha1.Delivery    `json:"delivery"`
	// Path with the member's variables filled in.
	Path string `json:"path"`
	// Manifest is the digest of what was rendered: other bytes are not the same release.
	Manifest fleet.Digest `json:"manifest"`
	// Inputs is the digest of what the cluster itself added. With others, other bytes are the same release still.
	Inputs fleet.Digest `json:"inputs,omitzero"`
	// Pace of the member's attempts at it.
	Pace sequencer.Pace `json:"pace"`
}

// Failure is how an attempt ended that did not succeed.
type Failure struct {
	// Reason of the condition Available.
	Reason  string `json:"reason"`
	Because string `json:"because,omitempty"`
}

// Authored is the position and content of a seal of this member.
type Authored struct {
	Term    uint64       `json:"term"`
	Number  uint64       `json:"number"`
	Content fleet.Digest `json:"content"`
	Record  []byte       `json:"record"`
}

// OwnStop is a stop of this member and the words it was given for.
type OwnStop struct {
	Reason string `json:"reason"`
	Record []byte `json:"record"`
}

// ErrConflict says that another agent wrote the promise meanwhile: this one must stop acting on what it read.
var ErrConflict = errors.New("the promise was changed by another agent")

// Promises keeps promises, one per rollout.
type Promises interface {
	// Load the promise; the zero promise where none was made.
	Load(context.Context, fleet.RolloutName) (Promise, error)
	// Save it, if nobody else has since it was loaded; else ErrConflict. An unchanged promise is not written.
	Save(context.Context, Promise) error
	// All rollouts with a promise.
	All(context.Context) ([]fleet.RolloutName, error)
}

// Ledger is the fleet's state as this member holds it.
type Ledger interface {
	sequencer.Facts
	// Prepare signs a record with the next position; nobody has it yet.
	Prepare(kind fleet.Kind, key string, body []byte) (fleet.Record, error)
	// Status is the last word of a member on a rollout.
	Status(fleet.MemberID, fleet.RolloutName) (fleet.Status, bool)
	// Commit stores a record of this member durably and tells the fleet. A record that is there already is no error.
	Commit(context.Context, fleet.Record) error
}

// clone so that a step works on its own copy: a promise that could not be saved is not kept.
func (p Promise) clone() Promise {
	p.Said, p.Plans = slices.Clone(p.Said), slices.Clone(p.Plans)
	return p
}

// keepSaid drops the records of plans that no longer matter here. How far they went is kept: a promise of a version that
// noted no bound knows it by them alone.
func (p *Promise) keepSaid(plans ...fleet.Digest) {
	p.Bound = p.LastSaid()
	p.Said = slices.DeleteFunc(p.Said, func(b []byte) bool {
		r, err := fleet.DecodeRecord(b)
		if err != nil {
			return true
		}
		f, err := fleet.DecodeFact(&r)
		return err != nil || !slices.Contains(plans, f.Plan)
	})
}

// pace of one member's attempts, from the plan's stage and the rollout's delivery.
func pace(stage *sequencer.Stage, d v1alpha1.Delivery, retryInterval time.Duration) sequencer.Pace {
	retries := int(*withDefaults(d).Retries)
	return sequencer.Pace{
		MinReadyTime: stage.MinReadyTime, Soak: stage.Soak, ProgressDeadline: stage.ProgressDeadline,
		RetryInterval: retryInterval, Retries: retries,
	}
}
