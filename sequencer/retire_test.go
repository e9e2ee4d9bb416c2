// SPDX-License-Identifier: Apache-2.0

package sequencer

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// attic is a few members that take release after release of several rollouts and retire what they said, each with
// the records that it has heard. The checker keeps everything.
type attic struct {
	*rand.Rand
	members  []fleet.Member
	rollouts [][]*Plan // of each rollout, the oldest first
	sites    []*tenant
	truth    *ledger
	live     func(Spoken, bool) []fleet.Digest
	// violation is the first one found.
	violation string
	seen      counters
}

// tenant is one member of it.
type tenant struct {
	id         fleet.MemberID
	away       bool
	epoch, seq uint64
	facts      map[milestone]fleet.Record
	floors     map[fleet.MemberID]fleet.Floor
	spoken     []Spoken
	said       int
}

func (s *tenant) Fact(plan fleet.Digest, m fleet.MemberID, k fleet.FactKind) (fleet.Digest, bool) {
	_, ok := s.facts[milestone{plan, m, k}]
	return fleet.Digest{}, ok
}

func (*tenant) Commands(fleet.RolloutName) []fleet.Command { return nil }

func (*tenant) Removed(fleet.MemberID) bool { return false }

// hear a record, as a store takes it: not below its writer's floor.
func (s *tenant) hear(at milestone, r fleet.Record) {
	if floor := s.floors[at.member]; !floor.Retires(&r) {
		s.facts[at] = r
	}
}

func (s *tenant) obey(f fleet.Floor) {
	held := s.floors[f.Writer]
	if held.Epoch > f.Epoch || held.Epoch == f.Epoch && held.Seq >= f.Seq {
		return
	}
	s.floors[f.Writer] = f
	for at, r := range s.facts {
		if f.Retires(&r) {
			delete(s.facts, at)
		}
	}
}

func (s *tenant) meet(other *tenant) {
	for _, f := range other.floors {
		s.obey(f)
	}
	for at, r := range other.facts {
		if _, known := s.facts[at]; !known {
			s.hear(at, r)
		}
	}
}

func newAttic(seed uint64, live func(Spoken, bool) []fleet.Digest) *attic {
	a := &attic{Rand: rand.New(rand.NewPCG(seed, 5)), members: members(4), truth: newLedger(), live: live, seen: counters{}}
	a.rollouts = make([][]*Plan, 3)
	for _, m := range a.members {
		a.sites = append(a.sites, &tenant{
			id: m.ID, epoch: 1, facts: map[milestone]fleet.Record{}, floors: map[fleet.MemberID]fleet.Floor{}, spoken: make([]Spoken, 3),
		})
	}
	return a
}

// release a new plan of a rollout. Its number goes into the seal, so no two are alike.
func (a *attic) release(t tb, rollout, n int) {
	name := fleet.RolloutName{Namespace: "shop", Name: fmt.Sprint("web-", rollout)}
	spec := specWith("stages: [{name: first, size: 1}, {name: last, maxConcurrency: 2}]")
	sealed, err := Seal(name, Position{Author: fleet.AuthorGit, Number: uint64(n + 1)}, spec, a.members)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Compile(sealed, revA)
	if err != nil {
		t.Fatal(err)
	}
	a.rollouts[rollout] = append(a.rollouts[rollout], p)
}

func (a *attic) newest(rollout int) *Plan { return a.rollouts[rollout][len(a.rollouts[rollout])-1] }

// turn of one member in one rollout.
func (a *attic) turn(s *tenant, rollout int) {
	p := a.newest(rollout)
	a.say(s, rollout, p, fleet.Accepted)
	switch d := Decide(p, s, s.id, at(0)); d.Reason {
	case MayStart:
		a.say(s, rollout, p, fleet.Started)
	case HasStarted:
		a.say(s, rollout, p, fleet.Succeeded)
	case HasSucceeded:
		a.say(s, rollout, p, fleet.Soaked)
	}
	for _, old := range a.rollouts[rollout][max(0, len(a.rollouts[rollout])-3):] {
		if Closed(old, s) {
			s.spoken[rollout].Closed = old.Digest
		}
	}
}

