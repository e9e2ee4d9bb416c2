// SPDX-License-Identifier: Apache-2.0

package preview

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/diff"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kyaml "sigs.k8s.io/yaml"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// What is done to an object.
const (
	Added   = "added"
	Changed = "changed"
	Removed = "removed"
)

// ObjectDiff is how one object differs. The values of Secrets are masked.
type ObjectDiff struct {
	// Object is Kind namespace/name.
	Object string `json:"object"`
	Action string `json:"action"`
	// Fields that differ, of an object that is changed.
	Fields []FieldDiff `json:"fields,omitempty"`
	// Unified diff of the object's YAML.
	Unified string `json:"diff"`
	// Note on what is done, where it needs saying.
	Note string `json:"note,omitempty"`
}

// FieldDiff is one field that differs; an empty text is a field that is not there.
type FieldDiff struct {
	Path string `json:"path"`
	Old  string `json:"old"`
	New  string `json:"new"`
}

// MemberDiff is what differs for these members, for all of them alike.
type MemberDiff struct {
	Members []fleet.Name `json:"members"`
	Objects []ObjectDiff `json:"objects"`
}

// Difference between two payloads for these members. Members with equal differences are one entry; those
// without any are in the last. The error joins those of members that cannot be rendered.
func Difference(before, after *Payload, members []fleet.Member) ([]MemberDiff, error) {
	olds, errOld := before.variants(members)
	news, errNew := after.variants(members)
	if errOld != nil {
		errOld = fmt.Errorf("as it was: %w", errOld)
	}
	if err := errors.Join(errNew, errOld); err != nil {
		return nil, err
	}
	old := map[fleet.Name]*Variant{}
	for i := range olds {
		for _, m := range olds[i].Members {
			old[m] = &olds[i]
		}
	}
	var out []MemberDiff
	compared := map[[2]fleet.Digest][]ObjectDiff{}
	for i := range news {
		for _, m := range news[i].Members {
			key := [2]fleet.Digest{old[m].Digest, news[i].Digest}
			objects, done := compared[key]
			if !done {
				objects = Compare(old[m].Objects, news[i].Objects)
				compared[key] = objects
			}
			out = addMember(out, m, objects)
		}
	}
	for i := range out {
		slices.Sort(out[i].Members)
	}
	slices.SortFunc(out, func(a, b MemberDiff) int {
		return cmp.Or(boolOrder(len(a.Objects) == 0, len(b.Objects) == 0), cmp.Compare(a.Members[0], b.Members[0]))
	})
	return out, nil
}

