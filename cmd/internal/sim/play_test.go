// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// staged in three, the last with as many as there are.
const staged = `{strategy: {maxConcurrency: 3, minReadyTime: 20s, progressDeadline: 5m, soak: 1m, stages: [{name: canary, size: 2}, {name: few, size: 8}, {name: rest}]}}`

// playOf a spec without targets, for an invented fleet.
func playOf(t testing.TB, clusters int, spec string, weather Weather) *Play {
	t.Helper()
	p := &Play{Name: fleet.RolloutName{Namespace: "shop", Name: "web"}, Weather: weather}
	if err := yaml.UnmarshalStrict([]byte(spec), &p.Spec); err != nil {
		t.Fatal(err)
	}
	p.Spec.Targets = v1alpha1.Targets{ClusterSelector: v1alpha1.ClusterSelector{Names: []string{"*"}}}
	var err error
	if p.Fleet, err = Invent(clusters); err != nil {
		t.Fatal(err)
	}
	p.Targets = p.Fleet
	return p
}

// fine weather, but for the network.
func fine() Weather { return Weather{RTT: 50 * time.Millisecond, Loss: 0.01} }

func playAll(t *testing.T, p *Play, seeds int) []Played {
	t.Helper()
	played, err := p.RunAll(t.Context(), 0, seeds, nil)
	if err != nil {
		t.Fatal(err)
	}
	return played
}

func TestPlayOnAFineDay(t *testing.T) {
	for _, one := range playAll(t, playOf(t, 24, staged, fine()), 4) {
		if one.End != Complete || one.Succeeded != 24 || one.GaveUp != 0 || one.FirstFailure != nil || len(one.Waits) > 0 {
			t.Fatalf("seed %d: %+v", one.Seed, one)
		}
		if one.MostExposed < 1 || one.MostExposed > 3 {
			t.Errorf("seed %d: %d at work at once, at most 3", one.Seed, one.MostExposed)
		}
		var before float64
		for i, s := range one.Stages {
			// A gate opens when minReadyTime and soak are served, and nobody starts behind it before that.
			if *s.FirstStart < before || *s.Passed < *s.LastStart+80 {
				t.Errorf("seed %d, stage %d: %v to %v, passed %v; the one before was passed %v", one.Seed, i, *s.FirstStart, *s.LastStart, *s.Passed, before)
			}
			before = *s.Passed
		}
	}
}

func TestPlayWithMembersOffline(t *testing.T) {
	weather := fine()
	weather.Offline = 0.1
	halted := 0
	for _, one := range playAll(t, playOf(t, 24, staged, weather), 4) {
		if one.End != Halted || one.Succeeded >= 24 {
			t.Fatalf("seed %d: nobody is tolerated, and it ends %s", one.Seed, one.End)
		}
		away := 0
		for _, w := range one.Waits {
			if strings.HasSuffix(w.Because, ": offline") {
				away += len(w.Members)
			}
			if strings.HasPrefix(w.Because, "rest: waits for stage "+one.HaltedIn) {
				halted++
			}
		}
		if away != 2 {
			t.Errorf("seed %d: %d are offline at the end, of 2: %+v", one.Seed, away, one.Waits)
		}
	}
	if halted == 0 {
		t.Error("vacuous: nobody waits for the stage that is halted")
	}
	weather.OfflineFor = 3 * time.Hour
	for _, one := range playAll(t, playOf(t, 24, staged, weather), 4) {
		if one.End != Complete || one.Seconds < weather.OfflineFor.Seconds() {
			t.Errorf("seed %d: they are back after %s, and it ends %s after %v s", one.Seed, weather.OfflineFor, one.End, one.Seconds)
		}
	}
}

// TestPlayOfABadRelease: a release that fails everywhere stays with as many as its first stage tolerates and starts at once.
func TestPlayOfABadRelease(t *testing.T) {
	weather := fine()
	weather.Fail = 1
	for _, one := range playAll(t, playOf(t, 24, staged, weather), 4) {
		if one.End != Halted || one.HaltedIn != "canary" || one.Started != 2 || one.GaveUp != 2 || one.Succeeded != 0 {
			t.Fatalf("seed %d: %+v", one.Seed, one)
		}
		if one.FirstFailure == nil || *one.FirstFailure < 300 || one.StartedByFirstFailure != 2 {
			t.Errorf("seed %d: the first failure was said at %v, when %d had started", one.Seed, one.FirstFailure, one.StartedByFirstFailure)
		}
	}
}

