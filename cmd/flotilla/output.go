// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

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
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
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

// pad on the right, to so many columns.
func pad(s string, to int) string {
	return s + strings.Repeat(" ", max(0, to-utf8.RuneCountInString(s)))
}

// padLeft on the left.
func padLeft(s string, to int) string {
	return strings.Repeat(" ", max(0, to-utf8.RuneCountInString(s))) + s
}

// clip to so many columns; what is lost is shown by a dot.
func clip(s string, to int) string {
	runes := []rune(s)
	if len(runes) <= to {
		return s
	}
	return string(runes[:max(0, to-1)]) + "…"
}

// wrap a sentence at words; the first line begins at column first, the others at indent.
func wrap(s string, first, indent int) string {
	var out strings.Builder
	column := first
	for i, word := range strings.Fields(s) {
		size := utf8.RuneCountInString(word)
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
	if !a.color || strings.TrimSpace(s) == "" {
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
