// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"bytes"
	"errors"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// statement is what one caller of Publish or Adopt has to say. It is commitMu's from state on.
type statement struct {
	// record as it was written in an earlier life, if signed; else its kind, key and body, until it is signed.
	record fleet.Record
	signed bool

	done bool
	err  error
}

// statementsAtOnce bounds what shares one transaction.
const statementsAtOnce = 1024

// errUnsaid stands where whoever was to write a statement died of another one.
var errUnsaid = &fleet.Error{Kind: fleet.Retryable, Err: errors.New("mesh: not written")}

// state writes a statement, and returns when it is on disk and in the set. Those who come while a transaction is on its
// way to the disk wait for commitMu; the first who gets it writes for all of them, in the order in which they came: one
// fsync, however many they are.
func (n *Node) state(s *statement) error {
	s.err = errUnsaid
	n.stated.put(s)
	n.commitMu.Lock()
	defer n.commitMu.Unlock()
	if !s.done {
		n.writeStatements(n.stated.take())
	}
	return s.err
}

// writeStatements is called with commitMu held. What two say under one key goes in two transactions, as the second may
// depend on what became of the first.
func (n *Node) writeStatements(all []*statement) {
	type place struct {
		kind fleet.Kind
		key  string
	}
	var together []*statement
	places := map[place]bool{}
	for _, s := range all {
		at := place{s.record.Kind, s.record.Key}
		if places[at] || len(together) == statementsAtOnce {
			n.writeTogether(together)
			together = nil
			clear(places)
		}
		if n.readied(s) {
			together = append(together, s)
			places[at] = true
		}
	}
	n.writeTogether(together)
}

// readied signs a statement. It is false for one with which that is all: it was said before, or cannot be said.
func (n *Node) readied(s *statement) bool {
	if s.signed {
		return true
	}
	r := &s.record
	if held, ok := n.set.Get(n.id, r.Kind, r.Key); ok && (!r.Kind.IsRegister() || bytes.Equal(held.Body, r.Body)) {
		s.record, s.err, s.done = held, nil, true
		return false
	}
	s.record, s.err = n.sign(r.Kind, r.Key, r.Body)
	s.done = s.err != nil
	return s.err == nil
}

// writeTogether writes statements of different keys in one transaction.
func (n *Node) writeTogether(statements []*statement) {
	if len(statements) == 0 {
		return
	}
	records := make([]fleet.Record, 0, len(statements))
	for _, s := range statements {
		records = append(records, s.record)
	}
	learnt, err := n.commitLocked(records...)
	for _, s := range statements {
		s.done, s.err = true, err
		if err != nil || s.signed {
			continue
		}
		if s.err = n.kept(&s.record); s.err == nil {
			n.counts.published.Add(1)
		}
	}
	n.tell(learnt)
}
