// SPDX-License-Identifier: Apache-2.0

package git

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/flotilla-dev/flotilla/source"
)

const (
	maxLinks  = 40   // followed on the way to one file, as Linux does
	maxTarget = 4096 // bytes of a symbolic link
	maxDepth  = 256  // folders in folders
)

// tree is the files of one commit. Folders are read when somebody asks for them, files when they are opened;
// nothing is on disk but the packs. A view shows it as an fs.FS.
type tree struct {
	m      *mirror
	commit plumbing.Hash
	root   *node
	names  atomic.Int64 // read so far
	found               // by walk
}

// found is what a walk found in a tree.
type found struct {
	bytes   int64
	modules []moduleAt
	ignores []string // paths of .sourceignore files
}

// moduleAt is a submodule's place in a tree, and its commit.
type moduleAt struct {
	path   string
	commit plumbing.Hash
}

// node is a name in a tree.
type node struct {
	treeEntry
	mu    sync.Mutex
	kids  []*node // of a folder, by name
	read  bool
	size  int64 // of a file
	sized bool
}

func newTree(m *mirror, commit, root plumbing.Hash) *tree {
	return &tree{m: m, commit: commit, root: &node{treeEntry: treeEntry{name: ".", mode: modeFolder, hash: root}}}
}

func (n *node) is(mode uint32) bool { return n.mode&modeType == mode }

// children of a folder. The number of all names of a tree is bounded while they are read, for a small
// pack can hold a tree that has more names than a disk has bytes.
func (t *tree) children(n *node) ([]*node, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.read {
		return n.kids, nil
	}
	raw, err := t.m.object(n.hash, plumbing.TreeObject)
	if err != nil {
		return nil, t.lost(err)
	}
	entries, err := parseTree(raw)
	if err != nil {
		return nil, fmt.Errorf("commit %s: %w", t.commit, err)
	}
	if most := int64(t.m.limits.MaxFiles); t.names.Add(int64(len(entries))) > most {
		return nil, tooLarge("use a smaller repository, or raise the agent's limit", "commit %s has more than %d files and folders", t.commit, most)
	}
	kids := make([]*node, len(entries))
	for i, e := range entries {
		kids[i] = &node{treeEntry: e}
	}
	n.kids, n.read = kids, true
	return kids, nil
}

// bytesOf a file.
func (t *tree) bytesOf(n *node) (int64, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.sized {
		size, err := t.m.sizeOf(n.hash)
		if err != nil {
			return 0, t.lost(err)
		}
		n.size, n.sized = size, true
	}
	return n.size, nil
}

// lost sees to it that a commit of which something is missing is checked again before it is given out.
func (t *tree) lost(err error) error {
	if !lacking(err) {
		return err
	}
	t.m.seen.dropTree(t.commit)
	return fetchFailed("the mirror is mended at the next look", err)
}

// walk reads all folders and the sizes of all files, so that a tree over the limits, or one that is not
// whole, is known before anybody uses it.
func (t *tree) walk(ctx context.Context) error {
	var sum found
	var visit func(n *node, at string, depth int) error
	visit = func(n *node, at string, depth int) error {
		kids, err := t.children(n)
		if err == nil && depth > maxDepth {
			err = tooLarge("", "commit %s has folders nested more than %d deep", t.commit, maxDepth)
		}
		if err == nil && ctx.Err() != nil {
			err = fetchFailed("", fmt.Errorf("reading commit %s: %w", t.commit, ctx.Err()))
		}
		for i := 0; err == nil && i < len(kids); i++ {
			kid, name := kids[i], path.Join(at, kids[i].name)
			switch {
			case kid.is(modeFolder):
				err = visit(kid, name, depth+1)
			case kid.is(modeSubmodule):
				sum.modules = append(sum.modules, moduleAt{name, kid.hash})
			default:
				if kid.is(modeFile) && kid.name == ignoreFile {
					sum.ignores = append(sum.ignores, name)
				}
				var bytes int64
				bytes, err = t.bytesOf(kid)
				if sum.bytes += bytes; err == nil && sum.bytes > t.m.limits.MaxTreeBytes {
					err = tooLarge("use a smaller repository, or raise the agent's limit", "the files of commit %s are larger than %s together", t.commit, source.Size(t.m.limits.MaxTreeBytes))
				}
			}
		}
		return err
	}
	if err := visit(t.root, "", 0); err != nil {
		return err
	}
	t.found = sum
	return nil
}

func (t *tree) child(n *node, name string) (*node, error) {
	kids, err := t.children(n)
	if err != nil {
		return nil, err
	}
	i, ok := slices.BinarySearchFunc(kids, name, func(n *node, name string) int { return cmp.Compare(n.name, name) })
	if !ok {
		return nil, fs.ErrNotExist
	}
	return kids[i], nil
}

// target of a symbolic link: a path from the folder it is in.
func (t *tree) target(n *node) (string, error) {
	raw, err := t.blob(n, maxTarget)
	if err != nil {
		return "", err
	}
	if target := string(raw); target != "" && !path.IsAbs(target) {
		return target, nil
	}
	return "", unreadable("symbolic link %q leads out of the source, which is refused", n.name)
}

// blob is a file's content, which nobody may write in.
func (t *tree) blob(n *node, most int64) ([]byte, error) {
	bytes, err := t.bytesOf(n)
	if err != nil {
		return nil, err
	}
	if bytes > most {
		return nil, tooLarge("take it out of the source's path, or raise the agent's limit", "file %q has %d bytes, at most %d are read", n.name, bytes, most)
	}
	content, err := t.m.object(n.hash, plumbing.BlobObject)
	return content, t.lost(err)
}
