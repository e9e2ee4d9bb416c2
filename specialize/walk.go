// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"sigs.k8s.io/kustomize/api/konfig"
	"sigs.k8s.io/kustomize/api/provider"
	"sigs.k8s.io/kustomize/api/resource"
	"sigs.k8s.io/kustomize/api/types"

	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// walk goes through everything that a kustomization refers to before kustomize does, because kustomize
// itself would fetch what is remote. It reads each kustomization with kustomize's own decoder, so that both read
// the same, and seals the files that it lets pass.
type walk struct {
	*tree
	resources *resource.Factory
	sealed    *sealed
	growth    growth
	// root is the kustomization that was walked first.
	root *types.Kustomization
	// names of the objects that were read or are generated, as people write them.
	names []string
	// objects in each file that was read as resources.
	objects map[string]int
	// scanned files: their YAML is measured once and counted as often as it is read.
	scanned map[string]scanned
}

// scanned is what a file's YAML was found to hold.
type scanned struct{ documents, values int }

func newWalk(t *tree) *walk {
	return &walk{
		tree:      t,
		resources: provider.NewDepProvider().GetResourceFactory(),
		sealed:    newSealed(),
		objects:   map[string]int{},
		scanned:   map[string]scanned{},
	}
}

// layer is one kustomization while the walk is in it.
type layer struct {
	dir, file string
	content   []byte
	// above are the folders that lead here, this one included.
	above []string
}

