// SPDX-License-Identifier: Apache-2.0

package compattest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// nameOf is what an object is called, with its version.
func nameOf(o map[string]any) string {
	meta, _ := o["metadata"].(map[string]any)
	namespace, _ := meta["namespace"].(string)
	return fmt.Sprintf("%v %v %s/%v", o["apiVersion"], o["kind"], namespace, meta["name"])
}

// compare says what is different first between two sets of objects, or how the same objects are ordered otherwise.
func compare(ours, theirs []map[string]any) (note string, same bool) {
	mine, err := byName(ours)
	if err != nil {
		return err.Error(), false
	}
	others, err := byName(theirs)
	if err != nil {
		return "the tool's: " + err.Error(), false
	}
	for _, name := range slices.Sorted(maps.Keys(others)) {
		if _, has := mine[name]; !has {
			return name + " is missing here", false
		}
	}
	for _, name := range slices.Sorted(maps.Keys(mine)) {
		other, has := others[name]
		if !has {
			return name + " is here alone", false
		}
		if d := difference(mine[name], other, ""); d != "" {
			return name + d, false
		}
	}
	for i := range ours {
		if nameOf(ours[i]) != nameOf(theirs[i]) {
			return fmt.Sprintf("in another order from object %d, %s", i+1, nameOf(ours[i])), true
		}
	}
	return "", true
}

// byName gives objects as JSON has them.
func byName(objects []map[string]any) (map[string]any, error) {
	named := map[string]any{}
	for _, o := range objects {
		withoutHooks(o)
		raw, err := json.Marshal(o)
		if err != nil {
			return nil, err
		}
		var value any
		if err := json.Unmarshal(raw, &value); err != nil {
			return nil, err
		}
		if _, twice := named[nameOf(o)]; twice {
			return nil, fmt.Errorf("%s is there twice", nameOf(o))
		}
		named[nameOf(o)] = value
	}
	return named, nil
}

// withoutHooks takes off what says when and how a hook is delivered: Helm says it in annotations of its own.
func withoutHooks(o map[string]any) {
	meta, _ := o["metadata"].(map[string]any)
	annotations, _ := meta["annotations"].(map[string]any)
	if spec, ok := o["spec"].(map[string]any); ok && o["kind"] == "Job" && isHook(annotations) {
		delete(spec, "ttlSecondsAfterFinished") // a hook's Job stays until it is to run again
	}
	for key := range annotations {
		if strings.HasPrefix(key, "helm.sh/hook") || key == v1alpha1.AnnotationWave || key == v1alpha1.AnnotationForce {
			delete(annotations, key)
		}
	}
	if annotations != nil && len(annotations) == 0 {
		delete(meta, "annotations")
	}
}

func isHook(annotations map[string]any) bool {
	_, theirs := annotations["helm.sh/hook"]
	_, ours := annotations[v1alpha1.AnnotationWave]
	return theirs || ours
}

// difference is the first one between two values, with its path.
func difference(ours, theirs any, path string) string {
	switch a := ours.(type) {
	case map[string]any:
		b, ok := theirs.(map[string]any)
		if !ok {
			break
		}
		keys := map[string]bool{}
		for key := range a {
			keys[key] = true
		}
		for key := range b {
			keys[key] = true
		}
		for _, key := range slices.Sorted(maps.Keys(keys)) {
			if d := difference(a[key], b[key], path+"."+key); d != "" {
				return d
			}
		}
		return ""
	case []any:
		b, ok := theirs.([]any)
		if !ok || len(a) != len(b) {
			break
		}
		for i := range a {
			if d := difference(a[i], b[i], fmt.Sprintf("%s[%d]", path, i)); d != "" {
				return d
			}
		}
		return ""
	}
	if reflect.DeepEqual(ours, theirs) {
		return ""
	}
	return fmt.Sprintf(": %s is %s here and %s there", strings.TrimPrefix(path, "."), brief(ours), brief(theirs))
}

func brief(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Sprint(value)
	}
	if len(text) > 120 {
		text = append(text[:120], "..."...)
	}
	return string(text)
}

// decode reads YAML documents as kubectl does, lists taken apart.
func decode(text string) ([]map[string]any, error) {
	var objects []map[string]any
	for _, doc := range bytes.Split([]byte("\n"+text), []byte("\n---")) {
		// What follows --- on its line is a comment, if anything.
		if line, rest, cut := bytes.Cut(doc, []byte("\n")); cut && bytes.HasPrefix(bytes.TrimSpace(line), []byte("#")) {
			doc = rest
		}
		// The line break before the next --- is the document's: a block of text may end with it.
		o, err := decodeOne(append(slices.Clone(doc), '\n'))
		if err != nil {
			return nil, err
		}
		objects = append(objects, apart(o)...)
	}
	return objects, nil
}

func decodeOne(text []byte) (o map[string]any, err error) {
	err = yaml.Unmarshal(text, &o)
	return o, err
}

// apart gives the items of a list, and an object itself.
func apart(o map[string]any) []map[string]any {
	if len(o) == 0 {
		return nil
	}
	kind, _ := o["kind"].(string)
	items, isList := o["items"].([]any)
	if !isList || !strings.HasSuffix(kind, "List") {
		return []map[string]any{o}
	}
	var objects []map[string]any
	for _, item := range items {
		if fields, ok := item.(map[string]any); ok {
			objects = append(objects, apart(fields)...)
		}
	}
	return objects
}

// Written is objects as golden files have them.
func Written(objects []map[string]any) ([]byte, error) {
	var b bytes.Buffer
	for _, o := range objects {
		text, err := yaml.Marshal(o)
		if err != nil {
			return nil, err
		}
		b.WriteString("---\n")
		b.Write(text)
	}
	return b.Bytes(), nil
}
