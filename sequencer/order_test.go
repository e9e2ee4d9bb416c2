// SPDX-License-Identifier: Apache-2.0

package sequencer

import (
	"testing"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

func TestAccept(t *testing.T) {
	seal := func(n byte) fleet.Digest { return fleet.Digest{n} }
	accepted := Release{Seal: seal(1), Term: 1, Number: 5, Revision: revA}
	for _, tc := range []struct {
		name      string
		accepted  Release
		candidate Release
		revision  RevisionOrder
		want      Acceptance
	}{
		{"the first one", Release{}, accepted, Incomparable, Take},
		{"the same", accepted, accepted, Equal, Keep},
		{"a newer revision", accepted, Release{seal(1), 1, 5, revB}, Newer, Take},
		{"an older revision", accepted, Release{seal(1), 1, 5, revB}, Older, Keep},
		{"a sibling's revision", accepted, Release{seal(1), 1, 5, revB}, Incomparable, Ignore},
		{"the next seal, same revision", accepted, Release{seal(2), 1, 6, revA}, Equal, Take},
		{"the next seal, newer revision", accepted, Release{seal(2), 1, 6, revB}, Newer, Take},
		{"the next seal brings no older revision along", accepted, Release{seal(2), 1, 6, revB}, Older, Keep},
		{"nor a sibling's", accepted, Release{seal(2), 1, 6, revB}, Incomparable, Ignore},
		{"an older seal, same revision", accepted, Release{seal(2), 1, 4, revA}, Equal, Keep},
		{"an older seal, newer revision", accepted, Release{seal(2), 1, 4, revB}, Newer, Keep},
		{"an older seal, sibling's revision", accepted, Release{seal(2), 1, 4, revB}, Incomparable, Keep},
		{"a term goes before a number", accepted, Release{seal(2), 2, 1, revA}, Equal, Take},
		{"an older term, whatever its number", accepted, Release{seal(2), 0, 99, revB}, Newer, Keep},
		{"another seal of the same position", accepted, Release{seal(2), 1, 5, revA}, Equal, Ignore},
		{"another seal of the same position, newer revision", accepted, Release{seal(2), 1, 5, revB}, Newer, Ignore},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := Accept(tc.accepted, tc.candidate, tc.revision); got != tc.want {
				t.Errorf("got %d, want %d", got, tc.want)
			}
		})
	}
}

func TestReleaseNamesItsPlan(t *testing.T) {
	base := Release{Seal: fleet.Digest{1}, Number: 1, Revision: revA}
	if !(Release{}).IsZero() || base.IsZero() {
		t.Error("IsZero")
	}
	if base.Plan() == (Release{Seal: fleet.Digest{2}, Number: 1, Revision: revA}).Plan() {
		t.Error("two seals have one plan")
	}
	if base.Plan() == (Release{Seal: fleet.Digest{1}, Number: 1, Revision: revB}).Plan() {
		t.Error("two revisions have one plan")
	}
	s := sealOf(t, byGit, "", members(3))
	p, err := Compile(s, revA)
	if err != nil {
		t.Fatal(err)
	}
	if want := (Release{Seal: s.Digest(), Number: 1, Revision: revA}); p.Release != want || p.Digest != want.Plan() {
		t.Errorf("the plan is of %+v, want %+v", p.Release, want)
	}
}
