// SPDX-License-Identifier: Apache-2.0

package sequencer

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// sizes prints the stages as name:members/concurrency, with -tolerance where there is one.
func sizes(p *Plan) string {
	var out []string
	for _, s := range p.Stages {
		one := fmt.Sprintf("%s:%d/%d", s.Name, len(s.Members), s.MaxConcurrency)
		if s.Tolerance > 0 {
			one += fmt.Sprintf("-%d", s.Tolerance)
		}
		out = append(out, one)
	}
	return strings.Join(out, " ")
}

func labelled(n int, label string, m []fleet.Member) []fleet.Member {
	for i := range m[:n] {
		k, v, _ := strings.Cut(label, "=")
		m[i].Labels = map[string]string{k: v}
	}
	return m
}

func TestCompileStages(t *testing.T) {
	regions := append(labelled(4, "region=eu", members(4)), member("us-1", "region=us"), member("us-2", "region=us"), member("ap-1"))
	for _, tc := range []struct {
		name, strategy string
		targets        []fleet.Member
		want           string
		warnings       []string
	}{
		{"automatic, one target: one stage", "", members(1), "canary:1/1", nil},
		{"automatic, two", "", members(2), "canary:1/1 few:1/1", nil},
		{"automatic, four: 1, 1, 2", "", members(4), "canary:1/1 few:1/1 half:2/1", nil},
		{"automatic, a hundred: 1, 10, 50, 39", "", members(100), "canary:1/1 few:10/3 half:50/13 rest:39/10", nil},
		{"automatic, with labelled canaries", "", labelled(2, "ring=canary", members(10)), "canary:2/1 few:1/1 half:5/2 rest:2/1", nil},
		{"automatic, paced", "{maxConcurrency: 2, maxUnavailable: 1}", members(4), "canary:1/1-1 few:1/1-1 half:2/2-1", nil},
		{"all at once", "{type: AllAtOnce}", members(7), "all:7/7", nil},
		{"all at once, tolerating", "{type: AllAtOnce, maxUnavailable: 20%}", members(9), "all:9/9-1", nil},
		{"concurrency rounds up, tolerance down", "{maxConcurrency: 25%, maxUnavailable: 10%, stages: [{name: one}]}", members(13), "one:13/4-1", nil},
		{"concurrency of 1% is one", "{maxConcurrency: 1%, maxUnavailable: 99%, stages: [{name: one}]}", members(3), "one:3/1-2",
			[]string{"spec.strategy.stages[0].maxUnavailable: 2 is not below maxConcurrency 1: failed clusters keep their places until they give up"}},
		{"concurrency is at most the stage", "{maxConcurrency: 50, stages: [{name: one}]}", members(3), "one:3/3", nil},
		{"a stage's pacing goes before the strategy's", "{maxConcurrency: 1, maxUnavailable: 0, stages: [{name: one, maxConcurrency: 3, maxUnavailable: 2}]}", members(5), "one:5/3-2", nil},
		{"the first stage that takes it", "stages: [{name: canary, names: [c-02]}, {name: eu, matchLabels: {region: eu}}, {name: others}]", regions,
			"canary:1/1 eu:3/1 others:3/1", []string{"spec.strategy.stages[1] (eu): c-02 also matches canary and stays there (the first stage that takes it)"}},
		{"everyone, too late for many", `stages: [{name: eu, matchLabels: {region: eu}}, {name: all, names: ["*"]}]`, regions,
			"eu:4/1 all:3/1", []string{"spec.strategy.stages[1] (all): 4 members also match eu and stay there (the first stage that takes them): c-01, c-02, c-03, c-04"}},
		{"what matches none is in rest", "stages: [{name: eu, matchLabels: {region: eu}}, {name: us, matchLabels: {region: us}}]", regions, "eu:4/1 us:2/1 rest:1/1",
			[]string{`spec.strategy: 1 targets match no stage and go to the last stage "rest": ap-1`}},
		{"a rest of one's own", "stages: [{name: eu, matchLabels: {region: eu}}, {name: rest, maxConcurrency: 3}]", regions, "eu:4/1 rest:3/3", nil},
		{"a last stage for all that is left, and nothing is", `stages: [{name: all, names: ["*"]}, {name: others}]`, regions, "all:7/2", nil},
		{"size takes some of what matches", "stages: [{name: few, matchLabels: {region: eu}, size: 1}, {name: eu, matchLabels: {region: eu}}, {name: others}]", regions, "few:1/1 eu:3/1 others:3/1",
			[]string{"spec.strategy.stages[1] (eu): c-02 also matches few and stays there (the first stage that takes it)"}},
		{"size in percent of all targets, rounded up", "stages: [{name: few, size: 15%}, {name: more, size: 50%}, {name: others}]", members(10), "few:2/1 more:5/2 others:3/1", nil},
		{"size of more than there are", "stages: [{name: few, size: 50}]", members(10), "few:10/3", nil},
		{"expressions", "stages: [{name: eu, matchExpressions: [{key: region, operator: In, values: [eu]}]}, {name: none, matchExpressions: [{key: region, operator: DoesNotExist}]}, {name: others}]", regions, "eu:4/1 none:1/1 others:2/1", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := planOf(t, tc.strategy, tc.targets)
			if got := sizes(p); got != tc.want {
				t.Errorf("stages %s, want %s", got, tc.want)
			}
			if diff := cmp.Diff(tc.warnings, p.Warnings); diff != "" {
				t.Errorf("warnings (- want, + got):\n%s", diff)
			}
		})
	}
}

