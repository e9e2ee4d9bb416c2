// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/util/validation"
)

// FieldError is one thing that is wrong with one field.
// +kubebuilder:object:generate=false
type FieldError struct {
	// Field as a path from the object: spec.strategy.stages[0].name.
	Field string
	// Message says what is wrong and what would be right, in the schema's own words where it has any.
	Message string
}

func (e FieldError) Error() string { return e.Field + ": " + e.Message }

// Validate states the schema's own rules for specs that come from files and meet no API server, in the
// schema's own words. The error is the first [FieldError] that Problems finds.
func (s *FleetRolloutSpec) Validate() error { return first(s.Problems()) }

// Problems are all that is wrong with the spec by itself, in the order of its fields. What depends on the
// fleet is refused where the rollout is sealed and compiled.
func (s *FleetRolloutSpec) Problems() []FieldError {
	c := &checker{}
	c.source("spec.source", &s.Source)
	c.targets("spec.targets", &s.Targets)
	if s.Specialize != nil {
		c.specialize("spec.specialize", s.Specialize)
		if s.Source.Helm != nil && s.Specialize.Helm != nil && s.Specialize.Helm.Chart != nil {
			c.say("spec.specialize", "the source is already a chart (spec.source.helm); keep one of the two")
		}
	}
	if s.Strategy != nil {
		c.strategy("spec.strategy", s.Strategy)
	}
	c.delivery("spec.delivery", &s.Delivery)
	return c.found
}

// Validate is the spec's, with what the schema says of a rollout's name.
func (r *FleetRollout) Validate() error { return first(r.Problems()) }

// Problems are the spec's, with those of the name before them.
func (r *FleetRollout) Problems() []FieldError {
	c := &checker{}
	c.rolloutName(r.Name)
	c.labels("metadata.labels", r.Labels)
	return append(c.found, r.Spec.Problems()...)
}

// Validate states the schema's rules for a member from a file.
func (m *FleetMember) Validate() error { return first(m.Problems()) }

// Problems are all that is wrong with a member by itself.
func (m *FleetMember) Problems() []FieldError {
	c := &checker{}
	if !memberName.MatchString(m.Name) {
		c.say("metadata.name", "%q: a DNS label of at most 63 characters; it becomes ${CLUSTER} and a label value", m.Name)
	}
	c.labels("metadata.labels", m.Labels)
	switch {
	case m.Spec.PeerID == "":
		c.say("spec.peerID", "required: the peer ID that 'flotilla-agent id' prints on the member")
	case !peerID.MatchString(m.Spec.PeerID):
		c.say("spec.peerID", "%q: the peer ID of an Ed25519 key (12D3KooW...), as 'flotilla-agent id' prints it; RSA keys (Qm...) are refused", m.Spec.PeerID)
	}
	if m.Spec.Incarnation < 0 {
		c.say("spec.incarnation", "%d: at least 1", m.Spec.Incarnation)
	}
	if m.Spec.Zone != "" && !memberName.MatchString(m.Spec.Zone) {
		c.say("spec.zone", "%q: a DNS label of at most 63 characters", m.Spec.Zone)
	}
	c.count("spec.addresses", len(m.Spec.Addresses), 8)
	unique(c, "spec.addresses", m.Spec.Addresses)
	return c.found
}

// CheckWritten refuses, in an object's JSON, what the schema refuses and what no longer shows once it is decoded:
// an empty text or a 0 where leaving the field out means the default.
func CheckWritten(raw []byte) error {
	var object map[string]any
	if err := json.Unmarshal(raw, &object); err != nil {
		return err
	}
	spec, _ := object["spec"].(map[string]any)
	if n, ok := spec["incarnation"].(float64); ok && n == 0 {
		return FieldError{"spec.incarnation", "0: at least 1"}
	}
	for _, field := range neverEmpty {
		if path, empty := emptyText(spec, "spec", strings.Split(field, ".")); empty {
			return FieldError{path, "empty; leave it out, or give it a value"}
		}
	}
	if path, empty := emptyText(spec, "spec", strings.Split("specialize.helm.valuesFrom.targetPath", ".")); empty {
		return FieldError{path, "a path such as image.tag, or leave it out"}
	}
	return nil
}

