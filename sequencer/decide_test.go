// SPDX-License-Identifier: Apache-2.0

package sequencer

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// TestWindow walks one stage of six, two at a time, one failure tolerated. Facts are given by rank, a
// letter each: . pending, > started, f failed, g gave up, G gave up and was removed, s succeeded, y yielded. want says the same way who
// may start (+), who waits (.) and who has moved ( ).
func TestWindow(t *testing.T) {
	for _, tc := range []struct{ facts, want string }{
		{"......", "++...."},
		{">>....", "  ...."},
		{"s>....", "  +..."},
		{"ss....", "  ++.."},
		{".s....", "+ +..."}, // rank 0 is late: it and one more
		{"..ss..", "++  .."}, // higher ranks that went first lift nobody: the two lowest may still start
		{"s.ss..", " +  +."}, // three below rank 4
		{"f>....", "  ...."}, // failed keeps its slot
		{"g>....", "  +..."}, // gave up frees it, within the tolerance
		{"gg....", "  +..."}, // but once: one of two counts
		{"ggs...", "   +.."},
		{"G.....", " ++..."}, // gave up and was removed: one place all the same
		{"y>....", "  +..."}, // left the plan
		{"yyyyy.", "     +"},
		{"sssss.", "     +"},
		{">sssss", "      "},
		{"ffffff", "      "},
	} {
		p := planOf(t, "{maxConcurrency: 2, maxUnavailable: 1, stages: [{name: one}]}", members(6))
		l := newLedger()
		for rank, c := range tc.facts {
			id := p.Stages[0].Members[rank].ID
			l.proven[id] = c == 'G'
			l.say(p, id, lives[unicode.ToLower(c)]...)
		}
		var got strings.Builder
		for _, m := range p.Stages[0].Members {
			switch d := Decide(p, l, m.ID, at(0)); {
			case d.Reason == MayStart:
				got.WriteByte('+')
			case d.Reason == WaitsForSlot:
				got.WriteByte('.')
			default:
				got.WriteByte(' ')
			}
		}
		if got.String() != tc.want {
			t.Errorf("%q: got %q, want %q", tc.facts, got.String(), tc.want)
		}
	}
}

// lives of a member so far, by a letter each.
var lives = map[rune][]fleet.FactKind{
	'.': nil,
	'>': {fleet.Accepted, fleet.Started},
	'f': {fleet.Accepted, fleet.Started, fleet.Failed},
	'g': {fleet.Accepted, fleet.Started, fleet.Failed, fleet.GaveUp},
	's': {fleet.Accepted, fleet.Started, fleet.Succeeded},
	'r': {fleet.Accepted, fleet.Started, fleet.Failed, fleet.Succeeded}, // after a retry
	'#': {fleet.Accepted, fleet.Started, fleet.Succeeded, fleet.Soaked},
	'!': {fleet.Accepted, fleet.Started, fleet.Succeeded, fleet.Degraded},
	'?': {fleet.Accepted, fleet.Started, fleet.Succeeded, fleet.Soaked, fleet.Degraded},
	'c': {fleet.Succeeded}, // carried over
	'C': {fleet.Succeeded, fleet.Soaked},
	'y': {fleet.Accepted, fleet.Yielded},
}

