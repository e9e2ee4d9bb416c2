// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// overrides are those of the spec that are for the member, in their order.
func (in Input) overrides() ([]v1alpha1.Override, error) {
	if in.Spec == nil {
		return nil, nil
	}
	var matching []v1alpha1.Override
	for _, o := range in.Spec.Overrides {
		matches, err := matcher(o)
		if err != nil {
			return nil, err
		}
		if matches(string(in.Member.Name), in.Member.Labels) {
			matching = append(matching, o)
		}
	}
	return matching, nil
}

// matcher says whom an override is for.
func matcher(o v1alpha1.Override) (func(name string, labels map[string]string) bool, error) {
	if o.IsEmpty() {
		return nil, failure(v1alpha1.ReasonInvalid, "%s: say for which members: matchLabels, matchExpressions or names", placeOf(o))
	}
	matches, err := o.Matcher()
	if err != nil {
		return nil, failure(v1alpha1.ReasonInvalid, "%s: %w", placeOf(o), err)
	}
	return matches, nil
}

func placeOf(o v1alpha1.Override) string { return "spec.specialize.overrides[" + o.Name + "]" }

// Unmatched says, in a sentence each, which overrides are for nobody in the roster and which of the names in them
// no member has. It is no error: a member may be joining. But it is most often a slip.
func Unmatched(spec *v1alpha1.Specialize, roster []fleet.Member) []string {
	if spec == nil {
		return nil
	}
	var sentences []string
	for _, o := range spec.Overrides {
		sentences = append(sentences, strangers(o, roster)...)
		matches, err := matcher(o)
		if err != nil {
			continue // Check says it
		}
		if !slices.ContainsFunc(roster, func(m fleet.Member) bool { return matches(string(m.Name), m.Labels) }) {
			sentences = append(sentences, fmt.Sprintf("%s: no member matches %s (%s)", placeOf(o), selectorText(o), inUse(o, roster)))
		}
	}
	return sentences
}

// strangers are the names of an override that nobody has.
func strangers(o v1alpha1.Override, roster []fleet.Member) []string {
	var known []string
	for _, m := range roster {
		known = append(known, string(m.Name))
	}
	slices.Sort(known)
	var sentences []string
	for _, name := range o.Names {
		if name == "*" || slices.Contains(known, name) {
			continue
		}
		sentence := fmt.Sprintf("%s.names: %s is not a member", placeOf(o), name)
		if near := byLikeness(name, slices.Clone(known)); len(near) > 0 {
			sentence += " (nearest: " + strings.Join(near[:min(len(near), mostNear)], ", ") + ")"
		}
		sentences = append(sentences, sentence)
	}
	return sentences
}

// mostNear is how many names are proposed for one that nobody has.
const mostNear = 3

// selectorText is whom an override is for, as kubectl writes it.
func selectorText(o v1alpha1.Override) string {
	if len(o.Names) > 0 {
		return "names " + list(o.Names)
	}
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(o.MatchLabels)) {
		parts = append(parts, key+"="+o.MatchLabels[key])
	}
	for _, e := range o.MatchExpressions {
		text := e.Key + " " + string(e.Operator)
		if len(e.Values) > 0 {
			text += " (" + list(e.Values) + ")"
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ", ")
}

// inUse says what the members have of the labels that an override asks for.
func inUse(o v1alpha1.Override, roster []fleet.Member) string {
	count := fmt.Sprintf("%d members", len(roster))
	if len(roster) == 1 {
		count = "1 member"
	}
	keys := slices.Collect(maps.Keys(o.MatchLabels))
	for _, e := range o.MatchExpressions {
		keys = append(keys, e.Key)
	}
	slices.Sort(keys)
	for _, key := range slices.Compact(keys) {
		values := map[string]bool{}
		for _, m := range roster {
			if v, has := m.Labels[key]; has {
				values[v] = true
			}
		}
		if len(values) == 0 {
			count += fmt.Sprintf("; none has a label %s", key)
			continue
		}
		count += fmt.Sprintf("; labels in use for %s: %s", key, list(slices.Sorted(maps.Keys(values))))
	}
	return count
}
