// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"container/heap"
	"time"
)

// event is something that happens at a moment. Events of one moment happen in the order they were made.
type event struct {
	at    time.Duration
	order uint64
	do    func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].order < e[j].order
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	(*e)[len(*e)-1] = event{}
	*e = (*e)[:len(*e)-1]
	return last
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
	heap.Push(&t.queue, event{t.now + max(wait, 0), t.made, do})
}

// until runs everything up to a moment, or until stop says so.
func (t *timeline) until(end time.Duration, stop func() bool) {
	for len(t.queue) > 0 && t.queue[0].at <= end && !stop() {
		next := heap.Pop(&t.queue).(event)
		t.now = next.at
		next.do()
	}
	if !stop() {
		t.now = end
	}
}
