// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// object is what a payload holds, with where it was found, for messages.
type object struct {
	fields map[string]any
	where  string
}

// identity is what makes two objects one in a cluster. The version is not part of it.
type identity struct{ group, kind, namespace, name string }

func (i identity) String() string {
	if i.namespace == "" {
		return i.kind + " " + i.name
	}
	return fmt.Sprintf("%s %s/%s", i.kind, i.namespace, i.name)
}

// flatten appends a value that must be an object, or the objects of a list.
func (t *tree) flatten(objects []object, value any, where string) ([]object, error) {
	fields, ok := value.(map[string]any)
	if !ok {
		return nil, notAnObject(where, "it is no mapping of fields")
	}
	kind, _ := fields["kind"].(string)
	items, isList := fields["items"].([]any)
	if !isList || !strings.HasSuffix(kind, "List") {
		return append(objects, object{fields, where}), t.used.object(where)
	}
	for i, item := range items {
		itemWhere := fmt.Sprintf("%s, item %d", where, i+1)
		if o, ok := item.(map[string]any); ok && kind != "List" {
			// The API server leaves these out in a list of one kind.
			setDefault(o, "apiVersion", fields["apiVersion"])
			setDefault(o, "kind", strings.TrimSuffix(kind, "List"))
		}
		var err error
		if objects, err = t.flatten(objects, item, itemWhere); err != nil {
			return nil, err
		}
	}
	return objects, nil
}

func setDefault(o map[string]any, field string, value any) {
	if _, has := o[field]; !has && value != nil {
		o[field] = value
	}
}

func notAnObject(where, why string) error {
	return failure(v1alpha1.ReasonInvalidManifest, "%s: not a Kubernetes object: %s", where, why)
}

// accept checks the objects one by one and against each other.
func accept(objects []object, namespace string) ([]*unstructured.Unstructured, error) {
	accepted := make([]*unstructured.Unstructured, 0, len(objects))
	seen := make(map[identity]string, len(objects))
	for _, o := range objects {
		id, err := o.check()
		if err != nil {
			return nil, err
		}
		key := id
		if key.namespace == "" {
			key.namespace = namespace
		}
		if where, twice := seen[key]; twice {
			return nil, failure(v1alpha1.ReasonInvalidManifest, "%s is there twice: %s and %s", id, where, o.where)
		}
		seen[key] = o.where
		accepted = append(accepted, &unstructured.Unstructured{Object: o.fields})
	}
	return accepted, nil
}

// check says what the object is, or why it is none that may be delivered.
func (o object) check() (identity, error) {
	apiVersion, _ := o.fields["apiVersion"].(string)
	kind, _ := o.fields["kind"].(string)
	gv, err := schema.ParseGroupVersion(apiVersion)
	switch {
	case apiVersion == "":
		return identity{}, notAnObject(o.where, "it has no apiVersion")
	case err != nil:
		return identity{}, notAnObject(o.where, fmt.Sprintf("apiVersion %q is not group/version", apiVersion))
	case kind == "":
		return identity{}, notAnObject(o.where, "it has no kind")
	case gv.Group == v1alpha1.GroupVersion.Group:
		return identity{}, failure(v1alpha1.ReasonContainsFlotilla,
			"the payload contains a %s (%s); payloads may not carry %s kinds", kind, o.where, gv.Group)
	}
	id := identity{group: gv.Group, kind: kind}
	meta, ok := o.fields["metadata"].(map[string]any)
	if !ok {
		return identity{}, notAnObject(o.where, fmt.Sprintf("%s has no metadata", kind))
	}
	if id.name, err = o.name(kind, meta); err != nil {
		return identity{}, err
	}
	if id.namespace, err = o.namespace(id, meta); err != nil {
		return identity{}, err
	}
	return id, o.checkContent(id, meta)
}

func (o object) name(kind string, meta map[string]any) (string, error) {
	name, _ := meta["name"].(string)
	if name == "" {
		if _, generated := meta["generateName"]; generated {
			return "", notAnObject(o.where, kind+" has generateName, which makes another object at every delivery; give it a name")
		}
		return "", notAnObject(o.where, kind+" has no metadata.name")
	}
	if wrong := content.IsPathSegmentName(name); len(wrong) > 0 {
		return "", notAnObject(o.where, fmt.Sprintf("the name %q of %s %s", name, kind, wrong[0]))
	}
	return name, nil
}

func (o object) namespace(id identity, meta map[string]any) (string, error) {
	value, has := meta["namespace"]
	if !has || value == nil {
		return "", nil
	}
	namespace, ok := value.(string)
	if !ok {
		return "", notAnObject(o.where, fmt.Sprintf("%s: metadata.namespace is no text; put it in quotes", id))
	}
	if wrong := content.IsPathSegmentName(namespace); len(wrong) > 0 {
		return "", notAnObject(o.where, fmt.Sprintf("%s: the namespace %q %s", id, namespace, wrong[0]))
	}
	return namespace, nil
}

// checkContent refuses what the API server would drop or misread without a word.
func (o object) checkContent(id identity, meta map[string]any) error {
	for _, field := range []string{"labels", "annotations"} {
		if err := o.checkTexts(id, field, meta[field]); err != nil {
			return err
		}
	}
	if _, has := o.fields["status"]; !has {
		return nil
	}
	for field := range o.fields {
		switch field {
		case "apiVersion", "kind", "metadata", "status":
		default:
			return nil
		}
	}
	return notAnObject(o.where, fmt.Sprintf("%s holds a status and nothing else", id))
}

// checkTexts refuses labels and annotations such as "enabled: true", which are no text.
func (o object) checkTexts(id identity, field string, value any) error {
	if value == nil {
		return nil
	}
	entries, ok := value.(map[string]any)
	if !ok {
		return notAnObject(o.where, fmt.Sprintf("%s: metadata.%s is no mapping", id, field))
	}
	wrong := ""
	for key, v := range entries {
		if _, ok := v.(string); !ok && (wrong == "" || key < wrong) {
			wrong = key
		}
	}
	if wrong != "" {
		return notAnObject(o.where, fmt.Sprintf("%s: metadata.%s: the value of %s is no text; put it in quotes", id, field, wrong))
	}
	return nil
}
