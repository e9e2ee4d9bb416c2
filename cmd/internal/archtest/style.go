// SPDX-License-Identifier: Apache-2.0

package archtest

import (
	"fmt"
	"go/ast"
	"go/token"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
)

// manner is one rule of how code is written.
type manner struct {
	name    string
	because string
	// check calls say for every breach.
	check func(t *tree, say func(where, what string))
}

func (m manner) find(t *tree) []finding {
	var found []finding
	m.check(t, func(where, what string) {
		found = append(found, finding{rule: m.name, where: where, what: what, because: m.because})
	})
	return found
}

// handwritten are the files that somebody wrote and ships: no tests, nothing generated.
func (t *tree) handwritten() []goFile {
	return slices.DeleteFunc(slices.Clone(t.files), func(f goFile) bool { return f.test || f.generated })
}

const spdx = "// SPDX-License-Identifier: Apache-2.0\n"

func licensed(t *tree, say func(where, what string)) {
	for _, f := range t.files {
		if !f.generated && !strings.HasPrefix(string(f.src), spdx) {
			say(f.path+":1", "does not begin with "+strings.TrimSpace(spdx))
		}
	}
}

func onePackageComment(t *tree, say func(where, what string)) {
	for _, dir := range t.packages() {
		var comments []string
		for _, f := range t.files {
			if f.dir != dir || f.ast.Doc == nil {
				continue
			}
			comments = append(comments, t.where(f.ast.Doc))
			opening := "Package " + f.ast.Name.Name + " "
			if f.ast.Name.Name != "main" && !strings.HasPrefix(f.ast.Doc.Text(), opening) {
				say(t.where(f.ast.Doc), "does not begin with "+opening)
			}
		}
		if len(comments) != 1 {
			say(dir, fmt.Sprintf("has %d package comments %v", len(comments), comments))
		}
	}
}

// maxLines of a function: a screen.
const maxLines = 70

func shortFunctions(t *tree, say func(where, what string)) {
	for _, f := range t.handwritten() {
		for _, decl := range f.ast.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && t.lines(fn) > maxLines {
				say(t.where(fn), fmt.Sprintf("%s has %d lines, at most %d", fn.Name.Name, t.lines(fn), maxLines))
			}
		}
	}
}

// maxParameters of a function; more are a struct.
const maxParameters = 5

func fewParameters(t *tree, say func(where, what string)) {
	for _, f := range t.handwritten() {
		for _, decl := range f.ast.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Type.Params.NumFields() > maxParameters {
				say(t.where(fn), fmt.Sprintf("%s takes %d parameters, at most %d", fn.Name.Name, fn.Type.Params.NumFields(), maxParameters))
			}
		}
	}
}

func noContextInStructs(t *tree, say func(where, what string)) {
	for _, f := range t.files {
		ast.Inspect(f.ast, func(n ast.Node) bool {
			s, ok := n.(*ast.StructType)
			if !ok {
				return true
			}
			for _, field := range s.Fields.List {
				if isSelector(field.Type, "context", "Context") {
					say(t.where(field), "keeps a context.Context")
				}
			}
			return true
		})
	}
}

// noNakedSleep lets a test sleep between two looks at a real server, in a loop that looks at the time as well.
func noNakedSleep(t *tree, say func(where, what string)) {
	for _, f := range t.files {
		if !f.test {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if loop, ok := n.(*ast.ForStmt); ok && mentions(loop, "time", "Now", "Until", "Since") {
				return false
			}
			if e, ok := n.(ast.Expr); ok && isSelector(e, "time", "Sleep") {
				say(t.where(n), "uses time.Sleep")
			}
			return true
		})
	}
}

func mentions(in ast.Node, pkg string, names ...string) bool {
	found := false
	ast.Inspect(in, func(n ast.Node) bool {
		e, ok := n.(ast.Expr)
		found = found || ok && isSelector(e, pkg, names...)
		return !found
	})
	return found
}

func isSelector(e ast.Expr, pkg string, names ...string) bool {
	s, ok := e.(*ast.SelectorExpr)
	if !ok || !slices.Contains(names, s.Sel.Name) {
		return false
	}
	id, ok := s.X.(*ast.Ident)
	return ok && id.Name == pkg
}

