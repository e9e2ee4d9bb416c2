// SPDX-License-Identifier: Apache-2.0

package git

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/Masterminds/semver/v3"
	"github.com/go-git/go-git/v5/plumbing"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/source"
)

const (
	sha1Prefix  = "sha1:"
	tagPrefix   = "refs/tags/"
	headPrefix  = "refs/heads/"
	headName    = "HEAD"
	maxRefBytes = 255
)

// kind of a reference, as spec.source.git.ref has it.
type kind string

const (
	byBranch kind = "branch"
	byTag    kind = "tag"
	bySemVer kind = "versions"
	byName   kind = "reference"
	byCommit kind = "commit"
)

// ref is what of a repository is asked for.
type ref struct {
	kind   kind
	name   string // branch, tag, range, or reference in full
	within *semver.Constraints
	commit plumbing.Hash
}

func (r ref) String() string {
	if r.kind == byCommit {
		return fmt.Sprintf("commit %s", r.commit.String()[:7])
	}
	return fmt.Sprintf("%s %s", r.kind, source.Printable(r.name, 80))
}

func parseRef(spec *v1alpha1.GitRef) (r ref, err error) {
	if spec == nil {
		spec = &v1alpha1.GitRef{}
	}
	switch {
	case spec.Commit != "":
		r = ref{kind: byCommit}
		if r.commit, err = parseHash(spec.Commit); err != nil {
			return ref{}, noRef("name a commit by all 40 digits of its SHA-1", "commit %q: %w", source.Clip(spec.Commit, 80), err)
		}
		return r, nil
	case spec.Name != "":
		r = ref{kind: byName, name: spec.Name}
	case spec.SemVer != "":
		return parseRange(spec.SemVer)
	case spec.Tag != "":
		r = ref{kind: byTag, name: spec.Tag}
	default:
		r = ref{kind: byBranch, name: cmp.Or(spec.Branch, v1alpha1.DefaultBranch)}
	}
	return r, r.check()
}

func parseRange(text string) (ref, error) {
	if len(text) > maxRefBytes {
		return ref{}, noRef("", "a range of versions longer than %d characters", maxRefBytes)
	}
	within, err := semver.NewConstraint(text)
	if err != nil {
		return ref{}, noRef(`write a range such as ">=1.2.0 <2.0.0" or "1.x"`, "versions %q: %w", source.Clip(text, 80), err)
	}
	return ref{kind: bySemVer, name: text, within: within}, nil
}

// check that a reference can exist.
func (r ref) check() error {
	full, hint := r.full(), ""
	switch r.kind {
	case byBranch:
		hint = "name the branch as git does, such as main or release/1.2"
	case byTag:
		hint = "name the tag as git does, such as v1.2.0"
	case byName:
		hint = "name the reference in full, such as refs/heads/main"
	}
	if err := plumbing.ReferenceName(full).Validate(); err != nil || !strings.HasPrefix(full, "refs/") || len(r.name) > maxRefBytes {
		return noRef(hint, "%s %q: %w", r.kind, source.Clip(r.name, 80), errors.Join(fmt.Errorf("not a %s name", r.kind), err))
	}
	return nil
}

// full name of the one reference that is asked for; empty for versions and commits.
func (r ref) full() string {
	switch r.kind {
	case byBranch:
		return headPrefix + r.name
	case byTag:
		return tagPrefix + r.name
	case byName:
		return r.name
	}
	return ""
}

// prefixes of the references that have to be known to find it.
func (r ref) prefixes() []string {
	switch r.kind {
	case bySemVer:
		return []string{headName, tagPrefix}
	case byCommit:
		return []string{headName}
	}
	return []string{headName, r.full()}
}

// find it among what a server has: the commit, and the label that a revision names it by.
func (r ref) find(refs map[string]plumbing.Hash) (label string, commit plumbing.Hash, ok bool) {
	switch r.kind {
	case bySemVer:
		return r.highest(refs)
	case byCommit:
		return "", r.commit, true
	}
	h, ok := refs[r.full()]
	return r.name, h, ok && !h.IsZero()
}

