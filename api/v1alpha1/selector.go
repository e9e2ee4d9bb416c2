// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// IsEmpty says that nothing was written in it.
func (s *ClusterSelector) IsEmpty() bool {
	return len(s.Names) == 0 && len(s.MatchLabels) == 0 && len(s.MatchExpressions) == 0
}

// Matcher is the selector ready to be asked. An empty selector takes everyone. It fails on
// operators and values that the CRD's schema cannot refuse.
func (s *ClusterSelector) Matcher() (func(name string, set map[string]string) bool, error) {
	if len(s.Names) > 0 {
		all := slices.Contains(s.Names, "*")
		return func(name string, _ map[string]string) bool { return all || slices.Contains(s.Names, name) }, nil
	}
	selector, err := metav1.LabelSelectorAsSelector(&s.LabelSelector)
	if err != nil {
		return nil, fmt.Errorf("selector: %w", err)
	}
	return func(_ string, set map[string]string) bool { return selector.Matches(labels.Set(set)) }, nil
}