// machinePath is an absolute path that exists on somebody's machine only.
var machinePath = regexp.MustCompile(`(?:^|[^\w.$~})\]-])(/(?:root/|work/|Users/|home/[a-z]\w+)[\w./-]*)`)

// mayBeMachinePath spares nearly every line the regular expression.
func mayBeMachinePath(line string) bool {
	return strings.Contains(line, "/root") || strings.Contains(line, "/work") ||
		strings.Contains(line, "/home") || strings.Contains(line, "/Users")
}

func noMachinePaths(t *tree, say func(where, what string)) {
	for _, name := range slices.Sorted(maps.Keys(t.texts)) {
		if path.Base(name) == "go.sum" {
			continue
		}
		for i, line := range strings.Split(string(t.texts[name]), "\n") {
			if !mayBeMachinePath(line) {
				continue
			}
			if m := machinePath.FindStringSubmatch(line); m != nil {
				say(fmt.Sprintf("%s:%d", name, i+1), "names "+m[1])
			}
		}
	}
}

func unfinished(t *tree, say func(where, what string)) {
	for _, f := range t.files {
		for _, group := range f.ast.Comments {
			for _, c := range group.List {
				for _, word := range []string{"TODO", "FIXME", "XXX"} {
					if strings.Contains(c.Text, word) {
						say(t.where(c), "says "+word)
					}
				}
			}
		}
	}
}

func allDocumented(t *tree, say func(where, what string)) {
	for _, f := range t.handwritten() {
		if f.ast.Name.Name == "main" {
			continue // nobody imports it
		}
		for _, decl := range f.ast.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				if d.Doc == nil && d.Name.IsExported() && !selfEvident(d) {
					say(t.where(d), d.Name.Name+" has no comment")
				}
			case *ast.GenDecl:
				for _, name := range undocumented(d) {
					say(t.where(name), name.Name+" has no comment")
				}
			}
		}
	}
}

// selfEvident are methods of types that others do not see, and those whose interface says what they do.
func selfEvident(fn *ast.FuncDecl) bool {
	if fn.Recv == nil {
		return false
	}
	receiver := fn.Recv.List[0].Type
	if star, ok := receiver.(*ast.StarExpr); ok {
		receiver = star.X
	}
	if generic, ok := receiver.(*ast.IndexExpr); ok {
		receiver = generic.X
	}
	if id, ok := receiver.(*ast.Ident); ok && !id.IsExported() {
		return true
	}
	return slices.Contains([]string{"String", "Error", "Unwrap", "Len", "Less", "Swap", "Read", "Write", "Close", "ServeHTTP"}, fn.Name.Name)
}

// undocumented are the exported names of a declaration that neither it nor its group explains.
func undocumented(d *ast.GenDecl) []*ast.Ident {
	var names []*ast.Ident
	for _, spec := range d.Specs {
		switch s := spec.(type) {
		case *ast.TypeSpec:
			if s.Doc == nil && (d.Doc == nil || d.Lparen != token.NoPos) && s.Name.IsExported() {
				names = append(names, s.Name)
			}
		case *ast.ValueSpec:
			if s.Doc != nil || s.Comment != nil || d.Doc != nil {
				continue
			}
			for _, name := range s.Names {
				if name.IsExported() {
					names = append(names, name)
				}
			}
		}
	}
	return names
}

// maxMethods of an interface, those that it embeds not counted.
const maxMethods = 3

func smallInterfaces(t *tree, say func(where, what string)) {
	for _, f := range t.handwritten() {
		if isTestPackage(f.dir) {
			continue // a conformance suite asks for all that there is
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			if methods := ownMethods(spec.Type); methods > maxMethods {
				say(t.where(spec), fmt.Sprintf("%s has %d methods, at most %d", spec.Name.Name, methods, maxMethods))
			}
			return true
		})
	}
}

func ownMethods(e ast.Expr) int {
	i, ok := e.(*ast.InterfaceType)
	if !ok {
		return 0
	}
	n := 0
	for _, field := range i.Methods.List {
		n += len(field.Names)
	}
	return n
}
