// SPDX-License-Identifier: Apache-2.0

package sequencer

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// The simulation drives a handful of members through two seals and several revisions. Each decides with
// whatever subset of facts and commands it happens to have heard, in whatever order; its own it always
// has. Nothing in it is fair: views stay stale for ever, members vanish, fail, give up, leave, fall sick,
// and move on to a newer release in the middle of the older one. In some worlds one of them says two things in
// one position; nobody need have heard the proof. The checker knows all that was ever
// said and asserts the invariants (docs/rules.md) at every step, with its own, dumb counting.

// chooser makes the choices: a seeded generator, or rapid, which can shrink what it found.
type chooser interface{ below(n int) int }

type seeded struct{ *rand.Rand }

func (s seeded) below(n int) int { return s.IntN(n) }

type drawn struct{ *rapid.T }

// A range of its own would be drawn from its low end most of the time.
func (d drawn) below(n int) int { return int(rapid.Uint32().Draw(d.T, "") % uint32(n)) }

// decider and accepter are what a simulation tries: the package's own, or a planted bug.
type (
	decider  func(w *world, p *Plan, facts Facts, self fleet.MemberID) Decision
	accepter func(accepted, candidate Release, revision RevisionOrder) Acceptance
)

func asBuilt(_ *world, p *Plan, facts Facts, self fleet.MemberID) Decision {
	return Decide(p, facts, self, at(0))
}

// history of the payload: r2 and x both descend from r1, r3 from r2. x is the sibling branch.
var descends = map[[2]fleet.Revision]bool{
	{"r1", "r2"}: true, {"r1", "r3"}: true, {"r2", "r3"}: true, {"r1", "x"}: true,
}

func revisionOrder(accepted, candidate fleet.Revision) RevisionOrder {
	switch {
	case accepted == candidate:
		return Equal
	case descends[[2]fleet.Revision{accepted, candidate}]:
		return Newer
	case descends[[2]fleet.Revision{candidate, accepted}]:
		return Older
	}
	return Incomparable
}

// actor is one member.
type actor struct {
	id      fleet.MemberID
	view    *ledger
	plan    *Plan
	started []*Plan
	// lies: its word is worth nothing, and no rule can make it keep to one.
	lies bool
}

// world of a simulation.
type world struct {
	chooser
	decide decider
	accept accepter
	actors []*actor
	plans  []*Plan
	truth  *ledger
	// said is truth in the order it was said, to be heard in any other.
	said []any
	// hopeless revisions succeed nowhere.
	hopeless map[fleet.Revision]bool
	// issued tells on which plan its author was when it gave a command.
	issued map[fleet.Digest]fleet.Digest
	// violation is the first one found; closed the first evidence that more facts took away (I21).
	violation, closed string
	seen              counters
	moves             int
	mood
}

// mood of a world, each 0 to 3: how often releases follow each other, operators interfere, attempts go
// wrong, and members leave. Where all are high, nothing ever comes far enough to go wrong later.
type mood struct{ haste, fuss, trouble, flight int }

// counters keep the simulation from proving nothing.
type counters map[string]int

func newWorld(c chooser, decide decider, accept accepter) (*world, error) {
	w := &world{
		chooser: c, decide: decide, accept: accept,
		truth: newLedger(), hopeless: map[fleet.Revision]bool{}, issued: map[fleet.Digest]fleet.Digest{}, seen: counters{},
	}
	targets := members(1 + c.below(8))
	for _, m := range targets {
		w.actors = append(w.actors, &actor{id: m.ID, view: newLedger()})
	}
	if c.below(3) == 0 {
		w.actors[c.below(len(w.actors))].lies = true
	}
	for _, rev := range []fleet.Revision{"r1", "r2", "r3", "x"} {
		w.hopeless[rev] = c.below(5) == 0
	}
	w.mood = mood{haste: c.below(4), fuss: c.below(4), trouble: c.below(4), flight: c.below(4)}
	for number := range uint64(2) {
		spec := v1alpha1.FleetRolloutSpec{Strategy: w.strategy(len(targets))}
		s, err := Seal(checkout, Position{Author: fleet.AuthorGit, Number: number + 1}, spec, targets)
		if err != nil {
			return nil, err
		}
		for _, rev := range []fleet.Revision{"r1", "r2", "r3", "x"} {
			p, err := Compile(s, rev)
			if err != nil {
				return nil, err
			}
			w.plans = append(w.plans, p)
		}
	}
	for _, a := range w.actors { // everyone begins with r1 of the first seal
		a.plan = w.plans[0]
	}
	return w, nil
}

