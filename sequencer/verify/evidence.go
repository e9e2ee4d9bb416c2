// SPDX-License-Identifier: Apache-2.0

// Package verify answers: did the fleet keep its rules, by what its members signed?
//
// It is given records, seals and a roster, and believes nobody: every signature is checked, every plan is compiled
// anew, and whether a start was justified is counted here, without the code that allowed it. Evidence only grows (I21), so a start
// that all the facts held now do not justify was never justified; or a fact is missing, and then the
// finding says whose.
//
// What it cannot see is the order in which members heard of each other: no record says what its writer had heard. Within one
// member positions give the order; between two, their clocks hint at it, and a hint is never a verdict.
package verify

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// Evidence is what was exported of a fleet.
type Evidence struct {
	Fleet fleet.Digest
	// Roster is whom to believe: names for keys.
	Roster []fleet.Member
	// Seals that nobody need have signed: whoever signed a milestone of a plan has named its seal by hash.
	Seals []fleet.Seal
	// Bodies of seals.
	Bodies [][]byte
	// Records as they were signed. Several under one key are welcome: that is how a second word is found.
	Records []fleet.Record
	// Complete are the members that held nothing which is not here, by the word of those who exported. Without it
	// a fact that is not here may only not have arrived.
	Complete map[fleet.MemberID]bool
	// Views are those of them of whose view all is here; filled in by Join.
	Views map[fleet.MemberID]bool
	// Zoned: members carry parts of the state, so who is complete need not have kept what it once decided by.
	Zoned bool
}

// Join adds what another export holds. Nothing is replaced: of two rosters all members count. Two fleets do not join.
func (e *Evidence) Join(other Evidence) error {
	if e.Fleet != other.Fleet {
		return fmt.Errorf("evidence of two fleets (%s and %s) says nothing about either", e.Fleet.Short(), other.Fleet.Short())
	}
	roster := map[string]bool{}
	for i := range e.Roster {
		roster[identity(&e.Roster[i])] = true
	}
	for i := range other.Roster {
		if key := identity(&other.Roster[i]); !roster[key] {
			roster[key] = true
			e.Roster = append(e.Roster, other.Roster[i])
		}
	}
	e.Seals = append(e.Seals, other.Seals...)
	e.Bodies = append(e.Bodies, other.Bodies...)
	e.Records = append(e.Records, other.Records...)
	views := e.held()
	maps.Copy(views, other.held())
	e.Views = views
	complete := maps.Clone(e.Complete)
	if complete == nil {
		complete = map[fleet.MemberID]bool{}
	}
	maps.Copy(complete, other.Complete)
	e.Complete, e.Zoned = complete, e.Zoned || other.Zoned
	return nil
}

// held gives the members of which all is here that they decided by. A member that is alone has all that it said itself, for
// its promises say that again; what it heard of others it may have lost with its store. Whoever is in the same state as another one
// has got it back.
func (e *Evidence) held() map[fleet.MemberID]bool {
	views := map[fleet.MemberID]bool{}
	if e.Views != nil {
		maps.Copy(views, e.Views)
	} else if len(e.Complete) > 1 || len(e.Roster) == 1 {
		maps.Copy(views, e.Complete)
	}
	return views
}

// identity of a member on a roster: a cluster that was built again has the name of the one before, and another key.
func identity(m *fleet.Member) string { return string(m.ID) + "/" + string(m.Name) }

// position of a record among those of its writer.
type position struct{ epoch, seq uint64 }

func positionOf(r *fleet.Record) position { return position{r.Epoch, r.Seq} }

func (p position) before(q position) bool { return p.compare(q) < 0 }

func (p position) compare(q position) int {
	return cmp.Or(cmp.Compare(p.epoch, q.epoch), cmp.Compare(p.seq, q.seq))
}

// word is one record that was read and believed to be its writer's.
type word struct {
	record *fleet.Record
	id     fleet.Digest
	at     position
	time   int64
	what   string
	// forged: it bears no signature of its writer.
	forged bool
}

// said for people.
func (b *book) said(w *word) Said {
	out := Said{
		Record: w.id, Writer: b.name(w.record.Writer), WriterID: w.record.Writer,
		Epoch: w.at.epoch, Seq: w.at.seq, What: w.what, Time: w.time, Forged: w.forged,
	}
	if f, err := fleet.DecodeFact(w.record); err == nil && b.released[f.Plan] != "" {
		out.What = f.Kind.String() + " of " + b.released[f.Plan].Short()
	}
	return out
}

