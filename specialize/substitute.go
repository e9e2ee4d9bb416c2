// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/fluxcd/pkg/envsubst"
	"k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"

	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// Bounds of one ${...}, beside which the text functions could ask for more memory or time than there is.
const (
	maxNested  = 16      // variables within each other
	maxTrimmed = 1 << 10 // bytes that # and % look for a pattern in, whose time grows with their square
)

// substitution puts variables into the texts of objects. It goes through their values, not through their YAML: a
// value stays in the place that it is put in, and cannot add a field, whatever it holds (decision 0006).
type substitution struct {
	builtIn *variables
	given   map[string]string
	// object that is worked on.
	object string
	// bytes given so far.
	bytes int
}

// place of a value in an object.
type place struct {
	// path of the value; field is what it, or the list that it is in, is called.
	path, field string
	// inList says that it is an item of a list.
	inList bool
	// text says that nothing but text may stand here: "1" is no number.
	text bool
	// config says that the object is a ConfigMap or a Secret.
	config bool
}

// replaced gives an object's fields with variables replaced.
func (s *substitution) replaced(o object) (map[string]any, error) {
	meta, _ := o.fields["metadata"].(map[string]any)
	if annotations, _ := meta["annotations"].(map[string]any); annotations[v1alpha1.AnnotationSubstitute] == substituteDisabled {
		return o.fields, nil
	}
	kind, _ := o.fields["kind"].(string)
	name, _ := meta["name"].(string)
	namespace, _ := meta["namespace"].(string)
	s.object = identity{kind: kind, namespace: namespace, name: name}.String()
	return s.mapping(o.fields, place{config: kind == "ConfigMap" || kind == "Secret"})
}

func (s *substitution) value(value any, at place) (any, error) {
	switch v := value.(type) {
	case string:
		return s.scalar(v, at)
	case map[string]any:
		return s.mapping(v, at)
	case []any:
		items := make([]any, len(v))
		for i, item := range v {
			var err error
			if items[i], err = s.value(item, at.item(i)); err != nil {
				return nil, err
			}
		}
		return items, nil
	}
	return value, nil
}

// mapping goes through the fields in order, so that it is always the same error that is found first.
func (s *substitution) mapping(fields map[string]any, at place) (map[string]any, error) {
	replaced := make(map[string]any, len(fields))
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		below := at.below(key)
		name, err := s.expand(key, below)
		if err != nil {
			return nil, err
		}
		if _, twice := replaced[name]; twice {
			return nil, failure(v1alpha1.ReasonInvalidManifest, "%s: %s: with its variables the field is there twice", s.object, below.path)
		}
		if replaced[name], err = s.value(fields[key], below); err != nil {
			return nil, err
		}
	}
	return replaced, nil
}

// below is the place of a field.
func (p place) below(key string) place {
	b := place{path: strings.TrimPrefix(p.path+"."+key, "."), field: key, config: p.config}
	switch {
	case p.path == "": // apiVersion and kind
		b.text = true
	case p.path == "metadata":
		b.text = key == "name" || key == "namespace"
	case p.config && p.path == p.field:
		b.text = slices.Contains([]string{"data", "stringData", "binaryData"}, p.field)
	}
	switch p.field {
	case "labels", "annotations", "matchLabels", "nodeSelector":
		b.text = b.text || !p.inList
	case "env":
		b.text = b.text || p.inList && key == "value"
	}
	return b
}

// item is the place of an item.
func (p place) item(i int) place {
	return place{
		path: fmt.Sprintf("%s[%d]", p.path, i), field: p.field, inList: true, config: p.config,
		text: p.field == "args" || p.field == "command",
	}
}

// scalar replaces the variables of a text. What is nothing but plain text in YAML gets the type that YAML gives the
// result, as in Flux: replicas: ${n} becomes a number.
func (s *substitution) scalar(text string, at place) (any, error) {
	if !strings.Contains(text, opening) {
		return text, nil
	}
	result, err := s.expand(text, at)
	if err != nil {
		return nil, err
	}
	if !isPlain(text) {
		return result, nil
	}
	if inner, quoted := unquoted(result); quoted {
		return inner, nil
	}
	if at.text {
		return result, nil
	}
	return typed(result), nil
}

// isPlain says whether YAML needs no quotes for a text.
func isPlain(text string) bool {
	written, err := yaml.Marshal(text)
	return err == nil && !strings.ContainsAny(string(written[:1]), "'\"|>")
}

// unquoted takes off the quotes that a value brings to say that it is text.
func unquoted(text string) (string, bool) {
	if len(text) < 2 || text[0] != text[len(text)-1] || text[0] != '"' && text[0] != '\'' {
		return "", false
	}
	var inner any
	if err := yaml.Unmarshal([]byte(text), &inner); err != nil {
		return "", false
	}
	s, isText := inner.(string)
	return s, isText
}