// strategy with one to three stages for n members.
func (w *world) strategy(n int) *v1alpha1.Strategy {
	pacing := func() v1alpha1.Pacing {
		return v1alpha1.Pacing{MaxConcurrency: ptr(intstr.FromInt(1 + w.below(3))), MaxUnavailable: ptr(intstr.FromInt(w.below(3)))}
	}
	s := &v1alpha1.Strategy{}
	for i := range 2 {
		if n < 2 || w.below(3) == 0 {
			break
		}
		size := 1 + w.below(min(n-1, 3))
		n -= size
		s.Stages = append(s.Stages, v1alpha1.Stage{Name: fmt.Sprintf("s%d", i), Size: ptr(intstr.FromInt(size)), Pacing: pacing()})
		if w.below(2) == 0 {
			s.Stages[i].MaxUnavailable = nil
		}
	}
	s.Stages = append(s.Stages, v1alpha1.Stage{Name: "last", Pacing: pacing()})
	return s
}

// run a number of moves, until something is violated.
func (w *world) run(moves int) {
	for w.moves = 0; w.moves < moves && w.violation == ""; w.moves++ {
		a := w.actors[w.below(len(w.actors))]
		switch w.below(12) {
		case 0, 1, 2:
			w.learn(a, func() { w.hear(a) })
		case 3:
			other := w.actors[w.below(len(w.actors))].view
			w.learn(a, func() { a.view.join(other) })
		case 4:
			if w.below(8) < w.haste {
				w.takeRelease(a, w.plans[w.below(len(w.plans))])
			}
		case 5:
			if w.below(12) < w.fuss {
				w.operate(a)
			}
		default:
			w.act(a)
		}
	}
}

// learn something: it takes no evidence away (I21), but for the one success that a gate needs of somebody who
// counts.
func (w *world) learn(a *actor, take func()) {
	before := w.decide(w, a.plan, a.view, a.id)
	take()
	after := w.decide(w, a.plan, a.view, a.id)
	if w.closed != "" || after.Verdict != Wait || before.Reason != MayStart && before.Verdict != Hold {
		return
	}
	place, _ := a.plan.Place(a.id)
	for j := range place.Stage {
		if successes(a.plan, j, a.view, a.view) < MinSuccess {
			w.seen["a canary that counts for nothing"]++
			return
		}
	}
	w.closed = fmt.Sprintf("move %d, %s: I21: %s, and with more facts %s", w.moves, a.id[len(a.id)-4:], before.Because(), after.Because())
}

// successes in a stage of a plan among the facts of one ledger, of members that count as far as another one knows.
func successes(p *Plan, stage int, facts, known *ledger) (n int) {
	for _, m := range p.Stages[stage].Members {
		if facts.facts[milestone{p.Digest, m.ID, fleet.Soaked}] && !known.proven[m.ID] {
			n++
		}
	}
	return n
}

// proof that a member said two things in one position.
type proof struct{ against fleet.MemberID }

// lie: two milestones of one plan in one position, and with them the proof.
func (w *world) lie(a *actor) {
	for _, kind := range []fleet.FactKind{fleet.Soaked, fleet.FactKind(2 + w.below(7))} {
		f := milestone{a.plan.Digest, a.id, kind}
		a.view.facts[f], w.truth.facts[f] = true, true
		w.said = append(w.said, f)
	}
	w.truth.proven[a.id] = true
	w.said = append(w.said, proof{a.id})
	w.seen["a lie"]++
}

