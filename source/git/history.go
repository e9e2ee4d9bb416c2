// SPDX-License-Identifier: Apache-2.0

package git

import (
	"context"
	"errors"
	"io/fs"
	"iter"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/source"
)

// FirstParents gives the commit of rev, then its first parent, and so on to the first commit of all. Only
// rev itself may be asked of the origin. The files of each are read where they are asked for, and are those
// that were committed, without submodules and with what a snapshot leaves out: to see whether a folder
// changed, compare what Folder gives.
func (m *Mirrors) FirstParents(ctx context.Context, src source.Origin, rev fleet.Revision) iter.Seq2[source.Commit, error] {
	return func(yield func(source.Commit, error) bool) {
		ask, err := parse(src)
		if err != nil {
			yield(source.Commit{}, err)
			return
		}
		at, err := parseRevision(rev)
		if err != nil {
			yield(source.Commit{}, err)
			return
		}
		mir := m.mirror(ask)
		if _, err := mir.held(ctx, ask, at); err != nil {
			yield(source.Commit{}, wrap(ask.String(), err))
			return
		}
		mir.firstParents(ctx, at.commit, func(h plumbing.Hash, c source.Commit, err error) bool {
			c.Revision = revisionOf(at.label, h)
			return yield(c, wrap(ask.String(), err))
		})
	}
}

// held is the files of a revision, asked for where they are not here.
func (m *mirror) held(ctx context.Context, ask request, at revision) (*tree, error) {
	ctx, cancel := context.WithTimeout(ctx, ask.timeout)
	defer cancel()
	return m.at(ctx, ask.ref.of(at.label), at.commit)
}

func (m *mirror) firstParents(ctx context.Context, h plumbing.Hash, yield func(plumbing.Hash, source.Commit, error) bool) {
	depth, err := m.depth(ctx, h)
	for err == nil {
		var c source.Commit
		if c, err = m.commit(h); err != nil {
			break
		}
		if c.Depth = depth; !yield(h, c, nil) || depth == 0 {
			return
		}
		var l links
		if l, err = m.links(h); err == nil {
			h, depth = l.parents[0], depth-1
		}
		if err == nil && ctx.Err() != nil {
			err = fetchFailed("", ctx.Err())
		}
	}
	yield(h, source.Commit{}, err)
}

// commit with its files, unread.
func (m *mirror) commit(h plumbing.Hash) (source.Commit, error) {
	l, err := m.links(h)
	if err != nil {
		return source.Commit{}, err
	}
	files := m.seen.tree(h)
	if files == nil {
		files = newTree(m, h, l.tree)
	}
	v := &view{root: files}
	snap, err := m.snapshot(h, v, "")
	return source.Commit{Snapshot: snap, Folder: v.folder}, err
}

// folder names a folder's content by the hash of its tree.
func (v *view) folder(name string) (string, error) {
	at, err := v.find(name, true)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err != nil:
		return "", pathError("folder", name, err)
	case !at.n.is(modeFolder):
		return "", nil
	}
	return at.n.hash.String(), nil
}
