// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer"
)

// ClockSkew is how far apart the clocks of two members may be before it is told that they contradict a rule.
const ClockSkew = 2 * time.Minute

// Check the evidence against all rules. The same evidence gives the same result, in whatever order it came.
func Check(e Evidence) Result {
	result := Result{Verdict: Kept, Members: len(e.Roster), Rules: rules()}
	for i := range result.Rules {
		result.Rules[i].Verdict = Kept
	}
	b := read(&e, &result)
	plans := b.plans()
	b.all = plans
	b.checkSeals()
	b.checkWriters(plans)
	rollouts := map[fleet.RolloutName]bool{}
	for name := range b.commands {
		rollouts[name] = true
	}
	for _, p := range plans {
		result.Plans++
		b.checkMilestones(p, plans)
		if p.Plan == nil {
			continue
		}
		result.Judged++
		rollouts[p.Rollout] = true
		for stage := range p.Stages {
			b.checkStage(p, stage)
		}
		b.checkHopeless(p)
	}
	b.checkOrder(plans)
	b.checkStops(plans)
	result.Rollouts = len(rollouts)
	return result
}

// unsure says why a milestone that is not here may have been said all the same, and been known to the member that
// acted on it; "" where it was not said. Who acted may be nobody.
func (b *book) unsure(p *plan, of, acted fleet.MemberID) Why {
	if b.retired(p, of) {
		return Retired
	}
	// What who left the roster said is kept by those who had heard it, and given to nobody: a store that was made anew lacks it.
	if !b.Complete[of] && (b.Zoned || !b.Views[acted] || !b.roster[of]) {
		return NotHeard
	}
	if b.lost(p, of) {
		return Lost
	}
	return ""
}

// retired says whether a member may have taken milestones of a plan out of the fleet's state: by a floor that does not
// keep the plan, unless the first thing that it says of any plan stands above that.
func (b *book) retired(p *plan, of fleet.MemberID) bool {
	accepted := p.said[of].first(fleet.Accepted)
	return slices.ContainsFunc(b.floors[of], func(f fleet.Floor) bool {
		above := accepted != nil && !accepted.at.before(position{f.Epoch, f.Seq})
		return f.Kind == fleet.KindFact && !slices.Contains(f.Keep, fleet.PlanGroup(p.digest)) && !above
	})
}

// checkMilestones of each member by themselves: what excludes what, and what comes after what.
func (b *book) checkMilestones(p *plan, plans []*plan) {
	for _, id := range slices.Sorted(maps.Keys(p.said)) {
		if b.removed[id] {
			continue // what it says counts for nothing, and that it lies is told
		}
		said := p.said[id]
		if p.Plan != nil {
			b.checkTarget(p, id, said)
		}
		b.checkExclusions(p, id, said)
		b.checkSequence(p, id, said)
		if w := said.first(fleet.Succeeded); w != nil && !said.has(fleet.Started) {
			b.checkCarryOver(p, id, w, plans)
		}
	}
}

func (b *book) checkTarget(p *plan, id fleet.MemberID, said *milestones) {
	if _, target := p.Place(id); target {
		return
	}
	for k, w := range said {
		if w != nil && fleet.FactKind(k) != fleet.Accepted {
			b.broken(ruleSealed, finding{plan: p, member: id, story: fmt.Sprintf("%s of a plan that is not for it", fleet.FactKind(k)), words: []*word{w}})
		}
	}
}

// exclusions: of the first and any of the others only one is ever said.
var exclusions = []struct {
	rule   int
	one    fleet.FactKind
	others []fleet.FactKind
	story  string
}{
	{ruleExclude, fleet.Yielded, []fleet.FactKind{fleet.Started, fleet.Succeeded, fleet.Soaked, fleet.GaveUp}, "it left the plan, and took part in it"},
	{ruleGaveUp, fleet.GaveUp, []fleet.FactKind{fleet.Succeeded, fleet.Soaked, fleet.Degraded}, "it gave up, and succeeded"},
}

