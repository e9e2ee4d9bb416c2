// SPDX-License-Identifier: Apache-2.0

package fleet_test

import (
	"testing"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// What one record costs every member that it reaches: decoding, its digest, its signature.
func BenchmarkRecord(b *testing.B) {
	r := signed(b, factRecord(sampleFact()))
	encoded := r.Encode()
	status := signed(b, statusRecord(b, sampleStatus()))
	for _, c := range []struct {
		name string
		do   func()
	}{
		{"Encode", func() { r.Encode() }},
		{"Decode", func() { _, _ = fleet.DecodeRecord(encoded) }},
		{"Digest", func() { r.Digest() }},
		{"Verify", func() { _ = r.Verify(ourFleet) }},
		{"PublicKey", func() { _, _ = r.Writer.PublicKey() }},
		{"Expires", func() { status.Expires() }},
		{"DecodeStatus", func() { _, _ = fleet.DecodeStatus(&status) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c.do()
			}
		})
	}
}
