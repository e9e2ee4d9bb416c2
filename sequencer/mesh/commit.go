// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// maxRaises bounds how often this process goes above records of its own that it did not write. One is what
// a lost store and a clock set back take; more is another live agent with this key, which would go on for ever.
const maxRaises = 3

// ErrNotKept is in the error of what the fleet's state has no place for: over the writer's quota, or retired by its
// own floor.
var ErrNotKept = errors.New("the fleet does not keep it")

// Publish signs a record, and returns when it is on disk and visible here. Then it is told.
//
// Saying a milestone again, or giving a register the body it has, writes nothing and returns what
// stands. Errors are terminal (too large, or a body that does not decode as its kind), refused (this
// member is not on the roster, or said so much that the fleet keeps no more), or retryable (the disk): then nothing
// has changed. It waits for nobody: see [Node.Settled].
func (n *Node) Publish(kind fleet.Kind, key string, body []byte) (fleet.Record, error) {
	s := statement{record: fleet.Record{Kind: kind, Key: key, Body: body}}
	if err := n.state(&s); err != nil {
		return fleet.Record{}, err
	}
	return s.record, nil
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
	if err := n.kept(&r); err != nil {
		return r, err
	}
	n.tell(learnt)
	return r, nil
}

// kept says that what this member has just said stands under its key, and the fleet keeps it.
func (n *Node) kept(r *fleet.Record) error {
	if _, ok := n.set.Get(n.id, r.Kind, r.Key); ok {
		return nil
	}
	return &fleet.Error{
		Kind: fleet.Refused, Hint: "withdraw rollouts that nobody needs any more",
		Err: fmt.Errorf("%s %q: %w", r.Kind, r.Key, ErrNotKept),
	}
}

// sign is called with commitMu held.
func (n *Node) sign(kind fleet.Kind, key string, body []byte) (fleet.Record, error) {
	r := fleet.Record{Fleet: n.cfg.Fleet, Kind: kind, Key: key, Body: bytes.Clone(body)}
	// A position is never used twice, not even after a write that failed: it may be on disk.
	if err := n.takePosition(&r); err != nil {
		return r, err
	}
	if err := r.Sign(n.cfg.Key); err != nil {
		return r, &fleet.Error{Kind: fleet.Terminal, Err: err}
	}
	if _, err := fleet.DecodeRecord(r.Encode()); err != nil {
		return r, &fleet.Error{Kind: fleet.Terminal, Err: err}
	}
	if err := n.checkBody(&r); err != nil {
		return r, &fleet.Error{Kind: fleet.Terminal, Err: err}
	}
	if err := fleet.Authorize(n.roster(), &r); err != nil {
		return r, &fleet.Error{Kind: fleet.Refused, Hint: "add this member to the roster", Err: err}
	}
	return r, nil
}

// Adopt takes back a record that this member wrote in an earlier life and found elsewhere, such as in
// its cluster's API: verified, stored, joined and told like any other. A command that the fleet has no place for is an
// error (ErrNotKept); a milestone that is retired or superseded is not.
func (n *Node) Adopt(r fleet.Record) error {
	if r.Writer != n.id {
		return &fleet.Error{Kind: fleet.Terminal, Err: fmt.Errorf("adopting record %q: written by %s, this is %s", r.Key, r.Writer, n.id)}
	}
	encoded := r.Encode()
	copied, err := fleet.DecodeRecord(encoded)
	if err != nil {
		return &fleet.Error{Kind: fleet.Terminal, Err: fmt.Errorf("adopting record %q: %w", r.Key, err)}
	}
	if err := errors.Join(copied.Verify(n.cfg.Fleet), n.checkBody(&copied)); err != nil {
		return &fleet.Error{Kind: fleet.Terminal, Err: fmt.Errorf("adopting: %w", err)}
	}
	if err := fleet.Authorize(n.roster(), &copied); err != nil {
		return &fleet.Error{Kind: fleet.Refused, Hint: "add this member to the roster", Err: err}
	}
	if err := n.state(&statement{record: copied, signed: true}); err != nil {
		return err
	}
	if copied.Kind == fleet.KindCommand {
		n.commitMu.Lock()
		defer n.commitMu.Unlock()
		return n.kept(&copied) // a stop that nobody hears must not look like one
	}
	return nil
}

