// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer"
)

// well is a fleet of four in which a release went through as it should.
func well(t *testing.T) *scene {
	t.Helper()
	s := newScene(t, 4)
	s.say(s.canary(), whole...)
	for rank := range 3 {
		s.say(s.rank(1, rank), whole...)
	}
	return s
}

func TestKept(t *testing.T) {
	s := well(t)
	s.take("r2")
	s.say(s.canary(), whole...)
	r := Check(s.Evidence)
	if r.Verdict != Kept {
		t.Fatalf("%s: %+v", r.Verdict, told(&r))
	}
	if r.Records != 20 || r.Plans != 2 || r.Judged != 2 || r.Rollouts != 1 || r.Members != 4 {
		t.Errorf("looked at %+v", r)
	}
	for id, want := range map[string]int{"signed": 20, "R2": 1, "I2": 3, "I13": 3, "I14": 1} {
		if got := ruleOf(t, &r, id).Checked; got != want {
			t.Errorf("%s: %d looks, want %d", id, got, want)
		}
	}
}

// told are all findings, a line each.
func told(r *Result) (out []string) {
	for _, rule := range r.Rules {
		for _, f := range rule.Findings {
			out = append(out, fmt.Sprintf("%s %s %s: %s %v", rule.ID, f.Verdict, f.Member, f.Story, f.Lacks))
		}
	}
	return out
}