func (b *book) checkExclusions(p *plan, id fleet.MemberID, said *milestones) {
	for _, x := range exclusions {
		one, other := said.first(x.one), said.first(x.others...)
		if one == nil {
			continue
		}
		b.result.check(x.rule)
		if other != nil {
			b.broken(x.rule, finding{plan: p, member: id, story: x.story, words: []*word{one, other}})
		}
	}
}

// sequences: the second milestone is said after the first one, and not without it.
var sequences = []struct {
	rule          int
	first, second fleet.FactKind
	// alone: the second may stand without the first.
	alone bool
}{
	{ruleEarned, fleet.Started, fleet.Succeeded, true},
	{ruleEarned, fleet.Succeeded, fleet.Soaked, false},
	{ruleEarned, fleet.Succeeded, fleet.Degraded, false},
	{ruleGaveUp, fleet.Started, fleet.GaveUp, false},
	{ruleGaveUp, fleet.Failed, fleet.GaveUp, false},
}

func (b *book) checkSequence(p *plan, id fleet.MemberID, said *milestones) {
	for _, s := range sequences {
		first, second := said.first(s.first), said.first(s.second)
		if second == nil || first == nil && s.alone {
			continue
		}
		b.result.check(s.rule)
		switch {
		case first != nil && second.at.before(first.at):
			b.broken(s.rule, finding{plan: p, member: id, story: fmt.Sprintf("it said %s before %s", s.second, s.first), words: []*word{second, first}})
		case first == nil:
			f := finding{plan: p, member: id, story: fmt.Sprintf("it said %s, and %s is not here", s.second, s.first), words: []*word{second}, absent: true}
			b.decide(s.rule, f, b.unsure(p, id, id), id)
		}
	}
	if p.Plan == nil {
		return
	}
	if place, target := p.Place(id); target {
		stage := &p.Stages[place.Stage]
		b.checkServed(p, id, service{said.first(fleet.Started), said.first(fleet.Succeeded), stage.MinReadyTime})
		b.checkServed(p, id, service{said.first(fleet.Succeeded), said.first(fleet.Soaked), stage.Soak})
	}
}

// service is a time that a member owes between two of its milestones.
type service struct {
	from, to *word
	least    time.Duration
}

// kind of the milestone, in its word.
func (w *word) kind() string { kind, _, _ := strings.Cut(w.what, " "); return kind }

// checkServed hints at a time that was not served, by the member's own wall clock.
func (b *book) checkServed(p *plan, id fleet.MemberID, s service) {
	if s.from == nil || s.to == nil || s.from.time == 0 || s.to.time == 0 {
		return
	}
	if served := time.Duration(s.to.time-s.from.time) * time.Second; served < s.least-ClockSkew {
		b.unjudged(ruleEarned, finding{
			plan: p, member: id, words: []*word{s.from, s.to}, lacks: []lack{{why: ByClocks, member: id}},
			story: fmt.Sprintf("by its own clock %s went by between %s and %s, of %s", served, s.from.kind(), s.to.kind(), s.least),
		})
	}
}

// decide between broken and not to be judged: by whether what is not here may have been said.
func (b *book) decide(rule int, f finding, why Why, of fleet.MemberID) {
	if why == "" {
		b.broken(rule, f)
		return
	}
	f.lacks = append(f.lacks, lack{why, of})
	b.unjudged(rule, f)
}

// checkCarryOver: a success without a start rests on an earlier success of the member (R1).
func (b *book) checkCarryOver(p *plan, id fleet.MemberID, w *word, plans []*plan) {
	b.result.check(ruleEarned)
	for _, other := range plans {
		if other == p || p.Plan != nil && other.Plan != nil && other.Rollout != p.Rollout {
			continue
		}
		if earlier := other.said[id].first(fleet.Succeeded, fleet.Soaked); earlier != nil && earlier.at.before(w.at) {
			return
		}
	}
	why := b.unsure(p, id, id)
	switch {
	case len(b.floors[id]) > 0:
		why = Retired // the earlier plan's milestones go first
	case why == "" && !b.outlasted(p, id, w):
		why = Lost // and its promise dropped them with this success
	}
	b.decide(ruleEarned, finding{plan: p, member: id, story: "it succeeded without a start, and had no success before", words: []*word{w}, absent: true}, why, id)
}

