// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"math"
	"slices"
	"sync"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// Presence is what one member makes of the news of another one, or of there being none. It is a local judgement, for
// people and for news; no gate counts it. No news is never called bad news.
type Presence uint8

const (
	// Unheard: nothing came of it since New, and nothing need have.
	Unheard Presence = iota
	// Heard: a beat or a heartbeat of it came lately.
	Heard
	// Quiet: nothing for three of its intervals. No news.
	Quiet
	// Doubted: members next to it lost it, and nothing came of it since. Bad news.
	Doubted
	// Alone is said of oneself: nobody is heard, so nothing can be said of the others.
	Alone
)

// String is the word for people and for the read API.
func (p Presence) String() string {
	switch p {
	case Heard:
		return "Heard"
	case Quiet:
		return "Quiet"
	case Doubted:
		return "Doubted"
	case Alone:
		return "Alone"
	}
	return "Unheard"
}

const (
	// noncesKept per member. A duplicate has two, a restart leaves one behind.
	noncesKept = 4
	// switchesToTell: a restart whose last old heartbeat came late makes two switches; a third is a second agent.
	switchesToTell = 3
	// duplicateBeats is for how many heartbeats after the last switch a duplicate is flagged.
	duplicateBeats = 20
	// clockTolerance between heartbeats of one key: an old one, replayed to make its writer look like two, is
	// further away.
	clockTolerance = 10 * 60
	// quietAfter so many intervals without news a member is quiet.
	quietAfter = 3
)

// lives is what is known of each member, and the rules by which that changes. Nothing in it looks at a clock:
// every event brings its moment, and none is before the last one by much.
type lives struct {
	mu     sync.RWMutex
	pace   pace
	window time.Duration
	self   fleet.MemberID
	of     map[fleet.MemberID]*life
	// near are those of which tick has to look after something.
	near map[fleet.MemberID]*life
	// own and all bound what this member begins to tell, passing what it passes on, and hearing what it hears.
	own, all, passing, hearing bucket
	// ticked is when time was looked at last, newsAt when anybody was heard. woke is when this member began to
	// listen: after it was stopped, and after it heard nobody, the silence of others begins anew. "I was slow" must
	// never become "you are dead".
	ticked, newsAt, woke moment
	// doubts is the sum of the marks of those that are doubted: neighbours with another one heard other notices.
	doubts uint32
}

// life of one key.
type life struct {
	heard           bool
	heardAt, beatAt moment
	// told: nothing of it was heard, and a neighbour gave a heartbeat of it, which it had heard at toldAt at the latest.
	told   bool
	toldAt moment
	// mark stands for the member in doubts. signed is its last heartbeat, notice the one for which it is doubted, if there
	// was any: for neighbours that heard neither.
	mark           uint32
	signed, notice []byte
	// near is what the member shows of its own doubts, nearAt since when it is not what we show; 0 while it is the same.
	near   uint32
	nearAt moment
	// neighbour: beats came of it since it was lost.
	neighbour bool
	doubted   bool
	// lost is what we last heard of a lost neighbour, to be told at tellAt; nothing is where that is zero.
	lost   nonce
	tellAt moment
	// noticed is the highest that a notice about it named.
	noticed nonce
	// wrote are the notices that it wrote, by its lives.
	wrote   []saying
	telling bucket

	// shown are the roots it showed last, full its whole root where it was in that; differsAt is since when they are
	// others than ours.
	shown     shown
	full      fleet.Digest
	differs   bool
	differsAt moment

	// nonces are its lives, the one heard last in front.
	nonces []lived
	// voices are the last signed heartbeats of a member that was heard in more than one life, the latest in front.
	voices []voice
	// time is the writer's own, of the heartbeat heard last.
	time       int64
	switches   int
	switchedAt moment
}

// nonce is one life, with the highest counter heard of it by any way, and by heartbeat: those come by longer ways, and
// are still to be passed on when a beat has overtaken them.
type nonce struct {
	value              lifeID
	counter, heartbeat uint64
}

