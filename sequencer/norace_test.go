// SPDX-License-Identifier: Apache-2.0

//go:build !race

package sequencer

const (
	safetySeeds  = 2000
	manyReleases = 1000
)