// neverEmpty are the fields that may be left out and may not be "".
var neverEmpty = []string{
	"source.git.ref.branch", "source.git.ref.tag", "source.git.ref.semver", "source.git.ref.name", "source.git.ref.commit",
	"specialize.helm.chart.digest", "specialize.helm.releaseName", "specialize.helm.crds", "specialize.helm.hooks",
	"specialize.targetNamespace", "strategy.type", "delivery.serviceAccountName", "zone",
}

// emptyText finds the field at the end of the steps, in every item of a list on the way.
func emptyText(value any, path string, steps []string) (string, bool) {
	switch v := value.(type) {
	case []any:
		for i, item := range v {
			if at, empty := emptyText(item, fmt.Sprintf("%s[%d]", path, i), steps); empty {
				return at, true
			}
		}
	case map[string]any:
		next, has := v[steps[0]]
		switch path += "." + steps[0]; {
		case has && len(steps) > 1:
			return emptyText(next, path, steps[1:])
		case has:
			return path, next == ""
		}
	}
	return "", false
}

// checker collects what is wrong.
type checker struct{ found []FieldError }

func first(found []FieldError) error {
	if len(found) == 0 {
		return nil
	}
	return found[0]
}

func (c *checker) say(field, format string, args ...any) {
	c.found = append(c.found, FieldError{field, fmt.Sprintf(format, args...)})
}

// text that is given must be no longer than most characters.
func (c *checker) text(field, value string, most int) {
	if n := utf8.RuneCountInString(value); n > most {
		c.say(field, "%d characters; at most %d", n, most)
	}
}

// required text of at most so many characters. It says whether there is anything to look at.
func (c *checker) required(field, value string, most int) bool {
	if value == "" {
		c.say(field, "required")
		return false
	}
	c.text(field, value, most)
	return true
}

func (c *checker) count(field string, n, most int) {
	if n > most {
		c.say(field, "%d items; at most %d", n, most)
	}
}

// texts are a list of texts that are not empty.
func (c *checker) texts(field string, values []string, items, most int) {
	c.count(field, len(values), items)
	for i, value := range values {
		c.required(fmt.Sprintf("%s[%d]", field, i), value, most)
	}
}

// unique: no two of the keys are equal. Keys that are not there are looked at elsewhere.
func unique[K comparable](c *checker, field string, keys []K) {
	var none K
	for i, key := range keys {
		if key != none && slices.Contains(keys[:i], key) {
			c.say(fmt.Sprintf("%s[%d]", field, i), "%q is there twice", fmt.Sprint(key))
		}
	}
}

// oneOf the values, or left out.
func (c *checker) oneOf(field, value string, known ...string) {
	if value != "" && !slices.Contains(known, value) {
		c.say(field, "%q: one of %s", value, strings.Join(known, ", "))
	}
}

// duration that is given must be at least so long.
func (c *checker) duration(field string, d *Duration, least time.Duration, words string) {
	if d == nil {
		return
	}
	switch v := d.Duration.Duration; {
	case v < 0:
		c.say(field, `"%s": a duration such as 90s, 15m or 48h (there is no unit for days: 7 days is 168h)`, v)
	case v < least:
		c.say(field, "%s: %s", marshalled(d), words)
	}
}

// marshalled is the value as it stands in a file.
func marshalled(v any) string {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprintf("%q", fmt.Sprint(v))
	}
	return string(raw)
}

// labels as the API server takes them.
func (c *checker) labels(field string, labels map[string]string) {
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		for _, wrong := range validation.IsQualifiedName(key) {
			c.say(field, "%q: %s", key, wrong)
		}
		for _, wrong := range validation.IsValidLabelValue(labels[key]) {
			c.say(field+"."+key, "%q: %s", labels[key], wrong)
		}
	}
}

func (c *checker) rolloutName(name string) {
	switch {
	case name == "":
		c.say("metadata.name", "required")
	case len(name) > 63:
		c.say("metadata.name", "%q: at most 63 characters, because it becomes a label value on every object it delivers", name)
	default:
		for _, wrong := range validation.IsDNS1123Subdomain(name) {
			c.say("metadata.name", "%q: %s", name, wrong)
		}
	}
}

// nameWords say what a DNS label is.
const nameWords = "small letters, digits and '-', beginning and ending with a letter or digit, at most 63 characters"

var (
	// memberName becomes ${CLUSTER} and a label value.
	memberName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	peerID     = regexp.MustCompile(`^12D3KooW[1-9A-HJ-NP-Za-km-z]{44}$`)
)