func TestPlayOfASuspendedRollout(t *testing.T) {
	one := playAll(t, playOf(t, 6, `{suspend: true}`, fine()), 1)[0]
	if one.Started > 0 || one.End != Halted || !strings.Contains(one.Waits[0].Because, "spec.suspend is true") {
		t.Errorf("%+v", one)
	}
}

// TestIdleTurnsMatterNot: what is left out of a play for speed changes nothing that is told of it. The network is
// at once and loses nothing, so that both draw the same.
func TestIdleTurnsMatterNot(t *testing.T) {
	p := playOf(t, 24, `{strategy: {maxConcurrency: 3, maxUnavailable: 2, minReadyTime: 20s, soak: 1m, stages: [{name: canary, size: 3}, {name: few, size: 8}, {name: rest}]}}`,
		Weather{Offline: 0.05, Fail: 0.1, Slow: 0.1, ApplyTime: time.Minute})
	eager := *p
	eager.eager = true
	for seed := range uint64(3) {
		lazy, err := p.Run(t.Context(), seed, false)
		if err != nil {
			t.Fatal(err)
		}
		full, err := eager.Run(t.Context(), seed, false)
		if err != nil {
			t.Fatal(err)
		}
		if full.Turns <= lazy.Turns {
			t.Errorf("seed %d: %d turns, and %d of those who take all", seed, lazy.Turns, full.Turns)
		}
		full.Turns = lazy.Turns
		if diff := cmp.Diff(full, lazy); diff != "" {
			t.Errorf("seed %d: -all +those that matter:\n%s", seed, diff)
		}
	}
}

// TestPlaysRepeat: one seed, one play, however many are played beside it; another seed, another one.
func TestPlaysRepeat(t *testing.T) {
	weather := Weather{Offline: 0.1, OfflineFor: time.Hour, Fail: 0.1, Slow: 0.1, ApplyTime: time.Minute, RTT: 200 * time.Millisecond, Loss: 0.2}
	p := playOf(t, 24, staged, weather)
	all := playAll(t, p, 3)
	for seed := range uint64(3) {
		told, err := p.Run(t.Context(), seed, true)
		if err != nil {
			t.Fatal(err)
		}
		if len(told.Story) == 0 {
			t.Errorf("seed %d has no story", seed)
		}
		told.Story = nil
		if diff := cmp.Diff(all[seed], told); diff != "" {
			t.Errorf("seed %d: -among others +alone:\n%s", seed, diff)
		}
	}
	if cmp.Equal(all[0].Stages, all[1].Stages) {
		t.Error("two seeds play the same")
	}
}

func TestPlayEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := playOf(t, 50, staged, fine()).RunAll(ctx, 0, 3, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestPlaysThatMakeNoSense(t *testing.T) {
	for want, weather := range map[string]Weather{
		"more than 100%": {Offline: 0.6, Fail: 0.3, Slow: 0.2, ApplyTime: 1},
		"nobody plays":   {Offline: 1},
		"apply time":     {Slow: 0.1},
	} {
		if _, err := playOf(t, 3, staged, weather).Run(t.Context(), 0, false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", weather, err)
		}
	}
	p := playOf(t, 3, staged, fine())
	p.Targets = nil
	if err := p.Fault(); err == nil {
		t.Error("a play for nobody")
	}
}

func TestInvent(t *testing.T) {
	canary, eu := map[string]string{"ring": "canary"}, map[string]string{"region": "eu"}
	got, err := Invent(5, Group{Labels: canary, Members: 1}, Group{Labels: eu, Members: 2})
	if err != nil {
		t.Fatal(err)
	}
	want := []map[string]string{canary, eu, eu, {}, {}}
	ids := map[fleet.MemberID]bool{}
	for i, m := range got {
		ids[m.ID] = true
		if !maps.Equal(m.Labels, want[i]) {
			t.Errorf("%s: %v", m.Name, m.Labels)
		}
	}
	if len(ids) != 5 || !slices.IsSortedFunc(got, func(a, b fleet.Member) int { return strings.Compare(string(a.Name), string(b.Name)) }) {
		t.Errorf("%+v", got)
	}
	for _, wrong := range []struct {
		clusters int
		groups   []Group
	}{{0, nil}, {-1, nil}, {MostInvented + 1, nil}, {2, []Group{{eu, 3}}}, {2, []Group{{eu, 0}, {canary, 0}}}} {
		if _, err := Invent(wrong.clusters, wrong.groups...); err == nil {
			t.Errorf("%+v is invented", wrong)
		}
	}
}

func TestSum(t *testing.T) {
	at := func(s float64) *float64 { return &s }
	stage := func(name string, clusters int, passed *float64) PlayedStage {
		return PlayedStage{Name: name, Clusters: clusters, FirstStart: at(1), LastStart: at(2), Passed: passed}
	}
	played := []Played{
		{Seed: 1, End: Complete, Seconds: 10, Succeeded: 4, MostExposed: 2, Stages: []PlayedStage{stage("eu", 3, at(5)), stage("rest", 1, at(10))}},
		{Seed: 2, End: Halted, HaltedIn: "rest", Seconds: 8, Succeeded: 3, MostExposed: 3, StartedByFirstFailure: 2, Stages: []PlayedStage{stage("eu", 2, at(7)), stage("rest", 2, nil)}},
		{Seed: 3, End: Complete, Seconds: 9, Succeeded: 4, Stages: []PlayedStage{stage("eu", 4, at(6))}}, // the lots leave nobody for the rest
		{Seed: 4, End: CompleteWithExceptions, Seconds: 20, Succeeded: 3, Stages: []PlayedStage{stage("eu", 3, at(9)), stage("rest", 1, at(20))}},
	}
	f := Sum(played)
	if f.Seeds != 4 || f.Complete != 2 || f.Exceptions != 1 || f.Halted != 1 || f.HaltedIn["rest"] != 1 || f.Worst.Seed != 2 || f.MostExposed != 3 || f.StartedByFirstFailure != 2 {
		t.Errorf("%+v", f)
	}
	want := []ForecastStage{
		{Name: "eu", Least: 2, Most: 4, FirstStart: Spread{at(1), at(1)}, LastStart: Spread{at(2), at(2)}, Passed: Spread{at(7), at(9)}},
		{Name: "rest", Least: 0, Most: 2, FirstStart: Spread{at(1), at(1)}, LastStart: Spread{at(2), at(2)}, Passed: Spread{at(20), nil}},
	}
	if diff := cmp.Diff(want, f.Stages); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if *f.Seconds.Median != 10 || *f.Seconds.Worst != 20 {
		t.Errorf("%v, %v", *f.Seconds.Median, *f.Seconds.Worst)
	}
}

func BenchmarkPlay(b *testing.B) {
	p := playOf(b, 200, `{strategy: {maxConcurrency: 10%, soak: 10m, stages: [{name: canary, size: 5}, {name: few, size: 30}, {name: rest}]}}`, fine())
	for seed := uint64(0); b.Loop(); seed++ {
		if _, err := p.Run(b.Context(), seed, false); err != nil {
			b.Fatal(err)
		}
	}
}

// TestSharesAreWholeMembers: one at least where a share is not 0, and never more than there are.
func TestSharesAreWholeMembers(t *testing.T) {
	for _, c := range []struct {
		targets             int
		weather             Weather
		offline, fail, slow int
	}{
		{10, Weather{}, 0, 0, 0},
		{10, Weather{Offline: 0.01, Fail: 0.01, Slow: 0.01}, 1, 1, 1},
		{10, Weather{Offline: 0.14, Fail: 0.16}, 1, 2, 0},
		{3, Weather{Offline: 0.5, Fail: 0.5}, 2, 1, 0},
		{1, Weather{Fail: 0.01, Slow: 0.01}, 0, 1, 0},
	} {
		p := Play{Targets: make([]fleet.Member, c.targets), Weather: c.weather}
		if offline, fail, slow := p.Shares(); offline != c.offline || fail != c.fail || slow != c.slow {
			t.Errorf("of %d with %+v: %d, %d and %d, want %d, %d and %d", c.targets, c.weather, offline, fail, slow, c.offline, c.fail, c.slow)
		}
	}
}
