// SPDX-License-Identifier: Apache-2.0

package preview

import (
	"fmt"
	"slices"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// FromAutomatic is where a setting comes from that nobody wrote and that depends on the fleet.
const FromAutomatic = "automatic stages"

// Effective are all settings of a rollout with where they come from. With a roster, stages that nobody wrote are
// among them, as the rollout would be compiled for it; without, they are named alone.
func Effective(r *v1alpha1.FleetRollout, roster []fleet.Member) ([]v1alpha1.Setting, error) {
	settings, err := r.Spec.Settings(r.Name)
	if err != nil {
		return nil, err
	}
	s := r.Spec.Strategy
	if s != nil && (s.Type == "AllAtOnce" || len(s.Stages) > 0) {
		return settings, nil
	}
	place := 1 + slices.IndexFunc(settings, func(s v1alpha1.Setting) bool { return s.Field == "spec.strategy.progressDeadline" })
	if roster == nil {
		return slices.Insert(settings, place, v1alpha1.Setting{
			Field: "spec.strategy.stages", Value: "canary, 10%, 50%, rest", From: FromAutomatic,
		}), nil
	}
	plan, err := Of(fleet.RolloutName{Namespace: r.Namespace, Name: r.Name}, r.Spec, roster)
	if err != nil {
		return nil, err
	}
	var stages []v1alpha1.Setting
	for _, stage := range plan.Stages {
		soak := v1alpha1.Duration{}
		soak.Duration.Duration = time.Duration(stage.SoakSeconds * float64(time.Second))
		stages = append(stages, v1alpha1.Setting{
			Field: fmt.Sprintf("spec.strategy.stages[%s]", stage.Name), From: FromAutomatic,
			Value: fmt.Sprintf("%s, %d at a time, soak %s", clusters(stage.Clusters), stage.MaxConcurrency, plainLength(soak)),
		})
	}
	return slices.Insert(settings, place, stages...), nil
}

// plainLength is the duration as it would be written.
func plainLength(d v1alpha1.Duration) string {
	raw, err := d.MarshalJSON()
	if err != nil || len(raw) < 2 {
		return d.Duration.Duration.String()
	}
	return string(raw[1 : len(raw)-1])
}
