// SPDX-License-Identifier: Apache-2.0

package main

import (
	"runtime/debug"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestWrap(t *testing.T) {
	for name, test := range map[string]struct {
		text          string
		first, indent int
		want          string
	}{
		"short":              {"a b", 0, 0, "a b"},
		"empty":              {"", 4, 4, ""},
		"a word too long":    {strings.Repeat("x", 90) + " y", 0, 2, strings.Repeat("x", 90) + "\n  y"},
		"at the very edge":   {strings.Repeat("x", 78) + " y", 0, 0, strings.Repeat("x", 78) + " y"},
		"one over the edge":  {strings.Repeat("x", 79) + " y", 0, 1, strings.Repeat("x", 79) + "\n y"},
		"runes are columns":  {strings.Repeat("é", 78) + " y", 0, 0, strings.Repeat("é", 78) + " y"},
		"begins at a column": {"aaa bbb", 77, 4, "aaa\n    bbb"},
	} {
		if got := wrap(test.text, test.first, test.indent); got != test.want {
			t.Errorf("%s:\n got %q\nwant %q", name, got, test.want)
		}
	}
}

func TestWrapLosesNoWord(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`[a-zé ]{0,300}`).Draw(t, "text")
		indent := rapid.IntRange(0, 30).Draw(t, "indent")
		got := wrap(text, indent, indent)
		if strings.Join(strings.Fields(got), " ") != strings.Join(strings.Fields(text), " ") {
			t.Fatalf("%q became %q", text, got)
		}
		for i, line := range strings.Split(got, "\n") {
			columns := utf8.RuneCountInString(line)
			if i == 0 {
				columns += indent
			}
			if columns > width && len(strings.Fields(line)) > 1 {
				t.Fatalf("line %d has %d columns: %q", i, columns, line)
			}
		}
	})
}

// TestBarsHideNothing: a bar has the room it was given, and whatever there is one of can be seen.
func TestBarsHideNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		counts := rapid.SliceOfN(rapid.IntRange(0, 3000), len(shares), len(shares)).Draw(t, "counts")
		total, drawn := 0, 0
		got := toScale(counts, barWidth)
		for i, n := range got {
			if n < 0 || n > counts[i] || (n == 0) != (counts[i] == 0) {
				t.Fatalf("%d of %d drawn as %d", i, counts[i], n)
			}
			total, drawn = total+counts[i], drawn+n
		}
		if drawn != min(total, barWidth) {
			t.Fatalf("%v of %v: %d drawn", got, counts, drawn)
		}
	})
}

func TestPlainDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", time.Second: "1s", time.Minute: "1m", 90 * time.Second: "1m30s", time.Hour: "1h",
		time.Hour + time.Minute: "1h1m", 10 * time.Minute: "10m", 20 * time.Hour: "20h", time.Hour + time.Second: "1h0m1s",
	} {
		if got := plainDuration(d); got != want {
			t.Errorf("%d: %s, want %s", d, got, want)
		}
	}
}

func TestClipAndPad(t *testing.T) {
	if clip("abcdef", 4) != "abc…" || clip("abc", 3) != "abc" || clip("äöü", 2) != "ä…" || clip("abc", 0) != "…" {
		t.Errorf("clip: %q %q %q %q", clip("abcdef", 4), clip("abc", 3), clip("äöü", 2), clip("abc", 0))
	}
	if pad("ä", 3) != "ä  " || padLeft("ä", 3) != "  ä" || pad("abcd", 2) != "abcd" {
		t.Error("pad")
	}
}

// TestColoursAreForTerminals: painted or not, the words are the same.
func TestColoursAreForTerminals(t *testing.T) {
	if got := (&app{}).paint(red, "x"); got != "x" {
		t.Errorf("%q", got)
	}
	if got := (&app{color: true}).paint(red, "x"); got != "\x1b[31mx\x1b[0m" {
		t.Errorf("%q", got)
	}
	if got := (&app{color: true}).paint(red, " "); got != " " {
		t.Errorf("%q", got)
	}
}

func TestNameFor(t *testing.T) {
	for argv0, want := range map[string]string{
		"flotilla": "flotilla", "bin/flotilla": "flotilla", "x/kubectl-flotilla": "kubectl flotilla", "kubectl-flotilla.exe": "kubectl flotilla",
	} {
		if got := nameFor(argv0); got != want {
			t.Errorf("%s: %s", argv0, got)
		}
	}
}

// TestLinksNoAgent: the command is small because the mesh, the store and the controllers are not in it.
func TestLinksNoAgent(t *testing.T) {
	info, ok := debug.ReadBuildInfo()
	if !ok || len(info.Deps) == 0 {
		t.Skip("no build information")
	}
	for _, dep := range info.Deps {
		for _, heavy := range []string{"github.com/libp2p/", "go.etcd.io/", "sigs.k8s.io/controller-runtime", "github.com/fluxcd/pkg/ssa", "github.com/fluxcd/cli-utils", "github.com/go-git/", "k8s.io/kubectl"} {
			if strings.HasPrefix(dep.Path, heavy) {
				t.Errorf("links %s", dep.Path)
			}
		}
	}
}
