// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"sync"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// flights are the positions that reconciliations of this member have asked others for. A member that lacks much
// reconciles with several at once, and all of them have all of it: each position is fetched by one session, and the
// others leave it out, until it has come, or did not come in time.
type flights struct {
	mu sync.Mutex
	at map[fleet.Digest]flight
	// bulk are the sessions that bring much.
	bulk map[*asker]load
}

type flight struct {
	by    *asker
	until time.Time
}

// load is what a session brought up to a moment, in bytes.
type load struct {
	brought, marked int
	at              time.Time
}

const (
	// A session that brought bulkBytes within the last bulkTime brings much, at half of slowestRate or more. Who is slower
	// keeps nobody from anything.
	bulkBytes = 8 << 10
	bulkTime  = 4 * time.Second
	// bulkAtOnce such sessions share the work. More would compare the same parts of the set once more each.
	bulkAtOnce = 3
)

func (f *flights) begin() {
	f.at, f.bulk = map[fleet.Digest]flight{}, map[*asker]load{}
}

// claim gives those of the positions that nobody fetches; they are a's until a moment, or until it lands.
func (f *flights) claim(a *asker, positions []fleet.Digest, until time.Time) (claimed []fleet.Digest) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	for _, p := range positions {
		if other, ok := f.at[p]; ok && other.by != a && now.Before(other.until) {
			continue
		}
		f.at[p] = flight{a, until}
		claimed = append(claimed, p)
	}
	return claimed
}

// land ends a's claims on positions.
func (f *flights) land(a *asker, positions []fleet.Digest) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range positions {
		if f.at[p].by == a {
			delete(f.at, p)
		}
	}
}

// brought notes that a session brought so many bytes that were news.
func (f *flights) brought(a *asker, bytes int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.bulk[a]
	l.brought += bytes
	if l.brought-l.marked >= bulkBytes {
		l.marked, l.at = l.brought, time.Now()
	}
	f.bulk[a] = l
}

func (f *flights) ended(a *asker) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.bulk, a)
}

// busy says that so many sessions other than a bring much.
func (f *flights) busy(a *asker, most int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	now, others := time.Now(), 0
	for other, l := range f.bulk {
		if other != a && !l.at.IsZero() && now.Sub(l.at) < bulkTime {
			others++
		}
	}
	return others >= most
}

// window is how much a session asks for at a time, in bytes. It begins small and grows with what the other side and
// the line between bring in time, so that a frame is whole soon, however slow the line is.
type window struct{ size int }

const (
	windowFirst, windowLeast = 8 << 10, 2 << 10
	// An answer within windowSoon doubles the window, one after windowLate halves it.
	windowSoon, windowLate = time.Second, 3 * time.Second
	// What an answer holds for each thing asked for, for sizing questions: a summary with all its entries; a fact.
	summarySize, factSize = 1 + 16*48, 256
)

func (w *window) answered(after time.Duration) {
	switch {
	case after < windowSoon:
		w.size = min(2*w.size, maxFrame)
	case after > windowLate:
		w.size = max(w.size/2, windowLeast)
	}
}

// enough positions to be fetched or given before more is looked for. On a slow line a session may break off at any time,
// and what it found and did not fetch it found in vain.
func (w *window) enough() int {
	if w.size <= windowFirst {
		return w.positions()
	}
	return wantsAtOnce
}

// prefixes to ask for, and positions to want, at a time.
func (w *window) prefixes() int  { return min(max(1, w.size/summarySize), asksAtOnce) }
func (w *window) positions() int { return min(max(1, w.size/factSize), wantsAtOnce) }
