// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/cmd/internal/agent/turn"
	"github.com/flotilla-dev/flotilla/sequencer"
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

	// committing is held to read while an own record is on its way into the mesh and the index, so that none is
	// forgotten before it is learnt.
	committing sync.RWMutex

	mu       sync.RWMutex
	facts    map[fleet.MemberID]map[factKey]said // of each writer
	latest   map[fleet.MemberID]position         // milestone of each writer that was ever held
	commands map[fleet.RolloutName]map[fleet.Digest]heldCommand
	withheld map[fleet.Digest]heldCommand // commands that cannot be read here; of rollout zero: of any
	proven   map[fleet.MemberID]bool
	floors   map[floorKey]standing
	rollups  map[fleet.RolloutName]map[reporter]heldRollup
	seals    map[fleet.RolloutName]map[string]fleet.Seal // the highest of each author
	statuses map[fleet.RolloutName]map[fleet.MemberID]heldStatus
	plans    map[fleet.Digest]fleet.RolloutName
}

type factKey struct {
	plan fleet.Digest
	kind fleet.FactKind
}

// position of a record among those of its writer.
type position struct{ epoch, seq uint64 }

func (p position) before(q position) bool {
	return p.epoch < q.epoch || p.epoch == q.epoch && p.seq < q.seq
}

func positionOf(r *fleet.Record) position { return position{r.Epoch, r.Seq} }

type said struct {
	id   fleet.Digest
	at   position
	fact fleet.Fact
}

type heldCommand struct {
	fleet.Command
	at  position
	key string
}

// record of the command without its body: what floors and the mesh's set ask for.
func (c *heldCommand) record() fleet.Record {
	return fleet.Record{Writer: c.By, Epoch: c.at.epoch, Seq: c.at.seq, Kind: fleet.KindCommand, Key: c.key}
}

type floorKey struct {
	writer fleet.MemberID
	kind   fleet.Kind
}

// standing is a floor, and where its own record stands.
type standing struct {
	fleet.Floor
	at position
}

type reporter struct {
	zone   string
	writer fleet.MemberID
}

// heldStatus and heldRollup know the record that they are from.
type heldStatus struct {
	fleet.Status
	id fleet.Digest
}

type heldRollup struct {
	fleet.Rollup
	id fleet.Digest
}

// NewMeshLedger is an empty one.
func NewMeshLedger(mesh Mesh) *MeshLedger {
	return &MeshLedger{
		Mesh:     mesh,
		facts:    map[fleet.MemberID]map[factKey]said{},
		latest:   map[fleet.MemberID]position{},
		commands: map[fleet.RolloutName]map[fleet.Digest]heldCommand{},
		withheld: map[fleet.Digest]heldCommand{},
		proven:   map[fleet.MemberID]bool{},
		floors:   map[floorKey]standing{},
		rollups:  map[fleet.RolloutName]map[reporter]heldRollup{},
		seals:    map[fleet.RolloutName]map[string]fleet.Seal{},
		statuses: map[fleet.RolloutName]map[fleet.MemberID]heldStatus{},
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
		for _, name := range l.learn(&records[i]) {
			touched[name] = true
		}
	}
	return slices.Collect(maps.Keys(touched))
}

func (l *MeshLedger) learn(r *fleet.Record) []fleet.RolloutName {
	if floor, ok := l.floors[floorKey{r.Writer, r.Kind}]; ok && r.Kind == fleet.KindFact && floor.Retires(r) {
		return nil // its writer said that it is of no use any more
	}
	switch r.Kind {
	case fleet.KindFact:
		f, err := fleet.DecodeFact(r)
		if errors.Is(err, fleet.ErrVersion) {
			return l.withhold(r.Digest(), r) // who wrote it knows more than this agent
		}
		if err != nil {
			return nil
		}
		entry(l.facts, f.Member)[factKey{f.Plan, f.Kind}] = said{r.Digest(), positionOf(r), f}
		if at := positionOf(r); l.latest[f.Member].before(at) {
			l.latest[f.Member] = at
		}
		if name, known := l.plans[f.Plan]; known {
			return []fleet.RolloutName{name}
		}
	case fleet.KindCommand:
		c, err := fleet.DecodeCommand(r)
		if errors.Is(err, fleet.ErrVersion) {
			return l.withhold(r.Digest(), r) // who wrote it knows more than this agent
		}
		if err != nil {
			return nil
		}
		entry(l.commands, c.Rollout)[c.ID] = heldCommand{c, positionOf(r), r.Key}
		return []fleet.RolloutName{c.Rollout}
	case fleet.KindSeal:
		return l.learnSeal(r)
	case fleet.KindRegister:
		s, err := fleet.DecodeStatus(r)
		if err != nil {
			return nil
		}
		entry(l.statuses, s.Rollout)[r.Writer] = heldStatus{s, r.Digest()}
		return []fleet.RolloutName{s.Rollout}
	case fleet.KindRollup:
		if u, err := fleet.DecodeRollup(r); err == nil {
			entry(l.rollups, u.Rollout)[reporter{u.Zone, r.Writer}] = heldRollup{u, r.Digest()}
		}
	case fleet.KindFloor:
		l.learnFloor(r)
	case fleet.KindProof:
		return l.learnProof(r)
	}
	return nil
}

