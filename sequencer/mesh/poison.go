// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// This file keeps a record that kills who looks at it from killing him for ever. What the consumer is about to be
// shown is marked beside the store. Who dies there finds the marks at the next start, and shows what was marked
// one record at a time; the one that kills again is quarantined. It takes two deaths, because a process also
// dies of what is not its record's fault. In quarantine a record is carried like any other, so that roots stay equal,
// and never shown again.
//
// What it was may have been a stop, and a stop that nobody is shown stops nothing. So the consumer is told the heads of what
// is withheld from him: who, which kind, which key. The same goes for what did not read back from disk and did not come
// again, and for commands whose body makes a decoder panic.

const (
	// metaSuspects is where the store keeps what was marked at a death and was not shown alone since.
	metaSuspects = "mesh.suspects"
	// shownAtOnce bounds how many records are under one mark.
	shownAtOnce = 256
	// maxUndecoded bounds the commands that are told because their bodies make a decoder panic.
	maxUndecoded = 1024
)

// Withheld is what is known of a record that its consumer is not shown.
type Withheld struct {
	// ID is the record's digest; of one that cannot be read, a digest of its place.
	ID fleet.Digest
	// Head is the record without its body and its signature; of one that cannot be read, without its position, too.
	Head fleet.Record
}

func withheld(r *fleet.Record, id fleet.Digest) Withheld {
	return Withheld{id, fleet.Record{Fleet: r.Fleet, Writer: r.Writer, Epoch: r.Epoch, Seq: r.Seq, Kind: r.Kind, Key: r.Key}}
}

// placed is where a record lies in the set.
type placed struct {
	writer fleet.MemberID
	kind   fleet.Kind
	key    string
}

// change of the set, for its consumer; and what he cannot be shown.
type change struct {
	news, dropped []fleet.Record
	withheld      []Withheld
}

func (n *Node) changed(c change) {
	if len(c.news)+len(c.dropped)+len(c.withheld) > 0 {
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

// beginUnread finds what did not read back from disk and did not come again.
func (n *Node) beginUnread() error {
	heads, err := n.cfg.Store.SetApart()
	if err != nil {
		return fmt.Errorf("mesh: %w", err)
	}
	n.unread, n.undecoded = map[placed]Withheld{}, map[fleet.Digest]bool{}
	for i := range heads {
		r := &heads[i]
		if _, ok := n.set.Get(r.Writer, r.Kind, r.Key); !ok {
			id := fleet.DigestOf("flotilla.dev/unread", []byte(r.Writer), []byte{byte(r.Kind)}, []byte(r.Key))
			n.unread[placed{r.Writer, r.Kind, r.Key}] = withheld(r, id)
		}
	}
	return nil
}

// undecodable is called with a record whose body made a decoder panic. It is in no set; a command that its writer signed
// is told all the same.
func (n *Node) undecodable(r *fleet.Record) {
	if r.Kind != fleet.KindCommand || r.Verify(n.cfg.Fleet) != nil {
		return
	}
	id := r.Digest()
	n.showMu.Lock()
	known := n.undecoded[id] || len(n.undecoded) >= maxUndecoded
	if !known {
		n.undecoded[id] = true
	}
	n.showMu.Unlock()
	if !known {
		n.changed(change{withheld: []Withheld{withheld(r, id)}})
	}
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
	n.showMu.Lock()
	unread := slices.Collect(maps.Values(n.unread))
	n.showMu.Unlock()
	n.withhold(unread, nil)
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
		var hidden []Withheld
		for i := range few {
			if d := few[i].Digest(); n.quarantined[d] {
				hidden = append(hidden, withheld(&few[i], d))
			} else {
				digests, shown = append(digests, d), append(shown, few[i])
			}
		}
		n.withhold(hidden, nil)
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

// withhold tells the consumer what he is not shown from now on, and what of that is gone.
func (n *Node) withhold(now, gone []Withheld) {
	if len(now)+len(gone) > 0 && n.cfg.OnWithheld != nil {
		n.cfg.OnWithheld(now, gone)
	}
}

// tellNews calls OnNews, OnDropped and OnWithheld, in the order in which the set changed.
func (n *Node) tellNews(ctx context.Context) {
	for {
		changes, ok := n.fresh.wait(ctx)
		if !ok {
			return
		}
		var news []fleet.Record
		for _, c := range changes {
			n.withhold(c.withheld, nil)
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
	shown, gone := n.leavers(dropped)
	gone = append(gone, n.reread(news)...)
	n.withhold(nil, gone)
	if len(shown) > 0 && n.cfg.OnDropped != nil {
		n.cfg.OnDropped(shown)
	}
}

// leavers among what left the set: those that were shown, and those that were not and must not be now.
func (n *Node) leavers(dropped []fleet.Record) (shown []fleet.Record, hidden []Withheld) {
	n.showMu.Lock()
	defer n.showMu.Unlock()
	if len(n.quarantined) == 0 {
		return dropped, nil
	}
	for i := range dropped {
		if d := dropped[i].Digest(); n.quarantined[d] {
			hidden = append(hidden, withheld(&dropped[i], d))
		} else {
			shown = append(shown, dropped[i])
		}
	}
	return shown, hidden
}

// reread are those that could not be read and have come again; they were shown just now.
func (n *Node) reread(news []fleet.Record) (gone []Withheld) {
	n.showMu.Lock()
	defer n.showMu.Unlock()
	for i := 0; i < len(news) && len(n.unread) > 0; i++ {
		at := placed{news[i].Writer, news[i].Kind, news[i].Key}
		if w, ok := n.unread[at]; ok {
			gone = append(gone, w)
			delete(n.unread, at)
		}
	}
	return gone
}