func (a *attic) say(s *tenant, rollout int, p *Plan, kind fleet.FactKind) {
	at := milestone{p.Digest, s.id, kind}
	if a.truth.facts[at] {
		return
	}
	a.truth.facts[at] = true
	if spoken := &s.spoken[rollout]; !slices.Contains(spoken.Plans, p.Digest) {
		spoken.Plans = append(spoken.Plans, p.Digest)
	}
	s.seq++
	s.said++
	s.hear(at, fleet.Record{Writer: s.id, Epoch: s.epoch, Seq: s.seq, Kind: fleet.KindFact, Key: fleet.FactKey(p.Digest, kind)})
}

// retire what is of no use, and see that nothing else went (P15): the newest plan's milestones, and those of the
// newest that this member knows to be closed.
func (a *attic) retire(s *tenant) {
	var own []Own
	live := map[fleet.Group]bool{}
	for at, r := range s.facts {
		if at.member == s.id {
			own = append(own, Own{r.Epoch, r.Seq, r.Group()})
		}
	}
	for _, spoken := range s.spoken {
		for _, plan := range a.live(spoken, Scarce(fleet.KindFact, len(own))) {
			live[fleet.PlanGroup(plan)] = true
		}
	}
	standing := s.floors[s.id]
	floor, pays := Retire(fleet.KindFact, own, live, standing)
	if !pays {
		return
	}
	floor.Writer = s.id
	closed := make([]*Plan, len(a.rollouts))
	for i, plans := range a.rollouts {
		for _, p := range plans[max(0, len(plans)-3):] {
			if Closed(p, s) {
				closed[i] = p
			}
		}
	}
	s.obey(floor)
	a.seen["a floor"]++
	for i := range a.rollouts {
		for _, p := range []*Plan{a.newest(i), closed[i]} {
			for kind := fleet.Accepted; p != nil && kind <= fleet.Yielded; kind++ {
				if a.truth.facts[milestone{p.Digest, s.id, kind}] && !has(s, p.Digest, s.id, kind) && a.violation == "" {
					a.violation = fmt.Sprintf("P15: %s of release %d, the newest open or closed, was retired", kind, p.Release.Number)
				}
			}
		}
	}
}

// run releases, each for some turns, with news lost, late and twice, and restarts in between.
func (a *attic) run(t tb, releases int) {
	for n := range releases {
		rollout := a.IntN(len(a.rollouts))
		if n < len(a.rollouts) {
			rollout = n
		}
		a.release(t, rollout, n)
		for range 8 + a.IntN(24) {
			s := a.sites[a.IntN(len(a.sites))]
			if s.away {
				continue
			}
			if r := a.IntN(len(a.rollouts)); len(a.rollouts[r]) > 0 {
				a.turn(s, r)
			}
			if other := a.sites[a.IntN(len(a.sites))]; !other.away {
				s.meet(other)
			}
			if a.IntN(50) == 0 {
				s.epoch, s.seq = s.epoch+1, 0
				a.seen["a restart"]++
			}
		}
		for _, s := range a.sites {
			if !s.away && a.IntN(4) == 0 {
				a.retire(s)
			}
		}
	}
}

// own counts the milestones of its own that a member still holds.
func (s *tenant) own() (n int) {
	for at := range s.facts {
		if at.member == s.id {
			n++
		}
	}
	return n
}

// mostOwn of three rollouts: the plans that stay, at four milestones each, and what does not pay to be retired.
const mostOwn = 3*4*(OvertakenKept+3) + 2*retireAtLeast

// TestOwnMilestonesStayBounded: over many releases nobody's milestones grow, whether or not a member that is away
// keeps every release open; and nothing goes that anybody might still decide by. Who comes back after all of it
// goes to the newest releases like everybody else.
func TestOwnMilestonesStayBounded(t *testing.T) {
	for _, away := range []bool{false, true} {
		t.Run(fmt.Sprintf("away=%v", away), func(t *testing.T) {
			a := newAttic(1, Spoken.Live)
			a.run(t, 20)
			a.sites[3].away = away
			a.run(t, manyReleases)
			if a.violation != "" {
				t.Fatal(a.violation)
			}
			for i, s := range a.sites {
				if s.said < manyReleases*6/5 && !s.away {
					t.Errorf("vacuous: member %d said %d milestones", i, s.said)
				}
				if own := s.own(); own > mostOwn {
					t.Errorf("member %d holds %d milestones of its own of %d said, more than %d", i, own, s.said, mostOwn)
				}
			}
			t.Logf("%v; of %d said, %d are held", a.seen, a.sites[0].said, a.sites[0].own())
			a.sites[3].away = false
			a.settle(t)
		})
	}
}

