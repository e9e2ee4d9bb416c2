// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	rolloutIn = regexp.MustCompile("(?s)```yaml\n(apiVersion: .*?\n)```")
	playIn    = regexp.MustCompile("(?s)```\n\\$ flotilla (simulate (?:[^\n]*\\\\\n)*[^\n]*)\n(.*?)```")
)

// TestPageOfPlays: the page shows what the command prints. UPDATE_GOLDEN=1 rewrites it.
func TestPageOfPlays(t *testing.T) {
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	page := filepath.Join(root, "docs", "how-to", "simulate.md")
	before, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	written := rolloutIn.FindSubmatch(before)
	if written == nil {
		t.Fatal("the page has no rollout")
	}
	example := filepath.Join("examples", "hello", "rollout.yaml")
	hello, err := os.ReadFile(filepath.Join(root, example))
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	if err := os.MkdirAll(filepath.Dir(example), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, body := range map[string][]byte{example: hello, "web.yaml": written[1]} {
		if err := os.WriteFile(name, body, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	plays := 0
	after := playIn.ReplaceAllFunc(before, func(block []byte) []byte {
		plays++
		call := string(playIn.FindSubmatch(block)[1])
		var out, errs bytes.Buffer
		a := newApp("flotilla")
		a.Out, a.ErrOut, a.color = &out, &errs, false
		if code := a.run(t.Context(), strings.Fields(strings.ReplaceAll(call, "\\\n", ""))); code != exitOK {
			t.Fatalf("%s: exit code %d, %s", call, code, errs.String())
		}
		return []byte("```\n$ flotilla " + call + "\n" + out.String() + "```")
	})
	if plays < 2 {
		t.Errorf("%d plays on the page", plays)
	}
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(page, after, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(before), string(after)); diff != "" {
		t.Errorf("-page +command:\n%s", diff)
	}
}

// TestPortions reads shares, and nothing else.
func TestPortions(t *testing.T) {
	for text, want := range map[string]float64{"0%": 0, "8%": 0.08, "100%": 1, "12.5%": 0.125, "007%": 0.07} {
		var p portion
		if err := p.Set(text); err != nil || p.of != want || p.String() != text {
			t.Errorf("%q: %v, %v", text, p, err)
		}
	}
	for _, text := range []string{"", "8", "%", "8 %", " 8%", "-8%", "+8%", "8%%", "100.1%", "1e1%", "0x8%", "NaN%", "Inf%", "8.%", ".5%", "1_0%", "８%", "8%\n"} {
		var p portion
		if err := p.Set(text); err == nil || p != (portion{}) {
			t.Errorf("%q is %v", text, p)
		}
	}
}

func TestQuoted(t *testing.T) {
	for text, want := range map[string]string{
		"web.yaml": "web.yaml", "8%": "8%", "a=b,c=d:5": "a=b,c=d:5", "": "''", "my file": "'my file'", "it's": `'it'\''s'`, "$(x)": "'$(x)'", "a\nb": "'a\nb'",
	} {
		if got := quoted(text); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}