// checkStage looks at every start in one stage of a plan, and at how many stand there now.
func (b *book) checkStage(p *plan, stage int) {
	s := &p.Stages[stage]
	var moving, exposed motion
	for rank, m := range p.rows[stage] {
		start := m.said.first(fleet.Started)
		if start == nil || m.removed {
			continue
		}
		b.checkWindow(p, stage, rank, start)
		for gate := range stage {
			b.checkGate(p, gate, stage, start)
		}
		if !m.said.has(fleet.Succeeded, fleet.Soaked) {
			why := b.unsure(p, m.id, "")
			exposed.add(start, why)
			if !m.said.has(fleet.GaveUp) {
				moving.add(start, why)
			}
		}
	}
	b.result.check(ruleMotion)
	b.checkMotion(p, fmt.Sprintf("%%d in motion in stage %s, at most %d", s.Name, s.MaxConcurrency), moving, s.MaxConcurrency)
	b.checkMotion(p, fmt.Sprintf("%%d started without success in stage %s, at most %d + %d", s.Name, s.MaxConcurrency, s.Tolerance), exposed, s.MaxConcurrency+s.Tolerance)
}

// motion is who started and did not end it, as far as is known.
type motion struct {
	words []*word
	lacks []lack
}

func (m *motion) add(w *word, why Why) {
	m.words = append(m.words, w)
	if why != "" {
		m.lacks = append(m.lacks, lack{why, w.record.Writer})
	}
}

func (b *book) checkMotion(p *plan, story string, m motion, most int) {
	if len(m.words) <= most {
		return
	}
	f := finding{plan: p, story: fmt.Sprintf(story, len(m.words)), words: m.words, absent: true}
	if len(m.words)-len(m.lacks) > most {
		b.broken(ruleMotion, f)
		return
	}
	f.lacks = m.lacks
	b.unjudged(ruleMotion, f)
}

// tally of the members that a start rests on.
type tally struct {
	// have is what counts, real how many of them really soaked.
	have, real int
	// lacks are those that may count, and nobody here can tell.
	lacks []lack
	// disbelieved soaked, and are not believed any more.
	disbelieved []lack
}

// ever is a time after all that was said.
const ever = int64(1)<<62 - 1

// by says that a milestone was said by some time, as far as clocks tell.
func by(until int64, w *word) bool { return w != nil && (w.time == 0 || w.time <= until) }

// checkWindow is R2: of the lower ranks at least rank - N + 1 have succeeded, left, or given up where that is tolerated.
func (b *book) checkWindow(p *plan, stage, rank int, start *word) {
	s := &p.Stages[stage]
	need := rank - s.MaxConcurrency + 1
	if need <= 0 {
		return // nobody's word is needed
	}
	b.result.check(ruleWindow)
	judge := func(until int64) (missing int, t tally) {
		t = b.window(p, p.rows[stage][:rank], until, start.record.Writer, s.Tolerance)
		return need - t.have, t
	}
	f := finding{plan: p, member: start.record.Writer, words: []*word{start}, absent: true}
	missing, t := judge(ever)
	f.story = fmt.Sprintf("it started as rank %d of stage %s, and of the %d below it %d had ended, %d needed", rank+1, s.Name, rank, t.have, need)
	if b.judge(ruleWindow, f, missing, t.lacks) {
		return
	}
	if late, at := judge(start.time + int64(ClockSkew/time.Second)); start.time != 0 && late > len(at.lacks) {
		f.story = fmt.Sprintf("by their clocks it started as rank %d of stage %s before %d of those below it had ended; %d had", rank+1, s.Name, need, at.have)
		f.lacks = []lack{{why: ByClocks, member: start.record.Writer}}
		b.unjudged(ruleWindow, f)
	}
}

