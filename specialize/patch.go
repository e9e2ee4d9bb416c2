// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/resid"
	kyaml "sigs.k8s.io/kustomize/kyaml/yaml"
	"sigs.k8s.io/yaml"

	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// patch is one of the spec's, read.
type patch struct {
	// place in the spec.
	place  string
	text   string
	target *v1alpha1.PatchTarget
	// operations of a JSON 6902 patch; nil where it is a strategic merge.
	operations []json.RawMessage
	// objects that a strategic merge patch names.
	objects []resid.ResId
	// removes says that an object may not outlive it, or not with all that is noted on it.
	removes bool
}

// operation of JSON 6902.
type operation struct {
	Op    string           `json:"op"`
	Path  *string          `json:"path"`
	From  *string          `json:"from"`
	Value *json.RawMessage `json:"value"`
}

// refuse is an error of the patch as it stands in the spec.
func (p patch) refuse(format string, args ...any) error {
	return failure(v1alpha1.ReasonInvalid, "%s: %w", p.place, fmt.Errorf(format, args...))
}

// readPatches reads a list of patches that stands at place.
func readPatches(place string, list []v1alpha1.Patch) ([]patch, error) {
	patches := make([]patch, 0, len(list))
	for i, p := range list {
		read, err := readPatch(fmt.Sprintf("%s.patches[%d]", place, i), p)
		if err != nil {
			return nil, err
		}
		patches = append(patches, read)
	}
	return patches, nil
}

// readPatch finds out what a patch is, and refuses what kustomize would refuse in other words, or take for nothing.
func readPatch(place string, given v1alpha1.Patch) (patch, error) {
	p := patch{place: place, text: strings.TrimSpace(given.Patch), target: given.Target}
	docs, err := newTree(nil).scan(place, []byte(p.text))
	if err != nil {
		return p, failure(v1alpha1.ReasonInvalid, "%w", err)
	}
	if len(docs) == 0 {
		return p, p.refuse("the patch is empty")
	}
	if err := p.checkTarget(); err != nil {
		return p, err
	}
	root, err := parse(docs[0])
	if err != nil {
		return p, failure(v1alpha1.ReasonInvalid, "%w", err)
	}
	switch {
	case root.Content[0].Kind == kyaml.SequenceNode && len(docs) == 1:
		err = p.readOperations()
	case root.Content[0].Kind == kyaml.MappingNode:
		err = p.readObjects(docs)
	default:
		err = p.refuse("neither a strategic merge patch, which is an object, nor a list of JSON 6902 operations")
	}
	return p, err
}

// checkTarget refuses what no selector can be made of.
func (p patch) checkTarget() error {
	if p.target == nil {
		return nil
	}
	if *p.target == (v1alpha1.PatchTarget{}) {
		return p.refuse("target: it selects nothing; name a kind or a name, or leave the target out")
	}
	for _, f := range fieldsOf(p.target) {
		switch f.name {
		case "labelSelector", "annotationSelector":
			if _, err := labels.Parse(f.value); err != nil {
				return p.refuse("target.%s: %w", f.name, err)
			}
		default:
			if _, err := regexp.Compile("^(?:" + f.value + ")$"); err != nil {
				return p.refuse("target.%s: %q is no regular expression: %w", f.name, f.value, err)
			}
		}
	}
	return nil
}

func (p *patch) readOperations() error {
	if p.target == nil {
		return p.refuse("a list of JSON 6902 operations needs a target")
	}
	raw, err := yaml.YAMLToJSON([]byte(p.text))
	if err == nil {
		err = json.Unmarshal(raw, &p.operations)
	}
	if err != nil {
		return p.refuse("%w", err)
	}
	for i, one := range p.operations {
		var o operation
		if err := json.Unmarshal(one, &o); err != nil {
			return p.refuse("operation %d is none of JSON 6902", i+1)
		}
		if wrong := o.wrong(); wrong != "" {
			return p.refuse("operation %d: %s", i+1, wrong)
		}
		p.removes = p.removes || *o.Path == ""
	}
	return nil
}

// wrong says what is wrong with an operation.
func (o operation) wrong() string {
	switch {
	case o.Path == nil:
		return "it has no path"
	case *o.Path != "" && !strings.HasPrefix(*o.Path, "/"):
		return fmt.Sprintf("the path %q does not begin with /", clip(*o.Path))
	}
	switch o.Op {
	case "remove":
	case "add", "replace", "test":
		if o.Value == nil {
			return o.Op + " needs a value"
		}
	case "move", "copy":
		if o.From == nil || !strings.HasPrefix(*o.From, "/") {
			return o.Op + " needs from, which begins with /"
		}
	default:
		return fmt.Sprintf("op is %q, which is none of add, remove, replace, move, copy and test", clip(o.Op))
	}
	return ""
}

