// SPDX-License-Identifier: Apache-2.0

package archtest

import (
	"go/ast"
	"path"
	"slices"
	"strconv"
	"strings"
)

// rule says what some packages import, never import or never call, and why.
//
// Packages are folders of the repository; "x/..." is x and all below it, "*test" those for tests. Imports are written as Go
// writes them, with three short forms: "std" is the standard library, "./x" is our own x, and
// "x/..." is x and all below it.
type rule struct {
	name string
	// in are the packages that the rule is for, but for those in except. An entry of except may also be one file.
	in, except []string
	// only: whatever is imported is among these.
	only []string
	// never: nothing imported is among these.
	never []string
	// calls are functions that are neither called nor passed on, as "time.Now".
	calls []string
	// tests: the rule holds in test files too.
	tests   bool
	because string
}

// check gives every breach of the rule.
func (r rule) check(t *tree) []finding {
	var found []finding
	for _, f := range t.files {
		if f.test && !r.tests || !within(f.dir, r.in) || within(f.dir, r.except) || slices.Contains(r.except, f.path) {
			continue
		}
		say := func(n ast.Node, what string) {
			found = append(found, finding{rule: r.name, where: t.where(n), what: what, because: r.because})
		}
		for _, spec := range f.ast.Imports {
			if name := imported(spec); !r.allows(name) {
				say(spec, "imports "+name)
			}
		}
		r.eachCall(f, say)
	}
	return found
}

// imported is the path of an import, our own ones as "./x".
func imported(spec *ast.ImportSpec) string {
	name, err := strconv.Unquote(spec.Path.Value)
	if err != nil {
		return spec.Path.Value
	}
	if own, ok := strings.CutPrefix(name, module+"/"); ok {
		return "./" + own
	}
	return name
}

func (r rule) allows(name string) bool {
	if within(name, r.never) {
		return false
	}
	return r.only == nil || within(name, r.only) || isStandard(name) && slices.Contains(r.only, "std")
}

// isStandard: only the standard library's paths begin without a dot in their first part.
func isStandard(name string) bool {
	first, _, _ := strings.Cut(name, "/")
	return !strings.Contains(first, ".")
}

// within says whether a path is one of the patterns, or below one that ends in "/...". The pattern
// "*test" is every package for tests.
func within(name string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		if p == "..." || p == name || p == "*test" && isTestPackage(name) {
			return true
		}
		above, ok := strings.CutSuffix(p, "/...")
		return ok && (name == above || strings.HasPrefix(name, above+"/"))
	})
}

// eachCall says where a function of r.calls is used, whatever its package is imported as.
func (r rule) eachCall(f goFile, say func(ast.Node, string)) {
	if len(r.calls) == 0 {
		return
	}
	known := map[string]string{} // the file's name of a package: its path
	for _, spec := range f.ast.Imports {
		name := imported(spec)
		local := path.Base(name)
		if spec.Name != nil {
			local = spec.Name.Name
		}
		known[local] = name
	}
	ast.Inspect(f.ast, func(n ast.Node) bool {
		selector, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		// An identifier that the parser resolved is a variable that happens to have the package's name.
		if id, ok := selector.X.(*ast.Ident); ok && id.Obj == nil {
			if call := known[id.Name] + "." + selector.Sel.Name; slices.Contains(r.calls, call) {
				say(n, "uses "+call)
			}
		}
		return true
	})
}

// suitesIn finds packages for tests that are used outside of tests.
func suitesIn(t *tree, may []string) []finding {
	var found []finding
	for _, f := range t.files {
		if f.test || isTestPackage(f.dir) || within(f.dir, may) {
			continue
		}
		for _, spec := range f.ast.Imports {
			name := imported(spec)
			if strings.HasPrefix(name, "./") && isTestPackage(name) {
				found = append(found, finding{
					rule: "suites-in-tests", where: t.where(spec), what: "imports " + name,
					because: "a fake that ships is a way around the real thing",
				})
			}
		}
	}
	return found
}

// unruled finds packages outside cmd that no rule gives a list of imports.
func unruled(t *tree, rules []rule) []finding {
	var found []finding
	for _, dir := range t.packages() {
		listed := slices.ContainsFunc(rules, func(r rule) bool { return r.only != nil && within(dir, r.in) })
		if !listed && !isTestPackage(dir) && !within(dir, []string{"cmd/..."}) {
			found = append(found, finding{
				rule: "a-row-each", where: dir, what: "has no row of what it may import",
				because: "a new package says whom it knows before it knows everyone",
			})
		}
	}
	return found
}

// knowAll finds packages that import every stage.
func knowAll(t *tree, stages, may []string) []finding {
	var found []finding
	for _, dir := range t.packages() {
		if within(dir, may) {
			continue
		}
		met := map[string]bool{}
		for _, f := range t.files {
			for _, spec := range f.ast.Imports {
				own, _ := strings.CutPrefix(imported(spec), "./")
				stage, _, _ := strings.Cut(own, "/")
				if f.dir == dir && !f.test && own != imported(spec) && slices.Contains(stages, stage) {
					met[stage] = true
				}
			}
		}
		if len(met) == len(stages) {
			found = append(found, finding{
				rule: "one-place-knows-all", where: dir, what: "imports every stage",
				because: "a second place that ties the stages together is a second agent",
			})
		}
	}
	return found
}

// badNames finds folders and packages whose name says nothing.
func badNames(t *tree, names []string) []finding {
	var found []finding
	seen := map[string]bool{}
	for _, f := range t.files {
		parts := append(strings.Split(f.dir, "/"), strings.TrimSuffix(f.ast.Name.Name, "_test"))
		for _, part := range parts {
			if slices.Contains(names, part) && !seen[f.dir] {
				seen[f.dir] = true
				found = append(found, finding{
					rule: "names-say-something", where: f.dir, what: "is called " + part,
					because: "everything ends up in it, and then everything depends on it",
				})
			}
		}
		if top, _, _ := strings.Cut(f.dir, "/"); top == "internal" && !seen[f.dir] {
			seen[f.dir] = true
			found = append(found, finding{
				rule: "names-say-something", where: f.dir, what: "is internal at the top",
				because: "the folder list is the pipeline; what only the binaries share is in cmd/internal",
			})
		}
	}
	return found
}
