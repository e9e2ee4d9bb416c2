// SPDX-License-Identifier: Apache-2.0

//go:build !race

package lattice_test

const interleavings = 10_000
