// SPDX-License-Identifier: Apache-2.0

//go:build !race

package sim

const (
	seeds     = 1000
	bugsApart = 1
	few       = false
)
