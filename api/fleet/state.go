// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
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
	case KindSeal:
		return 512 * SealsKept // of each rollout the newest
	case KindCommand, KindProof:
		return 1024
	case KindRegister, KindRollup:
		return 512
	case KindFloor:
		return 2
	case KindReach:
		return 1
	}
	return 64
}

// SealsKept is how many seals of one author and rollout stay: the newest. A member acts on the newest one it can
// open, so older ones are of no use to anybody.
const SealsKept = 4

// Lifetime of a register in days after the time in it, by the coarse clock of [Record.Expires]. Its owner says it
// again in time; what nobody renews leaves every member's state on the same day.
const Lifetime = 30

const secondsPerDay = 24 * 60 * 60

// Day of a moment: the unit in which registers age, counted from 1970 in UTC. Members whose clocks differ by less
// agree but for an instant.
func Day(t time.Time) int64 { return t.Unix() / secondsPerDay }

// Undated is the last day of a register that ends and does not say when it was said.
const Undated = math.MinInt64

// Expires gives the last day of a register that ends; false for what stays for ever. It reads no more than the time at
// which it was said: whether the rest is what it should be is checked before a record is let in. One that does not say
// when has ended on Undated, whatever day it is: else it would stay for ever.
func (r *Record) Expires() (day int64, ok bool) {
	if r.Kind != KindRollup && (r.Kind != KindRegister || !strings.HasPrefix(r.Key, statusPrefix)) {
		return 0, false
	}
	var said struct {
		Time int64 `json:"time"`
	}
	if err := json.Unmarshal(r.Body, &said); err != nil || said.Time <= 0 {
		return Undated, true
	}
	return said.Time/secondsPerDay + Lifetime, true
}

// Group names what a milestone belongs to, for floors: a fact's plan, else the record's key alone.
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
	// Keep are the groups that stay all the same, at most MaxKeep, in order and each once.
	Keep []Group
	// Writer is the record's; it is not encoded twice.
	Writer MemberID
}

const floorPrefix = "floor/"

// FloorKey is the key of the floor of a kind.
func FloorKey(kind Kind) string { return floorPrefix + strconv.Itoa(int(kind)) }

// floorOf a key; a register where it is none, so that it stays in its zone.
func floorOf(key string) Kind {
	switch key {
	case floorPrefix + "2":
		return KindFact
	case floorPrefix + "3":
		return KindCommand
	}
	return KindRegister
}

// Encode gives the canonical body. One with more than MaxKeep groups does not decode: to leave some out would be
// to retire what is needed.
func (f Floor) Encode() []byte {
	keep := slices.Clone(f.Keep)
	slices.SortFunc(keep, compareGroups)
	keep = slices.Compact(keep)
	b := []byte{WireVersion, byte(f.Kind)}
	b = binary.BigEndian.AppendUint64(b, f.Epoch)
	b = binary.BigEndian.AppendUint64(b, f.Seq)
	b = binary.BigEndian.AppendUint16(b, uint16(min(len(keep), math.MaxUint16)))
	for _, g := range keep {
		b = append(b, g[:]...)
	}
	return b
}

func compareGroups(a, b Group) int { return bytes.Compare(a[:], b[:]) }

// DecodeFloor reads the body of a record of KindFloor. The key must be the floor's own.
func DecodeFloor(r *Record) (Floor, error) {
	d := bodyOf(r, KindFloor)
	f := Floor{Writer: r.Writer, Kind: Kind(d.uint8()), Epoch: d.uint64(), Seq: d.uint64()}
	n := int(d.uint8())<<8 | int(d.uint8())
	if n > MaxKeep {
		d.fail("groups")
	}
	for i := 0; i < n && d.err == nil; i++ {
		g := Group(d.take(len(Group{})))
		if i > 0 && compareGroups(f.Keep[i-1], g) >= 0 {
			d.fail("groups out of order")
		}
		f.Keep = append(f.Keep, g)
	}
	if err := d.end("floor"); err != nil {
		return Floor{}, err
	}
	if floorOf(r.Key) != f.Kind || f.Kind == KindRegister {
		return Floor{}, fmt.Errorf("floor of %s: %w: it lies under key %q", r.Writer, ErrMalformed, clip(r.Key, 80))
	}
	return f, nil
}

// Retires says whether a record goes by this floor.
func (f *Floor) Retires(r *Record) bool {
	if r.Writer != f.Writer || r.Kind != f.Kind || r.Epoch > f.Epoch || r.Epoch == f.Epoch && r.Seq >= f.Seq {
		return false
	}
	_, kept := slices.BinarySearchFunc(f.Keep, r.Group(), compareGroups)
	return !kept
}

// Proof shows that one member signed two records in one position: whoever has it knows, without believing
// anyone, that the member's words do not count. Both are kept, in the order of their bytes.
type Proof struct {
	A, B Record
}

// maxProof is the most in the body of a proof. Any two facts, commands and seals fit, which are what others decide by.
const maxProof = MaxRecord - frameSize - idLength

