// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
	"pgregory.net/rapid"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
)

// drawRecord of few writers, fleets and plans; nobody signed it.
func drawRecord(t *rapid.T) fleet.Record {
	thirtyTwo := func(what string, n byte) []byte {
		return bytes.Repeat([]byte{rapid.ByteRange(0, n).Draw(t, what)}, 32)
	}
	r := fleet.Record{
		Fleet: fleet.Digest(thirtyTwo("fleet", 1)), Writer: fleet.MemberIDOf(ed25519.PublicKey(thirtyTwo("writer", 3))),
		Epoch: rapid.Uint64().Draw(t, "epoch"), Seq: rapid.Uint64().Draw(t, "seq"),
		Sig: bytes.Repeat([]byte{rapid.Byte().Draw(t, "signature")}, signatureSize),
	}
	plan := fleet.Digest(thirtyTwo("plan", 3))
	fact := fleet.Fact{Plan: plan, Kind: fleet.FactKind(rapid.Byte().Draw(t, "milestone")), Time: rapid.Int64().Draw(t, "time"), Detail: rapid.StringN(0, 300, 300).Draw(t, "detail")}
	body := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "body")
	r.Kind, r.Key, r.Body = fleet.KindFact, fleet.FactKey(plan, fact.Kind), fact.Encode()
	switch rapid.IntRange(0, 8).Draw(t, "form") {
	case 0: // of another kind
		r.Kind, r.Body = fleet.Kind(rapid.Byte().Draw(t, "kind")), body
	case 1: // under another one's key
		r.Key = fleet.FactKey(plan, fact.Kind+1)
	case 2: // of a later version
		r.Body = append([]byte{fleet.WireVersion + 1}, body...)
	case 3: // one number in two spellings
		r.Key = fmt.Sprintf("%s/0%d", plan, fact.Kind)
	case 4:
		r.Key = strings.ToUpper(r.Key)
	case 5:
		r.Key = rapid.SampledFrom([]string{"", "a", plan.String(), plan.String() + "/", plan.String() + "/256", plan.String() + "/1/2"}).Draw(t, "key")
	case 6:
		r.Body = body
	case 7:
		r.Body = r.Body[:len(r.Body)-rapid.IntRange(0, 5).Draw(t, "cut")]
	}
	return r
}

// TestPackedRecordsComeBack to the byte, each under a place of its own.
func TestPackedRecordsComeBack(t *testing.T) {
	t.Parallel()
	var n names
	e := edit{names: &n, added: map[value]number{}, values: map[number]value{}}
	places := map[string]string{}
	rapid.Check(t, func(t *rapid.T) {
		r := drawRecord(t)
		at, ok := placeOf(&r, e.give)
		if !ok {
			t.Fatal("no place")
		}
		of, _ := e.give(value(r.Fleet))
		who := fmt.Sprint(r.Writer, r.Kind, " ", r.Key)
		if other, taken := places[string(at)]; taken && other != who {
			t.Fatalf("%s and %s lie in one place", who, other)
		}
		places[string(at)] = who
		rest := pack(&r, of)
		_, decodes := fleet.DecodeRecord(r.Encode())
		got, err := unpack(at, rest, e.name)
		if (err == nil) != (decodes == nil) || err == nil && !bytes.Equal(got.Encode(), r.Encode()) {
			t.Fatalf("%v: %v\n%x\n%x", r, err, got.Encode(), r.Encode())
		}
		bit := byte(1) << rapid.IntRange(0, 7).Draw(t, "bit")
		for i := range rest {
			rest[i] ^= bit
			if got, err := unpack(at, rest, e.name); err == nil && !bytes.Equal(got.Encode(), r.Encode()) {
				t.Fatalf("byte %d is wrong and nobody sees it", i)
			}
			rest[i] ^= bit
		}
	})
}

