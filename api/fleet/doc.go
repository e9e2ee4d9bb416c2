// SPDX-License-Identifier: Apache-2.0

// Package fleet answers: what do two agents have to agree on?
//
// It is the vocabulary every stage of the pipeline shares, and the bytes that agents
// send each other. In the order a newcomer meets them:
//
//   - A [Member] is one cluster of the fleet, known by a [Name] and by the [MemberID] of its key.
//   - A rollout is named by a [RolloutName]; its payload is at a [Revision].
//   - A [Seal] fixes what a rollout says and whom it is for; (seal, revision) is a release,
//     and a release compiled is a plan, named by its [Digest].
//   - A [Record] is whatever is signed and shared. Its body is a [Seal], a [Fact] (a milestone
//     of one member about itself), a [Command] (of an operator) or a [Status] (the latest word).
//   - A [Heartbeat] says that a member is there; it is no record and is never kept.
//   - A [Moment] is the two clocks that deciders get as an argument.
//
// The package imports the standard library alone, so that anything may import it.
package fleet
