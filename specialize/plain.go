// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	stdjson "encoding/json"
	"io/fs"
	"path"
	"slices"

	"k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/kustomize/api/konfig"
	"sigs.k8s.io/yaml"

	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

const chartFile = "Chart.yaml"

// engineOf finds out what the folder is. A chart that a kustomization stands beside is the kustomization's business.
func engineOf(t *tree, folder string, spec *v1alpha1.Specialize) (string, error) {
	if spec != nil && spec.Helm != nil && spec.Helm.Chart != nil {
		return Helm, nil
	}
	for _, name := range konfig.RecognizedKustomizationFileNames() {
		if found, err := t.isFile(path.Join(folder, name)); found || err != nil {
			return Kustomize, err
		}
	}
	if found, err := t.isFile(path.Join(folder, chartFile)); found || err != nil {
		return Helm, err
	}
	return Plain, nil
}

// plain gives the objects of every manifest below the folder.
func plain(t *tree, folder string) ([]object, error) {
	files, err := manifests(t, folder)
	if err != nil {
		return nil, err
	}
	var objects []object
	for _, name := range files {
		content, err := t.read(name)
		if err != nil {
			return nil, err
		}
		more, err := t.decode(name, content)
		if err != nil {
			return nil, err
		}
		objects = append(objects, more...)
	}
	return objects, nil
}

// manifests lists the files to read, sorted by path. Hidden files and folders are not the payload's.
func manifests(t *tree, folder string) ([]string, error) {
	var files []string
	seen := 0
	err := fs.WalkDir(t.files, folder, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if seen++; seen > maxFiles {
			return tooLarge("%s holds over %d files and folders", shown(folder), maxFiles)
		}
		switch {
		case name != folder && hidden(entry.Name()):
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		case entry.IsDir():
			return nil
		}
		if err := checkMode(name, entry.Type()); err != nil {
			return err
		}
		if err := checkNested(folder, name); err != nil {
			return err
		}
		if isManifest(name) {
			files = append(files, name)
		}
		return nil
	})
	slices.Sort(files)
	return files, err
}

func isManifest(name string) bool {
	ext := path.Ext(name)
	return ext == ".yaml" || ext == ".yml" || ext == ".json"
}

// checkNested refuses a folder that another engine would have to build: taken as plain manifests its
// parts would be applied without what holds them together.
func checkNested(folder, name string) error {
	base, dir := path.Base(name), path.Dir(name)
	if slices.Contains(konfig.RecognizedKustomizationFileNames(), base) {
		return hinted(v1alpha1.ReasonRenderFailed, "name the folder to build in spec.source.path, or add a kustomization.yaml to "+shown(folder),
			"%s is a kustomization, but %s is none", shown(dir), shown(folder))
	}
	if base == chartFile {
		return hinted(v1alpha1.ReasonRenderFailed, "name the chart in spec.source.path",
			"%s is a Helm chart, but %s is none", shown(dir), shown(folder))
	}
	return nil
}

// decode gives the objects of one file, lists taken apart.
func (t *tree) decode(name string, content []byte) ([]object, error) {
	if stdjson.Valid(content) {
		return t.decodeJSON(document{file: name, number: 1, line: 1, text: content})
	}
	docs, err := t.scan(name, content)
	if err != nil {
		return nil, err
	}
	var objects []object
	for _, d := range docs {
		raw, err := yaml.YAMLToJSONStrict(d.text)
		if err != nil {
			return nil, failure(v1alpha1.ReasonInvalidManifest, "%s: %s", d, d.relocate(err))
		}
		if objects, err = t.objectsIn(objects, d, raw); err != nil {
			return nil, err
		}
	}
	return objects, nil
}

// decodeJSON reads JSON as JSON: a YAML parser, to which it is YAML, refuses characters beyond the first
// 65,536 in the form that JSON writes them in, and takes a line break that few know (U+0085) out of texts.
func (t *tree) decodeJSON(d document) ([]object, error) {
	if len(d.text) > maxDocument {
		return nil, tooLarge("%s: a document of %d bytes; at most %d MiB", d, len(d.text), maxDocument>>20)
	}
	if err := t.scanJSON(d); err != nil {
		return nil, err
	}
	return t.objectsIn(nil, d, d.text)
}

// objectsIn appends the objects of one document.
func (t *tree) objectsIn(objects []object, d document, raw []byte) ([]object, error) {
	var value any
	if err := json.Unmarshal(raw, &value); err != nil {
		return nil, failure(v1alpha1.ReasonInvalidManifest, "%s: %w", d, err)
	}
	if value == nil {
		return objects, nil
	}
	return t.flatten(objects, value, d.String())
}
