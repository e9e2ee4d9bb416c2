// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// TestLogMessagesAreConstant, and so are their keys: who searches a log for a sentence finds all of its lines.
func TestLogMessagesAreConstant(t *testing.T) {
	files := token.NewFileSet()
	var names []string
	for _, pattern := range []string{"*.go", "turn/*.go"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(found), err)
		}
		names = append(names, found...)
	}
	seen := 0
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(files, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			message, keys, ok := logged(n)
			if !ok {
				return true
			}
			seen++
			if !isText(message) {
				t.Errorf("%s: the message is put together; say it in keys", files.Position(n.Pos()))
			}
			for i, key := range keys {
				if i%2 == 0 && !isText(key) {
					t.Errorf("%s: a key is put together", files.Position(key.Pos()))
				}
			}
			if len(keys)%2 != 0 {
				t.Errorf("%s: a key without a value", files.Position(n.Pos()))
			}
			return true
		})
	}
	if seen < 10 {
		t.Errorf("only %d log lines were found: the test looks in the wrong place", seen)
	}
}

// logged is what a call of a logger says; false where it is none.
func logged(n ast.Node) (message ast.Expr, keys []ast.Expr, ok bool) {
	call, isCall := n.(*ast.CallExpr)
	if !isCall {
		return nil, nil, false
	}
	method, isMethod := call.Fun.(*ast.SelectorExpr)
	if !isMethod || !isLogger(method.X) {
		return nil, nil, false
	}
	switch {
	case method.Sel.Name == "Info" && len(call.Args) > 0:
		return call.Args[0], call.Args[1:], true
	case method.Sel.Name == "Error" && len(call.Args) > 1:
		return call.Args[1], call.Args[2:], true
	}
	return nil, nil, false
}

// isLogger by its name, also where a level is asked of it.
func isLogger(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.Ident:
		return strings.EqualFold(e.Name, "log")
	case *ast.SelectorExpr:
		return strings.EqualFold(e.Sel.Name, "log")
	case *ast.CallExpr:
		level, ok := e.Fun.(*ast.SelectorExpr)
		return ok && level.Sel.Name == "V" && isLogger(level.X)
	}
	return false
}

func isText(e ast.Expr) bool {
	literal, ok := e.(*ast.BasicLit)
	return ok && literal.Kind == token.STRING
}
