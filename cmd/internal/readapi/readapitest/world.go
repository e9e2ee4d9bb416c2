// SPDX-License-Identifier: Apache-2.0

// Package readapitest answers: what would a member know, after this had happened?
//
// A [World] is told a story line by line and then holds the plan and the facts of it, so that tests of
// whatever shows a rollout need neither agents nor a network.
package readapitest

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/sequencer"
)

// Began is when the first fact of a world could have been signed; each is a minute after the one before.
func Began() time.Time { return time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC) }

// Revision that a world's plan is of.
const Revision fleet.Revision = "main@sha1:a1b2c3d4e5f60718293a4b5c6d7e8f9012345678"

// World is what one member holds: the plan of apps/web, in three stages, and the facts that a test tells it.
//
//	canary c1; eu eu-1..eu-4 (2 at a time, 1 tolerated); us us-1..us-3 (all at once)
//
// Members of a stage rank in the order of their names.
//
// It is the sequencer's Facts and readapi's History. Not safe for concurrent use.
type World struct {
	Plan *sequencer.Plan

	plans    []*sequencer.Plan // all that there were, oldest first
	facts    map[fleet.Digest]map[fleet.MemberID]map[fleet.FactKind]fleet.Fact
	commands []fleet.Command
	proven   map[fleet.MemberID]bool
	clock    time.Time
}

// IDOf the member of a name: every name has one.
func IDOf(name fleet.Name) fleet.MemberID {
	seed := sha256.Sum256([]byte(name))
	return fleet.MemberIDOf(ed25519.NewKeyFromSeed(seed[:]).Public().(ed25519.PublicKey))
}

// Member of a name; its region is what stands before the dash.
func Member(name fleet.Name) fleet.Member {
	region, _, _ := strings.Cut(string(name), "-")
	return fleet.Member{ID: IDOf(name), Name: name, Incarnation: 1, Labels: map[string]string{"region": region}}
}

// Members of the plan.
func Members() []fleet.Member {
	var out []fleet.Member
	for _, name := range []fleet.Name{"c1", "eu-1", "eu-2", "eu-3", "eu-4", "us-1", "us-2", "us-3"} {
		out = append(out, Member(name))
	}
	return out
}

// New world in which nothing has happened.
func New() (*World, error) {
	sealed, err := deal()
	if err != nil {
		return nil, err
	}
	w := &World{facts: map[fleet.Digest]map[fleet.MemberID]map[fleet.FactKind]fleet.Fact{}, proven: map[fleet.MemberID]bool{}, clock: Began()}
	return w, w.begin(sealed, Revision)
}

// begin a plan: the seal's members, stages and ranks, with another revision.
func (w *World) begin(sealed sequencer.Sealed, revision fleet.Revision) error {
	plan, err := sequencer.Compile(sealed, revision)
	if err != nil {
		return err
	}
	plan.Release.Number = Number
	w.Plan, w.plans = plan, append(w.plans, plan)
	return nil
}

// Releases that there were, oldest first; the last one is that of Plan.
func (w *World) Releases() []sequencer.Release {
	var out []sequencer.Release
	for _, p := range w.plans {
		out = append(out, p.Release)
	}
	return out
}

// FactsOf a plan, in any order.
func (w *World) FactsOf(plan fleet.Digest) []fleet.Fact {
	var out []fleet.Fact
	for _, said := range w.facts[plan] {
		for _, f := range said {
			out = append(out, f)
		}
	}
	return out
}

// deal the ranks until they are in order: looked for once, nobody changes a plan.
var deal = sync.OnceValues(func() (sequencer.Sealed, error) {
	region := func(is string) v1alpha1.ClusterSelector {
		return v1alpha1.ClusterSelector{LabelSelector: metav1.LabelSelector{MatchLabels: map[string]string{"region": is}}}
	}
	number := func(n int) *intstr.IntOrString { v := intstr.FromInt(n); return &v }
	soak := &v1alpha1.Duration{Duration: metav1.Duration{Duration: time.Hour}}
	spec := v1alpha1.FleetRolloutSpec{
		Targets: v1alpha1.Targets{ClusterSelector: v1alpha1.ClusterSelector{Names: []string{"*"}}},
		Strategy: &v1alpha1.Strategy{Stages: []v1alpha1.Stage{
			{Name: "canary", ClusterSelector: v1alpha1.ClusterSelector{Names: []string{"c1"}}, Pacing: v1alpha1.Pacing{Soak: soak}},
			{Name: "eu", ClusterSelector: region("eu"), Pacing: v1alpha1.Pacing{MaxConcurrency: number(2), MaxUnavailable: number(1)}},
			{Name: "us", ClusterSelector: region("us"), Pacing: v1alpha1.Pacing{MaxConcurrency: number(3)}},
		}},
	}
	for number := uint64(1); ; number++ {
		at := sequencer.Position{Author: fleet.AuthorGit, Number: number}
		sealed, err := sequencer.Seal(fleet.RolloutName{Namespace: "apps", Name: "web"}, at, spec, Members())
		if err != nil {
			return sequencer.Sealed{}, err
		}
		plan, err := sequencer.Compile(sealed, Revision)
		if err != nil || inOrder(plan) {
			return sealed, err
		}
	}
})

// Number of the seal, as far as a world says it.
const Number = 3

// inOrder: the members of every stage rank as their names do. One deal of 144 is such a one; it is
// looked for, so that what is written in tests holds however a seal is encoded.
func inOrder(p *sequencer.Plan) bool {
	for _, s := range p.Stages {
		if !slices.IsSortedFunc(s.Members, func(a, b fleet.Member) int { return strings.Compare(string(a.Name), string(b.Name)) }) {
			return false
		}
	}
	return true
}

