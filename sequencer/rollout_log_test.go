// SPDX-License-Identifier: Apache-2.0

package sequencer

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// bigRollout brings one release to twelve clusters, in which one fails once, one gives up and one leaves.
const bigRollout = `members
| ams-1 ring=canary region=eu
| ams-2 region=eu
| fra-1 region=eu
| fra-2 region=eu
| fra-3 region=eu
| par-1 region=eu
| nyc-1 region=us
| nyc-2 region=us
| sfo-1 region=us
| sfo-2 region=us
| sea-1 region=us
| syd-1 region=ap
retries 1
strategy
| maxConcurrency: 2
| progressDeadline: 5m
| stages:
| - {name: canary, matchLabels: {ring: canary}, soak: 10m}
| - {name: eu, matchLabels: {region: eu}, soak: 2m, maxUnavailable: 1}
| - {name: us, matchLabels: {region: us}}
revision main@sha1:aaaaaa1
yielded nyc-2
sick fra-2 sfo-1
wait 26m
healthy sfo-1
wait 1h
decide`

// rollout plays bigRollout; shuffled by a seed, members act in another order at each turn, and hear of
// what happened in a moment only at its end, or at once.
func rollout(t *testing.T, seed uint64) (log string, ends map[fleet.Name]MemberState) {
	s := newStage()
	if seed > 0 {
		r := rand.New(rand.NewPCG(seed, seed))
		s.deaf = func() bool { return r.IntN(2) == 0 }
		s.order = func(players []*player) []*player {
			out := append([]*player(nil), players...)
			r.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
			return out
		}
	}
	lines := strings.Split(bigRollout, "\n")
	for i := 0; i < len(lines); {
		line, block := lines[i], []string(nil)
		for i++; i < len(lines) && strings.HasPrefix(lines[i], "| "); i++ {
			block = append(block, strings.TrimPrefix(lines[i], "| "))
		}
		if err := s.do(line, block); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		for _, stage := range s.newestStages() {
			if moving := inMotion(s.newest, stage, s.truth); moving > stage.MaxConcurrency {
				t.Errorf("seed %d: %d in motion in %s", seed, moving, stage.Name)
			}
		}
	}
	ends = map[fleet.Name]MemberState{}
	for _, p := range s.players {
		ends[p.member.Name] = StateOf(s.newest, s.truth, p.member.ID)
	}
	var b strings.Builder
	for _, l := range s.printed {
		fmt.Fprintln(&b, strings.TrimRight(l, " "))
	}
	return b.String(), ends
}

func (s *stage) newestStages() []Stage {
	if s.newest == nil {
		return nil
	}
	return s.newest.Stages
}

func inMotion(p *Plan, s Stage, f Facts) (n int) {
	for _, m := range s.Members {
		if has(f, p.Digest, m.ID, fleet.Started) && !has(f, p.Digest, m.ID, fleet.Succeeded) && !has(f, p.Digest, m.ID, fleet.GaveUp) {
			n++
		}
	}
	return n
}

// TestRolloutLogs: a whole rollout as a log, in a fixed and in a seeded random order, for people to
// read; in further random orders it only has to end the same way.
func TestRolloutLogs(t *testing.T) {
	fixed, want := rollout(t, 0)
	golden(t, "rollouts/fixed.golden", fixed)
	random, _ := rollout(t, 1)
	golden(t, "rollouts/seeded-random.golden", random)
	if fixed == random {
		t.Error("the seeded order is the fixed one")
	}
	for seed := range uint64(100) {
		if _, got := rollout(t, seed+1); !cmp.Equal(want, got) {
			t.Errorf("seed %d ends otherwise:\n%s", seed+1, cmp.Diff(want, got))
		}
	}
}
