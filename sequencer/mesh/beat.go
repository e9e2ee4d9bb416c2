// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
)

// Connected members are neighbours. They hold one stream and beat on it: who they are, in which life, and the roots of
// what they hold. Whoever's turn comes first asks, and the other answers, so that a silent fleet costs one exchange for
// each connection and beat. The connection says who speaks; nothing is signed.
//
//	/flotilla/beat/1  2026-11: beats: a flag byte, life, counter, and the roots; and voices
//	/flotilla/beat/2  2026-11: the sum of doubts; 1 is spoken with who does not know 2
const (
	beatProtocol protocol.ID = "/flotilla/beat/2"
	beatBefore   protocol.ID = "/flotilla/beat/1"
)

const (
	frameBeat frameType = 1
	// voice: a heartbeat signed with the reader's own key, in another life; or the writer's own, once it knows that
	// there is another life. Gossip reaches only one of two agents with one key, so this is how each learns of the
	// other.
	frameVoice frameType = 2
)

// Flags of a beat.
const (
	beatAsks       = 1 << iota // be so kind as to answer at once
	beatEverything             // the writer carries everything
	beatParts                  // the roots of single shares follow
	beatDouble                 // somebody else beats with your key, too: let your voice be heard
	beatDoubts                 // the writer doubts members, and the sum of their marks follows
	beatFlags      = beatAsks | beatEverything | beatParts | beatDouble | beatDoubts
)

const (
	// linksWithOne member: both may open one at the same time, and two agents may have its key.
	linksWithOne = 4
	// beatsAtOnce on one stream, and as many in a beat: an honest neighbour sends six when it is worried, and they may
	// come together when the line is back.
	beatsAtOnce = 32
)

// short is the first half of a root. Who makes two records whose roots begin alike has only put a
// reconciliation off until the clock's.
type short [16]byte

func shorten(d fleet.Digest) short { return short(d[:]) }

// shown is what a beat or a heartbeat shows of a set.
type shown struct {
	// whole is the root of everything that the writer carries; everything says that this is all there is.
	whole      short
	everything bool
	// parts: the roots of the fleet's share and of the writer's zone follow.
	parts                     bool
	fleet, milestones, detail short
}

// shownWhole is what a single root shows.
func shownWhole(root fleet.Digest) shown { return shown{whole: shorten(root), everything: true} }

// beat is one frame.
type beat struct {
	asks, double bool
	life         lifeID
	counter      uint64
	// doubts is the sum of the marks of those that the writer doubts; 0 mostly.
	doubts uint32
	shown
}

func (b *beat) frame() frame {
	body := append(make([]byte, 0, 96), 0)
	for i, set := range [...]bool{b.asks, b.everything, b.parts, b.double, b.doubts != 0} {
		if set {
			body[0] |= 1 << i
		}
	}
	body = append(body, b.life[:]...)
	body = binary.AppendUvarint(body, b.counter)
	body = append(body, b.whole[:]...)
	if b.parts {
		body = append(append(append(body, b.shown.fleet[:]...), b.milestones[:]...), b.detail[:]...)
	}
	if b.doubts != 0 {
		body = binary.BigEndian.AppendUint32(body, b.doubts)
	}
	return frame{frameBeat, body}
}

func readBeat(f frame) (b beat, err error) {
	if f.kind != frameBeat {
		return b, unexpected(f)
	}
	body := f.body
	if len(body) < 1+lifeSize || body[0]&^beatFlags != 0 {
		return b, malformedFrame("beat")
	}
	b.asks, b.double = body[0]&beatAsks != 0, body[0]&beatDouble != 0
	b.everything, b.parts = body[0]&beatEverything != 0, body[0]&beatParts != 0
	doubts := body[0]&beatDoubts != 0
	b.life, body = lifeID(body[1:]), body[1+lifeSize:]
	var n int
	if b.counter, n = binary.Uvarint(body); n <= 0 {
		return b, malformedFrame("beat's counter")
	}
	body = body[n:]
	if doubts {
		if len(body) < 4 {
			return b, malformedFrame("beat's doubts")
		}
		at := len(body) - 4
		if b.doubts, body = binary.BigEndian.Uint32(body[at:]), body[:at]; b.doubts == 0 {
			return b, malformedFrame("beat's doubts")
		}
	}
	roots := []*short{&b.whole}
	if b.parts {
		roots = append(roots, &b.shown.fleet, &b.milestones, &b.detail)
	}
	if len(body) != len(roots)*len(short{}) {
		return b, malformedFrame("beat's roots")
	}
	for _, root := range roots {
		*root, body = short(body), body[len(root):]
	}
	return b, nil
}

