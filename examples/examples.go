// SPDX-License-Identifier: Apache-2.0

// Package examples answers: what does a first rollout look like? Each folder is one, with its own
// README; a test takes each of them to real clusters.
package examples

import "embed"

// Files of all examples.
//
//go:embed all:hello all:helm all:regions all:single all:staged
var Files embed.FS