// broken rules, each as a fleet might break it: what is signed, and the sentence that tells it.
var brokenRules = []struct {
	name, rule, story string
	sign              func(*scene)
}{
	{"forged", "signed", "does not bear its writer's signature", func(s *scene) {
		s.say(s.canary(), fleet.Accepted)
		s.Records[0].Sig[0] ^= 1
	}},
	{"of another fleet", "signed", "does not bear its writer's signature", func(s *scene) {
		s.say(s.canary(), fleet.Accepted)
		r := &s.Records[0]
		r.Fleet = fleet.DigestOf("flotilla.dev/other-fleet")
		if err := r.Sign(s.keys[s.canary()]); err != nil {
			s.t.Fatal(err)
		}
	}},
	{"unreadable", "signed", "signed what does not read as a fact", func(s *scene) {
		s.sign("c1", fleet.KindFact, "nonsense", []byte{1, 2, 3})
	}},
	{"two words in one position", "R1-word", "signed two records in one position", func(s *scene) {
		for k, kind := range []fleet.FactKind{fleet.Accepted, fleet.Yielded} {
			f := fleet.Fact{Plan: s.plan.Digest, Kind: kind, Time: int64(k)}
			s.signAt("c1", position{1, 9}, fleet.KindFact, fleet.FactKey(f.Plan, kind), f.Encode())
		}
	}},
	{"two words, proven", "R1-word", "c2 proved it", func(s *scene) {
		var words []fleet.Record
		for _, kind := range []fleet.FactKind{fleet.Accepted, fleet.Yielded} {
			f := fleet.Fact{Plan: s.plan.Digest, Kind: kind}
			words = append(words, s.signAt("c1", position{1, 9}, fleet.KindFact, fleet.FactKey(f.Plan, kind), f.Encode()))
		}
		s.Records = nil
		body, ok := fleet.Proof{A: words[0], B: words[1]}.Encode()
		if !ok {
			s.t.Fatal("no proof")
		}
		s.sign("c2", fleet.KindProof, fleet.ProofKey(s.id("c1")), body)
	}},
	{"not for it", "R1", "Started of a plan that is not for it", func(s *scene) {
		m := s.join("late")
		s.Roster = append(s.Roster, m)
		s.say("late", fleet.Accepted, fleet.Started)
	}},
	{"a plan that nobody may act on", "R1", "on which nobody may", func(s *scene) {
		bad := s.sealed.Seal
		body := []byte(`{"unknownField": 1}`)
		bad.Spec = fleet.BlobDigest(body)
		s.Seals, s.Bodies = append(s.Seals, bad), append(s.Bodies, body)
		s.plan.Digest = sequencer.Release{Seal: bad.Digest(), Revision: "r1"}.Plan()
		s.say("c1", fleet.Accepted)
	}},
	{"one number for two seals", "R1", "gave number 7 of apps/web to two seals", func(s *scene) {
		for i := range 2 {
			seal := s.sealed.Seal
			seal.Author, seal.Number = string(s.id("c1")), 7
			seal.Spec = fleet.BlobDigest([]byte{byte(i)})
			s.sign("c1", fleet.KindSeal, seal.SealKey(), seal.Encode())
		}
	}},
	{"started and yielded", "I12", "left the plan, and took part in it", func(s *scene) {
		s.say(s.canary(), fleet.Accepted, fleet.Started, fleet.Yielded)
	}},
	{"succeeds after it gave up", "R5", "gave up, and succeeded", func(s *scene) {
		s.say(s.canary(), fleet.Accepted, fleet.Started, fleet.Failed, fleet.GaveUp, fleet.Succeeded)
	}},
	{"starts after it gave up", "R5", "said GaveUp before Started", func(s *scene) {
		s.say(s.canary(), fleet.Accepted, fleet.Failed, fleet.GaveUp, fleet.Started)
	}},
	{"gives up what it never started", "R5", "said GaveUp, and Started is not here", func(s *scene) {
		s.say(s.canary(), fleet.Accepted, fleet.Failed, fleet.GaveUp)
	}},
	{"succeeds without a start", "R4", "succeeded without a start, and had no success before", func(s *scene) {
		s.say(s.canary(), fleet.Accepted) // its stores outlasted this
		s.take("r2")
		s.say(s.canary(), fleet.Accepted, fleet.Succeeded)
	}},
	{"soaks without success", "R4", "said Soaked, and Succeeded is not here", func(s *scene) {
		s.say(s.canary(), fleet.Accepted, fleet.Started, fleet.Soaked)
	}},
	{"soaks before its success", "R4", "said Soaked before Succeeded", func(s *scene) {
		s.say(s.canary(), fleet.Accepted, fleet.Started, fleet.Soaked, fleet.Succeeded)
	}},
	{"sick without success", "R4", "said Degraded, and Succeeded is not here", func(s *scene) {
		s.say(s.canary(), fleet.Accepted, fleet.Started, fleet.Degraded)
	}},
	{"too early in its window", "R2", "started as rank 3 of stage rest, and of the 2 below it 0 had ended, 1 needed", func(s *scene) {
		s.say(s.canary(), whole...)
		s.say(s.rank(1, 2), fleet.Accepted, fleet.Started)
	}},
	{"more gave up than the window counts", "R2", "of the 4 below it 1 had ended, 3 needed", func(s *scene) {
		s.say(s.canary(), whole...)
		for rank := range 4 {
			s.say(s.rank(1, rank), fleet.Accepted, fleet.Started, fleet.Failed, fleet.GaveUp)
		}
		s.say(s.rank(1, 4), fleet.Accepted, fleet.Started)
	}},
	{"too many in motion", "I1", "3 in motion in stage rest, at most 2", func(s *scene) {
		s.say(s.canary(), whole...)
		for rank := range 3 {
			s.say(s.rank(1, rank), fleet.Accepted, fleet.Started)
		}
	}},
	{"too many without success", "I1", "4 started without success in stage rest, at most 2 + 1", func(s *scene) {
		s.say(s.canary(), whole...)
		for rank := range 4 {
			s.say(s.rank(1, rank), fleet.Accepted, fleet.Started, fleet.Failed, fleet.GaveUp)
		}
	}},
	{"before the gate", "I2", "of the 1 of stage canary 0 had soaked or left, 1 needed", func(s *scene) {
		s.say(s.canary(), fleet.Accepted, fleet.Started, fleet.Succeeded)
		s.say(s.rank(1, 0), fleet.Accepted, fleet.Started)
	}},
	{"behind a stage that gave up", "I2", "of the 1 of stage canary 0 had soaked or left, 1 needed", func(s *scene) {
		s.say(s.canary(), fleet.Accepted, fleet.Started, fleet.Failed, fleet.GaveUp)
		s.say(s.rank(1, 0), fleet.Accepted, fleet.Started)
	}},
	{"behind a stage that everybody left", "I13", "in stage canary nobody had really succeeded", func(s *scene) {
		s.say(s.canary(), fleet.Accepted, fleet.Yielded)
		s.say(s.rank(1, 0), fleet.Accepted, fleet.Started)
	}},
	{"before the gate of a newer release", "I2", "of the 1 of stage canary 0 had soaked or left, 1 needed", func(s *scene) {
		canary, first := s.canary(), s.rank(1, 0)
		s.say(canary, whole...)
		s.say(first, whole...)
		s.take("r2")
		s.say(first, fleet.Accepted, fleet.Started)
	}},
	{"before the gate of a newer seal, which nobody else took", "I2", "of the 1 of stage canary 0 had soaked or left, 1 needed", func(s *scene) {
		s.say(s.canary(), whole...)
		s.seal(2, "main", 2, 1)
		s.take("r1")
		s.say(s.rank(1, 0), fleet.Accepted, fleet.Started)
	}},
	{"hopeless and spread", "I4", "the release succeeded nowhere, and 1 started in the first stage and 1 behind it", func(s *scene) {
		s.say(s.canary(), fleet.Accepted, fleet.Started, fleet.Failed)
		s.say(s.rank(1, 0), fleet.Accepted, fleet.Started, fleet.Failed)
	}},
	{"back to an older seal", "I14", "started seal 1 after it accepted seal 2", func(s *scene) {
		old := s.plan
		s.say("c1", fleet.Accepted)
		s.seal(2, "main", 2, 1)
		s.take("r1")
		s.say("c1", fleet.Accepted)
		s.plan = old
		s.say("c1", fleet.Started)
	}},
	{"back to an older revision", "I14", "went from r2 to r1, and had come the other way", func(s *scene) {
		s.say("c1", fleet.Accepted)
		s.take("r2")
		s.say("c1", fleet.Accepted)
		s.seal(2, "main", 2, 1)
		s.take("r1")
		s.say("c1", fleet.Accepted)
	}},
	{"two members, two orders", "I14", "one of them went back", func(s *scene) {
		s.say("c1", fleet.Accepted)
		s.take("r2")
		s.say("c1", fleet.Accepted)
		s.say("c2", fleet.Accepted)
		s.take("r1")
		s.say("c2", fleet.Accepted)
	}},
	{"under its own stop", "I16", "started under its own stop", func(s *scene) {
		s.command(s.canary(), fleet.Command{Verb: fleet.Pause})
		s.say(s.canary(), fleet.Accepted, fleet.Started)
	}},
	{"lifted only afterwards", "I16", "started under its own stop", func(s *scene) {
		stop := s.command(s.canary(), fleet.Command{Verb: fleet.Pause})
		s.say(s.canary(), fleet.Accepted, fleet.Started)
		s.command(s.canary(), fleet.Command{Verb: fleet.Resume, Lifts: []fleet.Digest{stop}})
	}},
}