func TestGate(t *testing.T) {
	for _, tc := range []struct {
		tolerance        int
		facts            string
		open             bool
		have, left, need int
		missing, failed  int
	}{
		{0, "....", false, 0, 0, 4, 4, 0},
		{0, "###s", false, 3, 0, 4, 1, 0}, // succeeded is not soaked
		{0, "####", true, 4, 0, 4, 0, 0},
		{0, "###y", true, 4, 1, 4, 0, 0},
		{0, "yyyy", false, 4, 4, 4, 0, 0}, // nobody ran anything
		{0, "###g", false, 3, 0, 4, 1, 1}, // gave up is not counted
		{1, "###g", true, 3, 0, 3, 1, 1},  // the tolerance pays for it
		{1, "##gg", false, 2, 0, 3, 2, 2},
		{1, "##yg", true, 3, 1, 3, 1, 1},
		{1, "##y.", true, 3, 1, 3, 1, 0},
		{3, "yyy.", false, 3, 3, 1, 1, 0}, // enough by number, no real success
		{3, "#...", true, 1, 0, 1, 3, 0},
		{4, "....", false, 0, 0, 1, 4, 0}, // a tolerance of all still wants one
		{9, "yyyy", false, 4, 4, 1, 0, 0},
		{0, "CCCC", true, 4, 0, 4, 0, 0},
		{0, "?##?", true, 4, 0, 4, 0, 0}, // sickness closes no gate; it takes the permit away
	} {
		p := planOf(t, fmt.Sprintf("{maxUnavailable: %d, stages: [{name: one}]}", tc.tolerance), members(4))
		l := newLedger()
		for rank, c := range tc.facts {
			l.say(p, p.Stages[0].Members[rank].ID, lives[c]...)
		}
		g := gate(p, &p.Stages[0], l)
		got := []any{g.open, g.have, g.left, g.need, len(g.missing), len(g.failed)}
		want := []any{tc.open, tc.have, tc.left, tc.need, tc.missing, tc.failed}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("tolerance %d, %s: open, have, left, need, missing, failed (- want, + got):\n%s", tc.tolerance, tc.facts, diff)
		}
	}
}

// TestGateOfMoreSuccesses: who left fills the gate, and stands for no success, however many are asked for.
func TestGateOfMoreSuccesses(t *testing.T) {
	for _, tc := range []struct {
		minSuccess int
		facts      string
		open       bool
	}{
		{0, "#yyy", true}, // a plan that nobody compiled still asks for one
		{1, "#yyy", true},
		{2, "#yyy", false},
		{2, "##yy", true},
		{2, "#ssy", false},
		{4, "###y", false},
		{4, "####", true},
	} {
		p := planOf(t, "{stages: [{name: one}]}", members(4))
		if got := p.Stages[0].MinSuccess; got != MinSuccess {
			t.Fatalf("Compile gives minSuccess %d", got)
		}
		p.Stages[0].MinSuccess = tc.minSuccess
		l := newLedger()
		for rank, c := range tc.facts {
			l.say(p, p.Stages[0].Members[rank].ID, lives[c]...)
		}
		if g := gate(p, &p.Stages[0], l); g.open != tc.open {
			t.Errorf("minSuccess %d, %s: open %v", tc.minSuccess, tc.facts, g.open)
		}
	}
}

