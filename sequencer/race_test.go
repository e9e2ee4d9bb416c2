// SPDX-License-Identifier: Apache-2.0

//go:build race

package sequencer

// manyReleases under the race detector, which looks for something else and takes several times as long.
const manyReleases = 400
