// SPDX-License-Identifier: Apache-2.0

//go:build race

package mesh

// raced: under the race detector everything takes several times as long, so what only counts does less.
const raced = true
