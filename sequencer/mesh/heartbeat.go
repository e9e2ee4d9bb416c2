// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
)

// audience says whose heartbeats come here, and how many members hear each.
type audience struct {
	members int
	flat    bool
	own     string
	zones   map[string]int
	// stood are the zones for which this member stands in, and passes on what they say.
	stood map[string]bool
}

func (n *Node) audience() audience {
	a := audience{zones: map[string]int{}}
	for _, m := range n.roster().Members() {
		a.members++
		a.zones[m.Zone]++
		if m.ID == n.id {
			a.own = m.Zone
		}
	}
	a.flat = a.members <= n.cfg.Flat
	n.setMu.RLock()
	a.stood = n.stood
	n.setMu.RUnlock()
	return a
}

// hears says whether the heartbeats of a zone come here. Those of all zones would cost a member as much as the fleet has
// zones.
func (a audience) hears(zone string) bool { return a.flat || zone == a.own || a.stood[zone] }

// interval of the heartbeats of a zone's members; 0 if they do not come here.
func (a audience) interval(p pace, zone string) time.Duration {
	switch {
	case a.flat:
		return p.interval(a.members)
	case a.hears(zone):
		return p.interval(a.zones[zone])
	}
	return 0
}

func (n *Node) pace() pace { return pace{n.cfg.Beat, n.cfg.Heartbeat} }

func (n *Node) ownInterval() time.Duration {
	a := n.audience()
	return a.interval(n.pace(), a.own)
}

// heartbeats tells the zone that this member lives and what it holds: at once, soon again while it is young, then every
// interval; and at once when somebody says that it is lost, or speaks with its key.
func (w *wire) heartbeats(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var last moment
	for young := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-w.beatNow:
			timer.Reset(max(0, last+w.cfg.Beat/3-w.now()))
			continue
		case <-w.retime:
			timer.Reset(rand.N(w.pace().young(young, w.ownInterval()) + 1))
			continue
		case <-timer.C:
		}
		w.tellHeartbeat(ctx)
		last = w.now()
		next := w.pace().young(young, w.ownInterval())
		young++
		timer.Reset(next*9/10 + rand.N(next/5+1))
	}
}

func (w *wire) tellHeartbeat(ctx context.Context) {
	self, ok := w.roster().Member(w.id)
	if !ok {
		return
	}
	b := w.signHeartbeat(self.Zone)
	name := heartbeatsTopic(w.cfg.Fleet, self.Zone)
	w.publishTo(ctx, name, b)
}

func (w *wire) signHeartbeat(zone string) []byte {
	h := fleet.Heartbeat{
		Fleet: w.cfg.Fleet, Nonce: w.nonce, Counter: w.count(), Root: w.toldRoot(zone), Time: w.cfg.Now().Unix(),
	}
	h.Sign(w.cfg.Key)
	w.life.heartbeat(&h, shownWhole(h.Root), true, w.now())
	b := h.Encode()
	w.voice.Store(&voice{nonce{value: w.lifeID(), counter: h.Counter}, w.now(), b})
	return b
}

// speakUp signs a heartbeat for the neighbours alone: one of them says that it hears another agent with this key. If it
// lies, that costs a signature and 200 bytes a beat.
func (w *wire) speakUp() {
	self, ok := w.roster().Member(w.id)
	if last := w.voice.Load(); ok && (last == nil || w.now()-last.at >= w.cfg.Beat) {
		w.signHeartbeat(self.Zone)
	}
	w.doubleAt.CompareAndSwap(0, 1)
}

// toldRoot is what a heartbeat shows: of who carries everything the root of that, else that of what every member of the
// zone carries.
func (n *Node) toldRoot(zone string) fleet.Digest {
	c := n.carried()
	if c.everything {
		return n.Root()
	}
	return c.zoneRoot(zone)
}

