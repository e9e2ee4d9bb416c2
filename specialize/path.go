// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// folder is the payload's folder for this member: a valid fs.FS path of a folder that is there.
func (in Input) folder(t *tree) (string, error) {
	filled, err := in.fillPath(in.Path)
	if err != nil {
		return "", err
	}
	folder, err := inside(filled)
	if err != nil {
		return "", err
	}
	info, err := t.lstat(folder)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", hinted(v1alpha1.ReasonPathNotFound, neighbours(t, folder), "%s: no such folder in the source", shown(folder))
	case err != nil:
		return "", err
	case !info.IsDir():
		return "", failure(v1alpha1.ReasonPathNotFound, "%s is a file; spec.source.path names a folder", shown(folder))
	}
	return folder, nil
}

// inside cleans a path and refuses what would leave the source.
func inside(p string) (string, error) {
	if strings.HasPrefix(p, "/") || slices.Contains(strings.Split(p, "/"), "..") {
		return "", failure(v1alpha1.ReasonInvalid, "spec.source.path: %q: a path inside the source: no leading '/' and no '..'", p)
	}
	clean := path.Clean(p)
	if !fs.ValidPath(clean) {
		return "", failure(v1alpha1.ReasonInvalid, "spec.source.path: %q is not a path", p)
	}
	return clean, nil
}

// neighbours says which folders are there where the path stops leading anywhere.
func neighbours(t *tree, folder string) string {
	parent, missing := path.Dir(folder), path.Base(folder)
	for parent != "." {
		if info, err := t.lstat(parent); err == nil && info.IsDir() {
			break
		}
		parent, missing = path.Dir(parent), path.Base(parent)
	}
	entries, err := t.readDir(parent)
	if err != nil {
		return ""
	}
	var folders []string
	for _, e := range entries {
		if e.IsDir() && !hidden(e.Name()) {
			folders = append(folders, e.Name())
		}
	}
	if len(folders) == 0 {
		return shown(parent) + " holds no folders"
	}
	return fmt.Sprintf("%s holds: %s", shown(parent), list(byLikeness(missing, folders)))
}

func hidden(name string) bool { return strings.HasPrefix(name, ".") }