// settle: everybody hears everybody, and the newest release of each rollout gets everywhere.
func (a *attic) settle(t *testing.T) {
	for range 20 {
		for i, s := range a.sites {
			for r := range a.rollouts {
				a.turn(s, r)
			}
			for _, other := range slices.Concat(a.sites[:i], a.sites[i+1:]) {
				s.meet(other)
			}
			a.retire(s)
		}
	}
	for i, s := range a.sites {
		for r := range a.rollouts {
			if p := a.newest(r); !Closed(p, s) {
				t.Errorf("member %d, rollout %d: the newest release is not everywhere", i, r)
			}
		}
	}
	if a.violation != "" {
		t.Error(a.violation)
	}
}

// TestNothingLiveIsRetired tries many short stories.
func TestNothingLiveIsRetired(t *testing.T) {
	floors, restarts := 0, 0
	for seed := range uint64(16) {
		a := newAttic(seed, Spoken.Live)
		a.sites[3].away = seed%2 == 0
		a.run(t, 80)
		if a.violation != "" {
			t.Fatalf("seed %d: %s", seed, a.violation)
		}
		a.sites[3].away = false
		a.settle(t)
		floors, restarts = floors+a.seen["a floor"], restarts+a.seen["a restart"]
	}
	if floors < 16 || restarts < 16 {
		t.Errorf("vacuous: %d floors, %d restarts", floors, restarts)
	}
}

// TestPlantedRetirement: bugs that somebody could well write are found.
func TestPlantedRetirement(t *testing.T) {
	for name, live := range map[string]func(Spoken, bool) []fleet.Digest{
		"milestones of an open plan expire": func(s Spoken, _ bool) []fleet.Digest { return []fleet.Digest{s.Closed} },
		"the newest closed release goes with the others": func(s Spoken, _ bool) []fleet.Digest {
			return s.Plans[max(0, len(s.Plans)-1):]
		},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(40) {
				a := newAttic(seed, live)
				a.run(t, 80)
				if strings.HasPrefix(a.violation, "P15") {
					t.Log(a.violation)
					return
				}
			}
			t.Error("it was not found")
		})
	}
}

func TestSpokenLive(t *testing.T) {
	plan := func(n int) fleet.Digest {
		return fleet.DigestOf("test/plan", binary.BigEndian.AppendUint16(nil, uint16(n)))
	}
	plans := func(from, to int) (out []fleet.Digest) {
		for n := from; n <= to; n++ {
			out = append(out, plan(n))
		}
		return out
	}
	for name, tc := range map[string]struct {
		spoken Spoken
		scarce bool
		want   []fleet.Digest
	}{
		"nothing said":                    {Spoken{}, false, nil},
		"the newest is closed":            {Spoken{Plans: plans(1, 5), Closed: plan(5)}, false, plans(5, 5)},
		"newer ones are open":             {Spoken{Plans: plans(1, 5), Closed: plan(3)}, false, plans(3, 5)},
		"none ever closed":                {Spoken{Plans: plans(1, 5)}, false, plans(1, 5)},
		"very many never closed":          {Spoken{Plans: plans(1, 40)}, false, plans(40-OvertakenKept, 40)},
		"scarce":                          {Spoken{Plans: plans(1, 5), Closed: plan(2)}, true, append(plans(5, 5), plan(2))},
		"the promise has an older one":    {Spoken{Plans: plans(1, 5), Closed: plan(5), Needed: plans(2, 2)}, false, append(plans(5, 5), plan(2))},
		"ended":                           {Spoken{Plans: plans(1, 5), Closed: plan(3), Ended: true}, false, nil},
		"ended, and the promise has it":   {Spoken{Plans: plans(1, 5), Ended: true, Needed: plans(5, 5)}, false, plans(5, 5)},
		"closed before the list was kept": {Spoken{Plans: plans(4, 5), Closed: plan(2)}, false, append(plans(4, 5), plan(2))},
	} {
		has := map[fleet.Digest]bool{}
		for _, p := range tc.spoken.Live(tc.scarce) {
			has[p] = true
		}
		want := map[fleet.Digest]bool{}
		for _, p := range tc.want {
			want[p] = true
		}
		if diff := cmp.Diff(want, has); diff != "" {
			t.Errorf("%s (- want, + got):\n%s", name, diff)
		}
	}
}

