// SPDX-License-Identifier: Apache-2.0

package preview

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/cmd/internal/fleetrepo"
)

// Roster of these members, sorted by name. The error joins a [Fault] for each that cannot be used.
func Roster(members []Member) ([]fleet.Member, error) {
	var out []fleet.Member
	var faults []error
	seen := map[string]Where{}
	for i := range members {
		m := &members[i]
		member, err := fleetrepo.MemberOf(own(&m.FleetMember))
		for _, key := range []string{"name " + m.Name, "peerID " + m.Spec.PeerID} {
			if other, twice := seen[key]; twice && err == nil {
				err = fmt.Errorf("%s is in %s too", key, other)
			}
			seen[key] = m.Where
		}
		if err != nil {
			faults = append(faults, &Fault{m.Where, fmt.Errorf("FleetMember %s: %w", m.Name, err)})
			continue
		}
		out = append(out, member)
	}
	slices.SortFunc(out, func(a, b fleet.Member) int { return cmp.Compare(a.Name, b.Name) })
	return out, errors.Join(faults...)
}

// own takes off what an agent adds to its copies of members: no selector of the original sees it.
func own(m *v1alpha1.FleetMember) *v1alpha1.FleetMember {
	if _, copied := m.Labels[v1alpha1.LabelOrigin]; !copied {
		return m
	}
	m = m.DeepCopy()
	m.Labels = maps.Clone(m.Labels)
	delete(m.Labels, v1alpha1.LabelOrigin)
	return m
}