func TestCompileTimes(t *testing.T) {
	type times struct{ ready, soak, deadline time.Duration }
	for _, tc := range []struct {
		name, strategy string
		want           []times
	}{
		{"defaults", "stages: [{name: one}]", []times{{time.Minute, 0, 10 * time.Minute}}},
		{"automatic: only the canary soaks", "", []times{{time.Minute, 10 * time.Minute, 10 * time.Minute}, {time.Minute, 0, 10 * time.Minute}, {time.Minute, 0, 10 * time.Minute}}},
		{"automatic: a soak that was written is everybody's", "soak: 5m", []times{{time.Minute, 5 * time.Minute, 10 * time.Minute}, {time.Minute, 5 * time.Minute, 10 * time.Minute}, {time.Minute, 5 * time.Minute, 10 * time.Minute}}},
		{"automatic: nobody soaks", "soak: 0s", []times{{time.Minute, 0, 10 * time.Minute}, {time.Minute, 0, 10 * time.Minute}, {time.Minute, 0, 10 * time.Minute}}},
		{"the stage's own before the strategy's", "{minReadyTime: 2m, soak: 1h, progressDeadline: 20m, stages: [{name: few, size: 1, soak: 0s, minReadyTime: 0s}, {name: others, progressDeadline: 10s}]}",
			[]times{{0, 0, 20 * time.Minute}, {2 * time.Minute, time.Hour, 10 * time.Second}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got []times
			for _, s := range planOf(t, tc.strategy, members(4)).Stages {
				got = append(got, times{s.MinReadyTime, s.Soak, s.ProgressDeadline})
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestCompileRefuses(t *testing.T) {
	const (
		concurrency = ": a number of at least 1, or 1% to 100%; to stop a rollout use suspend or 'flotilla pause'"
		unavailable = ": a number, or 0% to 99%; 100% would let every cluster fail"
		size        = ": a number of at least 1, or 1% to 100%"
		last        = "spec.strategy.stages: only the last stage may leave out matchLabels, matchExpressions, names and size (it takes all that is left)"
		empty       = ": no target is left for it; the stage would be empty. Remove it, or set the labels of the members"
		name        = ": a stage needs a name: small letters, digits and '-', at most 63"
	)
	many := "stages: ["
	for i := range 33 {
		many += fmt.Sprintf("{name: s%d, size: 1},", i)
	}
	for strategy, want := range map[string]string{
		"type: Canary":                            `spec.strategy.type: "Canary" is not Staged or AllAtOnce`,
		"{type: AllAtOnce, stages: [{name: a}]}":  "spec.strategy.stages: only with type: Staged; AllAtOnce has no stages",
		"{type: AllAtOnce, maxConcurrency: 3}":    "spec.strategy.maxConcurrency: AllAtOnce starts every cluster at once; for a limit use type: Staged with one stage",
		"{type: AllAtOnce, maxUnavailable: 100%}": "spec.strategy.maxUnavailable: 100%" + unavailable,
		many + "]":                                                          "spec.strategy.stages: 33 stages; at most 32",
		"maxConcurrency: 0":                                                 "spec.strategy.maxConcurrency: 0" + concurrency,
		"maxConcurrency: -1":                                                "spec.strategy.maxConcurrency: -1" + concurrency,
		"maxConcurrency: 0%":                                                "spec.strategy.maxConcurrency: 0%" + concurrency,
		"maxConcurrency: 250%":                                              "spec.strategy.maxConcurrency: 250%" + concurrency,
		"maxConcurrency: 101%":                                              "spec.strategy.maxConcurrency: 101%" + concurrency,
		`maxConcurrency: "5"`:                                               "spec.strategy.maxConcurrency: 5" + concurrency,
		"maxConcurrency: half":                                              "spec.strategy.maxConcurrency: half" + concurrency,
		"maxConcurrency: 05%":                                               "spec.strategy.maxConcurrency: 05%" + concurrency,
		"maxUnavailable: -1":                                                "spec.strategy.maxUnavailable: -1" + unavailable,
		"maxUnavailable: 100%":                                              "spec.strategy.maxUnavailable: 100%" + unavailable,
		"maxUnavailable: 150%":                                              "spec.strategy.maxUnavailable: 150%" + unavailable,
		"maxUnavailable: -5%":                                               "spec.strategy.maxUnavailable: -5%" + unavailable,
		"minReadyTime: -1s":                                                 "spec.strategy.minReadyTime: cannot be negative",
		"soak: -1s":                                                         "spec.strategy.soak: cannot be negative",
		"progressDeadline: 9s":                                              "spec.strategy.progressDeadline: at least 10s",
		"stages: [{size: 1}]":                                               `spec.strategy.stages[0].name: ""` + name,
		"stages: [{name: EU, size: 1}]":                                     `spec.strategy.stages[0].name: "EU"` + name,
		"stages: [{name: eu-, size: 1}]":                                    `spec.strategy.stages[0].name: "eu-"` + name,
		"stages: [{name: a, size: 1}, {name: a}]":                           `spec.strategy.stages[1]: a second stage named "a"`,
		"stages: [{name: rest, size: 1}]":                                   "spec.strategy.stages[0]: 'rest' is the stage for what no other takes; it has no selector",
		"stages: [{name: a}, {name: b, size: 1}]":                           last,
		"stages: [{name: rest}, {name: b}]":                                 last,
		"stages: [{name: a, size: 0}]":                                      "spec.strategy.stages[0].size: 0" + size,
		"stages: [{name: a, size: 0%}]":                                     "spec.strategy.stages[0].size: 0%" + size,
		"stages: [{name: a, size: 101%}]":                                   "spec.strategy.stages[0].size: 101%" + size,
		"stages: [{name: a, size: some}]":                                   "spec.strategy.stages[0].size: some" + size,
		"stages: [{name: a, maxConcurrency: 0}]":                            "spec.strategy.stages[0].maxConcurrency: 0" + concurrency,
		"stages: [{name: a, maxUnavailable: 200%}]":                         "spec.strategy.stages[0].maxUnavailable: 200%" + unavailable,
		"stages: [{name: a, progressDeadline: 1s}]":                         "spec.strategy.stages[0].progressDeadline: at least 10s",
		"stages: [{name: a, minReadyTime: -1s}]":                            "spec.strategy.stages[0].minReadyTime: cannot be negative",
		"stages: [{name: a, soak: -1s}]":                                    "spec.strategy.stages[0].soak: cannot be negative",
		"stages: [{name: us, matchLabels: {region: us}}, {name: b}]":        "spec.strategy.stages[0] (us)" + empty,
		"stages: [{name: a, size: 4}, {name: b, size: 1}]":                  "spec.strategy.stages[1] (b)" + empty,
		`stages: [{name: a, names: ["*"]}, {name: b, names: [c-01]}]`:       "spec.strategy.stages[1] (b)" + empty,
		"stages: [{name: a, names: [c-01], matchLabels: {region: eu}}]":     "spec.strategy.stages[0]: names and labels cannot be combined: give names, or matchLabels/matchExpressions (to narrow by both, label the members)",
		"stages: [{name: a, matchExpressions: [{key: x, operator: Like}]}]": `spec.strategy.stages[0]: selector: "Like" is not a valid label selector operator`,
		"{maxConcurrency: 0, stages: [{name: a, maxConcurrency: 1}]}":       "spec.strategy.maxConcurrency: 0" + concurrency,
		"{maxUnavailable: 150%, stages: [{name: a, size: 1, maxUnavailable: 0}, {name: b}]}":    "spec.strategy.maxUnavailable: 150%" + unavailable,
		"{progressDeadline: 0s, stages: [{name: a, size: 1}, {name: b, progressDeadline: 1m}]}": "spec.strategy.progressDeadline: at least 10s",
	} {
		t.Run(strategy[:min(len(strategy), 60)], func(t *testing.T) {
			refused(t, sealOf(t, byGit, strategy, members(4)), want)
		})
	}
	t.Run("no target", func(t *testing.T) { refused(t, sealOf(t, byGit, "", nil), "spec.targets: no member") })
}

func refused(t *testing.T, s Sealed, want string) {
	t.Helper()
	p, err := Compile(s, revA)
	if err == nil {
		t.Fatalf("compiled to %s, want a refusal", sizes(p))
	}
	if got := err.Error(); got != "shop/checkout: "+want {
		t.Errorf("got  %s\nwant shop/checkout: %s", got, want)
	}
	if fleet.KindOf(err) != fleet.Terminal || fleet.ReasonOf(err, "") != v1alpha1.ReasonInvalid {
		t.Errorf("kind %v, reason %q; want a terminal error of reason Invalid", fleet.KindOf(err), fleet.ReasonOf(err, ""))
	}
}

// TestRanksGolden fixes the ranks of one seal for ever: two agents that deal them differently would
// each be right and together break the window (P31). A change here needs a new CompileVersion.
func TestRanksGolden(t *testing.T) {
	s := sealOf(t, byGit, "stages: [{name: canary, size: 1}, {name: half, size: 50%}, {name: others}]", members(20))
	var b strings.Builder
	for _, rev := range []fleet.Revision{revA, revB} {
		p, err := Compile(s, rev)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "seal %s\nplan %s\n", s.Digest(), p.Digest)
		for _, stage := range p.Stages {
			fmt.Fprintf(&b, "  %s:", stage.Name)
			for _, m := range stage.Members {
				fmt.Fprintf(&b, " %s", m.Name)
			}
			b.WriteString("\n")
		}
	}
	golden(t, "ranks.golden", b.String())
}

// TestCompileDealsEveryoneOnce: whatever the strategy, each target has one place, and the plan does not
// depend on the order in which the roster names them.
func TestCompileDealsEveryoneOnce(t *testing.T) {
	var several int
	rapid.Check(t, func(t *rapid.T) {
		targets := members(rapid.IntRange(1, 40).Draw(t, "targets"))
		for i := range targets {
			targets[i].Labels = map[string]string{"region": rapid.SampledFrom([]string{"eu", "us", "ap"}).Draw(t, "region")}
		}
		var spec v1alpha1.FleetRolloutSpec
		spec.Strategy = drawStrategy(t)
		s, err := Seal(checkout, byGit, spec, targets)
		if err != nil {
			t.Fatal(err)
		}
		p, err := Compile(s, revA)
		if err != nil {
			t.Skip("refused: ", err)
		}
		seen := map[fleet.MemberID]bool{}
		for i, stage := range p.Stages {
			if len(stage.Members) == 0 || stage.MaxConcurrency < 1 || stage.MaxConcurrency > len(stage.Members) || stage.Tolerance < 0 {
				t.Fatalf("stage %s of %d: N %d, tolerance %d", stage.Name, len(stage.Members), stage.MaxConcurrency, stage.Tolerance)
			}
			for rank, m := range stage.Members {
				if place, ok := p.Place(m.ID); !ok || place != (Place{i, rank}) || seen[m.ID] {
					t.Fatalf("%s: place %v, want stage %d rank %d, once", m.Name, place, i, rank)
				}
				seen[m.ID] = true
			}
		}
		if len(seen) != len(targets) || p.Size() != len(targets) {
			t.Fatalf("%d of %d targets have a place, size %d", len(seen), len(targets), p.Size())
		}
		if len(p.Stages) > 1 {
			several++
		}
		shuffled := rapid.Permutation(targets).Draw(t, "order")
		again, err := Seal(checkout, byGit, spec, shuffled)
		if err != nil {
			t.Fatal(err)
		}
		q, err := Compile(again, revA)
		if err != nil || again.Digest() != s.Digest() || !cmp.Equal(p, q, cmp.AllowUnexported(Plan{})) {
			t.Fatalf("the order of the targets shows: %v", err)
		}
	})
	if several == 0 {
		t.Error("no plan had more than one stage")
	}
}

func drawStrategy(t *rapid.T) *v1alpha1.Strategy {
	if rapid.IntRange(0, 4).Draw(t, "automatic") == 0 {
		return nil
	}
	amount := func(what string, least int) *intstr.IntOrString {
		if rapid.Bool().Draw(t, what+" given") {
			return drawAmount(t, what, least)
		}
		return nil
	}
	s := &v1alpha1.Strategy{Pacing: v1alpha1.Pacing{MaxConcurrency: amount("N", 1), MaxUnavailable: amount("tolerance", 0)}}
	for i := range rapid.IntRange(0, 4).Draw(t, "stages") {
		stage := v1alpha1.Stage{Name: fmt.Sprintf("s%d", i), Pacing: v1alpha1.Pacing{MaxConcurrency: amount("N", 1), MaxUnavailable: amount("tolerance", 0)}}
		if rapid.Bool().Draw(t, "labels") {
			stage.MatchLabels = map[string]string{"region": rapid.SampledFrom([]string{"eu", "us", "ap"}).Draw(t, "selects")}
		} else {
			stage.Size = drawAmount(t, "size", 1)
		}
		s.Stages = append(s.Stages, stage)
	}
	return s
}

func drawAmount(t *rapid.T, what string, least int) *intstr.IntOrString {
	if rapid.Bool().Draw(t, what+" in percent") {
		return ptr(intstr.FromString(fmt.Sprintf("%d%%", rapid.IntRange(least, 99).Draw(t, what))))
	}
	return ptr(intstr.FromInt32(rapid.Int32Range(int32(least), 12).Draw(t, what)))
}