func TestRetire(t *testing.T) {
	group := func(n int) fleet.Group { return fleet.Group{1: byte(n >> 8), 7: byte(n)} }
	own := func(epoch uint64, from, to int) (out []Own) {
		for n := from; n <= to; n++ {
			out = append(out, Own{epoch, uint64(n), group(n)})
		}
		return out
	}
	live := func(groups ...int) map[fleet.Group]bool {
		out := map[fleet.Group]bool{}
		for _, n := range groups {
			out[group(n)] = true
		}
		return out
	}
	for name, tc := range map[string]struct {
		own      []Own
		live     map[fleet.Group]bool
		standing fleet.Floor
		want     fleet.Floor
		pays     bool
	}{
		"few": {own(1, 1, 20), live(), fleet.Floor{}, fleet.Floor{Epoch: 1, Seq: 21}, false},
		"many, some below the floor stay": {
			own(1, 1, 80), live(3, 70, 80), fleet.Floor{}, fleet.Floor{Epoch: 1, Seq: 80, Keep: []fleet.Group{group(3), group(70)}}, true,
		},
		"over two epochs": {append(own(1, 1, 40), own(7, 1, 40)...), live(), fleet.Floor{}, fleet.Floor{Epoch: 7, Seq: 41}, true},
		"it never falls": {
			own(1, 1, 80), live(5), fleet.Floor{Epoch: 2, Seq: 9, Keep: []fleet.Group{group(5), group(6)}},
			fleet.Floor{Epoch: 2, Seq: 9, Keep: []fleet.Group{group(5)}}, true,
		},
		"a live one is below the standing floor": {own(1, 5, 5), live(5), fleet.Floor{Epoch: 1, Seq: 9}, fleet.Floor{Epoch: 1, Seq: 9, Keep: []fleet.Group{group(5)}}, true},
		"in need fewer pay":                      {own(1, 1, 2100), live(append(numbers(9, 400), numbers(409, 2100)...)...), fleet.Floor{}, fleet.Floor{Epoch: 1, Seq: 409, Keep: groups(group, 9, 400)}, true},
	} {
		tc.want.Kind = fleet.KindFact
		floor, pays := Retire(fleet.KindFact, tc.own, tc.live, tc.standing)
		if diff := cmp.Diff(tc.want, floor); diff != "" || pays != tc.pays {
			t.Errorf("%s: pays %v (- want, + got):\n%s", name, pays, diff)
		}
	}
	floor, _ := Retire(fleet.KindFact, own(1, 1, 2000), live(numbers(100, 2000)...), fleet.Floor{})
	if len(floor.Keep) > fleet.MaxKeep || floor.Seq != 100 {
		t.Errorf("a floor over what it can keep: %d groups, %d", len(floor.Keep), floor.Seq)
	}
	odd := own(1, 1, 4000)
	var half []int
	for n := 1; n <= 4000; n += 2 {
		half = append(half, n)
	}
	floor, pays := Retire(fleet.KindFact, odd, live(half...), fleet.Floor{})
	if len(floor.Keep) != fleet.MaxKeep || floor.Seq != 2*fleet.MaxKeep+1 || !pays {
		t.Errorf("every other one is live: %d groups below %d, pays %v", len(floor.Keep), floor.Seq, pays)
	}
	if _, err := fleet.DecodeFloor(&fleet.Record{Kind: fleet.KindFloor, Key: fleet.FloorKey(fleet.KindFact), Body: floor.Encode()}); err != nil {
		t.Errorf("the largest floor does not decode: %v", err)
	}
}

