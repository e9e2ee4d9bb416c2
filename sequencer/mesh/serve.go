// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"bufio"
	"errors"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
)

// answerer is the side of a reconciliation that was asked.
type answerer struct {
	*wire
	from           peer.ID
	bytes, records int
	learnt         []fleet.Record
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
	a := answerer{wire: w, from: id}
	err := a.run(s)
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
	if w.serving[id] {
		return false
	}
	w.serving[id] = true
	return true
}

func (w *wire) endServing(id peer.ID) {
	w.handlersMu.Lock()
	defer w.handlersMu.Unlock()
	delete(w.serving, id)
}

func (a *answerer) run(s network.Stream) error {
	end := time.Now().Add(a.cfg.SessionTimeout)
	in := bufio.NewReader(s)
	for {
		// A frame must be here as a whole in time: who sends a byte now and then is cut off.
		deadline := time.Now().Add(a.cfg.StreamTimeout)
		if deadline.After(end) {
			deadline = end
		}
		if err := s.SetDeadline(deadline); err != nil {
			return err
		}
		question, err := readFrame(in)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		answer, err := a.answer(question, s.Conn())
		if err != nil {
			return err
		}
		a.bytes += question.size() + answer.size()
		if a.bytes > maxSessionBytes || a.records > maxSessionRecords {
			return errBudget
		}
		if err := s.SetWriteDeadline(time.Now().Add(a.cfg.StreamTimeout)); err != nil {
			return err
		}
		if err := writeFrame(s, answer); err != nil {
			return err
		}
	}
}

func (a *answerer) answer(question frame, from network.Conn) (frame, error) {
	switch question.kind {
	case frameHello:
		return a.hello(question.body, from)
	case frameAsk:
		q, err := readAsk(question.body)
		if err != nil {
			return frame{}, err
		}
		return a.summaries(q), nil
	case frameShares:
		if _, err := readShares(question.body); err != nil {
			return frame{}, err
		}
		return sharesFrame(a.carried()), nil
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

func (a *answerer) hello(body []byte, from network.Conn) (frame, error) {
	theirs, life, err := readRoot(body)
	if err != nil {
		return frame{}, err
	}
	a.met(from, life, theirs)
	root := a.Root()
	if root == theirs {
		return sameFrame(a.lifeID()), nil
	}
	return rootFrame(frameDiffers, root, a.lifeID()), nil
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
	if err := a.flood.offered(a.from, len(records)); err != nil {
		return frame{}, err
	}
	learnt, err := a.admit(records)
	if err != nil {
		return frame{}, err
	}
	a.learnt = append(a.learnt, learnt...)
	return frame{kind: frameTaken}, nil
}
