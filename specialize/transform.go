// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"slices"
	"sort"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/kustomize/api/konfig"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/resid"
	"sigs.k8s.io/yaml"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// Fields that are noted on objects while kustomize has them, beside metadata where no selector looks. None is left.
const (
	noteObject = "flotilla.dev/object"
	notePatch  = "flotilla.dev/patch-"
)

// objectsFile is what kustomize sees the objects of another engine as.
const objectsFile = "objects.yaml"

// transforms are what the spec has kustomize do to the objects of every engine. They make one kustomization that
// lies over the payload's, or over the objects of another engine, and is built with it: names that objects call
// each other by, and hashes in the names of generated ones, come out right.
//
// Flux adds the same fields to the payload's own kustomization. Patches may name objects as they can there, by the
// names in the payload's files; here they may also use the names that the payload's own prefixes made of them. A
// namespace, prefix or image of the payload is worked upon, where Flux puts another in its place.
type transforms struct {
	// folder of the payload.
	folder     string
	components []string
	patches    []patch
	images     []types.Image
	namespace  string
	prefix     string
	suffix     string
}

// transforms reads those of the spec and of the overrides that are for the member.
func (in Input) transforms(folder string, overrides []v1alpha1.Override) (*transforms, error) {
	t := &transforms{folder: folder}
	if in.Spec == nil {
		return t, nil
	}
	t.namespace, t.prefix, t.suffix = in.Spec.TargetNamespace, in.Spec.NamePrefix, in.Spec.NameSuffix
	for _, template := range in.Spec.Components {
		component, err := in.fillPath(template)
		if err != nil {
			return nil, err
		}
		t.components = append(t.components, component)
	}
	patches, err := readPatches("spec.specialize", in.Spec.Patches)
	if err != nil {
		return nil, err
	}
	t.patches = patches
	t.images = over(t.images, in.Spec.Images)
	for _, o := range overrides {
		patches, err := readPatches(placeOf(o), o.Patches)
		if err != nil {
			return nil, err
		}
		t.patches = append(t.patches, patches...)
		t.images = over(t.images, o.Images)
	}
	return t, nil
}

// over puts images over others of the same names: what one leaves out stays as it was.
func over(images []types.Image, more []v1alpha1.Image) []types.Image {
	for _, m := range more {
		i := slices.IndexFunc(images, func(known types.Image) bool { return known.Name == m.Name })
		if i < 0 {
			images, i = append(images, types.Image{Name: m.Name}), len(images)
		}
		if m.NewName != "" {
			images[i].NewName = m.NewName
		}
		if m.NewTag != "" || m.Digest != "" {
			images[i].NewTag, images[i].Digest = m.NewTag, m.Digest
		}
	}
	return images
}

// none says that there is nothing to do.
func (t *transforms) none() bool {
	return len(t.components)+len(t.patches)+len(t.images) == 0 && t.namespace == "" && t.prefix == "" && t.suffix == ""
}

// overKustomization builds the payload's kustomization with the transforms over it.
func (t *transforms) overKustomization(w *walk) ([]object, error) {
	n, err := w.kustomization(t.folder, nil)
	if err != nil {
		return nil, err
	}
	k := types.Kustomization{
		// These count only in the kustomization that is built.
		BuildMetadata: w.root.BuildMetadata, SortOptions: w.root.SortOptions,
	}
	base := path.Join("..", mount, t.folder)
	if w.root.Kind == types.ComponentKind {
		k.Components = []string{base}
	} else {
		k.Resources = []string{base}
	}
	return t.build(w, k, n)
}

