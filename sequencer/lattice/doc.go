// SPDX-License-Identifier: Apache-2.0

// Package lattice answers: what do we know when what I heard and what you heard are put together?
//
// A [Set] keeps one record per (writer, kind, key). Adding a record is a join: commutative,
// associative and idempotent, so that any two members that heard the same records, in whatever
// order and however often, hold the same set. Of a register the newest record stays; of a
// milestone, and of every kind below [fleet.KindRegister] that this version does not know, the
// first one said stays. The writer's own counters, epoch and seq, decide which that is; no clock does.
//
// Shares. The set is divided by scope and by the writer's zone, and each share has a root of its own: a
// member compares the shares that it carries. Whether a record stays depends on records of the same share
// alone, or members that carry different shares could not agree on those that both carry.
//
// Quotas. One writer may have [fleet.Kind.Quota] records of a kind; over it those with the lowest keys stay,
// whichever came first. Of its seals the newest [fleet.SealsKept] of each rollout stay, of as many rollouts as
// the quota has room for. Both are joins by themselves.
//
// Floors. A writer retires its own milestones with a [fleet.Floor]: what it covers goes and is refused from then
// on, as long as the floor is held. Nobody retires what another said. A floor of a forked writer retires no command: a
// stop that it took away comes back from whoever has it still.
//
// Expiry. Age drops the registers whose last day is over and refuses them from then on. Milestones never expire.
// The day is each member's own: members on one day agree, and one whose clock is wrong agrees again when it is put
// right and has reconciled.
//
// What holds of all this. When members on one day have exchanged what they hold until nothing changes, their roots
// are equal, whatever was lost, repeated, late or restarted on the way. And what they hold is what a plain loop over
// everything ever said comes to, unless something was dropped everywhere while what stood in its way was still there: a
// writer over its quota that retires records afterwards does not get back what had no room before, nor does one
// that said a milestone twice and retires the first, nor does a command come back that was retired everywhere before
// the first proof against its writer.
//
// Forks. Two records of one writer with equal counters and other bytes are a [fleet.Proof]; see Conflict and
// Forked. What a forked writer says is carried like everything else, and those who decide leave it out.
//
// The package decides nothing about who may speak: records are verified before they get here.
package lattice
