// SPDX-License-Identifier: Apache-2.0

package selection

import (
	"slices"
	"testing"
)

func TestNearest(t *testing.T) {
	members := []string{"ap-1", "eu-1", "eu-17", "eu-2", "eu-7", "store-0412", "us-1"}
	tests := []struct {
		word string
		want []string
	}{
		{"eu-77", []string{"eu-7", "eu-17"}},
		{"ue-1", []string{"eu-1", "us-1"}},
		{"stor-0421", []string{"store-0412"}},
		{"stroe-0412", []string{"store-0412"}},
		{"mars", nil},
		{"", nil},
	}
	for _, tt := range tests {
		if got := nearest(tt.word, members); !slices.Equal(got, tt.want) {
			t.Errorf("nearest(%q) = %q, want %q", tt.word, got, tt.want)
		}
	}
}
