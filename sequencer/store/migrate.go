// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"maps"
	"slices"

	"go.etcd.io/bbolt"
)

// migrate from an older schema, in one transaction: after a crash the file is of the one or of the other. What does not
// read back is set apart, as Load would have done.
func (s *Store) migrate(from int) error {
	bad := 0
	err := s.db.Update(func(tx *bbolt.Tx) error {
		if from < 2 {
			if err := sealMeta(tx.Bucket(bucketMeta)); err != nil {
				return err
			}
		}
		err := begin(tx)
		if err == nil {
			bad, err = packAll(tx)
		}
		if err != nil {
			return err
		}
		return tx.DeleteBucket(bucketRecords)
	})
	if err == nil {
		s.unread = bad
		s.slack = 0 // of pages that are free now
	}
	return err
}

// sealMeta gives the values of schema 1 their checksums.
func sealMeta(meta *bbolt.Bucket) error {
	values := map[string][]byte{}
	err := meta.ForEach(func(key, value []byte) error {
		values[string(key)] = seal(value)
		return nil
	})
	if err != nil {
		return err
	}
	for key, value := range values {
		if err := meta.Put([]byte(key), value); err != nil {
			return err
		}
	}
	return nil
}

// packAll records of schema 2, and count those that do not read back.
func packAll(tx *bbolt.Tx) (bad int, err error) {
	var none names
	e, packed := none.edit(tx), map[string][]byte{}
	err = tx.Bucket(bucketRecords).ForEach(func(position, sealed []byte) error {
		r, err := decode(position, sealed)
		if err == nil {
			if at, ok := placeOf(&r, e.give); ok {
				of, _ := e.give(value(r.Fleet))
				packed[string(at)] = pack(&r, of)
				return nil
			}
		}
		bad++
		return tx.Bucket(bucketQuarantine).Put(bytes.Clone(position), bytes.Clone(sealed))
	})
	if err != nil {
		return 0, err
	}
	// In order, so that each is put behind the others.
	for _, at := range slices.Sorted(maps.Keys(packed)) {
		if err := e.put([]byte(at), packed[at]); err != nil {
			return 0, err
		}
	}
	if err := e.settle(); err != nil && e.changed {
		return 0, err
	}
	return bad, nil
}
