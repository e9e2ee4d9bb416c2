// SPDX-License-Identifier: Apache-2.0

package docstest

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// agentSource is one file of the agent.
func agentSource(t *testing.T, name string) string {
	t.Helper()
	body, err := os.ReadFile(filepath.Join(root, "cmd", "internal", "agent", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// TestMetrics: every metric that a page names is one that the agent has.
func TestMetrics(t *testing.T) {
	known := regexp.MustCompile(`"(flotilla_[a-z_]+)"`).FindAllStringSubmatch(agentSource(t, "metrics.go"), -1)
	names := map[string]bool{}
	for _, m := range known {
		names[m[1]] = true
	}
	metric := regexp.MustCompile(`\bflotilla_[a-z_]+`)
	seen := 0
	for _, p := range guides(t) {
		for i, line := range p.lines {
			for _, name := range metric.FindAllString(line, -1) {
				seen++
				base := name
				for _, end := range []string{"_bucket", "_sum", "_count"} {
					base = strings.TrimSuffix(base, end)
				}
				if !names[base] && !names[name] {
					t.Errorf("%s:%d: the agent has no metric %s", p.name, i+1, name)
				}
			}
		}
	}
	if seen < 8 {
		t.Errorf("only %d metrics were found", seen)
	}
}

// TestEventsAreListed: the table of events has each reason, and no other.
func TestEventsAreListed(t *testing.T) {
	var known []string
	for _, m := range regexp.MustCompile(`\bEvent\w+\s+= "(\w+)"`).FindAllStringSubmatch(agentSource(t, "events.go"), -1) {
		known = append(known, m[1])
	}
	body, err := os.ReadFile(filepath.Join(root, "docs", "how-to", "watch-it.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(body), "| reason | when |\n|---|---|\n")
	if !found {
		t.Fatal("docs/how-to/watch-it.md has no table of events")
	}
	var listed []string
	for line := range strings.Lines(table) {
		if !strings.HasPrefix(line, "| ") {
			break
		}
		cell, _, _ := strings.Cut(strings.TrimPrefix(line, "| "), " |")
		listed = append(listed, strings.Split(cell, ", ")...)
	}
	slices.Sort(known)
	slices.Sort(listed)
	if len(known) < 10 || !slices.Equal(known, listed) {
		t.Errorf("events.go has %v\nthe page lists %v", known, listed)
	}
}
