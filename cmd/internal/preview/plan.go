// SPDX-License-Identifier: Apache-2.0

package preview

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/selection"
	"github.com/flotilla-dev/flotilla/sequencer"
	"github.com/flotilla-dev/flotilla/specialize"
)

// Plan of a rollout that nobody has sealed yet.
type Plan struct {
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	// Members that are targeted, of so many in the fleet.
	Members int `json:"members"`
	Fleet   int `json:"fleet"`
	// Out: why the others are not, the most frequent reason first.
	Out    []Reason `json:"out,omitempty"`
	Stages []Stage  `json:"stages"`
	// BestSeconds is how long it takes where every cluster is healthy at once.
	BestSeconds float64 `json:"bestSeconds"`
	// AtOnce is the most clusters that may be at work at any time; FailsAt the most that a release
	// reaches which fails everywhere.
	AtOnce  int `json:"atOnce"`
	FailsAt int `json:"failsAt"`
	// Manifests that the members get, where the payload was rendered.
	Manifests []Manifest `json:"manifests,omitempty"`
	// Warnings refuse nothing.
	Warnings []string `json:"warnings,omitempty"`
}

// Manifest that members get, all of them the same.
type Manifest struct {
	Digest  string       `json:"digest"`
	Objects int          `json:"objects"`
	Members []fleet.Name `json:"members"`
}

// Render adds the manifests of a payload to the plan.
func (p *Plan) Render(payload *Payload, roster []fleet.Member) error {
	variants, err := Variants(payload, roster)
	for i := range variants {
		v := &variants[i]
		p.Manifests = append(p.Manifests, Manifest{Digest: v.Digest.String(), Objects: len(v.Objects), Members: v.Members})
	}
	return err
}

// Reason why members are out.
type Reason struct {
	Because  string       `json:"because"`
	Clusters int          `json:"clusters"`
	Members  []fleet.Name `json:"members"`
}

// Stage of the plan.
type Stage struct {
	Name     string `json:"name"`
	Clusters int    `json:"clusters"`
	// Members sorted by name. Left out where they are Drawn: by lot, when the rollout is sealed.
	Members         []fleet.Name `json:"members,omitempty"`
	Drawn           bool         `json:"drawn,omitempty"`
	MaxConcurrency  int          `json:"maxConcurrency"`
	MaxUnavailable  int          `json:"maxUnavailable"`
	MinReadySeconds float64      `json:"minReadySeconds"`
	SoakSeconds     float64      `json:"soakSeconds"`
	DeadlineSeconds float64      `json:"progressDeadlineSeconds"`
}

// deals of the lots: which members a stage of limited size takes is drawn by the seal's digest, which
// is not known before somebody seals. What is the same in so many deals is the same in all of them.
const deals = 32

// Of a rollout and a roster. The error is the sentence with which the agents would refuse it.
func Of(name fleet.RolloutName, spec v1alpha1.FleetRolloutSpec, roster []fleet.Member) (Plan, error) {
	return of(name, spec, roster, deals)
}

// dealsFor whoever asks for refusals and warnings alone: where no stage is written with a size, lots change neither.
func dealsFor(spec *v1alpha1.FleetRolloutSpec) int {
	if s := spec.Strategy; s != nil && slices.ContainsFunc(s.Stages, func(s v1alpha1.Stage) bool { return s.Size != nil }) {
		return deals
	}
	return 1
}

func of(name fleet.RolloutName, spec v1alpha1.FleetRolloutSpec, roster []fleet.Member, deals int) (Plan, error) {
	if err := spec.Validate(); err != nil {
		return Plan{}, &fleet.Error{Kind: fleet.Terminal, Reason: v1alpha1.ReasonInvalid, Err: fmt.Errorf("%s: %w", name, err)}
	}
	if err := specialize.Check(spec.Specialize); err != nil {
		return Plan{}, fmt.Errorf("%s: %w", name, err)
	}
	chosen, err := selection.Select(spec.Targets, roster)
	if err != nil {
		return Plan{}, fmt.Errorf("%s: %w", name, err)
	}
	if len(chosen.Members) == 0 {
		return Plan{}, fmt.Errorf("%s: %w", name, errors.New("no member is targeted"))
	}
	var dealt []*sequencer.Plan
	for i := range deals {
		sealed, err := sequencer.Seal(name, sequencer.Position{Author: fleet.AuthorGit, Number: uint64(i) + 1}, spec, chosen.Members)
		if err != nil {
			return Plan{}, err
		}
		compiled, err := sequencer.Compile(sealed, "preview")
		if err != nil {
			return Plan{}, err
		}
		dealt = append(dealt, compiled)
	}
	out := Plan{
		Namespace: name.Namespace, Name: name.Name, Members: len(chosen.Members), Fleet: len(roster),
		Out: reasons(chosen.Verdicts), Stages: stagesOf(dealt), Warnings: append(warnings(dealt), specialize.Unmatched(spec.Specialize, roster)...),
	}
	out.bounds(dealt[0].Stages)
	return out, nil
}