// TestBrokenRules: each is found by the rule that it breaks, with the records that show it.
func TestBrokenRules(t *testing.T) {
	found := map[string]bool{}
	for _, c := range brokenRules {
		t.Run(c.name, func(t *testing.T) {
			s := newScene(t, 6)
			c.sign(s)
			r := Check(s.Evidence)
			rule := ruleOf(t, &r, c.rule)
			at := slices.IndexFunc(rule.Findings, func(f Finding) bool { return f.Verdict == Broken && strings.Contains(f.Story, c.story) })
			if r.Verdict != Broken || rule.Verdict != Broken || at < 0 {
				t.Fatalf("%s is not told as broken with %q:\n%s", c.rule, c.story, strings.Join(told(&r), "\n"))
			}
			if len(rule.Findings[at].Said) == 0 {
				t.Error("no record is shown")
			}
			found[c.rule] = true
		})
	}
	for _, rule := range rules() {
		if !found[rule.ID] && rule.ID != "members" { // who is a stranger may have left: that is never broken
			t.Errorf("no fleet breaks %s: it may be unable to fail", rule.ID)
		}
	}
}

// unjudgedRules: what looks broken, and what is not here that could excuse it.
var unjudgedRules = []struct {
	name, rule string
	why        Why
	sign       func(*scene)
}{
	{"nobody asked the canary", "I2", NotHeard, func(s *scene) {
		s.say(s.rank(1, 0), fleet.Accepted, fleet.Started)
		delete(s.Complete, s.id(s.canary()))
		delete(s.Complete, s.id(s.rank(1, 0)))
	}},
	{"in a fleet with zones the starter forgot", "I2", NotHeard, func(s *scene) {
		s.say(s.rank(1, 0), fleet.Accepted, fleet.Started)
		delete(s.Complete, s.id(s.canary()))
		s.Zoned = true
	}},
	{"the canary retired it", "I2", Retired, func(s *scene) {
		s.say(s.rank(1, 0), fleet.Accepted, fleet.Started)
		floor := fleet.Floor{Kind: fleet.KindFact, Epoch: 9}
		s.sign(s.canary(), fleet.KindFloor, fleet.FloorKey(fleet.KindFact), floor.Encode())
	}},
	{"the canary is not believed any more", "I13", Disbelieved, func(s *scene) {
		s.say(s.canary(), whole...)
		s.say(s.rank(1, 0), fleet.Accepted, fleet.Started)
		for i := range 2 {
			s.signAt(s.canary(), position{1, 99}, fleet.KindRegister, "other", []byte{byte(i)})
		}
	}},
	{"those in motion may have ended", "I1", NotHeard, func(s *scene) {
		s.say(s.canary(), whole...)
		for rank := range 3 {
			s.say(s.rank(1, rank), fleet.Accepted, fleet.Started)
			delete(s.Complete, s.id(s.rank(1, rank)))
		}
	}},
	{"an earlier success was retired", "R4", Retired, func(s *scene) {
		floor := fleet.Floor{Kind: fleet.KindFact, Epoch: 1, Seq: 1}
		s.sign("c1", fleet.KindFloor, fleet.FloorKey(fleet.KindFact), floor.Encode())
		s.say("c1", fleet.Accepted, fleet.Succeeded)
	}},
	{"a carry-over, and all stores lost since", "R4", Lost, func(s *scene) {
		s.say("c1", fleet.Accepted, fleet.Succeeded)
	}},
	{"the canary went on, and all stores were lost", "I2", Lost, func(s *scene) {
		s.say(s.rank(1, 0), fleet.Accepted, fleet.Started)
		canary := s.canary()
		s.take("r2")
		s.say(canary, fleet.Accepted, fleet.Started)
	}},
	{"the canary left the roster", "I2", NotHeard, func(s *scene) {
		s.say(s.rank(1, 0), fleet.Accepted, fleet.Started)
		id := s.id(s.canary())
		delete(s.Complete, id)
		s.Roster = slices.DeleteFunc(s.Roster, func(m fleet.Member) bool { return m.ID == id })
	}},
	{"a stop of yesterday, whose go was retired with it", "I16", Retired, func(s *scene) {
		s.command(s.canary(), fleet.Command{Verb: fleet.Pause})
		s.say(s.canary(), fleet.Accepted, fleet.Started)
		floor := fleet.Floor{Kind: fleet.KindCommand, Epoch: 1, Seq: 3}
		s.sign(s.canary(), fleet.KindFloor, fleet.FloorKey(fleet.KindCommand), floor.Encode())
	}},
	{"no seal", "R1", NoSeal, func(s *scene) {
		s.say("c1", fleet.Accepted)
		s.Seals = nil
	}},
	{"no body of it", "R1", NoSeal, func(s *scene) {
		s.say("c1", fleet.Accepted)
		s.Bodies = s.Bodies[:1]
	}},
	{"newer rules", "R1", NoVersion, func(s *scene) {
		s.Seals[0].CompileVersion++
		s.plan.Digest = sequencer.Release{Seal: s.Seals[0].Digest(), Revision: "r1"}.Plan()
		s.say("c1", fleet.Accepted)
	}},
	{"an author's seal without its signature", "R1", NotHeard, func(s *scene) {
		s.Seals[0].Author = string(s.id("c2"))
		s.plan.Digest = sequencer.Release{Seal: s.Seals[0].Digest(), Revision: "r1"}.Plan()
		s.say("c1", fleet.Accepted)
	}},
	{"a stranger", "members", Stranger, func(s *scene) {
		s.join("stranger")
		s.command("stranger", fleet.Command{Verb: fleet.Pause})
	}},
	{"a fleet that somebody made up", "members", Stranger, func(s *scene) {
		s.say(s.canary(), whole...)
		s.Roster = nil
	}},
	{"by their clocks before the gate", "I2", ByClocks, func(s *scene) {
		s.say(s.rank(1, 0), fleet.Accepted, fleet.Started)
		s.say(s.canary(), whole...)
	}},
	{"by their clocks before its place", "R2", ByClocks, func(s *scene) {
		s.say(s.canary(), whole...)
		s.say(s.rank(1, 2), fleet.Accepted, fleet.Started)
		s.say(s.rank(1, 0), whole...)
	}},
	{"by its clock it did not wait", "R4", ByClocks, func(s *scene) {
		s.say("c1", fleet.Accepted, fleet.Started)
		s.clock -= 1000
		s.say("c1", fleet.Succeeded)
	}},
	{"another one's go, heard nobody knows when", "I16", NotHeard, func(s *scene) {
		s.command(s.canary(), fleet.Command{Verb: fleet.Pause})
		s.say(s.canary(), fleet.Accepted, fleet.Started)
		delete(s.Complete, s.id(s.canary()))
	}},
}

