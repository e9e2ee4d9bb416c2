// SPDX-License-Identifier: Apache-2.0

// Package specialize answers: what is this payload for this one member?
//
// [Render] is pure: the same files, path and member give the same bytes, on every machine.
// It reads no network, no disk and no environment.
package specialize

import (
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// Manifest is what one member should run.
type Manifest struct {
	// Objects in the order the engine gave them, which is deterministic.
	Objects []*unstructured.Unstructured
	// Digest of the canonical JSON of all objects: equal digests are equal manifests.
	Digest fleet.Digest
	// Engine that built it: kustomize or plain.
	Engine string
	// Path in the source, variables filled in.
	Path string
}
