// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"bytes"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/flotilla-dev/flotilla/source"
)

// files of one chart, in memory: an fs.FS that never changes. The key is the path, "." is the root.
type files map[string]*file

type file struct {
	name    string
	content []byte
	folder  bool
	kids    []fs.DirEntry // of a folder, by name
}

var (
	_ fs.ReadDirFS  = files(nil)
	_ fs.ReadFileFS = files(nil)
	_ fs.StatFS     = files(nil)
)

func (f files) find(op, name string) (*file, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	if found := f[name]; found != nil {
		return found, nil
	}
	return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
}

func (f files) Open(name string) (fs.File, error) {
	found, err := f.find("open", name)
	if err != nil {
		return nil, err
	}
	return &opened{file: found, path: name, list: source.Listing{Entries: found.kids}, Reader: bytes.NewReader(found.content)}, nil
}

func (f files) ReadFile(name string) ([]byte, error) {
	found, err := f.find("read", name)
	if err == nil && found.folder {
		err = &fs.PathError{Op: "read", Path: name, Err: errIsFolder}
	}
	if err != nil {
		return nil, err
	}
	return append([]byte{}, found.content...), nil
}

func (f files) ReadDir(name string) ([]fs.DirEntry, error) {
	found, err := f.find("readdir", name)
	if err == nil && !found.folder {
		err = &fs.PathError{Op: "readdir", Path: name, Err: errIsFile}
	}
	if err != nil {
		return nil, err
	}
	return slices.Clone(found.kids), nil
}

func (f files) Stat(name string) (fs.FileInfo, error) { return f.find("stat", name) }

const (
	errIsFolder = fileError("it is a folder")
	errIsFile   = fileError("it is a file")
)

type fileError string

func (e fileError) Error() string { return string(e) }

func (f *file) Name() string               { return f.name }
func (f *file) Size() int64                { return int64(len(f.content)) }
func (f *file) ModTime() time.Time         { return time.Time{} }
func (f *file) IsDir() bool                { return f.folder }
func (f *file) Sys() any                   { return nil }
func (f *file) Type() fs.FileMode          { return f.Mode().Type() }
func (f *file) Info() (fs.FileInfo, error) { return f, nil }
func (f *file) String() string             { return fs.FormatDirEntry(f) }

func (f *file) Mode() fs.FileMode {
	if f.folder {
		return fs.ModeDir | 0o555
	}
	return 0o444
}

// opened is a file or folder that somebody reads.
type opened struct {
	*bytes.Reader
	file *file
	path string
	list source.Listing
}

func (o *opened) Stat() (fs.FileInfo, error) { return o.file, nil }
func (o *opened) Close() error               { return nil }

func (o *opened) Read(p []byte) (int, error) {
	if o.file.folder {
		return 0, &fs.PathError{Op: "read", Path: o.path, Err: errIsFolder}
	}
	return o.Reader.Read(p)
}

func (o *opened) ReadDir(n int) ([]fs.DirEntry, error) {
	if !o.file.folder {
		return nil, &fs.PathError{Op: "readdir", Path: o.path, Err: errIsFile}
	}
	return o.list.ReadDir(n)
}

// newFiles is a root without files.
func newFiles() files { return files{".": {name: ".", folder: true}} }

// add a file or folder, and the folders that lead to it. It says false where the name is taken.
func (f files) add(name string, content []byte, folder bool) bool {
	if have := f[name]; have != nil {
		return folder && have.folder
	}
	parent := path.Dir(name)
	if !f.add(parent, nil, true) {
		return false
	}
	added := &file{name: path.Base(name), content: content, folder: folder}
	f[name] = added
	f[parent].kids = append(f[parent].kids, added)
	return true
}

// sort the listings; it comes after the last add.
func (f files) sort() {
	for _, each := range f {
		slices.SortFunc(each.kids, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	}
}
