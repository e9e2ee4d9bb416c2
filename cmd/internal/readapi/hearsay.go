// SPDX-License-Identifier: Apache-2.0

package readapi

import (
	"cmp"
	"slices"

	"github.com/flotilla-dev/flotilla/sequencer"
)

// reports of other zones about this plan, by zone.
func (v *picture) reports() []ZoneReport {
	var out []ZoneReport
	for i := range v.Reports {
		if u := &v.Reports[i]; u.Plan == v.Plan.Digest {
			out = append(out, ZoneReport{Zone: u.Zone, Clusters: u.Members, Failing: u.Failing, Time: when(u.Time)})
		}
	}
	slices.SortFunc(out, func(a, b ZoneReport) int { return cmp.Compare(a.Zone, b.Zone) })
	return out
}

// reported counts of a stage; nil where no other zone tells of it.
func (v *picture) reported(stage string) *Reported {
	var out Reported
	for i := range v.Reports {
		if v.Reports[i].Plan != v.Plan.Digest {
			continue
		}
		for _, s := range v.Reports[i].Stages {
			if s.Name != stage {
				continue
			}
			count := func(states ...sequencer.MemberState) (n int) {
				for _, state := range states {
					n += max(s.Counts[state.String()], 0)
				}
				return n
			}
			for _, n := range s.Counts {
				out.Clusters += max(n, 0)
			}
			out.Succeeded += count(sequencer.Soaking, sequencer.Complete, sequencer.IsDegraded)
			out.Progressing += count(sequencer.Progressing)
			out.Failed += count(sequencer.HasFailed)
			out.Degraded += count(sequencer.IsDegraded)
			out.Ineligible += count(sequencer.LeftPlan, sequencer.Removed)
		}
	}
	if out.Clusters == 0 {
		return nil
	}
	return &out
}
