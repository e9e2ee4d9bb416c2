// SPDX-License-Identifier: Apache-2.0

// Package store answers: what did this member know before it was restarted?
//
// One bbolt file holds the records of a [lattice.Set], blobs under their digests, and a few values of
// the agent's own. Every change is one transaction that is on disk when the call returns. All of
// it but the member's own last words can be had from other members again, so a file that is damaged is
// moved aside and begun anew rather than mended.
package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"sync"

	"go.etcd.io/bbolt"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
)

// Schema is the version of the file's layout and its history.
//
//	1  2026-11: records by position with a checksum, blobs by digest, meta, quarantine
//	2  2026-11: values of meta with a checksum, the digests of poison
//	3  2026-11: records packed, and what they repeat once (packed.go, names.go)
const Schema = 3

var (
	bucketRecords    = []byte("records") // up to schema 2
	bucketPacked     = []byte("packed")
	bucketNames      = []byte("names")
	bucketBlobs      = []byte("blobs")
	bucketMeta       = []byte("meta")
	bucketQuarantine = []byte("quarantine") // what does not read back as it was written
	bucketPoison     = []byte("poison")     // what reads back, and ends who acts on it
	keySchema        = []byte("schema")
)

// Store is one file. It is safe for concurrent use and starts no goroutine. One process at a
// time holds it.
type Store struct {
	db     *bbolt.DB
	opened Opened
	marker marker
	// slack is how many bytes of its pages nothing lay in when the file was opened.
	slack int64

	// mu is held by whoever reads or writes records, until names are what the transaction made of them.
	mu    sync.Mutex
	names names
	// unread are records that did not read back when the file was brought up to this schema.
	unread int
	// passedOver are the places of records that did not read back, and could not be set apart: the disk took no write.
	passedOver []string
}

// Opened tells what Open met.
type Opened struct {
	// Recovered: the file was damaged, lies beside the new one now, and the member begins with nothing.
	Recovered bool
	// Behind: one of the two pages that say where everything is was damaged, and the file is sound without it. What was written
	// last may be missing, as after a power cut while it was being written.
	Behind bool
	// Detail says what was wrong and where the damaged file is, for people.
	Detail string
	// Mended are values that records use and of which one of two copies was damaged.
	Mended int
	// Compacted is how many bytes of free pages were given back to the disk.
	Compacted int64
}

// Opened tells what Open met.
func (s *Store) Opened() Opened { return s.opened }

// Close releases the file. Nothing may be called afterwards.
func (s *Store) Close() error {
	if err := errors.Join(s.marker.close(), s.db.Close()); err != nil {
		return fmt.Errorf("closing the store: %w", err)
	}
	return nil
}

// Load reads every record. One that does not read back as it was written is moved to a bucket of its
// own and counted: it was said by somebody who can say it again, and it must not keep the agent down. What the set has
// no place for leaves the disk as well.
func (s *Store) Load() (set *lattice.Set, quarantined int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.passedOver = nil
	l := loading{set: lattice.New(), bad: map[string][]byte{}}
	if err := s.db.View(func(tx *bbolt.Tx) error { return l.read(tx, &s.names) }); err != nil {
		return nil, 0, fmt.Errorf("reading the store %s: %w", s.db.Path(), err)
	}
	if len(l.bad)+len(l.dropped) > 0 {
		// Where the disk is full they stay, and are passed over at the next start as they were at this one.
		if err := s.change("what was set apart", l.tidy); err != nil {
			s.passedOver = slices.Sorted(maps.Keys(l.bad))
		}
	}
	quarantined, s.unread = len(l.bad)+s.unread, 0
	return l.set, quarantined, nil
}

// loading is a set while it is read.
type loading struct {
	set *lattice.Set
	bad map[string][]byte
	// dropped has no place in the set: over a quota, retired, or ended.
	dropped []fleet.Record
}

