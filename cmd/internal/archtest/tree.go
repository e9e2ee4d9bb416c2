// SPDX-License-Identifier: Apache-2.0

// Package archtest answers: does the code keep to the house's own rules?
//
// The rules are tables, each row with its reason: who may import whom in imports_test.go, how code
// is written in doc_test.go. Nothing is built; files are parsed, which takes a second. Every row
// is shown to be able to fail by a small tree in testdata that breaks it.
package archtest

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// module is the import path of the repository's root.
const module = "github.com/flotilla-dev/flotilla"

// tree is everything that the rules look at.
type tree struct {
	set   *token.FileSet
	files []goFile
	// texts are all files that people read, Go and other, by path.
	texts map[string][]byte
}

// goFile is one parsed file.
type goFile struct {
	path, dir string
	test      bool
	generated bool
	ast       *ast.File
	src       []byte
}

// finding is one breach of one rule.
type finding struct {
	rule, where, what, because string
}

func (f finding) String() string {
	return fmt.Sprintf("%s: %s [%s: %s]", f.where, f.what, f.rule, f.because)
}

// load parses every Go file and reads every text below the root.
func load(root fs.FS) (*tree, error) {
	t := &tree{set: token.NewFileSet(), texts: map[string][]byte{}}
	err := fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		switch {
		case entry.IsDir() && skipped(name):
			return fs.SkipDir
		case !entry.Type().IsRegular(), skipped(name): // of a worktree, .git is a file
			return nil
		}
		src, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		if bytes.IndexByte(src, 0) < 0 {
			t.texts[name] = src
		}
		if path.Ext(name) != ".go" || strings.Contains(name, "testdata/") {
			return nil
		}
		return t.parse(name, src)
	})
	return t, err
}

// skipped are places that are no part of what is committed, and the rules' own broken examples.
func skipped(name string) bool {
	base := path.Base(name)
	return name == "bin" || base == ".git" || base == ".idea" || base == ".vscode" ||
		name == "cmd/internal/archtest/testdata"
}

func (t *tree) parse(name string, src []byte) error {
	file, err := parser.ParseFile(t.set, name, src, parser.ParseComments)
	if err != nil {
		return err
	}
	t.files = append(t.files, goFile{
		path: name, dir: path.Dir(name), test: strings.HasSuffix(name, "_test.go"),
		generated: ast.IsGenerated(file), ast: file, src: src,
	})
	return nil
}

// where a node is, as editors jump to it.
func (t *tree) where(n ast.Node) string {
	p := t.set.Position(n.Pos())
	return p.Filename + ":" + strconv.Itoa(p.Line)
}

// lines that a node takes.
func (t *tree) lines(n ast.Node) int {
	return t.set.Position(n.End()).Line - t.set.Position(n.Pos()).Line + 1
}

// packages are the folders that hold Go files, sorted.
func (t *tree) packages() []string {
	var dirs []string
	for _, f := range t.files {
		dirs = append(dirs, f.dir)
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// isTestPackage: conformance suites, fakes and servers for tests have names that end in test.
func isTestPackage(dir string) bool { return strings.HasSuffix(path.Base(dir), "test") }
