// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// notesFile is for people who install by hand.
const notesFile = "NOTES.txt"

// rendered are the texts that a chart's templates gave, by the templates' paths in the chart.
type rendered map[string]string

// objects of all the texts, in the order of their paths. quote says whether a line that is no YAML may be shown.
func (r rendered) objects(t *tree, quote bool) ([]object, error) {
	total := 0
	for _, text := range r {
		if total += len(text); total > maxBytes {
			return nil, tooLarge("what the chart renders is over %d MiB", maxBytes>>20)
		}
	}
	var all []object
	for _, file := range slices.Sorted(maps.Keys(r)) {
		objects, err := objectsOfText(t, file, r[file], quote)
		if err != nil {
			return nil, err
		}
		all = append(all, objects...)
	}
	return all, nil
}

func objectsOfText(t *tree, file, text string, quote bool) ([]object, error) {
	docs := splitRendered(file, []byte(text))
	if len(docs) > maxDocuments {
		return nil, tooLarge("%s: it renders over %d documents", file, maxDocuments)
	}
	var filled []document
	for _, d := range docs {
		d.number = len(filled) + 1
		holds, err := t.scanOne(d)
		if err != nil {
			return nil, noYAML(d, err, quote)
		}
		if holds {
			filled = append(filled, d)
		}
	}
	var objects []object
	for _, d := range filled {
		raw, err := yaml.YAMLToJSON(d.text)
		if err != nil {
			return nil, noYAML(d, failure(v1alpha1.ReasonInvalidManifest, "%s: %s", d, d.relocate(err)), quote)
		}
		var value any
		if err := json.Unmarshal(raw, &value); err != nil {
			return nil, noYAML(d, failure(v1alpha1.ReasonInvalidManifest, "%s: %w", d, err), quote)
		}
		where := file
		if len(filled) > 1 {
			where = fmt.Sprintf("%s, document %d", file, d.number)
		}
		if value == nil {
			continue
		}
		if objects, err = t.flatten(objects, value, where); err != nil {
			return nil, err
		}
	}
	return objects, nil
}

// splitRendered cuts where Helm cuts: at every line that begins with ---, also where a template took the line
// break behind it away. As with Helm, a document ends with one line break.
func splitRendered(file string, text []byte) []document {
	docs := split(file, text)
	var all []document
	for _, d := range docs {
		start, line := 0, d.line
		for pos, number := 0, d.line; pos < len(d.text); number++ {
			rest := d.text[pos:]
			if bytes.HasPrefix(rest, []byte("---")) && !isSeparator(rest) {
				all = append(all, document{file: file, line: line, text: ended(d.text[start:pos])})
				start, line = pos+len("---"), number
			}
			next := bytes.IndexByte(rest, '\n')
			if next < 0 || len(all) > maxDocuments {
				break
			}
			pos += next + 1
		}
		d.text, d.line = ended(d.text[start:]), line
		all = append(all, d)
	}
	return all
}

func ended(text []byte) []byte {
	return append(slices.Clone(bytes.TrimRightFunc(text, unicode.IsSpace)), '\n')
}

var atRenderedLine = regexp.MustCompile(`\bline (\d+): (.*)$`)

// noYAML names the template, and the line of what it rendered that is no YAML, with the line itself where it may
// be shown.
func noYAML(d document, err error, quote bool) error {
	if fleet.ReasonOf(err, "") != v1alpha1.ReasonInvalidManifest {
		return err
	}
	const hidden = "more is not shown, because values come from a Secret"
	m := atRenderedLine.FindStringSubmatch(err.Error())
	if m == nil {
		_, why, _ := strings.Cut(err.Error(), "): ")
		if !quote {
			why = hidden
		}
		return failure(v1alpha1.ReasonInvalidManifest, "%s: what it renders is no YAML: %s", d.file, why)
	}
	number, why := lineOf(m[1], m[2], d.line+linesOf(d.text)-1), m[2]
	if !quote {
		why = hidden
	} else if lines := bytes.Split(d.text, []byte("\n")); number >= d.line && number-d.line < len(lines) {
		why += ": " + clip(string(bytes.TrimSpace(lines[number-d.line])))
	}
	return failure(v1alpha1.ReasonInvalidManifest, "%s: line %d of what it renders is no YAML: %s", d.file, number, why)
}

// byKind sorts objects by their kinds as order has them. Kinds that it does not have come last, by name.
func byKind(objects []object, order []string) {
	rank := make(map[string]int, len(order))
	for i, kind := range order {
		rank[kind] = i
	}
	slices.SortStableFunc(objects, func(a, b object) int {
		kindA, _ := a.fields["kind"].(string)
		kindB, _ := b.fields["kind"].(string)
		rankA, knownA := rank[kindA]
		rankB, knownB := rank[kindB]
		switch {
		case knownA && knownB:
			return cmp.Compare(rankA, rankB)
		case knownA:
			return -1
		case knownB:
			return 1
		}
		return cmp.Compare(kindA, kindB)
	})
}

var (
	executing = regexp.MustCompile(`template: (\S+?:\d+(?::\d+)?): executing "[^"]*" at <(.*?)>: `)
	located   = regexp.MustCompile(`(?s)^(?:parse|execution) error at \((\S+?:\d+(?::\d+)?)\): (.*)$`)
	nestedTpl = "error calling tpl: "
)

// templateError says where in which template the engine stopped, and why, in a line or two. The engine names
// everything that it was in on the way, from the outside in, and repeats what it was given.
func templateError(chart string, err error, hide secrets) error {
	message := hide.hide(strings.ReplaceAll(err.Error(), chart+"/", ""))
	if m := located.FindStringSubmatch(message); m != nil {
		reason := v1alpha1.ReasonRenderFailed
		if strings.HasPrefix(message, "execution") { // "required" and "fail" say what they want
			reason = v1alpha1.ReasonValuesInvalid
		}
		return failure(reason, "%s: %s", m[1], readable(m[2]))
	}
	text := message
	inTpl := ""
	if before, inner, is := strings.Cut(message, nestedTpl); is {
		text = before + nestedTpl
		inTpl = innermost(inner)
	}
	steps := executing.FindAllStringSubmatchIndex(text, -1)
	if len(steps) == 0 {
		return failure(v1alpha1.ReasonRenderFailed, "%s", readable(message))
	}
	at := func(step []int) string { return text[step[2]:step[3]] }
	last := steps[len(steps)-1]
	why := text[last[1]:]
	if inTpl != "" {
		why = "the text given to tpl: " + inTpl
	}
	said := fmt.Sprintf("%s: %s: %s", at(last), text[last[4]:last[5]], why)
	if first := at(steps[0]); first != at(last) {
		said += fmt.Sprintf(" (included from %s)", first)
	}
	return failure(v1alpha1.ReasonRenderFailed, "%s", readable(said))
}

// innermost is what an error of the engine says last.
func innermost(message string) string {
	steps := executing.FindAllStringSubmatchIndex(message, -1)
	if len(steps) == 0 {
		return message
	}
	last := steps[len(steps)-1]
	return fmt.Sprintf("%s: %s", message[last[4]:last[5]], message[last[1]:])
}

// whereOf is the place that an error of templateError begins with.
func whereOf(err error) string {
	var known *fleet.Error
	if !errors.As(err, &known) {
		return ""
	}
	where, _, _ := strings.Cut(known.Err.Error(), ": ")
	return where
}
