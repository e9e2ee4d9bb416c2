// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	kyaml "sigs.k8s.io/kustomize/kyaml/yaml"
)

// YAML is the manifest as 'flotilla render' prints it: one document per object, in order. Read again, it
// gives the same objects.
func (m Manifest) YAML() ([]byte, error) {
	var b bytes.Buffer
	for i, o := range m.Objects {
		n, err := nodeOf(o.Object)
		if err != nil {
			return nil, fmt.Errorf("object %d of the manifest: %w", i+1, err)
		}
		text, err := kyaml.Marshal(n)
		if err != nil {
			return nil, fmt.Errorf("object %d of the manifest: %w", i+1, err)
		}
		if i > 0 {
			b.WriteString("---\n")
		}
		b.Write(text)
	}
	return b.Bytes(), nil
}

// nodeOf is a value as a YAML node. The marshallers of YAML write some texts such that they are read as
// others: sigs.k8s.io/yaml makes spaces of rare line breaks, kyaml loses tabs at the beginning of several lines
// and takes the key "<<" for an instruction to merge. These are put in quotes.
func nodeOf(value any) (*kyaml.Node, error) {
	switch v := value.(type) {
	case map[string]any:
		n := &kyaml.Node{Kind: kyaml.MappingNode, Tag: kyaml.NodeTagMap}
		for _, key := range slices.Sorted(maps.Keys(v)) {
			for _, part := range []any{key, v[key]} {
				child, err := nodeOf(part)
				if err != nil {
					return nil, err
				}
				n.Content = append(n.Content, child)
			}
		}
		return n, nil
	case []any:
		n := &kyaml.Node{Kind: kyaml.SequenceNode, Tag: kyaml.NodeTagSeq}
		for _, item := range v {
			child, err := nodeOf(item)
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, child)
		}
		return n, nil
	case string:
		if v == "<<" || strings.Contains(v, "\n") && strings.ContainsAny(v[:1], " \t\n") {
			return &kyaml.Node{Kind: kyaml.ScalarNode, Tag: kyaml.NodeTagString, Style: kyaml.DoubleQuotedStyle, Value: v}, nil
		}
	}
	n := &kyaml.Node{}
	return n, n.Encode(value)
}
