// SPDX-License-Identifier: Apache-2.0

package checker

import (
	"math/bits"
	"slices"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// milestones of one member in one release, a bit for each kind.
type milestones uint8

func bit(k fleet.FactKind) milestones { return 1 << (k - 1) }

func (m milestones) has(k fleet.FactKind) bool { return m&bit(k) != 0 }

// proven takes the place of Accepted, which decides nothing, in what is heard of a liar: a proof against it.
const proven = milestones(1)

// state of the fleet: everything that was ever said, and what each member has of its own. It is comparable, and
// holds nothing of what was heard. Members that lie have no state: they say everything, in any combination, to
// anybody, and may take it back.
type state struct {
	// said: signed, and in somebody's store.
	said [maxReleases][maxMembers]milestones
	// kept in the member's own API, said or about to be.
	kept [maxReleases][maxMembers]milestones
	// stored: in the member's own store; sound members keep all that is in it in their API, too.
	stored [maxReleases][maxMembers]milestones
	// accepted release of each member, in its API.
	accepted [maxMembers]uint8
	// issued and lifted stops, a bit each; stopOn is the release on which each was given.
	issued, lifted uint8
	stopOn         [maxStops]uint8
	// gone: clusters rebuilt without their store and API: their key is lost with it, and nobody speaks for them.
	gone uint8
	// forked: members with a proof against them.
	forked uint8
	// silent: members whose API was found to be restored.
	silent uint8
	// lying members; who they are is settled before anything happens.
	lying uint8
	// spent of the model's limits.
	yields, losses, restores, rebuilds, resumes, forks uint8
}

// own is what a member knows of itself in a release, whoever else it has heard.
func (s *state) own(r, i int) milestones { return s.kept[r][i] | s.stored[r][i] }

// truth is what a member has bound itself to, whether or not anybody has heard.
func (s *state) truth(r, i int) milestones { return s.said[r][i] | s.kept[r][i] | s.stored[r][i] }

// lies says whether a member does.
func (s *state) lies(i int) bool { return s.lying&(1<<i) != 0 }

// forget everything that a member has of its own.
func (s *state) forget(i int) {
	s.accepted[i] = 0
	for r := range s.kept {
		s.kept[r][i], s.stored[r][i] = 0, 0
	}
}

// hearing is what a member has heard at one moment: everything but the words of some members, all commands or none,
// the proofs against members or none, and anything at all of those that lie.
type hearing struct {
	deafTo           uint8
	commands, proofs bool
	lies             [maxLiars]milestones
}

// view is what a member decides with.
type view struct {
	c    *compiled
	s    *state
	self int
	hearing
	// reversed: the commands came in the other order.
	reversed bool
}

// Fact is in sequencer.Facts.
func (v view) Fact(plan fleet.Digest, id fleet.MemberID, kind fleet.FactKind) (fleet.Digest, bool) {
	r, known := v.c.releases[plan]
	i, target := v.c.index[id]
	if !known || !target {
		return fleet.Digest{}, false
	}
	return v.c.ids[r][i][kind], v.milestones(r, i).has(kind)
}

func (v view) milestones(r, i int) milestones {
	if v.s.lies(i) {
		return v.lie(i) &^ proven
	}
	var m milestones
	if v.deafTo&(1<<i) == 0 {
		m = v.s.said[r][i]
	}
	if i == v.self {
		m |= v.s.own(r, i)
	}
	return m
}

// lie that was heard of a member.
func (v view) lie(i int) milestones {
	return v.lies[bits.OnesCount8(v.s.lying&(1<<i-1))]
}

// removed says whether a proof against a member was heard.
func (v view) removed(i int) bool {
	if v.s.lies(i) {
		return v.lie(i)&proven != 0
	}
	return v.proofs && v.s.forked&(1<<i) != 0
}

// Removed is in sequencer.Facts.
func (v view) Removed(id fleet.MemberID) bool {
	i, target := v.c.index[id]
	return target && v.removed(i)
}

// Commands is in sequencer.Facts.
func (v view) Commands(fleet.RolloutName) []fleet.Command {
	if !v.commands {
		return nil
	}
	var out []fleet.Command
	lift := fleet.Command{Rollout: rollout, Verb: fleet.Resume}
	for n := range v.c.stops {
		if v.s.issued&(1<<n) != 0 {
			out = append(out, v.c.stops[n])
		}
		if v.s.lifted&(1<<n) != 0 {
			lift.Lifts = append(lift.Lifts, v.c.stops[n].ID)
		}
	}
	if len(lift.Lifts) > 0 {
		out = append(out, lift)
	}
	if v.reversed {
		slices.Reverse(out)
	}
	return out
}
