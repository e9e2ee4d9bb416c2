// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	kyaml "sigs.k8s.io/kustomize/kyaml/yaml"
	"sigs.k8s.io/yaml"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// helmPlace is where a spec says how charts are rendered.
const helmPlace = "spec.specialize.helm"

// userValues are the values that lie over the chart's own: those of the files, then those of the cluster's
// objects, then the spec's, then those of the overrides that are for this member. A null stays in them, for
// Helm to take the chart's value away.
type userValues struct {
	in     Input
	t      *tree
	folder string
	spec   v1alpha1.HelmRender
	// secrets are the texts that came out of Secrets, and are not to be repeated.
	secrets secrets
}

// all of them, merged.
func (v *userValues) all() (map[string]any, error) {
	merged := map[string]any{}
	for i, name := range v.spec.ValuesFiles {
		values, err := v.file(fmt.Sprintf(helmPlace+".valuesFiles[%d]", i), name)
		if err != nil {
			return nil, err
		}
		merged = mergeValues(merged, values)
	}
	for i, from := range v.spec.ValuesFrom {
		var err error
		if merged, err = v.from(fmt.Sprintf(helmPlace+".valuesFrom[%d]", i), merged, from); err != nil {
			return nil, err
		}
	}
	if v.spec.Values != nil {
		values, err := v.inline(helmPlace+".values", v.spec.Values.Raw)
		if err != nil {
			return nil, err
		}
		merged = mergeValues(merged, values)
	}
	return v.overrides(merged)
}

// overrides lays the values of those that are for the member over the others.
func (v *userValues) overrides(merged map[string]any) (map[string]any, error) {
	matching, err := v.in.overrides()
	if err != nil {
		return nil, err
	}
	for _, o := range matching {
		if o.Values == nil {
			continue
		}
		values, err := v.inline(placeOf(o)+".values", o.Values.Raw)
		if err != nil {
			return nil, err
		}
		merged = mergeValues(merged, values)
	}
	return merged, nil
}

// file reads one of the values files, which lie in the source as the payload does, also where the chart does not.
func (v *userValues) file(field, template string) (map[string]any, error) {
	filled, err := v.in.fillPath(template)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	name := path.Join(v.folder, filled)
	if path.IsAbs(filled) || !fs.ValidPath(name) {
		return nil, failure(v1alpha1.ReasonInvalid, "%s: %q: a path relative to %s that does not leave the source", field, filled, shown(v.folder))
	}
	info, err := v.t.lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist) && v.spec.IgnoreMissingValuesFiles:
		return nil, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, hinted(v1alpha1.ReasonInputMissing, "ignoreMissingValuesFiles goes on without it",
			"%s: there is no %s in the source%s", field, name, v.t.besideValues(name))
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, failure(v1alpha1.ReasonValuesInvalid, "%s: %s is a folder; a file is wanted here", field, name)
	}
	content, err := v.t.read(name)
	if err != nil {
		return nil, err
	}
	return v.t.valuesIn(name, withoutMark(content))
}

// besideValues says which YAML files are where a values file was looked for.
func (t *tree) besideValues(name string) string {
	dir := path.Dir(name)
	entries, err := t.readDir(dir)
	if err != nil {
		return ""
	}
	var names []string
	for _, e := range entries {
		if !e.IsDir() && isManifest(e.Name()) && e.Name() != chartFile {
			names = append(names, e.Name())
		}
	}
	if len(names) == 0 {
		return fmt.Sprintf(" (%s holds no values files)", shown(dir))
	}
	return fmt.Sprintf(" (%s holds: %s)", shown(dir), list(byLikeness(path.Base(name), names)))
}