func (p *patch) readObjects(docs []document) error {
	if p.target != nil && len(docs) > 1 {
		return p.refuse("it has a target, and is %d objects; give each object its own entry", len(docs))
	}
	for _, d := range docs {
		node, err := kyaml.Parse(string(d.text))
		if err != nil {
			return p.refuse("%w", err)
		}
		meta, err := node.GetMeta()
		if err != nil || meta.APIVersion == "" || meta.Kind == "" || meta.Name == "" {
			return p.refuse("a strategic merge patch has apiVersion, kind and metadata.name (with a target they may say anything)")
		}
		p.objects = append(p.objects, resid.NewResIdWithNamespace(resid.GvkFromNode(node), meta.Name, meta.Namespace))
		if directive := node.Field("$patch"); !directive.IsNilOrEmpty() {
			p.removes = true
		}
	}
	return nil
}

// entry is the patch as a kustomization has it. Of one with a target it leaves note on every object that it has
// changed, as a field beside metadata: kustomize says nothing where a target selects nothing. With only, the note
// is all that it does.
func (p patch) entry(note string, only bool) (types.Patch, error) {
	if p.target == nil {
		return types.Patch{Patch: p.text}, nil
	}
	entry := types.Patch{Target: selectorOf(p.target)}
	var text []byte
	var err error
	if p.operations != nil {
		noting, _ := json.Marshal(map[string]any{"op": "add", "path": "/" + strings.ReplaceAll(note, "/", "~1"), "value": true}) // of texts only
		operations := append([]json.RawMessage(nil), p.operations...)
		if only {
			operations = nil
		}
		text, err = json.Marshal(append(operations, noting))
	} else {
		text, err = p.noting(note, only)
	}
	if err != nil {
		return entry, p.refuse("%w", err)
	}
	entry.Patch = string(text)
	return entry, nil
}

// noting is a strategic merge patch with a note.
func (p patch) noting(note string, only bool) ([]byte, error) {
	if only {
		id := p.objects[0]
		return json.Marshal(map[string]any{
			"apiVersion": id.ApiVersion(), "kind": id.Kind, "metadata": map[string]any{"name": id.Name}, note: true,
		})
	}
	node, err := kyaml.Parse(p.text)
	if err != nil {
		return nil, err
	}
	keepTexts(node.YNode())
	if err := node.PipeE(kyaml.SetField(note, kyaml.NewScalarRNode("true"))); err != nil {
		return nil, err
	}
	text, err := node.String()
	return []byte(text), err
}

// keepTexts has texts written in quotes that the marshaller would lose part of; see nodeOf.
func keepTexts(n *kyaml.Node) {
	if n.Kind == kyaml.ScalarNode && strings.Contains(n.Value, "\n") && strings.ContainsAny(n.Value[:1], " \t\n") {
		n.Style = kyaml.DoubleQuotedStyle
	}
	for _, child := range n.Content {
		keepTexts(child)
	}
}

// targetField is a field of a target that is given.
type targetField struct{ name, value string }

func fieldsOf(t *v1alpha1.PatchTarget) []targetField {
	var given []targetField
	for _, f := range []targetField{
		{"group", t.Group},
		{"version", t.Version},
		{"kind", t.Kind},
		{"namespace", t.Namespace},
		{"name", t.Name},
		{"labelSelector", t.LabelSelector},
		{"annotationSelector", t.AnnotationSelector},
	} {
		if f.value != "" {
			given = append(given, f)
		}
	}
	return given
}

func selectorOf(t *v1alpha1.PatchTarget) *types.Selector {
	return &types.Selector{
		ResId: resid.ResId{
			Gvk:  resid.Gvk{Group: t.Group, Version: t.Version, Kind: t.Kind},
			Name: t.Name, Namespace: t.Namespace,
		},
		LabelSelector: t.LabelSelector, AnnotationSelector: t.AnnotationSelector,
	}
}

// selects says whom the target selects.
func (p patch) selects() string {
	var parts []string
	for _, f := range fieldsOf(p.target) {
		parts = append(parts, f.name+" "+f.value)
	}
	return strings.Join(parts, ", ")
}
