// SPDX-License-Identifier: Apache-2.0

package selection_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/selection"
)

// TestTranscripts runs the scripted fleets. A script is blocks of a command line, its input, a line
// "----" and what it prints; UPDATE_GOLDEN=1 writes anew what comes after "----".
//
//	fleet     one member a line: a name and its labels; "store-{1..300} kind=store" is 300 of them
//	targets   spec.targets in YAML; prints the members, the verdicts, or the error
//	members   spec.targets in YAML; prints the names alone
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts in testdata: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			before, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			after := runTranscript(t, string(before))
			if os.Getenv("UPDATE_GOLDEN") == "1" {
				if err := os.WriteFile(file, []byte(after), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(before), after); diff != "" {
				t.Errorf("the transcript is another one now (-want +got; UPDATE_GOLDEN=1 rewrites):\n%s", diff)
			}
		})
	}
}

func runTranscript(t *testing.T, script string) string {
	t.Helper()
	var roster []fleet.Member
	var out []string
	for block := range strings.SplitSeq(strings.TrimRight(script, "\n"), "\n\n") {
		said, _, _ := strings.Cut(block, "\n----")
		lines := strings.Split(said, "\n")
		comments := 0
		for comments < len(lines) && strings.HasPrefix(lines[comments], "#") {
			comments++
		}
		if comments == len(lines) {
			out = append(out, said)
			continue
		}
		var printed string
		command, input := lines[comments], lines[comments+1:]
		switch command {
		case "fleet":
			roster = parseFleet(t, input)
			printed = fmt.Sprintf("%d members\n", len(roster))
		case "targets", "members":
			printed = selectIn(t, command, strings.Join(input, "\n"), roster)
		default:
			t.Fatalf("unknown command %q", command)
		}
		out = append(out, said+"\n----\n"+strings.TrimRight(printed, "\n"))
	}
	return strings.Join(out, "\n\n") + "\n"
}

func selectIn(t *testing.T, command, input string, roster []fleet.Member) string {
	t.Helper()
	var targets v1alpha1.Targets
	if err := yaml.UnmarshalStrict([]byte(input), &targets); err != nil {
		t.Fatalf("%s: %v", input, err)
	}
	s, err := selection.Select(targets, roster)
	var said string
	if err != nil {
		said = fmt.Sprintf("%s %s\n", fleet.ReasonOf(err, "?"), err)
	}
	if command == "targets" {
		return said + s.Explain()
	}
	return said + strings.Join(names(s.Members), " ")
}

func parseFleet(t *testing.T, lines []string) []fleet.Member {
	t.Helper()
	var roster []fleet.Member
	for _, line := range lines {
		words := strings.Fields(line)
		labels := map[string]string{}
		for _, w := range words[1:] {
			k, v, _ := strings.Cut(w, "=")
			labels[k] = v
		}
		pattern, count := words[0], 1
		if before, after, ok := strings.Cut(pattern, "{1.."); ok {
			number, rest, _ := strings.Cut(after, "}")
			if _, err := fmt.Sscan(number, &count); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			pattern = before + "%d" + rest
		}
		for i := range count {
			name := pattern
			if strings.Contains(pattern, "%d") {
				name = fmt.Sprintf(pattern, i+1)
			}
			roster = append(roster, fleet.Member{Name: fleet.Name(name), Labels: labels})
		}
	}
	return roster
}

func names(members []fleet.Member) []string {
	out := make([]string, 0, len(members))
	for _, m := range members {
		out = append(out, string(m.Name))
	}
	return out
}

func TestErrorsAreTerminal(t *testing.T) {
	three := []fleet.Member{
		{Name: "eu-1", ID: "a", Labels: map[string]string{"region": "eu"}},
		{Name: "eu-2", ID: "b", Labels: map[string]string{"region": "eu"}},
		{Name: "us-1", ID: "c", Labels: map[string]string{"region": "us"}},
	}
	byName := func(names ...string) v1alpha1.Targets {
		return v1alpha1.Targets{ClusterSelector: v1alpha1.ClusterSelector{Names: names}}
	}
	tests := map[string]struct {
		targets v1alpha1.Targets
		roster  []fleet.Member
		reason  string
		says    string
	}{
		"nobody said": {v1alpha1.Targets{}, three, v1alpha1.ReasonInvalid, `for every member of the fleet write names: ["*"]`},
		"stranger":    {byName("eu-3"), three, v1alpha1.ReasonInvalid, "spec.targets.names: eu-3 is not a member (nearest: eu-1, eu-2)"},
		"twice":       {byName("eu-1", "eu-1"), three, v1alpha1.ReasonInvalid, "eu-1 is there twice"},
		"no fleet":    {byName("*"), nil, v1alpha1.ReasonNoTargets, "the fleet has no members"},
		"name twice": {byName("*"), append(slices.Clone(three), fleet.Member{Name: "eu-1", ID: "d"}),
			v1alpha1.ReasonInvalid, "two members are named eu-1"},
		"key twice": {byName("*"), append(slices.Clone(three), fleet.Member{Name: "eu-9", ID: "a"}),
			v1alpha1.ReasonInvalid, "eu-1 and eu-9 have one key"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := selection.Select(tt.targets, tt.roster)
			if err == nil {
				t.Fatal("no error")
			}
			var e *fleet.Error
			if !errors.As(err, &e) || e.Kind != fleet.Terminal || e.Reason != tt.reason {
				t.Errorf("got %#v, want a terminal error of reason %s", err, tt.reason)
			}
			if !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %q, want it to say %q", err, tt.says)
			}
		})
	}
}

func TestRosterIsLeftAsItIs(t *testing.T) {
	roster := []fleet.Member{{Name: "b"}, {Name: "a"}, {Name: "c"}}
	before := slices.Clone(roster)
	s, err := selection.Select(v1alpha1.Targets{ClusterSelector: v1alpha1.ClusterSelector{Names: []string{"*"}}}, roster)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, roster); diff != "" {
		t.Errorf("Select changed the roster:\n%s", diff)
	}
	if got := names(s.Members); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("got %v, want a b c", got)
	}
}