// overObjects does the transforms to the objects of another engine.
func (t *transforms) overObjects(w *walk, objects []object) ([]object, error) {
	var k types.Kustomization
	if len(objects) > 0 {
		k.Resources = []string{objectsFile}
		if err := w.sealObjects(objects); err != nil {
			return nil, err
		}
	}
	built, err := t.build(w, k, len(objects))
	if err != nil {
		return nil, err
	}
	for i, o := range built {
		number, noted := o.fields[noteObject].(int64)
		if !noted || number < 0 || number >= int64(len(objects)) {
			continue // a component brought it
		}
		delete(o.fields, noteObject)
		built[i] = objects[number]
		built[i].fields = o.fields
	}
	return built, nil
}

// sealObjects lets kustomize see objects that an engine made.
func (w *walk) sealObjects(objects []object) error {
	var text bytes.Buffer
	for i, o := range objects {
		u := &unstructured.Unstructured{Object: o.fields}
		if local, is := u.GetAnnotations()[konfig.IgnoredByKustomizeAnnotation]; is && local != "false" {
			return failure(v1alpha1.ReasonRenderFailed, "%s: %s %s has the annotation %s, with which kustomize leaves it out; remove the annotation or the object",
				o.where, u.GetKind(), u.GetName(), konfig.IgnoredByKustomizeAnnotation)
		}
		w.names = append(w.names, identity{kind: u.GetKind(), namespace: u.GetNamespace(), name: u.GetName()}.String())
		o.fields[noteObject] = int64(i)
		start := text.Len()
		if err := writeFlow(&text, o.fields); err != nil {
			return notAnObject(o.where, err.Error())
		}
		w.used.longest = max(w.used.longest, text.Len()-start)
	}
	w.sealed.overlaid(objectsFile, text.Bytes())
	w.growth.dollars += bytes.Count(text.Bytes(), []byte("$("))
	w.used.bytes = max(w.used.bytes, text.Len())
	w.used.objects = max(w.used.objects, len(objects))
	return nil
}

// writeFlow writes a document of YAML that is JSON, but for the few characters that JSON has as they are and YAML
// takes for line breaks or refuses.
func writeFlow(text *bytes.Buffer, fields map[string]any) error {
	raw, err := json.Marshal(fields)
	if err != nil {
		return err
	}
	text.WriteString("---\n")
	for _, r := range string(raw) {
		if 0x7f <= r && r <= 0x9f || r == 0xfeff || r == 0xfffe || r == 0xffff {
			fmt.Fprintf(text, "\\u%04x", r)
			continue
		}
		text.WriteRune(r)
	}
	text.WriteByte('\n')
	return nil
}

// build completes a kustomization of n objects with the transforms, and builds it.
func (t *transforms) build(w *walk, k types.Kustomization, n int) ([]object, error) {
	l := &layer{dir: t.folder, file: "spec.specialize", above: []string{"spec.specialize"}}
	for _, text := range t.components {
		name, more, err := w.component(l, text)
		if err != nil {
			return nil, err
		}
		n += more
		k.Components = append(k.Components, path.Join("..", mount, name))
	}
	k.APIVersion, k.Kind = types.KustomizationVersion, types.KustomizationKind
	k.Images, k.Namespace, k.NamePrefix, k.NameSuffix = t.images, t.namespace, t.prefix, t.suffix
	for _, p := range t.patches {
		w.growth.patch([]byte(p.text))
	}
	if err := w.growth.layer(l.file, n, &k); err != nil {
		return nil, err
	}
	if err := w.growth.check(w.used); err != nil {
		return nil, err
	}
	objects, err := t.run(w, k, t.patches, false)
	if err != nil {
		return nil, t.blame(w, k, err)
	}
	missed := t.missed(objects, t.patches)
	if len(missed) > 0 && slices.ContainsFunc(t.patches, func(p patch) bool { return p.removes }) {
		// What was noted may have gone with the object that it was noted on.
		kept, err := t.run(w, k, t.patches, true)
		if err != nil {
			return nil, t.blame(w, k, err)
		}
		missed = t.missed(kept, missed)
	}
	if len(missed) > 0 {
		p := missed[0]
		return nil, w.nearest(p.place, p.target.Kind+" "+p.target.Name, "it changes nothing: no object has "+p.selects())
	}
	for _, o := range objects {
		for i := range t.patches {
			delete(o.fields, noteOf(i))
		}
	}
	return objects, nil
}

