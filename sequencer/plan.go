// SPDX-License-Identifier: Apache-2.0

package sequencer

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// What is not written (docs/rules.md, "Defaults").
const (
	DefaultMinReadyTime     = time.Minute
	DefaultProgressDeadline = 10 * time.Minute
	DefaultCanarySoak       = 10 * time.Minute
	DefaultRetries          = 3
	// MinSuccess real successes that every gate needs besides its counts (R1, settled sets). Every plan that Compile
	// makes has it; a stage in which so many members lie needs more (docs/rules.md, "Members that lie").
	MinSuccess = 1
	// RestStage takes what no other stage takes.
	RestStage = "rest"
	// AllStage is the one stage of AllAtOnce.
	AllStage = "all"
	// CanaryLabel with CanaryValue is what the automatic stages look for.
	CanaryLabel = "ring"
	// CanaryValue of CanaryLabel.
	CanaryValue = "canary"

	maxStages           = 32
	minProgressDeadline = 10 * time.Second
)

var stageName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

var (
	defaultMaxConcurrency = intstr.FromString("25%")
	defaultMaxUnavailable = intstr.FromInt32(0)
)

// Plan is a release compiled: who is in which stage, in which order, at which pace. A pure function
// of the release, so that all members hold the same one.
type Plan struct {
	Digest  fleet.Digest
	Rollout fleet.RolloutName
	Release Release
	Stages  []Stage
	// Warnings are for whoever reads the plan before it runs; they refuse nothing.
	Warnings []string

	places map[fleet.MemberID]Place
}

// Stage of a plan.
type Stage struct {
	Name string
	// Members by rank: Members[i] has rank i.
	Members []fleet.Member
	// MaxConcurrency is N of R2, at least 1.
	MaxConcurrency int
	// Tolerance is how many may lack success when the next stage begins (maxUnavailable).
	Tolerance int
	// MinSuccess is how many must really have soaked when the next stage begins, whoever left; at least 1.
	MinSuccess int
	// MinReadyTime and Soak as R4 has them; ProgressDeadline from start to healthy.
	MinReadyTime, Soak, ProgressDeadline time.Duration
}

// Place of a member in a plan, both counted from 0.
type Place struct{ Stage, Rank int }

// Place of a member; false where the plan is not for it.
func (p *Plan) Place(id fleet.MemberID) (Place, bool) {
	place, ok := p.places[id]
	return place, ok
}

// Size is how many members the plan has.
func (p *Plan) Size() int { return len(p.places) }

// Compile turns a seal and a revision into the plan. Its errors are terminal, reason Invalid, and
// say which field is wrong; the CRD's own rules are stated again, because git has no API server.
func Compile(s Sealed, revision fleet.Revision) (*Plan, error) {
	digest := s.Digest()
	release := Release{Seal: digest, Term: s.Term, Number: s.Number, Revision: revision}
	p := &Plan{Digest: release.Plan(), Rollout: s.Rollout, Release: release, places: map[fleet.MemberID]Place{}}
	c := compiler{plan: p, total: len(s.Targets), left: ranked(digest, s.Targets)}
	if len(s.Targets) == 0 {
		return nil, c.refuse("spec.targets", "no member")
	}
	if err := c.stages(s.Spec.Strategy); err != nil {
		return nil, err
	}
	for i, stage := range p.Stages {
		for rank, m := range stage.Members {
			p.places[m.ID] = Place{Stage: i, Rank: rank}
		}
	}
	return p, nil
}

// ranked orders the targets by hash(seal, name): nobody can choose to be last, and a new seal
// deals the ranks anew.
func ranked(seal fleet.Digest, targets []fleet.Member) []fleet.Member {
	type hand struct {
		member fleet.Member
		hash   fleet.Digest
	}
	hands := make([]hand, len(targets))
	for i, m := range targets {
		hands[i] = hand{m, fleet.DigestOf("flotilla.dev/rank", seal[:], []byte(m.Name))}
	}
	slices.SortFunc(hands, func(a, b hand) int { return bytes.Compare(a.hash[:], b.hash[:]) })
	out := make([]fleet.Member, len(hands))
	for i, h := range hands {
		out[i] = h.member
	}
	return out
}

// compiler deals out the members that are left, stage by stage.
type compiler struct {
	plan  *Plan
	total int
	left  []fleet.Member
}

func (c *compiler) stages(s *v1alpha1.Strategy) error {
	if s == nil {
		s = &v1alpha1.Strategy{}
	}
	if err := c.check(s); err != nil {
		return err
	}
	if s.Type == "AllAtOnce" {
		whole := intstr.FromString("100%")
		return c.add(v1alpha1.Stage{Name: AllStage, Pacing: v1alpha1.Pacing{MaxConcurrency: &whole}}, s.Pacing, "spec.strategy")
	}
	stages, automatic := s.Stages, len(s.Stages) == 0
	if automatic {
		stages = c.automatic(s.Soak)
	}
	for i, stage := range stages {
		field := fmt.Sprintf("spec.strategy.stages[%d]", i)
		before := len(c.plan.Stages)
		if err := c.add(stage, s.Pacing, field); err != nil {
			return err
		}
		if len(c.plan.Stages) == before && !automatic && !(stage.Name == RestStage || i == len(stages)-1 && takesAll(stage)) {
			return c.refuse(field+" ("+stage.Name+")", "no target is left for it; the stage would be empty. Remove it, or set the labels of the members")
		}
	}
	if len(c.left) > 0 {
		if !automatic {
			c.warn("spec.strategy: %d targets match no stage and go to the last stage %q: %s", len(c.left), RestStage, names(c.left, 5))
		}
		return c.add(v1alpha1.Stage{Name: RestStage}, s.Pacing, "spec.strategy")
	}
	return nil
}

