// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"slices"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// loseStore of a member: the volume is gone, its cluster's API is not.
func (m *member) loseStore() {
	m.wipe()
	m.count("store lost")
	m.story(m, "the store is lost")
	if m.unpublished() {
		m.seen["a store lost between promise and publication"]++
	}
}

func (m *member) wipe() {
	m.heard, m.statuses = heard{}, map[fleet.RolloutName]fleet.Status{}
	m.reload()
}

// unpublished: a promise holds a milestone that nobody was told of.
func (m *member) unpublished() bool {
	for _, promise := range m.kept {
		for _, b := range promise.Said {
			if r, err := fleet.DecodeRecord(b); err == nil {
				if _, told := m.book.pages[r.Digest()]; !told {
					return true
				}
			}
		}
	}
	return false
}

// tear the store of a process that died while it wrote: some records do not match their checksums any more, and are set
// aside when it begins again. They come back from others, and the member's own from its promises.
func (m *member) tear() {
	torn := 0
	for range 1 + m.rand.IntN(16) {
		if m.heard.remove(page(m.rand.IntN(len(m.book.records)))) {
			torn++
		}
	}
	if torn > 0 {
		m.count("store torn")
		m.story(m, "%d records of the store are damaged", torn)
	}
}

// replay what a member holds now, for the rest of the storm.
func (m *member) replay() {
	hoard := m.hoard()
	m.story(m, "begins to say again what was said")
	var again func()
	again = func() {
		if !m.stormy {
			return
		}
		m.sayAgain(hoard)
		m.after(m.between(time.Second, 30*time.Second), again)
	}
	again()
}

// sayAgain some records of a hoard, of older releases and of rollouts that are over, to anybody and in any order, as if
// they were news.
func (m *member) sayAgain(hoard []page) {
	m.rand.Shuffle(len(hoard), func(i, j int) { hoard[i], hoard[j] = hoard[j], hoard[i] })
	batch := slices.Clone(hoard[:min(len(hoard), 1+m.rand.IntN(32))])
	if j := m.rand.IntN(len(m.members)); j != m.index && m.down <= m.now && len(batch) > 0 {
		m.count("old records replayed")
		m.send(j, m.book.size(batch), func(to *member) { to.hear(batch) })
	}
}

// hoard of everything that a member holds.
func (m *member) hoard() (held []page) {
	for i := range m.book.records {
		if m.heard.has(page(i)) {
			held = append(held, page(i))
		}
	}
	return held
}