// TestDecisions has every reason once, with its sentence.
func TestDecisions(t *testing.T) {
	const strategy = "{maxConcurrency: 1, stages: [{name: canary, names: [c-01]}, {name: few, names: [c-02, c-03]}, {name: others}]}"
	p := planOf(t, strategy, members(10))
	id := func(name string) fleet.MemberID { return member(name).ID }
	few := p.Stages[1].Members
	for _, tc := range []struct {
		name    string
		facts   map[string]rune
		more    []fleet.Command
		self    fleet.MemberID
		verdict Verdict
		reason  Reason
		because string
	}{
		{"first of the canary", nil, nil, id("c-01"), Go, MayStart, "canary: may start (rank 1 of 1)"},
		{"started", map[string]rune{"c-01": '>'}, nil, id("c-01"), Go, HasStarted, "canary: started (rank 1 of 1)"},
		{"failed, and trying again", map[string]rune{"c-01": 'f'}, nil, id("c-01"), Go, HasStarted, "canary: started (rank 1 of 1)"},
		{"succeeded", map[string]rune{"c-01": 's'}, nil, id("c-01"), Done, HasSucceeded, "canary: succeeded"},
		{"succeeded after a retry", map[string]rune{"c-01": 'r'}, nil, id("c-01"), Done, HasSucceeded, "canary: succeeded"},
		{"carried over", map[string]rune{"c-01": 'c'}, nil, id("c-01"), Done, HasSucceeded, "canary: succeeded"},
		{"gave up", map[string]rune{"c-01": 'g'}, nil, id("c-01"), Out, HasGivenUp, "canary: gave up; runs its last good release"},
		{"yielded", map[string]rune{"c-01": 'y'}, nil, id("c-01"), Out, HasYielded, "canary: left the plan before it started"},
		{"a stranger", nil, nil, id("c-99"), Out, NotTargeted, "the rollout is not for this member"},
		{"waits for the canary", map[string]rune{"c-01": 's'}, nil, id("c-02"), Wait, WaitsForStage, "few: waits for stage canary (0 of 1 soaked, 1 needed): missing c-01"},
		{"the canary failed", map[string]rune{"c-01": 'f'}, nil, id("c-02"), Wait, WaitsForStage, "few: waits for stage canary (0 of 1 soaked, 1 needed): missing c-01; failed c-01"},
		{"the canary left", map[string]rune{"c-01": 'y'}, nil, id("c-02"), Wait, WaitsForStage, "few: waits for stage canary (0 of 1 soaked, 1 left the plan; nobody has really succeeded yet, and one must)"},
		{"the next stage's turn", map[string]rune{"c-01": '#'}, nil, few[0].ID, Go, MayStart, "few: may start (rank 1 of 2)"},
		{"the slot is taken", map[string]rune{"c-01": '#', string(few[0].Name): '>'}, nil, few[1].ID, Wait, WaitsForSlot,
			fmt.Sprintf("few: waits for a slot (0 of 1 successes below rank 2): missing %s", few[0].Name)},
		{"a gate further back", map[string]rune{"c-01": '#', "c-02": '#', "c-03": 'y'}, nil, p.Stages[2].Members[0].ID, Go, MayStart, "others: may start (rank 1 of 7)"},
		{"two missing", map[string]rune{"c-01": '#'}, nil, id("c-04"), Wait, WaitsForStage,
			fmt.Sprintf("others: waits for stage few (0 of 2 soaked, 2 needed): missing %s, %s", few[0].Name, few[1].Name)},
		{"paused", map[string]rune{"c-01": '#'}, []fleet.Command{pause(1, "looks odd")}, few[0].ID, Hold, Stopped, `few: paused: "looks odd"`},
		{"paused twice, without a word", map[string]rune{"c-01": '#'}, []fleet.Command{pause(1, "b"), pause(2, ""), pause(3, "b")}, few[0].ID, Hold, Stopped, `few: paused: "b", "no reason given"`},
		{"paused, and not ready to go anyway", nil, []fleet.Command{pause(1, "x")}, id("c-02"), Wait, WaitsForStage, "few: waits for stage canary (0 of 1 soaked, 1 needed): missing c-01"},
		{"paused after its start", map[string]rune{"c-01": '>'}, []fleet.Command{pause(1, "x")}, id("c-01"), Go, HasStarted, "canary: started (rank 1 of 1)"},
		{"resumed", nil, []fleet.Command{pause(1, "x"), resume(2, commandID(1))}, id("c-01"), Go, MayStart, "canary: may start (rank 1 of 1)"},
		{"resumed, heard the other way round", nil, []fleet.Command{resume(2, commandID(1)), pause(1, "x")}, id("c-01"), Go, MayStart, "canary: may start (rank 1 of 1)"},
		{"a go lifts what it names", nil, []fleet.Command{pause(1, "x"), pause(2, "y"), resume(3, commandID(1))}, id("c-01"), Hold, Stopped, `canary: paused: "y"`},
		{"a go that names nothing", nil, []fleet.Command{pause(1, "x"), resume(2)}, id("c-01"), Hold, Stopped, `canary: paused: "x"`},
		{"sick after its success", map[string]rune{"c-01": '?'}, nil, few[0].ID, Hold, Sick, "few: held because stage canary is unhealthy after its success: c-01"},
		{"sick, and lifted", map[string]rune{"c-01": '?'}, []fleet.Command{resume(1, milestone{p.Digest, id("c-01"), fleet.Degraded}.record())}, few[0].ID, Go, MayStart, "few: may start (rank 1 of 2)"},
		{"the sick one itself is done", map[string]rune{"c-01": '?'}, nil, id("c-01"), Done, HasSucceeded, "canary: succeeded"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := newLedger()
			for name, c := range tc.facts {
				l.say(p, id(name), lives[c]...)
			}
			l.commands = tc.more
			d := Decide(p, l, tc.self, at(0))
			if d.Verdict != tc.verdict || d.Reason != tc.reason || d.Because() != tc.because {
				t.Errorf("got  %s %d %q\nwant %s %d %q", d.Verdict, d.Reason, d.Because(), tc.verdict, tc.reason, tc.because)
			}
		})
	}
}