// hear something, any one thing, that anyone ever said.
func (w *world) hear(a *actor) {
	if len(w.said) == 0 {
		return
	}
	switch s := w.said[w.below(len(w.said))].(type) {
	case milestone:
		a.view.facts[s] = true
	case fleet.Command:
		a.view.hear(s)
	case proof:
		a.view.proven[s.against] = true
	}
}

func (w *world) takeRelease(a *actor, p *Plan) {
	if w.accept(a.plan.Release, p.Release, revisionOrder(a.plan.Release.Revision, p.Release.Revision)) != Take {
		return
	}
	if p.Release.Number > a.plan.Release.Number {
		w.seen["a newer seal"]++
	}
	if a.plan.Release.Revision == "r1" && p.Release.Revision == "r3" {
		w.seen["a coalesced revision"]++
	}
	if has(a.view, a.plan.Digest, a.id, fleet.Started) && !has(a.view, a.plan.Digest, a.id, fleet.Succeeded) {
		w.seen["a release left in motion"]++
	}
	a.plan = p
}

// operate: somebody gives a command on the member's API. A go names the stops that are known there.
func (w *world) operate(a *actor) {
	c := pause(len(w.said), "")
	if stops := Stops(a.view.commands); len(stops) > 0 && w.below(2) == 0 || w.below(5) == 0 {
		c = resume(len(w.said))
		for _, s := range stops {
			c.Lifts = append(c.Lifts, s.ID)
		}
		for f := range a.view.facts {
			if f.kind == fleet.Degraded {
				c.Lifts = append(c.Lifts, f.record())
			}
		}
	}
	c.By = a.id
	w.issued[c.ID] = a.plan.Digest
	w.truth.hear(c)
	a.view.hear(c)
	w.said = append(w.said, c)
}

// act as the decision says.
func (w *world) act(a *actor) {
	d := w.decide(w, a.plan, a.view, a.id)
	w.equalFacts(a, d)
	hopeless := w.hopeless[a.plan.Release.Revision]
	if a.view.proven[a.id] && d.Verdict == Go {
		w.violate(a, "R1: goes on under proof")
	}
	switch {
	case a.lies && w.below(6) == 0:
		w.lie(a)
	case d.Verdict == Go && d.Reason == MayStart:
		w.start(a)
	case d.Verdict == Go && (hopeless || w.below(8) < w.trouble):
		w.say(a, fleet.Failed)
		if w.below(3) == 0 {
			w.say(a, fleet.GaveUp)
		}
	case d.Verdict == Go && w.below(3) > 0:
		w.say(a, fleet.Succeeded)
	case d.Verdict == Done && w.below(24) < w.trouble:
		w.say(a, fleet.Degraded)
	case d.Verdict == Done && w.below(2) == 0:
		w.say(a, fleet.Soaked)
	case d.Verdict == Wait && w.below(20) < w.flight:
		w.say(a, fleet.Yielded)
	case (d.Verdict == Wait || d.Verdict == Hold) && !hopeless && w.below(60) < w.flight:
		w.say(a, fleet.Succeeded)
		w.seen["a carry-over"]++
	case d.Verdict == Hold && d.Reason == Stopped:
		w.seen["a pause obeyed"]++
	case d.Verdict == Hold && d.Reason == Sick:
		w.seen["a sickness obeyed"]++
	}
}

// equalFacts: the same facts in another order give the same decision (I17).
func (w *world) equalFacts(a *actor, d Decision) {
	if len(a.view.commands) < 2 {
		return
	}
	other := &ledger{facts: maps.Clone(a.view.facts), commands: slices.Clone(a.view.commands), proven: a.view.proven}
	slices.Reverse(other.commands)
	if again := w.decide(w, a.plan, other, a.id); !reflect.DeepEqual(d, again) {
		w.violate(a, "I17: %s; in another order %s", d.Because(), again.Because())
	}
}