// TestNamesAreThoseThatRecordsUse: whatever was put and dropped, in the file are the values that its records use, and no
// others; and what is known of them is what is read of them at the next start.
func TestNamesAreThoseThatRecordsUse(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		path := filepath.Join(folder, rapid.StringMatching("[a-z]{16}").Draw(t, "file"))
		s, err := Open(path)
		noErrorOf(t, err)
		defer func() { _ = s.Close() }()
		s.db.NoSync = true
		for range rapid.IntRange(1, 8).Draw(t, "transactions") {
			records := rapid.SliceOfN(rapid.Custom(drawRecord), 1, 6).Draw(t, "records")
			if rapid.Bool().Draw(t, "puts") {
				noErrorOf(t, s.Put(records...))
				continue
			}
			set, _, err := s.Load()
			noErrorOf(t, err)
			for r := range set.All() {
				if rapid.Bool().Draw(t, "drops") {
					records = append(records, r)
				}
			}
			noErrorOf(t, s.Drop(records...))
		}
		var read names
		noErrorOf(t, s.db.View(func(tx *bbolt.Tx) (err error) {
			read, _, err = readNames(tx)
			return err
		}))
		if len(read.held) != len(s.names.held) || len(read.numbers) != len(read.held) || len(s.names.numbers) != len(read.held) {
			t.Fatalf("%d names in the file, %d in memory", len(read.held), len(s.names.held))
		}
		for k, held := range read.held {
			if known := s.names.held[k]; known == nil || *known != *held || held.uses <= 0 {
				t.Fatalf("number %d: in the file %+v, in memory %+v", k, held, known)
			}
		}
	})
}

func noErrorOf(t *rapid.T, err error) {
	if err != nil {
		t.Fatal(err)
	}
}

// TestNamesAreMended: what one flipped bit does to a value that all records use, none of them notices; of one whose copies
// are both gone, the records are set apart, and its number is given to nobody while they lie there.
func TestNamesAreMended(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		damage          func(k, v []byte) (key, value []byte)
		mended, records int
	}{
		"first copy":  {func(k, v []byte) ([]byte, []byte) { v[10] ^= 1; return k, v }, 1, 20},
		"second copy": {func(k, v []byte) ([]byte, []byte) { v[nameCopy+10] ^= 1; return k, v }, 1, 20},
		"its key":     {func(k, v []byte) ([]byte, []byte) { return append(k, 1), v }, 1, 20},
		"cut":         {func(k, v []byte) ([]byte, []byte) { return k, v[:nameCopy+3] }, 1, 20},
		"both copies": {func(k, v []byte) ([]byte, []byte) { v[10], v[nameCopy+10] = 0xff, 0xff; return k, v }, 0, 15},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "state.db")
			s, err := Open(path)
			noError(t, err)
			var records []fleet.Record
			for i := range 20 {
				r := fleet.Record{Fleet: fleet.Digest{1}, Kind: fleet.KindRegister, Key: fmt.Sprint(i), Seq: uint64(i), Sig: make([]byte, signatureSize)}
				r.Writer = fleet.MemberIDOf(bytes.Repeat([]byte{byte(i % 4)}, 32))
				records = append(records, r)
			}
			noError(t, s.Put(records...))
			victim, _ := s.names.number(value(bytes.Repeat([]byte{2}, 32)))
			noError(t, s.db.Update(func(tx *bbolt.Tx) error {
				words := tx.Bucket(bucketNames)
				key, content := c.damage(victim.key(), bytes.Clone(words.Get(victim.key())))
				return errors.Join(words.Delete(victim.key()), words.Put(key, content))
			}))
			noError(t, s.Close())
			for _, start := range []string{"first", "second"} {
				s, err = Open(path)
				noError(t, err)
				set, bad, err := s.Load()
				noError(t, err)
				if start == "first" && (s.Opened().Mended != c.mended || bad != 20-c.records) || start == "second" && (s.Opened().Mended != 0 || bad != 0) ||
					set.Len() != c.records {
					t.Errorf("%s start: %d records, %d bad, %+v", start, set.Len(), bad, s.Opened())
				}
				if start == "first" {
					noError(t, s.Close())
				}
			}
			noError(t, s.Put(records...))
			if set, bad, _ := s.Load(); set.Len() != 20 || bad != 0 {
				t.Errorf("%d records come back, %d bad", set.Len(), bad)
			}
			noError(t, s.Close())
			if r, err := Check(path, fleet.Digest{}); err != nil || r.Unreadable != 20-c.records {
				t.Errorf("%+v %v", r, err)
			}
		})
	}
}

