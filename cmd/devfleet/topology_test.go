// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"
	"testing"
)

func TestParseTopology(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       []string
		wrong      string // text of the error; "" for none
	}{
		{name: "labels, arrows and comments are left to others", want: []string{"ams-1", "fra-1", "nyc-1"},
			text: "# roster\n\nams-1 ring=canary,region=eu -> fra-1 nyc-1 # first\n\tfra-1\tregion=eu\nnyc-1\n"},
		{name: "windows line ends", text: "a\r\nb x=y\r\n", want: []string{"a", "b"}},
		{name: "no newline at the end", text: "a", want: []string{"a"}},
		{name: "empty", text: "", wrong: "four.txt:1: no member here"},
		{name: "only comments", text: "# a\n# b\n", wrong: "four.txt:2: no member here"},
		{name: "twice", text: "a\nb\na x=y\n", wrong: `four.txt:3: member "a" is already on line 1`},
		{name: "upper case", text: "a\nAMS\n", wrong: `four.txt:2: member name "AMS": a lowercase RFC 1123 label`},
		{name: "a path", text: "../a\n", wrong: `four.txt:1: member name "../a"`},
		{name: "name left out", text: "a\nregion=eu\n", wrong: `four.txt:2: line starts with "region=eu"`},
		{name: "arrow first", text: "-> a\n", wrong: "four.txt:1: line starts with an arrow"},
		{name: "too long", text: strings.Repeat("a", 64) + "\n", wrong: "must be no more than 63"},
		{name: "not text", text: "a\n\xff\n", wrong: "four.txt:2: not UTF-8 text"},
		{name: "endless line", text: "a\n" + strings.Repeat("b", 1<<17), wrong: "four.txt:2: bufio.Scanner: token too long"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := parseTopology("four.txt", strings.NewReader(tc.text))
			switch {
			case tc.wrong == "" && err != nil:
				t.Fatal(err)
			case tc.wrong != "" && (err == nil || !strings.Contains(err.Error(), tc.wrong)):
				t.Fatalf("error %v, want one with %q", err, tc.wrong)
			case !slices.Equal(got, tc.want):
				t.Fatalf("members %q, want %q", got, tc.want)
			}
		})
	}
}

func TestReadTopologyNamesTheMissingFile(t *testing.T) {
	if _, err := readTopology("no-such.txt"); err == nil || !strings.Contains(err.Error(), "no-such.txt") {
		t.Fatalf("error %v does not name the file", err)
	}
}

func TestDemoTopology(t *testing.T) {
	got, err := readTopology("../../deploy/dev/four.txt")
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"ams-1", "fra-1", "par-1", "nyc-1"}; !slices.Equal(got, want) {
		t.Fatalf("members %q, want %q", got, want)
	}
}

// FuzzParseTopology: whatever the file holds, an answer is either an error that names the file and a line, or names that
// are usable as folders, each once.
func FuzzParseTopology(f *testing.F) {
	for _, seed := range []string{"ams-1 ring=canary -> fra-1\n", "a\na\n", "#\n", "\xff", "..\n", "a/b\n", "-> a", "=\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		names, err := parseTopology("file", strings.NewReader(text))
		if err != nil {
			if !strings.HasPrefix(err.Error(), "file:") {
				t.Fatalf("error %q does not start with the file", err)
			}
			return
		}
		seen := map[string]bool{}
		for _, name := range names {
			if seen[name] || name == "." || name == ".." || strings.ContainsAny(name, "/\\ \x00") || len(name) > 63 {
				t.Fatalf("name %q in %q", name, names)
			}
			seen[name] = true
		}
		if len(names) == 0 {
			t.Fatal("no names and no error")
		}
	})
}
