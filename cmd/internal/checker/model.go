// SPDX-License-Identifier: Apache-2.0

// Package checker answers: is there any order of events, however unlucky, in which the rules are broken?
//
// It goes through every state that a small fleet can get into, breadth first, and asks the production
// [sequencer.Decide] and [sequencer.Accept] at each step what a member may do. What a member has heard is not
// part of a state: a member may decide with any part of what was ever said, however late, so that all delays,
// losses, reorderings and partitions are in it. The invariants (docs/rules.md) are counted here anew,
// by the whole truth and without the code that is checked.
//
// A checker that finds nothing proves nothing: bugs.go holds mistakes that somebody could well make, and each is
// refuted by the shortest story that breaks the invariant it is about.
package checker

import (
	"crypto/ed25519"
	"fmt"

	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/sequencer"
)

const (
	maxMembers  = 6
	maxReleases = 4
	maxStops    = 2
	maxLiars    = 2
)

// Shape of one stage.
type Shape struct{ Size, MaxConcurrency, Tolerance int }

// Version is one release of a model: the number of its seal and its revision. The revisions r1, r2, r3 descend
// from each other; x descends from r1 alone. Two versions that are equal are of two seals in one position, as only
// an author signs them that lies; who hears which of those of the first version first is open.
type Version struct {
	Number   uint64
	Revision fleet.Revision
	// Hopeless releases succeed nowhere.
	Hopeless bool
}

// Limits bound what may go wrong in one story; what is zero never happens.
type Limits struct {
	// Yields, Stops and Resumes in all; Losses of a store, Restores of a cluster's API from any older copy, with the
	// store or without it, Rebuilds of a whole cluster, and members found Forked.
	Yields, Stops, Resumes, Losses, Restores, Rebuilds, Forks uint8
	// Unheard: nobody whom a restored member meets holds anything that it has lost.
	Unheard bool
	// Failures lets attempts fail, and members give up.
	Failures bool
	// CarryOvers lets members succeed without a start.
	CarryOvers bool
}

// Model is a fleet small enough to be gone through.
type Model struct {
	Name     string
	Stages   []Shape
	Versions []Version
	Limits   Limits
	// Views tries every set of members that were not heard of, and not only the whole truth. Sound rules are
	// most permissive with everything heard (I21, checked as well), bugs need not be.
	Views bool
	// Liars among the members. Whoever they are is tried, and everything that they may say about themselves at
	// any time: the invariants are counted over the others.
	Liars int
	// EveryWord that a liar may say is tried, and not only what a decision asks about others: whether they started or
	// failed is for people.
	EveryWord bool
	// MinSuccess of every stage; zero is what Compile gives.
	MinSuccess int
}

func (m Model) minSuccess() int { return max(m.MinSuccess, sequencer.MinSuccess) }

// compiled is a model ready to run.
type compiled struct {
	Model
	bug     Bug
	members []fleet.Member
	plans   []*sequencer.Plan
	// stages by which invariants are counted, whatever a bug makes of the plans.
	stages   [][][]int // release, stage, rank: member
	index    map[fleet.MemberID]int
	releases map[fleet.Digest]int
	places   [maxReleases][maxMembers]sequencer.Place
	ids      [maxReleases][maxMembers][9]fleet.Digest
	stops    [maxStops]fleet.Command
	hearings []hearing
}

var rollout = fleet.RolloutName{Namespace: "shop", Name: "checkout"}

func member(i int) fleet.Member {
	seed := fleet.DigestOf("flotilla.dev/checker-key", []byte{byte(i)})
	key := ed25519.NewKeyFromSeed(seed[:])
	return fleet.Member{
		ID: fleet.MemberIDOf(key.Public().(ed25519.PublicKey)), Name: fleet.Name(fmt.Sprintf("c%d", i+1)), Incarnation: 1,
	}
}

func (m Model) compile(bug Bug) (*compiled, error) {
	c := &compiled{Model: m, bug: bug, index: map[fleet.MemberID]int{}, releases: map[fleet.Digest]int{}}
	size := 0
	for _, s := range m.Stages {
		size += s.Size
	}
	if size > maxMembers || len(m.Versions) > maxReleases || m.Limits.Stops > maxStops || m.Liars > min(maxLiars, size-1) {
		return nil, fmt.Errorf("model %s: too large: at most %d members, %d releases, %d stops, %d liars and not all", m.Name, maxMembers, maxReleases, maxStops, maxLiars)
	}
	for i := range size {
		c.members = append(c.members, member(i))
		c.index[c.members[i].ID] = i
	}
	for r, v := range m.Versions {
		if err := c.addRelease(r, v); err != nil {
			return nil, fmt.Errorf("model %s: %w", m.Name, err)
		}
	}
	for i := range c.stops {
		c.stops[i] = fleet.Command{Rollout: rollout, Verb: fleet.Pause, ID: fleet.DigestOf("flotilla.dev/checker-stop", []byte{byte(i)})}
	}
	c.hearings = m.hearings(size)
	return c, nil
}