// TestLostNumberIsGivenToNobody, at no later start either: what was set apart under it would come to be somebody else's.
func TestLostNumberIsGivenToNobody(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.db")
	by := func(writer byte) fleet.Record {
		return fleet.Record{
			Fleet: fleet.Digest{1}, Writer: fleet.MemberIDOf(bytes.Repeat([]byte{writer}, 32)), Kind: fleet.KindCommand,
			Key: "shop/web/Pause", Seq: 1, Sig: make([]byte, signatureSize),
		}
	}
	s, err := Open(path)
	noError(t, err)
	noError(t, s.Put(by(1)))
	noError(t, s.Put(by(2)))
	lost, _ := s.names.number(value(bytes.Repeat([]byte{2}, 32)))
	if lost != s.names.last {
		t.Fatalf("number %d is not the last, %d", lost, s.names.last)
	}
	noError(t, s.db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketNames).Put(lost.key(), make([]byte, 2*nameCopy))
	}))
	for start := range 3 {
		noError(t, s.Close())
		s, err = Open(path)
		noError(t, err)
		if _, bad, err := s.Load(); err != nil || bad != map[bool]int{true: 1}[start == 0] {
			t.Fatalf("start %d: %d bad, %v", start, bad, err)
		}
		if start == 1 {
			noError(t, s.Put(by(3)))
		}
		heads, err := s.SetApart()
		noError(t, err)
		if len(heads) != 0 || start > 0 && s.names.held[lost] != nil {
			t.Errorf("start %d: what was set apart is said to be by %v", start, heads)
		}
	}
	noError(t, s.Close())
}

// TestFactsOfAPlanLieTogether, whoever said them: they come together, and are retired together.
func TestFactsOfAPlanLieTogether(t *testing.T) {
	var e edit
	e.names, e.added, e.values = &names{}, map[value]number{}, map[number]value{}
	var before []byte
	for plan := range 3 {
		for writer := range 5 {
			digest := fleet.Digest{byte(plan)}
			r := fleet.Record{Kind: fleet.KindFact, Key: fleet.FactKey(digest, fleet.Started), Writer: fleet.MemberIDOf(bytes.Repeat([]byte{byte(10 + writer)}, 32))}
			at, ok := placeOf(&r, e.give)
			if !ok || bytes.Compare(at, before) <= 0 || len(at) != 2+2*numberSize {
				t.Errorf("plan %d, writer %d: %x after %x", plan, writer, at, before)
			}
			before = at
		}
	}
}

func TestUnsignedIsNotStored(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "state.db"))
	noError(t, err)
	defer func() { noError(t, s.Close()) }()
	good := fleet.Record{Kind: fleet.KindRegister, Key: "k", Sig: make([]byte, signatureSize), Writer: fleet.MemberIDOf(make([]byte, 32))}
	short, nobody := good, good
	short.Sig, nobody.Writer = nil, "12D3KooW"
	for _, r := range []fleet.Record{short, nobody} {
		if err := s.Put(good, r); fleet.KindOf(err) != fleet.Terminal {
			t.Errorf("%v", err)
		}
	}
	if set, _, _ := s.Load(); set.Len() != 0 || len(s.names.held) != 0 {
		t.Errorf("%d records, %d names after an error", set.Len(), len(s.names.held))
	}
}