// TestUnjudged: where something is missing, nobody is accused, and the finding says what is missing.
func TestUnjudged(t *testing.T) {
	for _, c := range unjudgedRules {
		t.Run(c.name, func(t *testing.T) {
			s := newScene(t, 6)
			c.sign(s)
			r := Check(s.Evidence)
			rule := ruleOf(t, &r, c.rule)
			if rule.Verdict != Unjudged {
				t.Fatalf("%s is %s:\n%s", c.rule, rule.Verdict, strings.Join(told(&r), "\n"))
			}
			lacks := slices.ContainsFunc(rule.Findings, func(f Finding) bool {
				return slices.ContainsFunc(f.Lacks, func(l Lack) bool { return l.Why == c.why })
			})
			if !lacks {
				t.Errorf("nothing says %s:\n%s", c.why, strings.Join(told(&r), "\n"))
			}
		})
	}
}

// TestAlone: a member that hears nobody may have lost with its store what it once heard, and then its export accuses nobody, itself
// included. That of the member whose word is missing, which has its own words for certain, decides it.
func TestAlone(t *testing.T) {
	s := newScene(t, 6)
	starter, canary := s.id(s.rank(1, 0)), s.id(s.canary())
	s.say(s.rank(1, 0), fleet.Accepted, fleet.Started)
	alone := s.Evidence
	alone.Complete = map[fleet.MemberID]bool{starter: true}
	if r := Check(alone); r.Verdict != Unjudged {
		t.Errorf("by itself it is %s:\n%s", r.Verdict, strings.Join(told(&r), "\n"))
	}
	both := Evidence{Fleet: alone.Fleet}
	own := alone
	own.Complete = map[fleet.MemberID]bool{canary: true}
	for _, e := range []Evidence{alone, own} {
		if err := both.Join(e); err != nil {
			t.Fatal(err)
		}
	}
	if r := Check(both); ruleOf(t, &r, "I2").Verdict != Broken {
		t.Errorf("with the canary's export it is %s:\n%s", r.Verdict, strings.Join(told(&r), "\n"))
	}
}

