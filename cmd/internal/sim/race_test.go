// SPDX-License-Identifier: Apache-2.0

//go:build race

package sim

// seeds under the race detector, which looks for something else and takes ten times as long.
const seeds = 50