// from takes one key of a ConfigMap or Secret over what is merged so far.
func (v *userValues) from(at string, merged map[string]any, from v1alpha1.ValuesReference) (map[string]any, error) {
	key := from.ValuesKey
	if key == "" {
		key = v1alpha1.DefaultValuesKey
	}
	object := fmt.Sprintf("%s %s/%s", from.Kind, v.in.Rollout.Namespace, from.Name)
	data, found := v.in.Cluster.Objects[Reference{from.Kind, from.Name}]
	text, has := data[key]
	switch {
	case has:
	case from.Optional:
		return merged, nil
	case !found:
		return nil, missingInput("create it on this cluster, or set optional", "%s: %s is not there", at, object)
	default:
		return nil, missingInput("valuesKey says which key it is", "%s: %s has no key %q (it has: %s)",
			at, object, key, list(slices.Sorted(maps.Keys(data))))
	}
	where := fmt.Sprintf("%s, key %s", object, key)
	hide := from.Kind == "Secret"
	if hide {
		v.secrets.add(text)
	}
	if from.TargetPath != "" {
		if err := setPath(merged, from.TargetPath, setValue(text)); err != nil {
			return nil, failure(v1alpha1.ReasonValuesInvalid, "%s: targetPath %q: %w", at, from.TargetPath, err)
		}
		return merged, nil
	}
	values, err := v.t.valuesIn(where, []byte(text))
	if err != nil && hide && fleet.ReasonOf(err, "") == v1alpha1.ReasonValuesInvalid {
		line := lineIn.FindString(err.Error()) // and nothing of what the line holds
		return nil, failure(v1alpha1.ReasonValuesInvalid, "%s%s: this is no mapping of values in YAML", where, line)
	}
	if err != nil {
		return nil, err
	}
	if hide {
		v.secrets.addAll(values)
	}
	return mergeValues(merged, values), nil
}

var lineIn = regexp.MustCompile(`:\d+`)

func missingInput(hint, format string, args ...any) error {
	return &fleet.Error{Kind: fleet.Retryable, Reason: v1alpha1.ReasonInputMissing, Hint: hint, Err: fmt.Errorf(format, args...)}
}

// setValue is a text as helm --set takes it: numbers, true, false and null are such, unless quotes are around it.
func setValue(text string) any {
	if n := len(text); n >= 2 && (text[0] == '"' || text[0] == '\'') && text[n-1] == text[0] {
		return text[1 : n-1]
	}
	switch strings.ToLower(text) {
	case "true":
		return true
	case "false":
		return false
	case "null":
		return nil
	case "0":
		return int64(0)
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && text[0] != '0' {
		return n
	}
	return text
}

// inline reads values of the spec, and fills the variables in their texts.
func (v *userValues) inline(field string, raw []byte) (map[string]any, error) {
	var values map[string]any
	if err := json.Unmarshal(raw, &values); err != nil {
		return nil, failure(v1alpha1.ReasonValuesInvalid, "%s: a mapping is wanted here: %s", field, readable(err.Error()))
	}
	filled, err := v.filled(field, values)
	if err != nil {
		return nil, err
	}
	values, _ = filled.(map[string]any)
	return values, nil
}

func (v *userValues) filled(at string, value any) (any, error) {
	var err error
	switch x := value.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(x)) {
			if x[key], err = v.filled(at+"."+key, x[key]); err != nil {
				return nil, err
			}
		}
	case []any:
		for i := range x {
			if x[i], err = v.filled(fmt.Sprintf("%s[%d]", at, i), x[i]); err != nil {
				return nil, err
			}
		}
	case string:
		text, err := v.in.fill(x)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", at, err)
		}
		return text, nil
	}
	return value, nil
}

// mergeValues gives the values of both; where both have one that is not a mapping, it is over's.
func mergeValues(under, over map[string]any) map[string]any {
	merged := maps.Clone(under)
	if merged == nil {
		merged = map[string]any{}
	}
	for key, value := range over {
		above, isMapping := value.(map[string]any)
		below, has := merged[key].(map[string]any)
		if isMapping && has {
			value = mergeValues(below, above)
		}
		merged[key] = value
	}
	return merged
}

