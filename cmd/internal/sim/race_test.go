// SPDX-License-Identifier: Apache-2.0

//go:build race

package sim

// The race detector looks for something else, and takes ten times as long: fewer seeds, and one planted bug in so many.
const (
	seeds     = 20
	bugsApart = 4
	few       = true
)
