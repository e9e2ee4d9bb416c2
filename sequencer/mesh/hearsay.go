// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// Heartbeats of a large zone are rare, so who was just started hears of most members only after an hour; and a notice that
// gossip lost, or that were too many at once, would never come again. So a member asks one that is next to it, for the last heartbeats of those of whom
// it heard nothing, and for the notices that it did not hear. Both are signed by who wrote them, and are checked as if they
// came by gossip: nothing is believed on the neighbour's word but how long ago it heard them, and that is shown as hearsay.
// Where all members are heard, and neighbours doubt the same ones, nobody asks.
//
//	/flotilla/hearsay/1  2026-11: one question, one answer
const hearsayProtocol protocol.ID = "/flotilla/hearsay/1"

const (
	frameWhom  frameType = 1
	frameSigns frameType = 2
)

const (
	// whomAtOnce bounds the members that one question names: the answer has at most 26 kB of heartbeats.
	whomAtOnce = 128
	// noticesAtOnce in one answer: 15 kB. doubtsAtOnce are how many a question says are doubted here, too.
	noticesAtOnce, doubtsAtOnce = 64, 2048
	// What one neighbour, and all together, may ask: so many questions at once, and then so many in a beat.
	whomOfOne, whomOfAll   = 16, 64
	whomPerBeat, allInBeat = 1, 4
	// maxAgo in seconds that a neighbour may have heard something ago.
	maxAgo = 366 * 24 * 60 * 60
)

// whom is a question: the heartbeats of some members, by their marks, and notices about others than those doubted.
type whom struct {
	heartbeats, doubted []uint64
	// notices are asked for, too.
	notices bool
}

func (q *whom) frame() frame {
	body := make([]byte, 1, 8+8*len(q.heartbeats)+8*len(q.doubted))
	if q.notices {
		body[0] = 1
	}
	body = binary.AppendUvarint(body, uint64(len(q.heartbeats)))
	for _, mark := range slices.Concat(q.heartbeats, q.doubted) {
		body = binary.BigEndian.AppendUint64(body, mark)
	}
	return frame{frameWhom, body}
}

func readWhom(f frame) (q whom, err error) {
	if f.kind != frameWhom {
		return q, unexpected(f)
	}
	if len(f.body) == 0 || f.body[0] > 1 {
		return q, malformedFrame("question of whom was heard")
	}
	q.notices = f.body[0] == 1
	count, n := binary.Uvarint(f.body[1:])
	if n <= 0 {
		return q, malformedFrame("question's count")
	}
	body := f.body[1+n:]
	if count > whomAtOnce || len(body)%8 != 0 || len(body) < 8*int(count) || len(body) > 8*(whomAtOnce+doubtsAtOnce) {
		return q, malformedFrame("question's marks")
	}
	var marks []uint64
	for ; len(body) > 0; body = body[8:] {
		marks = append(marks, binary.BigEndian.Uint64(body))
	}
	q.heartbeats, q.doubted = marks[:count:count], marks[count:]
	return q, nil
}

// sign is a heartbeat or a notice, and how many seconds ago who gives it heard of the member last.
type sign struct {
	ago   uint64
	bytes []byte
}

func signsFrame(signs []sign) frame {
	var body []byte
	for _, s := range signs {
		body = binary.AppendUvarint(body, s.ago)
		body = append(binary.AppendUvarint(body, uint64(len(s.bytes))), s.bytes...)
	}
	return frame{frameSigns, body}
}

func readSigns(f frame) (signs []sign, err error) {
	if f.kind != frameSigns {
		return nil, unexpected(f)
	}
	for body := f.body; len(body) > 0; {
		ago, n := binary.Uvarint(body)
		if n <= 0 || ago > maxAgo || len(signs) == whomAtOnce+noticesAtOnce {
			return nil, malformedFrame("sign's age")
		}
		body = body[n:]
		size, n := binary.Uvarint(body)
		if n <= 0 || size > uint64(len(body)-n) || size > max(fleet.MaxHeartbeat, fleet.MaxNotice) {
			return nil, malformedFrame("sign's length")
		}
		signs = append(signs, sign{ago, body[n : n+int(size)]}) //nolint:gosec // at most some hundred
		body = body[n+int(size):]                               //nolint:gosec // the same
	}
	return signs, nil
}

// serveHearsay answers one question.
func (w *wire) serveHearsay(s network.Stream) error {
	if !w.mayBeAsked(s.Conn().RemotePeer()) {
		return errServing
	}
	if err := s.SetDeadline(time.Now().Add(w.cfg.StreamTimeout)); err != nil {
		return err
	}
	f, err := readFrame(bufio.NewReader(s))
	if err != nil {
		return err
	}
	q, err := readWhom(f)
	if err != nil {
		w.flood.judge(s.Conn().RemotePeer(), err)
		return err
	}
	answer := signsFrame(w.heardOfWhom(&q))
	if err := s.SetDeadline(time.Now().Add(w.cfg.StreamTimeout + time.Duration(answer.size())*time.Second/slowestRate)); err != nil {
		return err
	}
	return writeFrame(s, answer)
}

