// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"encoding/json"
	"fmt"
	"regexp"

	"k8s.io/apimachinery/pkg/runtime"
)

var (
	exactVersion = regexp.MustCompile(`^v?[0-9]+[.][0-9]+[.][0-9]+([-+][0-9A-Za-z.+-]+)?$`)
	chartDigest  = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	dnsName      = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)
)

func (c *checker) specialize(field string, s *Specialize) {
	if s.Helm != nil {
		c.helm(field+".helm", s.Helm)
	}
	c.variables(field+".variables", s.Variables)
	c.texts(field+".components", s.Components, 32, maxPath)
	c.patches(field+".patches", s.Patches)
	c.images(field+".images", s.Images)
	if s.TargetNamespace != "" && (!dnsName.MatchString(s.TargetNamespace) || len(s.TargetNamespace) > 63) {
		c.say(field+".targetNamespace", "%q: %s", s.TargetNamespace, nameWords)
	}
	c.text(field+".namePrefix", s.NamePrefix, 200)
	c.text(field+".nameSuffix", s.NameSuffix, 200)
	if s.PostBuild != nil {
		c.count(field+".postBuild.substitute", len(s.PostBuild.Substitute), 256)
		c.count(field+".postBuild.substituteFrom", len(s.PostBuild.SubstituteFrom), 16)
		for i, from := range s.PostBuild.SubstituteFrom {
			c.object(fmt.Sprintf("%s.postBuild.substituteFrom[%d]", field, i), from.Kind, from.Name)
		}
	}
	c.overrides(field+".overrides", s.Overrides)
}

func (c *checker) helm(field string, h *HelmRender) {
	if h.Chart != nil {
		c.chart(field+".chart", h.Chart)
	}
	if h.ReleaseName != "" && (!dnsName.MatchString(h.ReleaseName) || len(h.ReleaseName) > 53) {
		c.say(field+".releaseName", "%q: small letters, digits and '-', beginning and ending with a letter or digit, at most 53 characters", h.ReleaseName)
	}
	c.texts(field+".valuesFiles", h.ValuesFiles, 16, maxPath)
	c.count(field+".valuesFrom", len(h.ValuesFrom), 16)
	for i, from := range h.ValuesFrom {
		at := fmt.Sprintf("%s.valuesFrom[%d]", field, i)
		c.object(at, from.Kind, from.Name)
		c.text(at+".valuesKey", from.ValuesKey, maxName)
		c.text(at+".targetPath", from.TargetPath, 250)
	}
	c.values(field+".values", h.Values)
	c.oneOf(field+".crds", h.CRDs, CRDsSkip, CRDsCreateReplace)
	c.oneOf(field+".hooks", h.Hooks, HooksOrder, HooksRefuse, HooksIgnore)
}

func (c *checker) chart(field string, h *HelmChart) {
	c.chartAt(field, h.URL, h.Chart)
	if c.required(field+".version", h.Version, 128) && !exactVersion.MatchString(h.Version) {
		c.say(field+".version", "%q: an exact version such as 1.4.2, so that one commit always gives the same release (ranges belong in spec.source.helm)", h.Version)
	}
	if h.Digest != "" && !chartDigest.MatchString(h.Digest) {
		c.say(field+".digest", "%q: sha256: and 64 hex digits", h.Digest)
	}
	c.reference(field+".secretRef", h.SecretRef)
}

// object is a ConfigMap or Secret.
func (c *checker) object(field, kind, name string) {
	if kind == "" {
		c.say(field+".kind", "required")
	}
	c.oneOf(field+".kind", kind, "ConfigMap", "Secret")
	c.required(field+".name", name, maxName)
}

// values are a mapping, whatever is in it.
func (c *checker) values(field string, v *runtime.RawExtension) {
	if v == nil || len(v.Raw) == 0 {
		return
	}
	var mapping map[string]any
	if err := json.Unmarshal(v.Raw, &mapping); err != nil {
		c.say(field, "a mapping of values is expected")
	}
}

func (c *checker) variables(field string, variables []Variable) {
	c.count(field, len(variables), 64)
	names := make([]string, len(variables))
	for i, v := range variables {
		at := fmt.Sprintf("%s[%d]", field, i)
		names[i] = v.Name
		if c.required(at+".name", v.Name, 63) && !variableName.MatchString(v.Name) {
			c.say(at+".name", "%q: letters, digits and '_', not beginning with a digit", v.Name)
		}
		c.required(at+".expression", v.Expression, 1024)
	}
	unique(c, field, names)
}

func (c *checker) patches(field string, patches []Patch) {
	c.count(field, len(patches), 64)
	for i, p := range patches {
		c.required(fmt.Sprintf("%s[%d].patch", field, i), p.Patch, 65536)
	}
}

func (c *checker) images(field string, images []Image) {
	c.count(field, len(images), 64)
	for i, image := range images {
		c.required(fmt.Sprintf("%s[%d].name", field, i), image.Name, maxPath)
	}
}

func (c *checker) overrides(field string, overrides []Override) {
	c.count(field, len(overrides), 64)
	names := make([]string, len(overrides))
	for i := range overrides {
		o := &overrides[i]
		at := fmt.Sprintf("%s[%d]", field, i)
		names[i] = o.Name
		c.label(at+".name", o.Name)
		if o.Names == nil && o.MatchLabels == nil && o.MatchExpressions == nil {
			c.say(at, "say for which members: matchLabels, matchExpressions or names")
		}
		c.selector(at, &o.ClusterSelector)
		c.patches(at+".patches", o.Patches)
		c.images(at+".images", o.Images)
		c.values(at+".values", o.Values)
		c.count(at+".substitute", len(o.Substitute), 256)
	}
	unique(c, field, names)
}
