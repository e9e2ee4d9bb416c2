// SPDX-License-Identifier: Apache-2.0

package sequencer

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// Utterance is one thing that a member of a story said: a milestone, or a command.
type Utterance struct {
	By fleet.Name
	At time.Duration
	// ID under which the story's facts hold it; goes name it.
	ID      fleet.Digest
	Fact    fleet.Fact
	Command fleet.Command
}

// spoke remembers what a member says for the first time, in its order.
func (s *stage) spoke(p *player, kinds ...fleet.FactKind) {
	for _, k := range kinds {
		at := milestone{p.plan.Digest, p.member.ID, k}
		if p.view.facts[at] {
			continue
		}
		fact := fleet.Fact{Plan: p.plan.Digest, Kind: k, Member: p.member.ID}
		if k == fleet.Accepted || k == fleet.Started {
			fact.Detail = string(p.plan.Release.Revision)
		}
		s.spoken = append(s.spoken, Utterance{By: p.member.Name, At: s.now, ID: at.record(), Fact: fact})
	}
}

// Played is what came of a story.
type Played struct {
	Log    string
	Ends   map[fleet.Name]string
	Spoken []Utterance
	Seals  []Sealed
	Roster []fleet.Member
	// Forked are members with a proof against them.
	Forked []fleet.Name
}

// Play a story in the language of the transcripts, with members whose keys the caller knows. Seed 0 is the fixed order; with
// another one the members act in another order at each turn, and hear of what happened in a moment only at its end, or at once.
func Play(script string, seed uint64, keyOf func(name string) fleet.MemberID) (Played, error) {
	s := newStage()
	s.wordy = true
	s.of = func(name string, labels ...string) fleet.Member {
		m := member(name, labels...)
		m.ID = keyOf(name)
		return m
	}
	if seed > 0 {
		r := rand.New(rand.NewPCG(seed, seed))
		s.deaf = func() bool { return r.IntN(2) == 0 }
		s.order = func(players []*player) []*player {
			out := append([]*player(nil), players...)
			r.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
			return out
		}
	}
	lines := strings.Split(strings.TrimRight(script, "\n"), "\n")
	for i := 0; i < len(lines); {
		line, block := lines[i], []string(nil)
		for i++; i < len(lines) && strings.HasPrefix(lines[i], "| "); i++ {
			block = append(block, strings.TrimPrefix(lines[i], "| "))
		}
		if line == "" || strings.HasPrefix(line, "#") || strings.HasPrefix(line, "    ") {
			continue
		}
		if err := s.do(line, block); err != nil {
			return Played{}, fmt.Errorf("%s: %w", line, err)
		}
	}
	return s.played(), nil
}

func (s *stage) played() Played {
	out := Played{Ends: map[fleet.Name]string{}, Spoken: s.spoken, Seals: s.seals}
	for _, p := range s.players {
		out.Roster = append(out.Roster, p.member)
		end := StateOf(s.newest, s.truth, p.member.ID).String()
		if p.plan != s.newest {
			end += " at " + p.plan.Release.Revision.Short()
		}
		out.Ends[p.member.Name] = end
		if s.truth.proven[p.member.ID] {
			out.Forked = append(out.Forked, p.member.Name)
		}
	}
	var b strings.Builder
	for _, l := range s.printed {
		fmt.Fprintln(&b, strings.TrimRight(l, " "))
	}
	out.Log = b.String()
	return out
}