// Steady puts fixed digests in the place of the plan's and the seal's, for the same reason.
func (w *World) Steady(s string) string {
	digests := map[fleet.Digest]string{w.Plan.Release.Seal: "5ea1"}
	for i, p := range w.plans {
		digests[p.Digest] = fmt.Sprintf("0be%d", i+1)
	}
	for digest, fixed := range digests {
		fixed += strings.Repeat("0", len(digest.String())-len(fixed))
		s = strings.ReplaceAll(s, digest.String(), fixed)
		s = strings.ReplaceAll(s, digest.Short(), fixed[:len(digest.Short())])
	}
	return s
}

// kindOf a fact as stories name it: "gaveup" is GaveUp.
func kindOf(word string) (fleet.FactKind, error) {
	for k := fleet.Accepted; k <= fleet.Yielded; k++ {
		if strings.EqualFold(k.String(), word) {
			return k, nil
		}
	}
	return 0, fmt.Errorf("no fact is called %q", word)
}

// Tell the world what was signed: "c1 started", "c1 failed: why", "pause by c1: why", "resume by c1", or
// "resume" for all stops, "c1 forked" for a proof against it, "wait 1h"; "revision 77ab01c" begins a new release of the same seal.
// "eu" and "us" are all of a stage.
func (w *World) Tell(lines ...string) error {
	for _, line := range lines {
		w.clock = w.clock.Add(time.Minute)
		what, detail, _ := strings.Cut(line, ": ")
		words := strings.Fields(what)
		var err error
		switch {
		case len(words) == 3 && words[0] == "pause":
			w.commands = append(w.commands, fleet.Command{
				Rollout: w.Plan.Rollout, Verb: fleet.Pause, Reason: detail, By: IDOf(fleet.Name(words[2])),
				ID: fleet.DigestOf("test", []byte(line)), Time: w.clock.Unix(),
			})
		case len(words) == 2 && words[0] == "wait":
			var d time.Duration
			d, err = time.ParseDuration(words[1])
			w.clock = w.clock.Add(d)
		case len(words) == 1 && words[0] == "resume":
			w.lift(IDOf("c1"), w.commands)
		case len(words) == 3 && words[0] == "resume":
			by := IDOf(fleet.Name(words[2]))
			w.lift(by, slices.DeleteFunc(slices.Clone(w.commands), func(c fleet.Command) bool { return c.By != by }))
		case len(words) == 2 && words[0] == "revision":
			var sealed sequencer.Sealed
			if sealed, err = deal(); err == nil {
				err = w.begin(sealed, fleet.Revision("main@sha1:"+words[1]+strings.Repeat("0", max(0, 40-len(words[1])))))
			}
		case len(words) == 2 && words[1] == "forked":
			for _, id := range w.who(words[0]) {
				w.proven[id] = true
			}
		case len(words) == 2:
			err = w.say(words[0], words[1], detail)
		default:
			err = fmt.Errorf("no story goes %q", line)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// lift the stops among these commands, in the name of a member.
func (w *World) lift(by fleet.MemberID, stops []fleet.Command) {
	c := fleet.Command{Rollout: w.Plan.Rollout, Verb: fleet.Resume, By: by, Time: w.clock.Unix(), ID: fleet.DigestOf("test-resume", []byte(w.clock.String()))}
	for _, stop := range stops {
		c.Lifts = append(c.Lifts, stop.ID)
	}
	w.commands = append(w.commands, c)
}

func (w *World) say(who, what, detail string) error {
	kind, err := kindOf(what)
	if err != nil {
		return err
	}
	members := w.who(who)
	if len(members) == 0 {
		return fmt.Errorf("nobody is %q", who)
	}
	said := w.facts[w.Plan.Digest]
	if said == nil {
		said = map[fleet.MemberID]map[fleet.FactKind]fleet.Fact{}
		w.facts[w.Plan.Digest] = said
	}
	if (kind == fleet.Accepted || kind == fleet.Started) && detail == "" {
		detail = string(w.Plan.Release.Revision) // as agents say it
	}
	for _, id := range members {
		if said[id] == nil {
			said[id] = map[fleet.FactKind]fleet.Fact{}
		}
		said[id][kind] = fleet.Fact{Plan: w.Plan.Digest, Kind: kind, Member: id, Detail: detail, Time: w.clock.Unix()}
	}
	return nil
}

func (w *World) who(name string) (out []fleet.MemberID) {
	for _, s := range w.Plan.Stages {
		for _, m := range s.Members {
			if string(m.Name) == name || s.Name == name {
				out = append(out, m.ID)
			}
		}
	}
	return out
}

// Fact is in sequencer.Facts.
func (w *World) Fact(plan fleet.Digest, m fleet.MemberID, k fleet.FactKind) (fleet.Digest, bool) {
	f, ok := w.facts[plan][m][k]
	if !ok {
		return fleet.Digest{}, false
	}
	at := slices.IndexFunc(w.plans, func(p *sequencer.Plan) bool { return p.Digest == plan })
	return fleet.DigestOf("test-fact", []byte{byte(at)}, []byte(m), []byte(f.Kind.String())), true
}

// Removed is in sequencer.Facts.
func (w *World) Removed(m fleet.MemberID) bool { return w.proven[m] }

// Commands is in sequencer.Facts.
func (w *World) Commands(fleet.RolloutName) []fleet.Command { return w.commands }

// History is in readapi.History.
func (w *World) History(plan fleet.Digest, m fleet.MemberID) []fleet.Fact {
	var out []fleet.Fact
	for _, f := range w.facts[plan][m] {
		out = append(out, f)
	}
	return out
}
