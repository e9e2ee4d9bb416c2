// SPDX-License-Identifier: Apache-2.0

package git

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
)

const (
	maxLinks  = 40   // followed on the way to one file, as Linux does
	maxTarget = 4096 // bytes of a symbolic link
	maxDepth  = 256  // folders in folders
)

// tree is the files of one commit as an fs.FS. Folders are read when somebody asks for them, files when
// they are opened; nothing is on disk but the packs.
//
// A symbolic link is followed where it stays inside the commit and refused where it does not; listings
// show it as a link. A submodule is listed, and refused when it is opened.
type tree struct {
	m      *mirror
	commit plumbing.Hash
	root   *node
	names  atomic.Int64 // read so far
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

var (
	_ fs.ReadDirFS  = (*tree)(nil)
	_ fs.ReadFileFS = (*tree)(nil)
	_ fs.StatFS     = (*tree)(nil)
	_ fs.ReadLinkFS = (*tree)(nil)
)

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
	var sum int64
	var visit func(n *node, depth int) error
	visit = func(n *node, depth int) error {
		kids, err := t.children(n)
		if err == nil && depth > maxDepth {
			err = tooLarge("", "commit %s has folders nested more than %d deep", t.commit, maxDepth)
		}
		if err == nil && ctx.Err() != nil {
			err = fetchFailed("", fmt.Errorf("reading commit %s: %w", t.commit, ctx.Err()))
		}
		for i := 0; err == nil && i < len(kids); i++ {
			switch kid := kids[i]; {
			case kid.is(modeFolder):
				err = visit(kid, depth+1)
			case kid.is(modeSubmodule):
			default:
				var bytes int64
				bytes, err = t.bytesOf(kid)
				if sum += bytes; err == nil && sum > t.m.limits.MaxTreeBytes {
					err = tooLarge("use a smaller repository, or raise the agent's limit", "the files of commit %s are larger than %s together", t.commit, size(t.m.limits.MaxTreeBytes))
				}
			}
		}
		return err
	}
	return visit(t.root, 0)
}

