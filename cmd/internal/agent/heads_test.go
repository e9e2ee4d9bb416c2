// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"testing"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/cmd/internal/agent/turn"
	"github.com/flotilla-dev/flotilla/source"
)

// asked is a source that gives each reader something else, and counts.
type asked struct {
	source.Source
	looks int
}

// Latest is in source.Source.
func (a *asked) Latest(_ context.Context, o source.Origin) (source.Snapshot, error) {
	a.looks++
	return source.Snapshot{Revision: "1", Subject: o.Reader.Namespace}, nil
}

func gitOf(namespace string, secret bool) source.Origin {
	o := source.Origin{Source: v1alpha1.Source{Git: &v1alpha1.GitSource{URL: "https://git.example/repo"}}}
	if secret {
		o.SecretRef, o.Reader = &v1alpha1.LocalReference{Name: "git"}, source.Reader{Namespace: namespace, ServiceAccount: "flotilla"}
	}
	return o
}

// TestOneLookForAll: rollouts that share a source look once, however many they are and from whatever folders.
func TestOneLookForAll(t *testing.T) {
	var now time.Duration
	from := &asked{}
	heads := &PolledHeads{Source: from, Clock: func() fleet.Moment { return fleet.Moment{Elapsed: now} }}
	for _, path := range []string{"a", "b", "c"} {
		o := gitOf("", false)
		o.Path = path
		if _, _, err := heads.Latest(t.Context(), o, turn.Settings{SourceInterval: time.Minute}); err != nil {
			t.Fatal(err)
		}
	}
	if from.looks != 1 {
		t.Errorf("%d looks", from.looks)
	}
}

// TestShortestIntervalCounts, whoever of those who share a source looked last.
func TestShortestIntervalCounts(t *testing.T) {
	var now time.Duration
	from := &asked{}
	heads := &PolledHeads{Source: from, Clock: func() fleet.Moment { return fleet.Moment{Elapsed: now} }}
	for ; now < time.Hour; now += 10 * time.Second {
		for _, interval := range []time.Duration{24 * time.Hour, time.Minute} {
			if _, _, err := heads.Latest(t.Context(), gitOf("", false), turn.Settings{SourceInterval: interval}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if from.looks < 50 || from.looks > 70 {
		t.Errorf("%d looks in an hour, want one each minute", from.looks)
	}
}

// TestHeadIsNotShownToOthers: nobody gets, by what he writes into his own source, what another's Secret opened.
func TestHeadIsNotShownToOthers(t *testing.T) {
	heads := &PolledHeads{Source: &asked{}, Clock: func() fleet.Moment { return fleet.Moment{} }}
	if _, _, err := heads.Latest(t.Context(), gitOf("team", true), turn.Settings{}); err != nil {
		t.Fatal(err)
	}
	forged := gitOf("", false)
	forged.Ignore = "secret team/git as flotilla\n"
	snap, _, err := heads.Latest(t.Context(), forged, turn.Settings{})
	if err != nil || snap.Subject != "" {
		t.Errorf("without a Secret it got what %q fetched, %v", snap.Subject, err)
	}
}
