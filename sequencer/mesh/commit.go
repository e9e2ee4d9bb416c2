// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"bytes"
	"errors"
	"fmt"
	"math"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// maxRaises bounds how often this process goes above records of its own that it did not write. One is what
// a lost store and a clock set back take; more is another live agent with this key, which would go on for ever.
const maxRaises = 3

// Publish signs a record, and returns when it is on disk and visible here. Then it is told.
//
// Saying a milestone again, or giving a register the body it has, writes nothing and returns what
// stands. Errors are terminal (too large, or a body that does not decode as its kind), refused (this
// member is not on the roster), or retryable (the disk): then nothing has changed.
func (n *Node) Publish(kind fleet.Kind, key string, body []byte) (fleet.Record, error) {
	n.commitMu.Lock()
	defer n.commitMu.Unlock()
	if held, ok := n.set.Get(n.id, kind, key); ok && (!kind.IsRegister() || bytes.Equal(held.Body, body)) {
		return held, nil
	}
	r, err := n.write(kind, key, body)
	if err != nil {
		return fleet.Record{}, err
	}
	n.counts.published.Add(1)
	return r, nil
}

// Prepare signs a record with the next position and does nothing else: a member writes a promise, to
// the byte, to its own cluster's API before anyone may hear of it, and then has it adopted (R1, R5).
// A record that is prepared and never adopted leaves a gap in the positions and harms nobody.
func (n *Node) Prepare(kind fleet.Kind, key string, body []byte) (fleet.Record, error) {
	n.commitMu.Lock()
	defer n.commitMu.Unlock()
	return n.sign(kind, key, body)
}

// write is called with commitMu held.
func (n *Node) write(kind fleet.Kind, key string, body []byte) (fleet.Record, error) {
	r, err := n.sign(kind, key, body)
	if err != nil {
		return r, err
	}
	learnt, err := n.commitLocked(r)
	if err != nil {
		return r, err
	}
	n.tell(learnt)
	return r, nil
}

// sign is called with commitMu held.
func (n *Node) sign(kind fleet.Kind, key string, body []byte) (fleet.Record, error) {
	// A position is never used twice, not even after a write that failed: it may be on disk.
	n.seq++
	r := fleet.Record{
		Fleet: n.cfg.Fleet, Epoch: n.epoch, Seq: n.seq, Kind: kind, Key: key, Body: bytes.Clone(body),
	}
	if err := r.Sign(n.cfg.Key); err != nil {
		return r, &fleet.Error{Kind: fleet.Terminal, Err: err}
	}
	if _, err := fleet.DecodeRecord(r.Encode()); err != nil {
		return r, &fleet.Error{Kind: fleet.Terminal, Err: err}
	}
	if err := checkBody(&r); err != nil {
		return r, &fleet.Error{Kind: fleet.Terminal, Err: err}
	}
	if err := fleet.Authorize(n.roster(), &r); err != nil {
		return r, &fleet.Error{Kind: fleet.Refused, Hint: "add this member to the roster", Err: err}
	}
	return r, nil
}

// Adopt takes back a record that this member wrote in an earlier life and found elsewhere, such as in
// its cluster's API: verified, stored, joined and told like any other.
func (n *Node) Adopt(r fleet.Record) error {
	if r.Writer != n.id {
		return &fleet.Error{Kind: fleet.Terminal, Err: fmt.Errorf("adopting record %q: written by %s, this is %s", r.Key, r.Writer, n.id)}
	}
	encoded := r.Encode()
	copied, err := fleet.DecodeRecord(encoded)
	if err != nil {
		return &fleet.Error{Kind: fleet.Terminal, Err: fmt.Errorf("adopting record %q: %w", r.Key, err)}
	}
	if err := errors.Join(copied.Verify(n.cfg.Fleet), checkBody(&copied)); err != nil {
		return &fleet.Error{Kind: fleet.Terminal, Err: fmt.Errorf("adopting: %w", err)}
	}
	if err := fleet.Authorize(n.roster(), &copied); err != nil {
		return &fleet.Error{Kind: fleet.Refused, Hint: "add this member to the roster", Err: err}
	}
	learnt, err := n.commit(copied)
	if err != nil {
		return err
	}
	n.tell(learnt)
	return nil
}

// commit joins verified records into disk and memory and gives those that were news. On an error
// nothing has changed.
func (n *Node) commit(records ...fleet.Record) ([]fleet.Record, error) {
	n.commitMu.Lock()
	defer n.commitMu.Unlock()
	return n.commitLocked(records...)
}

func (n *Node) commitLocked(records ...fleet.Record) ([]fleet.Record, error) {
	var wanted, displaced []fleet.Record
	for i := range records {
		r := &records[i]
		// Reading needs no setMu: whoever changes the set holds commitMu.
		if !n.set.Wants(r) {
			continue
		}
		wanted = append(wanted, *r)
		held, ok := n.set.Get(r.Writer, r.Kind, r.Key)
		if ok && r.Kind.IsRegister() && held.Epoch == n.epoch && n.overtakes(r) {
			displaced = append(displaced, held)
		}
	}
	if len(wanted) == 0 {
		return nil, nil
	}
	if err := n.cfg.Store.Put(wanted...); err != nil {
		n.counts.unstored.Add(uint64(len(wanted)))
		return nil, err
	}
	learnt := n.join(wanted)
	n.fresh.put(learnt...)
	n.raise(learnt, displaced)
	return learnt, nil
}

func (n *Node) join(records []fleet.Record) []fleet.Record {
	n.setMu.Lock()
	defer n.setMu.Unlock()
	var learnt []fleet.Record
	for _, r := range records {
		if n.set.Add(r).News {
			learnt = append(learnt, r)
		}
	}
	n.set.Root()
	return learnt
}

// overtakes says that this member wrote the record in an earlier life, at a position this life has not
// reached: its store was lost and its clock set back.
func (n *Node) overtakes(r *fleet.Record) bool {
	return r.Writer == n.id && (r.Epoch > n.epoch || (r.Epoch == n.epoch && r.Seq > n.seq))
}

// raise puts this life above the records of an earlier one, or what it says next would lose to what it
// said then. Registers of this life that lost already are said again.
func (n *Node) raise(learnt, displaced []fleet.Record) {
	above, overtaken := n.epoch, false
	for i := range learnt {
		if n.overtakes(&learnt[i]) {
			above, overtaken = max(above, learnt[i].Epoch), true
		}
	}
	if !overtaken || above == math.MaxUint64 {
		return
	}
	if n.raises >= maxRaises {
		n.doubled.Store(true)
		return
	}
	n.raises++
	if err := n.setEpoch(above + 1); err != nil {
		n.cfg.Log.Error(err, "epoch not raised", "member", n.id)
		return
	}
	n.cfg.Log.Info("records of an earlier life are ahead: epoch raised", "member", n.id, "epoch", n.epoch)
	for _, held := range displaced {
		if _, err := n.write(held.Kind, held.Key, held.Body); err != nil {
			n.cfg.Log.Error(err, "register not said again", "member", n.id, "key", held.Key)
		}
	}
}

// tell passes news on by gossip. Without a mesh there is nobody to tell; who connects later
// reconciles.
func (n *Node) tell(records []fleet.Record) {
	if n.running.Load() != nil && !n.cfg.NoGossip {
		n.outbox.put(records...)
	}
}
