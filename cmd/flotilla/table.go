// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"sigs.k8s.io/yaml"
)

// column of a table.
type column struct {
	head string
	// wide: shown by -o wide alone.
	wide bool
	// loose: it changes by itself, such as an age, and is no news.
	loose bool
}

// cell of a table.
type cell struct {
	text  string
	color paint
	// by is what it sorts by; the text where it is nil.
	by *float64
	// news is what of the text is news when it changes; the text where it is empty.
	news string
}

// row of a table, and the same for programs.
type row struct {
	// id is the same from one look to the next.
	id    string
	cells []cell
	// name for -o name, object for -o json and yaml.
	name   string
	object any
}

// text cells.
func text(words ...string) []cell {
	out := make([]cell, len(words))
	for i, w := range words {
		out[i].text = w
	}
	return out
}

func numbered(s string, by float64) cell { return cell{text: s, by: &by} }

// listing is how a list is shown.
type listing struct {
	output    output
	noHeaders bool
	sortBy    string
	follow    bool
	columns   []column
	// kind of what is listed, in the plural.
	kind string
}

// formats of every list.
var formats = []string{"json", "yaml", "wide", "name", "table"}

// flags of a list. Its columns need not be known before it runs.
func (l *listing) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVarP((*string)(&l.output), "output", "o", "", "json, yaml, wide, name or table")
	f.BoolVar(&l.noHeaders, "no-headers", false, "print no column titles")
	f.StringVar(&l.sortBy, "sort-by", "", "`column` to sort by, by its title")
	f.BoolVarP(&l.follow, "watch", "w", false, "go on, and print each row again when it changes")
	fixed(c, "output", formats...)
}

// check what was given, once the columns are known.
func (l *listing) check() error {
	if err := l.output.check(formats...); err != nil {
		return err
	}
	if l.sortBy == "" {
		return nil
	}
	var titles []string
	for _, c := range l.columns {
		if strings.EqualFold(c.head, l.sortBy) {
			return nil
		}
		titles = append(titles, strings.ToLower(c.head))
	}
	return usage("--sort-by %s: one of %s", l.sortBy, strings.Join(titles, ", "))
}

// sort the rows by the column that was asked for; otherwise they stay.
func (l *listing) sort(rows []row) {
	by := slices.IndexFunc(l.columns, func(c column) bool { return strings.EqualFold(c.head, l.sortBy) })
	if l.sortBy == "" || by < 0 {
		return
	}
	slices.SortStableFunc(rows, func(a, b row) int {
		x, y := a.cells[by], b.cells[by]
		switch {
		case x.by == nil && y.by == nil:
			return strings.Compare(x.text, y.text)
		case x.by == nil: // what nobody knows comes last
			return 1
		case y.by == nil:
			return -1
		}
		return cmp.Compare(*x.by, *y.by)
	})
}

// show a list once. Whole is the same for programs.
func (a *app) show(l listing, rows []row, whole any) error {
	l.sort(rows)
	if done, err := l.output.structured(a.Out, whole); done {
		return err
	}
	if l.output == "name" {
		for i := range rows {
			fmt.Fprintln(a.Out, rows[i].name)
		}
		return nil
	}
	if len(rows) == 0 {
		fmt.Fprintf(a.ErrOut, "no %s found\n", l.kind)
		return nil
	}
	p := changes{app: a, listing: l}
	return p.print(rows)
}

// changes prints a list, and then of each further look the rows that are not as they were.
type changes struct {
	*app
	listing listing

	begun  bool
	widths []int
	seen   map[string]string
}

func (p *changes) print(rows []row) error {
	p.listing.sort(rows)
	if p.seen == nil {
		p.seen = map[string]string{}
	}
	var news []row
	now := make(map[string]string, len(rows))
	for _, r := range rows {
		now[r.id] = p.key(r)
		if was, known := p.seen[r.id]; !known || was != now[r.id] {
			news = append(news, r)
		}
	}
	p.seen = now
	return p.write(news)
}

// write rows that are news.
func (p *changes) write(rows []row) error {
	if len(rows) == 0 {
		return nil
	}
	switch p.listing.output {
	case "json", "yaml":
		for _, r := range rows {
			if err := p.document(r.object); err != nil {
				return err
			}
		}
		return nil
	case "name":
		for _, r := range rows {
			fmt.Fprintln(p.Out, r.name)
		}
		return nil
	}
	var lines strings.Builder
	p.lines(&lines, rows)
	_, err := io.WriteString(p.Out, lines.String())
	return err
}

// document of a stream of them.
func (p *changes) document(object any) error {
	if p.listing.output == "json" {
		body, err := json.MarshalIndent(object, "", "  ")
		if err != nil {
			return err
		}
		_, err = p.Out.Write(append(body, '\n'))
		return err
	}
	body, err := yaml.Marshal(object)
	if err != nil {
		return err
	}
	_, err = p.Out.Write(append([]byte("---\n"), body...))
	return err
}

// key of what a row says, without what changes by itself.
func (p *changes) key(r row) string {
	var b strings.Builder
	for i, c := range r.cells {
		if !p.listing.columns[i].loose {
			b.WriteString(cmp.Or(c.news, c.text))
			b.WriteByte(0)
		}
	}
	return b.String()
}

func (p *changes) lines(w *strings.Builder, rows []row) {
	shown := p.shown()
	if p.widths == nil {
		p.widths = make([]int, len(shown))
	}
	head := !p.begun && !p.listing.noHeaders
	for at, i := range shown {
		if !p.listing.noHeaders {
			p.widths[at] = max(p.widths[at], columns(p.listing.columns[i].head))
		}
		for _, r := range rows {
			p.widths[at] = max(p.widths[at], columns(plain(r.cells[i].text)))
		}
	}
	widths := p.widths
	if p.listing.output != "wide" {
		widths = p.fit(shown)
	}
	if head {
		var titles []cell
		for _, c := range p.listing.columns {
			titles = append(titles, cell{text: c.head})
		}
		p.line(w, titles, shown, widths)
	}
	p.begun = true
	for _, r := range rows {
		p.line(w, r.cells, shown, widths)
	}
}

// shown columns, by index.
func (p *changes) shown() []int {
	var out []int
	for i, c := range p.listing.columns {
		if !c.wide || p.listing.output == "wide" {
			out = append(out, i)
		}
	}
	return out
}

// leastColumn that a column is narrowed to.
const leastColumn = 6

// fit the columns into the width: the widest gives first.
func (p *changes) fit(shown []int) []int {
	widths := slices.Clone(p.widths)
	used := 2 * (len(shown) - 1)
	for _, w := range widths {
		used += w
	}
	for ; used > p.width(); used-- {
		widest := slices.Index(widths, slices.Max(widths))
		if widths[widest] <= leastColumn {
			break
		}
		widths[widest]--
	}
	return widths
}

func (p *changes) line(w *strings.Builder, cells []cell, shown, widths []int) {
	var line strings.Builder
	for at, i := range shown {
		said := clip(plain(cells[i].text), widths[at])
		line.WriteString(p.paint(cells[i].color, said))
		if at < len(shown)-1 {
			line.WriteString(strings.Repeat(" ", widths[at]-columns(said)+2))
		}
	}
	w.WriteString(strings.TrimRight(line.String(), " "))
	w.WriteByte('\n')
}

// width of the terminal; of anything else as much as is sure to fit.
func (a *app) width() int {
	if file, ok := a.Out.(*os.File); ok {
		if columns, _, err := term.GetSize(int(file.Fd())); err == nil && columns > 0 {
			return columns
		}
	}
	return width
}
