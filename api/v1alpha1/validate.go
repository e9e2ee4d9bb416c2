// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// Validate states the schema's own rules for rollouts that come from files and meet no API server, in
// the schema's own words. What concerns stages is refused where the stages are compiled.
func (s *FleetRolloutSpec) Validate() error {
	switch {
	case s.Source.Git == nil:
		return fmt.Errorf("spec.source.git: required")
	case !gitURL.MatchString(s.Source.Git.URL):
		return fmt.Errorf("spec.source.git.url: %q is not an http or https URL", s.Source.Git.URL)
	case strings.HasPrefix(s.Source.Path, "/") || strings.Contains(s.Source.Path, ".."):
		return fmt.Errorf("spec.source.path: %q: a path inside the source: no leading '/' and no '..'", s.Source.Path)
	case s.Source.Interval.Or(time.Minute) < 10*time.Second:
		return fmt.Errorf("spec.source.interval: at least 10s; members tell each other of a new head, so polling faster only costs the server")
	case s.Targets.IsEmpty():
		return fmt.Errorf(`spec.targets: say which members: matchLabels, matchExpressions or names; for every member of the fleet write names: ["*"]`)
	case s.Delivery.Interval.Or(time.Minute) < 10*time.Second:
		return fmt.Errorf("spec.delivery.interval: at least 10s; changes to what was applied are seen by watching")
	case s.Delivery.RetryInterval.Or(time.Minute) < time.Second:
		return fmt.Errorf("spec.delivery.retryInterval: at least 1s")
	}
	if ref := s.Source.Git.Ref; ref != nil && (ref.Branch == "") == (ref.Commit == "") {
		return fmt.Errorf("spec.source.git.ref: name exactly one of branch, commit")
	}
	if ref := s.Source.Git.Ref; ref != nil && ref.Commit != "" && !gitCommit.MatchString(ref.Commit) {
		return fmt.Errorf("spec.source.git.ref.commit: %q is not a full commit hash of 40 hex digits", ref.Commit)
	}
	for field, c := range s.selectors() {
		if len(c.Names) > 0 && (len(c.MatchLabels) > 0 || len(c.MatchExpressions) > 0) {
			return fmt.Errorf("%s: names and labels cannot be combined: give names, or matchLabels/matchExpressions (to narrow by both, label the members)", field)
		}
		if _, err := c.Matcher(); err != nil {
			return fmt.Errorf("%s: %w", field, err)
		}
	}
	return nil
}

func (s *FleetRolloutSpec) selectors() map[string]*ClusterSelector {
	out := map[string]*ClusterSelector{"spec.targets": &s.Targets.ClusterSelector}
	if s.Targets.Exclude != nil {
		out["spec.targets.exclude"] = s.Targets.Exclude
	}
	if s.Strategy != nil {
		for i := range s.Strategy.Stages {
			out[fmt.Sprintf("spec.strategy.stages[%d]", i)] = &s.Strategy.Stages[i].ClusterSelector
		}
	}
	return out
}

var (
	gitURL    = regexp.MustCompile(`^https?://.+$`)
	gitCommit = regexp.MustCompile(`^[0-9a-f]{40}$`)
	// memberName becomes ${CLUSTER} and a label value.
	memberName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
)

// Validate states the schema's rules for a member from a file.
func (m *FleetMember) Validate() error {
	if !memberName.MatchString(m.Name) {
		return fmt.Errorf("metadata.name: %q: a DNS label of at most 63 characters; it becomes ${CLUSTER} and a label value", m.Name)
	}
	if m.Spec.Zone != "" && !memberName.MatchString(m.Spec.Zone) {
		return fmt.Errorf("spec.zone: %q: a DNS label of at most 63 characters", m.Spec.Zone)
	}
	return nil
}
