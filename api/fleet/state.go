// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// This file holds what keeps the fleet's state small and honest: how much one member may say, what it
// takes back, how long its registers last, and the proof that it said two things at once.

// Quota is how many records of a kind one writer may have in the state. Over it every member keeps those with
// the lowest keys: to refuse by arrival would be no join. An honest member stays below: it retires what is over.
func (k Kind) Quota() int {
	switch k {
	case KindFact:
		return 4096 // eight milestones of 512 rollouts
	case KindSeal, KindCommand, KindProof:
		return 1024
	case KindRegister, KindRollup:
		return 512
	case KindFloor:
		return 2
	}
	return 64
}

// SealsKept is how many seals of one author and rollout stay: the newest. A member acts on the newest one it can
// open, so older ones are of no use to anybody.
const SealsKept = 4

// Lifetime of a register in days after the time in it, by the coarse clock of [Record.Expires]. Its owner says it
// again in time; what nobody renews leaves every member's state on the same day.
const Lifetime = 30

// Day of a moment: the unit in which registers age. Members whose clocks differ by less agree but for an
// instant.
func Day(t time.Time) int64 { return t.Unix() / (24 * 60 * 60) }

// Expires gives the last day of a register that says when it was written; false for what stays for ever.
func (r *Record) Expires() (day int64, ok bool) {
	var at int64
	switch {
	case r.Kind == KindRegister && strings.HasPrefix(r.Key, statusPrefix):
		s, err := DecodeStatus(r)
		if err != nil {
			return 0, false
		}
		at = s.Time
	case r.Kind == KindRollup:
		u, err := DecodeRollup(r)
		if err != nil {
			return 0, false
		}
		at = u.Time
	}
	if at <= 0 {
		return 0, false
	}
	return Day(time.Unix(at, 0)) + Lifetime, true
}

// statusPrefix begins the key of every status register.
var statusPrefix = strings.TrimSuffix(StatusKey(RolloutName{}), RolloutName{}.String())

// Group names what a milestone belongs to, for floors: a fact's plan, else the record alone.
type Group [8]byte

// PlanGroup is the group of all facts of a plan.
func PlanGroup(plan Digest) Group { return Group(plan[:len(Group{})]) }

// Group of the record.
func (r *Record) Group() Group {
	if r.Kind == KindFact && len(r.Key) >= 2*len(Group{}) {
		if b, err := hex.DecodeString(r.Key[:2*len(Group{})]); err == nil {
			return Group(b)
		}
	}
	sum := DigestOf("flotilla.dev/group", []byte{byte(r.Kind)}, []byte(r.Key))
	return Group(sum[:len(Group{})])
}

// MaxKeep is the most groups that a floor keeps.
const MaxKeep = 512

// Floor is a writer's word that its own milestones of one kind below a position are of no use any more, but
// for some groups: rollouts went on to releases that have been everywhere. Only the writer can retire what it said, and
// only what stands in its way of saying more is lost with it: evidence that is gone can make others wait and
// nobody go.
type Floor struct {
	// Kind that is retired: KindFact or KindCommand.
	Kind Kind
	// Epoch and Seq: what was said before it goes.
	Epoch, Seq uint64
	// Keep are the groups that stay all the same, at most MaxKeep, in order.
	Keep []Group
	// Writer is the record's; it is not encoded twice.
	Writer MemberID
}

// FloorKey is the key of the floor of a kind.
func FloorKey(kind Kind) string { return "floor/" + strconv.Itoa(int(kind)) }

// floorOf a key; a register where it is none, so that it stays in its zone.
func floorOf(key string) Kind {
	switch key {
	case FloorKey(KindFact):
		return KindFact
	case FloorKey(KindCommand):
		return KindCommand
	}
	return KindRegister
}

// Encode gives the canonical body.
func (f Floor) Encode() []byte {
	b := []byte{WireVersion, byte(f.Kind)}
	b = binary.BigEndian.AppendUint64(b, f.Epoch)
	b = binary.BigEndian.AppendUint64(b, f.Seq)
	b = binary.BigEndian.AppendUint16(b, uint16(len(f.Keep)))
	for _, g := range f.Keep {
		b = append(b, g[:]...)
	}
	return b
}