// find the node at a path, through links that stay inside. With follow, the last name is followed too.
func (t *tree) find(name string, follow bool) (*node, error) {
	if !fs.ValidPath(name) {
		return nil, fs.ErrInvalid
	}
	at, todo, links := []*node{t.root}, strings.Split(name, "/"), 0
	for len(todo) > 0 {
		part := todo[0]
		todo = todo[1:]
		here := at[len(at)-1]
		switch {
		case here.is(modeSubmodule):
			return nil, submodule(here)
		case !here.is(modeFolder):
			return nil, fs.ErrNotExist
		case part == "." || part == "":
			continue
		case part == "..":
			if at = at[:len(at)-1]; len(at) == 0 {
				return nil, unreadable("a symbolic link leads out of the source, which is refused")
			}
			continue
		}
		kid, err := t.child(here, part)
		if err != nil {
			return nil, err
		}
		if !kid.is(modeLink) || len(todo) == 0 && !follow {
			at = append(at, kid)
			continue
		}
		if links++; links > maxLinks {
			return nil, unreadable("more than %d symbolic links to follow", maxLinks)
		}
		target, err := t.target(kid)
		if err != nil {
			return nil, err
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	return at[len(at)-1], nil
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

func submodule(n *node) error {
	return unreadable("%q is a submodule; submodules are not fetched: put its files into this repository", n.name)
}

func pathError(op, name string, err error) error {
	if err == nil {
		return nil
	}
	var inner *fs.PathError
	if errors.As(err, &inner) {
		return err
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// Open a file or folder.
func (t *tree) Open(name string) (fs.File, error) {
	n, err := t.find(name, true)
	if err != nil {
		return nil, pathError("open", name, err)
	}
	file, err := t.open(n, path.Base(name))
	return file, pathError("open", name, err)
}

func (t *tree) open(n *node, name string) (fs.File, error) {
	if n.is(modeSubmodule) {
		return nil, submodule(n)
	}
	if n.is(modeFolder) {
		list, err := t.list(n)
		if err != nil {
			return nil, err
		}
		return &openFolder{info: info{t, n, name}, list: list}, nil
	}
	content, err := t.blob(n, t.m.limits.MaxFileBytes)
	if err != nil {
		return nil, err
	}
	return &openFile{Reader: bytes.NewReader(content), info: info{t, n, name}}, nil
}

// ReadFile reads a whole file. The caller may write in what it gets.
func (t *tree) ReadFile(name string) ([]byte, error) {
	n, err := t.find(name, true)
	if err != nil {
		return nil, pathError("read", name, err)
	}
	if n.is(modeFolder) {
		return nil, pathError("read", name, errors.New("is a folder"))
	}
	if n.is(modeSubmodule) {
		return nil, pathError("read", name, submodule(n))
	}
	content, err := t.blob(n, t.m.limits.MaxFileBytes)
	return bytes.Clone(content), pathError("read", name, err)
}

// ReadDir lists a folder by name.
func (t *tree) ReadDir(name string) ([]fs.DirEntry, error) {
	n, err := t.find(name, true)
	if err == nil && n.is(modeSubmodule) {
		err = submodule(n)
	}
	if err == nil && !n.is(modeFolder) {
		err = errors.New("not a folder")
	}
	if err != nil {
		return nil, pathError("readdir", name, err)
	}
	list, err := t.list(n)
	return list, pathError("readdir", name, err)
}

func (t *tree) list(n *node) ([]fs.DirEntry, error) {
	kids, err := t.children(n)
	if err != nil {
		return nil, err
	}
	list := make([]fs.DirEntry, len(kids))
	for i, kid := range kids {
		list[i] = info{t, kid, kid.name}
	}
	return list, nil
}

// Stat says what is at a path, after following links.
func (t *tree) Stat(name string) (fs.FileInfo, error) { return t.stat("stat", name, true) }

// Lstat says what is at a path, and of a link that it is one.
func (t *tree) Lstat(name string) (fs.FileInfo, error) { return t.stat("lstat", name, false) }

func (t *tree) stat(op, name string, follow bool) (fs.FileInfo, error) {
	n, err := t.find(name, follow)
	if err != nil {
		return nil, pathError(op, name, err)
	}
	i, err := info{t, n, path.Base(name)}.Info()
	return i, pathError(op, name, err)
}

// ReadLink is where a symbolic link leads, as it is written.
func (t *tree) ReadLink(name string) (string, error) {
	n, err := t.find(name, false)
	if err == nil && !n.is(modeLink) {
		err = fs.ErrInvalid
	}
	if err != nil {
		return "", pathError("readlink", name, err)
	}
	raw, err := t.blob(n, maxTarget)
	return string(raw), pathError("readlink", name, err)
}

// info is a node under the name it was asked for by: a DirEntry, and a FileInfo once its size is known.
type info struct {
	t    *tree
	n    *node
	name string
}

func (i info) Name() string               { return i.name }
func (i info) IsDir() bool                { return i.n.is(modeFolder) }
func (i info) Type() fs.FileMode          { return i.Mode().Type() }
func (i info) ModTime() time.Time         { return time.Time{} } // git keeps none
func (i info) Sys() any                   { return nil }
func (i info) String() string             { return fs.FormatDirEntry(i) }
func (i info) Stat() (fs.FileInfo, error) { return i.Info() }

// Info reads the size, so that Size can give it.
func (i info) Info() (fs.FileInfo, error) {
	if !i.n.is(modeFolder) && !i.n.is(modeSubmodule) {
		if _, err := i.t.bytesOf(i.n); err != nil {
			return nil, pathError("stat", i.name, err)
		}
	}
	return i, nil
}

func (i info) Size() int64 {
	i.n.mu.Lock()
	defer i.n.mu.Unlock()
	return i.n.size
}

func (i info) Mode() fs.FileMode {
	switch {
	case i.n.is(modeFolder):
		return fs.ModeDir | 0o555
	case i.n.is(modeLink):
		return fs.ModeSymlink | 0o777
	case i.n.is(modeSubmodule):
		return fs.ModeIrregular | 0o444
	case i.n.mode&0o111 != 0:
		return 0o555
	}
	return 0o444
}

// openFile is a file that was read. It cannot be read after Close.
type openFile struct {
	*bytes.Reader
	info
	closed bool
}

func (f *openFile) Read(b []byte) (int, error) {
	if f.closed {
		return 0, pathError("read", f.name, fs.ErrClosed)
	}
	return f.Reader.Read(b)
}

func (f *openFile) Close() error {
	if f.closed {
		return pathError("close", f.name, fs.ErrClosed)
	}
	f.closed = true
	return nil
}

// Size is the file's; bytes.Reader has one too.
func (f *openFile) Size() int64 { return f.info.Size() }

// openFolder is a folder that is being listed.
type openFolder struct {
	info
	list []fs.DirEntry
	next int
}

func (d *openFolder) Read([]byte) (int, error) {
	return 0, pathError("read", d.name, errors.New("is a folder"))
}

func (d *openFolder) Close() error { return nil }

// ReadDir gives the next n entries, or all that are left where n is not positive.
func (d *openFolder) ReadDir(n int) ([]fs.DirEntry, error) {
	left := d.list[d.next:]
	if n > 0 && len(left) == 0 {
		return nil, io.EOF
	}
	if n > 0 && n < len(left) {
		left = left[:n]
	}
	d.next += len(left)
	return slices.Clone(left), nil
}
