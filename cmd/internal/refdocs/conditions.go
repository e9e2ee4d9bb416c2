// SPDX-License-Identifier: Apache-2.0

package refdocs

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
)

// constant of a Go file with what its comments say.
type constant struct{ name, value, meaning, group string }

// Conditions is the page of condition types, reasons, labels and annotations, from the source that defines them.
// A reason without a word on what it means is an error.
func Conditions(source []byte) (string, error) {
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, "conditions.go", source, parser.ParseComments)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString(generated + "# Conditions and reasons\n\n")
	b.WriteString("What stands in `status.conditions` of FleetRollouts and FleetMembers. The message of a condition says which object, where and why; " +
		"[troubleshooting](../troubleshooting.md) says what to do.\n")
	for _, decl := range file.Decls {
		group, ok := decl.(*ast.GenDecl)
		if !ok || group.Tok != token.CONST {
			continue
		}
		constants, err := constantsOf(set, group)
		if err != nil {
			return "", err
		}
		if len(constants) > 0 {
			write(&b, group.Doc.Text(), constants)
		}
	}
	return b.String(), nil
}

func write(b *strings.Builder, doc string, constants []constant) {
	kind, _, _ := strings.Cut(line(doc), ".")
	rest := strings.TrimSpace(strings.TrimPrefix(line(doc), kind+"."))
	fmt.Fprintf(b, "\n## %s\n", strings.TrimSuffix(kind, ", by the condition that they explain"))
	if rest != "" {
		fmt.Fprintf(b, "\n%s\n", rest)
	}
	group, table := "\x00", false
	for _, c := range constants {
		switch {
		case c.meaning == "":
			if c.group != group {
				b.WriteString("\n")
			}
			fmt.Fprintf(b, "- `%s`\n", c.value)
		case c.group != group || !table:
			if c.group != "" {
				fmt.Fprintf(b, "\n### %s\n", c.group)
			}
			fmt.Fprintf(b, "\n| | what it means |\n|---|---|\n| `%s` | %s |\n", c.value, cell(c.meaning))
			table = true
		default:
			fmt.Fprintf(b, "| `%s` | %s |\n", c.value, cell(c.meaning))
		}
		group = c.group
	}
}

// constantsOf a group: a comment that stands by itself begins a part of it; one at a constant says what it means.
func constantsOf(set *token.FileSet, group *ast.GenDecl) ([]constant, error) {
	var out []constant
	part := ""
	for _, spec := range group.Specs {
		v, ok := spec.(*ast.ValueSpec)
		if !ok || len(v.Values) != 1 {
			continue
		}
		literal, ok := v.Values[0].(*ast.BasicLit)
		if !ok || literal.Kind != token.STRING {
			continue
		}
		value, err := strconv.Unquote(literal.Value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", set.Position(v.Pos()), err)
		}
		c := constant{name: v.Names[0].Name, value: value, meaning: strings.TrimSpace(v.Comment.Text())}
		doc := strings.TrimSpace(v.Doc.Text())
		switch {
		case strings.HasPrefix(c.name, "Reason") && doc != "":
			part = strings.TrimSuffix(doc, ".")
		case c.meaning == "":
			c.meaning = meaning(doc, c.name)
		}
		if strings.HasPrefix(c.name, "Reason") && c.meaning == "" {
			return nil, fmt.Errorf("%s: %s has no word on what it means", set.Position(v.Pos()), c.name)
		}
		c.group = part
		out = append(out, c)
	}
	return out, nil
}

// meaning is a constant's comment without its name.
func meaning(doc, name string) string {
	rest := strings.TrimPrefix(line(doc), name+" ")
	return strings.TrimPrefix(strings.TrimPrefix(rest, "is "), "are ")
}
