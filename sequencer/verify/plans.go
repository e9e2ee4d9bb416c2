// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer"
)

// plan that milestones name. Without its seal it is a digest and nothing more.
type plan struct {
	*sequencer.Plan
	digest fleet.Digest
	sealed sequencer.Sealed
	said   map[fleet.MemberID]*milestones
	// rows are the members of each stage by rank, with what they said.
	rows [][]standing
}

// standing of a member in a plan.
type standing struct {
	id      fleet.MemberID
	said    *milestones
	removed bool
}

// plans that milestones are of, compiled where that can be done.
func (b *book) plans() []*plan {
	seals := slices.SortedFunc(maps.Values(b.seals), func(x, y fleet.Seal) int {
		dx, dy := x.Digest(), y.Digest()
		return bytes.Compare(dx[:], dy[:])
	})
	releases := make([]sequencer.Release, len(seals))
	for i, s := range seals {
		releases[i] = sequencer.Release{Seal: s.Digest(), Term: s.Term, Number: s.Number}
	}
	digests := slices.SortedFunc(maps.Keys(b.facts), func(x, y fleet.Digest) int { return bytes.Compare(x[:], y[:]) })
	out := make([]*plan, 0, len(digests))
	for _, digest := range digests {
		p := &plan{digest: digest, said: b.facts[digest]}
		b.result.check(ruleSealed)
		b.compile(p, releases)
		out = append(out, p)
	}
	return out
}

// compile the plan of that digest, which is its seal's and its revision's: nobody can make up another pair.
func (b *book) compile(p *plan, releases []sequencer.Release) {
	at, revision := -1, fleet.Revision("")
	for i := range releases {
		for r := range b.revisions[p.digest] {
			release := releases[i]
			if release.Revision = r; release.Plan() == p.digest {
				at, revision = i, r
			}
		}
	}
	if at < 0 {
		b.unjudged(ruleSealed, finding{plan: p, story: "its seal is not here", lacks: []lack{{why: NoSeal}}})
		return
	}
	seal := b.seals[releases[at].Seal]
	spec, okSpec := b.bodies[seal.Spec]
	members, okMembers := b.bodies[seal.Members]
	of := fmt.Sprintf("seal %d of %s", seal.Number, seal.Rollout)
	switch {
	case seal.CompileVersion != sequencer.CompileVersion:
		b.unjudged(ruleSealed, finding{plan: p, story: fmt.Sprintf("%s was compiled by rules of version %d", of, seal.CompileVersion), lacks: []lack{{why: NoVersion}}})
		return
	case !okSpec || !okMembers:
		b.unjudged(ruleSealed, finding{plan: p, story: "the bodies of " + of + " are not here", lacks: []lack{{why: NoSeal}}})
		return
	}
	sealed, err := sequencer.Open(seal, spec, members)
	var compiled *sequencer.Plan
	if err == nil {
		compiled, err = sequencer.Compile(sealed, revision)
	}
	if err != nil {
		b.broken(ruleSealed, finding{plan: p, story: fmt.Sprintf("members acted on %s, on which nobody may: %v", of, err), words: p.anyWord()})
		return
	}
	p.Plan, p.sealed = compiled, sealed
	b.released[p.digest] = revision
	for i := range compiled.Stages {
		row := make([]standing, len(compiled.Stages[i].Members))
		for rank := range row {
			id := compiled.Stages[i].Members[rank].ID
			row[rank] = standing{id, p.said[id], b.removed[id]}
		}
		p.rows = append(p.rows, row)
	}
	for i := range sealed.Targets { // who has left the roster keeps the name that it had
		if m := &sealed.Targets[i]; b.names[m.ID] == "" {
			b.names[m.ID] = m.Name
		}
	}
	if seal.Author != fleet.AuthorGit && b.signed[releases[at].Seal] == nil {
		author := fleet.MemberID(seal.Author)
		b.unjudged(ruleSealed, finding{plan: p, member: author, story: of + " is not here as its author signed it", lacks: []lack{{why: NotHeard, member: author}}})
	}
}

// anyWord said of the plan.
func (p *plan) anyWord() []*word {
	for _, id := range slices.Sorted(maps.Keys(p.said)) {
		for _, w := range p.said[id] {
			if w != nil {
				return []*word{w}
			}
		}
	}
	return nil
}

// checkWriters: of records by whom nobody knows, one finding for each writer. Whom a seal names was a member then, if a member
// of the roster acted on it: nobody need have signed the seal.
func (b *book) checkWriters(plans []*plan) {
	targets := map[fleet.MemberID]bool{}
	for _, p := range plans {
		acted := slices.ContainsFunc(slices.Collect(maps.Keys(p.said)), func(id fleet.MemberID) bool { return b.roster[id] })
		if p.Plan != nil && acted {
			for i := range p.sealed.Targets {
				targets[p.sealed.Targets[i].ID] = true
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(b.writers)) {
		b.result.check(ruleMembers)
		if !b.roster[id] && !targets[id] {
			b.unjudged(ruleMembers, finding{member: id, story: fmt.Sprintf("%d records of %s, which is on no roster here: it left, or never was a member", b.writers[id], id), lacks: []lack{{why: Stranger, member: id}}})
		}
	}
}

// checkSeals: no author gave one number to two seals of a rollout.
func (b *book) checkSeals() {
	type at struct {
		rollout      fleet.RolloutName
		author       string
		term, number uint64
	}
	held := map[at]*word{}
	for _, digest := range slices.SortedFunc(maps.Keys(b.signed), func(x, y fleet.Digest) int { return bytes.Compare(x[:], y[:]) }) {
		s, w := b.seals[digest], b.signed[digest]
		b.result.check(ruleSealed)
		key := at{s.Rollout, s.Author, s.Term, s.Number}
		if other := held[key]; other != nil {
			b.broken(ruleSealed, finding{member: w.record.Writer, story: fmt.Sprintf("it gave number %d of %s to two seals", s.Number, s.Rollout), words: []*word{other, w}})
			continue
		}
		held[key] = w
	}
}
