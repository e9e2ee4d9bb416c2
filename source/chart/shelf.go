// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/flotilla-dev/flotilla/source/disk"
)

const (
	archiveSuffix = ".tgz"
	boundSuffix   = ".bound"
	// maxBound is of how many versions it is kept what they were.
	maxBound = 1000
)

// shelf is the archives of one chart that are held on disk: <version>@<digest>.tgz. Beside them <version>.bound
// says which digest the version had when it was first met: it stays, when the archive has long been taken away.
type shelf struct {
	dir  string
	most int // archives
}

func (s shelf) archive(v version, digest string) string {
	return filepath.Join(s.dir, v.key()+"@"+digest+archiveSuffix)
}

// get an archive; nil where it is not held. One that is not what was written is taken away, so that it is
// fetched again.
func (s shelf) get(v version, digest string) ([]byte, error) {
	path := s.archive(v, digest)
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, disk.Failed("reading an archive that is held", err)
	}
	if digestOf(content) != digest {
		return nil, disk.Failed("taking a damaged archive away", ignoreGone(os.Remove(path)))
	}
	now := time.Now()
	os.Chtimes(path, now, now) //nolint:errcheck // it decides only which archive goes first
	return content, nil
}

// bound is the digest that a version had when it was first met; empty where it was not met yet.
func (s shelf) bound(v version) (string, error) {
	content, err := os.ReadFile(filepath.Join(s.dir, v.key()+boundSuffix))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", disk.Failed("reading which archive a version is", err)
	}
	digest, err := parseDigest(strings.TrimSpace(string(content)))
	if err != nil {
		return "", nil // a line that is not whole says nothing
	}
	return digest, nil
}

// bind a version to the archive that it was when it was first met.
func (s shelf) bind(v version, digest string) error {
	known, err := s.bound(v)
	if err != nil || known != "" {
		return err
	}
	return disk.WriteFile(filepath.Join(s.dir, v.key()+boundSuffix), disk.Content(sha256Prefix+digest+"\n"))
}

// put an archive on the shelf, for good, and take the one away that was not asked for the longest. It binds the
// version where the repository said that the version is this archive: whoever asks for an archive by its digest
// must not decide what the version is for others.
func (s shelf) put(v version, digest string, content []byte, binds bool) error {
	if err := s.write(v, digest, content, binds); err != nil {
		return disk.Failed("writing an archive", err)
	}
	return disk.Failed("taking old archives away", errors.Join(
		s.keep(archiveSuffix, s.most, s.archive(v, digest)), s.keep(boundSuffix, maxBound, "")))
}

func (s shelf) write(v version, digest string, content []byte, binds bool) error {
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	// What the version is comes first: an archive that nothing binds would let the version move.
	var err error
	if binds {
		err = s.bind(v, digest)
	}
	if err == nil {
		err = disk.WriteFile(s.archive(v, digest), disk.Content(content))
	}
	if err != nil {
		return err
	}
	return disk.SyncFolder(s.dir)
}

// keep so many of the files with a suffix, the last used first, and the one that was just written.
func (s shelf) keep(suffix string, most int, written string) error {
	type held struct {
		path string
		used time.Time
	}
	var all []held
	err := s.each(func(path string, e fs.DirEntry) error {
		info, err := e.Info()
		if err == nil && strings.HasSuffix(path, suffix) && path != written {
			all = append(all, held{path, info.ModTime()})
		}
		return ignoreGone(err)
	})
	if written != "" {
		most--
	}
	if err != nil || len(all) <= most {
		return err
	}
	slices.SortFunc(all, func(a, b held) int { return b.used.Compare(a.used) })
	for _, old := range all[most:] {
		err = errors.Join(err, ignoreGone(os.Remove(old.path)))
	}
	return err
}

// tidy removes what an earlier process left half done.
func (s shelf) tidy() error {
	return disk.Failed("tidying up", s.each(func(path string, e fs.DirEntry) error {
		if !strings.HasPrefix(e.Name(), disk.TempPrefix) {
			return nil
		}
		return ignoreGone(os.Remove(path))
	}))
}

func (s shelf) each(do func(path string, e fs.DirEntry) error) error {
	entries, err := os.ReadDir(s.dir)
	for _, e := range entries {
		err = errors.Join(err, do(filepath.Join(s.dir, e.Name()), e))
	}
	return ignoreGone(err)
}

// ignoreGone: somebody else took it away, or it never was.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
