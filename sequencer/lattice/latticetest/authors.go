// SPDX-License-Identifier: Apache-2.0

package latticetest

import (
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// manner in which a writer of an interleaving speaks.
type manner uint8

const (
	// orderly: its counters rise, it stays within every quota, says nothing more of what it retired, and its clock
	// goes on. It loses its disk at times and says things again.
	orderly manner = iota
	// chatty: it says more than its quotas have room for.
	chatty
	// wild: positions twice, floors that fall, clocks that go back, keys and bodies of no kind's.
	wild
)

// author says the records of one writer.
type author struct {
	rng    *rand.Rand
	id     fleet.MemberID
	manner manner

	epoch, seq uint64
	// plans said so far, of which those from live on may still be spoken of.
	plans, live     int
	seals, commands uint64
}

// writers of interleavings: to make a key takes longer than to add many records.
var writers = sync.OnceValue(func() (ids []fleet.MemberID) {
	for i := range 4 {
		ids = append(ids, Writer(i))
	}
	return ids
})

// some keys and zones. Few, so that records meet.
var (
	unknown  = []fleet.Kind{50, 77, 150, 250}
	rollouts = []fleet.RolloutName{{Namespace: "shop", Name: "web"}, {Namespace: "shop", Name: "web-1"}}
	zones    = []string{"east", "west"}
)

// say something on a day.
func (a *author) say(day int64) []fleet.Record {
	switch {
	case a.manner == wild && a.rng.IntN(2) == 0:
		return []fleet.Record{a.blurt(day)}
	case a.manner == chatty && a.rng.IntN(8) == 0:
		return a.chatter()
	case a.rng.IntN(12) == 0:
		a.epoch, a.seq = a.epoch+1+a.rng.Uint64N(3), 0
	}
	switch a.rng.IntN(11) {
	case 0, 1, 2:
		return []fleet.Record{a.fact(day)}
	case 3:
		a.plans++
		return []fleet.Record{a.fact(day)}
	case 4:
		if a.id == writers()[0] && a.rng.IntN(2) == 0 {
			return []fleet.Record{a.commandFloor()}
		}
		return []fleet.Record{a.floor()}
	case 5:
		return []fleet.Record{a.status(day)}
	case 6, 7, 8:
		a.seals++
		s := fleet.Seal{Rollout: rollouts[a.rng.IntN(2)], Author: string(a.id), Term: 1 + a.seals/7, Number: a.seals}
		return []fleet.Record{a.record(fleet.KindSeal, s.SealKey(), s.Encode())}
	case 9:
		if a.id == writers()[0] { // it retires them, and never says them again
			a.commands++
			return []fleet.Record{a.record(fleet.KindCommand, fmt.Sprint("shop/web/", a.commands), nil)}
		}
		return []fleet.Record{a.record(fleet.KindCommand, fmt.Sprint("shop/web/", a.rng.IntN(5)), nil)}
	}
	return []fleet.Record{a.record(unknown[a.rng.IntN(len(unknown))], fmt.Sprint(a.rng.IntN(5)), nil)}
}

func (a *author) record(kind fleet.Kind, key string, body []byte) fleet.Record {
	a.seq++
	return fleet.Record{
		Writer: a.id, Epoch: a.epoch, Seq: a.seq, Kind: kind, Key: key, Body: body, Sig: unsigned,
	}
}

var unsigned = make([]byte, 64)

func (a *author) plan(i int) fleet.Digest { return fleet.Digest{byte(i), byte(i >> 8), 1} }

func (a *author) fact(day int64) fleet.Record {
	f := fleet.Fact{
		Plan: a.plan(a.live + a.rng.IntN(a.plans-a.live+1)), Kind: fleet.FactKind(1 + a.rng.IntN(4)), Time: day * 86400,
	}
	return a.record(fleet.KindFact, fleet.FactKey(f.Plan, f.Kind), f.Encode())
}

// floor under all that was said, but for the last plans.
func (a *author) floor() fleet.Record {
	a.live = max(a.live, a.plans-a.rng.IntN(3))
	f := fleet.Floor{Kind: fleet.KindFact, Epoch: a.epoch, Seq: a.seq + 1}
	for i := a.live; i <= a.plans; i++ {
		f.Keep = append(f.Keep, fleet.PlanGroup(a.plan(i)))
	}
	return a.record(fleet.KindFloor, fleet.FloorKey(f.Kind), f.Encode())
}

// commandFloor under all commands so far.
func (a *author) commandFloor() fleet.Record {
	f := fleet.Floor{Kind: fleet.KindCommand, Epoch: a.epoch, Seq: a.seq + 1}
	return a.record(fleet.KindFloor, fleet.FloorKey(f.Kind), f.Encode())
}

func (a *author) status(day int64) fleet.Record {
	return a.record(fleet.KindRegister, fleet.StatusKey(rollouts[a.rng.IntN(2)]), fmt.Appendf(nil, `{"time":%d}`, day*86400))
}

// chatter is more of a kind than there is room for.
func (a *author) chatter() (all []fleet.Record) {
	kind := []fleet.Kind{50, 77, 150, 250, fleet.KindFloor}[a.rng.IntN(5)]
	for range 2 * kind.Quota() {
		all = append(all, a.record(kind, fmt.Sprint("k", a.rng.IntN(3*kind.Quota())), nil))
	}
	return all
}

// blurt anything, in a position that may be taken.
func (a *author) blurt(day int64) fleet.Record {
	var r fleet.Record
	switch a.rng.IntN(6) {
	case 0:
		kind := []fleet.Kind{fleet.KindFact, fleet.KindCommand}[a.rng.IntN(2)]
		f := fleet.Floor{Kind: kind, Epoch: a.rng.Uint64N(3), Seq: a.rng.Uint64N(9)}
		if a.rng.IntN(2) == 0 {
			f.Keep = []fleet.Group{fleet.PlanGroup(a.plan(a.rng.IntN(3)))}
		}
		r = a.record(fleet.KindFloor, fleet.FloorKey(kind), f.Encode())
	case 1:
		r = a.record(fleet.KindFloor, []string{"a", "b", "c", "floor/2", "floor/3"}[a.rng.IntN(5)], []byte{byte(a.rng.IntN(3))})
	case 2:
		r = a.status(day - int64(a.rng.IntN(60)))
	case 3:
		key := []string{"web", "web/1", "web/1/2", "web/1/3", "web/2/1", "web/9"}[a.rng.IntN(6)]
		r = a.record(fleet.KindSeal, key, []byte{byte(a.rng.IntN(3))})
	default:
		r = a.fact(day)
		r.Key = fleet.FactKey(a.plan(a.rng.IntN(3)), fleet.Started)
	}
	r.Epoch, r.Seq = a.rng.Uint64N(3), a.rng.Uint64N(12)
	return r
}
