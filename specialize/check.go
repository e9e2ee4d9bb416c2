// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// Check refuses a spec that no member could render, whatever the payload and whoever the member. It gives all that
// is wrong, joined, each a terminal fleet.Error of reason Invalid.
func Check(spec *v1alpha1.Specialize) error {
	if spec == nil {
		return nil
	}
	c := &checker{spec: spec, own: map[string]string{}}
	c.variables()
	c.texts()
	c.transforms("spec.specialize", spec.Patches, spec.Images)
	c.metadata()
	if spec.PostBuild != nil {
		c.substitute("spec.specialize.postBuild.substitute", spec.PostBuild.Substitute)
	}
	c.overrides()
	return errors.Join(c.wrong...)
}

// checker collects what is wrong with a spec.
type checker struct {
	spec  *v1alpha1.Specialize
	own   map[string]string
	wrong []error
}

func (c *checker) note(err error) {
	if err != nil {
		c.wrong = append(c.wrong, err)
	}
}

func (c *checker) refuse(format string, args ...any) {
	c.note(failure(v1alpha1.ReasonInvalid, format, args...))
}

func (c *checker) variables() {
	for _, v := range c.spec.Variables {
		c.note(checkName(v.Name, c.own))
		c.own[v.Name] = ""
		_, err := compile(v)
		c.note(err)
	}
}

// texts that may hold variables.
func (c *checker) texts() {
	for i, text := range c.spec.Components {
		c.text(fmt.Sprintf("spec.specialize.components[%d]", i), text)
	}
	h := c.spec.Helm
	if h == nil {
		return
	}
	for i, text := range h.ValuesFiles {
		c.text(fmt.Sprintf("spec.specialize.helm.valuesFiles[%d]", i), text)
	}
	c.values("spec.specialize.helm.values", h.Values)
}

func (c *checker) text(place, text string) {
	_, err := expand(text, func(name string) (string, error) {
		if _, has := c.own[name]; has || isBuiltIn(name) {
			return "", nil
		}
		return "", fmt.Errorf("there is no variable ${%s} (there are: %s)", clip(name), thereAre(name, slices.Collect(maps.Keys(c.own))))
	})
	if err != nil {
		c.refuse("%s: %w", place, err)
	}
}

// values of a chart: an object, whose texts may hold variables.
func (c *checker) values(place string, raw *runtime.RawExtension) {
	if raw == nil || len(raw.Raw) == 0 {
		return
	}
	var fields map[string]any
	if err := json.Unmarshal(raw.Raw, &fields); err != nil {
		c.refuse("%s: values are an object: %w", place, err)
		return
	}
	c.within(place, fields)
}

func (c *checker) within(place string, value any) {
	switch v := value.(type) {
	case string:
		c.text(place, v)
	case []any:
		for i, item := range v {
			c.within(fmt.Sprintf("%s[%d]", place, i), item)
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			c.within(place+"."+key, v[key])
		}
	}
}

func (c *checker) transforms(place string, patches []v1alpha1.Patch, images []v1alpha1.Image) {
	for i, p := range patches {
		_, err := readPatch(fmt.Sprintf("%s.patches[%d]", place, i), p)
		c.note(err)
	}
	seen := map[string]bool{}
	for i, image := range images {
		where := fmt.Sprintf("%s.images[%d]", place, i)
		switch {
		case seen[image.Name]:
			c.refuse("%s: there are two for %s", where, image.Name)
		case image.NewName == "" && image.NewTag == "" && image.Digest == "":
			c.refuse("%s: %s: give newName, newTag or digest", where, image.Name)
		}
		seen[image.Name] = true
	}
}

func (c *checker) metadata() {
	if ns := c.spec.TargetNamespace; ns != "" {
		for _, wrong := range validation.IsDNS1123Label(ns) {
			c.refuse("spec.specialize.targetNamespace: %q: %s", ns, wrong)
		}
	}
	if c.spec.CommonMetadata == nil {
		return
	}
	place := "spec.specialize.commonMetadata"
	for _, key := range slices.Sorted(maps.Keys(c.spec.CommonMetadata.Labels)) {
		c.key(place+".labels", key)
		value := c.spec.CommonMetadata.Labels[key]
		if strings.Contains(value, opening) {
			continue // postBuild fills it
		}
		for _, wrong := range validation.IsValidLabelValue(value) {
			c.refuse("%s.labels: the value of %s: %s", place, key, wrong)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(c.spec.CommonMetadata.Annotations)) {
		c.key(place+".annotations", strings.ToLower(key))
	}
}

func (c *checker) key(place, key string) {
	for _, wrong := range validation.IsQualifiedName(key) {
		c.refuse("%s: the key %q: %s", place, key, wrong)
	}
}

func (c *checker) substitute(place string, values map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if !variableName.MatchString(name) {
			c.refuse("%s: %q: %s", place, name, nameRule)
		}
	}
}

func (c *checker) overrides() {
	seen := map[string]bool{}
	for _, o := range c.spec.Overrides {
		place := placeOf(o)
		if seen[o.Name] {
			c.refuse("%s: there are two of this name", place)
		}
		seen[o.Name] = true
		_, err := matcher(o)
		c.note(err)
		c.transforms(place, o.Patches, o.Images)
		c.values(place+".values", o.Values)
		c.substitute(place+".substitute", o.Substitute)
	}
}
