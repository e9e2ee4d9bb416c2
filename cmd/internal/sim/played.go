// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer"
)

// How a play ends.
const (
	// Complete: every target has it.
	Complete = "Complete"
	// CompleteWithExceptions: every stage was passed, and some targets do not have it.
	CompleteWithExceptions = "CompleteWithExceptions"
	// Halted: a stage was not passed, and never will be without a person or a newer release.
	Halted = "Halted"
)

// Played is how one seed of a play went. Times are seconds from the moment the release was there.
type Played struct {
	Seed uint64 `json:"seed"`
	End  string `json:"end"`
	// HaltedIn is the stage that was not passed.
	HaltedIn string `json:"haltedIn,omitempty"`
	// Seconds until the last milestone.
	Seconds float64 `json:"seconds"`
	// Members are the targets; Started, Succeeded and GaveUp how many of them did.
	Members   int `json:"members"`
	Started   int `json:"started"`
	Succeeded int `json:"succeeded"`
	GaveUp    int `json:"gaveUp"`
	// MostExposed is the most that had started and not succeeded at one time.
	MostExposed int `json:"mostExposed"`
	// FirstFailure is when a cluster first said that it failed, and StartedByFirstFailure how many had started by then.
	FirstFailure          *float64      `json:"firstFailureSeconds,omitempty"`
	StartedByFirstFailure int           `json:"startedByFirstFailure,omitempty"`
	Stages                []PlayedStage `json:"stages"`
	// Waits in the end: who does not have it, and why, the largest group of a stage first.
	Waits []Wait `json:"waits,omitempty"`
	// Turns of the production agent.
	Turns int      `json:"turns"`
	Story []string `json:"story,omitempty"`
}

// PlayedStage is how one stage went. A time that never came is left out.
type PlayedStage struct {
	Name      string `json:"name"`
	Clusters  int    `json:"clusters"`
	Started   int    `json:"started"`
	Succeeded int    `json:"succeeded"`
	Soaked    int    `json:"soaked"`
	GaveUp    int    `json:"gaveUp"`
	// FirstStart and LastStart of a cluster, and Passed: when enough had soaked for the next stage.
	FirstStart *float64 `json:"firstStartSeconds,omitempty"`
	LastStart  *float64 `json:"lastStartSeconds,omitempty"`
	Passed     *float64 `json:"passedSeconds,omitempty"`
}

func (s *PlayedStage) start(now float64) {
	s.Started++
	if s.FirstStart == nil {
		s.FirstStart = &now
	}
	s.LastStart = &now
}

// Wait is a group of members of one stage that do not have it for one reason.
type Wait struct {
	Stage   string       `json:"stage"`
	Because string       `json:"because"`
	Members []fleet.Name `json:"members"`
}

// end says how it ended, and asks every member that does not have it why.
func (p *playing) end(ctx context.Context, w *World) {
	out := &p.played
	out.End, out.Turns = Complete, w.turns
	if out.Succeeded < out.Members {
		out.End = CompleteWithExceptions
	}
	for i := range out.Stages {
		if out.Stages[i].Passed == nil {
			out.End, out.HaltedIn = Halted, out.Stages[i].Name
			break
		}
	}
	byID := map[fleet.MemberID]*member{}
	for _, m := range w.members {
		byID[m.Self.ID] = m
	}
	for i := range p.truth.plan.Stages {
		s := &p.truth.plan.Stages[i]
		var groups []Wait
		keys := map[string]int{}
		for j := range s.Members {
			m := byID[s.Members[j].ID]
			if p.said[m.Self.ID]&bit(fleet.Succeeded) != 0 {
				continue
			}
			because, key := p.why(ctx, m, s.Name)
			at, known := keys[key]
			if !known {
				at = len(groups)
				keys[key] = at
				groups = append(groups, Wait{Stage: s.Name, Because: because})
			}
			groups[at].Members = append(groups[at].Members, m.Self.Name)
		}
		for j := range groups {
			slices.Sort(groups[j].Members)
		}
		slices.SortStableFunc(groups, func(a, b Wait) int { return cmp.Compare(len(b.Members), len(a.Members)) })
		out.Waits = append(out.Waits, groups...)
	}
	out.Story = w.lines
}

// why a member does not have it, in the sentence that its agent would say, and what members with the same reason share.
func (p *playing) why(ctx context.Context, m *member, stage string) (because, key string) {
	if m.down > m.now {
		return stage + ": offline", "offline"
	}
	report, err := m.Turn(ctx, p.Name)
	if err != nil {
		return err.Error(), err.Error()
	}
	d := report.Decision
	key = fmt.Sprint(d.Reason, d.Gate, d.Missing, d.Failed, len(d.Stops))
	if d.Reason == sequencer.WaitsForSlot { // the sentence counts up to its own rank, and names whom it lacks
		key = fmt.Sprint(d.Reason)
	}
	return report.Because(), key
}