func numbers(from, to int) (out []int) {
	for n := from; n <= to; n++ {
		out = append(out, n)
	}
	return out
}

func groups(of func(int) fleet.Group, from, to int) (out []fleet.Group) {
	for n := from; n <= to; n++ {
		out = append(out, of(n))
	}
	return out
}

// TestLiveCommands: a stop goes with its own go and never before it, and nothing goes that others could miss.
func TestLiveCommands(t *testing.T) {
	own := func(n int, c fleet.Command) OwnCommand {
		return OwnCommand{Own{1, uint64(n), fleet.Group{7: byte(n)}}, c}
	}
	withdraw := fleet.Command{Rollout: checkout, Verb: fleet.Withdraw, ID: commandID(9)}
	for name, tc := range map[string]struct {
		own    []OwnCommand
		needed []fleet.Digest
		live   []int
	}{
		"a stop in force":                        {[]OwnCommand{own(1, pause(1, ""))}, nil, []int{1}},
		"a stop and its go":                      {[]OwnCommand{own(1, pause(1, "")), own(2, resume(2, commandID(1)))}, nil, nil},
		"a go said twice":                        {[]OwnCommand{own(1, pause(1, "")), own(2, resume(2, commandID(1))), own(3, resume(3, commandID(1)))}, nil, nil},
		"a stop that would be said again":        {[]OwnCommand{own(1, pause(1, "")), own(2, resume(2, commandID(1)))}, []fleet.Digest{commandID(1)}, []int{1, 2}},
		"a go for another's stop":                {[]OwnCommand{own(1, pause(1, "")), own(2, resume(2, commandID(1), commandID(50)))}, nil, []int{2}},
		"a go for a stop that is not held (yet)": {[]OwnCommand{own(2, resume(2, commandID(1)))}, nil, []int{2}},
		"the end of a rollout":                   {[]OwnCommand{own(1, withdraw)}, nil, []int{1}},
	} {
		want := map[fleet.Group]bool{}
		for _, n := range tc.live {
			want[fleet.Group{7: byte(n)}] = true
		}
		if diff := cmp.Diff(want, LiveCommands(tc.own, tc.needed)); diff != "" {
			t.Errorf("%s (- want, + got):\n%s", name, diff)
		}
	}
}

// TestRetiredStopsStayLifted: whatever part of the records somebody has heard, in whatever order, the floor puts no
// lifted stop in force again: a view that obeys it has none that the view without it had not.
func TestRetiredStopsStayLifted(t *testing.T) {
	lifted := 0
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 6))
		var all []OwnCommand
		for n := range 2 + r.IntN(12) {
			c := pause(n, "")
			if n > 0 && r.IntN(2) == 0 {
				c = resume(n, commandID(r.IntN(n)))
				if r.IntN(3) == 0 {
					c.Lifts = append(c.Lifts, commandID(r.IntN(n)))
				}
			}
			all = append(all, OwnCommand{Own{1, uint64(n), fleet.Group{7: byte(n)}}, c})
		}
		live := LiveCommands(all, nil)
		without, with := []fleet.Command{}, []fleet.Command{}
		for _, c := range all {
			if r.IntN(4) > 0 { // heard
				without = append(without, c.Command)
				if live[c.Group] {
					with = append(with, c.Command)
				}
			}
		}
		before := Stops(without)
		for _, stop := range Stops(with) {
			if !slices.ContainsFunc(before, func(c fleet.Command) bool { return c.ID == stop.ID }) {
				t.Fatalf("seed %d: stop %s is in force again", seed, stop.ID.Short())
			}
		}
		for _, c := range all {
			if c.Verb == fleet.Pause && !live[c.Group] {
				lifted++
				if slices.ContainsFunc(Stops(commandsOf(all)), func(s fleet.Command) bool { return s.ID == c.ID }) {
					t.Fatalf("seed %d: a stop in force was retired", seed)
				}
			}
		}
	}
	if lifted == 0 {
		t.Error("vacuous: no stop was ever retired")
	}
}

func commandsOf(own []OwnCommand) (out []fleet.Command) {
	for _, c := range own {
		out = append(out, c.Command)
	}
	return out
}
