// SPDX-License-Identifier: Apache-2.0

package preview

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Read a file, a folder with everything below it, or standard input where the path is "-". Of a folder
// the .yaml and .yml files count; hidden ones do not.
func Read(path string, stdin io.Reader) (Manifests, error) {
	if path == "-" {
		body, err := io.ReadAll(io.LimitReader(stdin, maxFile+1))
		if err != nil {
			return Manifests{}, fmt.Errorf("standard input: %w", err)
		}
		return Parse("standard input", body)
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Manifests{}, fmt.Errorf("%s: no such file or folder", path)
	case err != nil:
		return Manifests{}, err
	case !info.IsDir():
		return readFile(path)
	}
	var all Manifests
	var faults []error
	err = filepath.WalkDir(path, func(file string, entry fs.DirEntry, err error) error {
		hidden := strings.HasPrefix(entry.Name(), ".") && file != path
		switch {
		case err != nil:
			return err
		case hidden && entry.IsDir():
			return fs.SkipDir
		case hidden, entry.IsDir(), filepath.Ext(file) != ".yaml" && filepath.Ext(file) != ".yml":
			return nil
		}
		m, err := readFile(file)
		if err != nil {
			faults = append(faults, err)
		}
		all.Rollouts, all.Members = append(all.Rollouts, m.Rollouts...), append(all.Members, m.Members...)
		return nil
	})
	return all, errors.Join(append(faults, err)...)
}

func readFile(path string) (Manifests, error) {
	body, err := os.ReadFile(path)
	if err != nil {
		return Manifests{}, err
	}
	return Parse(filepath.ToSlash(path), body)
}
