// SPDX-License-Identifier: Apache-2.0

//go:build !race

package specialize

const slowdown = 1