// lived is what is known of one life beside its counters.
type lived struct {
	nonce
	// at is when the counter was heard, began when the life began at the latest: now, less a counter in milliseconds.
	at, began moment
	// started is when it began by its writer's wall clock, in Unix seconds, and dated says that a heartbeat told.
	started int64
	dated   bool
	// past: the first that was heard of it was older than a life that was known already.
	past bool
}

func livedBy(n nonce, now moment) lived { return lived{nonce: n, at: now, began: now - n.age()} }

// age of a life at a counter: those are milliseconds. What no life can be is cut off.
func (n nonce) age() time.Duration {
	const most = 1 << 40 // 34 years
	return time.Duration(min(n.counter, most)) * time.Millisecond
}

// voice is a heartbeat as it was signed.
type voice struct {
	nonce
	at    moment
	bytes []byte
}

// lifeID names one start of an agent.
type lifeID = fleet.LifeID

func lifeOf(nonce [16]byte) lifeID { return lifeID(nonce[:]) }

func (n *Node) lifeID() lifeID { return lifeOf(n.nonce) }

func (l *lives) begin(self fleet.MemberID, p pace) {
	l.self, l.pace, l.window = self, p, duplicateBeats*p.heartbeat
	l.own, l.all = p.ownBucket(), p.fleetBucket(noticesOfAll)
	l.passing, l.hearing = p.fleetBucket(noticesPassed), p.fleetBucket(noticesHeard)
	l.of, l.near = map[fleet.MemberID]*life{}, map[fleet.MemberID]*life{}
}

// keep forgets who is not on the roster.
func (l *lives) keep(roster Roster) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range l.of {
		if _, ok := roster.Member(id); !ok {
			l.doubt(l.of[id], false)
			delete(l.of, id)
			delete(l.near, id)
		}
	}
}

func (l *lives) get(id fleet.MemberID) *life {
	m := l.of[id]
	if m == nil {
		m = &life{telling: l.pace.writerBucket(), mark: uint32(markOf(string(id)))} //nolint:gosec // half of it will do
		l.of[id] = m
	}
	return m
}

// doubt begins, or ends.
func (l *lives) doubt(m *life, doubted bool) {
	if m.doubted == doubted {
		return
	}
	m.doubted = doubted
	if doubted {
		l.doubts += m.mark
	} else {
		l.doubts -= m.mark
		m.notice = nil
	}
}

// advances says whether a heartbeat is newer than what was heard of its life, and of a life that goes on: others are
// replays.
func (l *lives) advances(h *fleet.Heartbeat) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	m := l.of[h.Writer]
	if m == nil {
		return true
	}
	return m.advances(h, l.pace)
}

func (m *life) advances(h *fleet.Heartbeat, p pace) bool {
	i := find(m.nonces, lifeOf(h.Nonce))
	switch {
	case i < 0:
		return true
	case h.Counter <= m.nonces[i].heartbeat:
		return false
	}
	return i == 0 || h.Counter > m.nonces[i].counter && !m.overBefore(h, p.settled())
}

// overBefore says that a heartbeat was signed before the life heard last was so old, by our clock or by its writer's. Somebody kept it, and brings it now that its writer was started again, to make one member look like two. A
// second agent with the key signs others, and those count. Counters go up with time, which nobody can change behind the
// writer's back; its wall clock helps where nothing was heard of the old life while it lasted.
func (m *life) overBefore(h *fleet.Heartbeat, age time.Duration) bool {
	last := &m.nonces[0]
	if i := find(m.nonces, lifeOf(h.Nonce)); i > 0 {
		old := &m.nonces[i]
		passed := nonce{counter: h.Counter - old.counter}.age()
		if old.at+passed < last.began+age {
			return true
		}
	}
	return last.dated && !m.farFrom(h.Time) && h.Time < last.started+int64(age/time.Second)
}

