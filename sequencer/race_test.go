// SPDX-License-Identifier: Apache-2.0

//go:build race

package sequencer

// Under the race detector, which looks for something else, everything takes several times as long.
const (
	safetySeeds  = 800
	manyReleases = 400
)
