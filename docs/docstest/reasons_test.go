// SPDX-License-Identifier: Apache-2.0

package docstest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// reasons that conditions.go declares, each with the conditions that its group is about.
func reasons(t *testing.T) map[string]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, "api", "v1alpha1", "conditions.go"), nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	group := ""
	for _, decl := range file.Decls {
		d, ok := decl.(*ast.GenDecl)
		if !ok || d.Tok != token.CONST {
			continue
		}
		for _, spec := range d.Specs {
			v := spec.(*ast.ValueSpec)
			if v.Doc != nil {
				group = strings.TrimSuffix(strings.TrimSpace(v.Doc.Text()), ".")
			}
			for i, name := range v.Names {
				if !strings.HasPrefix(name.Name, "Reason") {
					continue
				}
				text, err := strconv.Unquote(v.Values[i].(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				out[text] = group
			}
		}
	}
	if len(out) < 50 {
		t.Fatalf("only %d reasons were found in conditions.go", len(out))
	}
	return out
}

// entry of the page: a reason, the heading it is below, and its text.
type entry struct{ section, text string }

var entryHead = regexp.MustCompile("^\\*\\*`([A-Za-z]+)`\\*\\*")

// entries of docs/troubleshooting.md. One is a paragraph that begins with its reason in bold.
func entries(t *testing.T) map[string]entry {
	t.Helper()
	body, err := os.ReadFile(filepath.Join(root, "docs", "troubleshooting.md"))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]entry{}
	section, open := "", ""
	for line := range strings.Lines(string(body)) {
		line = strings.TrimRight(line, "\n")
		if m := heading.FindStringSubmatch(line); m != nil {
			section, open = m[1], ""
			continue
		}
		if m := entryHead.FindStringSubmatch(line); m != nil {
			open = m[1]
			if _, twice := out[open]; twice {
				t.Errorf("docs/troubleshooting.md: %s is explained twice", open)
			}
			out[open] = entry{section: section}
		}
		if strings.TrimSpace(line) == "" {
			open = ""
		}
		if open != "" {
			out[open] = entry{section, out[open].text + line + "\n"}
		}
	}
	return out
}

// TestEveryReasonIsExplained: each reason that a condition can have has an entry below its condition, which says
// why it comes, what to do, and what shows more; and no entry is about a reason that is gone.
func TestEveryReasonIsExplained(t *testing.T) {
	known, written := reasons(t), entries(t)
	for reason, group := range known {
		e, ok := written[reason]
		if !ok {
			t.Errorf("docs/troubleshooting.md does not explain %s (%s)", reason, group)
			continue
		}
		if e.section != group {
			t.Errorf("docs/troubleshooting.md: %s stands below %q; conditions.go has it below %q", reason, e.section, group)
		}
		for _, part := range []string{"*Why:*", "*Do:*", "*See:*"} {
			if !strings.Contains(e.text, part) {
				t.Errorf("docs/troubleshooting.md: %s: no %s", reason, part)
			}
		}
	}
	for reason, e := range written {
		if _, ok := known[reason]; !ok {
			t.Errorf("docs/troubleshooting.md explains %s (%s), which is no reason", reason, e.section)
		}
	}
}

// TestEveryConditionIsInTheTable: the page begins with the conditions themselves.
func TestEveryConditionIsInTheTable(t *testing.T) {
	body, err := os.ReadFile(filepath.Join(root, "docs", "troubleshooting.md"))
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(filepath.Join(root, "api", "v1alpha1", "conditions.go"))
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`Condition\w+\s+= "(\w+)"`).FindAllStringSubmatch(string(source), -1)
	if len(found) < 8 {
		t.Fatalf("only %d conditions were found", len(found))
	}
	lines := strings.Split(string(body), "\n")
	for _, m := range found {
		if !slices.ContainsFunc(lines, func(line string) bool { return strings.HasPrefix(line, "| `"+m[1]+"` |") }) {
			t.Errorf("docs/troubleshooting.md: the table has no row for the condition %s", m[1])
		}
	}
}
