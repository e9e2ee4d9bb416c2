// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/cmd/internal/readapi"
	"github.com/flotilla-dev/flotilla/sequencer"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
	"github.com/flotilla-dev/flotilla/sequencer/verify"
)

// factsView is all that this member holds of what was signed, for whoever wants to judge for themselves. It is in
// readapi.Facts.
type factsView struct {
	fleet  fleet.Digest
	self   fleet.Member
	agent  string
	roster func() *Roster
	// members as they are heard here: who is in the same state holds nothing that is not here.
	members func() []readapi.FleetMember
	view    func(func(*lattice.Set))
	seals   func() []sequencer.Sealed
	blob    func(fleet.Digest) ([]byte, bool, error)
	now     func() time.Time
}

// Facts that are held now.
func (v *factsView) Facts() (verify.Header, verify.Evidence, error) {
	e := verify.Evidence{
		Fleet: v.fleet, Roster: v.roster().Members(), Complete: map[fleet.MemberID]bool{v.self.ID: true},
		Zoned: len(v.roster().Members()) > flatFleet,
	}
	for _, m := range v.members() { // before the records: who is in the same state later may have more than is copied
		if m.SameState && m.Presence == readapi.PresenceHeard && !e.Zoned { // with zones, the same is said of what both carry
			e.Complete[m.ID] = true
		}
	}
	v.view(func(set *lattice.Set) {
		for r := range set.All() {
			if r.Kind != fleet.KindRollup && r.Kind != fleet.KindReach { // counts for people, and addresses
				e.Records = append(e.Records, r)
			}
		}
	})
	if err := v.sealed(&e); err != nil {
		return verify.Header{}, verify.Evidence{}, err
	}
	return verify.Header{By: v.self.Name, ByID: v.self.ID, Agent: v.agent, Time: v.now().UTC()}, e, nil
}

// sealed adds the seals that no record holds, and the bodies of all.
func (v *factsView) sealed(e *verify.Evidence) error {
	bodies := map[fleet.Digest][]byte{}
	seen := map[fleet.Digest]bool{}
	for _, s := range v.seals() {
		if seen[s.Digest()] {
			continue
		}
		seen[s.Digest()] = true
		spec, members, err := s.Bodies()
		if err != nil {
			return fmt.Errorf("seal %s of %s: %w", s.Digest().Short(), s.Rollout, err)
		}
		e.Seals = append(e.Seals, s.Seal)
		bodies[s.Seal.Spec], bodies[s.Seal.Members] = spec, members
	}
	for i := range e.Records {
		s, err := fleet.DecodeSeal(&e.Records[i])
		if err != nil {
			continue // another kind
		}
		for _, digest := range []fleet.Digest{s.Spec, s.Members} {
			if bodies[digest] != nil {
				continue
			}
			body, held, err := v.blob(digest)
			if err != nil {
				return err
			}
			if held {
				bodies[digest] = body
			}
		}
	}
	e.Bodies = slices.Collect(maps.Values(bodies))
	return nil
}
