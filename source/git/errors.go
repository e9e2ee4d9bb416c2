// SPDX-License-Identifier: Apache-2.0

package git

import (
	"errors"
	"fmt"
	"io/fs"
	"runtime/debug"
	"strings"
	"syscall"
	"unicode"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
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

// local is an error of this machine's file system while doing something: retryable, never the server's fault.
func local(doing string, err error) error {
	if err == nil {
		return nil
	}
	hint := ""
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		hint = "the disk is full: free some space, it is tried again"
	}
	return fetchFailed(hint, fmt.Errorf("%s: %w", doing, err))
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

// wrap names the source in front of an error and sees to it that it is a fleet.Error: what has no kind
// yet came from the mirror and is tried again.
func wrap(name string, err error) error {
	if err == nil {
		return nil
	}
	var e *fleet.Error
	if !errors.As(err, &e) {
		e = &fleet.Error{Kind: fleet.Retryable, Reason: v1alpha1.ReasonFetchFailed, Err: err}
		if errors.Is(err, errDamaged) {
			e.Hint = "the mirror is mended at the next look"
		}
		err = e
	}
	if err != error(e) { //nolint:errorlint // what was wrapped around it is kept
		return fmt.Errorf("%s: %w", name, err)
	}
	return &fleet.Error{Kind: e.Kind, Reason: e.Reason, Hint: e.Hint, Err: fmt.Errorf("%s: %w", name, e.Err)}
}

// recovered turns a panic into an error. go-git decodes what strangers send; that one repository makes
// it index out of range must not take the agent, and every other rollout, down with it.
func recovered(doing string, err *error) {
	if r := recover(); r != nil { //nolint:revive // it is what is deferred
		*err = fetchFailed("please report it: the decoder should have refused this input",
			fmt.Errorf("%s: panic: %v\n%s", doing, r, clip(string(debug.Stack()), 2048)))
	}
}

// printable is one line of somebody's text, fit for a status: no control characters, bounded.
func printable(s string, most int) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	line = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(line, "?"))
	return clip(line, most)
}

// clip cuts at a rune's boundary.
func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}
