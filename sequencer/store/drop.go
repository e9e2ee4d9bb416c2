// SPDX-License-Identifier: Apache-2.0

package store

import (
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
)

// Drop takes records out that the set has dropped. One in whose place another lies by now stays.
func (s *Store) Drop(records ...fleet.Record) error {
	if len(records) == 0 {
		return nil
	}
	return s.update(fmt.Sprintf("%d records dropped", len(records)), func(tx *bbolt.Tx) error {
		bucket, changed := tx.Bucket(bucketRecords), false
		for i := range records {
			r := &records[i]
			position := lattice.Position(r.Writer, r.Kind, r.Key)
			held, err := decode(position[:], bucket.Get(position[:]))
			if err != nil || held.Digest() != r.Digest() {
				continue
			}
			if err := bucket.Delete(position[:]); err != nil {
				return err
			}
			changed = true
		}
		return unlessChanged(changed)
	})
}