func (w *world) violate(a *actor, format string, args ...any) {
	if w.violation == "" {
		w.violation = fmt.Sprintf("move %d, %s on %s of seal %d: ", w.moves, a.id[len(a.id)-4:], a.plan.Release.Revision, a.plan.Release.Number) + fmt.Sprintf(format, args...)
	}
}

// say a milestone of the own plan; the checker looks at it first.
func (w *world) say(a *actor, k fleet.FactKind) {
	own := func(k fleet.FactKind) bool { return has(w.truth, a.plan.Digest, a.id, k) }
	switch {
	case a.lies:
	case k == fleet.Started && own(fleet.Yielded), k == fleet.Yielded && own(fleet.Started):
		w.violate(a, "I12: started and yielded")
	case own(fleet.GaveUp) && k != fleet.GaveUp:
		w.violate(a, "R5: %s after GaveUp", k)
	case k == fleet.GaveUp && own(fleet.Succeeded):
		w.violate(a, "R5: GaveUp after success")
	}
	f := milestone{a.plan.Digest, a.id, k}
	if a.view.facts[f] {
		return
	}
	a.view.facts[f], w.truth.facts[f] = true, true
	w.said = append(w.said, f)
	place, _ := a.plan.Place(a.id)
	if k == fleet.Yielded && place.Stage == 0 && len(a.plan.Stages) > 1 {
		w.seen["a yield in the first stage"]++
	}
	if k == fleet.GaveUp && w.count(a.plan, place.Stage, fleet.GaveUp) > a.plan.Stages[place.Stage].Tolerance {
		w.seen["more gave up than is tolerated"]++
	}
}

// proven liars of a stage that said none of the milestones.
func (w *world) proven(p *Plan, stage int, kinds ...fleet.FactKind) (n int) {
	for _, m := range p.Stages[stage].Members {
		said := func(k fleet.FactKind) bool { return w.truth.facts[milestone{p.Digest, m.ID, k}] }
		if w.truth.proven[m.ID] && !slices.ContainsFunc(kinds, said) {
			n++
		}
	}
	return n
}

// liars in the world.
func (w *world) liar(id fleet.MemberID) bool {
	return slices.ContainsFunc(w.actors, func(a *actor) bool { return a.lies && a.id == id })
}

// count the members of a stage that said any of the milestones.
func (w *world) count(p *Plan, stage int, kinds ...fleet.FactKind) (n int) {
	for _, m := range p.Stages[stage].Members {
		if slices.ContainsFunc(kinds, func(k fleet.FactKind) bool { return w.truth.facts[milestone{p.Digest, m.ID, k}] }) {
			n++
		}
	}
	return n
}

// start, and look at every rule that a start can break.
func (w *world) start(a *actor) {
	place, _ := a.plan.Place(a.id)
	if a.lies {
		w.say(a, fleet.Started)
		return
	}
	commands := a.view.Commands(checkout)
	for _, stop := range commands {
		if stop.Verb == fleet.Pause && !slices.ContainsFunc(commands, func(c fleet.Command) bool {
			return c.Verb == fleet.Resume && slices.Contains(c.Lifts, stop.ID)
		}) {
			w.violate(a, "I16: starts under an un-lifted stop")
		}
	}
	for j := range place.Stage {
		s := &a.plan.Stages[j]
		if settled := w.count(a.plan, j, fleet.Soaked, fleet.Yielded) + w.proven(a.plan, j, fleet.Soaked, fleet.Yielded); settled < len(s.Members)-s.Tolerance {
			w.violate(a, "I2: starts in stage %d, and in stage %d %d of %d have soaked or left (tolerance %d)", place.Stage, j, settled, len(s.Members), s.Tolerance)
		}
		if successes(a.plan, j, w.truth, a.view) < MinSuccess {
			w.violate(a, "I13: starts in stage %d, and in stage %d nobody succeeded", place.Stage, j)
		}
		if w.proven(a.plan, j) > 0 {
			w.seen["a start behind a stage with a liar"]++
		}
	}
	for _, earlier := range a.started {
		if !below(earlier.Release, a.plan.Release) {
			w.violate(a, "I14: starts %s of seal %d after %s of seal %d", a.plan.Release.Revision, a.plan.Release.Number, earlier.Release.Revision, earlier.Release.Number)
		}
	}
	a.started = append(a.started, a.plan)
	w.say(a, fleet.Started)
	w.motion(a, place.Stage)
	if place.Stage > 0 {
		w.seen["a start behind a gate"]++
	}
	if place.Rank >= a.plan.Stages[place.Stage].MaxConcurrency {
		w.seen["a start behind the window"]++
	}
}

