// SPDX-License-Identifier: Apache-2.0

package checker

import "hash/maphash"

// met finds states by value among the nodes of a search: a table of their numbers, so that no state is held twice.
type met struct {
	seed  maphash.Seed
	slots []int32 // a node's number and one more; 0 is free
	held  int
}

func newMet() met { return met{seed: maphash.MakeSeed(), slots: make([]int32, 1<<10)} }

// add the state that would become the next of the nodes; false where it is one of them.
func (m *met) add(nodes []node, s *state) bool {
	if 2*m.held >= len(m.slots) {
		m.grow(nodes)
	}
	at := m.slot(nodes, s)
	if m.slots[at] != 0 {
		return false
	}
	m.held++
	m.slots[at] = int32(m.held)
	return true
}

// slot of a state: its own, or the free one where it belongs.
func (m *met) slot(nodes []node, s *state) uint64 {
	mask := uint64(len(m.slots) - 1)
	at := maphash.Comparable(m.seed, *s) & mask
	for m.slots[at] != 0 && nodes[m.slots[at]-1].state != *s {
		at = (at + 1) & mask
	}
	return at
}

func (m *met) grow(nodes []node) {
	m.slots = make([]int32, 2*len(m.slots))
	for i := range nodes {
		m.slots[m.slot(nodes, &nodes[i].state)] = int32(i + 1)
	}
}