// Forecast is what many seeds of a play have in common.
type Forecast struct {
	Seeds int `json:"seeds"`
	// Complete, Exceptions and Halted of them; HaltedIn by stage.
	Complete   int            `json:"complete"`
	Exceptions int            `json:"completeWithExceptions"`
	Halted     int            `json:"halted"`
	HaltedIn   map[string]int `json:"haltedIn,omitempty"`
	// Seconds until the last milestone.
	Seconds Spread `json:"seconds"`
	// MostExposed at one time, and those that had started when the first failure was said, at worst.
	MostExposed           int             `json:"mostExposed"`
	StartedByFirstFailure int             `json:"startedByFirstFailure,omitempty"`
	Stages                []ForecastStage `json:"stages"`
	// Worst seed: the one that gets least far, and of those the one that takes longest.
	Worst Played `json:"worst"`
}

// Spread of a time over the seeds: nil where it never comes.
type Spread struct {
	Median *float64 `json:"median"`
	Worst  *float64 `json:"worst"`
}

// ForecastStage is one stage over the seeds.
type ForecastStage struct {
	Name string `json:"name"`
	// Least and Most clusters in it: a stage of limited size draws its members by lot, and what is left differs.
	Least      int    `json:"leastClusters"`
	Most       int    `json:"mostClusters"`
	FirstStart Spread `json:"firstStartSeconds"`
	LastStart  Spread `json:"lastStartSeconds"`
	Passed     Spread `json:"passedSeconds"`
}

// Sum up some seeds, at least one.
func Sum(played []Played) Forecast {
	f := Forecast{Seeds: len(played), Worst: played[0]}
	for i := range played {
		one := &played[i]
		switch one.End {
		case Complete:
			f.Complete++
		case CompleteWithExceptions:
			f.Exceptions++
		case Halted:
			f.Halted++
			if f.HaltedIn == nil {
				f.HaltedIn = map[string]int{}
			}
			f.HaltedIn[one.HaltedIn]++
		}
		f.MostExposed = max(f.MostExposed, one.MostExposed)
		f.StartedByFirstFailure = max(f.StartedByFirstFailure, one.StartedByFirstFailure)
		if worse(one, &f.Worst) {
			f.Worst = *one
		}
	}
	f.Seconds = spread(played, func(p *Played) *float64 { return &p.Seconds })
	// Where the lots leave nobody for the stage of all the others, there is none.
	whole := slices.MaxFunc(played, func(a, b Played) int { return cmp.Compare(len(a.Stages), len(b.Stages)) })
	for i := range whole.Stages {
		f.Stages = append(f.Stages, forecast(whole.Stages[i].Name, played))
	}
	return f
}

// forecast of one stage, from the seeds that have it.
func forecast(name string, played []Played) ForecastStage {
	var with []PlayedStage
	for i := range played {
		for _, s := range played[i].Stages {
			if s.Name == name {
				with = append(with, s)
			}
		}
	}
	f := ForecastStage{
		Name: name, Least: with[0].Clusters,
		FirstStart: spread(with, func(s *PlayedStage) *float64 { return s.FirstStart }),
		LastStart:  spread(with, func(s *PlayedStage) *float64 { return s.LastStart }),
		Passed:     spread(with, func(s *PlayedStage) *float64 { return s.Passed }),
	}
	for i := range with {
		f.Least, f.Most = min(f.Least, with[i].Clusters), max(f.Most, with[i].Clusters)
	}
	if len(with) < len(played) {
		f.Least = 0
	}
	return f
}

// spread of a time. Never is later than any time; of an even number of seeds the median is the later one of the two.
func spread[T any](played []T, of func(*T) *float64) Spread {
	times := make([]*float64, len(played))
	for i := range played {
		times[i] = of(&played[i])
	}
	slices.SortFunc(times, func(a, b *float64) int {
		switch {
		case a == nil && b == nil:
			return 0
		case a == nil:
			return 1
		case b == nil:
			return -1
		}
		return cmp.Compare(*a, *b)
	})
	return Spread{Median: times[len(times)/2], Worst: times[len(times)-1]}
}

// worse than another: more stages left, fewer members that have it, more time.
func worse(a, b *Played) bool {
	left := func(p *Played) (n int) {
		for i := range p.Stages {
			if p.Stages[i].Passed == nil {
				n++
			}
		}
		return n
	}
	return cmp.Or(cmp.Compare(left(a), left(b)), cmp.Compare(b.Succeeded, a.Succeeded), cmp.Compare(a.Seconds, b.Seconds)) > 0
}
