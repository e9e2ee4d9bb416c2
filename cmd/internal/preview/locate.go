// SPDX-License-Identifier: Apache-2.0

package preview

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	kjson "sigs.k8s.io/json"

	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// durationSentence is the CRD's own.
const durationSentence = "a duration such as 90s, 15m or 48h (there is no unit for days: 7 days is 168h)"

// at is where a node stands in the file.
func (d *document) at(n *yaml.Node) Where {
	w := d.where
	if n != nil && n.Line > 0 {
		w.Line += n.Line - 1
	}
	return w
}

func (d *document) fault(n *yaml.Node, format string, args ...any) *Fault {
	return &Fault{d.at(n), fmt.Errorf(format, args...)}
}

// decode strictly: a misspelt field is an error, not a default.
func (d *document) decode(into any) []error {
	strict, err := kjson.UnmarshalStrict(d.json, into)
	if err != nil {
		return []error{d.mismatch(err)}
	}
	var faults []*Fault
	for _, s := range strict {
		var field kjson.FieldError
		if !errors.As(s, &field) {
			faults = append(faults, d.fault(d.node, "%w", s))
			continue
		}
		what := "unknown field"
		if strings.HasPrefix(s.Error(), "duplicate") {
			what = "written twice"
		}
		faults = append(faults, d.fault(d.find(field.FieldPath()), "%s: %s", field.FieldPath(), what))
	}
	var written v1alpha1.FieldError
	if err := v1alpha1.CheckWritten(d.json); errors.As(err, &written) {
		faults = append(faults, d.fault(d.find(written.Field), "%w", err))
	}
	slices.SortStableFunc(faults, func(a, b *Fault) int { return cmp.Compare(a.Line, b.Line) })
	out := make([]error, len(faults))
	for i, f := range faults {
		out[i] = f
	}
	return out
}

var (
	typeError  = regexp.MustCompile(`^json: cannot unmarshal (.+) into Go struct field \w+\.(\S+) of type (\S+)$`)
	quoted     = regexp.MustCompile(`"([^"]*)"`)
	pathInside = regexp.MustCompile(`\b(?:spec|metadata)(?:\.\w+|\[[\w.-]+\])+`)
)

// mismatch says where a value of the wrong type is. The decoder knows the field, or only the value.
func (d *document) mismatch(err error) error {
	message := err.Error()
	if found := typeError.FindStringSubmatch(message); found != nil {
		return d.fault(d.find(found[2]), "%s: %s where %s is expected", found[2], found[1], plain(found[3]))
	}
	values := quoted.FindAllStringSubmatch(message, -1)
	if len(values) == 0 {
		return d.fault(d.node, "%s", message)
	}
	value := values[len(values)-1][1]
	path, node := scalar(d.node, "", value)
	if node == nil {
		return d.fault(d.node, "%s", message)
	}
	if strings.HasPrefix(message, "time: ") {
		message = fmt.Sprintf("%q: %s", value, durationSentence)
	}
	return d.fault(node, "%s: %s", path, message)
}

// plain words for a Go type.
func plain(goType string) string {
	switch {
	case strings.HasPrefix(goType, "[]"):
		return "a list"
	case strings.HasPrefix(goType, "map["), strings.Contains(goType, "."):
		return "an object"
	case strings.HasPrefix(goType, "int"), strings.HasPrefix(goType, "uint"):
		return "a number"
	}
	return "a " + goType
}

// problems of the object, each at its field.
func (d *document) problems(found []v1alpha1.FieldError) []error {
	var out []error
	for _, p := range found {
		out = append(out, d.fault(d.find(p.Field), "%w", p))
	}
	return out
}

// find the node of a path such as spec.strategy.stages[0].name, or the nearest one above it that is
// there. Where the path leaves an index out, it is looked for in every item.
func (d *document) find(path string) *yaml.Node {
	node := d.node
	for _, step := range steps(path) {
		next := descend(node, step)
		if next == nil {
			return node
		}
		node = next
	}
	return node
}

// steps of a path: keys and, in digits or by the name of an item, indexes.
func steps(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '.' || r == '[' || r == ']' })
}

func descend(n *yaml.Node, step string) *yaml.Node {
	if n.Kind != yaml.SequenceNode {
		return child(n, step)
	}
	if i, err := strconv.Atoi(step); err == nil {
		if i < len(n.Content) {
			return n.Content[i]
		}
		return nil
	}
	for _, item := range n.Content {
		if name := child(item, "name"); name != nil && name.Value == step {
			return item
		}
	}
	for _, item := range n.Content {
		if found := child(item, step); found != nil {
			return found
		}
	}
	return nil
}

// child of a mapping, at its key's line: a value may begin on the next one.
func child(n *yaml.Node, key string) *yaml.Node {
	if n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			value := *n.Content[i+1]
			value.Line = n.Content[i].Line
			return &value
		}
	}
	return nil
}

// scalar looks for the first value that is written so, and says its path.
func scalar(n *yaml.Node, path, value string) (string, *yaml.Node) {
	switch n.Kind {
	case yaml.ScalarNode:
		if n.Value == value {
			return path, n
		}
	case yaml.SequenceNode:
		for i, item := range n.Content {
			if p, found := scalar(item, fmt.Sprintf("%s[%d]", path, i), value); found != nil {
				return p, found
			}
		}
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			p := strings.TrimPrefix(path+"."+n.Content[i].Value, ".")
			if p, found := scalar(n.Content[i+1], p, value); found != nil {
				return p, found
			}
		}
	}
	return "", nil
}