// farFrom says that a writer's wall clock is so far from what it was that it was set in between, or the heartbeat is old.
func (m *life) farFrom(clock int64) bool { return max(clock-m.time, m.time-clock) > clockTolerance }

// saying is one life's notices: the highest counter, and which of the 64 up to it were heard. They overtake each other
// on their ways, so an order would lose some.
type saying struct {
	value   lifeID
	highest uint64
	heard   uint64
}

// fresh says that a notice was not heard before.
func fresh(told []saying, life lifeID, counter uint64) bool {
	for _, s := range told {
		if s.value == life {
			return counter > s.highest || s.highest-counter < 64 && s.heard&(1<<(s.highest-counter)) == 0
		}
	}
	return true
}

// remember a notice that was fresh.
func remember(told []saying, life lifeID, counter uint64) []saying {
	s := saying{life, counter, 1}
	if i := slices.IndexFunc(told, func(s saying) bool { return s.value == life }); i >= 0 {
		s = told[i]
		if counter > s.highest {
			s.heard, s.highest = s.heard<<(counter-s.highest), counter
		}
		s.heard |= 1 << (s.highest - counter)
		told = slices.Delete(told, i, i+1)
	}
	told = slices.Insert(told, 0, s)
	return told[:min(len(told), noncesKept)]
}

func find(among []lived, value lifeID) int {
	return slices.IndexFunc(among, func(n lived) bool { return n.value == value })
}

// front puts a life before the others, which are not many, and never lowers its counters.
func front(nonces []lived, n lived) []lived {
	if i := find(nonces, n.value); i >= 0 {
		old := &nonces[i]
		if n.counter <= old.counter {
			n.counter, n.at = old.counter, old.at
		}
		n.heartbeat, n.began = max(n.heartbeat, old.heartbeat), min(n.began, old.began)
		if !n.dated {
			n.started, n.dated = old.started, old.dated
		}
		if i == 0 {
			n.past = old.past
			nonces[0] = n
			return nonces
		}
		nonces = slices.Delete(nonces, i, i+1)
	}
	nonces = slices.Insert(nonces, 0, n)
	return nonces[:min(len(nonces), noncesKept)]
}

// heartbeat notes a verified one; false if it is no news after all. shown says what it shows of the set, and
// whether that is what we hold.
func (l *lives) heartbeat(h *fleet.Heartbeat, s shown, same bool, now moment) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	m, n := l.get(h.Writer), nonce{lifeOf(h.Nonce), h.Counter, h.Counter}
	if !m.advances(h, l.pace) {
		return false
	}
	at := find(m.nonces, n.value)
	said := livedBy(n, now)
	said.started, said.dated = h.Time-int64(n.age()/time.Second), true
	said.past = at < 0 && len(m.nonces) > 0 && m.overBefore(h, 0)
	if !m.farFrom(h.Time) {
		l.noteSwitch(m, n.value, now)
	}
	m.nonces, m.time = front(m.nonces, said), h.Time
	m.signed = h.Encode()
	if len(m.nonces) > 1 {
		m.keepVoice(voice{n, now, m.signed})
	}
	m.full = h.Root
	m.show(s, same, now)
	l.hear(h.Writer, m, now)
	sinceNotice := n.value != m.noticed.value || n.counter > m.noticed.counter+l.pace.later()
	if sinceNotice && at <= 0 {
		l.trust(h.Writer, m)
	}
	return true
}

func (m *life) keepVoice(v voice) {
	m.voices = slices.DeleteFunc(m.voices, func(old voice) bool { return old.value == v.value })
	m.voices = slices.Insert(m.voices, 0, v)
	m.voices = m.voices[:min(len(m.voices), 2)]
}

// otherVoice is the latest heartbeat that was signed with a member's key in another life, if there was one lately.
func (l *lives) otherVoice(id fleet.MemberID, than lifeID, now moment) (voice, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if m := l.of[id]; m != nil {
		for _, v := range m.voices {
			if v.value != than && now-v.at <= l.window {
				return v, true
			}
		}
	}
	return voice{}, false
}

