// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"cmp"
	"encoding/binary"
	"errors"
	"maps"
	"slices"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// Cluster is what a manifest takes from the member's own cluster. It is no part of a release: when it changes,
// the member renders the release it runs anew, by itself.
type Cluster struct {
	// KubeVersion of the API server, such as v1.36.3; empty is what Helm takes for granted. Only Helm asks for it.
	KubeVersion string
	// APIVersions that it serves, as "apps/v1" and "apps/v1/Deployment"; nil is what Helm takes for granted. Only Helm asks for it.
	APIVersions []string
	// Objects that the spec refers to: the data of ConfigMaps and Secrets. One that is not there has no entry.
	Objects map[Reference]map[string]string
}

var errNoFiles = errors.New("render: there are no files")

// Reference to an object in the rollout's namespace.
type Reference struct{ Kind, Name string }

// Digest of all of it.
func (c Cluster) Digest() fleet.Digest {
	parts := [][]byte{[]byte(c.KubeVersion)}
	count := func(n int) { parts = append(parts, binary.AppendUvarint(nil, uint64(n))) } //nolint:gosec // a length
	count(len(c.APIVersions))
	for _, v := range slices.Sorted(slices.Values(c.APIVersions)) {
		parts = append(parts, []byte(v))
	}
	for _, ref := range slices.SortedFunc(maps.Keys(c.Objects), compareReferences) {
		data := c.Objects[ref]
		parts = append(parts, []byte(ref.Kind), []byte(ref.Name))
		count(len(data))
		for _, key := range slices.Sorted(maps.Keys(data)) {
			parts = append(parts, []byte(key), []byte(data[key]))
		}
	}
	return fleet.DigestOf("flotilla.dev/render-cluster", parts...)
}

func compareReferences(a, b Reference) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
}

// References are the ConfigMaps and Secrets that a spec takes values or variables from, each once.
func References(spec *v1alpha1.Specialize) []Reference {
	seen := map[Reference]bool{}
	if spec != nil && spec.Helm != nil {
		for _, from := range spec.Helm.ValuesFrom {
			seen[Reference{from.Kind, from.Name}] = true
		}
	}
	if spec != nil && spec.PostBuild != nil {
		for _, from := range spec.PostBuild.SubstituteFrom {
			seen[Reference{from.Kind, from.Name}] = true
		}
	}
	return slices.SortedFunc(maps.Keys(seen), compareReferences)
}

// Engine says which engine will build the payload, so that whoever asks for a manifest fetches only what it needs.
func Engine(in Input) (string, error) {
	if in.Files == nil {
		return "", errNoFiles
	}
	t := newTree(in.Files)
	folder, err := in.folder(t)
	if err != nil {
		return "", err
	}
	return engineOf(t, folder, in.Spec)
}
