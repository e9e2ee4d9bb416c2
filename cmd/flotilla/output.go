// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/charmbracelet/x/ansi"
	"k8s.io/apimachinery/pkg/util/duration"
	"sigs.k8s.io/yaml"
)

// width that everything fits in.
const width = 80

// output is the value of -o.
type output string

// check that the format is one of those that a command knows.
func (o output) check(known ...string) error {
	if o == "" || slices.Contains(known, string(o)) {
		return nil
	}
	return usage("-o %s: one of %s", o, strings.Join(known, ", "))
}

// structured says that the output is for programs, and prints it.
func (o output) structured(w io.Writer, v any) (bool, error) {
	var body []byte
	var err error
	switch o {
	case "json":
		body, err = json.MarshalIndent(v, "", "  ")
		body = append(body, '\n')
	case "yaml":
		body, err = yaml.Marshal(v)
	default:
		return false, nil
	}
	if err != nil {
		return true, err
	}
	_, err = w.Write(body)
	return true, err
}

// table with two spaces between columns and none at the end of a line.
func table(w io.Writer, rows [][]string) {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], columns(cell))
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			line.WriteString(pad(cell, widths[i]+2))
		}
		fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
	}
}

// fit the last column into what the others leave of the width.
func fit(rows [][]string) {
	used := 0
	for column := range len(rows[0]) - 1 {
		widest := 0
		for _, row := range rows {
			widest = max(widest, columns(row[column]))
		}
		used += widest + 2
	}
	const least = 12
	for _, row := range rows {
		last := len(row) - 1
		row[last] = clip(row[last], max(least, width-used))
	}
}

// columns that a text takes on a terminal.
func columns(s string) int { return ansi.StringWidth(s) }

// plain text: what somebody else wrote must not move a cursor here, nor paint.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			return ' '
		}
		return r
	}, s)
}

// pad on the right, to so many columns.
func pad(s string, to int) string {
	return s + strings.Repeat(" ", max(0, to-columns(s)))
}

// padLeft on the left.
func padLeft(s string, to int) string {
	return strings.Repeat(" ", max(0, to-columns(s))) + s
}

// clip to so many columns; what is lost is shown by a dot.
func clip(s string, to int) string {
	if columns(s) <= to {
		return s
	}
	return ansi.Truncate(s, max(1, to), "…")
}

// wrap a sentence at words; the first line begins at column first, the others at indent.
func wrap(s string, first, indent int) string { return wrapTo(width, s, first, indent) }

// wrapTo another width.
func wrapTo(width int, s string, first, indent int) string {
	var out strings.Builder
	column := first
	for i, word := range strings.Fields(plain(s)) {
		size := columns(word)
		switch {
		case i == 0:
		case column+1+size > width:
			out.WriteString("\n" + strings.Repeat(" ", indent))
			column = indent
		default:
			out.WriteByte(' ')
			column++
		}
		out.WriteString(word)
		column += size
	}
	return out.String()
}

// paint is a colour of the terminal.
type paint string

const (
	green  paint = "32"
	red    paint = "31"
	yellow paint = "33"
	grey   paint = "2"
)

// paint a text where the output is a terminal that wants it.
func (a *app) paint(p paint, s string) string {
	if !a.color || p == "" || strings.TrimSpace(s) == "" {
		return s
	}
	return "\x1b[" + string(p) + "m" + s + "\x1b[0m"
}

// ago says how long before now something was; nothing where nobody said when.
func (a *app) ago(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return age(a.now().Sub(t))
}

// age in kubectl's words.
func age(d time.Duration) string { return duration.HumanDuration(max(d, 0)) }

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// plainDuration is a length of time without the parts that are zero: 1h, 1m30s.
func plainDuration(d time.Duration) string {
	s := d.Round(time.Second).String()
	if s == "0s" {
		return s
	}
	if cut, ok := strings.CutSuffix(s, "m0s"); ok {
		s = cut + "m"
	}
	if cut, ok := strings.CutSuffix(s, "h0m"); ok {
		s = cut + "h"
	}
	return s
}

func plural(n int, one string) string {
	if n == 1 {
		return fmt.Sprintf("%d %s", n, one)
	}
	return fmt.Sprintf("%d %ss", n, one)
}