const kinds = int(fleet.Yielded) + 1

// milestones of one member in one plan, by kind.
type milestones [kinds]*word

func (m *milestones) has(either ...fleet.FactKind) bool { return m.first(either...) != nil }

// first of the kinds that was said, in the order of the question.
func (m *milestones) first(either ...fleet.FactKind) *word {
	if m == nil {
		return nil
	}
	for _, k := range either {
		if m[k] != nil {
			return m[k]
		}
	}
	return nil
}

// book is the evidence, read.
type book struct {
	*Evidence
	names  map[fleet.MemberID]fleet.Name
	roster map[fleet.MemberID]bool
	// facts by plan and member; commands by rollout, in the order of their digests.
	facts    map[fleet.Digest]map[fleet.MemberID]*milestones
	commands map[fleet.RolloutName][]command
	floors   map[fleet.MemberID][]fleet.Floor
	// removed are members against whom there is a proof.
	removed map[fleet.MemberID]bool
	// seals by digest; signed are those whose author's record is here.
	seals  map[fleet.Digest]fleet.Seal
	signed map[fleet.Digest]*word
	bodies map[fleet.Digest][]byte
	// revisions that anybody said a plan is of.
	revisions map[fleet.Digest]map[fleet.Revision]bool
	// released is which revision each plan is of that could be compiled.
	released map[fleet.Digest]fleet.Revision
	writers  map[fleet.MemberID]int
	// all plans; lostWords and olderThan remember what was found out about them.
	all       []*plan
	lostWords map[lostKey]bool
	olderThan map[[2]fleet.Digest]bool
	result    *Result
}

type command struct {
	fleet.Command
	word *word
}

// read all records, once each, in an order that does not depend on how they came.
func read(e *Evidence, result *Result) *book {
	b := &book{
		Evidence: e, result: result,
		names: map[fleet.MemberID]fleet.Name{}, roster: map[fleet.MemberID]bool{},
		facts: map[fleet.Digest]map[fleet.MemberID]*milestones{}, commands: map[fleet.RolloutName][]command{},
		floors: map[fleet.MemberID][]fleet.Floor{}, removed: map[fleet.MemberID]bool{},
		seals: map[fleet.Digest]fleet.Seal{}, signed: map[fleet.Digest]*word{}, bodies: map[fleet.Digest][]byte{},
		revisions: map[fleet.Digest]map[fleet.Revision]bool{}, writers: map[fleet.MemberID]int{},
		released:  map[fleet.Digest]fleet.Revision{},
		lostWords: map[lostKey]bool{}, olderThan: map[[2]fleet.Digest]bool{},
	}
	for i := range e.Roster {
		b.names[e.Roster[i].ID], b.roster[e.Roster[i].ID] = e.Roster[i].Name, true
	}
	b.Views = e.held()
	for _, body := range e.Bodies {
		b.bodies[fleet.BlobDigest(body)] = body
	}
	for _, s := range e.Seals {
		b.seals[s.Digest()] = s
	}
	b.readRecords()
	return b
}

func (b *book) readRecords() {
	type held struct {
		record *fleet.Record
		id     fleet.Digest
	}
	records := make([]held, 0, len(b.Records))
	seen := make(map[fleet.Digest]bool, len(b.Records))
	for i := range b.Records {
		r := &b.Records[i]
		if id := r.Digest(); !seen[id] {
			seen[id] = true
			records = append(records, held{r, id})
		}
	}
	slices.SortFunc(records, func(x, y held) int {
		return cmp.Or(cmp.Compare(x.record.Writer, y.record.Writer), positionOf(x.record).compare(positionOf(y.record)), bytes.Compare(x.id[:], y.id[:]))
	})
	b.result.Records = len(records)
	for i := range records {
		r := records[i].record
		w := &word{record: r, id: records[i].id, at: positionOf(r), what: r.Kind.String() + " " + r.Key}
		b.result.check(ruleSigned)
		b.result.check(ruleOneWord)
		if err := r.Verify(b.Fleet); err != nil {
			w.forged = true
			b.broken(ruleSigned, finding{story: fmt.Sprintf("a record does not bear its writer's signature: %v", err), words: []*word{w}})
			continue
		}
		b.writers[r.Writer]++
		if err := b.learn(w); err != nil {
			b.broken(ruleSigned, finding{member: r.Writer, story: fmt.Sprintf("it signed what does not read as a %s: %v", r.Kind, err), words: []*word{w}})
		}
		if i > 0 && records[i-1].record.Writer == r.Writer && positionOf(records[i-1].record) == w.at {
			b.secondWord(records[i-1].record, records[i-1].id, w)
		}
	}
}

