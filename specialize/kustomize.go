// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"fmt"
	"path"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resmap"
	"sigs.k8s.io/kustomize/api/types"

	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// building lets one kustomize build run at a time. It is a package variable because what it guards is one
// per process: kustomize keeps the OpenAPI schema of the build in variables of kyaml/openapi and sets them
// anew at each build. (A kustomization that brings a schema of its own would leave it there for whoever builds
// next; the walk refuses the field.)
var building sync.Mutex //nolint:gochecknoglobals // see above

// kustomize builds the kustomization in a folder, the transforms over it.
//
// The walk comes first and reads everything that the kustomization refers to, at any depth; what is
// remote, a plugin or a chart ends it there. Only then is kustomize called, with a file system that holds the
// files that the walk let pass and nothing else.
func kustomize(t *tree, folder string, tr *transforms) ([]object, error) {
	w := newWalk(t)
	if !tr.none() {
		return tr.overKustomization(w)
	}
	if _, err := w.kustomization(folder, nil); err != nil {
		return nil, err
	}
	if err := w.growth.check(t.used); err != nil {
		return nil, err
	}
	built, err := build(w.sealed, path.Join(mount, folder))
	if err != nil {
		return nil, failure(v1alpha1.ReasonRenderFailed, "%s: kustomize: %s", shown(folder), readable(err.Error()))
	}
	return objectsOf(built)
}

// build runs kustomize on the files that the walk let pass.
func build(files *sealed, root string) (resmap.ResMap, error) {
	building.Lock()
	defer building.Unlock()
	options := krusty.MakeDefaultOptions()
	// "Root only" would keep a kustomization from files beside its folder, such as ../../patches/x.yaml. It is
	// there to protect the machine's other files; here there are none: the file system is the source itself.
	options.LoadRestrictions = types.LoadRestrictionsNone
	options.PluginConfig = types.DisabledPluginConfig() // built-in plugins only, and no Helm
	return krusty.MakeKustomizer(options).Run(files, root)
}

// objectsOf takes the build's objects out in their order.
func objectsOf(built resmap.ResMap) ([]object, error) {
	objects := make([]object, 0, built.Size())
	total := 0
	for i, r := range built.Resources() {
		where := fmt.Sprintf("object %d of the build", i+1)
		raw, err := r.MarshalJSON()
		if err != nil {
			return nil, notAnObject(where, readable(err.Error()))
		}
		if total += len(raw); total > maxBytes {
			return nil, tooLarge("the build is over %d MiB", maxBytes>>20)
		}
		var fields map[string]any
		if err := json.Unmarshal(raw, &fields); err != nil {
			return nil, notAnObject(where, readable(err.Error()))
		}
		objects = append(objects, object{fields, where})
	}
	if len(objects) > maxObjects {
		return nil, tooLarge("the build has over %d objects", maxObjects)
	}
	return objects, nil
}

// readable is kustomize's message with the source's own paths, on one line and not longer than people read.
func readable(message string) string {
	message = strings.NewReplacer(".."+mount+"/", "./", ".."+mount, "./", mount+"/", "", mount, "./", overlay, "spec.specialize", "\n", " ").Replace(message)
	return clip(strings.Join(strings.Fields(message), " "))
}