func below(a, b Release) bool {
	return a.Number <= b.Number && a != b && (a.Revision == b.Revision || descends[[2]fleet.Revision{a.Revision, b.Revision}])
}

// motion is I1: at most N in motion, at most N + tolerance started without success.
func (w *world) motion(a *actor, stage int) {
	s := &a.plan.Stages[stage]
	var moving, exposed int
	for _, m := range s.Members {
		said := func(k fleet.FactKind) bool { return w.truth.facts[milestone{a.plan.Digest, m.ID, k}] }
		if said(fleet.Started) && !said(fleet.Succeeded) && !w.liar(m.ID) {
			exposed++
			if !said(fleet.GaveUp) {
				moving++
			}
		}
	}
	if moving > s.MaxConcurrency {
		w.violate(a, "I1: %d in motion in stage %s, at most %d", moving, s.Name, s.MaxConcurrency)
	}
	if exposed > s.MaxConcurrency+s.Tolerance {
		w.violate(a, "I1: %d started without success in stage %s, at most %d + %d", exposed, s.Name, s.MaxConcurrency, s.Tolerance)
	}
}

// finish looks at what only the end shows: I4, how far a release came that succeeds nowhere (a liar can say that it
// did: a gate that needs nobody else is open to it, I11), and I21.
func (w *world) finish() {
	defer func() {
		if w.violation == "" {
			w.violation = w.closed
		}
	}()
	for _, p := range w.plans {
		if !w.hopeless[p.Release.Revision] || w.violation != "" || slices.ContainsFunc(w.actors, func(a *actor) bool { return a.lies }) {
			continue
		}
		a := &actor{id: p.Stages[0].Members[0].ID, plan: p}
		for i, s := range p.Stages {
			touched := w.count(p, i, fleet.Started)
			if i == 0 && touched > s.MaxConcurrency+s.Tolerance || i > 0 && touched > 0 {
				w.violate(a, "I4: a release that fails everywhere touched %d clusters of stage %s", touched, s.Name)
			}
			if i == 0 && touched > 0 {
				w.seen["a release that fails everywhere"]++
			}
		}
	}
}

// TestSafety runs many seeds; each of the invariants holds in every one of them.
func TestSafety(t *testing.T) {
	total := counters{}
	for seed := range uint64(2000) {
		w, err := newWorld(seeded{rand.New(rand.NewPCG(seed, 1))}, asBuilt, Accept)
		if err != nil {
			t.Fatal(err)
		}
		w.run(300)
		w.finish()
		if w.violation != "" {
			t.Fatalf("seed %d: %s", seed, w.violation)
		}
		for k, n := range w.seen {
			total[k] += n
		}
	}
	for _, k := range []string{"a start behind a stage with a liar", "a canary that counts for nothing"} {
		if total[k] < 5 {
			t.Errorf("vacuous: %s was seen %d times", k, total[k])
		}
	}
	for _, k := range []string{
		"a newer seal", "a coalesced revision", "a release left in motion", "a carry-over", "a pause obeyed",
		"a sickness obeyed", "a yield in the first stage", "more gave up than is tolerated",
		"a start behind a gate", "a start behind the window", "a release that fails everywhere",
		"a lie",
	} {
		if total[k] < 100 {
			t.Errorf("vacuous: %s was seen %d times", k, total[k])
		}
	}
	t.Logf("seen: %v", total)
}

