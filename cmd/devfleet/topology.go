// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/util/validation"
)

// readTopology returns the names of the members of a topology file in the order of the file.
// Errors read file:line: what.
func readTopology(file string) ([]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("topology: %w: name a file with one member a line with -f", err)
	}
	defer func() { _ = f.Close() }()
	return parseTopology(file, f)
}

// parseTopology reads one member a line: its name, then whatever others read there (labels, arrows).
// Only the first column is read here, so that the rest of the format can grow without this program.
func parseTopology(file string, r io.Reader) ([]string, error) {
	var names []string
	lineOf := map[string]int{}
	lines := bufio.NewScanner(r)
	line := 0
	for lines.Scan() {
		line++
		name, err := memberOfLine(lines.Text())
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", file, line, err)
		}
		if name == "" {
			continue
		}
		if first, twice := lineOf[name]; twice {
			return nil, fmt.Errorf("%s:%d: member %q is already on line %d: give each member a name of its own", file, line, name, first)
		}
		lineOf[name] = line
		names = append(names, name)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s:%d: %w", file, line+1, err)
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("%s:%d: no member here: write one a line, such as: ams-1 region=eu", file, max(line, 1))
	}
	return names, nil
}

// memberOfLine is the first column of a line, "" for an empty line or one that is only a comment.
func memberOfLine(text string) (string, error) {
	if !utf8.ValidString(text) {
		return "", fmt.Errorf("not UTF-8 text")
	}
	text, _, _ = strings.Cut(text, "#")
	columns := strings.Fields(text)
	if len(columns) == 0 {
		return "", nil
	}
	return columns[0], checkMemberName(columns[0])
}

// checkMemberName holds a member's name to a DNS label: it becomes a folder, a context and a node label.
func checkMemberName(name string) error {
	switch {
	case strings.Contains(name, "="):
		return fmt.Errorf("line starts with %q: the member's name comes first, labels after it", name)
	case name == "->":
		return fmt.Errorf("line starts with an arrow: the member's name comes first, its peers after the arrow")
	}
	if wrong := validation.IsDNS1123Label(name); len(wrong) > 0 {
		return fmt.Errorf("member name %q: %s", name, wrong[0])
	}
	return nil
}
