// SPDX-License-Identifier: Apache-2.0

package lattice

import (
	"slices"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

const (
	// fanout of the trie: one hex digit of a position per level.
	fanout = 16
	// bucketSize is the most entries that lie together undivided. With 16 a summary of a bucket is as
	// long as three summaries of a node, and a set of n records is log16(n/16) levels deep.
	bucketSize = 16
	// maxDepth in hex digits: a position has no more.
	maxDepth = 2 * len(fleet.Digest{})
)

// node is a part of the trie: a bucket of entries in the order of their positions, or, above
// bucketSize entries, sixteen parts. The shape depends on the entries alone and not on the order in which
// they came, hence so does the fingerprint.
type node struct {
	parts  *[fanout]*node
	bucket []*entry
	count  int
	// print is valid unless stale.
	print fleet.Digest
	stale bool
}

// Position is where a record lies: a hash, so that nobody chooses the shape of the trie.
func Position(writer fleet.MemberID, kind fleet.Kind, key string) fleet.Digest {
	return fleet.DigestOf("flotilla.dev/lattice-position", []byte(writer), []byte{byte(kind)}, []byte(key))
}

// digit is the position's hex digit at a depth.
func digit(position fleet.Digest, depth int) int {
	b := position[depth/2]
	if depth%2 == 0 {
		return int(b >> 4)
	}
	return int(b & 0x0f)
}

func comparePositions(a *entry, position fleet.Digest) int {
	return slices.Compare(a.position[:], position[:])
}

// insert puts in an entry whose position is not taken.
func (n *node) insert(e *entry, depth int) {
	n.count++
	n.stale = true
	if n.parts != nil {
		n.part(digit(e.position, depth)).insert(e, depth+1)
		return
	}
	i, _ := slices.BinarySearchFunc(n.bucket, e.position, comparePositions)
	n.bucket = slices.Insert(n.bucket, i, e)
	if len(n.bucket) > bucketSize {
		n.divide(depth)
	}
}

func (n *node) divide(depth int) {
	entries := n.bucket
	n.bucket, n.parts = nil, new([fanout]*node)
	for _, e := range entries {
		n.part(digit(e.position, depth)).insert(e, depth+1)
	}
}

func (n *node) part(i int) *node {
	if n.parts[i] == nil {
		n.parts[i] = &node{}
	}
	return n.parts[i]
}

// touch says that the entry at the position has another record now.
func (n *node) touch(position fleet.Digest, depth int) {
	n.stale = true
	if n.parts != nil {
		n.part(digit(position, depth)).touch(position, depth+1)
	}
}

// remove takes out the entry at the position. What is not above bucketSize any more lies together again, as if
// nothing else had ever been there.
func (n *node) remove(position fleet.Digest, depth int) {
	n.count--
	n.stale = true
	if n.parts == nil {
		if i, found := slices.BinarySearchFunc(n.bucket, position, comparePositions); found {
			n.bucket = slices.Delete(n.bucket, i, i+1)
		}
		return
	}
	at := digit(position, depth)
	if n.parts[at].remove(position, depth+1); n.parts[at].count == 0 {
		n.parts[at] = nil
	}
	if n.count <= bucketSize {
		n.bucket = make([]*entry, 0, bucketSize)
		for _, part := range n.parts {
			part.walk(func(e *entry) bool { n.bucket = append(n.bucket, e); return true })
		}
		n.parts = nil
	}
}

// walk visits the entries in the order of their positions until visit says stop.
func (n *node) walk(visit func(*entry) bool) bool {
	if n == nil {
		return true
	}
	for _, e := range n.bucket {
		if !visit(e) {
			return false
		}
	}
	if n.parts == nil {
		return true
	}
	for _, part := range n.parts {
		if !part.walk(visit) {
			return false
		}
	}
	return true
}

// fingerprint is zero for nothing at all, else a hash over the parts: whoever finds two sets with one
// fingerprint has found a collision of SHA-256. Only what changed is hashed again.
func (n *node) fingerprint() fleet.Digest {
	if n == nil || n.count == 0 {
		return fleet.Digest{}
	}
	if !n.stale {
		return n.print
	}
	if n.parts == nil {
		n.print = bucketPrint(n.bucket)
	} else {
		buf := make([]byte, 0, fanout*len(n.print))
		for _, part := range n.parts {
			part := part.fingerprint()
			buf = append(buf, part[:]...)
		}
		n.print = fleet.DigestOf("flotilla.dev/lattice-node", buf)
	}
	n.stale = false
	return n.print
}

func bucketPrint(bucket []*entry) fleet.Digest {
	if len(bucket) == 0 {
		return fleet.Digest{}
	}
	buf := make([]byte, 0, 2*len(bucket)*len(fleet.Digest{}))
	for _, e := range bucket {
		digest := e.recordDigest()
		buf = append(append(buf, e.position[:]...), digest[:]...)
	}
	return fleet.DigestOf("flotilla.dev/lattice-bucket", buf)
}
