// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// mostListed is how many names a sentence lists before it counts the rest.
const mostListed = 8

// failure is an error that only another revision or another spec can mend.
func failure(reason, format string, args ...any) error {
	return &fleet.Error{Kind: fleet.Terminal, Reason: reason, Err: fmt.Errorf(format, args...)}
}

// hinted is a failure with what to do about it.
func hinted(reason, hint, format string, args ...any) error {
	return &fleet.Error{Kind: fleet.Terminal, Reason: reason, Hint: hint, Err: fmt.Errorf(format, args...)}
}

func tooLarge(format string, args ...any) error {
	return failure(v1alpha1.ReasonTooLarge, format, args...)
}

// shown is a folder of the source as people write it.
func shown(folder string) string {
	if folder == "." {
		return "./"
	}
	return "./" + folder
}

// list joins at most mostListed names and counts the others.
func list(names []string) string {
	if extra := len(names) - mostListed; extra > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:mostListed], ", "), extra)
	}
	return strings.Join(names, ", ")
}

// byLikeness sorts names so that those that look most like word come first.
func byLikeness(word string, names []string) []string {
	if len(word) > mostCompared {
		return names // no file system has such a name
	}
	slices.SortStableFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(fleet.Slips(word, a), fleet.Slips(word, b)), cmp.Compare(a, b))
	})
	return names
}

// mostCompared is the longest name that slips are counted in, in bytes.
const mostCompared = 255
