// SPDX-License-Identifier: Apache-2.0

package latticetest

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
)

// Mistake is planted in a replica, to show that Interleave finds it. The zero value is none.
type Mistake struct {
	// Refuses a record that a set would look at.
	Refuses func(*lattice.Set, *fleet.Record) bool
	// Forgets one of the records held when another one was added; and when a day began, then with none.
	Forgets func(held, added *fleet.Record, day int64) bool
}

// Sound plants nothing.
func Sound() Mistake { return Mistake{} }

// Seen counts what happened in interleavings, so that a test can tell that they showed something.
type Seen struct {
	OverQuota, Retired, Expired, SealsGone, Forked, Restarted, Jumped, Partial, Divided, Conflicts int
	// Outlived are commands that a forked writer's floor covers and that are held all the same.
	Outlived int
}

// Add counts another interleaving.
func (s *Seen) Add(o Seen) {
	s.OverQuota += o.OverQuota
	s.Retired += o.Retired
	s.Expired += o.Expired
	s.SealsGone += o.SealsGone
	s.Forked += o.Forked
	s.Restarted += o.Restarted
	s.Jumped += o.Jumped
	s.Partial += o.Partial
	s.Divided += o.Divided
	s.Conflicts += o.Conflicts
	s.Outlived += o.Outlived
}

// Interleave plays three to five replicas through a random story: records arrive late, twice, in any order or not at
// all, replicas restart from disk, days pass, clocks jump, writers say too much, retire, and contradict themselves;
// some replicas carry one zone, and the roster changes. Each record reaches one replica at least. Then all have the same day and exchange until
// nothing changes, and these hold:
//
//   - Replicas that carry a share have one root of it, and none holds anything that a set may not hold.
//   - What the disk was told to keep is what the set holds, and a restart changes nothing.
//   - Of a writer on the roster that said no milestone after retiring it, and did not retire anything while over its quota, they hold
//     what [Reference] comes to over all that it said. Registers are left out where a clock jumped. Of a forked one commands may be
//     missing that were retired everywhere before the proof was heard.
//   - Who equivocated is forked for all, and nobody else is; Conflict finds what a plain search finds.
func Interleave(seed uint64, plant func() Mistake) (Seen, error) {
	w := newStory(seed, plant)
	for range 15 + w.rng.IntN(45) {
		if err := w.step(); err != nil {
			return w.seen, fmt.Errorf("seed %d: %w", seed, err)
		}
	}
	if err := w.settle(); err != nil {
		return w.seen, fmt.Errorf("seed %d: %w", seed, err)
	}
	return w.seen, nil
}

// story is one interleaving.
type story struct {
	rng      *rand.Rand
	seen     Seen
	authors  []*author
	replicas []*replica
	said     []fleet.Record
	// under way are records that have not arrived, and may never.
	underWay []delivery
	day      int64
	// zones of the writers, by the roster.
	zones map[fleet.MemberID]string
	// accused of equivocation by a proof that was said.
	accused fleet.MemberID
}

type delivery struct {
	to *replica
	r  fleet.Record
}

func newStory(seed uint64, plant func() Mistake) *story {
	w := &story{rng: rand.New(rand.NewPCG(seed, 7)), day: 20_000, zones: map[fleet.MemberID]string{}}
	for i := range 2 + w.rng.IntN(3) {
		manners := []manner{orderly, orderly, orderly, orderly, orderly, orderly, orderly, chatty, wild, wild}
		a := &author{rng: w.rng, id: writers()[i], manner: manners[w.rng.IntN(len(manners))], epoch: 1}
		w.authors, w.zones[a.id] = append(w.authors, a), zones[i%2]
	}
	for i := range 3 + w.rng.IntN(3) {
		r := &replica{disk: map[slot]fleet.Record{}, mistake: plant(), seen: &w.seen}
		if i >= 2 && w.rng.IntN(3) == 0 {
			r.zone = zones[w.rng.IntN(2)]
			w.seen.Partial++
		}
		w.replicas = append(w.replicas, r)
		w.divide(r)
		r.restart(w.rng)
	}
	return w
}