// TestWhatHasNoPlaceLeavesTheDisk: retired by a floor, over the quota, and a register that ends and does not say when it
// was said.
func TestWhatHasNoPlaceLeavesTheDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	s, err := Open(path)
	noError(t, err)
	writer := fleet.MemberIDOf(bytes.Repeat([]byte{7}, 32))
	record := func(kind fleet.Kind, key string, seq int) fleet.Record {
		return fleet.Record{Fleet: fleet.Digest{1}, Writer: writer, Kind: kind, Key: key, Epoch: 1, Seq: uint64(seq), Sig: make([]byte, signatureSize)}
	}
	var records []fleet.Record
	quota := fleet.KindCommand.Quota()
	for i := range quota + 10 { // ten over the quota, but the first ten are retired
		records = append(records, record(fleet.KindCommand, fmt.Sprintf("shop/web/%06d", i), i+1))
	}
	for i := range fleet.Kind(77).Quota() + 5 {
		records = append(records, record(77, fmt.Sprintf("%06d", i), 5000+i))
	}
	ended := record(fleet.KindRegister, fleet.StatusKey(fleet.RolloutName{Namespace: "shop", Name: "web"}), 8000)
	ended.Body = []byte(`{"rollout":{"namespace":"shop","name":"web"},"phase":"Ready","time":0}`) // an older version let it in
	records = append(records, ended)
	floor := record(fleet.KindFloor, fleet.FloorKey(fleet.KindCommand), 9000)
	floor.Body = fleet.Floor{Kind: fleet.KindCommand, Epoch: 1, Seq: 11}.Encode()
	noError(t, s.Put(append(records, floor)...))
	noError(t, s.Close())

	s, err = Open(path)
	noError(t, err)
	set, bad, err := s.Load()
	noError(t, err)
	want := quota + fleet.Kind(77).Quota() + 1
	if set.Len() != want || bad != 0 {
		t.Errorf("%d records, %d bad, want %d", set.Len(), bad, want)
	}
	if _, ok := set.Get(writer, fleet.KindCommand, records[quota+9].Key); !ok {
		t.Error("what is retired took the room of what is not")
	}
	noError(t, s.Close())
	if r, err := Check(path, fleet.Digest{}); err != nil || len(r.Findings) == 0 { // nobody signed them
		t.Errorf("%+v %v", r, err)
	}
	s, err = Open(path)
	noError(t, err)
	defer func() { noError(t, s.Close()) }()
	onDisk := 0
	noError(t, s.db.View(func(tx *bbolt.Tx) error {
		onDisk = tx.Bucket(bucketPacked).Stats().KeyN
		return nil
	}))
	if onDisk != want {
		t.Errorf("%d records on disk, want %d", onDisk, want)
	}
	if again, _, err := s.Load(); err != nil || again.Root() != set.Root() {
		t.Errorf("another set at the next start, %v", err)
	}
}

// FuzzUnpack: nothing on a disk makes it panic, and what it gives is what some record is, to the byte.
func FuzzUnpack(f *testing.F) {
	var n names
	e := edit{names: &n, added: map[value]number{}, values: map[number]value{}}
	fact := fleet.Fact{Plan: fleet.Digest{3}, Kind: fleet.Started, Time: 1_795_000_000, Detail: "d"}
	for _, r := range []fleet.Record{
		{Kind: fleet.KindFact, Key: fleet.FactKey(fact.Plan, fact.Kind), Body: fact.Encode()}, {Kind: fleet.KindRegister, Key: "k", Body: []byte("body")},
	} {
		r.Fleet, r.Writer, r.Sig = fleet.Digest{1}, fleet.MemberIDOf(bytes.Repeat([]byte{2}, 32)), make([]byte, signatureSize)
		at, _ := placeOf(&r, e.give)
		of, _ := e.give(value(r.Fleet))
		f.Add(at, pack(&r, of))
	}
	f.Fuzz(func(t *testing.T, at, rest []byte) {
		r, err := unpack(at, rest, e.name)
		if err != nil {
			return
		}
		of, _ := e.give(value(r.Fleet))
		again, ok := placeOf(&r, e.number)
		if !ok || !bytes.Equal(at, again) {
			t.Fatalf("of place %x, to place %x", at, again)
		}
		held, err := unpack(again, pack(&r, of), e.name)
		if err != nil || held.Digest() != r.Digest() || lattice.Supersedes(&held, &r) {
			t.Fatalf("packed again: %v", err)
		}
	})
}
