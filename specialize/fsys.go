// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// mount is where kustomize sees the root of the source. It is not "/": a path with too many ".." then
// ends beside the source, where nothing is, and not at its root.
const mount = "/source"

// overlay is where it sees the kustomization that the spec's transforms make. It lies beside the source, because
// a kustomization may not lie within what it is built over.
const overlay = "/specialize"

// sealed is the file system that kustomize is given: the files that the walk has read and let pass, and
// no others. It is read-only, holds no link, and reads nothing itself, so that whatever the walk may
// have overlooked is simply not there.
type sealed struct {
	files map[string][]byte // by the path that kustomize sees
	dirs  map[string]bool
}

var _ filesys.FileSystem = (*sealed)(nil)

func newSealed() *sealed {
	return &sealed{files: map[string][]byte{}, dirs: map[string]bool{mount: true, overlay: true}}
}

// add lets kustomize see a file of the source, and the folders on the way to it.
func (s *sealed) add(name string, content []byte) {
	s.files[path.Join(mount, name)] = content
	for dir := path.Join(mount, path.Dir(name)); !s.dirs[dir]; dir = path.Dir(dir) {
		s.dirs[dir] = true
	}
}

// overlaid lets kustomize see a file that stands in no source.
func (s *sealed) overlaid(name string, content []byte) { s.files[path.Join(overlay, name)] = content }

// at is the path that kustomize means by name.
func at(name string) string { return path.Clean("/" + name) }

func (s *sealed) missing(op, name string) error {
	return &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
}

func (s *sealed) readOnly(op, name string) error {
	return &fs.PathError{Op: op, Path: name, Err: fs.ErrPermission}
}

// CleanedAbs gives the folder that name is, or the folder and file.
func (s *sealed) CleanedAbs(name string) (filesys.ConfirmedDir, string, error) {
	name = at(name)
	if s.dirs[name] {
		return filesys.ConfirmedDir(name), "", nil
	}
	if _, isFile := s.files[name]; isFile {
		return filesys.ConfirmedDir(path.Dir(name)), path.Base(name), nil
	}
	return "", "", s.missing("find", name)
}

// ReadFile gives a copy, because kustomize may keep and change what it gets.
func (s *sealed) ReadFile(name string) ([]byte, error) {
	if content, isFile := s.files[at(name)]; isFile {
		return bytes.Clone(content), nil
	}
	return nil, s.missing("read", name)
}

// IsDir says whether name is a folder.
func (s *sealed) IsDir(name string) bool {
	return s.dirs[at(name)]
}

// Exists says whether name is there.
func (s *sealed) Exists(name string) bool {
	_, _, err := s.CleanedAbs(name)
	return err == nil
}

// names gives every file and folder, sorted, as kustomize calls them.
func (s *sealed) names() []string {
	all := slices.Collect(maps.Keys(s.dirs))
	all = slices.AppendSeq(all, maps.Keys(s.files))
	slices.Sort(all)
	return all
}

// ReadDir gives the names in a folder, sorted.
func (s *sealed) ReadDir(name string) ([]string, error) {
	if !s.IsDir(name) {
		return nil, s.missing("read folder", name)
	}
	dir := at(name)
	var entries []string
	for _, n := range s.names() {
		if n != dir && path.Dir(n) == dir {
			entries = append(entries, path.Base(n))
		}
	}
	return entries, nil
}

// Glob gives the files and folders that match a pattern, sorted.
func (s *sealed) Glob(pattern string) ([]string, error) {
	var matches []string
	for _, n := range s.names() {
		ok, err := path.Match(pattern, n)
		if err != nil {
			return nil, fmt.Errorf("glob %q: %w", pattern, err)
		}
		if ok {
			matches = append(matches, n)
		}
	}
	return matches, nil
}

// Walk visits everything below a folder, sorted.
func (s *sealed) Walk(name string, visit filepath.WalkFunc) error {
	root := at(name)
	skip := ""
	for _, n := range s.names() {
		if n != root && !strings.HasPrefix(n, root+"/") || skip != "" && strings.HasPrefix(n, skip) {
			continue
		}
		err := visit(n, s.stat(n), nil)
		switch {
		case err == filepath.SkipAll: //nolint:errorlint // as filepath.Walk compares it
			return nil
		case err == filepath.SkipDir: //nolint:errorlint // as filepath.Walk compares it
			if !s.IsDir(n) {
				n = path.Dir(n)
			}
			skip = n + "/"
		case err != nil:
			return err
		}
	}
	return nil
}

// Open gives a file to read.
func (s *sealed) Open(name string) (filesys.File, error) {
	content, err := s.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return &sealedFile{Reader: bytes.NewReader(content), info: s.stat(name)}, nil
}

// The writing half of the interface: nothing is ever written.

func (s *sealed) Create(name string) (filesys.File, error) { return nil, s.readOnly("create", name) }
func (s *sealed) Mkdir(name string) error                  { return s.readOnly("create folder", name) }
func (s *sealed) MkdirAll(name string) error               { return s.readOnly("create folder", name) }
func (s *sealed) RemoveAll(name string) error              { return s.readOnly("remove", name) }
func (s *sealed) WriteFile(name string, _ []byte) error    { return s.readOnly("write", name) }
func (f *sealedFile) Write([]byte) (int, error)            { return 0, fs.ErrPermission }
func (f *sealedFile) Close() error                         { return nil }
func (f *sealedFile) Stat() (fs.FileInfo, error)           { return f.info, nil }

type sealedFile struct {
	*bytes.Reader
	info fs.FileInfo
}

func (s *sealed) stat(name string) fs.FileInfo {
	name = at(name)
	return sealedInfo{name: path.Base(name), size: int64(len(s.files[name])), dir: s.dirs[name]}
}

// sealedInfo is what is known of a file: no time, because commits have none for files.
type sealedInfo struct {
	name string
	size int64
	dir  bool
}

func (i sealedInfo) Name() string       { return i.name }
func (i sealedInfo) Size() int64        { return i.size }
func (i sealedInfo) ModTime() time.Time { return time.Time{} }
func (i sealedInfo) IsDir() bool        { return i.dir }
func (i sealedInfo) Sys() any           { return nil }

func (i sealedInfo) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o555
	}
	return 0o444
}