// automatic stages: one cluster (or those labelled ring=canary), then 10 %, 50 %, the rest. The
// canary soaks, unless a soak was written.
func (c *compiler) automatic(soak *v1alpha1.Duration) []v1alpha1.Stage {
	canary := v1alpha1.Stage{Name: "canary", Pacing: v1alpha1.Pacing{Soak: or(soak, duration(DefaultCanarySoak))}}
	if slices.ContainsFunc(c.left, func(m fleet.Member) bool { return m.Labels[CanaryLabel] == CanaryValue }) {
		canary.MatchLabels = map[string]string{CanaryLabel: CanaryValue}
	} else {
		canary.Size = ptr(intstr.FromInt32(1))
	}
	return []v1alpha1.Stage{
		canary,
		{Name: "few", Size: ptr(intstr.FromString("10%"))},
		{Name: "half", Size: ptr(intstr.FromString("50%"))},
	}
}

// check refuses what is wrong in the strategy as it is written, whoever its targets are.
func (c *compiler) check(s *v1alpha1.Strategy) error {
	switch s.Type {
	case "", "Staged":
	case "AllAtOnce":
		if len(s.Stages) > 0 {
			return c.refuse("spec.strategy.stages", "only with type: Staged; AllAtOnce has no stages")
		}
		if s.MaxConcurrency != nil {
			return c.refuse("spec.strategy.maxConcurrency", "AllAtOnce starts every cluster at once; for a limit use type: Staged with one stage")
		}
	default:
		return c.refuse("spec.strategy.type", fmt.Sprintf("%q is not Staged or AllAtOnce", s.Type))
	}
	if len(s.Stages) > maxStages {
		return c.refuse("spec.strategy.stages", fmt.Sprintf("%d stages; at most %d", len(s.Stages), maxStages))
	}
	if err := c.checkPacing(s.Pacing, "spec.strategy"); err != nil {
		return err
	}
	seen := map[string]bool{}
	for i, stage := range s.Stages {
		field := fmt.Sprintf("spec.strategy.stages[%d]", i)
		if seen[stage.Name] {
			return c.refuse(field, fmt.Sprintf("a second stage named %q", stage.Name))
		}
		seen[stage.Name] = true
		if takesAll(stage) && i != len(s.Stages)-1 {
			return c.refuse("spec.strategy.stages", "only the last stage may leave out matchLabels, matchExpressions, names and size (it takes all that is left)")
		}
		if err := c.checkStage(stage, field); err != nil {
			return err
		}
	}
	return nil
}

func (c *compiler) checkStage(s v1alpha1.Stage, field string) error {
	switch {
	case !stageName.MatchString(s.Name):
		return c.refuse(field+".name", fmt.Sprintf("%q: a stage needs a name: small letters, digits and '-', at most 63", s.Name))
	case s.Name == RestStage && !takesAll(s):
		return c.refuse(field, "'rest' is the stage for what no other takes; it has no selector")
	case len(s.Names) > 0 && (len(s.MatchLabels) > 0 || len(s.MatchExpressions) > 0):
		return c.refuse(field, "names and labels cannot be combined: give names, or matchLabels/matchExpressions (to narrow by both, label the members)")
	case !within(s.Size, 1, 100):
		return c.refuse(field+".size", s.Size.String()+": a number of at least 1, or 1% to 100%")
	}
	return c.checkPacing(s.Pacing, field)
}

func (c *compiler) checkPacing(p v1alpha1.Pacing, field string) error {
	switch {
	case !within(p.MaxConcurrency, 1, 100):
		return c.refuse(field+".maxConcurrency", p.MaxConcurrency.String()+": a number of at least 1, or 1% to 100%; to stop a rollout use suspend or 'flotilla pause'")
	case !within(p.MaxUnavailable, 0, 99):
		return c.refuse(field+".maxUnavailable", p.MaxUnavailable.String()+": a number, or 0% to 99%; 100% would let every cluster fail")
	case p.MinReadyTime.Or(0) < 0:
		return c.refuse(field+".minReadyTime", "cannot be negative")
	case p.Soak.Or(0) < 0:
		return c.refuse(field+".soak", "cannot be negative")
	case p.ProgressDeadline.Or(minProgressDeadline) < minProgressDeadline:
		return c.refuse(field+".progressDeadline", "at least 10s")
	}
	return nil
}

