// SPDX-License-Identifier: Apache-2.0

package store

import (
	"encoding/binary"
	"hash/crc32"
	"maps"
	"math"
	"slices"

	"go.etcd.io/bbolt"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// A fleet's records say a few values of 32 bytes over and over: the fleet's digest, their writers' keys, the digests of
// plans. On disk each of these is written once, under a number, for as long as a record uses it. A damaged one would
// take all the records that use it along, so each is written twice, side by side.

// value of 32 bytes: a digest or a key.
type value [32]byte

// number of a value in one file; zero is none.
type number uint32

const (
	numberSize = 4
	// nameCopy is a number, the value, and a checksum of both.
	nameCopy = numberSize + len(value{}) + 4
	// nameFill: new numbers come at the end.
	nameFill = 0.9
)

// name is a value while records use it.
type name struct {
	value value
	// writer is the member whose key the value is.
	writer fleet.MemberID
	uses   int
}

// names of a file, as its last transaction left them.
type names struct {
	numbers map[value]number
	held    map[number]*name
	// last number that was given. None is given again while it is in a record, readable or not: nameless are those whose
	// values are lost.
	last     number
	nameless map[number]bool
	// mended are values of which one copy was damaged, lost those of which both were.
	mended, lost int
}

func (k number) key() []byte { return binary.BigEndian.AppendUint32(nil, uint32(k)) }

func encodeName(k number, v value) []byte {
	b := append(k.key(), v[:]...)
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	return append(b, b...)
}

// decodeName gives what the first copy says that has its checksum; ok counts those that have.
func decodeName(b []byte) (k number, v value, ok int) {
	for ; len(b) >= nameCopy; b = b[nameCopy:] {
		body := b[:nameCopy-4]
		if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(b[nameCopy-4:]) {
			continue
		}
		if ok++; ok == 1 {
			k, v = number(binary.BigEndian.Uint32(body)), value(body[numberSize:])
		}
	}
	return k, v, ok
}

// readNames of a file of this schema, and how often records use each. The values say their numbers themselves, so that a
// damaged key does no harm. It gives the keys of those that are not as they were written.
func readNames(tx *bbolt.Tx) (n names, damaged [][]byte, err error) {
	n = names{numbers: map[value]number{}, held: map[number]*name{}, nameless: map[number]bool{}}
	err = tx.Bucket(bucketNames).ForEach(func(key, b []byte) error {
		k, v, ok := decodeName(b)
		if k == 0 {
			ok = 0
		}
		if ok > 0 {
			n.numbers[v], n.held[k] = k, &name{value: v, writer: fleet.MemberIDOf(v[:])}
			n.last = max(n.last, k)
		}
		switch {
		case ok == 0:
			n.lost++
		case ok != 2 || len(b) != 2*nameCopy || string(key) != string(k.key()):
			n.mended++
		default:
			return nil
		}
		damaged = append(damaged, slices.Clone(key))
		return nil
	})
	if err != nil {
		return n, nil, err
	}
	err = tx.Bucket(bucketPacked).ForEach(func(key, packed []byte) error {
		for _, k := range numbersIn(key, packed) {
			n.last = max(n.last, k)
			n.use(k)
		}
		return nil
	})
	if err != nil {
		return n, nil, err
	}
	// What was set apart still says by its place whose it was, and must not come to say that it was somebody else's. What
	// an older schema set apart does not: its numbers are none.
	err = tx.Bucket(bucketQuarantine).ForEach(func(key, packed []byte) error {
		for _, k := range numbersIn(key, packed) {
			n.use(k)
		}
		return nil
	})
	return n, damaged, err
}

// use a number once more, while names are read.
func (n *names) use(k number) {
	if held := n.held[k]; held != nil {
		held.uses++
		return
	}
	n.nameless[k] = true
}

// mend writes the values that were damaged anew, and takes out what cannot be read and what no record uses.
func (n *names) mend(tx *bbolt.Tx, damaged [][]byte) error {
	bucket := tx.Bucket(bucketNames)
	for _, key := range damaged {
		if err := bucket.Delete(key); err != nil {
			return err
		}
	}
	for _, k := range slices.Sorted(maps.Keys(n.held)) {
		held := n.held[k]
		if held.uses == 0 {
			if err := bucket.Delete(k.key()); err != nil {
				return err
			}
			delete(n.numbers, held.value)
			delete(n.held, k)
			continue
		}
		if len(damaged) > 0 && bucket.Get(k.key()) == nil {
			if err := bucket.Put(k.key(), encodeName(k, held.value)); err != nil {
				return err
			}
		}
	}
	return nil
}

// number of a value that some record uses.
func (n *names) number(v value) (number, bool) {
	k, ok := n.numbers[v]
	return k, ok
}

// name under a number; nil where there is none.
func (n *names) name(k number) *name { return n.held[k] }

// edit is what one transaction does to records and to the names that they use. What it gives out may be of use to nobody
// in the end: keep takes that out again.
type edit struct {
	names   *names
	records *bbolt.Bucket
	words   *bbolt.Bucket
	// apart is what did not read back.
	apart  *bbolt.Bucket
	added  map[value]number
	values map[number]value
	uses   map[number]int
	last   number
	// changed: there is something to write.
	changed bool
}

func (n *names) edit(tx *bbolt.Tx) *edit {
	e := &edit{
		names: n, records: tx.Bucket(bucketPacked), words: tx.Bucket(bucketNames), apart: tx.Bucket(bucketQuarantine), last: n.last,
		added: map[value]number{}, values: map[number]value{}, uses: map[number]int{},
	}
	e.records.FillPercent, e.words.FillPercent = recordFill, nameFill
	return e
}

func (e *edit) number(v value) (number, bool) {
	if k, ok := e.names.numbers[v]; ok {
		return k, true
	}
	k, ok := e.added[v]
	return k, ok
}

func (e *edit) name(k number) *name {
	if held := e.names.held[k]; held != nil {
		return held
	}
	if v, ok := e.values[k]; ok {
		return &name{value: v, writer: fleet.MemberIDOf(v[:])}
	}
	return nil
}

// give a value its number, a new one where it has none.
func (e *edit) give(v value) (number, bool) {
	if k, ok := e.number(v); ok {
		return k, true
	}
	for {
		if e.last == math.MaxUint32 {
			e.last = 0
		}
		e.last++
		_, taken := e.values[e.last]
		if e.names.held[e.last] == nil && !e.names.nameless[e.last] && !taken {
			break
		}
	}
	e.added[v], e.values[e.last] = e.last, v
	return e.last, true
}

func (e *edit) put(key, packed []byte) error {
	for _, k := range numbersIn(key, packed) {
		e.uses[k]++
	}
	e.unused(key, e.records.Get(key))
	e.changed = true
	if err := e.readAgain(key); err != nil {
		return err
	}
	return e.records.Put(key, packed)
}

func (e *edit) delete(key []byte) error {
	e.unused(key, e.records.Get(key))
	e.changed = true
	if err := e.readAgain(key); err != nil {
		return err
	}
	return e.records.Delete(key)
}

// unused are the names in what goes.
func (e *edit) unused(key, packed []byte) {
	for _, k := range numbersIn(key, packed) {
		e.uses[k]--
	}
}

// readAgain takes out what did not read back in a place where a record lies that does. When that one is retired, nothing is
// missing there any more.
func (e *edit) readAgain(key []byte) error {
	old := e.apart.Get(key)
	if old == nil {
		return nil
	}
	e.unused(key, old)
	return e.apart.Delete(key)
}

// setApart what does not read back. It goes on using the names in its place.
func (e *edit) setApart(key, packed []byte) error {
	e.changed = true
	e.unused(key, e.apart.Get(key))
	if err := e.apart.Put(key, packed); err != nil {
		return err
	}
	return e.records.Delete(key)
}

// settle writes the names that are new and takes out those that no record uses any more.
func (e *edit) settle() error {
	for _, k := range slices.Sorted(maps.Keys(e.uses)) {
		held := e.names.held[k]
		v, fresh := e.values[k]
		var err error
		switch {
		case fresh && e.uses[k] > 0:
			err = e.words.Put(k.key(), encodeName(k, v))
		case held != nil && held.uses+e.uses[k] <= 0:
			err = e.words.Delete(k.key())
		}
		if err != nil {
			return err
		}
	}
	return unlessChanged(e.changed)
}

// keep what settle wrote, when it is on disk.
func (e *edit) keep() {
	n := e.names
	n.last = e.last
	for k, uses := range e.uses {
		held := n.held[k]
		if v, fresh := e.values[k]; fresh && uses > 0 {
			held = &name{value: v, writer: fleet.MemberIDOf(v[:])}
			n.held[k], n.numbers[v] = held, k
		}
		if held == nil {
			continue
		}
		if held.uses += uses; held.uses <= 0 {
			delete(n.held, k)
			delete(n.numbers, held.value)
		}
	}
}
