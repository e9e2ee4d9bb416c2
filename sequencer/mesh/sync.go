// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
)

const (
	syncProtocol protocol.ID = "/flotilla/sync/2"

	// sessionsAtOnce bounds the reconciliations begun here that run at the same time.
	sessionsAtOnce = 4
	// What one reconciliation may cost; what is missing then is left to the next one.
	maxSessionRecords = 1 << 16
	maxSessionBytes   = 64 << 20
	// regossipMost is the most records learnt in one reconciliation that are told to others: more is a
	// newcomer catching up, and the others have it.
	regossipMost = 256
)

// ask says that a reconciliation with a member is due: urgent on a new connection, else when a
// heartbeat shows another root.
type ask struct {
	peer   peer.ID
	urgent bool
}

// askFor never blocks: a reconciliation not asked for is made up for by the next heartbeat or by the clock.
func (w *wire) askFor(a ask) {
	select {
	case w.asks <- a:
	default:
	}
}

// scheduler decides who is reconciled with, and when. It is reconcileLoop's alone.
type scheduler struct {
	running map[peer.ID]bool
	// again are members with whom another one is due when the running one ends.
	again map[peer.ID]bool
	// next is before when no heartbeat starts one.
	next  time.Time
	ended chan peer.ID
}

// reconcileLoop runs reconciliations: at most one with each member and sessionsAtOnce in all.
func (w *wire) reconcileLoop(ctx context.Context) {
	s := scheduler{running: map[peer.ID]bool{}, again: map[peer.ID]bool{}, ended: make(chan peer.ID)}
	defer func() {
		for range s.running {
			<-s.ended
		}
	}()
	clock := time.NewTimer(w.nextSync())
	defer clock.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case a := <-w.asks:
			w.consider(ctx, &s, a)
		case id := <-s.ended:
			delete(s.running, id)
			w.startWaiting(ctx, &s)
		case <-clock.C:
			clock.Reset(w.nextSync())
			if peers := w.host.Network().Peers(); len(peers) > 0 {
				w.consider(ctx, &s, ask{peers[mathrand.IntN(len(peers))], true})
			}
		}
	}
}

// nextSync is SyncEvery +-25 %.
func (w *wire) nextSync() time.Duration {
	return w.cfg.SyncEvery*3/4 + mathrand.N(w.cfg.SyncEvery/2+1)
}

func (w *wire) consider(ctx context.Context, s *scheduler, a ask) {
	if !a.urgent {
		now := time.Now()
		if now.Before(s.next) || !w.differs(a.peer) {
			return
		}
		s.next = now.Add(w.cfg.SyncGap)
		a.peer = w.nearest(a.peer)
	}
	if a.peer == "" {
		return
	}
	if s.running[a.peer] || len(s.running) >= sessionsAtOnce {
		s.again[a.peer] = true
		return
	}
	w.start(ctx, s, a.peer)
}

func (w *wire) startWaiting(ctx context.Context, s *scheduler) {
	for id := range s.again {
		if len(s.running) >= sessionsAtOnce {
			return
		}
		if !s.running[id] {
			delete(s.again, id)
			w.start(ctx, s, id)
		}
	}
}

// start is called by reconcileLoop, which waits for what it started.
func (w *wire) start(ctx context.Context, s *scheduler, id peer.ID) {
	s.running[id] = true
	go func() {
		defer func() { s.ended <- id }()
		err := w.reconcile(ctx, id)
		w.counts.sessions.Add(1)
		if err != nil {
			w.counts.sessionsFailed.Add(1)
			w.flood.judge(id, err)
			w.cfg.Log.V(1).Info("reconciliation failed", "peer", id, "why", err.Error())
		}
	}()
}

// differs asks again, as it may have been a while since the heartbeat.
func (w *wire) differs(id peer.ID) bool {
	member := fleet.MemberID(id.String())
	shown, ok := w.life.root(member)
	return ok && !w.sameAs(member, shown)
}