// divide by the roster as it is now, and what the replica carries.
func (w *story) divide(r *replica) {
	zoneOf := maps.Clone(w.zones)
	r.by = lattice.Division{ZoneOf: func(id fleet.MemberID) (string, bool) { zone, ok := zoneOf[id]; return zone, ok }}
	if zone := r.zone; zone != "" {
		r.by.Carries = func(s lattice.Share) bool { return s.Scope == fleet.ScopeFleet || s.Zone == zone }
	}
}

// reshape: a member moves to another zone, leaves the roster, or is there again; or a replica carries another zone's
// shares. All hear of it.
func (w *story) reshape() {
	r := w.replicas[w.rng.IntN(len(w.replicas))]
	if r.zone != "" && w.rng.IntN(2) == 0 {
		r.zone = zones[w.rng.IntN(2)]
	} else {
		id := w.authors[w.rng.IntN(len(w.authors))].id
		if w.zones[id] = zones[w.rng.IntN(2)]; w.rng.IntN(4) == 0 && id != writers()[1] {
			delete(w.zones, id)
		}
	}
	w.seen.Divided++
	for _, r := range w.replicas {
		w.divide(r)
		r.set.Divide(r.by)
	}
}

// step is one thing that happens.
func (w *story) step() error {
	switch w.rng.IntN(10) {
	default:
		if w.rng.IntN(20) == 0 {
			w.reshape()
		}
		return w.speak()
	case 5, 6:
		return w.arrive(8)
	case 7:
		if w.rng.IntN(3) == 0 {
			w.day += int64(1 + w.rng.IntN(20))
		}
		r := w.replicas[w.rng.IntN(len(w.replicas))]
		day := w.day
		if w.rng.IntN(20) == 0 {
			day += 400
			w.seen.Jumped++
		}
		r.age(day)
		return nil
	case 8:
		r := w.replicas[w.rng.IntN(len(w.replicas))]
		root := r.set.Root()
		w.seen.Restarted++
		if r.restart(w.rng); r.set.Root() != root {
			return fmt.Errorf("a restart changed what is held")
		}
		return nil
	case 9:
		from, to := w.replicas[w.rng.IntN(len(w.replicas))], w.replicas[w.rng.IntN(len(w.replicas))]
		for _, r := range slices.Collect(from.set.All()) {
			if w.rng.IntN(4) == 0 {
				if _, err := to.add(r); err != nil {
					return err
				}
			}
		}
		return nil
	}
}

// speak: what somebody says reaches one replica that carries everything, and is on its way to the others.
func (w *story) speak() error {
	a := w.authors[w.rng.IntN(len(w.authors))]
	records := a.say(w.day)
	if w.accused == "" && w.rng.IntN(400) == 0 {
		w.accused = writers()[0]
		records = append(records, proofOf0())
		w.seen.Forked++
	}
	for _, r := range records {
		w.said = append(w.said, r)
		if _, err := w.replicas[w.rng.IntN(2)].add(r); err != nil {
			return err
		}
		for _, to := range w.replicas {
			for range w.rng.IntN(3) {
				w.underWay = append(w.underWay, delivery{to, r})
			}
		}
	}
	return nil
}

func (w *story) arrive(most int) error {
	for range min(most, len(w.underWay)) {
		i, last := w.rng.IntN(len(w.underWay)), len(w.underWay)-1
		d := w.underWay[i]
		w.underWay[i] = w.underWay[last]
		w.underWay = w.underWay[:last]
		if _, err := d.to.add(d.r); err != nil {
			return err
		}
	}
	return nil
}

// settle: one day for all, and exchange until nothing changes.
func (w *story) settle() error {
	for _, r := range w.replicas {
		r.age(w.day)
	}
	for round := 0; ; round++ {
		if round > 2*len(w.replicas) {
			return fmt.Errorf("%d rounds of exchange, and still something changes", round)
		}
		moved := 0
		for i, a := range w.replicas {
			for _, b := range w.replicas[:i] {
				n, err := exchange(lattice.Salt{byte(round), 1}, a, b)
				if err != nil {
					return err
				}
				moved += n
			}
		}
		if moved == 0 {
			return w.check()
		}
	}
}