// secondWord: one member signed two records in one position.
func (b *book) secondWord(before *fleet.Record, id fleet.Digest, w *word) {
	if before.Verify(b.Fleet) != nil {
		return
	}
	b.removed[w.record.Writer] = true
	first := &word{record: before, id: id, at: positionOf(before), what: describe(before)}
	b.broken(ruleOneWord, finding{member: w.record.Writer, story: "it signed two records in one position", words: []*word{first, w}})
}

// learn one record. Milestones stay as they were said first.
func (b *book) learn(w *word) error {
	r := w.record
	w.what = describe(r)
	switch r.Kind {
	case fleet.KindFact:
		return b.learnFact(w)
	case fleet.KindCommand:
		c, err := fleet.DecodeCommand(r)
		if err != nil {
			return err
		}
		w.time = c.Time
		b.commands[c.Rollout] = append(b.commands[c.Rollout], command{c, w})
	case fleet.KindSeal:
		s, err := fleet.DecodeSeal(r)
		if err != nil {
			return err
		}
		b.seals[s.Digest()], b.signed[s.Digest()] = s, w
	case fleet.KindFloor:
		f, err := fleet.DecodeFloor(r)
		if err != nil {
			return err
		}
		b.floors[r.Writer] = append(b.floors[r.Writer], f)
	case fleet.KindProof:
		p, err := fleet.DecodeProof(r)
		if err != nil {
			return err
		}
		b.proof(w, &p)
	case fleet.KindRegister:
		if s, err := fleet.DecodeStatus(r); err == nil && s.Accepted != "" { // other registers are none of ours
			b.revision(s.Plan, s.Accepted)
		}
	}
	return nil
}

func (b *book) learnFact(w *word) error {
	f, err := fleet.DecodeFact(w.record)
	if err != nil {
		return err
	}
	w.time = f.Time
	if int(f.Kind) >= kinds || f.Kind == 0 {
		return nil // of a newer version; nothing here is decided by it
	}
	of := b.facts[f.Plan]
	if of == nil {
		of = map[fleet.MemberID]*milestones{}
		b.facts[f.Plan] = of
	}
	if of[f.Member] == nil {
		of[f.Member] = &milestones{}
	}
	if of[f.Member][f.Kind] == nil { // records come in the order of their positions
		of[f.Member][f.Kind] = w
	}
	if (f.Kind == fleet.Accepted || f.Kind == fleet.Started) && f.Detail != "" { // which say of what, for people
		b.revision(f.Plan, fleet.Revision(f.Detail))
	}
	return nil
}

func (b *book) proof(w *word, p *fleet.Proof) {
	accused := p.A.Writer
	if b.removed[accused] {
		return // once is enough, whoever tells it
	}
	b.removed[accused] = true
	words := []*word{w}
	for _, r := range []*fleet.Record{&p.A, &p.B} {
		words = append(words, &word{record: r, id: r.Digest(), at: positionOf(r), what: describe(r)})
	}
	b.broken(ruleOneWord, finding{member: accused, story: "it signed two records in one position; " + string(b.name(w.record.Writer)) + " proved it", words: words})
}

func (b *book) revision(plan fleet.Digest, r fleet.Revision) {
	if b.revisions[plan] == nil {
		b.revisions[plan] = map[fleet.Revision]bool{}
	}
	b.revisions[plan][r] = true
}

// name of a member; the end of its ID where no roster names it.
func (b *book) name(id fleet.MemberID) fleet.Name {
	if name, ok := b.names[id]; ok {
		return name
	}
	return fleet.Name(id[max(0, len(id)-8):])
}

// describe a record in a few words.
func describe(r *fleet.Record) string {
	switch r.Kind {
	case fleet.KindFact:
		if f, err := fleet.DecodeFact(r); err == nil {
			return f.Kind.String() + " of plan " + f.Plan.Short()
		}
	case fleet.KindCommand:
		if c, err := fleet.DecodeCommand(r); err == nil {
			return c.Verb.String() + " of " + c.Rollout.String()
		}
	case fleet.KindSeal:
		if s, err := fleet.DecodeSeal(r); err == nil {
			return fmt.Sprintf("seal %d of %s", s.Number, s.Rollout)
		}
	}
	return r.Kind.String() + " " + r.Key
}
