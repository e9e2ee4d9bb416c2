// SPDX-License-Identifier: Apache-2.0

package preview

import (
	"errors"
	"fmt"
	"slices"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/selection"
	"github.com/flotilla-dev/flotilla/specialize"
)

// Rendered is a payload for one member.
type Rendered struct {
	specialize.Manifest
	// Targeted says whether the rollout is for the member; Because why (not).
	Targeted bool
	Because  string
}

// Render the payload for a member of the roster, targeted or not.
func Render(p *Payload, roster []fleet.Member, member fleet.Name) (Rendered, error) {
	name := fleet.RolloutName{Namespace: p.rollout.Namespace, Name: p.rollout.Name}
	i := slices.IndexFunc(roster, func(m fleet.Member) bool { return m.Name == member })
	if i < 0 {
		return Rendered{}, &fleet.Error{
			Kind: fleet.Terminal, Hint: "members: " + few(roster), Err: fmt.Errorf("%s: %q is not a member", name, member),
		}
	}
	var out Rendered
	chosen, err := selection.Select(p.rollout.Spec.Targets, roster)
	if err != nil && fleet.ReasonOf(err, "") != v1alpha1.ReasonNoTargets {
		return Rendered{}, fmt.Errorf("%s: %w", name, err)
	}
	for _, v := range chosen.Verdicts {
		if v.Member == member {
			out.Targeted, out.Because = v.In, v.Because
		}
	}
	out.Manifest, err = p.For(roster[i])
	return out, err
}

// Variant of a payload: the members that get the same manifest.
type Variant struct {
	specialize.Manifest
	Members []fleet.Name
}

// Variants of the payload for all members that the rollout is for, in the order of their first members. The
// error joins those of the members that it cannot be rendered for.
func Variants(p *Payload, roster []fleet.Member) ([]Variant, error) {
	targets, err := Targets(p.rollout, roster)
	if err != nil {
		return nil, err
	}
	return p.variants(targets)
}

// Targets are the members that a rollout is for.
func Targets(rollout *v1alpha1.FleetRollout, roster []fleet.Member) ([]fleet.Member, error) {
	chosen, err := selection.Select(rollout.Spec.Targets, roster)
	if err != nil {
		return nil, fmt.Errorf("%s/%s: %w", rollout.Namespace, rollout.Name, err)
	}
	return chosen.Members, nil
}

// variants for these members.
func (p *Payload) variants(members []fleet.Member) ([]Variant, error) {
	var out []Variant
	var faults []error
	for _, m := range members {
		manifest, err := p.For(m)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		same := slices.IndexFunc(out, func(v Variant) bool { return v.Digest == manifest.Digest })
		if same < 0 {
			out = append(out, Variant{Manifest: manifest, Members: []fleet.Name{m.Name}})
			continue
		}
		out[same].Members = append(out[same].Members, m.Name)
	}
	return out, errors.Join(faults...)
}

// few names of a roster, the others counted.
func few(roster []fleet.Member) string {
	names := make([]fleet.Name, len(roster))
	for i, m := range roster {
		names[i] = m.Name
	}
	return fewNames(names)
}

// fewNames lists at most eight, the others counted.
func fewNames(names []fleet.Name) string {
	const most = 8
	out := ""
	for i, name := range names {
		switch {
		case i == most:
			return fmt.Sprintf("%s and %d more", out, len(names)-most)
		case i > 0:
			out += ", "
		}
		out += string(name)
	}
	return out
}
