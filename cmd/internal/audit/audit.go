// SPDX-License-Identifier: Apache-2.0

// Package audit answers: what was judged, by whose word, and with what result?
//
// It joins the exports that somebody has, puts the roster that they trust in the place of the exports' own, and has package
// verify judge the whole.
package audit

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/verify"
)

// What is told, in the words of package verify.
type (
	// Rule and what was found.
	Rule = verify.Rule
	// Finding is one place where a rule is broken, or cannot be judged.
	Finding = verify.Finding
	// Lack is what would decide a finding, and of whom.
	Lack = verify.Lack
	// Said is one signed record, to be read.
	Said = verify.Said
)

// The verdicts, and why there is none.
const (
	Kept     = verify.Kept
	Unjudged = verify.Unjudged
	Broken   = verify.Broken

	NotHeard    = verify.NotHeard
	Retired     = verify.Retired
	Lost        = verify.Lost
	NoSeal      = verify.NoSeal
	NoVersion   = verify.NoVersion
	ByClocks    = verify.ByClocks
	Disbelieved = verify.Disbelieved
	Stranger    = verify.Stranger
)

// Input is one export.
type Input struct {
	// From is the file, or the member that answered.
	From     string
	Header   verify.Header
	Evidence verify.Evidence
}

// Export that was judged.
type Export struct {
	From string `json:"from"`
	// By is the member that exported, Time its clock.
	By      fleet.Name `json:"by"`
	Time    time.Time  `json:"time"`
	Members int        `json:"members"`
	Records int        `json:"records"`
}

// Anchor is the roster that says which key is whose.
type Anchor struct {
	// Own: it is the caller's. Else it is the one in the exports, and whoever made them could have named others.
	Own     bool   `json:"own"`
	From    string `json:"from"`
	Members int    `json:"members"`
}

// Report of a look.
type Report struct {
	Exports []Export `json:"exports"`
	Roster  Anchor   `json:"roster"`
	verify.Result
}

// Trusted roster; the zero value takes the exports' own.
type Trusted struct {
	From    string
	Members []fleet.Member
}

// ErrNothing is in the error of Judge where there is nothing to judge.
var ErrNothing = errors.New("no export to judge")

// Judge all exports as one.
func Judge(inputs []Input, trusted Trusted) (Report, error) {
	if len(inputs) == 0 {
		return Report{}, ErrNothing
	}
	var out Report
	all := verify.Evidence{Fleet: inputs[0].Evidence.Fleet}
	for i := range inputs {
		in := &inputs[i]
		if err := all.Join(in.Evidence); err != nil {
			return Report{}, fmt.Errorf("%s: %w", in.From, err)
		}
		out.Exports = append(out.Exports, Export{
			From: in.From, By: in.Header.By, Time: in.Header.Time,
			Members: len(in.Evidence.Roster), Records: len(in.Evidence.Records),
		})
	}
	out.Roster = Anchor{From: "the exports"}
	if trusted.From != "" {
		all.Roster = trusted.Members
		out.Roster = Anchor{Own: true, From: trusted.From}
	}
	out.Roster.Members = len(all.Roster)
	out.Result = verify.Check(all)
	return out, nil
}

// ReadFiles that were exported; "-" is in.
func ReadFiles(paths []string, in io.Reader) ([]Input, error) {
	var out []Input
	for _, path := range paths {
		input, err := readFile(path, in)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		out = append(out, input)
	}
	return out, nil
}

func readFile(path string, in io.Reader) (Input, error) {
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			var detail *os.PathError
			if errors.As(err, &detail) { // which says the path once more
				err = detail.Err
			}
			return Input{}, err
		}
		defer func() { _ = file.Close() }() // only read
		in = file
	}
	header, evidence, err := verify.Read(in)
	return Input{From: path, Header: header, Evidence: evidence}, err
}