func TestLongListsAreCut(t *testing.T) {
	p := planOf(t, "stages: [{name: most, size: 9}, {name: last}]", members(10))
	d := Decide(p, newLedger(), p.Stages[1].Members[0].ID, at(0))
	if want := "and 4 more"; !strings.Contains(d.Because(), want) || len(d.Missing) != 9 {
		t.Errorf("%d missing: %s", len(d.Missing), d.Because())
	}
}

// TestSickToleratesAsManyAsTheStage: maxUnavailable pays for later sickness too, stage by stage.
func TestSickToleratesAsManyAsTheStage(t *testing.T) {
	p := planOf(t, "stages: [{name: first, size: 4, maxUnavailable: 1}, {name: second}]", members(6))
	for facts, want := range map[string]Reason{"##??": Sick, "###?": MayStart, "##!?": Sick, "####": MayStart} {
		l := newLedger()
		for rank, c := range facts {
			kinds := append(slices.Clone(lives[c]), fleet.Soaked)
			l.say(p, p.Stages[0].Members[rank].ID, kinds...)
		}
		if d := Decide(p, l, p.Stages[1].Members[0].ID, at(0)); d.Reason != want {
			t.Errorf("%s: %s", facts, d.Because())
		}
		if got := Permitted(p, l); got != (want == MayStart) {
			t.Errorf("%s: Permitted %v", facts, got)
		}
	}
}

func TestTallies(t *testing.T) {
	p := planOf(t, "stages: [{name: first, size: 8, maxUnavailable: 4}, {name: second, size: 1}, {name: third}]", members(10))
	l := newLedger()
	for rank, c := range "#s>fgy?." {
		l.say(p, p.Stages[0].Members[rank].ID, lives[c]...)
	}
	name := func(rank int) fleet.Name { return p.Stages[0].Members[rank].Name }
	got := Tallies(p, l)
	want := map[MemberState]int{Complete: 1, Soaking: 1, Progressing: 1, HasFailed: 2, LeftPlan: 1, IsDegraded: 1, Pending: 1}
	if diff := cmp.Diff(want, got[0].Counts); diff != "" {
		t.Errorf("counts (- want, + got):\n%s", diff)
	}
	if got[0].Succeeded() != 3 || !got[0].Open || got[0].Passed || got[1].Open || got[2].Open {
		t.Errorf("succeeded %d, open %v passed %v, then %v, %v", got[0].Succeeded(), got[0].Open, got[0].Passed, got[1].Open, got[2].Open)
	}
	if diff := cmp.Diff([][]fleet.Name{{name(3), name(4), name(6)}, {name(1), name(2)}}, [][]fleet.Name{got[0].Trouble, got[0].Awaited}); diff != "" {
		t.Errorf("trouble and awaited (- want, + got):\n%s", diff)
	}
	l.say(p, name2id(p, name(1)), fleet.Soaked)
	l.say(p, name2id(p, name(2)), fleet.Succeeded, fleet.Soaked)
	if got := Tallies(p, l); !got[0].Passed || !got[1].Open || got[1].Passed || got[2].Open {
		t.Errorf("after two more: passed %v, then open %v passed %v, then open %v", got[0].Passed, got[1].Open, got[1].Passed, got[2].Open)
	}
}

// TestLaterStageMayPassFirst: who carries over can finish a stage that has not begun; that opens nothing.
func TestLaterStageMayPassFirst(t *testing.T) {
	p := planOf(t, "stages: [{name: first, size: 1}, {name: second, size: 1}, {name: third}]", members(3))
	l := newLedger()
	l.say(p, p.Stages[1].Members[0].ID, lives['C']...)
	got := Tallies(p, l)
	if got[1].Open || !got[1].Passed || got[2].Open {
		t.Errorf("second open %v passed %v, third open %v", got[1].Open, got[1].Passed, got[2].Open)
	}
	if d := Decide(p, l, p.Stages[2].Members[0].ID, at(0)); d.Gate != "first" {
		t.Errorf("third: %s", d.Because())
	}
}

