// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"errors"
	"fmt"

	kyaml "sigs.k8s.io/kustomize/kyaml/yaml"
)

// Bounds of one Render. Whatever is over them is refused before anything is built from it. A file that
// kustomize reads several times counts as often.
const (
	maxFiles    = 10_000
	maxBytes    = 32 << 20 // read, and in the manifest
	maxDocument = 4 << 20  // bytes of one YAML document
	maxObjects  = 5_000    // and patches
	// maxDocuments of one file, those that hold nothing included.
	maxDocuments = 2 * maxObjects
	maxValues    = 1 << 20 // scalars, lists and mappings of all documents, aliases followed
	maxDepth     = 64      // lists and mappings within each other; a large CRD has about 40
	maxLayers    = 64      // kustomizations within each other
)

// budget is what has been used of the bounds; longest is the longest single text, in bytes.
type budget struct{ files, bytes, objects, values, longest int }

func (b *budget) file(name string, size int) error {
	b.files++
	b.bytes += size
	switch {
	case b.files > maxFiles:
		return tooLarge("%s: the payload reads over %d files", name, maxFiles)
	case b.bytes > maxBytes:
		return tooLarge("%s: the payload reads over %d MiB", name, maxBytes>>20)
	}
	return nil
}

func (b *budget) object(where string) error {
	if b.objects++; b.objects > maxObjects {
		return tooLarge("%s: the payload has over %d objects and patches", where, maxObjects)
	}
	return nil
}

func (b *budget) document(where string, c cost) error {
	b.longest = max(b.longest, c.longest)
	if b.values += c.values; b.values > maxValues {
		return tooLarge("%s: the payload has over %d values", where, maxValues)
	}
	return nil
}

// weight is at least half the number of values that a YAML text can have: each begins after one of these
// characters, at most two after each. (A comment is no value, but costs as much as one.) To count them costs
// no memory, and to parse them does: 200 bytes a value.
func weight(text []byte) int {
	n := 0
	for _, c := range text {
		switch c {
		case '\n', ',', '[', '{', ':', '-', '?', '#':
			n++
		}
	}
	return n
}

// cost of a YAML node once every alias is replaced by what it stands for.
type cost struct{ bytes, values, height, longest int }

// with adds what lies one level below.
func (c cost) with(child cost) cost {
	return cost{
		bytes:   c.bytes + child.bytes,
		values:  c.values + child.values,
		height:  max(c.height, child.height+1),
		longest: max(c.longest, child.longest),
	}
}

// measure walks a document without following an alias twice, so that a few lines that stand for
// billions of values cost what the lines cost.
func measure(root *kyaml.Node) (cost, error) {
	m := measurer{anchors: map[*kyaml.Node]cost{}, open: map[*kyaml.Node]bool{}}
	return m.node(root, 0)
}

type measurer struct {
	anchors map[*kyaml.Node]cost
	open    map[*kyaml.Node]bool
}

var errDeep = fmt.Errorf("lists and mappings lie over %d deep in each other", maxDepth)

func (m measurer) node(n *kyaml.Node, depth int) (cost, error) {
	if depth > maxDepth {
		return cost{}, errDeep
	}
	if n.Kind == kyaml.AliasNode {
		return m.alias(n, depth)
	}
	sum := cost{bytes: len(n.Value), values: 1, longest: len(n.Value)}
	if n.Anchor != "" {
		m.open[n] = true
		defer delete(m.open, n)
	}
	for _, child := range n.Content {
		c, err := m.node(child, depth+1)
		if err != nil {
			return cost{}, err
		}
		sum = sum.with(c)
		if sum.values > maxValues || sum.bytes > maxBytes {
			return cost{}, fmt.Errorf("with its aliases it stands for over %d values or %d MiB", maxValues, maxBytes>>20)
		}
	}
	if n.Anchor != "" {
		m.anchors[n] = sum
	}
	return sum, nil
}

// alias costs what its anchor does, which stands before it and is measured.
func (m measurer) alias(n *kyaml.Node, depth int) (cost, error) {
	if m.open[n.Alias] {
		return cost{}, errors.New("anchor " + n.Value + " holds itself")
	}
	c := m.anchors[n.Alias]
	if depth+c.height > maxDepth {
		return cost{}, errDeep
	}
	return c, nil
}