func boolOrder(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

func addMember(out []MemberDiff, m fleet.Name, objects []ObjectDiff) []MemberDiff {
	for i := range out {
		if reflect.DeepEqual(out[i].Objects, objects) {
			out[i].Members = append(out[i].Members, m)
			return out
		}
	}
	return append(out, MemberDiff{Members: []fleet.Name{m}, Objects: objects})
}

// Compare objects by group, kind, namespace and name: what is changed and added in the order of the new ones,
// then what is removed.
func Compare(before, after []*unstructured.Unstructured) []ObjectDiff {
	old := map[string]*unstructured.Unstructured{}
	for _, o := range before {
		old[identity(o)] = o
	}
	var out []ObjectDiff
	for _, o := range after {
		key := identity(o)
		if d, differs := CompareObject(old[key], o); differs {
			out = append(out, d)
		}
		delete(old, key)
	}
	for _, o := range before {
		if old[identity(o)] == nil {
			continue
		}
		if d, differs := CompareObject(o, nil); differs {
			out = append(out, d)
		}
	}
	return out
}

func identity(o *unstructured.Unstructured) string {
	return strings.Join([]string{o.GroupVersionKind().Group, o.GetKind(), o.GetNamespace(), o.GetName()}, "\x00")
}

// CompareObject with itself before; either may be nil.
func CompareObject(before, after *unstructured.Unstructured) (ObjectDiff, bool) {
	before, after = masked(before, after)
	d := ObjectDiff{Action: Changed}
	switch {
	case before == nil && after == nil:
		return d, false
	case before == nil:
		d.Action, d.Object = Added, nameOf(after)
	case after == nil:
		d.Action, d.Object = Removed, nameOf(before)
	default:
		d.Object = nameOf(after)
		fields(&d.Fields, "", before.Object, after.Object)
		if len(d.Fields) == 0 {
			return d, false
		}
	}
	file := strings.ReplaceAll(d.Object, " ", "/")
	oldName, newName := "a/"+file, "b/"+file
	if before == nil {
		oldName = "/dev/null"
	}
	if after == nil {
		newName = "/dev/null"
	}
	unified := string(diff.Diff(oldName, text(before), newName, text(after)))
	// The line that repeats the command is a matter of taste; tools that read unified diffs want none.
	if first, rest, found := strings.Cut(unified, "\n"); found && strings.HasPrefix(first, "diff ") {
		unified = rest
	}
	d.Unified = unified
	return d, true
}

func nameOf(o *unstructured.Unstructured) string {
	if o.GetNamespace() == "" {
		return o.GetKind() + " " + o.GetName()
	}
	return o.GetKind() + " " + o.GetNamespace() + "/" + o.GetName()
}

func text(o *unstructured.Unstructured) []byte {
	if o == nil {
		return nil
	}
	body, err := kyaml.Marshal(o.Object)
	if err != nil {
		return []byte(err.Error() + "\n")
	}
	return body
}

// lastApplied repeats the whole object, a Secret's values with it.
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// masked gives Secrets without their values. Values that differ keep differing.
func masked(before, after *unstructured.Unstructured) (*unstructured.Unstructured, *unstructured.Unstructured) {
	before, after = maskable(before), maskable(after)
	for _, field := range []string{"data", "stringData"} {
		old, now := secretValues(before, field), secretValues(after, field)
		for key, value := range old {
			if other, both := now[key]; !both || reflect.DeepEqual(other, value) {
				old[key] = "(hidden)"
			} else {
				old[key] = "(hidden, before)"
			}
		}
		for key := range now {
			if old[key] == "(hidden, before)" {
				now[key] = "(hidden, after)"
			} else {
				now[key] = "(hidden)"
			}
		}
	}
	return before, after
}

// maskable is a copy of a Secret, and anything else as it is.
func maskable(o *unstructured.Unstructured) *unstructured.Unstructured {
	if o == nil || o.GetAPIVersion() != "v1" || o.GetKind() != "Secret" {
		return o
	}
	o = o.DeepCopy()
	unstructured.RemoveNestedField(o.Object, "metadata", "annotations", lastApplied)
	return o
}

func secretValues(o *unstructured.Unstructured, field string) map[string]any {
	if o == nil || o.GetAPIVersion() != "v1" || o.GetKind() != "Secret" {
		return nil
	}
	values, isMap := o.Object[field].(map[string]any)
	if !isMap && o.Object[field] != nil {
		o.Object[field] = "(hidden)" // not what a Secret holds, and perhaps a secret all the same
	}
	return values
}

// fields that differ, in the order of their paths.
func fields(out *[]FieldDiff, path string, before, after any) {
	oldMap, oldIs := before.(map[string]any)
	newMap, newIs := after.(map[string]any)
	if oldIs && newIs || oldIs && after == nil && len(oldMap) > 0 || newIs && before == nil && len(newMap) > 0 {
		for _, key := range slices.Sorted(maps.Keys(union(oldMap, newMap))) {
			fields(out, join(path, key), oldMap[key], newMap[key])
		}
		return
	}
	oldList, oldIs := before.([]any)
	newList, newIs := after.([]any)
	if oldIs && newIs {
		lists(out, path, oldList, newList)
		return
	}
	if !reflect.DeepEqual(before, after) {
		old, now := shownPair(before, after)
		*out = append(*out, FieldDiff{path, old, now})
	}
}

// lists are compared by the names of their items where all have one, else by place.
func lists(out *[]FieldDiff, path string, before, after []any) {
	oldNames, oldNamed := named(before)
	newNames, newNamed := named(after)
	if oldNamed && newNamed {
		for _, name := range slices.Sorted(maps.Keys(union(oldNames, newNames))) {
			fields(out, path+"["+name+"]", oldNames[name], newNames[name])
		}
		if len(union(oldNames, newNames)) == len(before) && len(before) == len(after) && order(before) != order(after) {
			*out = append(*out, FieldDiff{path, clipped(order(before)), clipped(order(after))})
		}
		return
	}
	for i := range max(len(before), len(after)) {
		var old, now any
		if i < len(before) {
			old = before[i]
		}
		if i < len(after) {
			now = after[i]
		}
		fields(out, fmt.Sprintf("%s[%d]", path, i), old, now)
	}
}

// order of items that all have a name.
func order(items []any) string {
	var names []string
	for _, item := range items {
		m, _ := item.(map[string]any)
		names = append(names, fmt.Sprint(m["name"]))
	}
	return strings.Join(names, ", ")
}

func named(items []any) (map[string]any, bool) {
	out := map[string]any{}
	for _, item := range items {
		m, isMap := item.(map[string]any)
		name, isText := m["name"].(string)
		if !isMap || !isText || out[name] != nil {
			return nil, false
		}
		out[name] = item
	}
	return out, true
}

func union(a, b map[string]any) map[string]any {
	out := maps.Clone(a)
	if out == nil {
		out = map[string]any{}
	}
	maps.Copy(out, b)
	return out
}

// join a key to a path; one with dots is put in brackets.
func join(path, key string) string {
	switch {
	case strings.ContainsAny(key, ".[]/"):
		return path + "[" + key + "]"
	case path == "":
		return key
	}
	return path + "." + key
}

// mostShown characters of a value.
const mostShown = 60

// shownPair are two values in a line each. Long texts show where they begin to differ.
func shownPair(before, after any) (old, now string) {
	old, now = shown(before), shown(after)
	if old != now {
		return old, now
	}
	// They differ in what is not shown.
	return old, now + " (other text)"
}

func shown(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		if lines := strings.Count(v, "\n"); lines > 0 {
			return fmt.Sprintf("%d lines", lines)
		}
		if v == "" {
			return `""`
		}
		return clipped(v)
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return clipped(string(raw))
}

func clipped(s string) string {
	if utf8.RuneCountInString(s) <= mostShown {
		return s
	}
	return string([]rune(s)[:mostShown-1]) + "…"
}
