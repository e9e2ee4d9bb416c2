// SPDX-License-Identifier: Apache-2.0

package selection

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// rule is one selector, checked and ready to be asked. The matcher decides; names and requirements are
// the same selector in parts, for the words that explain it.
type rule struct {
	matcher func(name string, set map[string]string) bool
	// names as they were written; none for a selector by labels.
	names []string
	// requirements sorted by label key; none for a selector by names.
	requirements labels.Requirements
}

// ruleOf checks the selector that the field holds. Members are sorted by name.
func ruleOf(field string, s *v1alpha1.ClusterSelector, members []fleet.Member) (*rule, error) {
	if err := checkSelector(field, s); err != nil {
		return nil, err
	}
	matcher, err := s.Matcher()
	if err != nil {
		return nil, invalid("%s: %w", field, err)
	}
	r := &rule{matcher: matcher, names: s.Names}
	if len(s.Names) > 0 {
		return r, checkNames(field+".names", s.Names, members)
	}
	selector, err := metav1.LabelSelectorAsSelector(&s.LabelSelector)
	if err != nil {
		return nil, invalid("%s: selector: %w", field, err)
	}
	r.requirements, _ = selector.Requirements()
	return r, nil
}

func (r *rule) matches(m fleet.Member) bool { return r.matcher(string(m.Name), m.Labels) }

// all says that the rule is names: ["*"].
func (r *rule) all() bool { return slices.Contains(r.names, "*") }

// count says how many of the members meet one requirement.
func count(req labels.Requirement, members []fleet.Member) int {
	n := 0
	for _, m := range members {
		if req.Matches(labels.Set(m.Labels)) {
			n++
		}
	}
	return n
}

// valuesOf is which values the members have for a label, sorted, each once.
func valuesOf(key string, members []fleet.Member) []string {
	var values []string
	for _, m := range members {
		if v, ok := m.Labels[key]; ok {
			values = append(values, v)
		}
	}
	return sortedOnce(values)
}

// keysOf is which labels the members have, sorted, each once.
func keysOf(members []fleet.Member) []string {
	var keys []string
	for _, m := range members {
		for k := range m.Labels {
			keys = append(keys, k)
		}
	}
	return sortedOnce(keys)
}

func sortedOnce(s []string) []string {
	slices.Sort(s)
	return slices.Compact(s)
}