// valuesIn reads a text of values: one YAML document with a mapping, or nothing.
func (t *tree) valuesIn(where string, content []byte) (map[string]any, error) {
	docs, err := t.scan(where, content)
	if err != nil {
		return nil, because(v1alpha1.ReasonValuesInvalid, atLine(where, content, err))
	}
	switch len(docs) {
	case 0:
		docs = []document{{file: where, line: 1, text: content}}
	case 1:
	default:
		return nil, failure(v1alpha1.ReasonValuesInvalid, "%s:%d: a second document begins here; values are one", where, docs[1].line)
	}
	root, err := parse(docs[0])
	if err != nil {
		return nil, because(v1alpha1.ReasonValuesInvalid, err)
	}
	if root == nil {
		root = &kyaml.Node{Content: []*kyaml.Node{{Kind: kyaml.MappingNode}}} // a text that holds nothing, such as comments
	}
	if top := root.Content[0]; top.Kind != kyaml.MappingNode && top.Kind != kyaml.AliasNode {
		return nil, failure(v1alpha1.ReasonValuesInvalid, "%s:%d: values are a mapping of names to values; this is %s", where, top.Line+docs[0].line-1, kindOfNode(top))
	}
	var values map[string]any
	if err := yaml.Unmarshal(docs[0].text, &values); err != nil {
		return nil, failure(v1alpha1.ReasonValuesInvalid, "%s: %s", where, readable(err.Error()))
	}
	return values, nil
}

func kindOfNode(n *kyaml.Node) string {
	if n.Kind == kyaml.SequenceNode {
		return "a list"
	}
	return "a single text or number"
}

// atLine puts the line that a YAML parser names behind the file's name, where editors look for it.
func atLine(where string, content []byte, err error) error {
	m := parserLine.FindStringSubmatch(err.Error())
	if m == nil || fleet.ReasonOf(err, "") != v1alpha1.ReasonInvalidManifest {
		return err
	}
	return failure(v1alpha1.ReasonInvalidManifest, "%s:%d: %s", where, lineOf(m[1], m[2], linesOf(content)), m[2])
}

// lineOf is the line that a YAML parser means, which counts from 0 in what it calls not expected. The end of a
// text is its last line.
func lineOf(number, why string, last int) int {
	n, _ := strconv.Atoi(number) // it is digits
	if strings.HasPrefix(why, "did not find expected") {
		n++
	}
	return min(n, last)
}

func linesOf(text []byte) int {
	return 1 + bytes.Count(bytes.TrimSuffix(text, []byte("\n")), []byte("\n"))
}

var parserLine = regexp.MustCompile(`yaml: line (\d+): (.*)$`)

// because is the error with another reason, where the payload is at fault and no bound is the reason.
func because(reason string, err error) error {
	var known *fleet.Error
	if errors.As(err, &known) && known.Reason == v1alpha1.ReasonInvalidManifest {
		return &fleet.Error{Kind: known.Kind, Reason: reason, Hint: known.Hint, Err: known.Err}
	}
	return err
}

// secrets are texts that may stand in no message.
type secrets []string

func (s *secrets) add(text string) {
	if text = strings.TrimSpace(text); text != "" {
		*s = append(*s, text, base64.StdEncoding.EncodeToString([]byte(text)))
	}
}

// addAll adds every text and number of the values.
func (s *secrets) addAll(value any) {
	switch v := value.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			s.addAll(v[key])
		}
	case []any:
		for _, item := range v {
			s.addAll(item)
		}
	case string:
		s.add(v)
	case float64:
		s.add(fmt.Sprint(v))
		s.add(strconv.FormatFloat(v, 'f', -1, 64))
	}
}

// hide takes the secrets out of a message. Very short ones are taken out where quotes are around them, because
// elsewhere they are part of other words.
func (s secrets) hide(message string) string {
	longestFirst := slices.Clone(s)
	slices.SortStableFunc(longestFirst, func(a, b string) int { return len(b) - len(a) })
	for _, secret := range longestFirst {
		if len(secret) >= 4 {
			message = strings.ReplaceAll(message, secret, "***")
			continue
		}
		for _, quote := range []string{"'", `"`, "`"} {
			message = strings.ReplaceAll(message, quote+secret+quote, quote+"***"+quote)
		}
	}
	return message
}
