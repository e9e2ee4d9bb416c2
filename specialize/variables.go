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

// The variables that every member has.
const (
	clusterVariable = "CLUSTER"
	zoneVariable    = "ZONE"
	labelVariable   = "LABEL_"
)

// isBuiltIn says whether a variable is one that every member has, or may have.
func isBuiltIn(name string) bool {
	return name == clusterVariable || name == zoneVariable || strings.HasPrefix(name, labelVariable)
}

// variables of one member: the built-in ones and the spec's own.
type variables struct {
	member fleet.Member
	own    map[string]string
}

// evaluate finds the values of spec.variables, each once.
func (in Input) evaluate() (*variables, error) {
	v := &variables{member: in.Member}
	if in.Spec == nil || len(in.Spec.Variables) == 0 {
		return v, nil
	}
	v.own = make(map[string]string, len(in.Spec.Variables))
	for _, variable := range in.Spec.Variables {
		if err := checkName(variable.Name, v.own); err != nil {
			return nil, err
		}
		e, err := compile(variable)
		if err != nil {
			return nil, err
		}
		if v.own[variable.Name], err = e.of(in.Member); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// checkName refuses a name for a variable that cannot be written, or is taken.
func checkName(name string, taken map[string]string) error {
	place := "spec.specialize.variables[" + name + "]"
	switch _, twice := taken[name]; {
	case !variableName.MatchString(name):
		return failure(v1alpha1.ReasonInvalid, "%s: %s", place, nameRule)
	case isBuiltIn(name):
		return failure(v1alpha1.ReasonInvalid, "%s: every member has a variable of this name (CLUSTER, ZONE, LABEL_<key>); take another", place)
	case twice:
		return failure(v1alpha1.ReasonInvalid, "%s: there are two of this name", place)
	}
	return nil
}

// nameRule is what variableName says.
const nameRule = "a variable's name is letters, digits and _, and begins with no digit"

// known are the member's variables; render evaluates them once.
func (in Input) known() (*variables, error) {
	if in.variables != nil {
		return in.variables, nil
	}
	return in.evaluate()
}

// fill puts the member's variables into a text of the spec. Any text may come of them.
func (in Input) fill(text string) (string, error) {
	return in.filled(text, v1alpha1.ReasonVariableUnknown, func(_, _ string) error { return nil })
}

// fillPath puts the member's variables into a path of the spec. What they put in never adds a folder to the path or
// takes one from it, so that a label cannot lead to another folder than its own name.
func (in Input) fillPath(path string) (string, error) {
	return in.filled(path, v1alpha1.ReasonPathVariable, in.usable)
}

// filled replaces the variables of a text; check is asked about what each of them is, and its value.
func (in Input) filled(text, reason string, check func(what, value string) error) (string, error) {
	if !strings.Contains(text, opening) {
		return text, nil
	}
	known, err := in.known()
	if err != nil {
		return "", err
	}
	filled, err := expand(text, func(name string) (string, error) {
		value, what, err := known.find(name)
		if err == nil {
			err = check(what, value)
		}
		return value, err
	})
	if err != nil {
		return "", failure(reason, "%s: %w", clip(firstLine(text)), err)
	}
	return filled, nil
}

// find gives a variable's value, and says what it is.
func (v *variables) find(name string) (value, what string, err error) {
	if key, isLabel := strings.CutPrefix(name, labelVariable); isLabel {
		return v.label(key)
	}
	if value, has := v.own[name]; has {
		return value, "variable " + name, nil
	}
	switch name {
	case clusterVariable:
		return string(v.member.Name), "the name of the cluster", nil
	case zoneVariable:
		if v.member.Zone == "" {
			return "", "", fmt.Errorf("%s has no zone", v.member.Name)
		}
		return v.member.Zone, "the zone", nil
	}
	return "", "", fmt.Errorf("there is no variable ${%s} (there are: %s)", clip(name), thereAre(name, slices.Collect(maps.Keys(v.own))))
}

// thereAre lists the variables that there are besides the built-in ones, those that look like name first, and these.
func thereAre(name string, own []string) string {
	slices.Sort(own)
	own = byLikeness(name, own)
	extra := len(own) - mostListed
	var b strings.Builder
	for _, o := range own[:min(len(own), mostListed)] {
		b.WriteString("${" + o + "}, ")
	}
	if extra > 0 {
		fmt.Fprintf(&b, "%d more, ", extra)
	}
	return b.String() + "${CLUSTER}, ${ZONE}, ${LABEL_<key>}"
}

// label is the value of the member's label whose key reads as key once its other characters are _.
func (v *variables) label(key string) (value, what string, err error) {
	var matching []string
	for k := range v.member.Labels {
		if variableOf(k) == key {
			matching = append(matching, k)
		}
	}
	slices.Sort(matching)
	switch len(matching) {
	case 1:
		return v.member.Labels[matching[0]], fmt.Sprintf("label %q", matching[0]), nil
	case 0:
		return "", "", noLabel(v.member, key)
	}
	return "", "", fmt.Errorf("${LABEL_%s} may be any of the labels %s of %s; rename all but one",
		key, strings.Join(matching, ", "), v.member.Name)
}

func noLabel(m fleet.Member, key string) error {
	has := "none"
	if len(m.Labels) > 0 {
		has = list(slices.Sorted(maps.Keys(m.Labels)))
	}
	return fmt.Errorf("%s has no label %q (it has: %s)", m.Name, clip(key), has)
}

// variableOf is a label key as a variable writes it: every character but letters, digits and _ is _.
func variableOf(key string) string {
	return strings.Map(func(r rune) rune {
		if isLetterOrDigit(r) {
			return r
		}
		return '_'
	}, key)
}

// usable refuses values that are more than one folder's name. The alphabet is that of label values.
func (in Input) usable(what, value string) error {
	other := strings.ContainsFunc(value, func(r rune) bool { return !isLetterOrDigit(r) && !strings.ContainsRune("-_.", r) })
	if value == "" || other || value == "." || strings.Contains(value, "..") {
		return fmt.Errorf("%s of %s is %q; in a path it must be letters, digits, -, _ and single dots", what, in.Member.Name, clip(value))
	}
	return nil
}

func isLetterOrDigit(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
}
