// SPDX-License-Identifier: Apache-2.0

package git

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/source"
)

// TestFullDisk fetches onto a file system that is really full.
func TestFullDisk(t *testing.T) {
	o, dir := newOrigin(t), t.TempDir()
	first := o.push(files{"a": "small"})
	var noise strings.Builder
	for i := uint64(1); noise.Len() < 300_000; i++ {
		fmt.Fprintf(&noise, "%x", i*0x9e3779b97f4a7c15)
	}
	big := o.commit(files{"a": noise.String()}, first)

	done := make(chan error)
	go func() {
		// The thread ends with this goroutine, and with it the only place where the small disk is mounted.
		// Mirrors does all its file work on the goroutine of its caller.
		runtime.LockOSThread()
		done <- onSmallDisk(dir, func() error { return fillDisk(t.Context(), o, dir, first, big) })
	}()
	if err := <-done; errors.Is(err, errNoMount) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
}

var errNoMount = errors.New("a small file system cannot be mounted here")

func onSmallDisk(dir string, do func() error) error {
	if err := errors.Join(
		syscall.Unshare(syscall.CLONE_NEWNS),
		syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""),
		syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=128k"),
	); err != nil {
		return fmt.Errorf("%w: %w", errNoMount, err)
	}
	return do()
}

func fillDisk(ctx context.Context, o *origin, dir string, first, big plumbing.Hash) error {
	m := &Mirrors{Dir: dir}
	defer m.Close() //nolint:errcheck // a test
	if _, err := m.Latest(ctx, o.src()); err != nil {
		return err
	}
	o.set("main", big)
	_, err := m.Latest(ctx, o.src())
	if fleet.KindOf(err) != fleet.Retryable || fleet.ReasonOf(err, "") != v1alpha1.ReasonFetchFailed || !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "the disk is full") {
		return fmt.Errorf("on a full disk: %w", err)
	}
	var snap source.Snapshot
	if snap, err = m.At(ctx, o.src(), onMain(first)); err != nil {
		return fmt.Errorf("what was fetched before: %w", err)
	}
	if content, err := fs.ReadFile(snap.Files, "a"); err != nil || string(content) != "small" {
		return fmt.Errorf("what was fetched before: %q, %w", content, err)
	}
	o.set("main", o.commit(files{"a": "small again"}, first))
	_, err = m.Latest(ctx, o.src())
	return err
}
