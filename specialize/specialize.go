// SPDX-License-Identifier: Apache-2.0

// Package specialize answers: what is this payload for this one member?
//
// [Render] is pure: the same files, path and member give the same bytes, on every machine.
// It reads no network, no disk and no environment, and starts no process, whatever the payload asks for.
package specialize

import (
	"encoding/json"
	"io/fs"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// The engines, by what they find in the payload's folder.
const (
	// Helm renders the folder's chart, or the chart that the spec names with the folder's values.
	Helm = "helm"
	// Kustomize builds the folder's kustomization.
	Kustomize = "kustomize"
	// Plain takes every .yaml, .yml and .json file below the folder as it is, in the order of their paths.
	Plain = "plain"
)

// Input is all that a manifest depends on.
type Input struct {
	// Files of the source, from its root. Only the folder and what its kustomizations refer to are read.
	Files fs.FS
	// Path of the payload's folder in Files, as spec.source.path has it: it may hold variables of the member. Empty is the root.
	Path string
	// Spec says how the payload differs from member to member; nil where it does not.
	Spec *v1alpha1.Specialize
	// Member that the manifest is for.
	Member fleet.Member
	// Rollout names it. A chart that is given no release name takes Rollout's.
	Rollout fleet.RolloutName
	// Cluster is what the member's own cluster adds.
	Cluster Cluster
	// Chart that Spec.Helm.Chart names, Chart.yaml at its root; nil where it names none.
	Chart fs.FS

	// variables of the member, once they are evaluated.
	variables *variables
}

// Manifest is what one member should run.
type Manifest struct {
	// Objects in the order the engine gave them, which is deterministic.
	Objects []*unstructured.Unstructured
	// Digest of the canonical JSON of all objects: equal digests are equal manifests.
	Digest fleet.Digest
	// Engine that built it: helm, kustomize or plain.
	Engine string
	// Path in the source, variables filled in.
	Path string
}

// Render builds the payload for one member. It may be called from several goroutines at once.
//
// An error is a terminal fleet.Error wherever the payload or the spec is at fault: Invalid (the spec), PathVariable
// and PathNotFound (a path), VariableUnknown, RenderFailed (an engine, or a patch that changes nothing),
// InvalidManifest (an object), ContainsFlotilla, EmptyRender (R12) and TooLarge (a bound). InputMissing is retryable:
// the cluster may have it later. An error of Files itself is handed on, and is retryable unless Files says otherwise.
func Render(in Input) (m Manifest, err error) {
	if in.Files == nil {
		return Manifest{}, errNoFiles
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

func render(in Input) (m Manifest, err error) {
	if in.variables, err = in.evaluate(); err != nil {
		return Manifest{}, err
	}
	t := newTree(in.Files)
	if m.Path, err = in.folder(t); err != nil {
		return Manifest{}, err
	}
	objects, err := in.objects(t, &m)
	if err != nil {
		return Manifest{}, err
	}
	if len(objects) == 0 {
		return Manifest{}, failure(v1alpha1.ReasonEmptyRender, "%s holds no objects; nothing is deleted (R12)", shown(m.Path))
	}
	if m.Objects, err = accept(objects, in.Rollout.Namespace); err != nil {
		return Manifest{}, err
	}
	m.Digest, err = digestOf(m.Objects)
	return m, err
}

// objects are the payload's, in the member's variant.
func (in Input) objects(t *tree, m *Manifest) ([]object, error) {
	overrides, err := in.overrides()
	if err != nil {
		return nil, err
	}
	tr, err := in.transforms(m.Path, overrides)
	if err != nil {
		return nil, err
	}
	if m.Engine, err = engineOf(t, m.Path, in.Spec); err != nil {
		return nil, err
	}
	if err := in.checkEngine(*m, overrides); err != nil {
		return nil, err
	}
	var objects []object
	switch m.Engine {
	case Kustomize:
		objects, err = kustomize(t, m.Path, tr)
	case Helm:
		objects, err = helm(t, m.Path, in)
	default:
		objects, err = plain(t, m.Path)
	}
	if err != nil {
		return nil, err
	}
	if m.Engine != Kustomize && !tr.none() {
		if _, err := accept(objects, in.Rollout.Namespace); err != nil {
			return nil, err
		}
		if objects, err = tr.overObjects(newWalk(t), objects); err != nil {
			return nil, err
		}
	}
	in.addMetadata(objects)
	return in.postBuild(objects, overrides)
}

// checkEngine refuses what the spec says to an engine that does not build the payload.
func (in Input) checkEngine(m Manifest, overrides []v1alpha1.Override) error {
	if m.Engine == Helm {
		return nil
	}
	what := ""
	if in.Spec != nil && in.Spec.Helm != nil {
		what = "spec.specialize.helm"
	}
	for _, o := range overrides {
		if o.Values != nil {
			what = placeOf(o) + ".values"
		}
	}
	if what == "" {
		return nil
	}
	return hinted(v1alpha1.ReasonInvalid, "name the folder with its "+chartFile+" in spec.source.path, or the chart in spec.specialize.helm.chart",
		"%s is for charts, and %s is none: it is %s", what, shown(m.Path), m.Engine)
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