// judge what a start lacks: it is broken where even those who may have said it are too few. True says that it is told.
func (b *book) judge(rule int, f finding, missing int, lacks []lack) bool {
	switch {
	case missing <= 0:
		return false
	case missing > len(lacks):
		b.broken(rule, f)
	default:
		f.lacks = lacks
		b.unjudged(rule, f)
	}
	return true
}

func (b *book) window(p *plan, lower []standing, until int64, starter fleet.MemberID, tolerance int) (t tally) {
	gaveUp := 0
	for i := range lower {
		said := lower[i].said
		switch {
		case lower[i].removed, by(until, said.first(fleet.Succeeded)), by(until, said.first(fleet.Soaked)), by(until, said.first(fleet.Yielded)):
			t.have++
		case by(until, said.first(fleet.GaveUp)):
			gaveUp++
		case said.has(fleet.Succeeded, fleet.Soaked, fleet.Yielded, fleet.GaveUp): // said too late
		default:
			if why := b.unsure(p, lower[i].id, starter); why != "" {
				t.lacks = append(t.lacks, lack{why, lower[i].id})
			}
		}
	}
	t.have += min(gaveUp, tolerance)
	return t
}

// checkGate is R3 for one earlier stage: all but the tolerated have soaked or left, and one at least really soaked.
func (b *book) checkGate(p *plan, stage, starts int, start *word) {
	gate, own := &p.Stages[stage], &p.Stages[starts]
	b.result.check(ruleGate)
	b.result.check(ruleSuccess)
	need := len(gate.Members) - gate.Tolerance
	t := b.soaked(p, p.rows[stage], ever, start.record.Writer)
	f := finding{plan: p, member: start.record.Writer, words: []*word{start}, absent: true}
	f.story = fmt.Sprintf("it started in stage %s, and of the %d of stage %s %d had soaked or left, %d needed", own.Name, len(gate.Members), gate.Name, t.have, need)
	told := b.judge(ruleGate, f, need-t.have, t.lacks)
	f.story = fmt.Sprintf("it started in stage %s, and in stage %s nobody had really succeeded", own.Name, gate.Name)
	if b.judge(ruleSuccess, f, sequencer.MinSuccess-t.real, append(t.disbelieved, t.lacks...)) || told || start.time == 0 {
		return
	}
	until := start.time + int64(ClockSkew/time.Second)
	if at := b.soaked(p, p.rows[stage], until, start.record.Writer); need-at.have > len(at.lacks) {
		f.story = fmt.Sprintf("by their clocks it started in stage %s before %d of stage %s had soaked or left; %d had", own.Name, need, gate.Name, at.have)
		f.lacks = []lack{{why: ByClocks, member: start.record.Writer}}
		b.unjudged(ruleGate, f)
	}
}

func (b *book) soaked(p *plan, row []standing, until int64, starter fleet.MemberID) (t tally) {
	for i := range row {
		said := row[i].said
		switch {
		case row[i].removed:
			t.have++
			if said.has(fleet.Soaked) {
				t.disbelieved = append(t.disbelieved, lack{Disbelieved, row[i].id})
			}
		case by(until, said.first(fleet.Soaked)):
			t.have++
			t.real++
		case by(until, said.first(fleet.Yielded)):
			t.have++
		case said.has(fleet.Soaked, fleet.Yielded, fleet.GaveUp):
		default:
			if why := b.unsure(p, row[i].id, starter); why != "" {
				t.lacks = append(t.lacks, lack{why, row[i].id})
			}
		}
	}
	return t
}