// beat notes one from a neighbour, over its own connection: nobody can replay that, so it outweighs any notice.
func (l *lives) beat(id fleet.MemberID, b beat, same bool, now moment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.get(id)
	l.noteSwitch(m, b.life, now)
	m.nonces = front(m.nonces, livedBy(nonce{value: b.life, counter: b.counter}, now))
	m.show(b.shown, same, now)
	l.hear(id, m, now)
	m.neighbour, m.beatAt = true, now
	l.trust(id, m)
	if m.near = b.doubts; m.near == l.doubts {
		m.nearAt = 0
	} else if m.nearAt == 0 {
		m.nearAt = max(1, now)
	}
	l.near[id] = m
}

// part notes that a member is no neighbour any more, and not lost: one of the two chose so.
func (l *lives) part(id fleet.MemberID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if m := l.of[id]; m != nil {
		m.neighbour, m.tellAt = false, 0
		delete(l.near, id)
	}
}

// met notes who answers at a member's connection, and the root it showed. Nobody can replay that either.
func (l *lives) met(id fleet.MemberID, value lifeID, root fleet.Digest, same bool, now moment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.get(id)
	l.noteSwitch(m, value, now)
	m.nonces, m.full = front(m.nonces, livedBy(nonce{value: value}, now)), root
	m.show(shownWhole(root), same, now)
}

// hear notes that a member lives.
func (l *lives) hear(id fleet.MemberID, m *life, now moment) {
	m.heard, m.heardAt = true, now
	if id == l.self {
		return // its own, or a clone's: nobody else
	}
	if now-l.newsAt >= l.pace.suspectAfter() {
		l.woke = now
	}
	l.newsAt = now
}

// trust ends every doubt about a member.
func (l *lives) trust(id fleet.MemberID, m *life) {
	l.doubt(m, false)
	m.tellAt = 0
	if !m.neighbour {
		delete(l.near, id)
	}
}

func (m *life) show(s shown, same bool, now moment) {
	if same {
		m.differs = false
	} else if !m.differs {
		m.differs, m.differsAt = true, now
	}
	m.shown = s
}

// noteSwitch counts that a life goes on after another one began. That one life goes on after what was past when it was
// first heard says nothing.
func (l *lives) noteSwitch(m *life, value lifeID, now moment) {
	if find(m.nonces, value) <= 0 || m.nonces[0].past {
		return
	}
	if now-m.switchedAt > l.window {
		m.switches = 0
	}
	m.switches++
	m.switchedAt = now
}

// since is the silence since a moment that counts: what this member could have heard.
func (l *lives) since(heardAt, now moment) time.Duration {
	woke := l.woke
	if now-l.ticked > l.pace.standstill() {
		woke = now
	}
	return max(0, now-max(heardAt, woke))
}

// silence is since, for who holds no lock.
func (l *lives) silence(heardAt, now moment) time.Duration {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.since(heardAt, now)
}

// alone says that nobody is heard.
func (l *lives) alone(now moment) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.since(l.newsAt, now) >= l.pace.lostAfter()
}

// loss of a neighbour, to be told: its member and what was heard of it last.
type loss struct {
	about fleet.MemberID
	last  nonce
}

// tick lets time pass. It gives the losses that are due to be told now. draw gives a random duration below its argument.
func (l *lives) tick(now moment, draw func(time.Duration) time.Duration) (due []loss) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now-l.ticked > l.pace.standstill() {
		l.woke = now
	}
	l.ticked = now
	if l.since(l.newsAt, now) >= l.pace.suspectAfter() || l.newsAt < l.woke {
		return nil // we hear nobody: say nothing of others
	}
	l.lose(now, draw)
	for id, m := range l.near {
		if m.tellAt == 0 || now < m.tellAt {
			continue
		}
		l.doubt(m, true) // here at once; the others hear it when it is this one's turn
		if !m.alreadyNoticed(m.lost, l.pace) {
			if !l.own.has(now) || !l.all.take(now) {
				continue
			}
			l.own.take(now)
			due = append(due, loss{id, m.lost})
		}
		m.note(m.lost)
		l.settle(id, m)
	}
	return due
}

