// SPDX-License-Identifier: Apache-2.0

package git

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/source/disk"
)

// A mirror's folder holds generations: g1, g2, ... The highest is the one in force; a rebuilt mirror
// gets its number by a rename when it is complete. Each is a bare repository that git itself can read:
// its references are refs/flotilla/<commit>, one for each commit that no other leads to.
const (
	packFolder = "objects/pack"
	refsFolder = "refs/flotilla"
)

// initGeneration makes an empty bare repository.
func initGeneration(dir, url string) error {
	for _, sub := range []string{packFolder, refsFolder, "objects/info", "refs/heads"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
	}
	for name, content := range map[string]string{
		"HEAD":        "ref: refs/heads/" + v1alpha1.DefaultBranch + "\n",
		"config":      "[core]\n\trepositoryformatversion = 0\n\tbare = true\n[gc]\n\tauto = 0\n",
		"description": "mirror of " + url + ", kept by a flotilla agent\n",
	} {
		if err := disk.WriteFile(filepath.Join(dir, name), disk.Content(content)); err != nil {
			return err
		}
	}
	return nil
}

// generations under dir, and the number of the highest; 0 where there is none.
func generations(dir string) (numbers []int, highest int, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	for _, e := range entries {
		if n, err := strconv.Atoi(strings.TrimPrefix(e.Name(), "g")); err == nil && n > 0 && e.Name() == generation(n) {
			numbers, highest = append(numbers, n), max(highest, n)
		}
	}
	return numbers, highest, nil
}

func generation(n int) string { return fmt.Sprintf("g%d", n) }

// tidy removes what an earlier process left half done.
func tidy(dir string, keep int) error {
	numbers, _, err := generations(dir)
	for _, n := range numbers {
		if n < keep {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, generation(n))))
		}
	}
	for _, folder := range []string{dir, filepath.Join(dir, generation(keep), packFolder), filepath.Join(dir, generation(keep), refsFolder)} {
		left, globErr := filepath.Glob(filepath.Join(folder, disk.TempPrefix+"*"))
		err = errors.Join(err, globErr)
		for _, path := range left {
			err = errors.Join(err, os.RemoveAll(path))
		}
	}
	return err
}

// readTips reads the references of a generation. One that is not whole says nothing and is removed.
func readTips(dir string) (map[plumbing.Hash]bool, error) {
	entries, err := os.ReadDir(filepath.Join(dir, refsFolder))
	if err != nil {
		return nil, err
	}
	tips := map[plumbing.Hash]bool{}
	for _, e := range entries {
		path := filepath.Join(dir, refsFolder, e.Name())
		h, err := parseHash(e.Name())
		if err != nil {
			continue
		}
		if content, err := os.ReadFile(path); err != nil || string(content) != h.String()+"\n" {
			os.Remove(path) //nolint:errcheck // it is ignored either way
			continue
		}
		tips[h] = true
	}
	return tips, nil
}

func writeTip(dir string, h plumbing.Hash) error {
	return disk.WriteFile(filepath.Join(dir, refsFolder, h.String()), disk.Content(h.String()+"\n"))
}