// hearings a member may decide with.
func (m Model) hearings(size int) (out []hearing) {
	deaf, either, both := 1, []bool{false}, []bool{true, false}
	if m.Views {
		deaf = 1 << size
	}
	commands, proofs := either, either
	if m.Limits.Stops > 0 {
		commands = both
	}
	if m.Limits.Forks > 0 {
		proofs = both
	}
	for _, lies := range m.lies() {
		for deafTo := range deaf {
			for _, c := range commands {
				for _, p := range proofs {
					out = append(out, hearing{uint8(deafTo), c, p, lies})
				}
			}
		}
	}
	return out
}

// lies that the liars may tell at one time.
func (m Model) lies() (out [][maxLiars]milestones) {
	words := []milestones{}
	for w := range 1 << 8 {
		said := milestones(w)
		asked := said == proven || said&(proven|bit(fleet.Started)|bit(fleet.Failed)) == 0
		if m.EveryWord || asked {
			words = append(words, said)
		}
	}
	out = [][maxLiars]milestones{{}}
	for n := range m.Liars {
		var next [][maxLiars]milestones
		for _, told := range out {
			for _, w := range words {
				told[n] = w
				next = append(next, told)
			}
		}
		out = next
	}
	return out
}

func (c *compiled) addRelease(r int, v Version) error {
	spec := v1alpha1.FleetRolloutSpec{Strategy: &v1alpha1.Strategy{}}
	for i, s := range c.Stages {
		stage := v1alpha1.Stage{Name: fmt.Sprintf("s%d", i+1), Pacing: v1alpha1.Pacing{
			MaxConcurrency: pointer(intstr.FromInt(s.MaxConcurrency)), MaxUnavailable: pointer(intstr.FromInt(s.Tolerance)),
		}}
		if i+1 < len(c.Stages) {
			stage.Size = pointer(intstr.FromInt(s.Size))
		}
		spec.Strategy.Stages = append(spec.Strategy.Stages, stage)
	}
	for _, earlier := range c.Versions[:r] {
		if earlier.Number == v.Number && earlier.Revision == v.Revision {
			spec.Source.Path += "twin/"
		}
	}
	sealed, err := sequencer.Seal(rollout, sequencer.Position{Author: fleet.AuthorGit, Number: v.Number}, spec, c.members)
	if err != nil {
		return err
	}
	plan, err := sequencer.Compile(sealed, v.Revision)
	if err != nil {
		return err
	}
	for j := range plan.Stages {
		plan.Stages[j].MinSuccess = c.minSuccess()
	}
	c.plans = append(c.plans, plan)
	c.releases[plan.Digest] = r
	var stages [][]int
	for j := range plan.Stages {
		var ranks []int
		for _, m := range plan.Stages[j].Members {
			i := c.index[m.ID]
			ranks = append(ranks, i)
			c.places[r][i], _ = plan.Place(m.ID)
		}
		stages = append(stages, ranks)
	}
	c.stages = append(c.stages, stages)
	for i := range c.members {
		for kind := fleet.Accepted; kind <= fleet.Yielded; kind++ {
			c.ids[r][i][kind] = fleet.DigestOf("flotilla.dev/checker-fact", []byte{byte(r), byte(i), byte(kind)})
		}
	}
	return nil
}

func pointer[T any](v T) *T { return &v }

// descends: the history of the payload.
var descends = map[[2]fleet.Revision]bool{
	{"r1", "r2"}: true, {"r1", "r3"}: true, {"r2", "r3"}: true, {"r1", "x"}: true,
}

func revisionOrder(accepted, candidate fleet.Revision) sequencer.RevisionOrder {
	switch {
	case accepted == candidate:
		return sequencer.Equal
	case descends[[2]fleet.Revision{accepted, candidate}]:
		return sequencer.Newer
	case descends[[2]fleet.Revision{candidate, accepted}]:
		return sequencer.Older
	}
	return sequencer.Incomparable
}

// below: release a comes before release b in the order of R1.
func (c *compiled) below(a, b int) bool {
	x, y := c.Versions[a], c.Versions[b]
	twins := x.Number == y.Number && x.Revision == y.Revision
	return x.Number <= y.Number && !twins && (x.Revision == y.Revision || descends[[2]fleet.Revision{x.Revision, y.Revision}])
}