// typed is a text as YAML takes it: a number, a bool, nothing, or else the text itself to the letter.
func typed(text string) any {
	word := strings.TrimSpace(text)
	switch word {
	case "", "~", "null", "Null", "NULL":
		return nil
	}
	if len(word) > 64 || strings.ContainsAny(word, " \t\r\n#") {
		return text
	}
	raw, err := yaml.YAMLToJSON([]byte(word))
	if err != nil {
		return text
	}
	var value any
	if err := json.Unmarshal(raw, &value); err != nil {
		return text
	}
	switch value.(type) {
	case float64:
		if strings.Trim(word, "+-0123456789") == "" {
			return text // a long row of digits, of which a number would lose some
		}
		return value
	case int64, bool:
		return value
	}
	return text
}

// expand replaces the variables of a text, and says where it stands if it cannot.
func (s *substitution) expand(text string, at place) (string, error) {
	if !strings.Contains(text, opening) {
		return text, nil
	}
	result, err := expand(text, s.evaluate)
	if err == nil && !utf8.ValidString(result) {
		err = errors.New("a text function cuts a character in two")
	}
	if err != nil {
		return "", hinted(v1alpha1.ReasonVariableUnknown,
			"to keep ${ as it is write $${, or annotate the object "+v1alpha1.AnnotationSubstitute+": "+substituteDisabled,
			"%s: %s: %w", s.object, at.path, err)
	}
	if s.bytes += len(result); s.bytes > maxBytes {
		return "", tooLarge("%s: with its variables the manifest is over %d MiB", s.object, maxBytes>>20)
	}
	return result, nil
}

var ( //nolint:gochecknoglobals // never changed
	variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	// variablesIn finds the names in an expression, which is none but for its text functions and defaults.
	variablesIn = regexp.MustCompile(`\$\{#?(\w+)`)
	// misread are operators that the library takes for :-, while in the shell they end the program or mean the opposite.
	misread = regexp.MustCompile(`\$\{\w+(:[?+])`)
	trims   = regexp.MustCompile(`\$\{\w+[#%]`)
)

// evaluate gives the value of one ${inner}.
func (s *substitution) evaluate(inner string) (result string, err error) {
	if variableName.MatchString(inner) {
		return s.lookUp(inner)
	}
	text := opening + inner + "}"
	if err := s.check(text); err != nil {
		return "", err
	}
	// The library is asked for offsets that no text has, and stops where it should say so.
	defer func() {
		if r := recover(); r != nil {
			result, err = "", fmt.Errorf("%s asks for what is not in the text", clip(text))
		}
	}()
	var missing error
	result, err = envsubst.Eval(text, func(name string) (string, bool) {
		value, err := s.lookUp(name)
		if err != nil {
			missing = err
		}
		return value, err == nil
	})
	switch {
	case err == nil:
		return result, nil
	case missing != nil:
		return "", missing
	}
	return "", fmt.Errorf("%s is no variable with or without a text function: %w", clip(text), err)
}

// check refuses what would take too much, and what the library reads as something else than people do.
func (s *substitution) check(text string) error {
	if strings.Count(text, opening) > maxNested {
		return fmt.Errorf("over %d variables in one another", maxNested)
	}
	if m := misread.FindStringSubmatch(text); m != nil {
		return fmt.Errorf("%s: %s is not supported; := and :- give a default", clip(text), m[1])
	}
	longest, product := 0, len(text)
	for _, m := range variablesIn.FindAllStringSubmatch(text, -1) {
		value, _ := s.lookUp(m[1]) // where there is none, there is nothing to count
		longest = max(longest, len(value))
		product = min(product*(len(value)+1), maxBytes)
	}
	switch {
	case strings.Contains(text, "//") && product > maxDocument:
		return fmt.Errorf("%s may come to over %d MiB", clip(text), maxDocument>>20)
	case trims.MatchString(text) && max(longest, len(text)) > maxTrimmed:
		return fmt.Errorf("%s: # and %% are for values of at most %d bytes", clip(text), maxTrimmed)
	}
	return nil
}

// lookUp gives a variable's value.
func (s *substitution) lookUp(name string) (string, error) {
	if !variableName.MatchString(name) {
		return "", fmt.Errorf("${%s}: %s", clip(name), nameRule)
	}
	if value, has := s.given[name]; has {
		return value, nil
	}
	if isBuiltIn(name) {
		value, _, err := s.builtIn.find(name)
		return value, err
	}
	return "", fmt.Errorf("there is no variable ${%s} (there are: %s)", clip(name), thereAre(name, s.names()))
}

// names of the variables that are given and can be written.
func (s *substitution) names() []string {
	return slices.DeleteFunc(slices.Collect(maps.Keys(s.given)), func(n string) bool { return !variableName.MatchString(n) })
}