// add makes a stage of what it takes of the members that are left; none is no stage.
func (c *compiler) add(s v1alpha1.Stage, defaults v1alpha1.Pacing, field string) error {
	members, err := c.take(s, field)
	if err != nil || len(members) == 0 {
		return err
	}
	concurrency := scaled(or(s.MaxConcurrency, defaults.MaxConcurrency, &defaultMaxConcurrency), len(members), true)
	tolerance := scaled(or(s.MaxUnavailable, defaults.MaxUnavailable, &defaultMaxUnavailable), len(members), false)
	stage := Stage{
		Name: s.Name, Members: members, MaxConcurrency: min(concurrency, len(members)), Tolerance: tolerance, MinSuccess: MinSuccess,
		MinReadyTime:     or(s.MinReadyTime, defaults.MinReadyTime).Or(DefaultMinReadyTime),
		Soak:             or(s.Soak, defaults.Soak).Or(0),
		ProgressDeadline: or(s.ProgressDeadline, defaults.ProgressDeadline).Or(DefaultProgressDeadline),
	}
	if stage.Tolerance > 0 && stage.Tolerance >= stage.MaxConcurrency && len(members) > stage.MaxConcurrency {
		c.warn("%s.maxUnavailable: %d is not below maxConcurrency %d: failed clusters keep their places until they give up", field, stage.Tolerance, stage.MaxConcurrency)
	}
	c.plan.Stages = append(c.plan.Stages, stage)
	return nil
}

// take picks the stage's members from those that are left: the first by rank, where a size bounds them.
func (c *compiler) take(s v1alpha1.Stage, field string) ([]fleet.Member, error) {
	match, err := s.Matcher()
	if err != nil {
		return nil, c.refuse(field, err.Error())
	}
	most := len(c.left)
	if s.Size != nil {
		most = scaled(s.Size, c.total, true)
	}
	c.warnOfTaken(s, match, field)
	var taken, left []fleet.Member
	for _, m := range c.left {
		if len(taken) < most && match(string(m.Name), m.Labels) {
			taken = append(taken, m)
		} else {
			left = append(left, m)
		}
	}
	c.left = left
	return taken, nil
}

// warnOfTaken names the members that the selector matches too late: an earlier stage has them.
func (c *compiler) warnOfTaken(s v1alpha1.Stage, match func(string, map[string]string) bool, field string) {
	if s.IsEmpty() {
		return
	}
	for _, earlier := range c.plan.Stages {
		var taken []fleet.Member
		for _, m := range earlier.Members {
			if match(string(m.Name), m.Labels) {
				taken = append(taken, m)
			}
		}
		switch len(taken) {
		case 0:
		case 1:
			c.warn("%s (%s): %s also matches %s and stays there (the first stage that takes it)", field, s.Name, taken[0].Name, earlier.Name)
		default:
			c.warn("%s (%s): %d members also match %s and stay there (the first stage that takes them): %s", field, s.Name, len(taken), earlier.Name, names(taken, 5))
		}
	}
}

// within says whether v is left out, a number of at least least, or a percent from least to most:
// what the CRD's patterns accept.
func within(v *intstr.IntOrString, least, most int) bool {
	if v == nil {
		return true
	}
	if v.Type == intstr.Int {
		return v.IntValue() >= least
	}
	n, ok := percent(v.StrVal)
	return ok && n >= least && n <= most
}

// percent reads "25%", in that spelling only.
func percent(s string) (int, bool) {
	digits, ok := strings.CutSuffix(s, "%")
	n, err := strconv.Atoi(digits)
	return n, ok && err == nil && strconv.Itoa(n) == digits
}

// scaled is a number that within accepted, or that percent of total: rounded up for what must be at
// least something, down for what must not be exceeded.
func scaled(v *intstr.IntOrString, total int, up bool) int {
	if v.Type == intstr.Int {
		return v.IntValue()
	}
	n, _ := percent(v.StrVal)
	if up {
		return (n*total + 99) / 100
	}
	return n * total / 100
}

func (c *compiler) refuse(field, sentence string) error {
	return &fleet.Error{
		Kind: fleet.Terminal, Reason: v1alpha1.ReasonInvalid,
		Err: fmt.Errorf("%s: %s: %s", c.plan.Rollout, field, sentence),
	}
}

func (c *compiler) warn(format string, args ...any) {
	c.plan.Warnings = append(c.plan.Warnings, fmt.Sprintf(format, args...))
}

func takesAll(s v1alpha1.Stage) bool { return s.IsEmpty() && s.Size == nil }

// names lists the first few, sorted.
func names(members []fleet.Member, most int) string {
	list := make([]string, len(members))
	for i, m := range members {
		list[i] = string(m.Name)
	}
	slices.Sort(list)
	if len(list) > most {
		return strings.Join(list[:most], ", ") + ", ..."
	}
	return strings.Join(list, ", ")
}

// or is the first that is there.
func or[T any](choices ...*T) *T {
	for _, c := range choices {
		if c != nil {
			return c
		}
	}
	return nil
}

func ptr[T any](v T) *T { return &v }

func duration(d time.Duration) *v1alpha1.Duration {
	out := &v1alpha1.Duration{}
	out.Duration.Duration = d
	return out
}
