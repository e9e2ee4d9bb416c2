// SPDX-License-Identifier: Apache-2.0

// Package turn answers: how do the five stages become one rollout's next step in one cluster?
//
// [Agent.Turn] takes one rollout through the pipeline, once; everything around it only says when to take the next
// turn. What a member binds itself to is a [Promise]: written to the cluster's own API before anyone hears of it, so
// that neither a crash nor a lost disk makes the member break its word.
//
// It knows the stages and no process: what is in the fields of [Agent] are a cluster, a git server and a mesh in the
// agent that is shipped, and maps in the simulator. What it does is tried with the shipped agent's parts in the
// fields, by the tests of package agent.
package turn
