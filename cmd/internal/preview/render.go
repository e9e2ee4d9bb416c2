// SPDX-License-Identifier: Apache-2.0

package preview

import (
	"fmt"
	"os"
	"slices"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/selection"
	"github.com/flotilla-dev/flotilla/specialize"
)

// Rendered is a payload for one member.
type Rendered struct {
	// YAML: one document per object.
	YAML []byte
	// Digest of the manifest; members of one digest run the same.
	Digest  fleet.Digest
	Objects int
	// Engine: kustomize or plain. Path in the payload, variables filled in.
	Engine, Path string
	// Targeted says whether the rollout is for the member; Because why (not).
	Targeted bool
	Because  string
}

// Render the payload in a folder of this machine for a member of the roster. Nothing outside of the
// folder is read, whatever its links say.
func Render(rollout *v1alpha1.FleetRollout, roster []fleet.Member, member fleet.Name, folder string) (Rendered, error) {
	name := fleet.RolloutName{Namespace: rollout.Namespace, Name: rollout.Name}
	i := slices.IndexFunc(roster, func(m fleet.Member) bool { return m.Name == member })
	if i < 0 {
		return Rendered{}, &fleet.Error{
			Kind: fleet.Terminal, Hint: "members: " + few(roster), Err: fmt.Errorf("%s: %q is not a member", name, member),
		}
	}
	var out Rendered
	chosen, err := selection.Select(rollout.Spec.Targets, roster)
	if err != nil && fleet.ReasonOf(err, "") != v1alpha1.ReasonNoTargets {
		return Rendered{}, fmt.Errorf("%s: %w", name, err)
	}
	for _, v := range chosen.Verdicts {
		if v.Member == member {
			out.Targeted, out.Because = v.In, v.Because
		}
	}
	root, err := os.OpenRoot(folder)
	if err != nil {
		return Rendered{}, fmt.Errorf("payload: %w", err)
	}
	defer root.Close()
	manifest, err := specialize.Render(specialize.Input{
		Files: root.FS(), Path: rollout.Spec.Source.Path, Member: roster[i], Namespace: rollout.Namespace,
	})
	if err != nil {
		return Rendered{}, fmt.Errorf("%s for %s: %w", name, member, err)
	}
	if out.YAML, err = manifest.YAML(); err != nil {
		return Rendered{}, fmt.Errorf("%s for %s: %w", name, member, err)
	}
	out.Digest, out.Objects, out.Engine, out.Path = manifest.Digest, len(manifest.Objects), manifest.Engine, manifest.Path
	return out, nil
}

// few names of a roster, the others counted.
func few(roster []fleet.Member) string {
	const most = 8
	out := ""
	for i, m := range roster {
		switch {
		case i == most:
			return fmt.Sprintf("%s and %d more", out, len(roster)-most)
		case i > 0:
			out += ", "
		}
		out += string(m.Name)
	}
	return out
}