func (l *lives) settle(id fleet.MemberID, m *life) {
	m.tellAt = 0
	if !m.neighbour {
		delete(l.near, id)
	}
}

// lose finds the neighbours that are not heard any more.
func (l *lives) lose(now moment, draw func(time.Duration) time.Duration) {
	silent, heard := 0, 0
	var lost []fleet.MemberID
	for id, m := range l.near {
		switch silence := l.since(m.heardAt, now); {
		case !m.neighbour:
		case m.heardAt-m.beatAt >= l.pace.lostAfter():
			m.neighbour = false // heard by gossip: next to others, and there
			l.settle(id, m)
		case silence >= l.pace.lostAfter():
			lost = append(lost, id)
			silent++
		case silence >= l.pace.suspectAfter():
			silent++
		default:
			heard++
		}
	}
	wait := time.Duration(0)
	if silent > heard {
		wait = l.pace.holdFor()
	}
	slices.Sort(lost)
	for _, id := range lost {
		m := l.near[id]
		m.neighbour = false
		m.lost = m.nonces[0].nonce
		m.tellAt = max(1, now+wait+draw(l.pace.tellWithin()))
	}
}

// noticeIsNews says whether a notice is worth verifying: no replay, nothing that was noticed already, and within what its
// writer, and all, may say.
func (l *lives) noticeIsNews(n *fleet.Notice, now moment) (first, within bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.get(n.Writer)
	return l.teaches(n), m.telling.has(now) && l.hearing.has(now)
}

// teaches says that a notice was not heard before, and not what it says either. One about this member is to be answered.
func (l *lives) teaches(n *fleet.Notice) bool {
	if !fresh(l.get(n.Writer).wrote, n.Life, n.Counter) {
		return false
	}
	m := l.of[n.About]
	return m == nil || n.About == l.self || !m.doubted ||
		!m.alreadyNoticed(nonce{value: n.AboutLife, counter: n.AboutCounter}, l.pace)
}

// alreadyNoticed says that the loss of a life was told, by somebody who heard it about as late.
func (m *life) alreadyNoticed(last nonce, p pace) bool {
	return m.noticed.value == last.value && m.noticed.counter+p.later() >= last.counter
}

// notice notes a verified one; heard is false if it is no news after all, and pass says whether it is to be passed on.
// Whether it makes a member doubted is another question.
func (l *lives) notice(n *fleet.Notice, now moment) (heard, pass bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	writer := l.get(n.Writer)
	if !l.teaches(n) || !writer.telling.has(now) || !l.hearing.take(now) {
		return false, false
	}
	writer.telling.take(now)
	l.all.spend(now)
	pass = l.passing.take(now)
	l.takeNotice(n, now)
	return true, pass
}

// takeNotice makes of one what is to be made of it.
func (l *lives) takeNotice(n *fleet.Notice, now moment) {
	writer := l.get(n.Writer)
	writer.wrote = remember(writer.wrote, n.Life, n.Counter)
	if n.About == l.self {
		return
	}
	m, last := l.get(n.About), nonce{value: n.AboutLife, counter: n.AboutCounter}
	last.counter = min(last.counter, l.credible(m, last.value, now))
	better := l.knowsBetter(m, last, now)
	if !better {
		l.doubt(m, true)
		m.notice = n.Encode()
	}
	if !better || m.nonces[0].value == last.value {
		m.note(last)
	}
}