// refuse is an error at the place of the layer that text stands at.
func (l *layer) refuse(text, format string, args ...any) error {
	where := l.file
	if at := bytes.Index(l.content, []byte(firstLine(text))); text != "" && at >= 0 {
		where = fmt.Sprintf("%s:%d", l.file, 1+bytes.Count(l.content[:at], []byte("\n")))
	}
	return failure(v1alpha1.ReasonRenderFailed, "%s: %w", where, fmt.Errorf(format, args...))
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

// kustomization walks the kustomization of a folder and says how many objects it starts from.
func (w *walk) kustomization(dir string, above []string) (int, error) {
	if slices.Contains(above, dir) {
		return 0, failure(v1alpha1.ReasonRenderFailed, "kustomizations: %s is a circle", strings.Join(append(above, dir), " -> "))
	}
	if len(above) >= maxLayers {
		return 0, tooLarge("%s: over %d kustomizations lie within each other", shown(dir), maxLayers)
	}
	l := &layer{dir: dir, above: append(slices.Clone(above), dir)}
	k, err := w.load(l)
	if err != nil {
		return 0, err
	}
	if w.root == nil {
		w.root = k
	}
	if err := l.checkFields(k); err != nil {
		return 0, err
	}
	n, err := w.bases(l, k)
	if err != nil {
		return 0, err
	}
	if err := w.supplements(l, k); err != nil {
		return 0, err
	}
	for _, p := range []struct {
		field   string
		entries []string
	}{{"generators", k.Generators}, {"transformers", k.Transformers}, {"validators", k.Validators}} {
		if err := w.plugins(l, p.field, p.entries); err != nil {
			return 0, err
		}
	}
	for _, g := range k.ConfigMapGenerator {
		w.names = append(w.names, identity{kind: "ConfigMap", namespace: g.Namespace, name: g.Name}.String())
	}
	for _, g := range k.SecretGenerator {
		w.names = append(w.names, identity{kind: "Secret", namespace: g.Namespace, name: g.Name}.String())
	}
	n += len(k.ConfigMapGenerator) + len(k.SecretGenerator)
	return n, w.growth.layer(l.file, n, k)
}

// load reads the one kustomization file of a folder.
func (w *walk) load(l *layer) (*types.Kustomization, error) {
	var found []string
	for _, name := range konfig.RecognizedKustomizationFileNames() {
		is, err := w.isFile(path.Join(l.dir, name))
		if err != nil {
			return nil, err
		}
		if is {
			found = append(found, path.Join(l.dir, name))
		}
	}
	if len(found) != 1 {
		return nil, failure(v1alpha1.ReasonRenderFailed, "%s: one kustomization.yaml is wanted, there are %d %v", shown(l.dir), len(found), found)
	}
	l.file = found[0]
	var err error
	if l.content, err = w.yaml(l.file); err != nil {
		return nil, err
	}
	if w.scanned[l.file].documents > 1 {
		return nil, l.refuse("", "a kustomization is one document")
	}
	var k types.Kustomization
	if err := k.Unmarshal(l.content); err != nil {
		return nil, l.refuse("", "%s", readable(err.Error()))
	}
	k.FixKustomization() // moves deprecated fields to where this walk looks for them, as kustomize does
	if k.CheckEmpty() != nil && len(l.above) > 1 {
		return nil, l.refuse("", "%s is named as a base, and is empty", shown(l.dir))
	}
	if k.CheckEmpty() != nil {
		return nil, failure(v1alpha1.ReasonEmptyRender, "%s is empty; nothing is deleted (R12)", l.file)
	}
	return &k, nil
}

// checkFields refuses what would run a program, or outlive the build.
func (l *layer) checkFields(k *types.Kustomization) error {
	switch {
	case len(k.HelmCharts) > 0:
		return l.refuse("helmChart", "kustomize would run helm for its charts, and no program is run; make the chart a payload of its own: a folder with its Chart.yaml, or spec.specialize.helm.chart")
	case k.HelmGlobals != nil:
		return l.refuse("helmGlobals", "kustomize would run helm, and no program is run; make the chart a payload of its own: a folder with its Chart.yaml, or spec.specialize.helm.chart")
	case len(k.OpenAPI) > 0:
		return l.refuse("openapi", "a schema of your own is not supported, because kustomize would go on using it for other payloads")
	}
	return nil
}

// bases walks resources and components, and counts their objects.
func (w *walk) bases(l *layer, k *types.Kustomization) (int, error) {
	total := 0
	for _, text := range k.Resources {
		n, err := w.base(l, text)
		if err != nil {
			return 0, err
		}
		total += n
	}
	for _, text := range k.Components {
		_, n, err := w.component(l, text)
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

// component walks one of the components, and gives its folder.
func (w *walk) component(l *layer, text string) (folder string, n int, err error) {
	folder, info, err := w.resolve(l, text)
	if err != nil {
		return "", 0, err
	}
	if !info.IsDir() {
		return "", 0, l.refuse(text, "components: %s is a file; a component is a folder with a kustomization.yaml", text)
	}
	n, err = w.kustomization(folder, l.above)
	return folder, n, err
}

// base walks one of the resources: a file of objects, or another kustomization.
func (w *walk) base(l *layer, text string) (int, error) {
	name, info, err := w.resolve(l, text)
	if err != nil {
		return 0, err
	}
	if info.IsDir() {
		return w.kustomization(name, l.above)
	}
	return w.manifest(name)
}

// manifest reads a file of objects as kustomize will, and counts them. Each must have a JSON form:
// kustomize ends the whole process where it first finds out while it words an error.
func (w *walk) manifest(name string) (int, error) {
	content, err := w.yaml(name)
	if err != nil {
		return 0, err
	}
	n, known := w.objects[name]
	if !known {
		if n, err = w.countObjects(name, content); err != nil {
			return 0, err
		}
		w.objects[name] = n
	}
	for range n {
		if err := w.used.object(name); err != nil {
			return 0, err
		}
	}
	return n, nil
}

func (w *walk) countObjects(name string, content []byte) (int, error) {
	objects, err := w.resources.SliceFromBytes(content)
	if err != nil {
		return 0, notAnObject(name, readable(err.Error()))
	}
	for i, o := range objects {
		var fields map[string]any
		if err = o.YNode().Decode(&fields); err == nil {
			err = json.NewEncoder(io.Discard).Encode(fields)
		}
		if err != nil {
			return 0, notAnObject(fmt.Sprintf("%s: object %d", name, i+1), noJSON(err))
		}
		w.names = append(w.names, identity{kind: o.GetKind(), namespace: o.GetNamespace(), name: o.GetName()}.String())
	}
	return len(objects), nil
}

func noJSON(err error) string {
	if strings.Contains(err.Error(), "map[interface") {
		return "the key of a field is no text; put it in quotes"
	}
	return "it has no JSON form: " + readable(err.Error())
}

// resolve finds what a kustomization names, which must be in the source.
func (w *walk) resolve(l *layer, text string) (string, fs.FileInfo, error) {
	if err := l.checkLocal(text); err != nil {
		return "", nil, err
	}
	name := path.Join(l.dir, text)
	if name == ".." || strings.HasPrefix(name, "../") {
		return "", nil, l.refuse(text, "%s leaves the source", text)
	}
	info, err := w.lstat(name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid) {
		return "", nil, l.refuse(text, "%s: there is no %s in the source%s", text, name, w.beside(name))
	}
	return name, info, err
}

// beside says what is where a name was looked for.
func (w *walk) beside(name string) string {
	dir := path.Dir(name)
	if info, err := w.lstat(dir); err != nil || !info.IsDir() {
		return ""
	}
	entries, err := w.readDir(dir)
	if err != nil || len(entries) == 0 {
		return ""
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return fmt.Sprintf(" (%s holds: %s)", shown(dir), list(byLikeness(path.Base(name), names)))
}

// file resolves what must be a file.
func (w *walk) file(l *layer, text string) (string, error) {
	name, info, err := w.resolve(l, text)
	if err == nil && info.IsDir() {
		err = l.refuse(text, "%s is a folder; a file is wanted here", text)
	}
	return name, err
}

// data reads a file of any form, and lets kustomize see it.
func (w *walk) data(name string) ([]byte, error) {
	content, again := w.sealed.files[path.Join(mount, name)]
	var err error
	if again {
		err = w.used.file(name, len(content))
	} else {
		content, err = w.read(name)
	}
	if err != nil {
		return nil, err
	}
	w.sealed.add(name, content)
	w.growth.dollars += bytes.Count(content, []byte("$("))
	return content, nil
}

// yaml reads a file that kustomize will parse, and measures it first.
func (w *walk) yaml(name string) ([]byte, error) {
	content, err := w.data(name)
	if err != nil {
		return nil, err
	}
	if s, again := w.scanned[name]; again {
		return content, w.used.document(name, cost{values: s.values})
	}
	before := w.used.values
	docs, err := w.scan(name, content)
	if err != nil {
		return nil, err
	}
	w.scanned[name] = scanned{documents: len(docs), values: w.used.values - before}
	return content, nil
}
