// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"os"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
)

const (
	syncProtocol protocol.ID = "/flotilla/sync/3"
	// syncBefore is spoken with who does not know syncProtocol.
	syncBefore protocol.ID = "/flotilla/sync/2"

	// sessionsAtOnce bounds the reconciliations begun here within SyncGap that run at the same time, sessionsMost all
	// of them: who is slow takes nobody's place.
	sessionsAtOnce = 4
	sessionsMost   = 32
	// What one reconciliation may cost; what is missing then is left to the next one.
	maxSessionRecords = 1 << 16
	maxSessionBytes   = 64 << 20
	// regossipMost is the most records learnt in one reconciliation that are told to others: more is a
	// newcomer catching up, and the others have it.
	regossipMost = 256
	// pushMost records are given to the other side in one session, pushToAsker to one that asked by itself a moment ago.
	// It gets the others by asking, from whom it likes, and each once: several neighbours that pushed would push the
	// same.
	pushMost, pushToAsker = 256, 16
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
	// running since when.
	running map[peer.ID]time.Time
	// again are members with whom another one is due when the running one ends.
	again map[peer.ID]bool
	// rest are members with whom something was left to others, and when to look whether those brought it: at the
	// latest; sooner where a session ends that brought something.
	rest map[peer.ID]time.Time
	// failing are members whose last reconciliation came to nothing.
	failing map[peer.ID]failures
	// next is before when no heartbeat starts one.
	next  time.Time
	ended chan ended
}

// failures is how often in a row, and until when only a new connection makes another attempt, or a clock with nobody
// else to ask.
type failures struct {
	times int
	until time.Time
}

// ended is the end of one reconciliation.
type ended struct {
	id     peer.ID
	err    error
	learnt int
	// left: something is left, to other sessions or to the other side.
	left bool
}

// reconcileLoop runs reconciliations: at most one with each member.
func (w *wire) reconcileLoop(ctx context.Context) {
	s := scheduler{running: map[peer.ID]time.Time{}, again: map[peer.ID]bool{}, rest: map[peer.ID]time.Time{}, failing: map[peer.ID]failures{}, ended: make(chan ended)}
	defer func() {
		for range s.running {
			<-s.ended
		}
	}()
	clock, gap := time.NewTimer(w.nextSync()), time.NewTicker(w.cfg.SyncGap)
	defer clock.Stop()
	defer gap.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-gap.C:
			w.watchLine()
			w.startWaiting(ctx, &s)
		case a := <-w.asks:
			w.consider(ctx, &s, a)
		case end := <-s.ended:
			delete(s.running, end.id)
			w.judgeEnd(&s, end)
			w.startWaiting(ctx, &s)
		case <-w.sharesNow:
			w.fetchShares(ctx, &s)
		case <-clock.C:
			clock.Reset(w.nextSync())
			w.fetchShares(ctx, &s)
			if id, ok := w.pick(&s); ok {
				w.consider(ctx, &s, ask{id, true})
			}
		}
	}
}

// nextSync is SyncEvery +-25 %.
func (w *wire) nextSync() time.Duration {
	return w.cfg.SyncEvery*3/4 + mathrand.N(w.cfg.SyncEvery/2+1)
}

// judgeEnd remembers who fails. A reconciliation that broke off and taught something goes on at once: it was the budget,
// the time or the network that ended it.
func (w *wire) judgeEnd(s *scheduler, end ended) {
	if end.learnt > 0 {
		for id := range s.rest {
			s.rest[id] = time.Time{}
		}
	}
	if end.err == nil || end.learnt > 0 {
		delete(s.failing, end.id)
		if end.left {
			s.rest[end.id] = time.Now().Add(jitter(w.cfg.StreamTimeout))
		} else if end.err != nil && w.host.Network().Connectedness(end.id) == network.Connected {
			s.again[end.id] = true
		}
		return
	}
	f := s.failing[end.id]
	f.times++
	pause := min(w.cfg.SyncGap<<min(f.times, 16), w.cfg.SyncEvery)
	f.until = time.Now().Add(jitter(pause))
	s.failing[end.id] = f
}