func (l *MeshLedger) learnSeal(r *fleet.Record) []fleet.RolloutName {
	s, err := fleet.DecodeSeal(r)
	if err != nil {
		return nil
	}
	held, ok := entry(l.seals, s.Rollout)[s.Author]
	// One of an equal number is news because it took the other's place in the mesh's set: an author that lies signed
	// both, and whoever holds both must follow the same one, whichever came first (I17).
	if ok && (held.Term > s.Term || held.Term == s.Term && held.Number > s.Number) {
		return nil
	}
	l.seals[s.Rollout][s.Author] = s
	return []fleet.RolloutName{s.Rollout}
}

// learnFloor and forget what it retires. Nobody need look at anything anew: what goes could only have opened
// something for who is on an old release.
func (l *MeshLedger) learnFloor(r *fleet.Record) {
	f, err := fleet.DecodeFloor(r)
	if err != nil {
		return
	}
	at := floorKey{f.Writer, f.Kind}
	if held, ok := l.floors[at]; ok && positionOf(r).before(held.at) {
		return
	}
	l.floors[at] = standing{f, positionOf(r)}
	l.retire(&f)
}

// learnProof: every rollout is looked at anew, because the member may be in any of them.
func (l *MeshLedger) learnProof(r *fleet.Record) []fleet.RolloutName {
	p, err := fleet.DecodeProof(r)
	if err != nil || l.proven[p.A.Writer] {
		return nil
	}
	l.proven[p.A.Writer] = true
	touched := slices.Collect(maps.Values(l.plans))
	return slices.AppendSeq(touched, maps.Keys(l.seals))
}

// retire a writer's facts by its floor. Of commands what the mesh has dropped is forgotten and nothing else: whether a floor
// covers a stop depends on whether its writer is forked.
func (l *MeshLedger) retire(f *fleet.Floor) {
	maps.DeleteFunc(l.facts[f.Writer], func(k factKey, s said) bool {
		return f.Kind == fleet.KindFact && f.Retires(&fleet.Record{
			Writer: f.Writer, Epoch: s.at.epoch, Seq: s.at.seq, Kind: fleet.KindFact, Key: fleet.FactKey(k.plan, k.kind),
		})
	})
}

// Forget what the mesh dropped: over a quota, expired, retired, or in a zone that is not carried any more. What is
// held in a record's place by now stays. It gives the rollouts whose seals are gone: others decide about them now; and
// those of what was taken for a stop.
func (l *MeshLedger) Forget(records ...fleet.Record) (touched []fleet.RolloutName) {
	l.committing.Lock()
	defer l.committing.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range records {
		if name, ok := l.forget(&records[i]); ok {
			touched = append(touched, name)
		}
		touched = append(touched, l.release(records[i].Digest(), &records[i])...)
	}
	return touched
}