// show gives what this member shows of its set to a neighbour: the single shares only where the two may carry
// different ones.
func (n *Node) show(parts bool) shown {
	c, root := n.carried(), n.Root()
	s := shown{whole: shorten(root), everything: c.everything, parts: parts || !c.everything}
	if self, ok := n.roster().Member(n.id); s.parts && ok {
		for part, root := range s.shares(self.Zone) {
			if d, carried := c.root(part); carried {
				*root = shorten(d)
			}
		}
	}
	return s
}

// shares are where the roots of a member's zone, and the fleet's, are.
func (s *shown) shares(zone string) map[lattice.Share]*short {
	return map[lattice.Share]*short{
		{Scope: fleet.ScopeFleet}:                  &s.fleet,
		{Scope: fleet.ScopeMilestones, Zone: zone}: &s.milestones,
		{Scope: fleet.ScopeDetail, Zone: zone}:     &s.detail,
	}
}

// same says whether what a member of a zone shows is what we hold, as far as we carry the same.
func (n *Node) same(s shown, zone string) bool {
	c, root := n.carried(), n.Root()
	if s.whole == shorten(root) {
		return true
	}
	if !s.parts {
		ours := c.zoneRoot(zone)
		if ours.IsZero() {
			return true // one root of other shares says nothing
		}
		return shorten(ours) == s.whole
	}
	for share, theirs := range s.shares(zone) {
		if ours, carried := c.root(share); carried && shorten(ours) != *theirs {
			return false
		}
	}
	return true
}

// sameAs is same, for a member of the roster.
func (n *Node) sameAs(id fleet.MemberID, s shown) bool {
	m, ok := n.roster().Member(id)
	return ok && n.same(s, m.Zone)
}

// now is this process's own monotonic time.
func (n *Node) now() moment { return time.Since(n.born) }

// count gives the counter of the next beat or heartbeat: milliseconds since New, and one more than the last.
func (n *Node) count() uint64 {
	for {
		last := n.counted.Load()
		next := max(last+1, uint64(n.now().Milliseconds()))
		if n.counted.CompareAndSwap(last, next) {
			return next
		}
	}
}

// tend opens links to the neighbours, looks at the time, and tells what it brought.
func (w *wire) tend(ctx context.Context) {
	var links sync.WaitGroup
	defer links.Wait()
	refused := map[peer.ID]moment{}
	ended := make(chan refusal, 16)
	tick := time.NewTicker(w.pace().tick())
	defer tick.Stop()
	for counter := uint64(0); ; {
		select {
		case <-ctx.Done():
			return
		case r := <-ended:
			refused[r.peer] = r.at
			continue
		case <-w.tendNow:
		case <-tick.C:
		}
		for _, lost := range w.life.tick(w.now(), func(below time.Duration) time.Duration { return rand.N(below + 1) }) {
			counter++
			w.tellLoss(ctx, lost, counter)
		}
		for _, id := range w.unlinked(refused) {
			links.Go(func() {
				if err := w.openLink(ctx, id); err != nil {
					select {
					case ended <- refusal{id, w.now()}:
					case <-ctx.Done():
					}
				}
			})
		}
	}
}

// refusal is a link that could not be opened: the neighbour may be of an earlier version.
type refusal struct {
	peer peer.ID
	at   moment
}

