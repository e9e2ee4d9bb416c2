// SPDX-License-Identifier: Apache-2.0

package fleet

import "errors"

// ErrorKind tells what an error asks of whoever meets it.
type ErrorKind uint8

const (
	// Retryable: the same call may succeed later; nothing needs to change. The default.
	Retryable ErrorKind = iota
	// Terminal: the same input fails for ever; a new revision or spec is needed.
	Terminal
	// Refused: a rule or a permission says no; a person must grant or change something.
	Refused
)

// Error is an error that knows its kind, a machine-readable reason and what to do about it.
type Error struct {
	Kind ErrorKind
	// Reason is a condition reason in CamelCase, such as PathNotFound; see api/v1alpha1/conditions.go.
	Reason string
	// Hint says what a person can do; empty where the message says it all.
	Hint string
	Err  error
}

// Error is the message with its hint.
func (e *Error) Error() string {
	if e.Hint == "" {
		return e.Err.Error()
	}
	return e.Err.Error() + " (" + e.Hint + ")"
}

// Unwrap gives the wrapped error.
func (e *Error) Unwrap() error { return e.Err }

// KindOf is the kind of the outermost [Error] in err; Retryable where there is none.
func KindOf(err error) ErrorKind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Retryable
}

// ReasonOf is the reason of the outermost [Error] in err, or otherwise.
func ReasonOf(err error, otherwise string) string {
	var e *Error
	if errors.As(err, &e) && e.Reason != "" {
		return e.Reason
	}
	return otherwise
}
