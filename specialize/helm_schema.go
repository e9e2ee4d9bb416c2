// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// drafts of JSON Schema that the validator has with it. It would fetch any other.
var drafts = []string{
	"json-schema.org/schema", "json-schema.org/draft/2020-12/schema", "json-schema.org/draft/2019-09/schema",
	"json-schema.org/draft-07/schema", "json-schema.org/draft-06/schema", "json-schema.org/draft-04/schema",
}

// checkSchema refuses a schema that refers to anything outside itself: the validator would fetch it, from the
// network or from the machine's disk.
func checkSchema(where string, content []byte) error {
	var schema any
	if err := json.Unmarshal(content, &schema); err != nil {
		return failure(v1alpha1.ReasonRenderFailed, "%s: this is no JSON: %w", where, err)
	}
	if reference := outside(schema); reference != "" {
		return hinted(v1alpha1.ReasonRenderFailed, "copy what it refers to into the schema, under $defs",
			"%s: %s is not in the schema, and nothing is fetched while rendering", where, clip(reference))
	}
	return nil
}

// outside gives a reference that leads out of the schema, if there is one.
func outside(value any) string {
	switch v := value.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			text, isText := v[key].(string)
			if isText && !staysInside(key, text) {
				return fmt.Sprintf("%s %q", key, text)
			}
			if found := outside(v[key]); found != "" {
				return found
			}
		}
	case []any:
		for _, item := range v {
			if found := outside(item); found != "" {
				return found
			}
		}
	}
	return ""
}

// staysInside says that a field of a schema makes nobody fetch anything.
func staysInside(key, text string) bool {
	switch key {
	case "$ref", "$dynamicRef", "$recursiveRef":
		return strings.HasPrefix(text, "#")
	case "$schema":
		text = strings.TrimPrefix(strings.TrimPrefix(text, "https://"), "http://")
		return slices.Contains(drafts, strings.TrimSuffix(text, "#"))
	}
	return true
}

// schemaError is what a schema has to say about the values, on one line. The validator names the charts on lines
// of their own, and begins what is wrong in each with a dash.
func schemaError(label, root, message string) error {
	var wrong []string
	chart := ""
	for line := range strings.Lines(message) {
		line = strings.TrimSpace(line)
		said, is := strings.CutPrefix(line, "- ")
		switch {
		case is:
			wrong = append(wrong, chart+said)
		case strings.HasSuffix(line, ":"):
			chart = strings.TrimPrefix(line+" ", root+": ")
		case line != "":
			wrong = append(wrong, chart+line)
		}
	}
	slices.Sort(wrong) // the validator's order is another each time
	return failure(v1alpha1.ReasonValuesInvalid, "%s: the values are not as values.schema.json wants them: %s", label, clip(strings.Join(wrong, "; ")))
}