func (l *MeshLedger) forget(r *fleet.Record) (name fleet.RolloutName, touched bool) {
	id := r.Digest()
	switch r.Kind {
	case fleet.KindFact:
		if f, err := fleet.DecodeFact(r); err == nil {
			deleteIf(l.facts, f.Member, factKey{f.Plan, f.Kind}, func(s said) bool { return s.id == id })
		}
	case fleet.KindCommand:
		if c, err := fleet.DecodeCommand(r); err == nil {
			deleteIf(l.commands, c.Rollout, id, func(heldCommand) bool { return true })
		}
	case fleet.KindSeal:
		if s, err := fleet.DecodeSeal(r); err == nil {
			return s.Rollout, deleteIf(l.seals, s.Rollout, s.Author, func(held fleet.Seal) bool { return held == s })
		}
	case fleet.KindRegister:
		if s, err := fleet.DecodeStatus(r); err == nil {
			deleteIf(l.statuses, s.Rollout, r.Writer, func(s heldStatus) bool { return s.id == id })
		}
	case fleet.KindRollup:
		if u, err := fleet.DecodeRollup(r); err == nil {
			deleteIf(l.rollups, u.Rollout, reporter{u.Zone, r.Writer}, func(u heldRollup) bool { return u.id == id })
		}
	}
	return name, false
}

// deleteIf an entry is the one meant; false where it is not there or another one. A map that is empty then goes, too.
func deleteIf[K, L comparable, V any](m map[K]map[L]V, key K, inner L, is func(V) bool) bool {
	v, ok := m[key][inner]
	if ok = ok && is(v); ok {
		delete(m[key], inner)
	}
	if len(m[key]) == 0 {
		delete(m, key)
	}
	return ok
}

func entry[K, L comparable, V any](m map[K]map[L]V, key K) map[L]V {
	if m[key] == nil {
		m[key] = map[L]V{}
	}
	return m[key]
}

// takenForAStop is the reason of a stop that was made of a command's head.
const takenForAStop = "a command of this member cannot be read here and is taken for a stop; see the how-to of the store"

// Withhold takes note of a record that nobody here may look at, by its head: whoever tried, died of it, or it did not read
// back. A command is a stop of the rollout that its key names, or of all where that names none, until a go names it or it is
// gone; a sickness is one. The same is made of one whose body is of a later version. It gives the rollouts that this is about.
func (l *MeshLedger) Withhold(id fleet.Digest, head fleet.Record) []fleet.RolloutName {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.withhold(id, &head)
}

func (l *MeshLedger) withhold(id fleet.Digest, head *fleet.Record) []fleet.RolloutName {
	switch head.Kind {
	case fleet.KindCommand:
		name, _ := fleet.CommandRollout(head.Key)
		l.withheld[id] = heldCommand{
			fleet.Command{ID: id, Rollout: name, Verb: fleet.Pause, By: head.Writer, Reason: takenForAStop}, positionOf(head), head.Key,
		}
		return l.about(name)
	case fleet.KindFact:
		if plan, ok := sickness(head.Key); ok {
			f := fleet.Fact{Plan: plan, Kind: fleet.Degraded, Member: head.Writer, Detail: takenForAStop}
			entry(l.facts, head.Writer)[factKey{plan, fleet.Degraded}] = said{id, positionOf(head), f}
			return l.about(l.plans[plan])
		}
	}
	return nil
}

// Release what was withheld and is gone, or was read again.
func (l *MeshLedger) Release(id fleet.Digest, head fleet.Record) []fleet.RolloutName {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.release(id, &head)
}

func (l *MeshLedger) release(id fleet.Digest, head *fleet.Record) []fleet.RolloutName {
	if c, ok := l.withheld[id]; ok {
		delete(l.withheld, id)
		return l.about(c.Rollout)
	}
	plan, ok := sickness(head.Key)
	if ok && head.Kind == fleet.KindFact && deleteIf(l.facts, head.Writer, factKey{plan, fleet.Degraded}, func(s said) bool { return s.id == id }) {
		return l.about(l.plans[plan])
	}
	return nil
}

// sickness says of which plan a key is the sickness.
func sickness(key string) (plan fleet.Digest, ok bool) {
	text, _, _ := strings.Cut(key, "/")
	plan, err := fleet.ParseDigest(text)
	return plan, err == nil && key == fleet.FactKey(plan, fleet.Degraded)
}

// about a rollout, or about all that are known where it is none.
func (l *MeshLedger) about(name fleet.RolloutName) []fleet.RolloutName {
	if name != (fleet.RolloutName{}) {
		return []fleet.RolloutName{name}
	}
	return slices.AppendSeq(slices.Collect(maps.Values(l.plans)), maps.Keys(l.seals))
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
	s, ok := l.facts[member][factKey{plan, kind}]
	return s.id, ok
}

