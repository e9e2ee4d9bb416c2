// SPDX-License-Identifier: Apache-2.0

// Package sequencer answers: may this member go now, and why (not)?
//
// A rollout is sealed ([Seal], [Open]): what it says and whom it is for become one immutable
// statement. With a revision of the payload the seal compiles ([Compile]) into a [Plan]: stages,
// and in each stage a rank for every member. Then every member calls [Decide] with the facts that it
// holds, and gets the same answer as any other member with the same facts.
//
// # Why no hub is needed
//
// Everything that opens a gate is a milestone: signed, immutable, never withdrawn. So what a member
// has not heard yet can only make it wait, never go: evidence is monotone. Two members with
// different views disagree only about who is late. The window of R2 counts lower ranks, not "how
// many are in motion as far as I know": whichever facts are lost, at most N members of a stage can
// hold theirs at once, because the member of rank i needs i-N+1 successes below it.
//
// What may close again (a pause, a sick cluster) is kept apart as the permit. It only withholds.
//
// The package is pure: the clocks come in as a fleet.Moment, the facts as [Facts]. The agent, the
// simulator and the demo run this very code. The rules R1 to R12 are in docs/rules.md.
package sequencer