// unlinked are the neighbours to open a link to: the side that dialled does, or that with the lower ID where both did;
// the other side if that one does not, as it may see another agent with our key. They count as linked from now on.
func (w *wire) unlinked(refused map[peer.ID]moment) []peer.ID {
	var found []peer.ID
	for _, id := range w.host.Network().Peers() {
		in, out, oldest := false, false, time.Now()
		for _, c := range w.host.Network().ConnsToPeer(id) {
			in = in || c.Stat().Direction == network.DirInbound
			out = out || c.Stat().Direction == network.DirOutbound
			if opened := c.Stat().Opened; opened.Before(oldest) {
				oldest = opened
			}
		}
		at, failed := refused[id]
		ours := out && (!in || w.host.ID() < id)
		if !ours && time.Since(oldest) < w.pace().suspectAfter() || failed && w.now()-at < w.cfg.SyncEvery {
			continue
		}
		if w.beginLink(id, 1) {
			delete(refused, id)
			found = append(found, id)
		}
	}
	return found
}

// beginLink counts a link with a member, if there are fewer than most.
func (w *wire) beginLink(id peer.ID, most int) bool {
	w.handlersMu.Lock()
	defer w.handlersMu.Unlock()
	if w.links[id] >= most {
		return false
	}
	w.links[id]++
	return true
}

func (w *wire) endLink(id peer.ID) {
	w.handlersMu.Lock()
	defer w.handlersMu.Unlock()
	if w.links[id]--; w.links[id] == 0 {
		delete(w.links, id)
	}
}

// openLink gives an error only where no stream could be opened. It returns when the link has ended.
func (w *wire) openLink(ctx context.Context, id peer.ID) error {
	defer w.endLink(id)
	opening, cancel := context.WithTimeout(ctx, w.cfg.StreamTimeout)
	defer cancel()
	s, err := w.open(opening, id, beatProtocol, beatBefore)
	if err != nil {
		return err
	}
	err = w.keepLink(s, 0)
	w.cfg.Log.V(1).Info("link ended", "peer", id, "why", err.Error())
	return nil
}

// serveBeat is the side that did not open the link.
func (w *wire) serveBeat(s network.Stream) error {
	id := s.Conn().RemotePeer()
	if !w.beginLink(id, linksWithOne) {
		return errors.New("more links than a member needs")
	}
	defer w.endLink(id)
	return w.keepLink(s, w.cfg.Beat)
}

// link is one end of a stream of beats.
type link struct {
	*wire
	stream network.Stream
	member fleet.MemberID
	// other is the life at the other end, 0 before the first beat.
	other atomic.Pointer[lifeID]
	// heardAt is when the last beat came; speak begins to ask when that is long ago.
	heardAt atomic.Int64
	// short: the other end carries everything, too.
	short atomic.Bool
	// answers are asked for; soon says that roots differ: look again when what is on its way has come.
	answers, soon chan struct{}
	ended         chan error
}

var errSilent = errors.New("no beat came, and no answer")

// keepLink beats until the stream or the neighbour ends; first after a while. The error says why.
func (w *wire) keepLink(s network.Stream, first time.Duration) error {
	l := link{
		wire: w, stream: s, member: fleet.MemberID(s.Conn().RemotePeer().String()),
		answers: make(chan struct{}, 1), soon: make(chan struct{}, 1), ended: make(chan error, 1),
	}
	l.heardAt.Store(int64(w.now()))
	var listening sync.WaitGroup
	listening.Go(func() { l.ended <- l.listen() })
	err := l.speak(first)
	_ = s.Reset()
	listening.Wait()
	if end := (*network.ConnError)(nil); errors.As(err, &end) && end.ErrorCode == parted {
		w.life.part(l.member)
	}
	if errors.Is(err, errSilent) {
		// Whatever else uses the connection waits in vain, too. The dialler tries another one.
		_ = s.Conn().Close()
	}
	return err
}

