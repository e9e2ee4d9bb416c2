// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"context"
	"errors"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// Heartbeats of a large zone are rare, so somebody has to say who vanished: the members next to it, which noticed
// first. What they say is a notice, and whoever it is about and lives answers it with a heartbeat. Whether it is said
// is decided in lives.go.

// tellLoss publishes a notice in the zone of the member that it is about.
func (w *wire) tellLoss(ctx context.Context, lost loss, counter uint64) {
	about, ok := w.roster().Member(lost.about)
	if !ok {
		return
	}
	n := fleet.Notice{
		Fleet: w.cfg.Fleet, Life: w.lifeID(), Counter: counter,
		About: lost.about, AboutLife: lost.last.value, AboutCounter: lost.last.counter,
	}
	n.Sign(w.cfg.Key)
	encoded := n.Encode()
	w.life.keepNotice(lost.about, encoded)
	w.counts.notices.Add(1)
	name := heartbeatsTopic(w.cfg.Fleet, about.Zone)
	w.publishTo(ctx, name, encoded)
}

// readNotice checks all but what it costs to check.
func (n *Node) readNotice(b []byte) (fleet.Notice, verdict) {
	if len(b) > fleet.MaxNotice {
		return fleet.Notice{}, tooLarge
	}
	notice, err := fleet.DecodeNotice(b)
	switch {
	case errors.Is(err, fleet.ErrVersion):
		return notice, version
	case err != nil:
		return notice, malformed
	case notice.Fleet != n.cfg.Fleet:
		return notice, otherFleet
	}
	if _, ok := n.roster().Member(notice.Writer); !ok {
		return notice, stranger
	}
	if _, ok := n.roster().Member(notice.About); !ok {
		return notice, stranger
	}
	return notice, news
}

func (n *Node) judgeNotice(b []byte) (fleet.Notice, verdict) {
	notice, v := n.readNotice(b)
	if v != news {
		return notice, v
	}
	switch teaches, within := n.life.noticeIsNews(&notice, n.now()); {
	case !teaches:
		return notice, stale
	case !within:
		return notice, surplus
	}
	if notice.Verify(n.cfg.Fleet) != nil {
		return notice, badSignature
	}
	switch heard, pass := n.life.notice(&notice, n.now()); {
	case !heard:
		return notice, stale // a replay, or too many, that came at the same moment
	case !pass:
		n.counts.noticesHeard.Add(1)
		n.answer(&notice)
		return notice, surplus
	}
	return notice, news
}

// heardNotice is told one that is passed on, too.
func (w *wire) heardNotice(n *fleet.Notice) {
	w.counts.noticesHeard.Add(1)
	w.answer(n)
}

// answer one about this member.
func (n *Node) answer(notice *fleet.Notice) {
	if w := n.running.Load(); w != nil && notice.About == n.id {
		wake(w.beatNow)
	}
}