// nearest is the member itself where it is connected, else somebody between: whoever it is, is as likely to
// have heard.
func (w *wire) nearest(id peer.ID) peer.ID {
	if w.host.Network().Connectedness(id) == network.Connected {
		return id
	}
	peers := w.host.Network().Peers()
	if len(peers) == 0 {
		return ""
	}
	return peers[mathrand.IntN(len(peers))]
}

// asker is the side of a reconciliation that opened the stream.
type asker struct {
	*wire
	stream network.Stream
	in     *bufio.Reader
	salt   lattice.Salt

	bytes, records int
	learnt         []fleet.Record
	// settled are positions at which both hold the same since a moment ago.
	settled map[fleet.Digest]bool
}

var errBudget = errors.New("more than one reconciliation may cost; the rest is left to the next one")

// reconcile makes this member's set and another one's equal, as far as one session goes. What was
// learnt before an error stays.
func (w *wire) reconcile(ctx context.Context, id peer.ID) error {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.SessionTimeout)
	defer cancel()
	stream, err := w.open(ctx, id, syncProtocol)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = stream.Reset() })
	defer stop()
	a := asker{wire: w, stream: stream, in: bufio.NewReader(stream), settled: map[fleet.Digest]bool{}}
	err = a.run()
	w.counts.syncBytes.Add(uint64(a.bytes))
	w.learntBySync(a.learnt)
	if err != nil {
		return errors.Join(err, stream.Reset())
	}
	return stream.Close()
}

// learntBySync tells others what one reconciliation taught, unless it was a newcomer's bulk.
func (w *wire) learntBySync(learnt []fleet.Record) {
	if len(learnt) <= regossipMost {
		w.tell(learnt)
	}
}

func (a *asker) run() error {
	if _, err := rand.Read(a.salt[:]); err != nil {
		return err
	}
	same, err := a.hello()
	if same || err != nil {
		return err
	}
	shares, err := a.differing()
	if err != nil {
		return err
	}
	for _, share := range shares {
		if err := a.runShare(share); err != nil {
			return err
		}
	}
	return nil
}

// differing asks what the other carries.
func (a *asker) differing() ([]lattice.Share, error) {
	ours := a.carried()
	answer, err := a.question(sharesFrame(ours))
	if err != nil {
		return nil, err
	}
	if answer.kind != frameShares {
		return nil, unexpected(answer)
	}
	theirs, err := readShares(answer.body)
	if err != nil {
		return nil, err
	}
	return ours.differing(theirs), nil
}

// runShare makes one share equal. Depth first, and what is found goes over before more is looked for, so that a
// session that breaks off has not been in vain.
func (a *asker) runShare(share lattice.Share) error {
	var wants, offers []fleet.Digest
	asks := []lattice.Prefix{{}}
	for len(asks) > 0 {
		part := asks[max(0, len(asks)-asksAtOnce):]
		summaries, err := a.ask(share, part)
		if err != nil {
			return err
		}
		asks = asks[:len(asks)-len(part)]
		a.setMu.RLock()
		for _, m := range summaries {
			d := a.set.Diff(a.salt, share, m)
			asks, wants, offers = append(asks, d.Ask...), append(wants, d.Want...), append(offers, d.Offer...)
		}
		a.setMu.RUnlock()
		if len(asks) > 0 && len(wants) < wantsAtOnce && len(offers) < wantsAtOnce {
			continue
		}
		if err := a.pull(share, wants); err != nil {
			return err
		}
		if err := a.push(share, offers); err != nil {
			return err
		}
		wants, offers = nil, nil
	}
	return nil
}

// question sends a frame and reads the answer, each within its time.
func (a *asker) question(f frame) (frame, error) {
	if err := a.stream.SetDeadline(time.Now().Add(a.cfg.StreamTimeout)); err != nil {
		return frame{}, err
	}
	if err := writeFrame(a.stream, f); err != nil {
		return frame{}, err
	}
	answer, err := readFrame(a.in)
	if err != nil {
		return frame{}, err
	}
	a.bytes += f.size() + answer.size() + 2 // and the lengths, a byte or more
	if a.bytes > maxSessionBytes {
		return frame{}, errBudget
	}
	return answer, nil
}

