// SPDX-License-Identifier: Apache-2.0

// Package disk answers: how does what was fetched get onto this member's disk, so that it is there whole or not at all?
package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// TempPrefix begins the names of files and folders that are not whole yet. What an earlier process left of them can be removed.
const TempPrefix = "tmp_"

// WriteFile writes a file under a temporary name beside it, syncs it and renames it.
func WriteFile(path string, write func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), TempPrefix+"*")
	if err != nil {
		return err
	}
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name()) //nolint:errcheck // the first error matters
	}
	return err
}

// Content is what WriteFile writes where all of it is there already.
func Content[T string | []byte](content T) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := w.Write([]byte(content))
		return err
	}
}

// SyncFolder makes renames in a folder last.
func SyncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Failed is an error of this machine's file system while doing something: retryable, never the server's fault.
// It is nil where err is.
func Failed(doing string, err error) error {
	if err == nil {
		return nil
	}
	hint := ""
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		hint = "the disk is full: free some space, it is tried again"
	}
	return &fleet.Error{Kind: fleet.Retryable, Reason: v1alpha1.ReasonFetchFailed, Hint: hint, Err: fmt.Errorf("%s: %w", doing, err)}
}
