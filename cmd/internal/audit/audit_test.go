// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/cmd/internal/readapi/readapitest"
	"github.com/flotilla-dev/flotilla/sequencer/verify"
)

// inputOf a world in which that was signed.
func inputOf(t *testing.T, from string, story ...string) Input {
	t.Helper()
	w, err := readapitest.New()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Tell(story...); err != nil {
		t.Fatal(err)
	}
	e, err := w.Signed()
	if err != nil {
		t.Fatal(err)
	}
	return Input{From: from, Header: verify.Header{By: "c1"}, Evidence: e}
}

func TestJudge(t *testing.T) {
	in := inputOf(t, "one", "c1 accepted", "c1 started", "eu-1 accepted")
	r, err := Judge([]Input{in}, Trusted{})
	if err != nil || r.Verdict != Kept || r.Roster.Own || r.Roster.Members != 8 || len(r.Exports) != 1 || r.Exports[0].Records != 3 {
		t.Errorf("%+v, %v", r, err)
	}
	// A roster of one's own that does not know c1: it was a member when a seal was made on which others acted.
	r, err = Judge([]Input{in}, Trusted{From: "mine", Members: readapitest.Members()[1:]})
	if err != nil || r.Verdict != Kept || !r.Roster.Own || r.Roster.Members != 7 {
		t.Errorf("%+v, %v", r, err)
	}
	alone := inputOf(t, "alone", "c1 accepted", "c1 started") // nobody who is believed acted on that seal
	if r, err = Judge([]Input{alone}, Trusted{From: "mine", Members: readapitest.Members()[1:]}); err != nil || r.Verdict != Unjudged {
		t.Errorf("%s, %v", r.Verdict, err)
	}
	if _, err := Judge(nil, Trusted{}); !errors.Is(err, ErrNothing) {
		t.Error(err)
	}
	other := inputOf(t, "other", "c1 accepted")
	other.Evidence.Fleet = fleet.DigestOf("another")
	if _, err := Judge([]Input{in, other}, Trusted{}); err == nil || !strings.Contains(err.Error(), "other: evidence of two fleets") {
		t.Error(err)
	}
}

// TestTwoStories: each of two exports looks well, and together they show a member that told each something else.
func TestTwoStories(t *testing.T) {
	a, b := inputOf(t, "a", "c1 accepted", "c1 started"), inputOf(t, "b", "c1 accepted", "c1 yielded")
	for _, in := range []Input{a, b} {
		if r, err := Judge([]Input{in}, Trusted{}); err != nil || r.Verdict != Kept {
			t.Errorf("%s: %s, %v", in.From, r.Verdict, err)
		}
	}
	r, err := Judge([]Input{a, b}, Trusted{})
	if err != nil || r.Verdict != Broken {
		t.Errorf("%s, %v", r.Verdict, err)
	}
}

func TestReadFiles(t *testing.T) {
	in := inputOf(t, "", "c1 accepted")
	var whole bytes.Buffer
	if err := verify.Write(&whole, in.Header, &in.Evidence); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "c1.facts")
	if err := os.WriteFile(path, whole.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := ReadFiles([]string{path, "-"}, &whole)
	if err != nil || len(got) != 2 || got[0].From != path || got[1].From != "-" || len(got[1].Evidence.Records) != 1 {
		t.Errorf("%d inputs, %v", len(got), err)
	}
	if _, err := ReadFiles([]string{path + ".none"}, nil); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if _, err := ReadFiles([]string{"-"}, strings.NewReader("no")); !errors.Is(err, verify.ErrMalformed) {
		t.Error(err)
	}
}