// TestExcused: what a strict reader might take for a breach, and is none.
func TestExcused(t *testing.T) {
	for name, sign := range map[string]func(*scene){
		"a carry-over": func(s *scene) {
			canary := s.canary()
			s.say(canary, whole...)
			s.seal(2, "main", 2, 1)
			s.take("r1")
			s.say(canary, fleet.Accepted, fleet.Succeeded, fleet.Soaked)
		},
		"another source": func(s *scene) {
			s.say("c1", fleet.Accepted)
			s.take("r2")
			s.say("c1", fleet.Accepted)
			s.seal(2, "release", 2, 1)
			s.take("r1")
			s.say("c1", fleet.Accepted)
		},
		"a go of another member": func(s *scene) {
			stop := s.command(s.canary(), fleet.Command{Verb: fleet.Pause})
			s.command(s.rank(1, 0), fleet.Command{Verb: fleet.Resume, Lifts: []fleet.Digest{stop}})
			s.say(s.canary(), fleet.Accepted, fleet.Started)
		},
		"a stop after the start": func(s *scene) {
			s.say(s.canary(), fleet.Accepted, fleet.Started)
			s.command(s.canary(), fleet.Command{Verb: fleet.Pause})
		},
		"one gave up and is tolerated": func(s *scene) {
			s.say(s.canary(), whole...)
			s.say(s.rank(1, 0), fleet.Accepted, fleet.Started, fleet.Failed, fleet.GaveUp)
			s.say(s.rank(1, 1), fleet.Accepted, fleet.Started)
			s.say(s.rank(1, 2), fleet.Accepted, fleet.Started)
		},
		"what does not render fails before it starts": func(s *scene) {
			s.say(s.canary(), fleet.Accepted, fleet.Failed)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, 6)
			sign(s)
			if r := Check(s.Evidence); r.Verdict != Kept {
				t.Errorf("%s:\n%s", r.Verdict, strings.Join(told(&r), "\n"))
			}
		})
	}
}

