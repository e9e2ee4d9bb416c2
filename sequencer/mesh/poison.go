// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"context"
	"fmt"
	"slices"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// This file keeps a record that kills who looks at it from killing him for ever. What the consumer is about to be
// shown is marked beside the store. Who dies there finds the marks at the next start, and shows what was marked
// one record at a time; the one that kills again is quarantined. It takes two deaths, because a process also
// dies of what is not its record's fault, and a stop that nobody is shown stops nothing. In quarantine a record is
// carried like any other, so that roots stay equal, and never shown again.

const (
	// metaSuspects is where the store keeps what was marked at a death and was not shown alone since.
	metaSuspects = "mesh.suspects"
	// shownAtOnce bounds how many records are under one mark.
	shownAtOnce = 256
)

// change of the set, for its consumer.
type change struct{ news, dropped []fleet.Record }

func (n *Node) changed(c change) {
	if len(c.news)+len(c.dropped) > 0 {
		n.fresh.put(c)
	}
}

// beginSuspects finds out what the process before this one died of.
func (n *Node) beginSuspects() error {
	var err error
	if n.quarantined, err = n.cfg.Store.Quarantined(); err != nil {
		return fmt.Errorf("mesh: %w", err)
	}
	kept, err := n.cfg.Store.Meta(metaSuspects)
	if err != nil {
		return fmt.Errorf("mesh: %w", err)
	}
	for ; len(kept) >= digestSize; kept = kept[digestSize:] {
		n.suspects = append(n.suspects, fleet.Digest(kept))
	}
	defer func() { n.counts.withheld.Store(uint64(len(n.quarantined))) }()
	left := n.cfg.Store.Suspects()
	if len(left) == 0 {
		return nil
	}
	if at := slices.Index(n.suspects, left[0]); len(left) == 1 && at >= 0 {
		if err := n.cfg.Store.Quarantine(left[0]); err != nil {
			return fmt.Errorf("mesh: %w", err)
		}
		n.quarantined[left[0]] = true
		n.suspects = slices.Delete(n.suspects, at, at+1)
		n.cfg.Log.Info("record in quarantine: this agent died twice while looking at it", "record", left[0])
	} else {
		n.cfg.Log.Info("this agent died while looking at records; they are looked at one at a time", "records", len(left))
		for _, d := range left {
			if !slices.Contains(n.suspects, d) {
				n.suspects = append(n.suspects, d)
			}
		}
	}
	return n.keepSuspects()
}

func (n *Node) keepSuspects() error {
	var b []byte
	for _, d := range n.suspects {
		b = append(b, d[:]...)
	}
	if err := n.cfg.Store.SetMeta(metaSuspects, b); err != nil {
		return fmt.Errorf("mesh: keeping suspects: %w", err)
	}
	return nil
}

// Held shows look every record held but for those in quarantine, as many at a time as OnNews may be shown: a
// consumer reads them before it calls Run. look must not call Held, and has looked when it returns.
func (n *Node) Held(look func([]fleet.Record)) {
	suspected := map[fleet.Digest]bool{}
	for _, d := range n.suspects {
		suspected[d] = true
	}
	var alone, others []fleet.Record
	n.setMu.RLock()
	for r := range n.set.All() {
		if len(suspected) > 0 && suspected[r.Digest()] {
			alone = append(alone, r)
		} else {
			others = append(others, r)
		}
	}
	n.setMu.RUnlock()
	for i := range alone {
		n.reveal(alone[i:i+1], look)
	}
	n.reveal(others, look)
	if len(n.suspects) > 0 {
		n.suspects = nil
		if err := n.keepSuspects(); err != nil {
			n.cfg.Log.Error(err, "records stay under suspicion")
		}
	}
}

// reveal lets look see records that are not in quarantine, a few at a time, each few under a mark.
func (n *Node) reveal(records []fleet.Record, look func([]fleet.Record)) {
	n.showMu.Lock()
	defer n.showMu.Unlock()
	for few := range slices.Chunk(records, shownAtOnce) {
		var digests []fleet.Digest
		var shown []fleet.Record
		for i := range few {
			if d := few[i].Digest(); !n.quarantined[d] {
				digests, shown = append(digests, d), append(shown, few[i])
			}
		}
		if len(shown) == 0 {
			continue
		}
		if err := n.cfg.Store.Suspect(digests); err != nil {
			n.cfg.Log.Error(err, "records are looked at without a mark", "records", len(shown))
		}
		look(shown)
		if err := n.cfg.Store.Cleared(); err != nil {
			n.cfg.Log.Error(err, "the mark on records that were looked at stays", "records", len(shown))
		}
	}
}

// tellNews calls OnNews and OnDropped, in the order in which the set changed.
func (n *Node) tellNews(ctx context.Context) {
	for {
		changes, ok := n.fresh.wait(ctx)
		if !ok {
			return
		}
		var news []fleet.Record
		for _, c := range changes {
			news = append(news, c.news...)
			if len(c.dropped) > 0 {
				n.tellOne(news, c.dropped)
				news = nil
			}
		}
		n.tellOne(news, nil)
	}
}

func (n *Node) tellOne(news, dropped []fleet.Record) {
	n.heardOf(news)
	if len(news) > 0 && n.cfg.OnNews != nil {
		n.reveal(news, n.cfg.OnNews)
	}
	if len(dropped) > 0 && n.cfg.OnDropped != nil {
		n.cfg.OnDropped(dropped)
	}
}