// TestSafetyShrinks is the same with rapid's choices, and where one fails,
// rapid prints the shortest story it finds.
func TestSafetyShrinks(t *testing.T) {
	total := counters{}
	checks(t, 10, func(t *rapid.T) {
		w, err := newWorld(drawn{t}, asBuilt, Accept)
		if err != nil {
			t.Fatal(err)
		}
		w.run(drawn{t}.below(300))
		w.finish()
		if w.violation != "" {
			t.Fatal(w.violation)
		}
		for k, n := range w.seen {
			total[k] += n
		}
	})
	for _, k := range []string{"a start behind a gate", "a start behind the window", "a pause obeyed"} {
		if total[k] == 0 {
			t.Errorf("vacuous: %s was never seen", k)
		}
	}
}

// TestLiveness: after any such mess, once everyone hears everything and the stops are lifted, the newest
// release goes as far as its rules let it: a stage is stuck only by as many as the window or its gate does
// not pay for (R5, I8).
func TestLiveness(t *testing.T) {
	var whole, stuck int
	for seed := range uint64(500) {
		w, err := newWorld(seeded{rand.New(rand.NewPCG(seed, 2))}, asBuilt, Accept)
		if err != nil {
			t.Fatal(err)
		}
		w.run(150)
		last := w.plans[6] // r3 of the second seal
		w.hopeless = nil
		calm(w, last)
		open := true
		for i, s := range last.Stages {
			gaveUp := w.count(last, i, fleet.GaveUp)
			moved := w.count(last, i, fleet.Started, fleet.Yielded, fleet.Succeeded) + w.proven(last, i, fleet.Started, fleet.Yielded, fleet.Succeeded)
			if want := len(s.Members); open && max(0, gaveUp-s.Tolerance) < s.MaxConcurrency && moved != want {
				t.Errorf("seed %d: stage %s: %d of %d moved, %d gave up (N %d, tolerance %d)", seed, s.Name, moved, want, gaveUp, s.MaxConcurrency, s.Tolerance)
			}
			settled := w.count(last, i, fleet.Soaked, fleet.Yielded) + w.proven(last, i, fleet.Soaked, fleet.Yielded)
			earned := successes(last, i, w.truth, w.truth)
			open = open && settled >= len(s.Members)-s.Tolerance && earned > 0
		}
		if w.violation != "" {
			t.Errorf("seed %d: %s", seed, w.violation)
		}
		if open {
			whole++
		} else {
			stuck++
		}
	}
	if whole < 100 || stuck < 20 {
		t.Errorf("vacuous: %d rollouts came through, %d were stuck", whole, stuck)
	}
}

// calm ends the lies, and lets everybody who can take the release hear everything, lifts the stops, and ends every attempt
// in success or in GaveUp.
func calm(w *world, p *Plan) {
	lift := resume(len(w.said))
	for _, s := range w.said {
		switch s := s.(type) {
		case fleet.Command:
			lift.Lifts = append(lift.Lifts, s.ID)
		case milestone:
			lift.Lifts = append(lift.Lifts, s.record())
		}
	}
	w.truth.hear(lift)
	for _, a := range w.actors {
		a.lies = false
		a.plan = p // the ones that hold the sibling branch too: an operator saw to it
		a.started = nil
	}
	for range 4*len(w.actors) + 4 {
		for _, a := range w.actors {
			a.view.join(w.truth)
			d := w.decide(w, a.plan, a.view, a.id)
			switch {
			case d.Reason == MayStart:
				w.start(a)
			case d.Reason == HasStarted && w.below(8) < w.trouble:
				w.say(a, fleet.Failed)
				w.say(a, fleet.GaveUp)
			case d.Reason == HasStarted:
				w.say(a, fleet.Succeeded)
			case d.Verdict == Done:
				w.say(a, fleet.Soaked)
			}
		}
	}
}
