// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	kyaml "sigs.k8s.io/kustomize/kyaml/yaml"

	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// document is one YAML document of a file, as text.
type document struct {
	file string
	// number counts the file's documents that hold something, from 1; line is the file's line it begins at.
	number, line int
	text         []byte
}

func (d document) String() string {
	return fmt.Sprintf("%s: document %d (line %d)", d.file, d.number, d.line)
}

// split cuts a file at its lines of "---", where YAML ends a document whatever is open. It stops after
// maxDocuments, so that one document too many says that there are more.
func split(file string, content []byte) []document {
	var docs []document
	d := document{file: file, line: 1}
	start, line := 0, 1
	for pos := 0; pos < len(content); line++ {
		if pos > start && isSeparator(content[pos:]) {
			d.text = content[start:pos]
			if docs = append(docs, d); len(docs) > maxDocuments {
				return docs
			}
			d, start = document{file: file, line: line}, pos
		}
		next := bytes.IndexByte(content[pos:], '\n')
		if next < 0 {
			break
		}
		pos += next + 1
	}
	d.text = content[start:]
	return append(docs, d)
}

func isSeparator(rest []byte) bool {
	after, ok := bytes.CutPrefix(rest, []byte("---"))
	return ok && (len(after) == 0 || bytes.IndexByte([]byte(" \t\r\n"), after[0]) >= 0)
}

// scan parses and measures every document of a file, in order, without building values of it. It gives
// those that hold something.
func (t *tree) scan(file string, content []byte) ([]document, error) {
	docs := split(file, content)
	if len(docs) > maxDocuments {
		return nil, tooLarge("%s: the file has over %d documents", file, maxDocuments)
	}
	var filled []document
	for _, d := range docs {
		d.number = len(filled) + 1
		holds, err := t.scanOne(d)
		if err != nil {
			return nil, err
		}
		if holds {
			filled = append(filled, d)
		}
	}
	return filled, nil
}

func (t *tree) scanOne(d document) (holds bool, err error) {
	if len(d.text) > maxDocument {
		return false, tooLarge("%s: a document of %d bytes; at most %d MiB", d, len(d.text), maxDocument>>20)
	}
	if weight(d.text) > maxValues {
		return false, tooLarge("%s: the document has over %d values", d, maxValues)
	}
	root, err := parse(d)
	if err != nil || root == nil {
		return false, err
	}
	c, err := measure(root)
	if err != nil {
		return false, tooLarge("%s: %w", d, err)
	}
	return true, t.used.document(d.String(), c)
}

// scanJSON measures a document of JSON, and refuses a key that is there twice, of which one would be dropped.
func (t *tree) scanJSON(d document) error {
	decoder := json.NewDecoder(bytes.NewReader(d.text))
	decoder.UseNumber()
	values := 0
	// One entry for each list and mapping that is open; a list has no keys.
	type level struct {
		keys    map[string]bool
		wantKey bool
	}
	open := []level{{}}
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return t.used.document(d.String(), cost{values: values})
		}
		if err != nil {
			return failure(v1alpha1.ReasonInvalidManifest, "%s: %w", d, err)
		}
		inner := &open[len(open)-1]
		if key, ok := token.(string); ok && inner.wantKey {
			if inner.keys[key] {
				return failure(v1alpha1.ReasonInvalidManifest, "%s: key %q is there twice", d, clip(key))
			}
			inner.keys[key], inner.wantKey = true, false
			continue
		}
		inner.wantKey = inner.keys != nil
		switch token {
		case json.Delim('{'):
			open = append(open, level{keys: map[string]bool{}, wantKey: true})
		case json.Delim('['):
			open = append(open, level{})
		case json.Delim('}'), json.Delim(']'):
			open = open[:len(open)-1]
			continue
		}
		if values++; values > maxValues {
			return tooLarge("%s: the document has over %d values", d, maxValues)
		}
		if len(open) > maxDepth {
			return tooLarge("%s: %w", d, errDeep)
		}
	}
}

// parse gives the document's root, or nothing where it holds nothing. A second document behind "..." would be
// dropped without a word by whoever reads the text next, and is refused.
func parse(d document) (*kyaml.Node, error) {
	var root *kyaml.Node
	for decoder := kyaml.NewDecoder(bytes.NewReader(d.text)); ; {
		var n kyaml.Node
		err := decoder.Decode(&n)
		if errors.Is(err, io.EOF) {
			return root, nil
		}
		if err != nil {
			return nil, failure(v1alpha1.ReasonInvalidManifest, "%s: %s", d, d.relocate(err))
		}
		if kyaml.IsYNodeEmptyDoc(&n) || len(n.Content) == 1 && kyaml.IsYNodeTaggedNull(n.Content[0]) {
			continue
		}
		if root != nil {
			return nil, failure(v1alpha1.ReasonInvalidManifest, "%s: a second document begins without a line of ---", d)
		}
		root = &n
	}
}

// relocate turns the line numbers in a parser's message, which count from the document's first line, into
// those of the file.
func (d document) relocate(err error) string {
	text := regexp.MustCompile(`\bline (\d+)`).ReplaceAllStringFunc(err.Error(), func(m string) string {
		n, convErr := strconv.Atoi(strings.TrimPrefix(m, "line "))
		if convErr != nil {
			return m
		}
		return fmt.Sprintf("line %d", n+d.line-1)
	})
	return clip(strings.Join(strings.Fields(text), " "))
}

// mostSaid is how much of another program's message is handed on, in bytes.
const mostSaid = 1024

func clip(s string) string {
	if len(s) <= mostSaid {
		return s
	}
	return strings.ToValidUTF8(s[:mostSaid], "") + "..."
}
