// SPDX-License-Identifier: Apache-2.0

package git

import (
	"os"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/source"
	"github.com/flotilla-dev/flotilla/source/sourcetest"
)

// TestSuite runs what every source promises against real git servers.
func TestSuite(t *testing.T) {
	for name, fresh := range map[string]func(*testing.T) (*origin, *Mirrors, func(source.Origin) source.Origin){
		"http, version 0": func(t *testing.T) (*origin, *Mirrors, func(source.Origin) source.Origin) {
			return newOrigin(t), newMirrors(t, Limits{}), func(o source.Origin) source.Origin { return o }
		},
		"http, version 2": func(t *testing.T) (*origin, *Mirrors, func(source.Origin) source.Origin) {
			return newModern(t), newMirrors(t, Limits{}), func(o source.Origin) source.Origin { return o }
		},
		"ssh": overSSH, // version 0; of 2 all but the way is the same
	} {
		t.Run(name, func(t *testing.T) { suite(t, fresh) })
	}
}

func suite(t *testing.T, fresh func(*testing.T) (*origin, *Mirrors, func(source.Origin) source.Origin)) {
	sourcetest.Test(t, func(t *testing.T) sourcetest.Fixture {
		o, m, spell := fresh(t)
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
			Source: m,
			Follow: func(branch string) source.Origin { return spell(o.branch(branch)) },
			Pin:    func(c string) source.Origin { return spell(o.pinned(plumbing.NewHash(c))) },
			Ask:    func(ref v1alpha1.GitRef) source.Origin { return spell(o.at(ref)) },
			Tag:    func(name string, at fleet.Revision) { o.tag(name, plumbing.NewHash(at.Commit()), true) },
			Commit: func(branch string, all map[string]string) fleet.Revision { return commit(branch, all) },
			Merge: func(branch string, second fleet.Revision, all map[string]string) fleet.Revision {
				return commit(branch, all, plumbing.NewHash(second.Commit()))
			},
			Reset: func(branch string, to fleet.Revision) { o.set(branch, plumbing.NewHash(to.Commit())) },
			Cut: func() {
				if err := os.Rename(o.dir, o.dir+".gone"); err != nil {
					t.Fatal(err)
				}
			},
		}
	})
}