// commit joins verified records into disk and memory and gives those that were news. On an error
// nothing has changed. What was carried when it was checked, and is not any more, stays out: it would be swept again.
func (n *Node) commit(records ...fleet.Record) ([]fleet.Record, error) {
	n.commitMu.Lock()
	defer n.commitMu.Unlock()
	records = slices.DeleteFunc(slices.Clone(records), func(r fleet.Record) bool { return !n.carriesRecord(&r) })
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
	n.stay(wanted)
	if err := n.cfg.Store.Put(wanted...); err != nil {
		n.counts.unstored.Add(uint64(len(wanted)))
		return nil, err
	}
	j := n.join(wanted)
	n.changed(change{news: j.learnt, dropped: j.dropped})
	n.leave(j.dropped)
	n.leave(j.unwanted)
	n.uphold(j.dropped)
	n.flagQuotas(wanted)
	n.raise(j.learnt, displaced)
	for _, rivals := range j.rivals {
		n.accuseLocked(rivals)
	}
	return j.learnt, nil
}

// joined is what became of records that were put into the set.
type joined struct {
	// learnt are in the set, and were not before.
	learnt []fleet.Record
	// dropped were in the set and are not any more; unwanted came and went at once.
	dropped, unwanted []fleet.Record
	// rivals are pairs in one position.
	rivals []fleet.Proof
}

func (n *Node) join(records []fleet.Record) (j joined) {
	n.setMu.Lock()
	defer n.setMu.Unlock()
	went := map[fleet.Digest]fleet.Record{}
	for _, r := range records {
		if held, ok := n.set.Conflict(&r); ok {
			j.rivals = append(j.rivals, fleet.Proof{A: held, B: r})
		}
		added := n.set.Add(r)
		if added.News {
			j.learnt = append(j.learnt, r)
		}
		for _, d := range added.Dropped {
			went[d.Digest()] = d
		}
	}
	n.set.Root()
	if len(went) == 0 {
		return j
	}
	// What came and went in one breath was never there.
	j.learnt = slices.DeleteFunc(j.learnt, func(r fleet.Record) bool { _, gone := went[r.Digest()]; return gone })
	came := map[fleet.Digest]bool{}
	for i := range records {
		came[records[i].Digest()] = true
	}
	for digest, r := range went {
		if came[digest] {
			j.unwanted = append(j.unwanted, r)
		} else {
			j.dropped = append(j.dropped, r)
		}
	}
	return j
}

// leave notes what is to leave the disk. That is done with the next write: there is no hurry, and a record that
// comes back on a restart is dropped again.
func (n *Node) leave(records []fleet.Record) {
	for i := range records {
		n.leaving[records[i].Digest()] = records[i]
	}
	n.counts.dropped.Add(uint64(len(records)))
}

// stay is called before records are put on disk: they are there for good, also those that had left, and what is
// still to leave does now. Not later: the disk would not take a milestone in the place of an earlier one that has left.
func (n *Node) stay(records []fleet.Record) {
	if len(n.leaving) == 0 {
		return
	}
	for i := range records {
		delete(n.leaving, records[i].Digest())
	}
	n.sweepOut()
}

// sweepOut takes what has left the set from the disk, or leaves it to the next time.
func (n *Node) sweepOut() {
	if len(n.leaving) == 0 {
		return
	}
	if err := n.cfg.Store.Drop(slices.Collect(maps.Values(n.leaving))...); err != nil {
		n.cfg.Log.Error(err, "records that nobody keeps are still on disk", "records", len(n.leaving))
		return
	}
	clear(n.leaving)
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
	if err := n.epochAbove(above); err != nil {
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
// reconciles. A slow line is for what this member says itself.
func (n *Node) tell(records []fleet.Record) {
	if n.running.Load() == nil || n.cfg.NoGossip {
		return
	}
	if n.line.tooSlow() {
		records = slices.DeleteFunc(slices.Clone(records), func(r fleet.Record) bool { return r.Writer != n.id })
	}
	n.outbox.put(records...)
}
