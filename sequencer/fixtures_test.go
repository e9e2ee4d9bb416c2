// SPDX-License-Identifier: Apache-2.0

package sequencer

import (
	"crypto/ed25519"
	"crypto/sha256"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

var (
	checkout = fleet.RolloutName{Namespace: "shop", Name: "checkout"}
	byGit    = Position{Author: fleet.AuthorGit, Number: 1}
)

const (
	revA fleet.Revision = "main@sha1:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	revB fleet.Revision = "main@sha1:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

// tb is what the fixtures want of a test: testing.T, B, F and rapid.T have it.
type tb interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// member of a fixture: its key is made of its name, so that digests are the same in every run.
func member(name string, labels ...string) fleet.Member {
	key := sha256.Sum256([]byte(name))
	m := fleet.Member{ID: fleet.MemberIDOf(ed25519.PublicKey(key[:])), Name: fleet.Name(name), Incarnation: 1}
	for _, l := range labels {
		k, v, _ := strings.Cut(l, "=")
		if m.Labels == nil {
			m.Labels = map[string]string{}
		}
		m.Labels[k] = v
	}
	return m
}

// members c-01 to c-n, without labels.
func members(n int) []fleet.Member {
	out := make([]fleet.Member, n)
	for i := range out {
		out[i] = member(fmt.Sprintf("c-%02d", i+1))
	}
	return out
}

// specWith is the spec of a rollout to everyone, with a strategy in YAML. A strategy that is not YAML
// panics: it is the test's own text.
func specWith(strategy string) v1alpha1.FleetRolloutSpec {
	spec := v1alpha1.FleetRolloutSpec{
		Source:  v1alpha1.Source{Git: &v1alpha1.GitSource{URL: "https://git.example/shop"}, Path: "./deploy"},
		Targets: v1alpha1.Targets{ClusterSelector: v1alpha1.ClusterSelector{Names: []string{"*"}}},
	}
	if strategy != "" {
		spec.Strategy = &v1alpha1.Strategy{}
		if err := yaml.UnmarshalStrict([]byte(strategy), spec.Strategy); err != nil {
			panic(fmt.Sprintf("strategy: %v\n%s", err, strategy))
		}
	}
	return spec
}

func sealOf(t tb, at Position, strategy string, targets []fleet.Member) Sealed {
	t.Helper()
	s, err := Seal(checkout, at, specWith(strategy), targets)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func planOf(t tb, strategy string, targets []fleet.Member) *Plan {
	t.Helper()
	p, err := Compile(sealOf(t, byGit, strategy, targets), revA)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

type milestone struct {
	plan   fleet.Digest
	member fleet.MemberID
	kind   fleet.FactKind
}

// record is the digest under which the fixtures hold a milestone.
func (m milestone) record() fleet.Digest {
	return fleet.DigestOf("test/fact", m.plan[:], []byte(m.member), []byte{byte(m.kind)})
}

// ledger is the facts and commands that somebody holds.
type ledger struct {
	facts    map[milestone]bool
	commands []fleet.Command
	// proven are the members that a proof is held against.
	proven map[fleet.MemberID]bool
}

func newLedger() *ledger {
	return &ledger{facts: map[milestone]bool{}, proven: map[fleet.MemberID]bool{}}
}

func (l *ledger) Removed(m fleet.MemberID) bool { return l.proven[m] }

func (l *ledger) Fact(plan fleet.Digest, m fleet.MemberID, k fleet.FactKind) (fleet.Digest, bool) {
	at := milestone{plan, m, k}
	if !l.facts[at] {
		return fleet.Digest{}, false
	}
	return at.record(), true
}

func (l *ledger) Commands(name fleet.RolloutName) []fleet.Command {
	var out []fleet.Command
	for _, c := range l.commands {
		if c.Rollout == name && !l.proven[c.By] {
			out = append(out, c)
		}
	}
	return out
}

func (l *ledger) say(p *Plan, m fleet.MemberID, kinds ...fleet.FactKind) {
	for _, k := range kinds {
		l.facts[milestone{p.Digest, m, k}] = true
	}
}

// hear a command once.
func (l *ledger) hear(c fleet.Command) {
	for _, known := range l.commands {
		if known.ID == c.ID {
			return
		}
	}
	l.commands = append(l.commands, c)
}

// join takes over all that another one holds.
func (l *ledger) join(other *ledger) {
	for f := range other.facts {
		l.facts[f] = true
	}
	for _, c := range other.commands {
		l.hear(c)
	}
	for m := range other.proven {
		l.proven[m] = true
	}
}

func pause(n int, reason string) fleet.Command {
	return fleet.Command{Rollout: checkout, Verb: fleet.Pause, Reason: reason, ID: commandID(n)}
}

func resume(n int, lifts ...fleet.Digest) fleet.Command {
	return fleet.Command{Rollout: checkout, Verb: fleet.Resume, Lifts: lifts, ID: commandID(n)}
}

func commandID(n int) fleet.Digest { return fleet.DigestOf("test/command", []byte(fmt.Sprint(n))) }

// at is a moment of the one machine that has not rebooted.
func at(d time.Duration) fleet.Moment { return fleet.Moment{Elapsed: d, Boot: "boot-1"} }

// checks a property in rounds: rapid's hundred cases begin small, and are too few for what is rare. The cases are the same
// ones in every run, or what is rare would be missing in some; with FLOTILLA_SOAK or -rapid.seed they are others.
func checks(t *testing.T, rounds int, property func(*rapid.T)) {
	seed := flag.Lookup("rapid.seed").Value
	given := seed.String()
	defer func() { _ = seed.Set(given) }()
	for round := range rounds {
		if given == "0" && os.Getenv("FLOTILLA_SOAK") == "" {
			if err := seed.Set(fmt.Sprint(1_000_000 * (round + 1))); err != nil {
				t.Fatal(err)
			}
		}
		rapid.Check(t, property)
	}
}

// golden compares with a file of testdata; UPDATE_GOLDEN=1 rewrites it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; UPDATE_GOLDEN=1 writes it", err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s is not what came out (- file, + now; UPDATE_GOLDEN=1 rewrites it):\n%s", path, diff)
	}
}
