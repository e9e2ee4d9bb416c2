// SPDX-License-Identifier: Apache-2.0

package store

import (
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// Drop takes records out that the set has dropped. One in whose place another lies by now stays.
func (s *Store) Drop(records ...fleet.Record) error {
	if len(records) == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.change(fmt.Sprintf("%d records dropped", len(records)), func(_ *bbolt.Tx, e *edit) error { return e.drop(records) })
}

func (e *edit) drop(records []fleet.Record) error {
	for i := range records {
		r := &records[i]
		at, ok := placeOf(r, e.number)
		if !ok {
			continue
		}
		held, err := unpack(at, e.records.Get(at), e.name)
		if err != nil || held.Digest() != r.Digest() {
			continue
		}
		if err := e.delete(at); err != nil {
			return err
		}
	}
	return nil
}
