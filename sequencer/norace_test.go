// SPDX-License-Identifier: Apache-2.0

//go:build !race

package sequencer

const manyReleases = 1000
