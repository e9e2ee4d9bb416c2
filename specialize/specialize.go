// SPDX-License-Identifier: Apache-2.0

// Package specialize answers: what is this payload for this one member?
//
// [Render] is pure: the same files, path and member give the same bytes, on every machine.
// It reads no network, no disk and no environment, and starts no process, whatever the payload asks for.
package specialize

import (
	"encoding/json"
	"errors"
	"io/fs"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// The engines, by what they find in the payload's folder.
const (
	// Kustomize builds the folder's kustomization.
	Kustomize = "kustomize"
	// Plain takes every .yaml, .yml and .json file below the folder as it is, in the order of their paths.
	Plain = "plain"
)

// Input is all that a manifest depends on.
type Input struct {
	// Files of the source, from its root. Only the folder and what its kustomizations refer to are read.
	Files fs.FS
	// Path of the payload's folder in Files, as spec.source.path has it: it may hold ${CLUSTER}, ${ZONE}
	// and ${LABEL_<key>} of the member. Empty is the root.
	Path string
	// Member that the manifest is for.
	Member fleet.Member
	// Namespace that the objects without one will be in. It is not written into them: two objects that
	// differ in nothing but this namespace are one, and are refused as such.
	Namespace string
}

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

// Render builds the payload for one member. It may be called from several goroutines at once.
//
// An error is a terminal fleet.Error wherever the payload is at fault: Invalid, PathVariable and PathNotFound
// (the path), RenderFailed (kustomize), InvalidManifest (an object), ContainsFlotilla, EmptyRender (R12)
// and TooLarge (a bound). An error of Files itself is handed on, and is retryable unless Files says otherwise.
func Render(in Input) (m Manifest, err error) {
	if in.Files == nil {
		return Manifest{}, errors.New("render: there are no files")
	}
	// kustomize panics on some payloads that it does not expect, such as an empty file under crds. Such a
	// payload must not take the agent with it, in every cluster that it is for.
	defer func() {
		if r := recover(); r != nil {
			m, err = Manifest{}, failure(v1alpha1.ReasonRenderFailed, "%s: the payload cannot be built: the engine stopped with: %v", in.Path, r)
		}
	}()
	return render(in)
}

func render(in Input) (Manifest, error) {
	t := newTree(in.Files)
	folder, err := in.folder(t)
	if err != nil {
		return Manifest{}, err
	}
	m := Manifest{Path: folder}
	var objects []object
	if m.Engine, err = engineOf(t, folder); err != nil {
		return Manifest{}, err
	}
	if m.Engine == Kustomize {
		objects, err = kustomize(t, folder)
	} else {
		objects, err = plain(t, folder)
	}
	if err != nil {
		return Manifest{}, err
	}
	if len(objects) == 0 {
		return Manifest{}, failure(v1alpha1.ReasonEmptyRender, "%s holds no objects; nothing is deleted (R12)", shown(folder))
	}
	if m.Objects, err = accept(objects, in.Namespace); err != nil {
		return Manifest{}, err
	}
	m.Digest, err = digestOf(m.Objects)
	return m, err
}

// digestOf names the objects by their JSON, in which encoding/json sorts every object's keys.
func digestOf(objects []*unstructured.Unstructured) (fleet.Digest, error) {
	parts := make([][]byte, 0, len(objects))
	total := 0
	for _, o := range objects {
		part, err := json.Marshal(o.Object)
		if err != nil {
			return fleet.Digest{}, failure(v1alpha1.ReasonInvalidManifest, "%s %s: %w", o.GetKind(), o.GetName(), err)
		}
		if total += len(part); total > maxBytes {
			return fleet.Digest{}, tooLarge("the manifest is over %d MiB", maxBytes>>20)
		}
		parts = append(parts, part)
	}
	return fleet.DigestOf("flotilla.dev/manifest", parts...), nil
}
