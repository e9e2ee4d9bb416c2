// SPDX-License-Identifier: Apache-2.0

package docstest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"path"
	"reflect"
	"regexp"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"

	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/deploy"
)

// validated is what says by itself what is wrong with it.
type validated interface{ Validate() error }

// decode one document of a page strictly, and look at it as the agents and the API server do.
func decode(doc string) error {
	var head metav1.TypeMeta
	if err := yaml.Unmarshal([]byte(doc), &head); err != nil {
		return err
	}
	group, _, _ := strings.Cut(head.APIVersion, "/")
	switch {
	case head.APIVersion == "" && head.Kind == "":
		return decodePart(doc)
	case group != v1alpha1.GroupVersion.Group:
		return decodeForeign(doc)
	case head.Kind == "FleetRollout":
		return strict(doc, &v1alpha1.FleetRollout{})
	case head.Kind == "FleetMember":
		return strict(doc, &v1alpha1.FleetMember{})
	}
	return fmt.Errorf("%s has no kind %s", group, head.Kind)
}

func strict(doc string, into validated) error {
	if err := yaml.UnmarshalStrict([]byte(doc), into); err != nil {
		return err
	}
	raw, err := yaml.YAMLToJSON([]byte(doc))
	if err != nil {
		return err
	}
	if err := v1alpha1.CheckWritten(raw); err != nil {
		return err
	}
	return into.Validate()
}

// decodePart takes a part of a rollout, which begins at spec, and completes it with what every rollout needs.
func decodePart(doc string) error {
	var part struct {
		Spec map[string]any `json:"spec"`
	}
	if err := yaml.UnmarshalStrict([]byte(doc), &part); err != nil {
		return fmt.Errorf("neither an object nor a part of a rollout that begins at spec: %w", err)
	}
	whole := map[string]any{
		"apiVersion": v1alpha1.GroupVersion.String(), "kind": "FleetRollout",
		"metadata": map[string]any{"name": "web", "namespace": "shop"}, "spec": part.Spec,
	}
	if _, has := part.Spec["source"]; !has {
		part.Spec["source"] = map[string]any{"git": map[string]any{"url": "https://git.example.com/web"}}
	}
	if _, has := part.Spec["targets"]; !has {
		part.Spec["targets"] = map[string]any{"names": []string{"*"}}
	}
	raw, err := json.Marshal(whole)
	if err != nil {
		return err
	}
	return strict(string(raw), &v1alpha1.FleetRollout{})
}

// decodeForeign decodes the kinds of Kubernetes strictly; others have to be well-formed.
func decodeForeign(doc string) error {
	decoder := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	_, _, err := decoder.Decode([]byte(doc), nil, nil)
	if err != nil && strings.Contains(err.Error(), "no kind") {
		return yaml.UnmarshalStrict([]byte(doc), &map[string]any{})
	}
	return err
}

// documents of a YAML block that hold anything.
func documents(text string) []string {
	var out []string
	for _, doc := range strings.Split("\n"+text, "\n---") {
		var value any
		if err := yaml.Unmarshal([]byte(doc), &value); err != nil || value != nil {
			out = append(out, doc)
		}
	}
	return out
}

// TestManifests: every block of YAML decodes strictly, and what is ours is valid.
func TestManifests(t *testing.T) {
	ours := 0
	for _, p := range pages(t) {
		blocks, _ := p.blocks()
		for _, b := range blocks {
			if b.lang != "yaml" {
				continue
			}
			for _, doc := range documents(b.text) {
				if err := decode(doc); err != nil {
					t.Errorf("%s:%d: %v", b.page, b.line, err)
				}
				if strings.Contains(doc, v1alpha1.GroupVersion.Group) {
					ours++
				}
			}
		}
	}
	if ours < 5 {
		t.Errorf("only %d manifests of ours were found", ours)
	}
}