// run builds the kustomization with patches. With keep, those that may remove an object only leave their notes.
func (t *transforms) run(w *walk, k types.Kustomization, patches []patch, keep bool) ([]object, error) {
	for i, p := range patches {
		if keep && p.removes && p.target == nil {
			continue
		}
		entry, err := p.entry(noteOf(i), keep && p.removes)
		if err != nil {
			return nil, err
		}
		k.Patches = append(k.Patches, entry)
	}
	text, err := yaml.Marshal(k)
	if err != nil {
		return nil, fmt.Errorf("write the transforms as a kustomization: %w", err)
	}
	w.sealed.overlaid(konfig.DefaultKustomizationFileName(), text)
	built, err := build(w.sealed, overlay)
	if err != nil {
		return nil, fmt.Errorf("kustomize: %s", readable(err.Error()))
	}
	return objectsOf(built)
}

func noteOf(i int) string { return fmt.Sprintf("%s%d", notePatch, i) }

// missed are those of some patches that have noted themselves nowhere.
func (t *transforms) missed(objects []object, among []patch) []patch {
	var missed []patch
	for i, p := range t.patches {
		here := func(o object) bool { return o.fields[noteOf(i)] != nil }
		if p.target == nil || slices.ContainsFunc(objects, here) {
			continue
		}
		if slices.ContainsFunc(among, func(a patch) bool { return a.place == p.place }) {
			missed = append(missed, p)
		}
	}
	return missed
}

// unfound is what kustomize says where a strategic merge patch names no object, or more than one.
var unfound = regexp.MustCompile(`no resource matches strategic merge patch "([^"]+)": (no|multiple) matches`) //nolint:gochecknoglobals // never changed

// blame says what in the spec an error of kustomize is about. It may build again, with some of the patches only.
func (t *transforms) blame(w *walk, k types.Kustomization, err error) error {
	if fleet.ReasonOf(err, "") != "" {
		return err // it is not kustomize's
	}
	if m := unfound.FindStringSubmatch(err.Error()); m != nil {
		for _, p := range t.patches {
			for _, id := range p.objects {
				if p.target == nil && id.String() == m[1] {
					return w.explain(p, id, m[2] == "multiple")
				}
			}
		}
	}
	// Until the patch that ends the build, it can be built.
	at := sort.Search(len(t.patches), func(n int) bool {
		_, err := t.run(w, k, t.patches[:n], false)
		return err != nil
	})
	place := shown(t.folder)
	if at > 0 {
		place = t.patches[at-1].place
	}
	return failure(v1alpha1.ReasonRenderFailed, "%s: %w", place, err)
}

// explain says that a strategic merge patch names no object, or several.
func (w *walk) explain(p patch, id resid.ResId, several bool) error {
	named := identity{kind: id.Kind, namespace: id.Namespace, name: id.Name}.String()
	if several {
		return failure(v1alpha1.ReasonRenderFailed, "%s: more than one object is %s %s; say which by a target", p.place, id.ApiVersion(), named)
	}
	return w.nearest(p.place, named, "it changes nothing: no object is "+id.ApiVersion()+" "+named)
}

// nearest is an error about a name that no object has, with those that look like it.
func (w *walk) nearest(place, word, what string) error {
	names := slices.Clone(w.names)
	slices.Sort(names)
	names = byLikeness(strings.TrimSpace(word), slices.Compact(names))
	hint := "there are no objects"
	if len(names) > 0 {
		hint = "nearest: " + strings.Join(names[:min(len(names), mostNear)], ", ")
	}
	return hinted(v1alpha1.ReasonRenderFailed, hint, "%s: %s", place, what)
}
