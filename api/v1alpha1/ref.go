// SPDX-License-Identifier: Apache-2.0

package v1alpha1

// DefaultBranch is followed where spec.source.git.ref says nothing.
const DefaultBranch = "main"

// String is what the reference follows, in the words that name heads: "main" for a branch and the full hash
// for a commit; others with what they are, "tag v1", "semver 1.x", "refs/pull/4/head".
func (r *GitRef) String() string {
	switch {
	case r == nil:
		return DefaultBranch
	case r.Commit != "":
		return r.Commit
	case r.Tag != "":
		return "tag " + r.Tag
	case r.SemVer != "":
		return "semver " + r.SemVer
	case r.Name != "":
		return r.Name
	case r.Branch != "":
		return r.Branch
	}
	return DefaultBranch
}
