// SPDX-License-Identifier: Apache-2.0

package selection

import (
	"cmp"
	"slices"
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
		d := distance(word, c)
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

// distance counts slips: letters missing, added, changed, or two neighbours swapped.
func distance(a, b string) int {
	before, row := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next := make([]int, len(b)+1)
		next[0] = i
		for j := 1; j <= len(b); j++ {
			same := 1
			if a[i-1] == b[j-1] {
				same = 0
			}
			next[j] = min(row[j]+1, next[j-1]+1, row[j-1]+same)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}

func abs(n int) int {
	if n < 0 {
		return -n
	}
	return n
}
