// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"crypto/ed25519"
	"crypto/sha256"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/sequencer"
)

var (
	testFleet = fleet.DigestOf("flotilla.dev/test-fleet")
	web       = fleet.RolloutName{Namespace: "apps", Name: "web"}
)

// scene is a fleet whose members sign whatever a test has them sign: what agents would never say, too.
type scene struct {
	t       *testing.T
	keys    map[fleet.Name]ed25519.PrivateKey
	at      map[fleet.Name]position
	members []fleet.Member
	sealed  sequencer.Sealed
	plan    *sequencer.Plan
	clock   int64
	Evidence
}

// newScene of so many members in two stages: a canary of one, and the rest by twos, of which one may fail.
func newScene(t *testing.T, members int) *scene {
	t.Helper()
	s := &scene{t: t, keys: map[fleet.Name]ed25519.PrivateKey{}, at: map[fleet.Name]position{}, clock: 1_800_000_000}
	s.Fleet, s.Complete = testFleet, map[fleet.MemberID]bool{}
	for i := range members {
		s.join(fleet.Name("c" + string(rune('1'+i))))
	}
	s.Roster = slices.Clone(s.members)
	s.seal(1, "main", 2, 1)
	s.take("r1")
	return s
}

func (s *scene) join(name fleet.Name) fleet.Member {
	seed := sha256.Sum256([]byte(name))
	key := ed25519.NewKeyFromSeed(seed[:])
	m := fleet.Member{ID: fleet.MemberIDOf(key.Public().(ed25519.PublicKey)), Name: name, Incarnation: 1}
	s.keys[name], s.at[name] = key, position{1, 0}
	s.members = append(s.members, m)
	s.Complete[m.ID] = true
	return m
}

func count(n int) *intstr.IntOrString { v := intstr.FromInt(n); return &v }

// seal the rollout for all members that have joined.
func (s *scene) seal(number uint64, branch string, n, tolerance int) {
	s.t.Helper()
	spec := v1alpha1.FleetRolloutSpec{
		Source: v1alpha1.Source{Git: &v1alpha1.GitSource{URL: "https://git.example/web", Ref: &v1alpha1.GitRef{Branch: branch}}},
		Strategy: &v1alpha1.Strategy{Stages: []v1alpha1.Stage{
			{Name: "canary", Size: count(1)},
			{Name: "rest", Pacing: v1alpha1.Pacing{MaxConcurrency: count(n), MaxUnavailable: count(tolerance)}},
		}},
	}
	sealed, err := sequencer.Seal(web, sequencer.Position{Author: fleet.AuthorGit, Number: number}, spec, s.members)
	if err != nil {
		s.t.Fatal(err)
	}
	body, members, err := sealed.Bodies()
	if err != nil {
		s.t.Fatal(err)
	}
	s.sealed = sealed
	s.Seals = append(s.Seals, sealed.Seal)
	s.Bodies = append(s.Bodies, body, members)
}

// take a revision with the newest seal.
func (s *scene) take(revision fleet.Revision) {
	s.t.Helper()
	plan, err := sequencer.Compile(s.sealed, revision)
	if err != nil {
		s.t.Fatal(err)
	}
	s.plan = plan
}

// rank of a stage of the plan in hand: who that is.
func (s *scene) rank(stage, rank int) fleet.Name { return s.plan.Stages[stage].Members[rank].Name }

// canary and the others, by rank.
func (s *scene) canary() fleet.Name { return s.rank(0, 0) }

func (s *scene) id(name fleet.Name) fleet.MemberID {
	return fleet.MemberIDOf(s.keys[name].Public().(ed25519.PublicKey))
}

// sign a record in the member's next position.
func (s *scene) sign(by fleet.Name, kind fleet.Kind, key string, body []byte) fleet.Record {
	s.t.Helper()
	at := s.at[by]
	at.seq++
	s.at[by] = at
	return s.signAt(by, at, kind, key, body)
}

func (s *scene) signAt(by fleet.Name, at position, kind fleet.Kind, key string, body []byte) fleet.Record {
	s.t.Helper()
	r := fleet.Record{Fleet: testFleet, Epoch: at.epoch, Seq: at.seq, Kind: kind, Key: key, Body: body}
	if err := r.Sign(s.keys[by]); err != nil {
		s.t.Fatal(err)
	}
	s.Records = append(s.Records, r)
	return r
}

// say milestones of the plan in hand, five minutes after each other.
func (s *scene) say(by fleet.Name, said ...fleet.FactKind) {
	s.t.Helper()
	for _, k := range said {
		s.clock += 300
		f := fleet.Fact{Plan: s.plan.Digest, Kind: k, Time: s.clock}
		if k == fleet.Accepted || k == fleet.Started {
			f.Detail = string(s.plan.Release.Revision)
		}
		s.sign(by, fleet.KindFact, fleet.FactKey(f.Plan, k), f.Encode())
	}
}

// whole is a member that goes through a plan as it should.
var whole = []fleet.FactKind{fleet.Accepted, fleet.Started, fleet.Succeeded, fleet.Soaked}

func (s *scene) command(by fleet.Name, c fleet.Command) fleet.Digest {
	s.t.Helper()
	s.clock++
	c.Rollout, c.Time = web, s.clock
	r := s.sign(by, fleet.KindCommand, c.Verb.String()+"/"+string(by)+"/"+string(rune('a'+len(s.Records)%26)), c.Encode())
	return r.Digest()
}

// rule of a result.
func ruleOf(t *testing.T, r *Result, id string) Rule {
	t.Helper()
	for _, rule := range r.Rules {
		if rule.ID == id {
			return rule
		}
	}
	t.Fatalf("no rule %s", id)
	return Rule{}
}
