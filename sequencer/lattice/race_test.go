// SPDX-License-Identifier: Apache-2.0

//go:build race

package lattice_test

// interleavings that are played under the race detector, which makes each ten times as long.
const interleavings = 500