// checkHopeless is I4: where nobody succeeded, nobody behind the first stage started, and in it no more than N + tolerance.
func (b *book) checkHopeless(p *plan) {
	var first, behind []*word
	var lacks []lack
	for i := range p.rows {
		for _, m := range p.rows[i] {
			said, start := m.said, m.said.first(fleet.Started)
			switch {
			case said.has(fleet.Succeeded, fleet.Soaked):
				return
			case m.removed, said.has(fleet.Yielded, fleet.GaveUp) && start == nil:
				continue
			case start != nil && i == 0:
				first = append(first, start)
			case start != nil:
				behind = append(behind, start)
			}
			if why := b.unsure(p, m.id, ""); why != "" {
				lacks = append(lacks, lack{why, m.id})
			}
		}
	}
	if len(first)+len(behind) == 0 {
		return
	}
	b.result.check(ruleHopeless)
	f := finding{plan: p, absent: true, lacks: lacks, words: slices.Concat(first, behind)}
	f.story = fmt.Sprintf("the release succeeded nowhere, and %d started in the first stage and %d behind it", len(first), len(behind))
	if most := p.Stages[0].MaxConcurrency + p.Stages[0].Tolerance; len(behind) == 0 && len(first) <= most {
		return
	}
	if len(lacks) > 0 {
		b.unjudged(ruleHopeless, f)
		return
	}
	b.broken(ruleHopeless, f)
}

// checkStops is I16, as far as one member's own words show it: its start after its own stop, and no go between.
func (b *book) checkStops(plans []*plan) {
	type own struct {
		rollout fleet.RolloutName
		member  fleet.MemberID
	}
	stops, goes := map[own][]command{}, map[fleet.Digest][]command{}
	for name, commands := range b.commands {
		for _, c := range commands {
			switch c.Verb {
			case fleet.Pause:
				stops[own{name, c.By}] = append(stops[own{name, c.By}], c)
			case fleet.Resume:
				for _, id := range c.Lifts {
					goes[id] = append(goes[id], c)
				}
			}
		}
	}
	for _, p := range plans {
		if p.Plan == nil || len(b.commands[p.Rollout]) == 0 {
			continue
		}
		for _, id := range slices.Sorted(maps.Keys(p.said)) {
			start := p.said[id].first(fleet.Started)
			if start == nil || b.removed[id] {
				continue
			}
			for _, stop := range stops[own{p.Rollout, id}] {
				if stop.word.at.before(start.at) {
					b.checkStop(p, start, stop, goes[stop.ID])
				}
			}
		}
	}
}

// checkStop: the member had given the stop before its start, and somebody had lifted it. When it heard another one's go, nobody says.
func (b *book) checkStop(p *plan, start *word, stop command, goes []command) {
	b.result.check(ruleStops)
	id, words := stop.By, []*word{stop.word, start}
	for _, c := range goes {
		if c.Rollout != stop.Rollout {
			continue // it lifts nothing here
		}
		if c.By != id || c.word.at.before(start.at) {
			return
		}
		words = append(words, c.word)
	}
	why := NotHeard
	retired := slices.ContainsFunc(b.floors[id], func(f fleet.Floor) bool {
		return f.Kind == fleet.KindCommand && stop.word.at.before(position{f.Epoch, f.Seq})
	})
	switch {
	case retired:
		why = Retired // its go went with the stop, which an older export has
	case b.Complete[id]:
		why = ""
	}
	b.decide(ruleStops, finding{plan: p, member: id, story: "it started under its own stop", words: words, absent: true}, why, id)
}

// step is one release that a member took.
type step struct {
	plan *plan
	word *word
	// starts: it was started, and not only accepted.
	starts bool
}

// taken are the releases of a member in the order in which it took them. Only what is said first of a plan tells when.
func taken(id fleet.MemberID, plans []*plan) []step {
	var out []step
	for _, p := range plans {
		said := p.said[id]
		accepted, started := said.first(fleet.Accepted), said.first(fleet.Started)
		if accepted != nil {
			out = append(out, step{p, accepted, false})
		}
		if started != nil {
			out = append(out, step{p, started, true})
		}
	}
	slices.SortFunc(out, func(x, y step) int {
		return cmp.Or(x.word.at.compare(y.word.at), cmp.Compare(x.word.id.String(), y.word.id.String()))
	})
	return out
}