func reasons(verdicts []selection.Verdict) []Reason {
	var out []Reason
	for _, v := range verdicts {
		if v.In {
			continue
		}
		i := slices.IndexFunc(out, func(r Reason) bool { return r.Because == v.Because })
		if i < 0 {
			out, i = append(out, Reason{Because: v.Because}), len(out)
		}
		out[i].Clusters++
		out[i].Members = append(out[i].Members, v.Member)
	}
	slices.SortStableFunc(out, func(a, b Reason) int {
		return cmp.Or(cmp.Compare(b.Clusters, a.Clusters), cmp.Compare(a.Because, b.Because))
	})
	return out
}

func stagesOf(dealt []*sequencer.Plan) []Stage {
	// Where the lots leave nobody for the stage of all the others, there is none.
	whole := slices.MaxFunc(dealt, func(a, b *sequencer.Plan) int { return cmp.Compare(len(a.Stages), len(b.Stages)) })
	var out []Stage
	for i := range whole.Stages {
		s := &whole.Stages[i]
		stage := Stage{
			Name: s.Name, Clusters: len(s.Members), Members: sorted(s.Members),
			MaxConcurrency: s.MaxConcurrency, MaxUnavailable: s.Tolerance,
			MinReadySeconds: s.MinReadyTime.Seconds(), SoakSeconds: s.Soak.Seconds(), DeadlineSeconds: s.ProgressDeadline.Seconds(),
		}
		for _, other := range dealt {
			at := slices.IndexFunc(other.Stages, func(o sequencer.Stage) bool { return o.Name == s.Name })
			if at < 0 || !slices.Equal(stage.Members, sorted(other.Stages[at].Members)) {
				stage.Drawn, stage.Members = true, nil
				break
			}
		}
		out = append(out, stage)
	}
	return out
}

func sorted(members []fleet.Member) []fleet.Name {
	out := make([]fleet.Name, len(members))
	for i, m := range members {
		out[i] = m.Name
	}
	slices.Sort(out)
	return out
}

// warnings of the compiler. One that names members who are drawn loses their names.
func warnings(dealt []*sequencer.Plan) []string {
	var out []string
	for _, w := range dealt[0].Warnings {
		always := true
		for _, other := range dealt[1:] {
			always = always && slices.Contains(other.Warnings, w)
		}
		if !always {
			end := strings.LastIndex(w, ": ")
			if end < 0 {
				continue
			}
			w = w[:end]
		}
		out = append(out, w)
	}
	return out
}

// bounds of time and of exposure. The gate of a stage opens when all but the tolerated have soaked;
// those may still be at work while the next stages are.
func (p *Plan) bounds(stages []sequencer.Stage) {
	rounds := func(clusters int, s *sequencer.Stage) time.Duration {
		return time.Duration((clusters+s.MaxConcurrency-1)/s.MaxConcurrency)*s.MinReadyTime + s.Soak
	}
	var begun, done time.Duration
	late := 0
	for i := range stages {
		s := &stages[i]
		done = max(done, begun+rounds(len(s.Members), s))
		begun += rounds(max(len(s.Members)-s.Tolerance, sequencer.MinSuccess), s)
		p.AtOnce = max(p.AtOnce, s.MaxConcurrency+late)
		late += min(s.Tolerance, s.MaxConcurrency)
	}
	p.BestSeconds = done.Seconds()
	p.FailsAt = min(len(stages[0].Members), stages[0].MaxConcurrency+stages[0].Tolerance)
}
