// SPDX-License-Identifier: Apache-2.0

package sim

import "time"

// event is something that happens at a moment. Events of one moment happen in the order they were made.
type event struct {
	at    time.Duration
	order uint64
	do    func()
}

func (e *event) before(other *event) bool {
	return e.at < other.at || e.at == other.at && e.order < other.order
}

// events are a binary heap, the next one first. It is container/heap without its interface: a fleet's run is millions
// of events, and each would be put on the heap of the process twice.
type events []event

func (q *events) push(e event) {
	h := append(*q, e)
	*q = h
	for i := len(h) - 1; i > 0; {
		parent := (i - 1) / 2
		if !h[i].before(&h[parent]) {
			return
		}
		h[i], h[parent] = h[parent], h[i]
		i = parent
	}
}

func (q *events) pop() event {
	h := *q
	first, last := h[0], len(h)-1
	h[0], h[last] = h[last], event{}
	h = h[:last]
	*q = h
	for i := 0; ; {
		child := 2*i + 1
		if child >= len(h) {
			return first
		}
		if right := child + 1; right < len(h) && h[right].before(&h[child]) {
			child = right
		}
		if !h[child].before(&h[i]) {
			return first
		}
		h[i], h[child] = h[child], h[i]
		i = child
	}
}

// timeline is the queue, and now.
type timeline struct {
	queue events
	now   time.Duration
	made  uint64
}

// after a while, do.
func (t *timeline) after(wait time.Duration, do func()) {
	t.made++
	t.queue.push(event{t.now + max(wait, 0), t.made, do})
}

// until runs everything up to a moment, or until stop says so.
func (t *timeline) until(end time.Duration, stop func() bool) {
	for len(t.queue) > 0 && t.queue[0].at <= end && !stop() {
		next := t.queue.pop()
		t.now = next.at
		next.do()
	}
	if !stop() {
		t.now = end
	}
}
