// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"os"

	"go.etcd.io/bbolt"
)

// A file keeps the size of the most that it ever held: bbolt uses free pages again and never gives them back, and pages from
// which most was taken out stay. After a big drop (rollouts that were retired, a zone that is not carried any more) Open
// copies what is left.
const (
	// sparseFrom is the size in bytes below which a file is left alone.
	sparseFrom = 4 << 20
	// sparseShare of the file has to be free. A copy is full, and pages are at least two thirds full when they were filled at
	// random: none is due again before as much was taken out.
	sparseShare = 0.5
	// compactTx bounds one transaction of the copy, in bytes.
	compactTx = 4 << 20

	compactSuffix = ".compact"
)

// sparse says that a copy would be worth its while.
func (s *Store) sparse() bool {
	info, err := os.Stat(s.db.Path())
	if err != nil || info.Size() < sparseFrom {
		return false
	}
	free := int64(s.db.Stats().FreePageN+s.db.Stats().PendingPageN) * int64(s.db.Info().PageSize)
	// What bbolt grew the file by and never wrote is free as well.
	_ = s.db.View(func(tx *bbolt.Tx) error {
		free += info.Size() - tx.Size() + s.slack
		return nil
	})
	return float64(free) >= sparseShare*float64(info.Size())
}

// compact puts a copy without free pages in the file's place and gives how much smaller it is; 0 where that was not to be:
// the file is as it was. After a success the store lies over a file without a name, and is to be opened anew.
func (s *Store) compact(size int64) (freed int64) {
	path := s.db.Path()
	return s.compactBy(size, compactSteps{
		copied: func() error { return nil }, synced: func() error { return nil },
		rename: func() error { return os.Rename(path+compactSuffix, path) },
	})
}

// compactSteps are what a test may come between.
type compactSteps struct{ copied, synced, rename func() error }

func (s *Store) compactBy(size int64, steps compactSteps) int64 {
	path := s.db.Path()
	draft := path + compactSuffix
	left, err := s.copyTo(draft, steps)
	if err == nil && left >= size {
		err = errUnchanged
	}
	if err == nil {
		err = steps.rename()
	}
	if err != nil {
		_ = os.Remove(draft)
		return 0
	}
	// Where the folder is not synced a crash may bring the old file back, which says the same.
	_ = syncFolder(path)
	return size - left
}

// copyTo a file, to the disk and not further.
func (s *Store) copyTo(draft string, steps compactSteps) (size int64, err error) {
	var file *os.File
	err = guard(func() error {
		to, err := bbolt.Open(draft, 0o600, &bbolt.Options{
			FreelistType: bbolt.FreelistMapType, NoSync: true, NoGrowSync: true,
		})
		if err != nil {
			return err
		}
		to.AllocSize = growBy
		return errors.Join(bbolt.Compact(to, s.db, compactTx), steps.copied(), to.Sync(), to.Close())
	})
	if err != nil {
		return 0, err
	}
	if file, err = os.Open(draft); err != nil {
		return 0, err
	}
	info, err := file.Stat()
	if err == nil {
		// The copy passes the check that it will have to pass when it is opened, or it does not take the place.
		_, err = checkPages(file, info.Size())
	}
	if err = errors.Join(err, file.Sync(), file.Close(), steps.synced()); err != nil {
		return 0, err
	}
	return info.Size(), nil
}
