// SPDX-License-Identifier: Apache-2.0

// Package agent answers: how does the turn become one agent in one cluster?
//
// It puts a cluster's API, git servers, the mesh and its store into the fields of a [turn.Agent], and says when to
// take the next turn: everything around the turn is here, and what a rollout does is not.
package agent