// mayBeAsked bounds what answers cost, and leaves a slow line to what matters more.
func (w *wire) mayBeAsked(by peer.ID) bool {
	if !w.line.mayServe(1) {
		return false
	}
	w.handlersMu.Lock()
	defer w.handlersMu.Unlock()
	one := w.whomBy[by]
	if one == nil { // only members get here, so that the roster bounds the table
		one = &bucket{size: whomOfOne, every: w.cfg.Beat / whomPerBeat}
		w.whomBy[by] = one
	}
	if now := w.now(); one.has(now) && w.whomAll.take(now) {
		return one.take(now)
	}
	return false
}

// heardOfWhom gives heartbeats of those that are held to be there, and notices about those that are doubted.
func (w *wire) heardOfWhom(q *whom) (signs []sign) {
	wanted, doubted := map[uint64]bool{}, map[uint64]bool{}
	for _, mark := range q.heartbeats {
		wanted[mark] = true
	}
	for _, mark := range q.doubted {
		doubted[mark] = true
	}
	audience, notices := w.audience(), 0
	for _, member := range w.roster().Members() {
		mark := markOf(string(member.ID))
		if wanted[mark] && len(signs)-notices < whomAtOnce {
			if s, ok := w.life.heartbeatOf(member.ID, audience.interval(w.pace(), member.Zone), w.now()); ok {
				signs = append(signs, s)
			}
		}
		if q.notices && !doubted[mark] && notices < noticesAtOnce {
			if b := w.life.noticeAbout(member.ID); b != nil {
				signs, notices = append(signs, sign{0, b}), notices+1
			}
		}
	}
	return signs
}

// inquirer asks neighbours.
type inquirer struct {
	*wire
	// next is when somebody is asked of those who were not heard, pause until the time after that, last who was asked.
	next, pause moment
	last        peer.ID
	// agree is when each neighbour that doubts others than this member is asked, and how long after that again.
	agree map[fleet.MemberID]*recurrence
}

type recurrence struct{ next, pause moment }

// askAround lets those who were told nothing ask, each beat where there is something to ask.
func (w *wire) askAround(ctx context.Context) {
	a := inquirer{wire: w, next: w.now() + 2*w.cfg.Beat, agree: map[fleet.MemberID]*recurrence{}}
	tick := time.NewTicker(w.cfg.Beat)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		a.askOfDoubts(ctx)
		a.askOfUnheard(ctx)
	}
}

// most pause between two questions that taught nothing.
func (a *inquirer) most() time.Duration { return max(20*a.cfg.Beat, a.ownInterval()) }

// askOfUnheard asks one neighbour after another, ever more rarely, for those of whom nothing was heard.
func (a *inquirer) askOfUnheard(ctx context.Context) {
	if a.now() < a.next {
		return
	}
	missing := a.unheard()
	from, ok := a.choose()
	if len(missing) == 0 || !ok {
		a.pause, a.next = 0, a.now()+2*a.cfg.Beat
		return
	}
	a.last = from
	a.pause = min(max(3*a.pause, 2*a.cfg.Beat), a.most())
	for some := range slices.Chunk(missing, whomAtOnce) {
		q := whom{}
		for _, id := range some {
			q.heartbeats = append(q.heartbeats, markOf(string(id)))
		}
		if _, err := a.ask(ctx, from, &q); err != nil {
			break
		}
	}
	a.next = a.now() + a.pause
}

// askOfDoubts asks the neighbours that have doubted others for a beat; while that teaches nothing, ever more rarely.
func (a *inquirer) askOfDoubts(ctx context.Context) {
	disagreeing := a.life.disagreeing(a.now())
	for id := range a.agree {
		if !slices.Contains(disagreeing, id) {
			delete(a.agree, id)
		}
	}
	for _, id := range disagreeing {
		r := a.agree[id]
		if r == nil {
			r = &recurrence{pause: a.cfg.Beat}
			a.agree[id] = r
		}
		at, err := peerID(id)
		if a.now() < r.next || err != nil {
			continue
		}
		q := whom{notices: true, doubted: a.life.doubtedMarks(doubtsAtOnce)}
		if learnt, err := a.ask(ctx, at, &q); err != nil || learnt == 0 {
			r.pause = min(4*r.pause, a.most())
		}
		r.next = a.now() + r.pause
	}
}

