// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flotilla-dev/flotilla/cmd/internal/sim"
)

func TestRunPrintsOneObjectForEachSeed(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := run([]string{"run", "-scenario", "swarm", "-clusters", "8", "-seed", "7", "-seeds", "2", "-o", "json"}, &stdout, &stderr); code != 0 {
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

func TestStoryIsTold(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := run([]string{"run", "-scenario", "cut-the-cable", "-clusters", "6", "-story"}, &stdout, &stderr); code != 0 {
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
		{"walk", "Usage:"},
		{"run -scenario calm", `no scenario "calm"; there are [swarm`},
		{"run -clusters 1", "at least 2"},
		{"run -seeds 0", "at least 1"},
		{"run -o yaml", "-o yaml"},
		{"run now", `unknown argument "now"`},
		{"night -minutes 0", "-minutes above 0"},
		{"run -no-such-flag", "flag provided but not defined"},
	} {
		var stdout, stderr bytes.Buffer
		if code := run(strings.Fields(c.args), &stdout, &stderr); code != exitUsage || !strings.Contains(stderr.String(), c.want) {
			t.Errorf("%q: exit %d, %q, want %d and %q", c.args, code, &stderr, exitUsage, c.want)
		}
	}
}

// TestNightResumes: a night goes on where the last one stopped, and runs each seed once.
func TestNightResumes(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	next := uint64(1)
	for range 2 {
		var stdout, stderr bytes.Buffer
		if code := run([]string{"night", "-clusters", "6", "-minutes", "0.01", "-state", state}, &stdout, &stderr); code != 0 {
			t.Fatalf("exit %d: %s%s", code, &stdout, &stderr)
		}
		after, err := readSeed(state)
		if err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("swarm: %d seeds of 6 clusters in 600ms, from seed %d to %d: every rule held\n", after-next, next, after-1)
		if after <= next || stdout.String() != want {
			t.Errorf("%q, want %q", &stdout, want)
		}
		next = after
	}
	if err := os.WriteFile(state, []byte("many\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	if code := run([]string{"night", "-state", state}, &stdout, &stderr); code != exitUsage || !strings.Contains(stderr.String(), "not a seed") {
		t.Errorf("exit %d: %s", code, &stderr)
	}
}
