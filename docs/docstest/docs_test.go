// SPDX-License-Identifier: Apache-2.0

// Package docstest answers: does what is written for people still hold?
//
// It reads the pages of docs, examples and the README, and compares them with the code: reasons, links,
// manifests, the fields of the API, commands and their flags.
package docstest

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// root of the repository.
var root = filepath.Join("..", "..")

// page is one Markdown file, by its path from the root.
type page struct {
	name  string
	lines []string
}

// block is what stands between two fences.
type block struct {
	page string
	line int // of the first line inside
	lang string
	text string
}

// pages of the README, docs and examples. What is decided or generated is left out by name.
func pages(t *testing.T) []page {
	t.Helper()
	var out []page
	add := func(name string) {
		body, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, page{name, strings.Split(string(body), "\n")})
	}
	for _, name := range []string{"README.md", "CONTRIBUTING.md", "SECURITY.md"} {
		add(name)
	}
	for _, folder := range []string{"docs", "examples"} {
		err := fs.WalkDir(os.DirFS(root), folder, func(name string, entry fs.DirEntry, err error) error {
			if err == nil && !entry.IsDir() && path.Ext(name) == ".md" {
				add(name)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(out) < 10 {
		t.Fatalf("only %d pages were found", len(out))
	}
	return out
}

// guides are the pages that tell people what to write and run, and are held to all the tests.
func guides(t *testing.T) []page {
	t.Helper()
	return slices.DeleteFunc(pages(t), func(p page) bool {
		return !strings.HasPrefix(p.name, "docs/how-to/") && p.name != "docs/concepts.md" && p.name != "docs/troubleshooting.md"
	})
}

const fence = "```"

// blocks that are fenced in a page, and its lines outside of them. A block may be indented, as in a list.
func (p page) blocks() (in []block, outside []string) {
	var open *block
	indent := ""
	for i, line := range p.lines {
		bare := strings.TrimLeft(line, " ")
		switch {
		case strings.HasPrefix(bare, fence) && open == nil:
			indent = line[:len(line)-len(bare)]
			open = &block{page: p.name, line: i + 2, lang: strings.TrimPrefix(bare, fence)}
		case bare == fence:
			in, open = append(in, *open), nil
		case open != nil:
			open.text += strings.TrimPrefix(line, indent) + "\n"
		default:
			outside = append(outside, line)
			continue
		}
		outside = append(outside, "")
	}
	return in, outside
}

// TestFencesClose: what is not closed hides the rest of the page from readers and tests.
func TestFencesClose(t *testing.T) {
	for _, p := range pages(t) {
		n := 0
		for _, line := range p.lines {
			if strings.HasPrefix(strings.TrimLeft(line, " "), fence) {
				n++
			}
		}
		if n%2 != 0 {
			t.Errorf("%s: %d fences; the last block is open", p.name, n)
		}
	}
}

var (
	link    = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	heading = regexp.MustCompile(`^#{1,6} +(.+)$`)
	notSlug = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// anchors that the headings of a page make.
func (p page) anchors() map[string]bool {
	out := map[string]bool{}
	_, outside := p.blocks()
	for _, line := range outside {
		if m := heading.FindStringSubmatch(line); m != nil {
			text := link.ReplaceAllString(m[1], "")
			text = notSlug.ReplaceAllString(strings.ToLower(text), "")
			out[strings.ReplaceAll(text, " ", "-")] = true
		}
	}
	return out
}

// TestLinks: every relative link leads to something that is there, and every anchor to a heading.
func TestLinks(t *testing.T) {
	all := pages(t)
	byName := map[string]page{}
	for _, p := range all {
		byName[p.name] = p
	}
	seen := 0
	for _, p := range all {
		_, outside := p.blocks()
		for i, line := range outside {
			for _, m := range link.FindAllStringSubmatch(inBackticks.ReplaceAllString(line, "x"), -1) {
				target, anchor, _ := strings.Cut(m[1], "#")
				if strings.Contains(target, ":") {
					continue // another site
				}
				seen++
				name := p.name
				if target != "" {
					name = path.Join(path.Dir(p.name), target)
				}
				if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(name))); err != nil {
					t.Errorf("%s:%d: %s leads to nothing", p.name, i+1, m[1])
				}
				if to, isPage := byName[name]; isPage && anchor != "" && !to.anchors()[anchor] {
					t.Errorf("%s:%d: %s has no heading #%s", p.name, i+1, name, anchor)
				}
			}
		}
	}
	if seen < 30 {
		t.Errorf("only %d links were found", seen)
	}
}

// TestEveryGuideIsInTheIndex: a page that nothing leads to is not read.
func TestEveryGuideIsInTheIndex(t *testing.T) {
	index, err := os.ReadFile(filepath.Join(root, "docs", "how-to", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(root, "docs", "how-to", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if name := filepath.Base(file); name != "README.md" && !strings.Contains(string(index), "("+name+")") {
			t.Errorf("docs/how-to/README.md does not lead to %s", name)
		}
	}
}

// TestGuidesAreShort: two screens, and a third for tables and manifests.
func TestGuidesAreShort(t *testing.T) {
	const most = 150
	for _, p := range guides(t) {
		if p.name != "docs/troubleshooting.md" && len(p.lines) > most {
			t.Errorf("%s: %d lines, at most %d", p.name, len(p.lines), most)
		}
	}
}

var inFile = regexp.MustCompile("`(\\w+)` in \\[[^\\]]*\\]\\(([^()\\s]+)\\)")

// TestCodeIsWhereItIsSaid: what a page calls "`X` in [file](file)" is in that file, or in one of that folder.
func TestCodeIsWhereItIsSaid(t *testing.T) {
	seen := 0
	for _, p := range pages(t) {
		for i, line := range p.lines {
			for _, m := range inFile.FindAllStringSubmatch(line, -1) {
				seen++
				where := filepath.Join(root, filepath.FromSlash(path.Join(path.Dir(p.name), m[2])))
				files := []string{where}
				if info, err := os.Stat(where); err == nil && info.IsDir() {
					if files, err = filepath.Glob(filepath.Join(where, "*.go")); err != nil {
						t.Fatal(err)
					}
				}
				declared := regexp.MustCompile(`(?m)^(func (\([^)]*\) )?|type |var |const |\t)` + m[1] + `\b`)
				if !slices.ContainsFunc(files, func(file string) bool {
					body, err := os.ReadFile(file)
					return err == nil && declared.Match(body)
				}) {
					t.Errorf("%s:%d: %s is not in %s", p.name, i+1, m[1], m[2])
				}
			}
		}
	}
	if seen < 8 {
		t.Errorf("only %d were found", seen)
	}
}
