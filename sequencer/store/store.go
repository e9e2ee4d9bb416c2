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

	"go.etcd.io/bbolt"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
)

// Schema is the version of the file's layout and its history.
//
//	1  2026-11: records by position with a checksum, blobs by digest, meta, quarantine
//	2  2026-11: values of meta with a checksum, the digests of poison
const Schema = 2

var (
	bucketRecords    = []byte("records")
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
// own and counted: it was said by somebody who can say it again, and it must not keep the agent down.
func (s *Store) Load() (set *lattice.Set, quarantined int, err error) {
	set = lattice.New()
	bad := map[string][]byte{}
	set.Fill(func(yield func(fleet.Record) bool) {
		err = s.db.View(func(tx *bbolt.Tx) error {
			return tx.Bucket(bucketRecords).ForEach(func(position, value []byte) error {
				r, err := decode(position, value)
				if err != nil {
					bad[string(position)] = append([]byte(nil), value...)
					return nil
				}
				yield(r)
				return nil
			})
		})
	})
	if err != nil {
		return nil, 0, fmt.Errorf("reading the store %s: %w", s.db.Path(), err)
	}
	if len(bad) > 0 {
		// Where the disk is full they stay, and are passed over at the next start as they were at this one.
		_ = s.quarantine(bad)
	}
	return set, len(bad), nil
}

func (s *Store) quarantine(bad map[string][]byte) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		for position, value := range bad {
			if err := tx.Bucket(bucketQuarantine).Put([]byte(position), value); err != nil {
				return err
			}
			if err := tx.Bucket(bucketRecords).Delete([]byte(position)); err != nil {
				return err
			}
		}
		return nil
	})
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

// Put joins records into what is stored, all of them or none, and returns when they are on disk.
// Records already superseded there are left out.
func (s *Store) Put(records ...fleet.Record) error {
	return s.update(fmt.Sprintf("%d records", len(records)), func(tx *bbolt.Tx) error {
		bucket, changed := tx.Bucket(bucketRecords), false
		for i := range records {
			r := &records[i]
			position := lattice.Position(r.Writer, r.Kind, r.Key)
			held, err := decode(position[:], bucket.Get(position[:]))
			if err == nil && !lattice.Supersedes(r, &held) {
				continue
			}
			if err := bucket.Put(position[:], encode(r)); err != nil {
				return err
			}
			changed = true
		}
		return unlessChanged(changed)
	})
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

func encode(r *fleet.Record) []byte { return seal(r.Encode()) }

func decode(position, value []byte) (fleet.Record, error) {
	if len(value) < 4 {
		return fleet.Record{}, fmt.Errorf("stored record of %d bytes: %w", len(value), fleet.ErrMalformed)
	}
	b, ok := unseal(value)
	if !ok {
		return fleet.Record{}, fmt.Errorf("stored record: %w: wrong checksum", fleet.ErrMalformed)
	}
	r, err := fleet.DecodeRecord(b)
	if err != nil {
		return fleet.Record{}, err
	}
	if at := lattice.Position(r.Writer, r.Kind, r.Key); string(at[:]) != string(position) {
		return fleet.Record{}, fmt.Errorf("stored record: %w: not at its position", fleet.ErrMalformed)
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
