// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"errors"
	"fmt"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/source"
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
		Err: fmt.Errorf("repository URL %q: %s", source.Clip(shown, 200), why)}
}