// pick a connected member by chance: now and then one that failed, when its pause is over, as it may be well by now;
// else of those that do not fail, where there are any, and every other time of the own zone, with which most is in common.
func (w *wire) pick(s *scheduler) (peer.ID, bool) {
	peers := w.host.Network().Peers()
	self, _ := w.roster().Member(w.id)
	again, now := mathrand.IntN(8) == 0, time.Now()
	for _, fits := range []func(peer.ID) bool{
		func(id peer.ID) bool { return again && s.failing[id].times > 0 && now.After(s.failing[id].until) },
		func(id peer.ID) bool {
			return s.failing[id].times == 0 && mathrand.IntN(2) == 0 && w.inZone(id, self.Zone)
		},
		func(id peer.ID) bool { return s.failing[id].times == 0 },
		func(peer.ID) bool { return true },
	} {
		var some []peer.ID
		for _, id := range peers {
			if fits(id) {
				some = append(some, id)
			}
		}
		if len(some) > 0 {
			return some[mathrand.IntN(len(some))], true
		}
	}
	return "", false
}

func (w *wire) inZone(id peer.ID, zone string) bool {
	m, ok := w.roster().Member(fleet.MemberID(id.String()))
	return ok && m.Zone == zone
}

// fetchShares reconciles with somebody who carries what this member has begun to carry; two, as one may be slow.
func (w *wire) fetchShares(ctx context.Context, s *scheduler) {
	w.setMu.RLock()
	c := w.carries
	w.setMu.RUnlock()
	for _, share := range w.told.wants(c) {
		carriers := w.carriersOf(share)
		mathrand.Shuffle(len(carriers), func(i, j int) { carriers[i], carriers[j] = carriers[j], carriers[i] })
		for _, id := range carriers[:min(2, len(carriers))] {
			w.consider(ctx, s, ask{id, true})
		}
	}
}

func (w *wire) consider(ctx context.Context, s *scheduler, a ask) {
	if !a.urgent {
		now := time.Now()
		if now.Before(s.next) || !w.differs(a.peer) {
			return
		}
		s.next = now.Add(w.cfg.SyncGap)
		if a.peer = w.nearest(a.peer); now.Before(s.failing[a.peer].until) {
			return // the clock asks somebody else
		}
		if _, waits := s.rest[a.peer]; waits {
			return // for what others bring
		}
	}
	if a.peer == "" {
		return
	}
	if !w.line.mayAsk() || !s.mayStart(a.peer, w.cfg.SyncGap) {
		s.again[a.peer] = true
		return
	}
	w.start(ctx, s, a.peer)
}

// mayStart says whether there is room for a reconciliation with a member, and none is running. Those that have been
// running for longer than gap do not count, or a few slow members would keep all others waiting; and members that
// fail have half of the room.
func (s *scheduler) mayStart(id peer.ID, gap time.Duration) bool {
	if _, running := s.running[id]; running || len(s.running) >= sessionsMost {
		return false
	}
	begun, slow := 0, 0
	for other, since := range s.running {
		if time.Since(since) < gap {
			begun++
		}
		if s.failing[other].times > 0 {
			slow++
		}
	}
	return begun < sessionsAtOnce && (s.failing[id].times == 0 || slow < sessionsMost/2)
}

func (w *wire) startWaiting(ctx context.Context, s *scheduler) {
	for id, due := range s.rest {
		if time.Now().Before(due) {
			continue
		}
		delete(s.rest, id)
		if w.host.Network().Connectedness(id) == network.Connected {
			s.again[id] = true
		}
	}
	for id := range s.again {
		if w.line.mayAsk() && s.mayStart(id, w.cfg.SyncGap) {
			delete(s.again, id)
			w.start(ctx, s, id)
		}
	}
}