// unheard are the members whose heartbeats would come here, and of whom none did, nor hearsay. They are asked for in an
// order of chance, so that what one answer leaves out the next one has.
func (w *wire) unheard() (missing []fleet.MemberID) {
	audience := w.audience()
	for _, m := range w.roster().Members() {
		if m.ID != w.id && audience.hears(m.Zone) && w.life.unheard(m.ID) {
			missing = append(missing, m.ID)
		}
	}
	rand.Shuffle(len(missing), func(i, j int) { missing[i], missing[j] = missing[j], missing[i] })
	return missing
}

// choose a connected member that hears the same as this one, another than the last time where there is one.
func (a *inquirer) choose() (peer.ID, bool) {
	peers, audience := a.host.Network().Peers(), a.audience()
	near := slices.DeleteFunc(slices.Clone(peers), func(id peer.ID) bool { return !audience.flat && !a.inZone(id, audience.own) })
	for _, among := range [][]peer.ID{
		slices.DeleteFunc(slices.Clone(near), func(id peer.ID) bool { return id == a.last }), near, peers,
	} {
		if len(among) > 0 {
			return among[rand.IntN(len(among))], true
		}
	}
	return "", false
}

var errHearsay = errors.New("an answer that was not asked for")

// ask one question, and rest for as long as the answer took: a slow line has other things to carry. It gives how much of
// the answer was news.
func (w *wire) ask(ctx context.Context, of peer.ID, q *whom) (learnt int, err error) {
	began := w.now()
	signs, err := w.askOnce(ctx, of, q)
	if err == nil {
		learnt, err = w.takeSigns(ctx, q, signs)
	}
	if err != nil {
		w.flood.judge(of, err)
		w.cfg.Log.V(1).Info("asked in vain for whom it heard", "peer", of, "why", err.Error())
	}
	rest := time.NewTimer(w.now() - began)
	defer rest.Stop()
	select {
	case <-ctx.Done():
	case <-rest.C:
	}
	return learnt, err
}

func (w *wire) askOnce(ctx context.Context, of peer.ID, q *whom) ([]sign, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*w.cfg.StreamTimeout+maxFrame*time.Second/slowestRate)
	defer cancel()
	s, err := w.open(ctx, of, hearsayProtocol)
	if err != nil {
		return nil, err
	}
	// Reset ends it for both sides, whatever was read.
	defer func() { _ = s.Reset() }()
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	if err := writeFrame(s, q.frame()); err != nil {
		return nil, err
	}
	f, err := readFrame(bufio.NewReader(s))
	if err != nil {
		return nil, err
	}
	return readSigns(f)
}

// takeSigns checks an answer as if each part of it had come by gossip.
func (w *wire) takeSigns(ctx context.Context, q *whom, signs []sign) (learnt int, err error) {
	asked := map[uint64]bool{}
	for _, mark := range q.heartbeats {
		asked[mark] = true
	}
	for _, s := range signs {
		v := malformed
		if fleet.IsNotice(s.bytes) && q.notices {
			v = w.takeNotice(ctx, s)
		} else if !fleet.IsNotice(s.bytes) {
			v, err = w.takeHeartbeat(s, asked)
		}
		if counter := w.counterOf(v); counter != nil {
			counter.Add(1)
		}
		switch {
		case err != nil:
			return learnt, err
		case v.dishonest():
			return learnt, fmt.Errorf("%w: %w", errHearsay, errDishonest)
		case v == news:
			w.counts.hearsay.Add(1)
			learnt++
		}
	}
	return learnt, nil
}

func (w *wire) takeHeartbeat(s sign, asked map[uint64]bool) (verdict, error) {
	h, v := w.judgeHeartbeat(s.bytes)
	if v != news {
		return v, nil
	}
	if !asked[markOf(string(h.Writer))] {
		return v, fmt.Errorf("%w: %w", errHearsay, errDishonest)
	}
	member, ok := w.roster().Member(h.Writer)
	interval := w.audience().interval(w.pace(), member.Zone)
	// It must have been said lately by its writer's clock, too, or somebody could give what was said last year to who has
	// just been started. That needs clocks that are right within minutes; where they are not, nothing is shown.
	off := w.cfg.Now().Unix() - h.Time
	if !ok || off < -clockTolerance || off > clockTolerance+int64(quietAfter*interval/time.Second) {
		return stale, nil
	}
	// Nor can anybody have heard it before it was signed. Who says so would have it that the member's counter is far ahead by
	// now, and a notice may name such a one (lives.credible).
	s.ago = min(s.ago, uint64(max(0, off)+clockTolerance))
	shows := shownWhole(h.Root)
	told := testimony{&h, s, shows, w.sameAs(h.Writer, shows)}
	if !w.life.hearsay(told, w.now()) {
		return stale, nil
	}
	return news, nil
}

