// SPDX-License-Identifier: Apache-2.0

package lattice

import (
	"crypto/sha256"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// Root names all that is carried: two members that carry the same shares and have equal roots hold equal
// sets. Zero is the empty set.
func (s *Set) Root() fleet.Digest {
	if s.settled {
		return s.root
	}
	s.root, s.settled = s.rootOfShares(), true
	return s.root
}

func (s *Set) rootOfShares() fleet.Digest {
	var buf []byte
	for _, share := range s.Shares() {
		root := s.ShareRoot(share)
		if !root.IsZero() {
			buf = append(append(append(buf, byte(share.Scope), byte(len(share.Zone))), share.Zone...), root[:]...)
		}
	}
	if len(buf) == 0 {
		return fleet.Digest{}
	}
	return fleet.DigestOf("flotilla.dev/lattice-root", buf)
}

// ShareRoot names one share: equal roots, equal shares, whoever carries what else. Zero is the empty one.
func (s *Set) ShareRoot(share Share) fleet.Digest { return s.shares[share].fingerprint() }

// Salt is drawn at random for one reconciliation. It makes short tags safe: nobody can prepare two parts
// whose tags are equal without knowing it.
type Salt [16]byte

// Tag stands for a fingerprint or a record's digest within one reconciliation. Zero is nothing at all.
type Tag [16]byte

func (s Salt) tag(d fleet.Digest) Tag {
	if d.IsZero() {
		return Tag{}
	}
	var buf [len(s) + len(d)]byte
	copy(buf[copy(buf[:], s[:]):], d[:])
	sum := sha256.Sum256(buf[:])
	return Tag(sum[:len(Tag{})])
}

// Prefix names the part of the set whose positions begin with the first Digits hex digits of Path.
// The digits behind are zero. The zero prefix is everything.
type Prefix struct {
	Path   fleet.Digest
	Digits uint8
}

// Valid says whether the prefix is one that Summary answers.
func (p Prefix) Valid() bool {
	if int(p.Digits) > maxDepth {
		return false
	}
	for i := int(p.Digits); i < maxDepth; i++ {
		if digit(p.Path, i) != 0 {
			return false
		}
	}
	return true
}

func (p Prefix) part(i int) Prefix {
	at := int(p.Digits)
	if at%2 == 0 {
		p.Path[at/2] |= byte(i) << 4
	} else {
		p.Path[at/2] |= byte(i)
	}
	p.Digits++
	return p
}

func (p Prefix) covers(position fleet.Digest) bool {
	for i := range int(p.Digits) {
		if digit(p.Path, i) != digit(position, i) {
			return false
		}
	}
	return true
}

// Entry says what lies at a position.
type Entry struct {
	Position fleet.Digest
	Tag      Tag
}

// Summary of one part of a set: the tags of its sixteen parts where it is divided, else its at most
// MaxEntries entries.
type Summary struct {
	At      Prefix
	Divided bool
	Parts   [fanout]Tag
	Entries []Entry
}

// MaxEntries is the most entries in a summary.
const MaxEntries = bucketSize

// Valid says whether a summary can have come from a set.
func (m *Summary) Valid() bool {
	if !m.At.Valid() || len(m.Entries) > MaxEntries {
		return false
	}
	if m.Divided {
		return int(m.At.Digits) < maxDepth && len(m.Entries) == 0
	}
	for _, e := range m.Entries {
		if !m.At.covers(e.Position) {
			return false
		}
	}
	return true
}

// Summary of the part at a prefix.
func (s *Set) Summary(salt Salt, share Share, at Prefix) Summary {
	m := Summary{At: at}
	part, bucket := s.shares[share].at(at)
	if part != nil && part.parts != nil {
		m.Divided = true
		for i, p := range part.parts {
			m.Parts[i] = salt.tag(p.fingerprint())
		}
		return m
	}
	for _, e := range bucket {
		m.Entries = append(m.Entries, Entry{e.position, salt.tag(e.recordDigest())})
	}
	return m
}

// at gives the node of a prefix, or, where the trie is not that deep, the entries of it.
func (n *node) at(p Prefix) (*node, []*entry) {
	for depth := range int(p.Digits) {
		if n == nil || n.parts == nil {
			break
		}
		n = n.parts[digit(p.Path, depth)]
	}
	if n == nil || n.parts != nil {
		return n, nil
	}
	var bucket []*entry
	for _, e := range n.bucket {
		if p.covers(e.position) {
			bucket = append(bucket, e)
		}
	}
	return nil, bucket
}

// fingerprintAt is the fingerprint of a part, whether or not the trie has a node for it.
func (n *node) fingerprintAt(p Prefix) fleet.Digest {
	part, bucket := n.at(p)
	if part != nil {
		return part.fingerprint()
	}
	return bucketPrint(bucket)
}

// Difference is what a summary of another set tells the holder of this one.
type Difference struct {
	// Ask for summaries of these parts: they differ.
	Ask []Prefix
	// Want are positions where the other holds something that is not here.
	Want []fleet.Digest
	// Offer are positions where something here is not there. A position that holds different records
	// is in both lists: the join of the two decides.
	Offer []fleet.Digest
}

// Diff compares this set with a valid summary of another one, made with the same salt.
func (s *Set) Diff(salt Salt, share Share, theirs Summary) Difference {
	var d Difference
	if !theirs.Divided {
		s.diffEntries(salt, share, theirs, &d)
		return d
	}
	for i, tag := range theirs.Parts {
		part := theirs.At.part(i)
		switch {
		case tag == salt.tag(s.shares[share].fingerprintAt(part)):
		case tag == Tag{}:
			s.walkAt(share, part, func(e *entry) { d.Offer = append(d.Offer, e.position) })
		default:
			d.Ask = append(d.Ask, part)
		}
	}
	return d
}

func (s *Set) diffEntries(salt Salt, share Share, theirs Summary, d *Difference) {
	there := make(map[fleet.Digest]Tag, len(theirs.Entries))
	for _, e := range theirs.Entries {
		there[e.Position] = e.Tag
	}
	s.walkAt(share, theirs.At, func(e *entry) {
		tag, both := there[e.position]
		if both && tag == salt.tag(e.recordDigest()) {
			delete(there, e.position)
			return
		}
		d.Offer = append(d.Offer, e.position)
	})
	for _, e := range theirs.Entries {
		if _, differs := there[e.Position]; differs {
			d.Want = append(d.Want, e.Position)
			delete(there, e.Position)
		}
	}
}

func (s *Set) walkAt(share Share, p Prefix, visit func(*entry)) {
	part, bucket := s.shares[share].at(p)
	part.walk(func(e *entry) bool { visit(e); return true })
	for _, e := range bucket {
		visit(e)
	}
}

// At is the record at a position of a share; false where there is none.
func (s *Set) At(share Share, position fleet.Digest) (fleet.Record, bool) {
	_, bucket := s.shares[share].at(Prefix{Path: position, Digits: uint8(maxDepth)})
	if len(bucket) == 0 {
		return fleet.Record{}, false
	}
	return bucket[0].record(), true
}
