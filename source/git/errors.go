// SPDX-License-Identifier: Apache-2.0

package git

import (
	"errors"
	"fmt"
	"io/fs"
	"runtime/debug"
	"syscall"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/source"
)

var (
	// errNotHeld: the mirror has no such object.
	errNotHeld = errors.New("not held here")
	// errDamaged: the mirror's own files are not what was written; it is rebuilt.
	errDamaged = errors.New("the mirror is damaged")
)

func fetchFailed(hint string, err error) error {
	return &fleet.Error{Kind: fleet.Retryable, Reason: v1alpha1.ReasonFetchFailed, Hint: hint, Err: err}
}

func tooLarge(hint, format string, args ...any) error {
	return &fleet.Error{Kind: fleet.Terminal, Reason: v1alpha1.ReasonTooLarge, Hint: hint, Err: fmt.Errorf(format, args...)}
}

// unreadable is content that no retry mends: a new commit is needed.
func unreadable(format string, args ...any) error {
	return &fleet.Error{Kind: fleet.Terminal, Reason: v1alpha1.ReasonFetchFailed, Err: fmt.Errorf(format, args...)}
}

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %w", errDamaged, fmt.Errorf(format, args...))
}

// isLocal tells a machine in trouble (no space, no file descriptors, no permission) from a damaged file.
func isLocal(err error) bool {
	for _, errno := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, fs.ErrPermission} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// wrap names the source in front of an error. What has no kind yet came from the mirror and is tried again.
func wrap(name string, err error) error {
	var e *fleet.Error
	if errors.Is(err, errDamaged) && !errors.As(err, &e) {
		err = &fleet.Error{Kind: fleet.Retryable, Reason: v1alpha1.ReasonFetchFailed, Hint: "the mirror is mended at the next look", Err: err}
	}
	return source.Named(name, err)
}

// recovered turns a panic into an error. go-git decodes what strangers send; that one repository makes
// it index out of range must not take the agent, and every other rollout, down with it.
func recovered(doing string, err *error) {
	if r := recover(); r != nil { //nolint:revive // it is what is deferred
		*err = fetchFailed("please report it: the decoder should have refused this input",
			fmt.Errorf("%s: panic: %v\n%s", doing, r, source.Clip(string(debug.Stack()), 2048)))
	}
}
