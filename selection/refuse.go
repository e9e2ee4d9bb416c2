// SPDX-License-Identifier: Apache-2.0

package selection

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"
	operator "k8s.io/apimachinery/pkg/selection"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// mostListed is how many names or values a sentence lists before it counts the rest.
const mostListed = 8

func invalid(format string, args ...any) error {
	return &fleet.Error{Kind: fleet.Terminal, Reason: v1alpha1.ReasonInvalid, Err: fmt.Errorf(format, args...)}
}

func none(format string, args ...any) error {
	return &fleet.Error{Kind: fleet.Terminal, Reason: v1alpha1.ReasonNoTargets, Err: fmt.Errorf(format, args...)}
}

// checkRoster refuses two members of one name or one key: nobody could tell whose turn it is.
func checkRoster(members []fleet.Member) error {
	byID := map[fleet.MemberID]fleet.Name{}
	for i, m := range members {
		if i > 0 && members[i-1].Name == m.Name {
			return invalid("roster: two members are named %s; a name is unique in its fleet", m.Name)
		}
		if other, taken := byID[m.ID]; taken && m.ID != "" {
			return invalid("roster: %s and %s have one key (%s); every cluster has its own", other, m.Name, m.ID)
		}
		byID[m.ID] = m.Name
	}
	return nil
}

// checkSelector repeats the schema's rules in the schema's words, for rollouts that come from a
// repository and were never shown to an API server. An empty selector takes everyone, so that an
// empty exclude would take the whole fleet out.
func checkSelector(field string, s *v1alpha1.ClusterSelector) error {
	byLabels := len(s.MatchLabels) > 0 || len(s.MatchExpressions) > 0
	switch {
	case len(s.Names) > 0 && byLabels:
		return invalid("%s: names and labels cannot be combined: give names, or matchLabels/matchExpressions (to narrow by both, label the members)", field)
	case len(s.Names) == 0 && !byLabels && field == "spec.targets":
		return invalid(`%s: say which members: matchLabels, matchExpressions or names; for every member of the fleet write names: ["*"]`, field)
	case len(s.Names) == 0 && !byLabels:
		return invalid("%s: say which members: matchLabels, matchExpressions or names; to take nobody out leave it away", field)
	}
	return nil
}

// checkNames refuses names that nobody has. In exclude too: a slip there would deliver to a cluster that
// was meant to be spared.
func checkNames(field string, names []string, members []fleet.Member) error {
	known := make([]string, 0, len(members))
	for _, m := range members {
		known = append(known, string(m.Name))
	}
	var strangers []string
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			return invalid("%s: %s is there twice", field, name)
		}
		if _, found := slices.BinarySearch(known, name); found || name == "*" {
			continue
		}
		stranger := name + " is not a member"
		if near := nearest(name, known); len(near) > 0 {
			stranger += " (nearest: " + strings.Join(near, ", ") + ")"
		}
		strangers = append(strangers, stranger)
	}
	if len(strangers) > 0 {
		return invalid("%s: %s", field, list(strangers, "; "))
	}
	return nil
}

// noTargets says why nobody is left. Members are sorted by name.
func noTargets(take, drop *rule, members []fleet.Member) error {
	if len(members) == 0 {
		return none("spec.targets: the fleet has no members")
	}
	matched := 0
	for _, m := range members {
		if take.matches(m) {
			matched++
		}
	}
	if matched > 0 {
		return none("spec.targets: exclude (%s) takes out every member that targets takes (%d of %d, by %s)",
			drop, matched, len(members), take)
	}
	// With names somebody always matches: checkNames has seen to it.
	for _, req := range take.requirements {
		if count(req, members) == 0 {
			return none("spec.targets: no member matches %s (%s)%s", take, blame(req, members), didYouMean(req, members))
		}
	}
	alone := make([]string, 0, len(take.requirements))
	for _, req := range take.requirements {
		alone = append(alone, fmt.Sprintf("%s alone matches %d", quote(req), count(req, members)))
	}
	return none("spec.targets: no member matches %s (%s; %s)", take, memberCount(len(members)), list(alone, ", "))
}

// blame says what the members have where a requirement that none of them meets wants something else.
func blame(req labels.Requirement, members []fleet.Member) string {
	values := valuesOf(req.Key(), members)
	switch {
	case len(values) == 0:
		return fmt.Sprintf("%s; none has a label %s; labels in use: %s",
			memberCount(len(members)), req.Key(), orNone(keysOf(members)))
	case req.Operator() == operator.DoesNotExist:
		return fmt.Sprintf("%s; all have a label %s", memberCount(len(members)), req.Key())
	}
	return fmt.Sprintf("%s; labels in use for %s: %s", memberCount(len(members)), req.Key(), list(values, ", "))
}

// didYouMean proposes what is written nearly alike, where there is one such.
func didYouMean(req labels.Requirement, members []fleet.Member) string {
	values := valuesOf(req.Key(), members)
	if len(values) == 0 {
		if near := nearest(req.Key(), keysOf(members)); len(near) == 1 {
			return ". Did you mean " + near[0] + "?"
		}
		return ""
	}
	want := wanted(req)
	if len(want) != 1 || req.Operator() == operator.NotIn {
		return ""
	}
	if near := nearest(want[0], values); len(near) == 1 {
		return fmt.Sprintf(". Did you mean %s=%s?", req.Key(), near[0])
	}
	return ""
}

func memberCount(n int) string {
	if n == 1 {
		return "1 member"
	}
	return fmt.Sprintf("%d members", n)
}

func orNone(s []string) string {
	if len(s) == 0 {
		return "none"
	}
	return list(s, ", ")
}

// list joins at most mostListed items and counts the others.
func list(items []string, separator string) string {
	if extra := len(items) - mostListed; extra > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(items[:mostListed], separator), extra)
	}
	return strings.Join(items, separator)
}
