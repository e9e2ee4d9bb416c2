// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"errors"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
)

// answerer is the side of a reconciliation that was asked.
type answerer struct {
	*Node
	*talk
	peer fleet.MemberID
	// protocol is syncProtocol or syncBefore.
	protocol protocol.ID
	met      func(lifeID, fleet.Digest)
	// offered is asked before so many records are looked at.
	offered func(int) error

	records int
	learnt  []fleet.Record
	// ours is what was carried when the first page was asked for, theirs what was told so far.
	ours, theirs carried
	pages        int
	// compared: it was found out that both hold the same, or in which shares they differ.
	compared bool
}

var errServing = errors.New("another reconciliation of this member is running")

// serveSync answers one member's questions until it has no more, or is too slow, or asks for too much.
func (w *wire) serveSync(s network.Stream) error {
	id := s.Conn().RemotePeer()
	if !w.beginServing(id) {
		w.counts.sessionsRefused.Add(1)
		return errServing
	}
	defer w.endServing(id)
	w.counts.sessionsServed.Add(1)
	member := fleet.MemberID(id.String())
	end := w.reconciling(member)
	a := answerer{
		Node: w.Node, talk: newTalk(s, w.cfg.StreamTimeout), peer: member, protocol: s.Protocol(),
		met:     func(life lifeID, root fleet.Digest) { w.met(s.Conn(), life, root) },
		offered: func(records int) error { return w.flood.offered(id, records) },
	}
	stop := time.AfterFunc(w.cfg.SessionTimeout, func() { _ = s.Reset() })
	defer stop.Stop()
	err := a.run()
	end(err == nil && a.compared)
	w.learntBySync(a.learnt)
	if err != nil {
		w.counts.sessionsRefused.Add(1)
		w.flood.judge(id, err)
	}
	return err
}

func (w *wire) beginServing(id peer.ID) bool {
	w.handlersMu.Lock()
	defer w.handlersMu.Unlock()
	if w.serving[id] || !w.line.mayServe(len(w.serving)) {
		return false
	}
	w.serving[id], w.askedAt[id] = true, time.Now()
	return true
}

func (w *wire) endServing(id peer.ID) {
	w.handlersMu.Lock()
	defer w.handlersMu.Unlock()
	delete(w.serving, id)
	w.askedAt[id] = time.Now()
}

func (a *answerer) run() (err error) {
	defer a.recovered(&err)
	for {
		question, err := a.receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		answer, err := a.answer(question)
		if err != nil {
			return err
		}
		if a.bytes > maxSessionBytes || a.records > maxSessionRecords {
			return errBudget
		}
		if err := a.send(answer); err != nil {
			return err
		}
	}
}

func (a *answerer) answer(question frame) (frame, error) {
	switch question.kind {
	case frameHello:
		return a.hello(question.body)
	case frameAsk:
		q, err := readAsk(question.body)
		if err != nil {
			return frame{}, err
		}
		return a.summaries(q), nil
	case frameShares:
		return a.shares(question.body)
	case frameWant:
		share, positions, err := readWant(question.body)
		if err != nil {
			return frame{}, err
		}
		b, done := a.collect(share, positions, maxFrame-3, func(fleet.Digest) bool { return false })
		a.records += b.count
		return recordsFrame(done, b), nil
	case frameOffer:
		return a.take(question.body)
	}
	return frame{}, unexpected(question)
}

func (a *answerer) hello(body []byte) (frame, error) {
	theirs, who, err := readRoot(body)
	if err != nil {
		return frame{}, err
	}
	a.flood.judges(a.peer, who.forms)
	whole, common := a.Root(), a.commonRoot(a.peer, false)
	if common == theirs {
		// What they hold beside it is none of ours to compare: it is as good as equal.
		a.met(who.life, whole)
		a.compared = true
		return sameFrame(a.introduction(a.protocol)), nil
	}
	a.met(who.life, theirs)
	return rootFrame(frameDiffers, common, a.introduction(a.protocol)), nil
}

// shares takes a page and gives the one of the same number.
func (a *answerer) shares(body []byte) (frame, error) {
	page, more, err := readShares(body)
	if err != nil {
		return frame{}, err
	}
	if a.pages == 0 {
		a.ours = a.carried()
	}
	if err := a.theirs.addPage(page); err != nil {
		return frame{}, err
	}
	answer, _ := sharesFrame(a.ours, a.pages)
	a.pages++
	if !more {
		a.compared = true
		a.told.note(a.peer, a.theirs)
	}
	return answer, nil
}

func (a *answerer) summaries(q question) frame {
	a.setMu.RLock()
	defer a.setMu.RUnlock()
	var summaries []lattice.Summary
	for _, p := range q.prefixes {
		summaries = append(summaries, a.set.Summary(q.salt, q.share, p))
	}
	return summariesFrame(summaries)
}

func (a *answerer) take(body []byte) (frame, error) {
	records, err := splitBatch(body)
	if err != nil {
		return frame{}, err
	}
	a.records += len(records)
	if err := a.offered(len(records)); err != nil {
		return frame{}, err
	}
	learnt, err := a.admit(a.peer, records)
	if err != nil {
		return frame{}, err
	}
	a.learnt = append(a.learnt, learnt...)
	return frame{kind: frameTaken}, nil
}