// takeNotice of a neighbour, and pass it on: where it is known already it goes no further.
func (w *wire) takeNotice(ctx context.Context, s sign) verdict {
	n, v := w.readNotice(s.bytes)
	switch {
	case v != news:
		return v
	case !w.life.noticeIsUnheard(&n):
		return stale
	case n.Verify(w.cfg.Fleet) != nil:
		return badSignature
	case !w.life.noticeByHearsay(&n, w.now()):
		return stale
	}
	w.answer(&n)
	if about, ok := w.roster().Member(n.About); ok {
		w.publishTo(ctx, heartbeatsTopic(w.cfg.Fleet, about.Zone), s.bytes)
	}
	return news
}

// testimony is a heartbeat that a neighbour gave.
type testimony struct {
	*fleet.Heartbeat
	sign
	shown shown
	same  bool
}

// hearsay notes a verified heartbeat of a member of whom nothing was heard here; false if it is no news. It ends a doubt
// only where it was signed after the loss.
func (l *lives) hearsay(t testimony, now moment) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	m, n := l.get(t.Writer), nonce{lifeOf(t.Nonce), t.Counter, t.Counter}
	if t.Writer == l.self || m.heard || !m.advances(t.Heartbeat, l.pace) {
		return false
	}
	if len(m.nonces) > 0 && m.nonces[0].value != n.value {
		return false // of two lives, the member itself will show which is the later one
	}
	at := now - time.Duration(t.ago)*time.Second
	said := livedBy(n, at)
	said.started, said.dated = t.Time-int64(n.age()/time.Second), true
	m.nonces, m.time, m.signed, m.full = front(m.nonces, said), t.Time, t.Encode(), t.Root
	m.show(t.shown, t.same, now)
	if !m.told || at > m.toldAt {
		m.told, m.toldAt = true, at
	}
	if n.value == m.noticed.value && n.counter > m.noticed.counter+l.pace.later() {
		l.trust(t.Writer, m)
	}
	return true
}

// unheard says that nothing of a member was heard, not by hearsay either; or that it is doubted all the same, and a
// heartbeat may show that it need not be.
func (l *lives) unheard(id fleet.MemberID) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	m := l.of[id]
	return m == nil || !m.heard && (!m.told || m.doubted)
}

// heartbeatOf a member that is held to be there, to be given to a neighbour.
func (l *lives) heartbeatOf(id fleet.MemberID, interval time.Duration, now moment) (sign, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	m := l.of[id]
	if m == nil || len(m.signed) == 0 || l.judge(m, interval, now) != Heard {
		return sign{}, false
	}
	h, err := fleet.DecodeHeartbeat(m.signed)
	if err != nil || lifeOf(h.Nonce) != m.nonces[0].value {
		return sign{}, false // it was started again, and has only beaten since
	}
	ago := max(0, now-m.lately())
	return sign{min(uint64((ago+time.Second-1)/time.Second), maxAgo), m.signed}, true
}

// noticeAbout a member for which it is doubted; nil where there is none.
func (l *lives) noticeAbout(id fleet.MemberID) []byte {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if m := l.of[id]; m != nil && m.doubted {
		return m.notice
	}
	return nil
}

// keepNotice that was told here, for neighbours that do not hear it.
func (l *lives) keepNotice(about fleet.MemberID, notice []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if m := l.of[about]; m != nil && m.doubted {
		m.notice = notice
	}
}

func (l *lives) doubtSum() uint32 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.doubts
}

// doubtedMarks are the marks of those that are doubted.
func (l *lives) doubtedMarks(most int) (marks []uint64) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for id, m := range l.of {
		if m.doubted && len(marks) < most {
			marks = append(marks, markOf(string(id)))
		}
	}
	return marks
}

// disagreeing are the neighbours that doubt somebody, and have not doubted the same ones for a beat. One that doubts
// nobody has nothing to tell.
func (l *lives) disagreeing(now moment) (ids []fleet.MemberID) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for id, m := range l.near {
		if m.neighbour && m.near != 0 && m.near != l.doubts && m.nearAt > 0 && now-m.nearAt >= l.pace.beat {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// noticeIsUnheard says whether a notice that a neighbour gives is worth verifying. One about this member is, too: it is
// answered.
func (l *lives) noticeIsUnheard(n *fleet.Notice) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.teaches(n)
}

// noticeByHearsay notes a verified one; false if it makes nobody doubted, or cannot be passed on: whom it is about may
// never have heard it, and has to be able to answer. Then it is asked for again.
func (l *lives) noticeByHearsay(n *fleet.Notice, now moment) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	writer := l.get(n.Writer)
	if !l.teaches(n) || !writer.telling.has(now) || !l.passing.take(now) {
		return false
	}
	writer.telling.take(now)
	l.takeNotice(n, now)
	m := l.of[n.About]
	return m != nil && m.doubted
}