func unexpected(f frame) error { return malformedFrame(fmt.Sprintf("frame %d out of turn", f.kind)) }

func (a *asker) hello() (same bool, err error) {
	root := a.Root()
	answer, err := a.question(rootFrame(frameHello, root, a.lifeID()))
	if err != nil {
		return false, err
	}
	var life lifeID
	theirs := root
	switch answer.kind {
	case frameSame:
		same = true
		life, err = readSame(answer.body)
	case frameDiffers:
		theirs, life, err = readRoot(answer.body)
	default:
		err = unexpected(answer)
	}
	if err != nil {
		return false, err
	}
	a.met(a.stream.Conn(), life, theirs)
	return same, nil
}

func (a *asker) ask(share lattice.Share, prefixes []lattice.Prefix) ([]lattice.Summary, error) {
	answer, err := a.question(askFrame(a.salt, share, prefixes))
	if err != nil {
		return nil, err
	}
	if answer.kind != frameSummaries {
		return nil, unexpected(answer)
	}
	return readSummaries(answer.body, prefixes)
}

// pull fetches what lies at these positions there.
func (a *asker) pull(share lattice.Share, wants []fleet.Digest) error {
	for len(wants) > 0 {
		part := wants[:min(len(wants), wantsAtOnce)]
		answer, err := a.question(wantFrame(share, part))
		if err != nil {
			return err
		}
		if answer.kind != frameRecords {
			return unexpected(answer)
		}
		done, records, err := readRecords(answer.body, len(part))
		if err != nil {
			return err
		}
		a.records += len(records)
		if a.records > maxSessionRecords {
			return errBudget
		}
		learnt, err := a.admit(records)
		if err != nil {
			return err
		}
		for i := range learnt {
			r := &learnt[i]
			a.settled[lattice.Position(r.Writer, r.Kind, r.Key)] = true
		}
		a.learnt = append(a.learnt, learnt...)
		wants = wants[done:]
	}
	return nil
}

// push gives what lies at these positions here, unless it has just come from there.
func (a *asker) push(share lattice.Share, offers []fleet.Digest) error {
	for len(offers) > 0 {
		part, done := a.collect(share, offers, maxFrame-1, func(p fleet.Digest) bool { return a.settled[p] })
		offers = offers[done:]
		if part.count == 0 {
			continue
		}
		a.records += part.count
		if a.records > maxSessionRecords {
			return errBudget
		}
		answer, err := a.question(frame{frameOffer, part.bytes})
		if err != nil {
			return err
		}
		if answer.kind != frameTaken || len(answer.body) > 0 {
			return unexpected(answer)
		}
	}
	return nil
}

// collect makes a batch of what lies at the positions, from the first, as far as most bytes go, and says how
// many positions that deals with. A record always fits.
func (n *Node) collect(share lattice.Share, positions []fleet.Digest, most int, skip func(fleet.Digest) bool) (b batch, done int) {
	n.setMu.RLock()
	defer n.setMu.RUnlock()
	for _, p := range positions {
		r, ok := n.set.At(share, p)
		if ok && !skip(p) && !b.add(r.Encode(), most) {
			break
		}
		done++
	}
	return b, done
}

// errDishonest ends a session with who sends what no member that checks would send.
var errDishonest = errors.New("record that fails its checks")

// admit lets records from a reconciliation through the same door as gossip's and joins them.
func (n *Node) admit(encoded [][]byte) ([]fleet.Record, error) {
	var records []fleet.Record
	for _, b := range encoded {
		r, v := n.examine(b)
		if v.dishonest() {
			return nil, fmt.Errorf("%w: key %.80q by %s", errDishonest, r.Key, r.Writer)
		}
		if v == news {
			records = append(records, r)
		}
	}
	learnt, err := n.commit(records...)
	n.counts.synced.Add(uint64(len(learnt)))
	return learnt, err
}
