// SPDX-License-Identifier: Apache-2.0

package preview

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// A rollout that writes out all the defaults is compiled to the same stages as one that says nothing.
func TestDefaultsAreTheCompilers(t *testing.T) {
	roster := rosterOf(t, "eu-1", "eu-2", "eu-3", "eu-4", "eu-5", "eu-6", "us-1", "us-2", "us-3")
	for _, strategy := range []string{
		"",
		"  strategy: {soak: 5m}\n",
		"  strategy: {type: AllAtOnce}\n",
		"  strategy: {type: AllAtOnce, minReadyTime: 5s, maxUnavailable: 50%}\n",
		"  strategy: {maxConcurrency: 2, stages: [{name: one, size: 1, soak: 1h}, {name: eu, matchLabels: {region: eu}, maxUnavailable: 1}]}\n",
		"  strategy: {minReadyTime: 0s, progressDeadline: 1h, stages: [{name: all}]}\n",
	} {
		r := rolloutOf(t, strategy)
		short, err := Of(name, r.Spec, roster)
		if err != nil {
			t.Fatal(err)
		}
		long, err := Of(name, *r.Spec.WithDefaults(r.Name), roster)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(short, long); diff != "" {
			t.Errorf("%s(-short +written out):\n%s", strategy, diff)
		}
	}
}

func TestEffectiveNamesAutomaticStages(t *testing.T) {
	stages := func(r *v1alpha1.FleetRollout, known bool) (out []string) {
		roster := rosterOf(t, "eu-1", "eu-2", "us-1")
		if !known {
			roster = nil
		}
		settings, err := Effective(r, roster)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range settings {
			if s.From == FromAutomatic {
				out = append(out, s.Field+" "+s.Value)
			}
		}
		return out
	}
	if diff := cmp.Diff([]string{"spec.strategy.stages canary, 10%, 50%, rest"}, stages(rolloutOf(t, ""), false)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{
		"spec.strategy.stages[canary] 1 cluster, 1 at a time, soak 10m",
		"spec.strategy.stages[few] 1 cluster, 1 at a time, soak 0s",
		"spec.strategy.stages[half] 1 cluster, 1 at a time, soak 0s",
	}, stages(rolloutOf(t, "  strategy: {minReadyTime: 5s}\n"), true)); diff != "" {
		t.Error(diff)
	}
	if got := stages(rolloutOf(t, "  strategy: {type: AllAtOnce}\n"), true); got != nil {
		t.Errorf("all at once has %v", got)
	}
}
