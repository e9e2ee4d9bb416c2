// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func tableOf(l listing, rows []row) (string, error) {
	var out strings.Builder
	a := &app{name: "flotilla", color: true}
	a.Out, a.ErrOut = &out, &out
	err := a.show(l, rows, nil)
	return out.String(), err
}

// TestTablesFit: whatever is in a table, no line of it is longer than the width or becomes two, and what a
// cell says moves no cursor.
func TestTablesFit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 8).Draw(t, "columns")
		l := listing{kind: "things"}
		for i := range n {
			l.columns = append(l.columns, column{head: fmt.Sprintf("C%d", i), wide: i > 0 && rapid.Bool().Draw(t, "wide")})
		}
		word := rapid.StringMatching(`[a-zé漢\x1b\n\r\t ]{0,120}`)
		var rows []row
		for i := range rapid.IntRange(1, 5).Draw(t, "rows") {
			cells := make([]cell, n)
			for c := range cells {
				cells[c] = cell{text: word.Draw(t, "cell"), color: rapid.SampledFrom([]paint{"", green, red}).Draw(t, "color")}
			}
			rows = append(rows, row{id: fmt.Sprint(i), cells: cells})
		}
		out, err := tableOf(l, rows)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
		if len(lines) != len(rows)+1 {
			t.Fatalf("%d lines of %d rows:\n%q", len(lines), len(rows), out)
		}
		for _, line := range lines {
			if columns(line) > width {
				t.Fatalf("%d columns: %q", columns(line), line)
			}
			bare := strings.NewReplacer("\x1b[32m", "", "\x1b[31m", "", "\x1b[0m", "").Replace(line)
			if strings.ContainsAny(bare, "\x1b\r\t") {
				t.Fatalf("%q", line)
			}
		}
	})
}

func TestSortBy(t *testing.T) {
	rows := []row{
		{cells: []cell{{text: "b"}, numbered("10", 10)}}, {cells: []cell{{text: "c"}, {text: "-"}}},
		{cells: []cell{{text: "a"}, numbered("9", 9)}}, {cells: []cell{{text: "d"}, numbered("100", 100)}},
	}
	for by, want := range map[string]string{"": "b c a d", "name": "a b c d", "SIZE": "a b d c"} {
		l := listing{columns: []column{{head: "NAME"}, {head: "SIZE"}}, sortBy: by, noHeaders: true}
		if err := l.check(); err != nil {
			t.Fatal(err)
		}
		sorted := slices.Clone(rows)
		l.sort(sorted)
		var got []string
		for _, r := range sorted {
			got = append(got, r.cells[0].text)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("by %q: %v, want %s", by, got, want)
		}
	}
	if err := (&listing{columns: []column{{head: "NAME"}}, sortBy: "size"}).check(); err == nil || err.Error() != "--sort-by size: one of name" {
		t.Errorf("%v", err)
	}
}

// TestChanges: a row is printed again when it says something else, and not when only its age is another.
func TestChanges(t *testing.T) {
	var out strings.Builder
	a := &app{}
	a.Out = &out
	p := changes{app: a, listing: listing{columns: []column{{head: "NAME"}, {head: "STATE"}, {head: "AGE", loose: true}}}}
	look := func(rows ...[]string) {
		var list []row
		for _, r := range rows {
			list = append(list, row{id: r[0], cells: text(r...)})
		}
		if err := p.print(list); err != nil {
			t.Fatal(err)
		}
	}
	look([]string{"a", "waiting", "1s"}, []string{"b", "waiting", "1s"})
	look([]string{"a", "waiting", "2s"}, []string{"b", "waiting", "2s"})
	look([]string{"a", "waiting", "3s"}, []string{"b", "done", "3s"})
	look([]string{"b", "done", "4s"})
	look([]string{"a", "waiting", "5s"}, []string{"b", "done", "5s"}) // it was away, and is news
	want := "NAME  STATE    AGE\na     waiting  1s\nb     waiting  1s\nb     done     3s\na     waiting  5s\n"
	if out.String() != want {
		t.Errorf("got:\n%swant:\n%s", out.String(), want)
	}
}

func TestNearest(t *testing.T) {
	names := []string{"checkout", "web", "web-canary", "prometheus", "payments-api"}
	for name, want := range map[string]string{
		"wbe": "web", "chekout": "checkout", "checkotu": "checkout", "web-canry": "web-canary", "prom": "prometheus", "nothing": "", "web": "web-canary", "": "",
	} {
		if got := strings.Join(nearest(name, names), " "); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

// TestPlain: what others wrote paints nothing and moves nothing.
func TestPlain(t *testing.T) {
	if got := plain("a\x1b[31mb\nc\u202ed"); got != "a [31mb c d" {
		t.Errorf("%q", got)
	}
}
