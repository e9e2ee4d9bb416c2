// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"crypto/ed25519"
	"testing"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// TestDroppedWordsStayVouchedFor: a promise that was written before bounds were noted vouches for what it held also when
// that is dropped, or the member would take it for the loss of an API that knew more.
func TestDroppedWordsStayVouchedFor(t *testing.T) {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	plan := fleet.DigestOf("test", []byte("plan"))
	r := fleet.Record{
		Fleet: fleet.DigestOf("test"), Epoch: 3, Seq: 7, Kind: fleet.KindFact, Key: fleet.FactKey(plan, fleet.Started),
		Body: fleet.Fact{Plan: plan, Kind: fleet.Started}.Encode(),
	}
	if err := r.Sign(key); err != nil {
		t.Fatal(err)
	}
	p := Promise{Said: [][]byte{r.Encode()}}
	p.keepSaid(plan)
	if len(p.Said) != 1 {
		t.Fatal("a record of a plan that matters is dropped")
	}
	p.Bound = Position{}
	p.keepSaid()
	if last, want := p.LastSaid(), (Position{3, 7}); len(p.Said) != 0 || last != want {
		t.Errorf("%d records, the last at %v, want none and %v", len(p.Said), last, want)
	}
}
