// SPDX-License-Identifier: Apache-2.0

package compattest

import (
	"path/filepath"
	"strings"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// build is 'kustomize build', and where that refuses files outside the folder, with LoadRestrictionsNone: here the
// source is the limit.
func (p Payload) build() ([]map[string]any, error) {
	options := krusty.MakeDefaultOptions()
	folder := filepath.Join(p.Root, p.Path)
	built, err := krusty.MakeKustomizer(options).Run(filesys.MakeFsOnDisk(), folder)
	if err != nil && strings.Contains(err.Error(), "security; file") {
		options.LoadRestrictions = types.LoadRestrictionsNone
		built, err = krusty.MakeKustomizer(options).Run(filesys.MakeFsOnDisk(), folder)
	}
	if err != nil {
		return nil, err
	}
	objects := make([]map[string]any, 0, built.Size())
	for _, r := range built.Resources() {
		// Each by itself: what 'kustomize build' prints may hold lines of --- within texts.
		text, err := r.AsYAML()
		if err != nil {
			return nil, err
		}
		one, err := decodeOne(text)
		if err != nil {
			return nil, err
		}
		objects = append(objects, one)
	}
	return objects, nil
}
