// SPDX-License-Identifier: Apache-2.0

package git

import (
	"context"
	"errors"
	"io/fs"
	"iter"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/source"
)

// at is the snapshot of a commit, with everything that can fail named after the source.
func (m *Mirrors) at(ctx context.Context, ask request, commit plumbing.Hash, rev fleet.Revision) (source.Snapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, ask.timeout)
	defer cancel()
	mir := m.mirror(ask.addr)
	files, err := mir.at(ctx, ask.branch, commit)
	if err != nil {
		return source.Snapshot{}, wrap(ask.String(), err)
	}
	snap, err := mir.snapshot(commit, files, rev)
	return snap, wrap(ask.String(), err)
}

// FirstParents gives the commit of rev, then its first parent, and so on to the first commit of all. Only
// rev itself may be asked of the origin. The files of each are read where they are asked for: to see
// whether a folder changed, compare what Folder gives.
func (m *Mirrors) FirstParents(ctx context.Context, src v1alpha1.Source, rev fleet.Revision) iter.Seq2[source.Commit, error] {
	return func(yield func(source.Commit, error) bool) {
		ask, err := parse(src)
		if err != nil {
			yield(source.Commit{}, err)
			return
		}
		branch, hash, err := parseRevision(rev)
		if err != nil {
			yield(source.Commit{}, err)
			return
		}
		if branch != "" {
			ask.branch = branch
		}
		if _, err := m.at(ctx, ask, hash, rev); err != nil {
			yield(source.Commit{}, err)
			return
		}
		m.mirror(ask.addr).firstParents(ctx, hash, func(h plumbing.Hash, c source.Commit, err error) bool {
			c.Revision = revisionOf(branch, h)
			return yield(c, wrap(ask.String(), err))
		})
	}
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
	snap, err := m.snapshot(h, files, "")
	return source.Commit{Snapshot: snap, Folder: files.folder}, err
}

// folder names a folder's content by the hash of its tree.
func (t *tree) folder(name string) (string, error) {
	n, err := t.find(name, true)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err != nil:
		return "", pathError("folder", name, err)
	case !n.is(modeFolder):
		return "", nil
	}
	return n.hash.String(), nil
}