// ProofKey is the key of the proof against a member.
func ProofKey(accused MemberID) string { return string(accused) }

// Encode gives the canonical body, or false where the two are one, or do not fit into a record.
func (p Proof) Encode() ([]byte, bool) {
	a, b := p.A.Encode(), p.B.Encode()
	switch bytes.Compare(a, b) {
	case 0:
		return nil, false
	case 1:
		a, b = b, a
	}
	if 1+2+len(a)+2+len(b) > maxProof {
		return nil, false
	}
	return appendBytes(appendBytes([]byte{WireVersion}, a), b), true
}

// DecodeProof reads the body of a record of KindProof and verifies it as a whole: what it gives is proven. That
// takes the time of two signatures.
func DecodeProof(r *Record) (Proof, error) {
	d := bodyOf(r, KindProof)
	if len(r.Body) > maxProof {
		d.fail("too long")
	}
	first, second := d.bytes(MaxRecord), d.bytes(MaxRecord)
	if err := d.end("proof"); err != nil {
		return Proof{}, err
	}
	wrong := func(what string, err error) (Proof, error) {
		if errors.Is(err, ErrVersion) { // for others to judge
			return Proof{}, fmt.Errorf("proof of %s: %s: %w", r.Writer, what, err)
		}
		return Proof{}, fmt.Errorf("proof of %s: %w: %s", r.Writer, ErrMalformed, what)
	}
	a, errA := DecodeRecord(first)
	b, errB := DecodeRecord(second)
	switch {
	case errA != nil || errB != nil:
		return wrong("not two records", errors.Join(errA, errB))
	case a.Writer != b.Writer || a.Epoch != b.Epoch || a.Seq != b.Seq:
		return wrong("two positions", nil)
	case bytes.Compare(first, second) >= 0:
		return wrong("not two records in order", nil)
	case r.Key != ProofKey(a.Writer):
		return wrong("under another's key", nil)
	case a.Verify(r.Fleet) != nil || b.Verify(r.Fleet) != nil:
		return wrong("not signed by the accused", nil)
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

// MaxFailing is the most members in trouble that a rollup names: as many as people read.
const MaxFailing = 32

// Bounds of a rollup: names are DNS labels; a rollout has 33 stages, and a member fewer states than this.
const (
	maxLabel  = 63
	maxStages = 64
	maxStates = 32

	rollupPrefix = "rollup/"
)

// RollupKey is the register a reporter keeps for a zone and rollout.
func RollupKey(zone string, name RolloutName) string {
	return rollupPrefix + zone + "/" + name.String()
}

// Encode gives the body of the register. Of the failing the first MaxFailing are named.
func (u Rollup) Encode() ([]byte, error) {
	u.Failing = u.Failing[:min(len(u.Failing), MaxFailing)]
	return encodeJSON(u)
}

// DecodeRollup reads a rollup. Fields it does not know are left to those who do.
func DecodeRollup(r *Record) (Rollup, error) {
	wrong := func(err error) (Rollup, error) {
		return Rollup{}, fmt.Errorf("rollup of %s: %w", r.Writer, err)
	}
	if r.Kind != KindRollup {
		return wrong(fmt.Errorf("%w: in a %s", ErrMalformed, r.Kind))
	}
	var u Rollup
	if err := json.Unmarshal(r.Body, &u); err != nil {
		return wrong(fmt.Errorf("%w: %w", ErrMalformed, err))
	}
	if r.Key != RollupKey(u.Zone, u.Rollout) {
		return wrong(fmt.Errorf("%w: it lies under key %q", ErrMalformed, clip(r.Key, 80)))
	}
	if err := u.check(); err != nil {
		return wrong(err)
	}
	return u, nil
}

// check that nothing in it is longer than it can be, or steers a terminal.
func (u *Rollup) check() error {
	text := func(what, s string, most int) error {
		if len(s) > most {
			return fmt.Errorf("%w: %s of %d bytes", ErrMalformed, what, len(s))
		}
		return checkText(s)
	}
	if strings.Contains(u.Zone, "/") || u.Members < 0 || len(u.Stages) > maxStages || len(u.Failing) > MaxFailing {
		return fmt.Errorf("%w: %d members, %d stages, %d failing in zone %q",
			ErrMalformed, u.Members, len(u.Stages), len(u.Failing), clip(u.Zone, maxLabel))
	}
	err := text("zone", u.Zone, maxLabel)
	for _, name := range u.Failing {
		err = cmp.Or(err, text("member", string(name), maxLabel))
	}
	for _, stage := range u.Stages {
		err = cmp.Or(err, text("stage", stage.Name, maxLabel))
		if len(stage.Counts) > maxStates {
			return fmt.Errorf("%w: %d states", ErrMalformed, len(stage.Counts))
		}
		for state, n := range stage.Counts {
			if err = cmp.Or(err, text("state", state, maxLabel)); n < 0 {
				return fmt.Errorf("%w: %d members are %s", ErrMalformed, n, clip(state, maxLabel))
			}
		}
	}
	return err
}
