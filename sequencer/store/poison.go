// SPDX-License-Identifier: Apache-2.0

package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"sync"

	"go.etcd.io/bbolt"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// This file holds what keeps a record that ends whoever looks at it from ending him again: a marker of what is
// being looked at, which outlives the process, and the list of what was found to be poison.

// MaxSuspects is the most records that may be looked at under one marker.
const MaxSuspects = 4096

// MaxQuarantined is the most digests that stay in quarantine. Beyond it the one that came first goes: should its record
// still be about, it costs one more crash and is back.
const MaxQuarantined = 4096

// The marker is a file beside the store: a header and digests.
const (
	markerSuffix = ".suspects"
	markerMagic  = "FSM1"
	markerHeader = 4 + 4 + 4 // magic, count, checksum of the digests
)

// marker is written in place and never synced: it has to outlive a process that crashes, which the
// operating system's memory does, and must cost next to nothing per record.
type marker struct {
	mu   sync.Mutex
	path string
	file *os.File // nil until the first Suspect
	left []fleet.Digest
}

// Suspect says that these records, at most MaxSuspects, are about to be looked at. Should the process end before
// Cleared, the next one finds them in Suspects. One marker is in force: the next call takes its place.
func (s *Store) Suspect(digests []fleet.Digest) error {
	if len(digests) > MaxSuspects {
		return &fleet.Error{Kind: fleet.Terminal, Err: fmt.Errorf(
			"marking %d records: %w: at most %d", len(digests), fleet.ErrTooLarge, MaxSuspects)}
	}
	s.marker.mu.Lock()
	defer s.marker.mu.Unlock()
	if err := s.marker.write(digests); err != nil {
		return fmt.Errorf("marking %d records beside the store: %w", len(digests), err)
	}
	return nil
}

// Cleared says that the last Suspect's records were looked at and nothing happened.
func (s *Store) Cleared() error {
	s.marker.mu.Lock()
	defer s.marker.mu.Unlock()
	if s.marker.file == nil && len(s.marker.left) == 0 {
		return nil
	}
	if err := s.marker.write(nil); err != nil {
		return fmt.Errorf("clearing the marks beside the store: %w", err)
	}
	return nil
}

// Suspects are what the process before this one was looking at when it ended. They do not change while the store is open.
func (s *Store) Suspects() []fleet.Digest { return append([]fleet.Digest(nil), s.marker.left...) }

func (m *marker) write(digests []fleet.Digest) error {
	if m.file == nil {
		file, err := os.OpenFile(m.path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return err
		}
		m.file = file
	}
	_, err := m.file.WriteAt(encodeMarker(digests), 0)
	return err
}

func (m *marker) close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.file == nil {
		return nil
	}
	err := m.file.Close()
	m.file = nil
	return err
}

func encodeMarker(digests []fleet.Digest) []byte {
	b := make([]byte, markerHeader, markerHeader+len(digests)*len(fleet.Digest{}))
	for i := range digests {
		b = append(b, digests[i][:]...)
	}
	copy(b, markerMagic)
	binary.BigEndian.PutUint32(b[4:], uint32(len(digests)))
	binary.BigEndian.PutUint32(b[8:], crc32.Checksum(b[markerHeader:], castagnoli))
	return b
}

// decodeMarker gives nothing for what was not written as a whole: a process that was killed while it wrote had not
// begun to look.
func decodeMarker(b []byte) []fleet.Digest {
	if len(b) < markerHeader || string(b[:4]) != markerMagic {
		return nil
	}
	count, sum, rest := binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:]), b[markerHeader:]
	if count > MaxSuspects || int(count)*len(fleet.Digest{}) > len(rest) {
		return nil
	}
	rest = rest[:int(count)*len(fleet.Digest{})]
	if crc32.Checksum(rest, castagnoli) != sum {
		return nil
	}
	var digests []fleet.Digest
	for ; len(rest) > 0; rest = rest[len(fleet.Digest{}):] {
		digests = append(digests, fleet.Digest(rest))
	}
	return digests
}

// readMarker of a file that may be missing, longer than it could be, or anything else.
func readMarker(path string) ([]fleet.Digest, error) {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	b := make([]byte, markerHeader+MaxSuspects*len(fleet.Digest{}))
	n, err := file.ReadAt(b, 0)
	if n == 0 && err != nil {
		// A folder, or a sector that is gone: no mark, and nothing to stop for.
		return nil, nil
	}
	return decodeMarker(b[:n]), nil
}

// Quarantine keeps a record from being shown to whoever acts on records, for good: it stays in the set, where it
// harms nobody, and is on the list when the call returns, and after every restart.
func (s *Store) Quarantine(digest fleet.Digest) error {
	return s.update("quarantine of "+digest.Short(), func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(bucketPoison)
		if bucket.Get(digest[:]) != nil {
			return errUnchanged
		}
		if err := makeRoom(bucket); err != nil {
			return err
		}
		at, err := bucket.NextSequence()
		if err != nil {
			return err
		}
		return bucket.Put(digest[:], binary.BigEndian.AppendUint64(nil, at))
	})
}

// makeRoom for one digest more.
func makeRoom(bucket *bbolt.Bucket) error {
	var first []byte
	var least uint64
	held := 0
	err := bucket.ForEach(func(digest, value []byte) error {
		held++
		at := uint64(0) // of a value that is not ours
		if len(value) == 8 {
			at = binary.BigEndian.Uint64(value)
		}
		if first == nil || at < least {
			first, least = digest, at
		}
		return nil
	})
	if err != nil || held < MaxQuarantined {
		return err
	}
	return bucket.Delete(first)
}

// Quarantined are the digests of the records that are not to be shown; the caller's own copy.
func (s *Store) Quarantined() (map[fleet.Digest]bool, error) {
	all := map[fleet.Digest]bool{}
	err := s.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketPoison).ForEach(func(key, _ []byte) error {
			if len(key) == len(fleet.Digest{}) {
				all[fleet.Digest(key)] = true
			}
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("reading the quarantine: %w", err)
	}
	return all, nil
}
