// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"testing"

	"pgregory.net/rapid"
)

func TestSlips(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"eu", "eu", 0}, {"eu", "", 2}, {"eu-1", "eu-2", 1}, {"wbe", "web", 1}, {"canary", "cnarxy", 2}} {
		if got := Slips(tt.a, tt.b); got != tt.want {
			t.Errorf("Slips(%q, %q) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}

// TestSlipsAreADistance: of a word to itself none, as many both ways, and between what the lengths demand and allow.
func TestSlipsAreADistance(t *testing.T) {
	word := rapid.StringOfN(rapid.RuneFrom([]rune("abc-12")), 0, 8, -1)
	rapid.Check(t, func(t *rapid.T) {
		a, b := word.Draw(t, "a"), word.Draw(t, "b")
		d, least, most := Slips(a, b), max(len(a), len(b))-min(len(a), len(b)), max(len(a), len(b))
		if (d == 0) != (a == b) || d != Slips(b, a) || d < least || d > most {
			t.Fatalf("Slips(%q, %q) = %d, and %d the other way", a, b, d, Slips(b, a))
		}
	})
}
