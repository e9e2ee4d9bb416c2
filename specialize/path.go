// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

const labelVariable = "LABEL_"

// folder is the payload's folder for this member: a valid fs.FS path of a folder that is there.
func (in Input) folder(t *tree) (string, error) {
	filled, err := fill(in.Path, in.Member)
	if err != nil {
		return "", err
	}
	folder, err := inside(filled)
	if err != nil {
		return "", err
	}
	info, err := t.lstat(folder)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", hinted(v1alpha1.ReasonPathNotFound, neighbours(t, folder), "%s: no such folder in the source", shown(folder))
	case err != nil:
		return "", err
	case !info.IsDir():
		return "", failure(v1alpha1.ReasonPathNotFound, "%s is a file; spec.source.path names a folder", shown(folder))
	}
	return folder, nil
}

// inside cleans a path and refuses what would leave the source.
func inside(p string) (string, error) {
	if strings.HasPrefix(p, "/") || slices.Contains(strings.Split(p, "/"), "..") {
		return "", failure(v1alpha1.ReasonInvalid, "spec.source.path: %q: a path inside the source: no leading '/' and no '..'", p)
	}
	clean := path.Clean(p)
	if !fs.ValidPath(clean) {
		return "", failure(v1alpha1.ReasonInvalid, "spec.source.path: %q is not a path", p)
	}
	return clean, nil
}

// neighbours says which folders are there where the path stops leading anywhere.
func neighbours(t *tree, folder string) string {
	parent, missing := path.Dir(folder), path.Base(folder)
	for parent != "." {
		if info, err := t.lstat(parent); err == nil && info.IsDir() {
			break
		}
		parent, missing = path.Dir(parent), path.Base(parent)
	}
	entries, err := t.readDir(parent)
	if err != nil {
		return ""
	}
	var folders []string
	for _, e := range entries {
		if e.IsDir() && !hidden(e.Name()) {
			folders = append(folders, e.Name())
		}
	}
	if len(folders) == 0 {
		return shown(parent) + " holds no folders"
	}
	return fmt.Sprintf("%s holds: %s", shown(parent), list(byLikeness(missing, folders)))
}

// fill puts the member into the path's variables. What it puts in never adds a folder to the path or
// takes one from it, so that a label cannot lead to another folder than its own name.
func fill(template string, m fleet.Member) (string, error) {
	var b strings.Builder
	for rest := template; ; {
		before, after, found := strings.Cut(rest, "${")
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		name, tail, closed := strings.Cut(after, "}")
		if !closed {
			return "", failure(v1alpha1.ReasonPathVariable, "%s: ${%s has no closing }", template, after)
		}
		value, err := lookUp(template, name, m)
		if err != nil {
			return "", err
		}
		b.WriteString(value)
		rest = tail
	}
}

// lookUp is the value of one variable.
func lookUp(template, name string, m fleet.Member) (string, error) {
	if key, isLabel := strings.CutPrefix(name, labelVariable); isLabel {
		return labelOf(template, key, m)
	}
	switch name {
	case "CLUSTER":
		return usable(template, "the name of the cluster", string(m.Name), m)
	case "ZONE":
		if m.Zone == "" {
			return "", failure(v1alpha1.ReasonPathVariable, "%s: %s has no zone", template, m.Name)
		}
		return usable(template, "the zone", m.Zone, m)
	}
	return "", failure(v1alpha1.ReasonPathVariable, "%s: there is no variable ${%s} (there are: ${CLUSTER}, ${ZONE}, ${LABEL_<key>})", template, name)
}

// labelOf is the value of the member's label whose key reads as key once its other characters are _.
func labelOf(template, key string, m fleet.Member) (string, error) {
	var matching, all []string
	for k := range m.Labels {
		all = append(all, k)
		if variableOf(k) == key {
			matching = append(matching, k)
		}
	}
	slices.Sort(matching)
	slices.Sort(all)
	switch len(matching) {
	case 1:
		return usable(template, fmt.Sprintf("label %q", matching[0]), m.Labels[matching[0]], m)
	case 0:
		has := "none"
		if len(all) > 0 {
			has = list(all)
		}
		return "", failure(v1alpha1.ReasonPathVariable, "%s: %s has no label %q (it has: %s)", template, m.Name, key, has)
	}
	return "", failure(v1alpha1.ReasonPathVariable, "%s: ${LABEL_%s} may be any of the labels %s of %s; rename all but one",
		template, key, strings.Join(matching, ", "), m.Name)
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
func usable(template, what, value string, m fleet.Member) (string, error) {
	other := strings.ContainsFunc(value, func(r rune) bool { return !isLetterOrDigit(r) && !strings.ContainsRune("-_.", r) })
	if value == "" || other || value == "." || strings.Contains(value, "..") {
		return "", failure(v1alpha1.ReasonPathVariable, "%s: %s of %s is %q; in a path it must be letters, digits, -, _ and single dots",
			template, what, m.Name, value)
	}
	return value, nil
}

func isLetterOrDigit(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
}

func hidden(name string) bool { return strings.HasPrefix(name, ".") }