func name2id(p *Plan, name fleet.Name) fleet.MemberID {
	for _, s := range p.Stages {
		for _, m := range s.Members {
			if m.Name == name {
				return m.ID
			}
		}
	}
	return ""
}

// drawPlan is a small plan with stages of any size, pace and tolerance.
func drawPlan(t *rapid.T) *Plan {
	var stages []string
	total := 0
	for i := range rapid.IntRange(1, 4).Draw(t, "stages") {
		size := rapid.IntRange(1, 5).Draw(t, "size")
		total += size
		stages = append(stages, fmt.Sprintf("{name: s%d, size: %d, maxConcurrency: %d, maxUnavailable: %d}", i, size,
			rapid.IntRange(1, 3).Draw(t, "N"), rapid.IntRange(0, 2).Draw(t, "tolerance")))
	}
	return planOf(t, "stages: ["+strings.Join(stages, ", ")+"]", members(total))
}

// drawLives gives each member of the plan a life that the rules allow.
func drawLives(t *rapid.T, p *Plan) *ledger {
	l := newLedger()
	for _, s := range p.Stages {
		for _, m := range s.Members {
			l.say(p, m.ID, lives[rapid.SampledFrom([]rune(".>fgsr###!?cCy")).Draw(t, string(m.Name))]...)
		}
	}
	return l
}

// drawPart of what a ledger holds: any facts of it may not have been heard yet.
func drawPart(t *rapid.T, whole *ledger) *ledger {
	part := newLedger()
	facts := make([]milestone, 0, len(whole.facts))
	for f := range whole.facts {
		facts = append(facts, f)
	}
	slices.SortFunc(facts, func(a, b milestone) int {
		return strings.Compare(fmt.Sprint(a.member, a.kind), fmt.Sprint(b.member, b.kind))
	})
	lost := rapid.IntRange(0, 4).Draw(t, "lost of 4")
	for _, f := range facts {
		if rapid.IntRange(0, 3).Draw(t, "heard") >= lost {
			part.facts[f] = true
		}
	}
	return part
}

// TestEvidenceIsMonotone: what one knows more opens, and never closes, gates and windows (I21). A
// member with few facts can only be too late. A proof may take a gate the one success that it needs, and nothing else.
func TestEvidenceIsMonotone(t *testing.T) {
	var opened, kept, removed, unproven int
	checks(t, 5, func(t *rapid.T) {
		p := drawPlan(t)
		more := drawLives(t, p)
		fewer := drawPart(t, more)
		drawProofs(t, p, more, fewer)
		for i, s := range p.Stages {
			for rank, m := range s.Members {
				var before, after Decision
				was, is := before.evidence(p, fewer, Place{i, rank}), after.evidence(p, more, Place{i, rank})
				if was && len(more.proven) > len(fewer.proven) {
					removed++
				}
				switch {
				case was && !is && after.Reason == WaitsForStage && after.Have >= after.Need && len(more.proven) > len(fewer.proven):
					unproven++ // minSuccess after a proof
					continue
				case was && !is:
					t.Fatalf("%s (stage %d, rank %d) may start with fewer facts, and with more: %s", m.Name, i, rank, after.Because())
				case was:
					kept++
				case is:
					opened++
				}
				if a, b := Decide(p, fewer, m.ID, at(0)), Decide(p, more, m.ID, at(0)); after.Reason != MayStart &&
					(a.Reason == MayStart || a.Verdict == Hold) && b.Verdict == Wait {
					t.Fatalf("%s: %s, and with more facts %s", m.Name, a.Because(), b.Because())
				}
			}
		}
	})
	if opened == 0 || kept == 0 || removed == 0 || unproven == 0 {
		t.Errorf("vacuous: %d opened by more facts, %d kept open, %d with more removed, %d lost their success", opened, kept, removed, unproven)
	}
}

