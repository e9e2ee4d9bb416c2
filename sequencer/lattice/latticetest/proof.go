// SPDX-License-Identifier: Apache-2.0

package latticetest

import (
	"sync"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// proofOf0 is Writer(1)'s proof that Writer(0) said two things in one position. It is signed once: many stories
// use it, and signatures cost more than the rest of them.
var proofOf0 = sync.OnceValue(func() fleet.Record {
	a := fleet.Record{Kind: fleet.KindFact, Key: "a", Epoch: 1 << 40, Seq: 1}
	b := fleet.Record{Kind: fleet.KindFact, Key: "b", Epoch: 1 << 40, Seq: 1}
	for _, r := range []*fleet.Record{&a, &b} {
		if err := r.Sign(Key(0)); err != nil {
			panic(err)
		}
	}
	body, _ := fleet.Proof{A: a, B: b}.Encode()
	proof := fleet.Record{Kind: fleet.KindProof, Key: fleet.ProofKey(Writer(0)), Epoch: 1 << 40, Seq: 1, Body: body}
	if err := proof.Sign(Key(1)); err != nil {
		panic(err)
	}
	return proof
})