// highest version in the range. Of equal ones, which differ in the v or in what they were built from, all
// members choose the same: the last by name.
func (r ref) highest(refs map[string]plumbing.Hash) (label string, commit plumbing.Hash, ok bool) {
	var best *semver.Version
	for name, h := range refs {
		tag, isTag := strings.CutPrefix(name, tagPrefix)
		v := version(tag)
		if !isTag || v == nil || h.IsZero() || !r.within.Check(v) {
			continue
		}
		if best != nil && cmp.Or(v.Compare(best), strings.Compare(tag, label)) < 0 {
			continue
		}
		best, label, commit = v, tag, h
	}
	return label, commit, best != nil
}

// version that a tag names; nil where it names none. All three numbers have to be there: v1 is a label that
// people move.
func version(tag string) *semver.Version {
	if len(tag) > maxRefBytes {
		return nil
	}
	v, err := semver.StrictNewVersion(strings.TrimPrefix(tag, "v"))
	if err != nil {
		return nil
	}
	return v
}

// of says what to ask the origin for where a commit of a revision is not served by its hash: the label's
// reference, or this one where there is no label.
func (r ref) of(label string) ref {
	switch {
	case label == "":
		return r
	case strings.HasPrefix(label, "refs/"):
		return ref{kind: byName, name: label}
	case r.kind == byTag || r.kind == bySemVer:
		return ref{kind: byTag, name: label}
	}
	return ref{kind: byBranch, name: label}
}

// relation of two revisions of this reference. It knows where versions or a tag decide alone; ancestry
// decides elsewhere.
func (r ref) relation(from, to revision) (_ source.Relation, known bool) {
	a, b := version(from.label), version(to.label)
	switch {
	case r.kind == bySemVer && a != nil && b != nil:
		switch c := b.Compare(a); {
		case c > 0:
			return source.Descends, true
		case c < 0:
			return source.Precedes, true
		case from.commit == to.commit:
			return source.Same, true
		}
		return source.Unrelated, true
	case from.commit == to.commit:
		return source.Same, true
	case r.kind == byTag && from.label == to.label:
		return source.Unrelated, true
	}
	return source.Unrelated, false
}

// noRef is a reference that cannot exist: the spec has to change.
func noRef(hint, format string, args ...any) error {
	return &fleet.Error{Kind: fleet.Terminal, Reason: v1alpha1.ReasonRefNotFound, Hint: hint, Err: fmt.Errorf(format, args...)}
}

// revision is a fleet.Revision, taken apart: main@sha1:<commit>, v1.2.3@sha1:<commit>,
// refs/pull/4/head@sha1:<commit>, or sha1:<commit> where a commit is pinned.
type revision struct {
	label  string
	commit plumbing.Hash
}

func revisionOf(label string, hash plumbing.Hash) fleet.Revision {
	if label == "" {
		return fleet.Revision(sha1Prefix + hash.String())
	}
	return fleet.Revision(label + "@" + sha1Prefix + hash.String())
}

// parseRevision reads what revisionOf words.
func parseRevision(rev fleet.Revision) (r revision, err error) {
	sum := string(rev)
	if i := strings.LastIndexByte(sum, '@'); i >= 0 {
		r.label, sum = sum[:i], sum[i+1:]
		err = ref{kind: byBranch, name: r.label}.check()
	}
	if err == nil && !strings.HasPrefix(sum, sha1Prefix) {
		err = errors.New("want <reference>@sha1:<commit> or sha1:<commit>")
	}
	if err == nil {
		r.commit, err = parseHash(strings.TrimPrefix(sum, sha1Prefix))
	}
	if err != nil {
		return revision{}, noRef("", "revision %q: %w", source.Clip(string(rev), 120), err)
	}
	return r, nil
}

func parseHash(s string) (plumbing.Hash, error) {
	var h plumbing.Hash
	if len(s) != 2*len(h) || strings.ToLower(s) != s {
		return h, errors.New("want 40 lower-case hex digits")
	}
	if _, err := hex.Decode(h[:], []byte(s)); err != nil {
		return h, errors.New("want 40 lower-case hex digits")
	}
	if h.IsZero() {
		return h, errors.New("the zero hash names nothing")
	}
	return h, nil
}
