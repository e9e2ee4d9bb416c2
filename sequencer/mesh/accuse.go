// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"github.com/flotilla-dev/flotilla/api/fleet"
)

// accuse publishes the proof that a member said two things in one position, unless one is held already. Both records
// are verified. Who is accused cannot take it back, and whoever hears the proof needs to believe nobody.
func (n *Node) accuse(proof fleet.Proof) {
	n.commitMu.Lock()
	defer n.commitMu.Unlock()
	n.accuseLocked(proof)
}

// accuseLocked is called with commitMu held.
func (n *Node) accuseLocked(proof fleet.Proof) {
	accused := proof.A.Writer
	key := fleet.ProofKey(accused)
	if _, said := n.set.Get(n.id, fleet.KindProof, key); said || n.set.Forked(accused) || n.unprovable[accused] {
		return
	}
	body, fits := proof.Encode()
	if !fits {
		n.unprovable[accused] = true
		n.counts.unprovable.Add(1)
		n.cfg.Log.Info("a member said two things in one position, and the two do not fit into a proof",
			"member", accused, "epoch", proof.A.Epoch, "seq", proof.A.Seq)
		return
	}
	if _, err := n.write(fleet.KindProof, key, body); err != nil {
		n.cfg.Log.Error(err, "proof not published", "against", accused)
		return
	}
	n.counts.proven.Add(1)
	n.cfg.Log.Info("a member said two things in one position; what it says counts for nothing",
		"member", accused, "epoch", proof.A.Epoch, "seq", proof.A.Seq)
}

// forked says that a proof against a member is held.
func (n *Node) forked(id fleet.MemberID) bool {
	n.setMu.RLock()
	defer n.setMu.RUnlock()
	return n.set.Forked(id)
}

// flagQuotas logs each writer once that said more than the fleet keeps. It is called with commitMu held.
func (n *Node) flagQuotas(records []fleet.Record) {
	for i := range records {
		writer := records[i].Writer
		if over := n.set.Over(writer); over && !n.over[writer] {
			n.cfg.Log.Info("a member said more than the fleet keeps; the lowest keys stay", "member", writer, "kind", records[i].Kind.String())
			n.over[writer] = true
		} else if !over {
			delete(n.over, writer)
		}
	}
}

// refused joins a verified record that the set does not take, so that its writer is known to have said too much.
func (n *Node) refused(r *fleet.Record) {
	n.commitMu.Lock()
	defer n.commitMu.Unlock()
	n.setMu.Lock()
	n.set.Add(*r)
	n.set.Root()
	n.setMu.Unlock()
	n.flagQuotas([]fleet.Record{*r})
}
