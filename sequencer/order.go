// SPDX-License-Identifier: Apache-2.0

package sequencer

import (
	"cmp"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// Release is (seal, revision): what a member accepts, starts and succeeds in.
type Release struct {
	Seal         fleet.Digest   `json:"seal"`
	Term, Number uint64         `json:",omitempty"`
	Revision     fleet.Revision `json:"revision"`
}

// Plan names the release when compiled.
func (r Release) Plan() fleet.Digest {
	return fleet.DigestOf("flotilla.dev/plan", r.Seal[:], []byte(r.Revision))
}

// IsZero says that there is no release.
func (r Release) IsZero() bool { return r == Release{} }

// RevisionOrder is how a candidate's revision stands to the accepted one, as the source's history has it.
type RevisionOrder uint8

// The orders. Where nobody can tell, it is Incomparable.
const (
	Incomparable RevisionOrder = iota
	Equal
	Newer
	Older
)

// Acceptance is what becomes of a candidate.
type Acceptance uint8

const (
	// Keep the accepted release: the candidate is older, or the same.
	Keep Acceptance = iota
	// Take the candidate.
	Take
	// Ignore the candidate and say so: its revision does not descend from the accepted one (a
	// force-push, a sibling branch). It blocks nothing; what runs stays (R1).
	Ignore
)

// Accept orders releases by (term, number, revision), so that neither the seal nor the revision a
// member acts on ever falls (R1, I14). A newer seal takes the accepted revision along where its
// own is older: that is the caller's to compile.
func Accept(accepted, candidate Release, revision RevisionOrder) Acceptance {
	if accepted.IsZero() {
		return Take
	}
	seal := cmp.Or(cmp.Compare(candidate.Term, accepted.Term), cmp.Compare(candidate.Number, accepted.Number))
	switch {
	case seal < 0:
		return Keep
	case seal == 0 && candidate.Seal != accepted.Seal:
		return Ignore // two seals of one position: nobody is first by arrival
	case revision == Incomparable:
		return Ignore
	case revision == Older:
		return Keep
	case revision == Equal && seal == 0:
		return Keep
	}
	return Take
}
