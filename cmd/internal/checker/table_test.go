// SPDX-License-Identifier: Apache-2.0

package checker

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = "../../.."

var (
	quoted    = regexp.MustCompile("`([^`]+)`")
	testFuncs = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	bugIDs    = regexp.MustCompile(`\{ID: "([^"]+)"`)
	violated  = regexp.MustCompile(`"([IR]\d+|liveness): `)
)

// table of docs/proof.md below a heading: its rows, the cells of each.
func table(t *testing.T, heading string) (rows [][]string) {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(root, "docs/proof.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, below, found := strings.Cut(string(page), "\n## "+heading+"\n")
	if !found {
		t.Fatalf("docs/proof.md has no heading %q", heading)
	}
	below, _, _ = strings.Cut(below, "\n## ")
	for _, line := range strings.Split(below, "\n") {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| bug ") || strings.HasPrefix(line, "| | ") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		rows = append(rows, cells)
	}
	return rows
}

// matches of a pattern in the Go files of a folder.
func matches(t *testing.T, dir string, tests bool, pattern *regexp.Regexp) (out []string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") != tests {
			return err
		}
		code, err := os.ReadFile(path)
		for _, m := range pattern.FindAllStringSubmatch(string(code), -1) {
			out = append(out, m[1])
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// names in backquotes of a cell; each must be among those that there are.
func names(t *testing.T, row []string, cell int, there []string) (out []string) {
	t.Helper()
	for _, m := range quoted.FindAllStringSubmatch(row[cell], -1) {
		if !slices.Contains(there, m[1]) {
			t.Errorf("%s: there is no %s", row[0], m[1])
		}
		out = append(out, m[1])
	}
	return out
}

// TestBugsAreInTheTable: whatever docs/proof.md names is there, whatever is planted is named, and no bug of the list is
// left out.
func TestBugsAreInTheTable(t *testing.T) {
	planted, bugs := table(t, "Planted bugs"), table(t, "Bugs that were there")
	tests := matches(t, ".", true, testFuncs)
	here, simulated := matches(t, "cmd/internal/checker", false, bugIDs), matches(t, "cmd/internal/sim", false, bugIDs)
	var listed, checked, found []string
	for _, row := range slices.Concat(planted, bugs) {
		if len(row) != 5 {
			t.Fatalf("%v: not five cells", row)
		}
		listed = append(listed, row[0])
		if excuse := strings.HasPrefix(row[4], "not built: ") || strings.HasPrefix(row[4], "not found: "); excuse {
			continue
		}
		c, s := names(t, row, 2, here), names(t, row, 3, simulated)
		if len(c)+len(s)+len(names(t, row, 4, tests)) == 0 {
			t.Errorf("%s: nothing finds it, and it does not say why", row[0])
		}
		checked, found = append(checked, c...), append(found, s...)
	}
	for n := 1; n <= 42; n++ {
		if !slices.Contains(listed, fmt.Sprintf("P%d", n)) {
			t.Errorf("P%d is not in the table", n)
		}
	}
	for _, bug := range slices.Concat(Planted, PlantedInRestored) {
		if !slices.Contains(checked, bug.ID) {
			t.Errorf("%s of the checker is not in the table", bug.ID)
		}
	}
	for _, id := range simulated {
		if !slices.Contains(found, id) {
			t.Errorf("%s of the simulator is not in the table", id)
		}
	}
}

// TestInvariantsAreInTheTable: each invariant is asserted where docs/proof.md says so, or says that it is not built.
func TestInvariantsAreInTheTable(t *testing.T) {
	tests := matches(t, ".", true, testFuncs)
	here, simulated := matches(t, "cmd/internal/checker", false, violated), matches(t, "cmd/internal/sim", false, violated)
	var listed []string
	for _, row := range table(t, "Which invariant is asserted where") {
		listed = append(listed, row[0])
		n := len(names(t, row, 1, here)) + len(names(t, row, 2, simulated)) + len(names(t, row, 3, tests))
		if n == 0 && !strings.HasPrefix(row[3], "not built: ") {
			t.Errorf("%s is asserted nowhere, and does not say why", row[0])
		}
	}
	for n := 1; n <= 22; n++ {
		if !slices.Contains(listed, fmt.Sprintf("I%d", n)) {
			t.Errorf("I%d is not in the table", n)
		}
	}
}
