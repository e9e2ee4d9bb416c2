// SPDX-License-Identifier: Apache-2.0

//go:build race

package specialize

// slowdown of the race detector, roughly.
const slowdown = 10
