// SPDX-License-Identifier: Apache-2.0

package lattice

import (
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// crowded makes positions that differ in their last digits alone, as nobody can choose them, but the code
// must not depend on that.
func crowded(i int) *entry {
	e := &entry{digest: fleet.Digest{byte(i), 1}}
	e.position[30], e.position[31] = byte(i>>4), byte(i<<4)
	return e
}

func TestTrieDividesToTheBottom(t *testing.T) {
	const size = 200
	up, down := &node{}, &node{}
	for i := range size {
		up.insert(crowded(i), 0)
		down.insert(crowded(size-1-i), 0)
		up.fingerprint()
	}
	if up.fingerprint() != down.fingerprint() {
		t.Error("the order of entries shows in the fingerprint")
	}
	seen, last := 0, fleet.Digest{}
	up.walk(func(e *entry) bool {
		if seen > 0 && comparePositions(e, last) <= 0 {
			t.Error("walk is not in the order of positions")
		}
		seen, last = seen+1, e.position
		return true
	})
	if seen != size || up.count != size {
		t.Errorf("walked %d of %d", seen, up.count)
	}
	for i := range size {
		e := crowded(i)
		if _, bucket := up.at(Prefix{Path: e.position, Digits: uint8(maxDepth)}); len(bucket) != 1 {
			t.Fatalf("entry %d: %d at its position", i, len(bucket))
		}
	}
}

func TestPrefixParts(t *testing.T) {
	p := Prefix{}
	for i := range maxDepth {
		p = p.part((i*7 + 3) % fanout)
		if !p.Valid() {
			t.Fatalf("prefix of %d digits is not valid", p.Digits)
		}
	}
	for i := range maxDepth {
		if got, want := digit(p.Path, i), (i*7+3)%fanout; got != want {
			t.Fatalf("digit %d is %x, want %x", i, got, want)
		}
	}
	if !p.covers(p.Path) || p.covers(fleet.Digest{}) {
		t.Error("a full prefix covers its own position and no other")
	}
}

// TestRemovedLeavesNoTrace: whatever was inserted and removed before, equal sets have equal tries.
func TestRemovedLeavesNoTrace(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		entryOf := func(i int) *entry {
			if i%3 == 0 {
				return crowded(i)
			}
			e := &entry{digest: fleet.Digest{byte(i), 1}}
			e.position = fleet.DigestOf("test", []byte{byte(i)})
			return e
		}
		worn, held := &node{}, map[int]bool{}
		for _, i := range rapid.SliceOfN(rapid.IntRange(0, 250), 0, 500).Draw(t, "touched") {
			if held[i] {
				worn.remove(entryOf(i).position, 0)
				delete(held, i)
			} else {
				worn.insert(entryOf(i), 0)
				held[i] = true
			}
			if i%5 == 0 {
				worn.fingerprint()
			}
		}
		plain := &node{}
		for i := range held {
			plain.insert(entryOf(i), 0)
		}
		if worn.count != len(held) || worn.fingerprint() != plain.fingerprint() || shape(worn) != shape(plain) {
			t.Fatalf("%d entries: the way to them shows: %s, want %s", len(held), shape(worn), shape(plain))
		}
	})
}

// shape draws a trie: the sizes of its buckets within their parts.
func shape(n *node) string {
	if n == nil {
		return "."
	}
	if n.parts == nil {
		return strconv.Itoa(len(n.bucket))
	}
	var parts []string
	for _, part := range n.parts {
		parts = append(parts, shape(part))
	}
	return "(" + strings.Join(parts, " ") + ")"
}
