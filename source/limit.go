// SPDX-License-Identifier: Apache-2.0

package source

import (
	"io"
	"io/fs"
	"slices"
)

// Limit is what was set, or the default where nothing positive was.
func Limit[T int | int64](set, otherwise T) T {
	if set > 0 {
		return set
	}
	return otherwise
}

// Listing is a folder that is being listed: the paging of fs.ReadDirFile.
type Listing struct {
	Entries []fs.DirEntry
	next    int
}

// ReadDir gives the next n entries, or all that are left where n is not positive.
func (l *Listing) ReadDir(n int) ([]fs.DirEntry, error) {
	left := l.Entries[l.next:]
	if n > 0 && len(left) == 0 {
		return nil, io.EOF
	}
	if n > 0 && n < len(left) {
		left = left[:n]
	}
	l.next += len(left)
	return slices.Clone(left), nil
}
