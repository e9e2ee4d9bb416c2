// SPDX-License-Identifier: Apache-2.0

// Package deploy answers: what is installed in a cluster?
package deploy

import "embed"

// Files are the manifests: crd, agent and admission for every cluster, dev for topologies of the
// dev fleet.
//
//go:embed crd agent admission dev
var Files embed.FS