// read floors before what they retire, and is still on disk: it must not take the room of what is not retired. Proofs come
// before both: a forked member's floor retires no command.
func (l *loading) read(tx *bbolt.Tx, names *names) error {
	turn := func(at []byte) int {
		if len(at) < 2 || at[0] != placePlain {
			return 2
		}
		switch fleet.Kind(at[1]) {
		case fleet.KindProof:
			return 0
		case fleet.KindFloor:
			return 1
		}
		return 2
	}
	for pass := range 3 {
		err := tx.Bucket(bucketPacked).ForEach(func(at, rest []byte) error {
			if turn(at) != pass {
				return nil
			}
			r, err := unpack(at, rest, names.name)
			if err != nil {
				l.bad[string(at)] = append([]byte(nil), rest...)
				return nil
			}
			l.dropped = append(l.dropped, l.set.Add(r).Dropped...)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *loading) tidy(_ *bbolt.Tx, e *edit) error {
	for at, rest := range l.bad {
		if err := e.setApart([]byte(at), rest); err != nil {
			return err
		}
	}
	return e.drop(l.dropped)
}

// SetApart are the heads of records that did not read back, at this start or before, as far as their places can be read: writer,
// kind and key.
func (s *Store) SetApart() (heads []fleet.Record, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	add := func(at, _ []byte) error {
		if p, ok := readPlace(at, s.names.name); ok {
			heads = append(heads, fleet.Record{Writer: p.writer.writer, Kind: p.kind, Key: p.key})
		}
		return nil
	}
	for _, at := range s.passedOver {
		_ = add([]byte(at), nil)
	}
	err = s.db.View(func(tx *bbolt.Tx) error { return tx.Bucket(bucketQuarantine).ForEach(add) })
	if err != nil {
		return nil, fmt.Errorf("reading what was set apart: %w", err)
	}
	return heads, nil
}

// errUnchanged ends a transaction that has nothing to write, which spares its fsync.
var errUnchanged = errors.New("unchanged")

func (s *Store) update(what string, change func(*bbolt.Tx) error) error {
	err := s.db.Update(change)
	if err == nil || errors.Is(err, errUnchanged) {
		return nil
	}
	return fmt.Errorf("writing %s to the store: %w", what, err)
}

// change records in one transaction. It is called with mu held.
func (s *Store) change(what string, do func(*bbolt.Tx, *edit) error) error {
	var e *edit
	err := s.update(what, func(tx *bbolt.Tx) error {
		e = s.names.edit(tx)
		if err := do(tx, e); err != nil {
			return err
		}
		return e.settle()
	})
	if err == nil && e.changed {
		e.keep()
	}
	return err
}

// Put joins records into what is stored, all of them or none, and returns when they are on disk.
// Records already superseded there are left out.
func (s *Store) Put(records ...fleet.Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.change(fmt.Sprintf("%d records", len(records)), func(_ *bbolt.Tx, e *edit) error {
		for i := range records {
			if err := e.join(&records[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// join a record into what is stored.
func (e *edit) join(r *fleet.Record) error {
	if at, ok := placeOf(r, e.number); ok {
		held, err := unpack(at, e.records.Get(at), e.name)
		if err == nil && !lattice.Supersedes(r, &held) {
			return nil
		}
	}
	at, ok := placeOf(r, e.give)
	if !ok || len(r.Sig) != signatureSize {
		return &fleet.Error{Kind: fleet.Terminal, Err: fmt.Errorf("%s %q of %s: %w: not signed", r.Kind, r.Key, r.Writer, fleet.ErrMalformed)}
	}
	of, _ := e.give(value(r.Fleet))
	return e.put(at, pack(r, of))
}

func unlessChanged(changed bool) error {
	if changed {
		return nil
	}
	return errUnchanged
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// seal puts a checksum before a value: bbolt has none over its pages, and a flipped bit that still decodes would be a
// record that its writer never signed.
func seal(value []byte) []byte {
	return append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(value)), crc32.Checksum(value, castagnoli)), value...)
}

// unseal says false for what seal did not make; the value is the store's own bytes.
func unseal(sealed []byte) (value []byte, ok bool) {
	if len(sealed) < 4 {
		return nil, false
	}
	value = sealed[4:]
	return value, crc32.Checksum(value, castagnoli) == binary.BigEndian.Uint32(sealed)
}

// decode a record of schema 1 or 2.
func decode(position, value []byte) (fleet.Record, error) {
	if len(value) < 4 {
		return fleet.Record{}, fmt.Errorf("stored record of %d bytes: %w", len(value), fleet.ErrMalformed)
	}
	b, ok := unseal(value)
	if !ok {
		return fleet.Record{}, malformed("wrong checksum")
	}
	r, err := fleet.DecodeRecord(b)
	if err != nil {
		return fleet.Record{}, err
	}
	if at := lattice.Position(r.Writer, r.Kind, r.Key); string(at[:]) != string(position) {
		return fleet.Record{}, malformed("not at its position")
	}
	return r, nil
}

// Meta is a value of the agent's own; nil where it was never set. One that does not read back as it was written is as good
// as never set: an epoch or a roster with a flipped bit would be believed.
func (s *Store) Meta(key string) (value []byte, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		if held, ok := unseal(tx.Bucket(bucketMeta).Get([]byte(key))); ok {
			value = append([]byte{}, held...)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading %q from the store: %w", key, err)
	}
	return value, nil
}

// SetMeta keeps a value of the agent's own. The key "schema" is the store's.
func (s *Store) SetMeta(key string, value []byte) error {
	if key == string(keySchema) {
		return &fleet.Error{Kind: fleet.Terminal, Err: fmt.Errorf("meta key %q is the store's own", key)}
	}
	return s.update(fmt.Sprintf("%q", key), func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketMeta).Put([]byte(key), seal(value))
	})
}
