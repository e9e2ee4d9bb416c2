// SPDX-License-Identifier: Apache-2.0

package git

import (
	"bytes"
	"errors"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/flotilla-dev/flotilla/source"
)

// view shows a commit as an fs.FS: its tree, those of submodules at their places, without what the source
// leaves out.
//
// A symbolic link is followed where it stays inside and refused where it does not; listings show it as a
// link. A submodule that is not taken in is listed, and refused when it is opened.
type view struct {
	root   *tree
	mounts map[string]*tree    // submodules, by path
	keep   map[string]struct{} // paths of what is shown, folders and all; nil is everything
}

var (
	_ fs.ReadDirFS  = (*view)(nil)
	_ fs.ReadFileFS = (*view)(nil)
	_ fs.StatFS     = (*view)(nil)
	_ fs.ReadLinkFS = (*view)(nil)
)

// place is a node in a view.
type place struct {
	t    *tree
	n    *node
	path string
}

func (p place) read() ([]byte, error) { return p.t.blob(p.n, p.t.m.limits.MaxFileBytes) }

func (v *view) start() place { return place{v.root, v.root.root, "."} }

// step from a folder to one that is in it.
func (v *view) step(from place, kid *node) place {
	to := place{from.t, kid, path.Join(from.path, kid.name)}
	if t := v.mounts[to.path]; t != nil && kid.is(modeSubmodule) {
		to.t, to.n = t, t.root
	}
	return to
}

func (v *view) shows(name string) bool {
	_, ok := v.keep[name]
	return ok || v.keep == nil || name == "."
}

// find what is at a path, through links that stay inside. With follow, the last name is followed too.
func (v *view) find(name string, follow bool) (place, error) {
	if !fs.ValidPath(name) {
		return place{}, fs.ErrInvalid
	}
	at, todo, links := []place{v.start()}, strings.Split(name, "/"), 0
	for len(todo) > 0 {
		part := todo[0]
		todo = todo[1:]
		here := at[len(at)-1]
		switch {
		case here.n.is(modeSubmodule):
			return place{}, submodule(here.n)
		case !here.n.is(modeFolder):
			return place{}, fs.ErrNotExist
		case part == "." || part == "":
			continue
		case part == "..":
			if at = at[:len(at)-1]; len(at) == 0 {
				return place{}, unreadable("a symbolic link leads out of the source, which is refused")
			}
			continue
		}
		kid, err := here.t.child(here.n, part)
		if err != nil {
			return place{}, err
		}
		to := v.step(here, kid)
		if !v.shows(to.path) {
			return place{}, fs.ErrNotExist
		}
		if !kid.is(modeLink) || len(todo) == 0 && !follow {
			at = append(at, to)
			continue
		}
		if links++; links > maxLinks {
			return place{}, unreadable("more than %d symbolic links to follow", maxLinks)
		}
		target, err := here.t.target(kid)
		if err != nil {
			return place{}, err
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	return at[len(at)-1], nil
}

func submodule(n *node) error {
	return unreadable("%q is a submodule; set spec.source.git.recurseSubmodules to take its files in", n.name)
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
func (v *view) Open(name string) (fs.File, error) {
	at, err := v.find(name, true)
	if err != nil {
		return nil, pathError("open", name, err)
	}
	file, err := v.open(at, path.Base(name))
	return file, pathError("open", name, err)
}

func (v *view) open(at place, name string) (fs.File, error) {
	if at.n.is(modeSubmodule) {
		return nil, submodule(at.n)
	}
	if at.n.is(modeFolder) {
		list, err := v.list(at)
		if err != nil {
			return nil, err
		}
		return &openFolder{info: info{at.t, at.n, name}, Listing: source.Listing{Entries: list}}, nil
	}
	content, err := at.read()
	if err != nil {
		return nil, err
	}
	return &openFile{Reader: bytes.NewReader(content), info: info{at.t, at.n, name}}, nil
}

// ReadFile reads a whole file. The caller may write in what it gets.
func (v *view) ReadFile(name string) ([]byte, error) {
	at, err := v.find(name, true)
	if err != nil {
		return nil, pathError("read", name, err)
	}
	if at.n.is(modeFolder) {
		return nil, pathError("read", name, errors.New("is a folder"))
	}
	if at.n.is(modeSubmodule) {
		return nil, pathError("read", name, submodule(at.n))
	}
	content, err := at.read()
	return bytes.Clone(content), pathError("read", name, err)
}

// ReadDir lists a folder by name.
func (v *view) ReadDir(name string) ([]fs.DirEntry, error) {
	at, err := v.find(name, true)
	if err == nil && at.n.is(modeSubmodule) {
		err = submodule(at.n)
	}
	if err == nil && !at.n.is(modeFolder) {
		err = errors.New("not a folder")
	}
	if err != nil {
		return nil, pathError("readdir", name, err)
	}
	list, err := v.list(at)
	return list, pathError("readdir", name, err)
}

func (v *view) list(at place) ([]fs.DirEntry, error) {
	kids, err := at.t.children(at.n)
	if err != nil {
		return nil, err
	}
	list := make([]fs.DirEntry, 0, len(kids))
	for _, kid := range kids {
		if to := v.step(at, kid); v.shows(to.path) {
			list = append(list, info{to.t, to.n, kid.name})
		}
	}
	return list, nil
}

// Stat says what is at a path, after following links.
func (v *view) Stat(name string) (fs.FileInfo, error) { return v.stat("stat", name, true) }

// Lstat says what is at a path, and of a link that it is one.
func (v *view) Lstat(name string) (fs.FileInfo, error) { return v.stat("lstat", name, false) }

func (v *view) stat(op, name string, follow bool) (fs.FileInfo, error) {
	at, err := v.find(name, follow)
	if err != nil {
		return nil, pathError(op, name, err)
	}
	i, err := info{at.t, at.n, path.Base(name)}.Info()
	return i, pathError(op, name, err)
}

// ReadLink is where a symbolic link leads, as it is written.
func (v *view) ReadLink(name string) (string, error) {
	at, err := v.find(name, false)
	if err == nil && !at.n.is(modeLink) {
		err = fs.ErrInvalid
	}
	if err != nil {
		return "", pathError("readlink", name, err)
	}
	raw, err := at.t.blob(at.n, maxTarget)
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
	source.Listing
}

func (d *openFolder) Read([]byte) (int, error) {
	return 0, pathError("read", d.name, errors.New("is a folder"))
}

func (d *openFolder) Close() error { return nil }
