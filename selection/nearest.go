// SPDX-License-Identifier: Apache-2.0

package selection

import (
	"cmp"
	"slices"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// mostNear is how many names a sentence proposes.
const mostNear = 3

// nearest gives the candidates that were most probably meant by word: those with the fewest slips, at
// most mostNear, shortest first. A third of the word may be wrong, and one letter of any.
func nearest(word string, candidates []string) []string {
	most := max(1, len(word)/3)
	var near []string
	for _, c := range candidates {
		if abs(len(c)-len(word)) > most {
			continue // a difference in length is a slip per letter
		}
		d := fleet.Slips(word, c)
		if d < most {
			most, near = d, nil
		}
		if d == most {
			near = append(near, c)
		}
	}
	slices.SortFunc(near, func(a, b string) int {
		return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
	})
	return near[:min(len(near), mostNear)]
}

func abs(n int) int {
	if n < 0 {
		return -n
	}
	return n
}