// start is called by reconcileLoop, which waits for what it started.
func (w *wire) start(ctx context.Context, s *scheduler, id peer.ID) {
	s.running[id] = time.Now()
	over := w.line.asking()
	go func() {
		learnt, left, err := w.reconcile(ctx, id)
		over()
		w.counts.sessions.Add(1)
		if err != nil {
			w.counts.sessionsFailed.Add(1)
			w.flood.judge(id, err)
			w.cfg.Log.V(1).Info("reconciliation failed", "peer", id, "why", err.Error())
		}
		s.ended <- ended{id, err, learnt, left}
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

// talk is one end of a reconciliation's stream.
type talk struct {
	stream stream
	in     *bufio.Reader
	// timeout is for a frame to begin, and then for each part of it, beside the time that the part takes at slowestRate:
	// a frame that moves is not late.
	timeout time.Duration
	// bytes sent and received, lengths included; answered: some came.
	bytes    int
	answered bool
	window   window
}

// stream is what a talk needs of libp2p's.
type stream interface {
	io.ReadWriter
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

const (
	// slowestRate in bytes a second is half of what a site with 64 kbit/s has. Who is much slower, or sends a byte now
	// and then, is cut off.
	slowestRate = 4 << 10
	// partSize of a frame has a deadline of its own.
	partSize = 4 << 10
)

func newTalk(s stream, timeout time.Duration) *talk {
	t := &talk{stream: s, timeout: timeout, window: window{windowFirst}}
	t.in = bufio.NewReader(s)
	return t
}

// until is when so many bytes have to be through.
func (t *talk) until(size int) time.Time {
	return time.Now().Add(t.timeout + time.Duration(size)*time.Second/slowestRate)
}

func (t *talk) send(f frame) error {
	t.bytes += f.size() + lengthOf(f.size())
	return writeFrame(parts{t}, f)
}

// parts are the two directions of a talk, part by part, each in its time.
type parts struct{ *talk }

func (p parts) Write(b []byte) (written int, err error) {
	for len(b) > 0 {
		part := b[:min(len(b), partSize)]
		if err := p.stream.SetWriteDeadline(p.until(len(part))); err != nil {
			return written, err
		}
		n, err := p.stream.Write(part)
		written, b = written+n, b[n:]
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

func (p parts) Read(b []byte) (read int, err error) {
	part := b[:min(len(b), partSize)]
	if err := p.stream.SetReadDeadline(p.until(len(part))); err != nil {
		return 0, err
	}
	return io.ReadFull(p.in, part)
}

// receive reads a frame. It is io.EOF only where a frame would begin.
func (t *talk) receive() (frame, error) {
	if err := t.stream.SetReadDeadline(t.until(0)); err != nil {
		return frame{}, err
	}
	size, err := readFrameSize(t.in)
	if err != nil {
		return frame{}, err
	}
	t.answered = true
	t.bytes += size + lengthOf(size)
	return readFrameBody(parts{t}, size)
}

// lengthOf is how many bytes a frame's length takes.
func lengthOf(size int) int { return len(binary.AppendUvarint(nil, uint64(size))) }

// asker is the side of a reconciliation that opened the stream.
type asker struct {
	*Node
	*talk
	peer fleet.MemberID
	// protocol is syncProtocol or syncBefore.
	protocol protocol.ID
	// met is told who answered.
	met  func(lifeID, fleet.Digest)
	salt lattice.Salt

	records int
	learnt  []fleet.Record
	// pushes is how many records may be given; no bound where it is 0. pushed are those that were.
	pushes, pushed int
	// absent were the wanted positions at which nothing lay here when they were found.
	absent map[fleet.Digest]bool
	// left counts what other sessions fetch or fetched instead, unsaid what was not given.
	left, unsaid int
	// settled are positions at which both hold the same since a moment ago.
	settled map[fleet.Digest]bool
}

var errBudget = errors.New("more than one reconciliation may cost; the rest is left to the next one")

// reconcile makes this member's set and another one's equal, as far as one session goes. What was
// learnt before an error stays.
func (w *wire) reconcile(ctx context.Context, id peer.ID) (learnt int, left bool, err error) {
	member := fleet.MemberID(id.String())
	a := asker{Node: w.Node, peer: member, pushes: w.pushesTo(id)}
	end := w.reconciling(member)
	defer func() { end(err == nil && a.left == 0) }()
	ctx, cancel := context.WithTimeout(ctx, w.cfg.SessionTimeout)
	defer cancel()
	opening, opened := context.WithTimeout(ctx, w.cfg.StreamTimeout)
	stream, err := w.open(opening, id, syncProtocol, syncBefore)
	opened()
	if err != nil {
		if w.speaksOther(id) {
			w.counts.unspoken.Add(1)
		}
		return 0, false, err
	}
	stop := context.AfterFunc(ctx, func() { _ = stream.Reset() })
	defer stop()
	a.talk = newTalk(stream, w.cfg.StreamTimeout)
	a.protocol = stream.Protocol()
	a.met = func(life lifeID, root fleet.Digest) { w.met(stream.Conn(), life, root) }
	err = a.run()
	w.counts.syncBytes.Add(uint64(a.bytes))
	w.learntBySync(a.learnt)
	left = a.left+a.unsaid > 0
	if err != nil {
		if !a.answered {
			// What is remembered may be of an earlier agent with this key: ask for the protocol anew.
			_ = w.host.Peerstore().RemoveProtocols(id, syncProtocol, syncBefore)
		}
		return len(a.learnt), left, errors.Join(err, stream.Reset())
	}
	if !left {
		w.told.reconciled(member)
	}
	// Who gives nothing but what is refused here, such as registers that have ended by this clock and not by its own, is
	// not asked again at once.
	fruitless := a.records > a.pushed && len(a.learnt) == 0
	return len(a.learnt), left || fruitless, stream.Close()
}

// pushesTo is how many records one session may give to a member.
func (w *wire) pushesTo(id peer.ID) int {
	w.handlersMu.Lock()
	defer w.handlersMu.Unlock()
	if at, ok := w.askedAt[id]; ok && time.Since(at) < w.cfg.SyncEvery {
		return pushToAsker
	}
	return pushMost
}

// speaksOther says that a member has said which protocols it speaks, and none of ours is among them. It is asked again
// like anyone who fails: it may be replaced by a newer one.
func (w *wire) speaksOther(id peer.ID) bool {
	spoken, err := w.host.Peerstore().GetProtocols(id)
	return err == nil && len(spoken) > 0 && !slices.Contains(spoken, syncProtocol) && !slices.Contains(spoken, syncBefore)
}

// learntBySync tells others what one reconciliation taught, unless it was a newcomer's bulk, or a part of one.
func (n *Node) learntBySync(learnt []fleet.Record) {
	if len(learnt) <= regossipMost && !n.flights.busy(nil, 1) {
		n.tell(learnt)
	}
}

func (a *asker) run() (err error) {
	defer a.recovered(&err)
	defer a.flights.ended(a)
	a.settled, a.absent = map[fleet.Digest]bool{}, map[fleet.Digest]bool{}
	if _, err := rand.Read(a.salt[:]); err != nil {
		return err
	}
	same, err := a.hello()
	if same || err != nil || a.givesWay() {
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

// recovered turns a panic over what another member sent into the end of its session.
func (n *Node) recovered(err *error) {
	if p := recover(); p != nil { //nolint:revive // who calls it defers it
		n.counts.poisoned.Add(1)
		*err = fmt.Errorf("panic over what was sent: %v", p)
		n.cfg.Log.Error(*err, "reconciliation ended")
	}
}

// differing tells what is carried here and asks what is carried there, a page of each at a time.
func (a *asker) differing() ([]lattice.Share, error) {
	ours, theirs := a.carried(), carried{}
	for i, more := 0, true; more; i++ {
		page, moreOurs := sharesFrame(ours, i)
		answer, err := a.question(page)
		if err != nil {
			return nil, err
		}
		if answer.kind != frameShares {
			return nil, unexpected(answer)
		}
		next, moreTheirs, err := readShares(answer.body)
		if err != nil {
			return nil, err
		}
		if err := theirs.addPage(next); err != nil {
			return nil, err
		}
		// A page of nothing that is not the last one would go on for ever.
		more = moreOurs || moreTheirs && len(next.shares) > 0
	}
	a.told.note(a.peer, theirs)
	return ours.differing(theirs), nil
}

// givesWay says that others bring much already. What is different here is most likely what they bring.
func (a *asker) givesWay() bool {
	if !a.flights.busy(a, bulkAtOnce) {
		return false
	}
	a.left++
	return true
}

// runShare makes one share equal. Depth first, and what is found goes over before more is looked for, so that a
// session that breaks off has not been in vain. In
// which order the parts come is chance, so that sessions with several members meet as late as can be.
func (a *asker) runShare(share lattice.Share) error {
	var wants, offers []fleet.Digest
	open := []unequal{{}}
	for len(open) > 0 {
		if a.givesWay() {
			return nil
		}
		at := max(0, len(open)-a.window.prefixes())
		asks := a.still(share, open[at:])
		open = open[:at]
		summaries, err := a.ask(share, asks)
		if err != nil {
			return err
		}
		for i := range summaries {
			d := a.diff(share, &summaries[i])
			for _, p := range d.Ask {
				open = append(open, unequal{p, &summaries[i]})
			}
			wants, offers = append(wants, d.Want...), append(offers, d.Offer...)
		}
		if enough := a.window.enough(); len(open) > 0 && len(wants) < enough && len(offers) < enough {
			continue
		}
		if err := a.pull(share, wants); err != nil {
			return err
		}
		if err := a.push(share, offers); err != nil {
			return err
		}
		wants, offers = nil, nil
		clear(a.absent)
	}
	return nil
}

// unequal is a part of the set that is to be looked into, and the other side's summary that showed it; nil for the
// whole.
type unequal struct {
	at lattice.Prefix
	in *lattice.Summary
}

// still are the parts that are unequal now: what was missing may have come from others since.
func (a *asker) still(share lattice.Share, parts []unequal) (asks []lattice.Prefix) {
	a.setMu.RLock()
	defer a.setMu.RUnlock()
	differ := map[*lattice.Summary][]lattice.Prefix{}
	for _, part := range parts {
		if part.in == nil {
			asks = append(asks, part.at)
			continue
		}
		now, known := differ[part.in]
		if !known {
			now = a.set.Diff(a.salt, share, *part.in).Ask
			differ[part.in] = now
		}
		if slices.Contains(now, part.at) {
			asks = append(asks, part.at)
		}
	}
	return asks
}

// diff compares what is here with a summary. It notes which of the wanted positions are empty here.
func (a *asker) diff(share lattice.Share, m *lattice.Summary) lattice.Difference {
	a.setMu.RLock()
	defer a.setMu.RUnlock()
	d := a.set.Diff(a.salt, share, *m)
	for _, p := range d.Want {
		if _, held := a.set.At(share, p); !held {
			a.absent[p] = true
		}
	}
	mathrand.Shuffle(len(d.Ask), func(i, j int) { d.Ask[i], d.Ask[j] = d.Ask[j], d.Ask[i] })
	return d
}

// question sends a frame and reads the answer, each within its time.
func (a *asker) question(f frame) (frame, error) {
	asked := time.Now()
	if err := a.send(f); err != nil {
		return frame{}, err
	}
	answer, err := a.receive()
	if err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) || time.Since(asked) > windowLate {
			a.line.answered(a.peer, windowLate+1, 0)
		}
		return frame{}, err
	}
	a.window.answered(time.Since(asked))
	a.line.answered(a.peer, time.Since(asked), answer.size())
	if a.bytes > maxSessionBytes {
		return frame{}, errBudget
	}
	return answer, nil
}

func unexpected(f frame) error { return malformedFrame(fmt.Sprintf("frame %d out of turn", f.kind)) }

// hello asks whether what both carry is equal. In sets that are, this is all that is said.
func (a *asker) hello() (same bool, err error) {
	whole, common := a.Root(), a.commonRoot(a.peer, true)
	answer, err := a.question(rootFrame(frameHello, common, a.introduction(a.protocol)))
	if err != nil {
		return false, err
	}
	var who introduction
	theirs := whole
	switch answer.kind {
	case frameSame:
		same = true
		who, err = readSame(answer.body)
	case frameDiffers:
		theirs, who, err = readRoot(answer.body)
	default:
		err = unexpected(answer)
	}
	if err != nil {
		return false, err
	}
	a.flood.judges(a.peer, who.forms)
	a.met(who.life, theirs)
	return same, nil
}

func (a *asker) ask(share lattice.Share, prefixes []lattice.Prefix) ([]lattice.Summary, error) {
	if len(prefixes) == 0 {
		return nil, nil
	}
	answer, err := a.question(askFrame(a.salt, share, prefixes))
	if err != nil {
		return nil, err
	}
	if answer.kind != frameSummaries {
		return nil, unexpected(answer)
	}
	return readSummaries(answer.body, prefixes)
}

// pull fetches what lies at these positions there, but for what other sessions fetch.
func (a *asker) pull(share lattice.Share, wants []fleet.Digest) error {
	for len(wants) > 0 {
		part := wants[:min(len(wants), a.window.positions())]
		wants = wants[len(part):]
		claimed := a.flights.claim(a, a.lacking(share, part), time.Now().Add(a.timeout))
		a.left += len(part) - len(claimed)
		if len(claimed) == 0 {
			continue
		}
		done, err := a.fetch(share, claimed)
		a.flights.land(a, claimed)
		if err != nil {
			return err
		}
		wants = append(claimed[done:], wants...)
	}
	return nil
}

// lacking are the positions but for those where something has come since they were found.
func (a *asker) lacking(share lattice.Share, positions []fleet.Digest) (lacking []fleet.Digest) {
	a.setMu.RLock()
	defer a.setMu.RUnlock()
	for _, p := range positions {
		if _, held := a.set.At(share, p); held && a.absent[p] {
			continue
		}
		lacking = append(lacking, p)
	}
	return lacking
}

// fetch asks for positions once, and says how many of them, from the first, are dealt with.
func (a *asker) fetch(share lattice.Share, positions []fleet.Digest) (done int, err error) {
	answer, err := a.question(wantFrame(share, positions))
	if err != nil {
		return 0, err
	}
	if answer.kind != frameRecords {
		return 0, unexpected(answer)
	}
	done, records, err := readRecords(answer.body, len(positions))
	if err != nil {
		return 0, err
	}
	a.records += len(records)
	if a.records > maxSessionRecords {
		return 0, errBudget
	}
	learnt, err := a.admit(a.peer, records)
	if err != nil {
		return 0, err
	}
	bytes := 0
	for i := range learnt {
		r := &learnt[i]
		a.settled[lattice.Position(r.Writer, r.Kind, r.Key)] = true
		bytes += len(r.Body) + recordOverhead
	}
	a.flights.brought(a, bytes)
	a.learnt = append(a.learnt, learnt...)
	return done, nil
}

// recordOverhead is about what a record is beside its body: position, key and signature, in bytes.
const recordOverhead = 200

// push gives what lies at these positions here, unless it has just come from there.
func (a *asker) push(share lattice.Share, offers []fleet.Digest) error {
	for len(offers) > 0 {
		if a.pushes > 0 && a.pushed >= a.pushes {
			a.unsaid += len(offers)
			return nil
		}
		part, done := a.collect(share, offers[:min(len(offers), a.window.positions(), a.pushable())], a.window.size-1,
			func(p fleet.Digest) bool { return a.settled[p] })
		offers = offers[done:]
		if part.count == 0 {
			continue
		}
		a.records, a.pushed = a.records+part.count, a.pushed+part.count
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

// pushable is how many more records may be given.
func (a *asker) pushable() int {
	if a.pushes == 0 {
		return maxSessionRecords
	}
	return a.pushes - a.pushed
}

// collect makes a batch of what lies at the positions, from the first, as far as most bytes go, and says how
// many positions that deals with. The first record is in it, however little most is: it fits a frame.
func (n *Node) collect(share lattice.Share, positions []fleet.Digest, most int, skip func(fleet.Digest) bool) (b batch, done int) {
	n.setMu.RLock()
	defer n.setMu.RUnlock()
	for _, p := range positions {
		r, ok := n.set.At(share, p)
		if ok && !skip(p) {
			encoded := r.Encode()
			if !b.add(encoded, most) && (b.count > 0 || !b.add(encoded, maxFrame-3)) {
				break
			}
		}
		done++
	}
	return b, done
}

// errDishonest ends a session with who sends what no member that checks would send.
var errDishonest = errors.New("record that fails its checks")

// always is room for what a reconciliation brings: as much of it as the neighbour may offer, whoever wrote it.
func always(fleet.MemberID) bool { return true }

// admit lets records from a reconciliation through the same door as gossip's and joins them.
func (n *Node) admit(from fleet.MemberID, encoded [][]byte) ([]fleet.Record, error) {
	var records []fleet.Record
	for _, b := range encoded {
		r, v := n.examine(b, always)
		if v.dishonest() || v == misshapen && n.flood.answers(from, &r) {
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