func (w *story) check() error {
	for i, a := range w.replicas {
		if err := a.check(); err != nil {
			return err
		}
		for _, b := range w.replicas[:i] {
			for _, share := range slices.Concat(a.set.Shares(), b.set.Shares()) {
				if a.carries(share) && b.carries(share) && a.set.ShareRoot(share) != b.set.ShareRoot(share) {
					return fmt.Errorf("all have exchanged, and share %v differs", share)
				}
			}
		}
		for _, author := range w.authors {
			if forked := author.id == w.accused; a.set.Forked(author.id) != forked {
				return fmt.Errorf("forked: %v, want %v", !forked, forked)
			}
		}
	}
	return w.checkAll()
}

// checkAll compares what those hold that carry everything with all that was said.
func (w *story) checkAll() error {
	held := slices.Collect(w.replicas[0].set.All())
	if may := Reference(held, w.day); len(may) != len(held) {
		return fmt.Errorf("%d records are held that should have been dropped", len(held)-len(may))
	}
	reference := Reference(w.said, w.day)
	for _, a := range w.authors {
		if _, there := w.zones[a.id]; !there || a.manner == wild {
			continue
		}
		compared := func(r fleet.Record) bool {
			return r.Writer == a.id && (w.seen.Jumped == 0 || r.Kind != fleet.KindRegister)
		}
		got, want := digests(only(held, compared)), digests(only(reference, compared))
		if a.id == w.accused {
			w.seen.Outlived += outlived(only(held, compared))
			want = slices.DeleteFunc(want, func(d fleet.Digest) bool { return !slices.Contains(got, d) && w.retired(a.id, d) })
		}
		if !slices.Equal(got, want) {
			return fmt.Errorf("%d records of a writer that kept the rules, want %d", len(got), len(want))
		}
	}
	if w.rng.IntN(8) == 0 {
		return w.checkConflicts(held)
	}
	return nil
}

// outlived counts the commands that a floor would retire, were its writer not forked.
func outlived(held []fleet.Record) (n int) {
	for i := range held {
		f, err := fleet.DecodeFloor(&held[i])
		for j := range held {
			if err == nil && f.Kind == fleet.KindCommand && f.Retires(&held[j]) {
				n++
			}
		}
	}
	return n
}

// retired: a command below a floor that its writer said at any time.
func (w *story) retired(writer fleet.MemberID, command fleet.Digest) bool {
	i := slices.IndexFunc(w.said, func(r fleet.Record) bool { return r.Digest() == command })
	return w.said[i].Kind == fleet.KindCommand && slices.ContainsFunc(w.said, func(r fleet.Record) bool {
		f, err := fleet.DecodeFloor(&r)
		return err == nil && r.Writer == writer && f.Retires(&w.said[i])
	})
}

func (w *story) checkConflicts(held []fleet.Record) error {
	for i := range w.said {
		r := &w.said[i]
		want := slices.ContainsFunc(held, func(h fleet.Record) bool {
			return h.Writer == r.Writer && h.Epoch == r.Epoch && h.Seq == r.Seq && h.Digest() != r.Digest()
		})
		found, got := w.replicas[0].set.Conflict(r)
		if got != want || got && (found.Writer != r.Writer || found.Epoch != r.Epoch || found.Seq != r.Seq) {
			return fmt.Errorf("conflict found: %v, a plain search: %v", got, want)
		}
		if got {
			w.seen.Conflicts++
		}
	}
	return nil
}

func only(records []fleet.Record, which func(fleet.Record) bool) []fleet.Record {
	return slices.DeleteFunc(slices.Clone(records), func(r fleet.Record) bool { return !which(r) })
}

// replica is a set with a disk under it.
type replica struct {
	set *lattice.Set
	by  lattice.Division
	// zone alone is carried beside the fleet's share; all where it is empty.
	zone    string
	disk    map[slot]fleet.Record
	day     int64
	mistake Mistake
	seen    *Seen
}

func (r *replica) carries(share lattice.Share) bool {
	return r.by.Carries == nil || r.by.Carries(share)
}