// drawProofs against some members, of which the one who knows less has heard some.
func drawProofs(t *rapid.T, p *Plan, more, fewer *ledger) {
	for _, s := range p.Stages {
		for _, m := range s.Members {
			if rapid.IntRange(0, 5).Draw(t, "proof") == 0 {
				more.proven[m.ID] = true
				if rapid.Bool().Draw(t, "heard of it") {
					fewer.proven[m.ID] = true
				}
			}
		}
	}
}

// TestPermitOnlyWithholds: commands turn Go into Hold and back, nothing else.
func TestPermitOnlyWithholds(t *testing.T) {
	var held, lifted int
	checks(t, 10, func(t *rapid.T) {
		p := drawPlan(t)
		l := drawPart(t, drawLives(t, p))
		free := newLedger()
		free.join(l)
		drawCommands(t, p, l)
		for _, s := range p.Stages {
			for _, m := range s.Members {
				with, without := Decide(p, l, m.ID, at(0)), Decide(p, free, m.ID, at(0))
				changed := with.Verdict != without.Verdict || with.Reason != without.Reason
				switch {
				case !changed:
				case with.Verdict == Hold && with.Reason == Stopped && (without.Reason == MayStart || without.Reason == Sick):
					held++
				case without.Reason == Sick && with.Reason == MayStart:
					lifted++ // a go named the sickness
				default:
					t.Fatalf("%s: %s; without commands %s", m.Name, with.Because(), without.Because())
				}
			}
		}
		if stopped := len(Stops(l.Commands(checkout))) > 0; stopped && Permitted(p, l) {
			t.Fatal("a retry is permitted while a stop is in force")
		}
	})
	if held == 0 || lifted == 0 {
		t.Errorf("vacuous: %d held, %d lifted", held, lifted)
	}
}

// drawCommands has pauses, resumes of some of them, and resumes of sicknesses.
func drawCommands(t *rapid.T, p *Plan, l *ledger) {
	var stops []fleet.Digest
	for f := range l.facts {
		if f.kind == fleet.Degraded {
			stops = append(stops, f.record())
		}
	}
	slices.SortFunc(stops, func(a, b fleet.Digest) int { return strings.Compare(a.String(), b.String()) })
	if rapid.Bool().Draw(t, "healthy by word") {
		l.hear(resume(100, stops...))
	}
	for n := range rapid.IntRange(0, 5).Draw(t, "commands") {
		if rapid.Bool().Draw(t, "pause") {
			l.hear(pause(n, fmt.Sprint(n)))
			stops = append(stops, commandID(n))
		} else if len(stops) > 0 {
			from := rapid.IntRange(0, len(stops)-1).Draw(t, "lifts from")
			l.hear(resume(n, stops[from:]...))
		}
	}
	other := pause(99, "of another rollout")
	other.Rollout.Name = "basket"
	l.hear(other)
}

// TestEqualFactsEqualDecisions: the order in which facts and commands arrived shows nowhere (I17).
func TestEqualFactsEqualDecisions(t *testing.T) {
	several := 0
	checks(t, 5, func(t *rapid.T) {
		p := drawPlan(t)
		l := drawLives(t, p)
		drawCommands(t, p, l)
		other := newLedger()
		other.join(l)
		seed := rapid.Uint64().Draw(t, "seed")
		rand.New(rand.NewPCG(seed, seed)).Shuffle(len(other.commands), func(i, j int) {
			other.commands[i], other.commands[j] = other.commands[j], other.commands[i]
		})
		if len(Stops(l.commands)) > 1 {
			several++
		}
		for _, s := range p.Stages {
			for _, m := range s.Members {
				if diff := cmp.Diff(Decide(p, l, m.ID, at(0)), Decide(p, other, m.ID, at(1e12))); diff != "" {
					t.Fatalf("%s decides differently:\n%s", m.Name, diff)
				}
			}
		}
		if diff := cmp.Diff(Tallies(p, l), Tallies(p, other)); diff != "" {
			t.Fatalf("tallies differ:\n%s", diff)
		}
	})
	if several == 0 {
		t.Error("vacuous: never more than one stop")
	}
}
