// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// metaEpoch is where the store keeps the epoch of the last start.
const metaEpoch = "mesh.epoch"

// An epoch is the second of a start and, below it, random bits. Its history:
//
//	2026-11: plain seconds; never released. Every epoch of today is above all of them.
//	2026-11: seconds << 30 | 30 random bits
//
// The seconds put a member with an empty disk above what it said before it lost it. The random bits keep two
// lives apart that cannot know of each other: a disk restored from a copy, with the clock set back to before
// the life that the copy does not know of. By seconds alone it would use that life's positions again for other
// words, and be convicted by its own signature.
const epochRandomBits = 30

// maxSeconds is what fits above the random bits, 500 years from now.
const maxSeconds = math.MaxUint64 >> epochRandomBits

// nextEpoch is above highest, and not before the clock; random has epochRandomBits bits. False where nothing is
// left above.
func nextEpoch(highest uint64, clock int64, random uint64) (uint64, bool) {
	seconds := max(min(uint64(max(clock, 1)), maxSeconds), highest>>epochRandomBits)
	epoch := seconds<<epochRandomBits | random
	if epoch > highest {
		return epoch, true
	}
	if seconds < maxSeconds {
		return (seconds+1)<<epochRandomBits | random, true
	}
	return highest + 1, highest < math.MaxUint64
}

// beginEpoch takes an epoch above every one that this member is known to have used.
func (n *Node) beginEpoch() error {
	held, err := n.cfg.Store.Meta(metaEpoch)
	if err != nil {
		return fmt.Errorf("mesh: %w", err)
	}
	var highest uint64
	if len(held) == 8 {
		highest = binary.BigEndian.Uint64(held)
	}
	for r := range n.set.All() {
		if r.Writer == n.id {
			highest = max(highest, r.Epoch)
		}
	}
	return n.epochAbove(highest)
}

// epochAbove puts this life above an epoch. It is called with commitMu held, or before anyone else knows the node.
func (n *Node) epochAbove(highest uint64) error {
	var random [8]byte
	if _, err := rand.Read(random[:]); err != nil {
		return fmt.Errorf("mesh: drawing an epoch: %w", err)
	}
	epoch, ok := nextEpoch(highest, n.cfg.Now().Unix(), binary.BigEndian.Uint64(random[:])>>(64-epochRandomBits))
	if !ok {
		return fmt.Errorf("mesh: no epoch above %d is left: this member needs another key", highest)
	}
	if err := n.cfg.Store.SetMeta(metaEpoch, binary.BigEndian.AppendUint64(nil, epoch)); err != nil {
		return fmt.Errorf("mesh: keeping the epoch: %w", err)
	}
	n.epoch, n.seq = epoch, 0
	return nil
}

// A sequence number counts what this life says and, below that, has bits of what is said. A machine that is taken back to
// a snapshot while it runs counts on from there, without knowing: its memory, its disk and even its random numbers are
// those of before. By the count alone it would use positions again for other words, and be convicted by its own signature;
// this way other words have other positions, and the same words are the same record.
const seqContentBits = 32

// takePosition gives a record the next position. It is called with commitMu held.
func (n *Node) takePosition(r *fleet.Record) error {
	count := n.seq>>seqContentBits + 1
	if count > math.MaxUint64>>seqContentBits {
		if err := n.epochAbove(n.epoch); err != nil {
			return err
		}
		count = 1
	}
	said := fleet.DigestOf("flotilla.dev/position", []byte{byte(r.Kind)}, []byte(r.Key), r.Body)
	n.seq = count<<seqContentBits | uint64(binary.BigEndian.Uint32(said[:]))
	r.Epoch, r.Seq = n.epoch, n.seq
	return nil
}
