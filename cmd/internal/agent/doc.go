// SPDX-License-Identifier: Apache-2.0

// Package agent answers: how do the five stages become one agent in one cluster?
//
// It is the only place that knows them all. [Agent.Turn] takes one rollout through the pipeline,
// once; everything around it only says when to take the next turn. What a member binds itself to is
// a [Promise]: written to the cluster's own API before anyone hears of it, so that neither a crash
// nor a lost disk makes the member break its word.
package agent
