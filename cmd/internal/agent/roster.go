// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"fmt"
	"sync/atomic"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// Roster is one list of members; it never changes.
type Roster struct {
	members []fleet.Member
	byID    map[fleet.MemberID]fleet.Member
}

// NewRoster of these members.
func NewRoster(members []fleet.Member) *Roster {
	r := &Roster{members: members, byID: make(map[fleet.MemberID]fleet.Member, len(members))}
	for _, m := range members {
		r.byID[m.ID] = m
	}
	return r
}

// Member is in fleet.Roster.
func (r *Roster) Member(id fleet.MemberID) (fleet.Member, bool) {
	m, ok := r.byID[id]
	return m, ok
}

// Members in the order they were given.
func (r *Roster) Members() []fleet.Member { return r.members }

// rosterNow is the roster in force.
type rosterNow struct{ held atomic.Pointer[Roster] }

func (r *rosterNow) set(next *Roster) { r.held.Store(next) }

func (r *rosterNow) get() *Roster {
	if held := r.held.Load(); held != nil {
		return held
	}
	return NewRoster(nil)
}

// nameOf a member; the end of its ID where it is not on the roster any more.
func (r *rosterNow) nameOf(id fleet.MemberID) fleet.Name {
	if m, ok := r.get().Member(id); ok {
		return m.Name
	}
	if len(id) > 8 {
		return fleet.Name(id[len(id)-8:])
	}
	return fleet.Name(id)
}

// storedMember keeps the addresses, which fleet.Member's own form leaves out: no seal may cover them.
type storedMember struct {
	fleet.Member
	Addresses []string `json:"addresses,omitempty"`
}

// encodeRoster for the store: an agent that starts while its git server is away still knows whom to talk to.
func encodeRoster(members []fleet.Member) ([]byte, error) {
	stored := make([]storedMember, len(members))
	for i, m := range members {
		stored[i] = storedMember{m, m.Addresses}
	}
	return json.Marshal(stored)
}

func decodeRoster(b []byte) ([]fleet.Member, error) {
	if len(b) == 0 {
		return nil, nil
	}
	var stored []storedMember
	if err := json.Unmarshal(b, &stored); err != nil {
		return nil, fmt.Errorf("stored roster: %w", err)
	}
	members := make([]fleet.Member, len(stored))
	for i, s := range stored {
		members[i] = s.Member
		members[i].Addresses = s.Addresses
	}
	return members, nil
}
