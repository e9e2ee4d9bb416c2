// SPDX-License-Identifier: Apache-2.0

package sequencer_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer"
	"github.com/flotilla-dev/flotilla/sequencer/verify"
)

// seededOrder is the random order that is in the files.
const seededOrder = 1

// TestRolloutLogs: whole rollouts as logs, for people to read: who did what, and why. Each file of testdata/rollouts holds a script in the
// language of the transcripts, and the log of it in a fixed and in a seeded random order of turns and deliveries; UPDATE_GOLDEN=1
// writes them anew. In fresh random orders a rollout has to end in the same way. In all of them, what the members say is
// signed and given to package verify, which has to find all rules kept.
func TestRolloutLogs(t *testing.T) {
	files, err := filepath.Glob("testdata/rollouts/*.txtar")
	if err != nil || len(files) < 9 {
		t.Fatalf("%d rollouts: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil || len(archive.Files) == 0 || archive.Files[0].Name != "script" {
				t.Fatalf("no script: %v", err)
			}
			script := string(archive.Files[0].Data)
			fixed, seeded := played(t, script, 0), played(t, script, seededOrder)
			if fixed.Log == seeded.Log {
				t.Error("the seeded order is the fixed one")
			}
			logs := &txtar.Archive{Comment: archive.Comment, Files: []txtar.File{
				archive.Files[0], {Name: "fixed", Data: []byte(fixed.Log)}, {Name: "seeded-random", Data: []byte(seeded.Log)},
			}}
			compareLogs(t, file, archive, logs)
			for _, fresh := range freshOrders(t) {
				if got := played(t, script, fresh); !cmp.Equal(fixed.Ends, got.Ends) {
					t.Errorf("seed %d ends otherwise:\n%s\n%s", fresh, cmp.Diff(fixed.Ends, got.Ends), got.Log)
				}
			}
			if !cmp.Equal(fixed.Ends, seeded.Ends) {
				t.Errorf("the seeded order ends otherwise:\n%s", cmp.Diff(fixed.Ends, seeded.Ends))
			}
		})
	}
}

// freshOrders are other ones at each run; FLOTILLA_ORDER=SEED plays one of them again.
func freshOrders(t *testing.T) (seeds []uint64) {
	t.Helper()
	if given := os.Getenv("FLOTILLA_ORDER"); given != "" {
		seed, err := strconv.ParseUint(given, 10, 64)
		if err != nil {
			t.Fatalf("FLOTILLA_ORDER: %v", err)
		}
		return []uint64{seed}
	}
	for range 4 {
		seeds = append(seeds, rand.Uint64()|1<<32) // none that is in a file
	}
	t.Logf("fresh orders: FLOTILLA_ORDER=SEED with one of %d", seeds)
	return seeds
}

// TestStoriesAreVerified: what is signed in the stories of testdata/transcripts keeps all rules, too. Ranks are others than there,
// for these members have keys, so that nothing is compared; a story that has somebody say what it did not earn is none for this.
func TestStoriesAreVerified(t *testing.T) {
	sequencer.EachStory(t, func(t *testing.T, _, text string) { played(t, text, 0) })
}

func compareLogs(t *testing.T, file string, was, is *txtar.Archive) {
	t.Helper()
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(file, txtar.Format(is), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(txtar.Format(was)), string(txtar.Format(is))); diff != "" {
		t.Errorf("%s is not what came out (- file, + now; UPDATE_GOLDEN=1 rewrites it):\n%s", file, diff)
	}
}

// played and found to keep all rules, by what was signed.
func played(t *testing.T, script string, seed uint64) sequencer.Played {
	t.Helper()
	p, err := sequencer.Play(script, seed, func(name string) fleet.MemberID { return fleet.MemberIDOf(keyOf(name).Public().(ed25519.PublicKey)) })
	if err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	r := verify.Check(signed(t, &p))
	for _, rule := range r.Rules {
		for _, f := range rule.Findings {
			forked := len(p.Forked) > 0 && (rule.ID == "R1-word" && slices.Contains(p.Forked, f.Member) ||
				slices.ContainsFunc(f.Lacks, func(l verify.Lack) bool { return l.Why == verify.Disbelieved }))
			if !forked {
				t.Errorf("seed %d: %s is %s: %s\n%s", seed, rule.ID, f.Verdict, f.Story, p.Log)
			}
		}
	}
	if r.Judged != r.Plans || r.Plans == 0 {
		t.Errorf("seed %d: %d of %d plans were judged", seed, r.Judged, r.Plans)
	}
	return p
}

func keyOf(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

// signed is what members of a story said, as they would export it.
func signed(t *testing.T, p *sequencer.Played) verify.Evidence {
	t.Helper()
	e := verify.Evidence{Fleet: fleet.DigestOf("flotilla.dev/stories"), Roster: p.Roster, Complete: map[fleet.MemberID]bool{}}
	for i := range p.Roster {
		e.Complete[p.Roster[i].ID] = true
	}
	for i := range p.Seals {
		spec, members, err := p.Seals[i].Bodies()
		if err != nil {
			t.Fatal(err)
		}
		e.Seals, e.Bodies = append(e.Seals, p.Seals[i].Seal), append(e.Bodies, spec, members)
	}
	positions := map[fleet.Name]uint64{}
	sign := func(by fleet.Name, r fleet.Record) fleet.Digest {
		positions[by]++
		r.Fleet, r.Epoch, r.Seq = e.Fleet, 1, positions[by]
		if err := r.Sign(keyOf(string(by))); err != nil {
			t.Fatal(err)
		}
		e.Records = append(e.Records, r)
		return r.Digest()
	}
	ids := map[fleet.Digest]fleet.Digest{}
	const began = 1_800_000_000
	for i, said := range p.Spoken {
		if c := said.Command; c.Verb != 0 {
			c.Time = began + int64(said.At.Seconds())
			c.Lifts = nil
			for _, id := range said.Command.Lifts {
				c.Lifts = append(c.Lifts, ids[id])
			}
			ids[said.ID] = sign(said.By, fleet.Record{Kind: fleet.KindCommand, Key: fmt.Sprintf("%s/%d", c.Rollout, i), Body: c.Encode()})
			continue
		}
		f := said.Fact
		f.Time = began + int64(said.At.Seconds())
		ids[said.ID] = sign(said.By, fleet.Record{Kind: fleet.KindFact, Key: fleet.FactKey(f.Plan, f.Kind), Body: f.Encode()})
	}
	for _, name := range p.Forked {
		for i := range 2 {
			positions[name] = 1 << 20
			sign(name, fleet.Record{Kind: fleet.KindRegister, Key: "word", Body: []byte{byte(i)}})
		}
	}
	return e
}
