// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"

	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// tree reads the source for one Render. Symbolic links are refused wherever they are met: what they
// lead to may be outside the source, and differs from machine to machine.
type tree struct {
	files fs.FS
	// plainDirs are folders of which every part is known to be no link.
	plainDirs map[string]bool
	// used so far.
	used budget
}

func newTree(files fs.FS) *tree {
	return &tree{files: files, plainDirs: map[string]bool{".": true}}
}

// lstat is what a name is. Every folder on the way to it is looked at as well.
func (t *tree) lstat(name string) (fs.FileInfo, error) {
	if !fs.ValidPath(name) {
		return nil, fmt.Errorf("%q: %w", name, fs.ErrInvalid)
	}
	if parent := path.Dir(name); !t.plainDirs[parent] {
		info, err := t.lstat(parent)
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			return nil, &fs.PathError{Op: "lstat", Path: name, Err: fs.ErrNotExist}
		}
		t.plainDirs[parent] = true
	}
	info, err := fs.Lstat(t.files, name)
	if err != nil {
		return nil, err
	}
	if err := checkMode(name, info.Mode()); err != nil {
		return nil, err
	}
	return info, nil
}

// checkMode refuses what is neither file nor folder.
func checkMode(name string, mode fs.FileMode) error {
	switch {
	case mode&fs.ModeSymlink != 0:
		return hinted(v1alpha1.ReasonRenderFailed, "copy the file, or name what it leads to", "%s is a symbolic link; payloads may not hold any", name)
	case !mode.IsRegular() && !mode.IsDir():
		return failure(v1alpha1.ReasonRenderFailed, "%s is neither a file nor a folder (git submodules are not read)", name)
	}
	return nil
}

// readDir gives a folder's entries, sorted by name.
func (t *tree) readDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(t.files, name)
	if err != nil {
		return nil, fmt.Errorf("read folder %s: %w", shown(name), err)
	}
	return entries, nil
}

// isFile says whether name is there and is a file.
func (t *tree) isFile(name string) (bool, error) {
	info, err := t.lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && !info.IsDir(), err
}

// read gives a file's bytes, and counts them.
func (t *tree) read(name string) ([]byte, error) {
	if _, err := t.lstat(name); err != nil {
		return nil, err
	}
	f, err := t.files.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	defer func() { _ = f.Close() }() // nothing was written
	content, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return content, t.used.file(name, len(content))
}