// TestOrderOfEvidence: the same evidence, shuffled and doubled, gives the same result.
func TestOrderOfEvidence(t *testing.T) {
	for _, c := range brokenRules {
		s := newScene(t, 6)
		c.sign(s)
		want, err := json.Marshal(Check(s.Evidence))
		if err != nil {
			t.Fatal(err)
		}
		random := rand.New(rand.NewPCG(1, 2))
		twice := s.Evidence
		if err := twice.Join(s.Evidence); err != nil {
			t.Fatal(err)
		}
		random.Shuffle(len(twice.Records), func(i, j int) { twice.Records[i], twice.Records[j] = twice.Records[j], twice.Records[i] })
		random.Shuffle(len(twice.Seals), func(i, j int) { twice.Seals[i], twice.Seals[j] = twice.Seals[j], twice.Seals[i] })
		got, err := json.Marshal(Check(twice))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}

// TestManyFindings: what a flood of broken records makes is bounded, and counted.
func TestManyFindings(t *testing.T) {
	s := newScene(t, 2)
	for range MaxFindings + 5 {
		s.sign("c1", fleet.KindFact, "nonsense", []byte{1})
	}
	r := Check(s.Evidence)
	if rule := ruleOf(t, &r, "signed"); len(rule.Findings) != MaxFindings || rule.More != 5 {
		t.Errorf("%d findings and %d more", len(rule.Findings), rule.More)
	}
}

func TestTwoFleetsDoNotJoin(t *testing.T) {
	a, b := newScene(t, 1).Evidence, newScene(t, 1).Evidence
	b.Fleet = fleet.DigestOf("flotilla.dev/other-fleet")
	if err := a.Join(b); err == nil {
		t.Error("two fleets are joined")
	}
}
