// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// Mesh is where records go to and come from.
type Mesh interface {
	Prepare(kind fleet.Kind, key string, body []byte) (fleet.Record, error)
	Adopt(fleet.Record) error
}

// MeshLedger is the Ledger of a real agent: the mesh's records, read as facts, commands, seals and
// statuses. It indexes each record once, when it comes.
type MeshLedger struct {
	Mesh Mesh

	mu       sync.RWMutex
	facts    map[factKey]said
	commands map[fleet.RolloutName]map[fleet.Digest]fleet.Command
	seals    map[fleet.RolloutName]map[string]fleet.Seal // the highest of each author
	statuses map[fleet.RolloutName]map[fleet.MemberID]fleet.Status
	plans    map[fleet.Digest]fleet.RolloutName
}

type factKey struct {
	plan   fleet.Digest
	member fleet.MemberID
	kind   fleet.FactKind
}

type said struct {
	id   fleet.Digest
	fact fleet.Fact
}

// NewMeshLedger is an empty one.
func NewMeshLedger(mesh Mesh) *MeshLedger {
	return &MeshLedger{
		Mesh:     mesh,
		facts:    map[factKey]said{},
		commands: map[fleet.RolloutName]map[fleet.Digest]fleet.Command{},
		seals:    map[fleet.RolloutName]map[string]fleet.Seal{},
		statuses: map[fleet.RolloutName]map[fleet.MemberID]fleet.Status{},
		plans:    map[fleet.Digest]fleet.RolloutName{},
	}
}

// Learn indexes records and says which rollouts they are about. A record that does not decode as its
// kind is none of ours to read: the mesh carries it, and a newer agent understands it.
func (l *MeshLedger) Learn(records ...fleet.Record) []fleet.RolloutName {
	l.mu.Lock()
	defer l.mu.Unlock()
	touched := map[fleet.RolloutName]bool{}
	for i := range records {
		if name, ok := l.learn(&records[i]); ok {
			touched[name] = true
		}
	}
	return slices.Collect(maps.Keys(touched))
}

func (l *MeshLedger) learn(r *fleet.Record) (fleet.RolloutName, bool) {
	switch r.Kind {
	case fleet.KindFact:
		f, err := fleet.DecodeFact(r)
		if err != nil {
			return fleet.RolloutName{}, false
		}
		l.facts[factKey{f.Plan, f.Member, f.Kind}] = said{r.Digest(), f}
		name, known := l.plans[f.Plan]
		return name, known
	case fleet.KindCommand:
		c, err := fleet.DecodeCommand(r)
		if err != nil {
			return fleet.RolloutName{}, false
		}
		entry(l.commands, c.Rollout)[c.ID] = c
		return c.Rollout, true
	case fleet.KindSeal:
		s, err := fleet.DecodeSeal(r)
		if err != nil {
			return fleet.RolloutName{}, false
		}
		held, ok := entry(l.seals, s.Rollout)[s.Author]
		if ok && (held.Term > s.Term || held.Term == s.Term && held.Number >= s.Number) {
			return fleet.RolloutName{}, false
		}
		l.seals[s.Rollout][s.Author] = s
		return s.Rollout, true
	case fleet.KindRegister:
		s, err := fleet.DecodeStatus(r)
		if err != nil {
			return fleet.RolloutName{}, false
		}
		entry(l.statuses, s.Rollout)[r.Writer] = s
		return s.Rollout, true
	}
	return fleet.RolloutName{}, false
}

func entry[K, L comparable, V any](m map[K]map[L]V, key K) map[L]V {
	if m[key] == nil {
		m[key] = map[L]V{}
	}
	return m[key]
}

// Follow remembers which rollout a plan is of, so that facts of the plan wake it.
func (l *MeshLedger) Follow(plan fleet.Digest, name fleet.RolloutName) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.plans[plan] = name
}

// Fact is in sequencer.Facts.
func (l *MeshLedger) Fact(plan fleet.Digest, member fleet.MemberID, kind fleet.FactKind) (fleet.Digest, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	s, ok := l.facts[factKey{plan, member, kind}]
	return s.id, ok
}

// Commands is in sequencer.Facts.
func (l *MeshLedger) Commands(name fleet.RolloutName) []fleet.Command {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return slices.Collect(maps.Values(l.commands[name]))
}

// Seals of a rollout: the highest of each author.
func (l *MeshLedger) Seals(name fleet.RolloutName) map[string]fleet.Seal {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return maps.Clone(l.seals[name])
}

// Sealed rollouts that any author wrote.
func (l *MeshLedger) Sealed() []fleet.RolloutName {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return slices.Collect(maps.Keys(l.seals))
}

// Status is the last word of a member on a rollout.
func (l *MeshLedger) Status(member fleet.MemberID, name fleet.RolloutName) (fleet.Status, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	s, ok := l.statuses[name][member]
	return s, ok
}

// Statuses of all members on a rollout.
func (l *MeshLedger) Statuses(name fleet.RolloutName) map[fleet.MemberID]fleet.Status {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return maps.Clone(l.statuses[name])
}

// Prepare is in Ledger.
func (l *MeshLedger) Prepare(kind fleet.Kind, key string, body []byte) (fleet.Record, error) {
	return l.Mesh.Prepare(kind, key, body)
}

// Commit is in Ledger. The record is indexed at once: the turn that said it decides with it.
func (l *MeshLedger) Commit(_ context.Context, r fleet.Record) error {
	if err := l.Mesh.Adopt(r); err != nil {
		return err
	}
	l.Learn(r)
	return nil
}

// History of one member in one plan, for people.
func (l *MeshLedger) History(plan fleet.Digest, member fleet.MemberID) []fleet.Fact {
	l.mu.RLock()
	defer l.mu.RUnlock()
	var out []fleet.Fact
	for kind := fleet.Accepted; kind <= fleet.Yielded; kind++ {
		if s, ok := l.facts[factKey{plan, member, kind}]; ok {
			out = append(out, s.fact)
		}
	}
	return out
}