// zoneRoot names what every member of a zone carries; zero where nothing is held of it.
func (c carried) zoneRoot(zone string) fleet.Digest {
	var parts []byte
	for _, share := range []lattice.Share{
		{Scope: fleet.ScopeFleet}, {Scope: fleet.ScopeMilestones, Zone: zone}, {Scope: fleet.ScopeDetail, Zone: zone},
	} {
		root, carried := c.root(share)
		if !carried {
			return fleet.Digest{}
		}
		parts = append(parts, root[:]...)
	}
	return fleet.DigestOf("flotilla.dev/zone-root", parts)
}

// validateHeartbeat decides whether what was said on a zone's heartbeat topic, a heartbeat or a notice, is passed on
// and heard. It checks as judge does for records, from cheap to dear.
func (w *wire) validateHeartbeat(_ context.Context, from peer.ID, m *pubsub.Message) pubsub.ValidationResult {
	if from == w.host.ID() {
		return pubsub.ValidationAccept
	}
	w.counts.gossipReceived.Add(1)
	var v verdict
	var writer fleet.MemberID
	if fleet.IsNotice(m.Data) {
		var n fleet.Notice
		n, v = w.judgeNotice(m.Data)
		m.ValidatorData, writer = &n, n.Writer
	} else {
		var h fleet.Heartbeat
		h, v = w.judgeHeartbeat(m.Data)
		m.ValidatorData, writer = &h, h.Writer
	}
	if counter := w.counterOf(v); counter != nil {
		counter.Add(1)
	}
	switch {
	case v == news && !w.flood.beats(from, writer):
		return pubsub.ValidationIgnore
	case v == news:
		return pubsub.ValidationAccept
	case v.dishonest():
		w.flood.strike(from, "a bad heartbeat")
		return pubsub.ValidationReject
	}
	return pubsub.ValidationIgnore
}

func (n *Node) judgeHeartbeat(b []byte) (fleet.Heartbeat, verdict) {
	if len(b) > fleet.MaxHeartbeat {
		return fleet.Heartbeat{}, tooLarge
	}
	h, err := fleet.DecodeHeartbeat(b)
	switch {
	case errors.Is(err, fleet.ErrVersion):
		return h, version
	case err != nil:
		return h, malformed
	case h.Fleet != n.cfg.Fleet:
		return h, otherFleet
	}
	if _, ok := n.roster().Member(h.Writer); !ok {
		return h, stranger
	}
	if !n.life.advances(&h) {
		return h, stale
	}
	if h.Verify(n.cfg.Fleet) != nil {
		return h, badSignature
	}
	return h, news
}

// heardSign hears a heartbeat or a notice that was validated.
func (w *wire) heardSign(_ context.Context, m *pubsub.Message) {
	switch said := m.ValidatorData.(type) {
	case *fleet.Heartbeat:
		w.heardHeartbeat(said)
	case *fleet.Notice:
		w.heardNotice(said)
	}
}

// heardHeartbeat notes that a member lives, and asks for a reconciliation if it holds something else.
func (w *wire) heardHeartbeat(h *fleet.Heartbeat) {
	s, now := shownWhole(h.Root), w.now()
	same := w.sameAs(h.Writer, s)
	flagged := w.life.flagged(h.Writer, now)
	if !w.life.heartbeat(h, s, same, now) {
		return
	}
	w.counts.heartbeats.Add(1)
	if h.Writer == w.id {
		w.answerDouble(flagged)
		return
	}
	if !same {
		if id, err := peerID(h.Writer); err == nil {
			w.askFor(ask{peer: id})
		}
	}
}

// answerDouble beats at once when somebody else speaks with this member's key, so that all, both agents among them,
// hear two that live at the same time. Once that is known, it is enough to keep it known.
func (w *wire) answerDouble(flagged bool) {
	now, gap := int64(w.now()), w.cfg.Beat
	if flagged {
		gap = duplicateBeats * w.cfg.Heartbeat / 4
	}
	last := w.doubleAt.Load()
	if (last <= 1 || now-last >= int64(gap)) && w.doubleAt.CompareAndSwap(last, now) {
		wake(w.beatNow)
	}
}
