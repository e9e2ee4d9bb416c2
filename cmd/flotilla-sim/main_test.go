// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-dev/flotilla/cmd/internal/sim"
)

func TestRunPrintsOneObjectForEachSeed(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"run", "-scenario", "swarm", "-clusters", "8", "-seed", "7", "-seeds", "2", "-o", "json"}, &stdout, &stderr); code != 0 {
		t.Fatalf("exit %d: %s%s", code, &stdout, &stderr)
	}
	decoder := json.NewDecoder(&stdout)
	for seed := uint64(7); seed <= 8; seed++ {
		var r sim.Result
		if err := decoder.Decode(&r); err != nil {
			t.Fatal(err)
		}
		if r.Scenario != "swarm" || r.Clusters != 8 || r.Seed != seed || r.VirtualSeconds <= 0 || r.Violations == nil || r.Turns == 0 {
			t.Errorf("seed %d: %+v", seed, r)
		}
	}
	if decoder.More() {
		t.Error("more than was asked for")
	}
}

// TestResultHasWhatIsPromised: the names are read by other programs.
func TestResultHasWhatIsPromised(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"run", "-clusters", "6", "-o", "json"}, &stdout, &stderr); code != 0 {
		t.Fatalf("exit %d: %s%s", code, &stdout, &stderr)
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(stdout.Bytes(), &fields); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"scenario", "clusters", "seed", "virtualSeconds", "violations", "faults", "seen", "rolloutSeconds", "factBytes", "sentBytes"} {
		if _, there := fields[name]; !there {
			t.Errorf("no %s in %s", name, &stdout)
		}
	}
}

func TestBrokenRuleIsToldAndExitsWithOne(t *testing.T) {
	var stdout, stderr bytes.Buffer
	o := options{stdout: &stdout}
	if err := o.print(&sim.Result{Scenario: "swarm", Clusters: 30, Seed: 7, Violations: []string{"I1: two in motion"}}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"BROKEN I1: two in motion", "again: go run ./cmd/flotilla-sim run -scenario swarm -clusters 30 -seed 7 -story"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("no %q in:\n%s", want, &stdout)
		}
	}
	if code := exitCode(true, nil, &stderr); code != exitBroken {
		t.Errorf("exit %d, want %d", code, exitBroken)
	}
}

func TestStoryIsTold(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"run", "-scenario", "cut-the-cable", "-clusters", "6", "-story"}, &stdout, &stderr); code != 0 {
		t.Fatalf("exit %d: %s%s", code, &stdout, &stderr)
	}
	for _, want := range []string{"the network is cut", "the network heals", "Started", "Soaked", "every rule held"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("the story has no %q:\n%s", want, &stdout)
		}
	}
}

func TestBadCommandLines(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"", "Usage:"},
		{"walk", `unknown command "walk"`},
		{"run -scenario calm", `no scenario "calm"; there are [swarm`},
		{"run -clusters 1", "at least 2"},
		{"run -seeds 0", "at least 1"},
		{"run -o yaml", "-o yaml"},
		{"run now", `unknown argument "now"`},
		{"night -minutes 0", "-minutes above 0"},
		{"run -no-such-flag", "flag provided but not defined"},
	} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), strings.Fields(c.args), &stdout, &stderr); code != exitUsage || !strings.Contains(stderr.String(), c.want) {
			t.Errorf("%q: exit %d, %q, want %d and %q", c.args, code, &stderr, exitUsage, c.want)
		}
	}
}

// TestNightResumes: a night goes on where the last one stopped, whether its time was up or it was interrupted, and runs
// each seed once.
func TestNightResumes(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	next := uint64(1)
	for _, minutes := range []string{"0.01", "0.01", "60"} {
		ctx, interrupt := context.WithTimeout(t.Context(), time.Second)
		var stdout, stderr bytes.Buffer
		code := run(ctx, []string{"night", "-clusters", "6", "-minutes", minutes, "-state", state}, &stdout, &stderr)
		interrupt()
		if code != 0 {
			t.Fatalf("exit %d: %s%s", code, &stdout, &stderr)
		}
		after, err := readSeed(state)
		if err != nil {
			t.Fatal(err)
		}
		told := regexp.MustCompile(`^swarm: (\d+) seeds of 6 clusters in \S+ \(\d+ an hour\), from seed (\d+) to (\d+): every rule held\n$`).FindStringSubmatch(stdout.String())
		if want := []string{fmt.Sprint(after - next), fmt.Sprint(next), fmt.Sprint(after - 1)}; told == nil || !slices.Equal(told[1:], want) {
			t.Errorf("%q, want %s seeds, from %s to %s", &stdout, want[0], want[1], want[2])
		}
		next = after
	}
	if rest, err := filepath.Glob(state + ".*"); err != nil || len(rest) > 0 {
		t.Errorf("left behind: %v %v", rest, err)
	}
}

func TestNightRefusesDamagedState(t *testing.T) {
	for _, content := range []string{"", "many\n", "-3\n", "12 13\n"} {
		state := filepath.Join(t.TempDir(), "state")
		if err := os.WriteFile(state, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), []string{"night", "-state", state}, &stdout, &stderr); code != exitUsage || !strings.Contains(stderr.String(), "not a seed") {
			t.Errorf("%q: exit %d: %s", content, code, &stderr)
		}
		if kept, err := os.ReadFile(state); err != nil || string(kept) != content {
			t.Errorf("%q became %q, %v", content, kept, err)
		}
	}
}

// TestNightStopsWhereItCannotRemember: where the state cannot be written, the night says so and does not go on.
func TestNightStopsWhereItCannotRemember(t *testing.T) {
	state := filepath.Join(t.TempDir(), "no", "such", "folder")
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"night", "-clusters", "6", "-minutes", "60", "-state", state}, &stdout, &stderr); code != exitUsage || !strings.Contains(stderr.String(), "remember seed") {
		t.Errorf("exit %d: %s%s", code, &stdout, &stderr)
	}
}
