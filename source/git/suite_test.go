// SPDX-License-Identifier: Apache-2.0

package git

import (
	"net/http"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/source/sourcetest"
)

// TestSuite runs what every source promises against a real git server.
func TestSuite(t *testing.T) {
	sourcetest.Test(t, func(t *testing.T) sourcetest.Fixture {
		o := newOrigin(t)
		commit := func(branch string, all files, others ...plumbing.Hash) fleet.Revision {
			var parents []plumbing.Hash
			if ref, err := o.repo.Reference(plumbing.NewBranchReferenceName(branch), true); err == nil {
				parents = append(parents, ref.Hash())
			}
			h := o.commit(all, append(parents, others...)...)
			o.set(branch, h)
			return revisionOf(branch, h)
		}
		return sourcetest.Fixture{
			Source: newMirrors(t, Limits{}),
			Follow: o.branch,
			Pin:    func(c string) v1alpha1.Source { return o.pinned(plumbing.NewHash(c)) },
			Commit: func(branch string, all map[string]string) fleet.Revision { return commit(branch, all) },
			Merge: func(branch string, second fleet.Revision, all map[string]string) fleet.Revision {
				return commit(branch, all, plumbing.NewHash(second.Commit()))
			},
			Reset: func(branch string, to fleet.Revision) { o.set(branch, plumbing.NewHash(to.Commit())) },
			Cut:   func() { o.breakWith(http.NotFound) },
		}
	})
}