// credible is the highest counter that a notice may name: who writes one has heard nothing for lostAfter, and counters
// are milliseconds. A higher one is a lie that no answer would outweigh.
func (l *lives) credible(m *life, value lifeID, now moment) uint64 {
	i := find(m.nonces, value)
	if i < 0 || m.nonces[i].counter == 0 {
		return math.MaxUint64
	}
	since := (now - m.nonces[i].at - l.pace.lostAfter() + l.pace.beat).Milliseconds()
	if since < 0 {
		return m.nonces[i].counter - min(m.nonces[i].counter, uint64(-since))
	}
	return m.nonces[i].counter + uint64(since)
}

// note keeps the highest of a life that was noticed lost.
func (m *life) note(last nonce) {
	if m.noticed.value == last.value {
		last.counter = max(last.counter, m.noticed.counter)
	}
	m.noticed = last
}

// knowsBetter says that a member was heard after the one who lost it heard it last.
func (l *lives) knowsBetter(m *life, last nonce, now moment) bool {
	if m.neighbour && l.since(m.beatAt, now) < l.pace.lostAfter() {
		return true
	}
	// What a neighbour told of it counts by its counter alone.
	switch i := find(m.nonces, last.value); {
	case i == 0:
		return m.nonces[0].counter > last.counter+l.pace.later()
	case i > 0:
		return true // in a later life
	}
	return m.heard && l.since(m.heardAt, now) < l.pace.lostAfter()
}

// standing is what is made of one member.
type standing struct {
	presence  Presence
	heard     bool
	hearsay   bool
	silence   time.Duration
	duplicate bool
	shown     shown
	root      fleet.Digest
	seen      bool // it showed roots
	differsAt moment
}

// standing of a member whose heartbeats are due every interval; zero where none come here.
func (l *lives) standing(id fleet.MemberID, interval time.Duration, now moment) standing {
	l.mu.RLock()
	defer l.mu.RUnlock()
	m := l.of[id]
	if m == nil {
		m = &life{}
	}
	s := standing{
		heard: m.heard || m.told, hearsay: m.told && !m.heard, silence: now, shown: m.shown, root: m.full, seen: len(m.nonces) > 0, differsAt: now,
		duplicate: m.switches >= switchesToTell && now-m.switchedAt <= l.window,
		presence:  l.judge(m, interval, now),
	}
	if s.heard {
		s.silence = now - m.lately()
	}
	if m.differs {
		s.differsAt = m.differsAt
	}
	return s
}

// lately is when it was heard last, by somebody else where not here.
func (m *life) lately() moment {
	if m.heard {
		return m.heardAt
	}
	return m.toldAt
}

func (l *lives) judge(m *life, interval time.Duration, now moment) Presence {
	silence := l.since(m.heardAt, now)
	if m.told && !m.heard {
		silence = now - m.toldAt
	}
	quiet := interval > 0 && silence >= quietAfter*interval
	alone := l.since(l.newsAt, now) >= l.pace.lostAfter()
	switch {
	case alone && (m.heard || m.told):
		return Quiet
	case alone:
		return Unheard
	case m.doubted:
		return Doubted
	case quiet:
		return Quiet
	case m.heard || m.told:
		return Heard
	}
	return Unheard
}

// root is what a member showed last; false if it never did.
func (l *lives) root(id fleet.MemberID) (shown, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	m := l.of[id]
	if m == nil || len(m.nonces) == 0 {
		return shown{}, false
	}
	return m.shown, true
}

// differing is for how long a member has shown other roots than ours; 0 if it does not.
func (l *lives) differing(id fleet.MemberID, now moment) time.Duration {
	l.mu.RLock()
	defer l.mu.RUnlock()
	m := l.of[id]
	if m == nil || !m.differs {
		return 0
	}
	return max(1, now-m.differsAt)
}

// flagged says that two agents that live at the same time use a member's key.
func (l *lives) flagged(id fleet.MemberID, now moment) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	m := l.of[id]
	return m != nil && m.switches >= switchesToTell && now-m.switchedAt <= l.window
}