// Commands is in sequencer.Facts. The goes of a member that was removed count for nothing; its stops stay in force
// until another one's go names them, for stops are cheap and never expire (R7), and its Withdraw ended what nobody acts
// on any more.
func (l *MeshLedger) Commands(name fleet.RolloutName) []fleet.Command {
	l.mu.RLock()
	defer l.mu.RUnlock()
	out := make([]fleet.Command, 0, len(l.commands[name]))
	for _, c := range l.commands[name] {
		if c.Verb != fleet.Resume || !l.proven[c.By] {
			out = append(out, c.Command)
		}
	}
	for _, c := range l.withheld {
		if c.Rollout == name || c.Rollout == (fleet.RolloutName{}) {
			out = append(out, c.Command)
		}
	}
	return out
}

// Removed is in sequencer.Facts.
func (l *MeshLedger) Removed(member fleet.MemberID) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.proven[member]
}

// Own milestones of a member that are held, by plan.
func (l *MeshLedger) Own(member fleet.MemberID) map[fleet.Digest][]sequencer.Own {
	l.mu.RLock()
	defer l.mu.RUnlock()
	out := map[fleet.Digest][]sequencer.Own{}
	for k, s := range l.facts[member] {
		out[k.plan] = append(out[k.plan], sequencer.Own{Epoch: s.at.epoch, Seq: s.at.seq, Group: fleet.PlanGroup(k.plan)})
	}
	return out
}

// Said is the highest position of a member's milestones that were ever held here.
func (l *MeshLedger) Said(member fleet.MemberID) turn.Position {
	l.mu.RLock()
	defer l.mu.RUnlock()
	at := l.latest[member]
	return turn.Position{Epoch: at.epoch, Seq: at.seq}
}

// OwnCommands of a member that are held.
func (l *MeshLedger) OwnCommands(member fleet.MemberID) []sequencer.OwnCommand {
	l.mu.RLock()
	defer l.mu.RUnlock()
	var out []sequencer.OwnCommand
	own := func(c heldCommand) {
		if c.By == member {
			r := c.record()
			out = append(out, sequencer.OwnCommand{Own: sequencer.Own{Epoch: r.Epoch, Seq: r.Seq, Group: r.Group()}, Command: c.Command})
		}
	}
	for _, of := range l.commands {
		for _, c := range of {
			own(c)
		}
	}
	for _, c := range l.withheld { // what cannot be read is not retired
		own(c)
	}
	return out
}

// Floor of a member in records of a kind; the zero floor where it has none.
func (l *MeshLedger) Floor(member fleet.MemberID, kind fleet.Kind) fleet.Floor {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.floors[floorKey{member, kind}].Floor
}

// Rollups of a rollout, by whoever wrote them, and of members that were removed none.
func (l *MeshLedger) Rollups(name fleet.RolloutName) map[fleet.MemberID][]fleet.Rollup {
	l.mu.RLock()
	defer l.mu.RUnlock()
	out := map[fleet.MemberID][]fleet.Rollup{}
	for at, u := range l.rollups[name] {
		if !l.proven[at.writer] {
			out[at.writer] = append(out[at.writer], u.Rollup)
		}
	}
	return out
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
	return s.Status, ok
}

// Statuses of all members on a rollout.
func (l *MeshLedger) Statuses(name fleet.RolloutName) map[fleet.MemberID]fleet.Status {
	l.mu.RLock()
	defer l.mu.RUnlock()
	out := make(map[fleet.MemberID]fleet.Status, len(l.statuses[name]))
	for member, s := range l.statuses[name] {
		out[member] = s.Status
	}
	return out
}

// Prepare is in turn.Ledger.
func (l *MeshLedger) Prepare(kind fleet.Kind, key string, body []byte) (fleet.Record, error) {
	return l.Mesh.Prepare(kind, key, body)
}

// Commit is in turn.Ledger. The record is indexed at once: the turn that said it decides with it.
func (l *MeshLedger) Commit(_ context.Context, r fleet.Record) error {
	l.committing.RLock()
	defer l.committing.RUnlock()
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
		if s, ok := l.facts[member][factKey{plan, kind}]; ok {
			out = append(out, s.fact)
		}
	}
	return out
}
