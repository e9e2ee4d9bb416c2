// SPDX-License-Identifier: Apache-2.0

package selection

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/labels"
	operator "k8s.io/apimachinery/pkg/selection"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// Verdict is whether one member is in, and why.
type Verdict struct {
	Member fleet.Name
	In     bool
	// Because in words, such as "region=eu matches" or "has no label tier".
	Because string
}

// String is the verdict without its member: "in: region=eu matches".
func (v Verdict) String() string {
	if v.In {
		return "in: " + v.Because
	}
	return "out: " + v.Because
}

// Explain is all verdicts, one line per member, as 'flotilla explain' prints them.
func (s Selection) Explain() string {
	width := 0
	for _, v := range s.Verdicts {
		width = max(width, len(v.Member))
	}
	var b strings.Builder
	for _, v := range s.Verdicts {
		fmt.Fprintf(&b, "%-*s  %s\n", width, v.Member, v)
	}
	return b.String()
}

// String is the rule as messages quote it: "region=eu, tier in (api, web)" or "names".
func (r *rule) String() string {
	switch {
	case r.all():
		return `names: ["*"]`
	case len(r.names) > 0:
		return "names"
	}
	words := make([]string, 0, len(r.requirements))
	for _, req := range r.requirements {
		words = append(words, quote(req))
	}
	return strings.Join(words, ", ")
}

// why a member that matches does.
func (r *rule) why() string {
	switch {
	case r.all():
		return "names takes every member"
	case len(r.names) > 0:
		return "named in names"
	case len(r.requirements) == 1:
		return r.String() + " matches"
	}
	return r.String() + " match"
}

// whyNot names everything that keeps a member out.
func (r *rule) whyNot(m fleet.Member) string {
	if len(r.names) > 0 {
		return "not in names"
	}
	var words []string
	for _, req := range r.requirements {
		if !req.Matches(labels.Set(m.Labels)) {
			words = append(words, missed(req, m.Labels))
		}
	}
	return strings.Join(words, "; ")
}

// missed says in words how a member's labels miss a requirement that they do not meet.
func missed(req labels.Requirement, set map[string]string) string {
	value, has := set[req.Key()]
	switch {
	case !has:
		return "has no label " + req.Key()
	case req.Operator() == operator.DoesNotExist:
		return fmt.Sprintf("has label %s (%s), wanted none", req.Key(), value)
	case req.Operator() == operator.NotIn:
		return fmt.Sprintf("%s is %s, which is not wanted", req.Key(), value)
	}
	return fmt.Sprintf("%s is %s, wanted %s", req.Key(), value, strings.Join(wanted(req), " or "))
}

// quote is a requirement in the short form that kubectl takes.
func quote(req labels.Requirement) string {
	values := wanted(req)
	switch req.Operator() {
	case operator.Exists:
		return req.Key()
	case operator.DoesNotExist:
		return "!" + req.Key()
	case operator.NotIn:
		if len(values) == 1 {
			return req.Key() + "!=" + values[0]
		}
		return fmt.Sprintf("%s notin (%s)", req.Key(), strings.Join(values, ", "))
	}
	if len(values) == 1 {
		return req.Key() + "=" + values[0]
	}
	return fmt.Sprintf("%s in (%s)", req.Key(), strings.Join(values, ", "))
}

// wanted is the requirement's values, sorted, each once.
func wanted(req labels.Requirement) []string { return sortedOnce(req.ValuesUnsorted()) }
