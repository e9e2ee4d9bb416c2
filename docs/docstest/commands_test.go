// SPDX-License-Identifier: Apache-2.0

package docstest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// program is what the source of a command says of itself: for each command by its first word, the flags it takes.
type program struct {
	commands map[string]map[string]bool
	common   map[string]bool
}

// kubectlFlags come with the library of kubectl's own.
var kubectlFlags = []string{"namespace", "n", "context", "kubeconfig", "as", "request-timeout", "server", "token"}

// function of a command's source.
type function struct {
	words []string // of the commands it makes
	flags []string // it defines
	calls []string // of others, by name
}

// read the commands and flags out of the source of a command.
func read(t *testing.T, folder string, common ...string) program {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, folder, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: no source: %v", folder, err)
	}
	all := map[string]*function{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range parsed.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok {
				f := &function{}
				ast.Inspect(fn, f.look)
				all[fn.Name.Name] = f
			}
		}
	}
	p := program{commands: map[string]map[string]bool{}, common: map[string]bool{"help": true, "h": true}}
	for _, flag := range common {
		p.common[flag] = true
	}
	for name, f := range all {
		flags := map[string]bool{}
		collect(all, name, flags, map[string]bool{})
		for _, word := range f.words {
			if p.commands[word] == nil {
				p.commands[word] = map[string]bool{}
			}
			maps.Copy(p.commands[word], flags)
		}
	}
	return p
}

// collect the flags of a function and of those that it calls.
func collect(all map[string]*function, name string, into, seen map[string]bool) {
	f := all[name]
	if f == nil || seen[name] {
		return
	}
	seen[name] = true
	for _, flag := range f.flags {
		into[flag] = true
	}
	for _, other := range f.calls {
		collect(all, other, into, seen)
	}
}

func (f *function) look(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.FuncLit:
		return false // what runs later defines no flags
	case *ast.KeyValueExpr:
		if key, ok := n.Key.(*ast.Ident); ok && (key.Name == "Use" || key.Name == "Aliases") {
			f.named(n.Value)
		}
	case *ast.AssignStmt:
		if to, ok := n.Lhs[0].(*ast.SelectorExpr); ok && to.Sel.Name == "Use" {
			f.named(n.Rhs[0])
		}
	case *ast.CallExpr:
		f.called(n)
	}
	return true
}

func (f *function) named(use ast.Expr) {
	for _, text := range texts(use) {
		f.words = append(f.words, strings.Fields(text)[0])
	}
}

func (f *function) called(call *ast.CallExpr) {
	switch fun := call.Fun.(type) {
	case *ast.Ident:
		f.calls = append(f.calls, fun.Name)
	case *ast.SelectorExpr:
		f.calls = append(f.calls, fun.Sel.Name)
		method, short := strings.CutSuffix(fun.Sel.Name, "P")
		if !strings.HasSuffix(method, "Var") || len(call.Args) < 3 {
			return
		}
		f.flags = append(f.flags, texts(call.Args[1])...)
		if short {
			f.flags = append(f.flags, texts(call.Args[2])...)
		}
	}
}

// texts that are written in an expression.
func texts(e ast.Expr) []string {
	var out []string
	ast.Inspect(e, func(n ast.Node) bool {
		lit, ok := n.(*ast.BasicLit)
		if !ok || lit.Kind != token.STRING {
			return true
		}
		if text, err := strconv.Unquote(lit.Value); err == nil && strings.TrimSpace(text) != "" {
			out = append(out, text)
		}
		return true
	})
	return out
}

var (
	called   = regexp.MustCompile("(?:^|[`|(;&] ?|\\$ |&& )(flotilla|flotilla-agent) ([a-z][^`|;#&]*|--[a-z][^`|;#&]*)")
	flagIn   = regexp.MustCompile(`(?:^|\s)--?([a-zA-Z][-a-zA-Z]*)`)
	quotedIn = regexp.MustCompile(`"[^"]*"|'[^']*'`)
	wordIn   = regexp.MustCompile(`^[a-z][-a-z]*$`)
)

// check one call as it is written in a page. The word itself is that of the program where there is none.
func (p program) check(name, call string) (wrong []string) {
	call = quotedIn.ReplaceAllString(call, "X")
	word := name
	if first := strings.Fields(call)[0]; wordIn.MatchString(first) {
		word = first
	}
	flags, known := p.commands[word]
	if !known {
		return []string{"there is no command " + word}
	}
	for _, m := range flagIn.FindAllStringSubmatch(call, -1) {
		if !flags[m[1]] && !p.common[m[1]] {
			wrong = append(wrong, word+" has no flag "+m[1])
		}
	}
	return wrong
}

// TestCommands: every command and flag that a page shows is there.
func TestCommands(t *testing.T) {
	programs := map[string]program{
		"flotilla":       read(t, filepath.Join("cmd", "flotilla"), kubectlFlags...),
		"flotilla-agent": read(t, filepath.Join("cmd", "flotilla-agent"), "kubeconfig", "namespace"),
	}
	seen := 0
	for _, p := range pages(t) {
		for i, line := range p.lines {
			for _, m := range called.FindAllStringSubmatch(line, -1) {
				seen++
				for _, wrong := range programs[m[1]].check(m[1], m[2]) {
					t.Errorf("%s:%d: %s %s: %s", p.name, i+1, m[1], strings.TrimSpace(m[2]), wrong)
				}
			}
		}
	}
	if seen < 60 {
		t.Errorf("only %d calls were found", seen)
	}
}

// TestWrongCommandsAreFound: the test above can fail.
func TestWrongCommandsAreFound(t *testing.T) {
	p := read(t, filepath.Join("cmd", "flotilla"), kubectlFlags...)
	for _, call := range []string{"gte rollouts", "get rollouts --al", "plan -f a --reason b", "pause web --why X", "watch web -x"} {
		if len(p.check("flotilla", call)) == 0 {
			t.Errorf("flotilla %s is taken", call)
		}
	}
	for _, call := range []string{"get rollouts -A", "render -f a --member b --payload c", "explain web eu-1 -n apps", "explain --defaults -f a"} {
		if wrong := p.check("flotilla", call); len(wrong) > 0 {
			t.Errorf("flotilla %s: %v", call, wrong)
		}
	}
}
