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
	if !n.set.Forked(proof.A.Writer) {
		n.proveLocked(proof)
	}
}

// proveLocked publishes a proof, whether or not another member has. It is called with commitMu held.
func (n *Node) proveLocked(proof fleet.Proof) {
	accused := proof.A.Writer
	key := fleet.ProofKey(accused)
	if _, said := n.set.Get(n.id, fleet.KindProof, key); said {
		return
	}
	body, fits := proof.Encode()
	if !fits {
		if n.unprovable[accused] {
			return
		}
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

// uphold proofs that were held and have no room any more: who wrote one can push it out with others. A proof settles
// a place for ever, so whoever held it says it again. It is called with commitMu held.
func (n *Node) uphold(dropped []fleet.Record) {
	for i := range dropped {
		if dropped[i].Kind != fleet.KindProof {
			continue
		}
		if proof, err := fleet.DecodeProof(&dropped[i]); err == nil {
			n.accuseLocked(proof)
		}
	}
}

// inherit the proofs that only members wrote who are not on the roster any more: newcomers would not hear of them, and
// believe whom the others do not. It is called with commitMu held.
func (n *Node) inherit() {
	roster := n.roster()
	if _, on := roster.Member(n.id); !on {
		return
	}
	orphans := map[fleet.MemberID]bool{}
	for _, accused := range n.set.AllForked() {
		orphans[accused] = true
	}
	if len(orphans) == 0 {
		return
	}
	var held []fleet.Record
	for r := range n.set.All() {
		if accused := fleet.MemberID(r.Key); r.Kind == fleet.KindProof && orphans[accused] {
			if _, on := roster.Member(r.Writer); on {
				delete(orphans, accused)
			}
			held = append(held, r)
		}
	}
	for i := range held {
		if !orphans[fleet.MemberID(held[i].Key)] {
			continue
		}
		if proof, err := fleet.DecodeProof(&held[i]); err == nil {
			n.proveLocked(proof)
		}
	}
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
