// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-dev/flotilla/cmd/internal/readapi"
	"github.com/flotilla-dev/flotilla/cmd/internal/readapi/readapitest"
)

// TestNews: every fact is one line with its own time, whether views come one by one or all at once.
func TestNews(t *testing.T) {
	story := [][]string{
		{"c1 accepted", "c1 started"},
		{"c1 succeeded"},
		{"c1 soaked", "eu-1 started", "eu-2 started"},
		{"eu-1 failed: no image"},
		{"pause by us-2: look at this"},
		{"resume"},
		{"eu succeeded", "eu soaked"},
		{"us succeeded", "us soaked"},
	}
	facts := func(every int) (lines []string) {
		w, err := readapitest.New()
		if err != nil {
			t.Fatal(err)
		}
		s := &site{self: "us-1", world: w}
		f := &follower{app: &app{now: now}}
		r := readapi.Build(s.input())
		lines = append(lines, f.news(&r)...)
		for i, chapter := range story {
			for _, line := range chapter {
				if err := w.Tell(line); err != nil {
					t.Fatal(err)
				}
			}
			if i%every == every-1 || i == len(story)-1 {
				r = readapi.Build(s.input())
				lines = append(lines, f.news(&r)...)
			}
		}
		return lines
	}
	all := facts(1)
	golden := `apps/web  main@a1b2c3d "raise the limits"  plan PLAN  seen from us-1
10:00:00  canary  0/1      Progressing
10:00:00  eu      0/4      Waiting      eu: waits for stage canary (0 of 1 soaked, 1 needed): missing c1
10:00:00  us      0/3      Pending
10:00:00                   WaitingForStage  us: waits for stage canary (0 of 1 soaked, 1 needed): missing c1
09:02:00  canary  c1       Started      canary: started (rank 1 of 1)
09:03:00  canary  c1       Succeeded
10:00:00  canary  1/1      Soaking
09:04:00  canary  c1       Soaked
09:05:00  eu      eu-1     Started      eu: started (rank 1 of 4)
09:06:00  eu      eu-2     Started      eu: started (rank 2 of 4)
10:00:00  canary  1/1      Complete
10:00:00  eu      0/4      Progressing
10:00:00  us      0/3      Waiting      us: waits for stage eu (0 of 4 soaked, 3 needed): missing eu-1, eu-2, eu-3, eu-4
09:07:00  eu      eu-1     Failed       no image
10:00:00                   Paused       paused by us-2: "look at this"; eu: 0 of 4 succeeded, 1 progressing, 1 failed
10:00:00                   WaitingForStage  us: waits for stage eu (0 of 4 soaked, 3 needed): missing eu-1, eu-2, eu-3, eu-4; failed eu-1
`
	w, err := readapitest.New()
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Split(strings.TrimSuffix(strings.ReplaceAll(golden, "PLAN", w.Plan.Digest.Short()), "\n"), "\n")
	if diff := cmp.Diff(want, all[:len(want)]); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	signed := func(lines []string) (n int) {
		for _, line := range lines {
			if strings.HasPrefix(line, "09:") {
				n++
			}
		}
		return n
	}
	for _, every := range []int{1, 2, 3, 8} {
		if got, want := signed(facts(every)), 20; got != want {
			t.Errorf("views after every %d chapters: %d facts told, want %d\n%s", every, got, want, strings.Join(facts(every), "\n"))
		}
	}
}

// TestNewsOfAnotherPlan: a new release begins anew.
func TestNewsOfAnotherPlan(t *testing.T) {
	f := &follower{app: &app{now: now}}
	for i, plan := range []string{"one", "one", "two"} {
		r := readapi.Rollout{Namespace: "apps", Name: "web", Revision: "main@sha1:" + "0123456789", SeenFrom: "c1", Stages: []readapi.Stage{{Name: "a", Phase: "Progressing"}}}
		copy(r.Plan[:], plan)
		lines := f.news(&r)
		if headed := len(lines) > 0 && strings.HasPrefix(lines[0], "apps/web  main@0123456"); headed != (i != 1) {
			t.Errorf("view %d: %s", i, fmt.Sprint(lines))
		}
	}
}

// TestOver: what ends a watch, and how.
func TestOver(t *testing.T) {
	ready := func(status, reason string) readapi.Condition {
		return readapi.Condition{Type: "Ready", Status: status, Reason: reason, Message: "why"}
	}
	stalled := readapi.Condition{Type: "Stalled", Status: "True", Reason: "Invalid", Message: "no member"}
	for name, test := range map[string]struct {
		planned    bool
		conditions []readapi.Condition
		revision   string
		done       bool
		err        string
	}{
		"complete":                        {true, []readapi.Condition{ready("True", "RolloutComplete")}, "", true, ""},
		"complete, with exceptions":       {true, []readapi.Condition{ready("True", "RolloutCompleteWithExceptions")}, "", true, ""},
		"under way":                       {true, []readapi.Condition{ready("False", "Progressing")}, "", false, ""},
		"paused":                          {true, []readapi.Condition{ready("False", "Paused")}, "", false, ""},
		"nobody is heard":                 {true, []readapi.Condition{ready("Unknown", "NotHeard")}, "", false, ""},
		"halted":                          {true, []readapi.Condition{ready("False", "Halted")}, "", true, "apps/web halted: why"},
		"no word yet":                     {false, nil, "", false, ""},
		"nothing to begin with":           {false, []readapi.Condition{stalled}, "", true, "apps/web cannot begin (Invalid): no member"},
		"stalled here, elsewhere not":     {true, []readapi.Condition{ready("False", "Progressing"), stalled}, "", false, ""},
		"the revision that is waited for": {true, []readapi.Condition{ready("True", "RolloutComplete")}, "a1b2", true, ""},
		"another one, complete":           {true, []readapi.Condition{ready("True", "RolloutComplete")}, "77ab", false, ""},
		"another one, halted":             {true, []readapi.Condition{ready("False", "Halted")}, "77ab", false, ""},
	} {
		r := readapi.Rollout{Namespace: "apps", Name: "web", Revision: "main@sha1:a1b2c3d4", Conditions: test.conditions}
		if test.planned {
			r.Plan[0] = 1
		}
		f := &follower{app: &app{now: now}, name: r.FullName(), revision: test.revision}
		done, err := f.over(&r)
		message := ""
		if err != nil {
			message = err.Error()
		}
		if done != test.done || message != test.err {
			t.Errorf("%s: %v %q, want %v %q", name, done, message, test.done, test.err)
		}
	}
}
