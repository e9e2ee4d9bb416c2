// SPDX-License-Identifier: Apache-2.0

// Package selection answers: who is this rollout for?
//
// [Select] is pure: it reads the targets and the roster that it is given and nothing else. The order
// of the roster changes nothing, so that every member that seals from one commit finds the same members.
package selection

import (
	"cmp"
	"slices"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// Selection is who a rollout is for, and why.
type Selection struct {
	// Members that are in, sorted by name. Their labels and addresses are the roster's own, not copies.
	Members []fleet.Member
	// Verdicts of every member of the roster, sorted by name.
	Verdicts []Verdict
}

// Select says which members of the roster the targets mean: those that the selector takes, without
// those that exclude takes. It leaves the roster as it is.
//
// Every error is a terminal fleet.Error. Its reason is Invalid where the targets or the roster contradict
// themselves or name someone who is not a member, and NoTargets where nobody is left. With NoTargets
// the verdicts are still there, to show why.
func Select(targets v1alpha1.Targets, roster []fleet.Member) (Selection, error) {
	members := slices.SortedFunc(slices.Values(roster), func(a, b fleet.Member) int {
		return cmp.Compare(a.Name, b.Name)
	})
	if err := checkRoster(members); err != nil {
		return Selection{}, err
	}
	take, err := ruleOf("spec.targets", &targets.ClusterSelector, members)
	if err != nil {
		return Selection{}, err
	}
	var drop *rule
	if targets.Exclude != nil {
		if drop, err = ruleOf("spec.targets.exclude", targets.Exclude, members); err != nil {
			return Selection{}, err
		}
	}

	var s Selection
	for _, m := range members {
		verdict := judge(m, take, drop)
		s.Verdicts = append(s.Verdicts, verdict)
		if verdict.In {
			s.Members = append(s.Members, m)
		}
	}
	if len(s.Members) == 0 {
		return s, noTargets(take, drop, members)
	}
	return s, nil
}

// judge says whether one member is in. What exclude takes is out, whoever else names it.
func judge(m fleet.Member, take, drop *rule) Verdict {
	v := Verdict{Member: m.Name}
	switch {
	case !take.matches(m):
		v.Because = take.whyNot(m)
	case drop != nil && drop.matches(m):
		v.Because = "excluded by " + drop.String()
	default:
		v.In, v.Because = true, take.why()
	}
	return v
}