// TestBrokenManifestsAreFound: the test above can fail.
func TestBrokenManifestsAreFound(t *testing.T) {
	const head = "apiVersion: fleet.flotilla.dev/v1alpha1\n"
	for name, doc := range map[string]string{
		"a misspelt field":     head + "kind: FleetRollout\nmetadata: {name: a}\nspec: {source: {git: {url: \"https://a/b\"}}, targets: {name: [a]}}",
		"no targets":           head + "kind: FleetRollout\nmetadata: {name: a}\nspec: {source: {git: {url: \"https://a/b\"}}, targets: {}}",
		"a member without key": head + "kind: FleetMember\nmetadata: {name: a}\nspec: {}",
		"an unknown kind":      head + "kind: FleetPolicy\nmetadata: {name: a}",
		"a part with a slip":   "spec: {strategy: {soke: 1h}}",
		"a part with a 1d":     "spec: {strategy: {soak: 1d}}",
		"another top":          "strategy: {soak: 1h}",
		"a Role with a slip":   "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: a}\nrule: []",
		"the same key twice":   "apiVersion: example.com/v1\nkind: A\nkind: B",
	} {
		if err := decode(doc); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

var (
	inBackticks = regexp.MustCompile("`([^`]+)`")
	fieldPath   = regexp.MustCompile(`^(spec|status)(\.[a-zA-Z]+(\[[^\]]*\])?)+$`)
	index       = regexp.MustCompile(`\[[^\]]*\]`)
)

// TestFields: every field that a page names by its path is one of the API. Decisions are of their day.
func TestFields(t *testing.T) {
	seen := 0
	for _, p := range pages(t) {
		if strings.HasPrefix(p.name, "docs/decisions/") {
			continue
		}
		_, outside := p.blocks()
		for i, line := range outside {
			for _, m := range inBackticks.FindAllStringSubmatch(line, -1) {
				if !fieldPath.MatchString(m[1]) || path.Ext(m[1]) == ".go" {
					continue
				}
				seen++
				if !isField(m[1]) {
					t.Errorf("%s:%d: neither FleetRollout nor FleetMember has the field %s", p.name, i+1, m[1])
				}
			}
		}
	}
	if seen < 20 {
		t.Errorf("only %d fields were found", seen)
	}
	for _, none := range []string{"spec.strategy.windows", "spec.source.git.urls", "status.heree"} {
		if isField(none) {
			t.Errorf("%s counts as a field", none)
		}
	}
}

func isField(name string) bool {
	steps := strings.Split(index.ReplaceAllString(name, ""), ".")
	return leads(reflect.TypeFor[v1alpha1.FleetRollout](), steps) || leads(reflect.TypeFor[v1alpha1.FleetMember](), steps)
}

// leads says whether the steps are fields of the type, by their JSON names.
func leads(typ reflect.Type, steps []string) bool {
	for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
		typ = typ.Elem()
	}
	if len(steps) == 0 {
		return true
	}
	switch {
	case typ.Kind() == reflect.Map, typ.Name() == "RawExtension":
		return true // whatever people put there
	case typ.Kind() != reflect.Struct:
		return false
	}
	for field := range fields(typ) {
		name, rest, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "" && (field.Anonymous || strings.Contains(rest, "inline")) && leads(field.Type, steps) {
			return true
		}
		if name == steps[0] {
			return leads(field.Type, steps[1:])
		}
	}
	return false
}

func fields(typ reflect.Type) func(func(reflect.StructField) bool) {
	return func(yield func(reflect.StructField) bool) {
		for i := range typ.NumField() {
			if !yield(typ.Field(i)) {
				return
			}
		}
	}
}

// TestTerminalPictures: what is drawn in a block without a language fits a terminal of 100 columns.
func TestTerminalPictures(t *testing.T) {
	for _, p := range guides(t) {
		blocks, _ := p.blocks()
		for _, b := range blocks {
			if b.lang != "" {
				continue
			}
			for i, line := range bytes.Split([]byte(b.text), []byte("\n")) {
				if n := len([]rune(string(line))); n > 100 {
					t.Errorf("%s:%d: %d columns, at most 100", b.page, b.line+i, n)
				}
			}
		}
	}
}

// TestKustomizationsOverDeploy: what people are told to lay over deploy/ builds, and its patches find what they change.
func TestKustomizationsOverDeploy(t *testing.T) {
	disk := filesys.MakeFsInMemory()
	err := fs.WalkDir(deploy.Files, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		body, err := fs.ReadFile(deploy.Files, name)
		if err != nil {
			return err
		}
		return disk.WriteFile(path.Join("/fleet/deploy", name), body)
	})
	if err != nil {
		t.Fatal(err)
	}
	built := 0
	for _, p := range guides(t) {
		blocks, _ := p.blocks()
		for _, b := range blocks {
			if b.lang != "yaml" || !strings.Contains(b.text, "kind: Kustomization\n") || !strings.Contains(b.text, "deploy/") {
				continue
			}
			built++
			if err := disk.WriteFile("/fleet/kustomization.yaml", []byte(b.text)); err != nil {
				t.Fatal(err)
			}
			objects, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(disk, "/fleet")
			if err != nil {
				t.Errorf("%s:%d: %v", b.page, b.line, err)
				continue
			}
			text, err := objects.AsYaml()
			if err != nil {
				t.Fatal(err)
			}
			for _, word := range added.FindAllString(b.text, -1) {
				if !bytes.Contains(text, []byte(word)) {
					t.Errorf("%s:%d: %s is not in what it builds to", b.page, b.line, word)
				}
			}
		}
	}
	if built < 3 {
		t.Errorf("only %d were found", built)
	}
}

// added words of such a kustomization: flags and the image's name.
var added = regexp.MustCompile(`--[a-z][-a-z]+=[^}\s]+|registry\.example\.com/[a-z-]+`)