// DecodeFloor reads the body of a record of KindFloor.
func DecodeFloor(r *Record) (Floor, error) {
	d := bodyOf(r, KindFloor)
	f := Floor{Writer: r.Writer, Kind: Kind(d.uint8()), Epoch: d.uint64(), Seq: d.uint64()}
	n := int(d.uint8())<<8 | int(d.uint8())
	if n > MaxKeep {
		d.fail("groups")
	}
	for i := 0; i < n && d.err == nil; i++ {
		f.Keep = append(f.Keep, Group(d.take(len(Group{}))))
	}
	if err := d.end("floor"); err != nil {
		return Floor{}, err
	}
	if r.Key != FloorKey(f.Kind) || floorOf(r.Key) != f.Kind {
		return Floor{}, fmt.Errorf("floor of %s: %w: it lies under key %q", r.Writer, ErrMalformed, clip(r.Key, 80))
	}
	if !slices.IsSortedFunc(f.Keep, func(a, b Group) int { return strings.Compare(string(a[:]), string(b[:])) }) {
		return Floor{}, fmt.Errorf("floor of %s: %w: groups out of order", r.Writer, ErrMalformed)
	}
	return f, nil
}

// Retires says whether a record goes by this floor.
func (f *Floor) Retires(r *Record) bool {
	if r.Writer != f.Writer || r.Kind != f.Kind || r.Epoch > f.Epoch || r.Epoch == f.Epoch && r.Seq >= f.Seq {
		return false
	}
	return !slices.Contains(f.Keep, r.Group())
}

// Proof shows that one member signed two records in one position: whoever has it knows, without believing
// anyone, that the member's words do not count. Both are kept, in the order of their bytes.
type Proof struct {
	A, B Record
}

// ProofKey is the key of the proof against a member.
func ProofKey(accused MemberID) string { return string(accused) }

// Encode gives the canonical body, or false where the two do not fit into a record.
func (p Proof) Encode() ([]byte, bool) {
	a, b := p.A.Encode(), p.B.Encode()
	if string(a) > string(b) {
		a, b = b, a
	}
	body := appendBytes(appendBytes([]byte{WireVersion}, a), b)
	return body, len(body) <= MaxRecord-MaxKey
}

// DecodeProof reads the body of a record of KindProof and verifies it as a whole: what it gives is proven.
func DecodeProof(r *Record) (Proof, error) {
	d := bodyOf(r, KindProof)
	first, second := d.bytes(MaxRecord), d.bytes(MaxRecord)
	if err := d.end("proof"); err != nil {
		return Proof{}, err
	}
	wrong := func(what string) (Proof, error) {
		return Proof{}, fmt.Errorf("proof of %s: %w: %s", r.Writer, ErrMalformed, what)
	}
	a, errA := DecodeRecord(first)
	b, errB := DecodeRecord(second)
	switch {
	case errA != nil || errB != nil:
		return wrong("not two records")
	case a.Writer != b.Writer || a.Epoch != b.Epoch || a.Seq != b.Seq:
		return wrong("two positions")
	case string(first) >= string(second):
		return wrong("not two records in order")
	case r.Key != ProofKey(a.Writer):
		return wrong("under another's key")
	case a.Verify(r.Fleet) != nil || b.Verify(r.Fleet) != nil:
		return wrong("not signed by the accused")
	}
	return Proof{a, b}, nil
}

// Rollup is what a zone tells the others of one rollout: counts for people. It is a hint, never evidence: no
// gate reads it. Several reporters of a zone write the same from the same facts.
type Rollup struct {
	Rollout RolloutName `json:"rollout"`
	Zone    string      `json:"zone"`
	// Plan that is counted.
	Plan Digest `json:"plan,omitzero"`
	// Members of the zone that are targets.
	Members int           `json:"members"`
	Stages  []StageRollup `json:"stages,omitempty"`
	// Failing are some of the members in trouble, by name.
	Failing []Name `json:"failing,omitempty"`
	// Root of the zone's milestones as the reporter holds them.
	Root Digest `json:"root,omitzero"`
	// Time is the writer's wall clock in Unix seconds.
	Time int64 `json:"time"`
}

// StageRollup counts one stage's members of the zone by state.
type StageRollup struct {
	Name   string         `json:"name"`
	Counts map[string]int `json:"counts"`
}

// RollupKey is the register a reporter keeps for a zone and rollout.
func RollupKey(zone string, name RolloutName) string { return "rollup/" + zone + "/" + name.String() }

// Encode gives the body of the register.
func (u Rollup) Encode() ([]byte, error) { return json.Marshal(u) }

// DecodeRollup reads a rollup. Fields it does not know are left to those who do.
func DecodeRollup(r *Record) (Rollup, error) {
	var u Rollup
	if r.Kind != KindRollup {
		return u, fmt.Errorf("rollup of %s: %w: in a %s", r.Writer, ErrMalformed, r.Kind)
	}
	if err := json.Unmarshal(r.Body, &u); err != nil {
		return Rollup{}, fmt.Errorf("rollup of %s: %w: %w", r.Writer, ErrMalformed, err)
	}
	if r.Key != RollupKey(u.Zone, u.Rollout) {
		return Rollup{}, fmt.Errorf("rollup of %s: %w: it lies under key %q", r.Writer, ErrMalformed, clip(r.Key, 80))
	}
	return u, nil
}
