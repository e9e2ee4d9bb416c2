// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"unicode"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// errShort: bytes are missing at the end of an archive.
var errShort = errors.New("the archive ends before its end")

// retryable is a server that did not answer as it should.
func retryable(hint, format string, args ...any) error {
	return &fleet.Error{Kind: fleet.Retryable, Reason: v1alpha1.ReasonFetchFailed, Hint: hint, Err: fmt.Errorf(format, args...)}
}

// unreadable is content that no retry mends: another version is needed.
func unreadable(format string, args ...any) error {
	return &fleet.Error{Kind: fleet.Terminal, Reason: v1alpha1.ReasonFetchFailed, Err: fmt.Errorf(format, args...)}
}

func tooLarge(hint, format string, args ...any) error {
	return &fleet.Error{Kind: fleet.Terminal, Reason: v1alpha1.ReasonTooLarge, Hint: hint, Err: fmt.Errorf(format, args...)}
}

// missing is a chart or version that the repository has not now; it may have it later.
func missing(hint, format string, args ...any) error {
	return &fleet.Error{Kind: fleet.Retryable, Reason: v1alpha1.ReasonRefNotFound, Hint: hint, Err: fmt.Errorf(format, args...)}
}

// malformed is a chart, version or revision that cannot exist: the spec has to change.
func malformed(hint, format string, args ...any) error {
	return &fleet.Error{Kind: fleet.Terminal, Reason: v1alpha1.ReasonRefNotFound, Hint: hint, Err: fmt.Errorf(format, args...)}
}

// moved is a version that is not what it was, or not what the spec says it is.
func moved(hint, format string, args ...any) error {
	return &fleet.Error{Kind: fleet.Refused, Reason: v1alpha1.ReasonVersionMoved, Hint: hint, Err: fmt.Errorf(format, args...)}
}

// refusedURL is an address that is never asked.
func refusedURL(shown, why, hint string) error {
	return &fleet.Error{Kind: fleet.Refused, Reason: v1alpha1.ReasonFetchFailed, Hint: hint,
		Err: fmt.Errorf("repository URL %q: %s", clip(shown, 200), why)}
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
	return retryable(hint, "%s: %w", doing, err)
}

// wrap names the chart in front of an error and sees to it that it is a fleet.Error.
func wrap(name string, err error) error {
	if err == nil {
		return nil
	}
	var e *fleet.Error
	if !errors.As(err, &e) {
		e = &fleet.Error{Kind: fleet.Retryable, Reason: v1alpha1.ReasonFetchFailed, Err: err}
		err = e
	}
	if err != error(e) { //nolint:errorlint // what was wrapped around it is kept
		return fmt.Errorf("%s: %w", name, err)
	}
	return &fleet.Error{Kind: e.Kind, Reason: e.Reason, Hint: e.Hint, Err: fmt.Errorf("%s: %w", name, e.Err)}
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

func size(bytes int64) string {
	if bytes >= 1<<20 {
		return fmt.Sprintf("%d MiB", bytes>>20)
	}
	return fmt.Sprintf("%d bytes", bytes)
}
