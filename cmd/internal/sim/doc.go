// SPDX-License-Identifier: Apache-2.0

// Package sim answers: what does a whole fleet do, in every kind of weather, when nothing but a seed is chosen?
//
// It runs the production agent's [turn.Agent.Turn] for every member, with virtual clocks, a network that delays,
// loses, doubles and cuts, disks and API servers that fail at each point where something is kept, clusters that get
// well or do not, and git servers that lag, freeze and fork. Time is a queue of events; there is one goroutine, and
// one seed gives one story. A run has two phases: first faults, then none, in which the fleet must come to rest
// within a budget.
//
// What is written to any member's API is looked at as it is written, by rules that share no code with what is
// looked at (check.go). What a payload renders to and how an API server applies it is not what is tried here: a
// manifest is its revision's name.
package sim