// add as a member does: to disk what is wanted, then into the set, then off the disk what was dropped.
func (r *replica) add(record fleet.Record) (news bool, err error) {
	if r.mistake.Refuses != nil && r.mistake.Refuses(r.set, &record) {
		return false, nil
	}
	wanted := r.set.Wants(&record)
	change := r.set.Add(record)
	if wanted != change.News {
		return false, fmt.Errorf("wanted: %v, and news: %v", wanted, change.News)
	}
	if change.News {
		r.disk[slotOf(&record)] = record
	}
	r.drop(change.Dropped)
	for i := range change.Dropped {
		switch d := &change.Dropped[i]; {
		case record.Kind == fleet.KindFloor:
			r.seen.Retired++
		case r.set.Over(record.Writer):
			r.seen.OverQuota++
		case d.Kind == fleet.KindSeal:
			r.seen.SealsGone++
		}
	}
	r.forget(&record)
	return change.News, nil
}

func (r *replica) drop(dropped []fleet.Record) {
	for i := range dropped {
		at := slotOf(&dropped[i])
		if held, ok := r.disk[at]; ok && held.Digest() == dropped[i].Digest() {
			delete(r.disk, at)
		}
	}
}

func (r *replica) age(day int64) {
	r.day = day
	dropped := r.set.Age(day)
	r.seen.Expired += len(dropped)
	r.drop(dropped)
	r.forget(nil)
}

// forget what a planted mistake forgets.
func (r *replica) forget(added *fleet.Record) {
	if r.mistake.Forgets == nil {
		return
	}
	before := len(r.disk)
	maps.DeleteFunc(r.disk, func(_ slot, held fleet.Record) bool { return r.mistake.Forgets(&held, added, r.day) })
	if len(r.disk) < before {
		r.restart(nil)
	}
}

// restart reads the disk, in any order.
func (r *replica) restart(rng *rand.Rand) {
	r.set = lattice.New()
	kept := slices.Collect(maps.Values(r.disk))
	if rng != nil { // the order of a map is not the seed's
		slices.SortFunc(kept, func(a, b fleet.Record) int {
			return cmp.Or(cmp.Compare(a.Writer, b.Writer), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Key, b.Key))
		})
		rng.Shuffle(len(kept), func(i, j int) { kept[i], kept[j] = kept[j], kept[i] })
	}
	r.set.Fill(slices.Values(kept))
	r.set.Divide(r.by)
	r.set.Age(r.day)
}

// check that the set holds what the disk does.
func (r *replica) check() error {
	held := slices.Collect(r.set.All())
	if len(held) != r.set.Len() || len(held) != len(r.disk) {
		return fmt.Errorf("%d records, %d of them in shares, %d on disk", r.set.Len(), len(held), len(r.disk))
	}
	for i := range held {
		if kept, ok := r.disk[slotOf(&held[i])]; !ok || kept.Epoch != held[i].Epoch || kept.Seq != held[i].Seq || !bytes.Equal(kept.Body, held[i].Body) {
			return fmt.Errorf("%s %q is not on disk", held[i].Kind, held[i].Key)
		}
	}
	return nil
}

// exchange reconciles what both carry, as two members do.
func exchange(salt lattice.Salt, a, b *replica) (moved int, err error) {
	shares := slices.Concat(a.set.Shares(), b.set.Shares())
	for _, share := range shares {
		if !a.carries(share) || !b.carries(share) || a.set.ShareRoot(share) == b.set.ShareRoot(share) {
			continue
		}
		asks := []lattice.Prefix{{}}
		for len(asks) > 0 {
			d := a.set.Diff(salt, share, b.set.Summary(salt, share, asks[0]))
			asks = append(asks[1:], d.Ask...)
			n, err := move(share, d.Want, b, a)
			if err != nil {
				return 0, err
			}
			m, err := move(share, d.Offer, a, b)
			if err != nil {
				return 0, err
			}
			moved += n + m
		}
	}
	return moved, nil
}

func move(share lattice.Share, positions []fleet.Digest, from, to *replica) (moved int, err error) {
	for _, p := range positions {
		r, ok := from.set.At(share, p)
		if !ok {
			continue // dropped meanwhile
		}
		news, err := to.add(r)
		if err != nil {
			return 0, err
		}
		if news {
			moved++
		}
	}
	return moved, nil
}