func (l *link) speak(first time.Duration) error {
	timer := time.NewTimer(first)
	defer timer.Stop()
	var (
		sent moment
		told = map[lifeID]uint64{}
	)
	for {
		asks := true
		select {
		case err := <-l.ended:
			return err
		case <-l.answers:
			if sent > 0 && l.now()-sent < l.pace().crossing() {
				continue // what was just sent is an answer
			}
			asks = false
		case <-l.soon:
			timer.Reset(2 * l.cfg.Coalesce)
			continue
		case <-timer.C:
		}
		silence := l.life.silence(moment(l.heardAt.Load()), l.now())
		if silence >= l.pace().lostAfter() {
			return errSilent
		}
		if err := l.send(asks); err != nil {
			return err
		}
		sent = l.now()
		for _, v := range l.double() {
			if told[v.value] == v.counter {
				continue
			}
			told[v.value] = v.counter
			if err := writeFrame(l.stream, frame{frameVoice, v.bytes}); err != nil {
				return err
			}
		}
		timer.Reset(l.pace().next(silence, rand.N))
	}
}

// double are the heartbeats that show one of the two that there is another agent with its key.
func (l *link) double() (voices []voice) {
	if own := l.voice.Load(); own != nil && l.doubleAt.Load() > 0 {
		voices = append(voices, *own)
	}
	if other := l.other.Load(); other != nil {
		if v, ok := l.life.otherVoice(l.member, *other, l.now()); ok {
			voices = append(voices, v)
		}
	}
	return voices
}

func (l *link) send(asks bool) error {
	b := beat{asks: asks, double: l.life.flagged(l.member, l.now()), life: l.lifeID(), counter: l.count(), shown: l.show(!l.short.Load())}
	if l.stream.Protocol() != beatBefore {
		b.doubts = l.life.doubtSum()
	}
	if err := l.stream.SetWriteDeadline(time.Now().Add(l.cfg.StreamTimeout)); err != nil {
		return err
	}
	return writeFrame(l.stream, b.frame())
}

// listen hears beats until the stream ends.
func (l *link) listen() error {
	in := bufio.NewReaderSize(l.stream, 256)
	pace := bucket{size: beatsAtOnce, every: l.cfg.Beat / beatsAtOnce}
	for {
		f, err := readFrame(in)
		if err != nil {
			return err
		}
		if !pace.take(l.now()) {
			return fmt.Errorf("more than %d beats at once", beatsAtOnce)
		}
		if f.kind == frameVoice {
			err = l.hearVoice(f.body)
		} else {
			err = l.hear(f)
		}
		if err != nil {
			return err
		}
	}
}

// hearVoice hears another agent that speaks with this member's key, or with the neighbour's.
func (l *link) hearVoice(body []byte) error {
	h, v := l.judgeHeartbeat(body)
	if counter := l.counterOf(v); counter != nil {
		counter.Add(1)
	}
	switch {
	case v.dishonest() || h.Writer != l.id && h.Writer != l.member:
		return malformedFrame("voice")
	case v == news:
		l.heardHeartbeat(&h)
	}
	return nil
}

func (l *link) hear(f frame) error {
	b, err := readBeat(f)
	if err != nil {
		return err
	}
	if other := l.other.Swap(&b.life); other == nil || *other != b.life {
		l.endOthers(l.stream.Conn(), b.life)
	}
	l.counts.beats.Add(1)
	now, same := l.now(), l.sameAs(l.member, b.shown)
	l.heardAt.Store(int64(now))
	l.short.Store(b.everything)
	before := l.life.differing(l.member, now)
	l.life.beat(l.member, b, same, now)
	if b.double {
		l.speakUp()
	}
	if b.asks {
		wake(l.answers)
	}
	switch {
	case same:
	case before == 0:
		wake(l.soon)
	case before > l.cfg.Coalesce:
		l.askFor(ask{peer: l.stream.Conn().RemotePeer()})
	}
	return nil
}
