// SPDX-License-Identifier: Apache-2.0

package source

import (
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// Named puts the name of a source in front of an error and sees to it that it is a fleet.Error, whose hint stays at its
// end: what has no kind yet came from this machine or the wire, and is tried again.
func Named(name string, err error) error {
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

// Printable is one line of somebody's text, fit for a status: no control characters, bounded.
func Printable(s string, most int) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	line = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(line, "?"))
	return Clip(line, most)
}

// Clip cuts at a rune's boundary.
func Clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}

// Size in words.
func Size(bytes int64) string {
	if bytes >= 1<<20 {
		return fmt.Sprintf("%d MiB", bytes>>20)
	}
	return fmt.Sprintf("%d bytes", bytes)
}
