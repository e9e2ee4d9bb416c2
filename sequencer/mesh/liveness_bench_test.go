// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// BenchmarkLiveness is a model, without libp2p: the judgement and the pace of this package, over links that lose 5 % or 1 % of
// all messages and deliver the others after 20 to 80 ms, and bring none again, which QUIC would. Each iteration is six
// minutes of 1,000 members that all live, a hundred node-hours; at the end 100 vanish at once. In other such fleets one
// does, and 300 do. It reports
//
//	node-hours     how many were lived through
//	alarms         notices about members that live
//	false          judgements of one member about another one that lives: doubted, or quiet
//	cuts           links given up between two that live
//	p50-s ... max-s   from vanishing until one of the others doubts, over all pairs
//	late           pairs where that took more than 15 s
//	unnoticed      pairs where it did not happen within two minutes
//	beat-B/s, gossip-B/s  received by one member, while all live, with 60 B around each packet
//
// So -benchtime 25x is ten thousand node-hours, in four fleets, at each of the two.
func BenchmarkLiveness(b *testing.B) {
	for _, loss := range []float64{0.05, 0.01} {
		for seed := range uint64(4) {
			b.Run(fmt.Sprintf("loss=%g/seed=%d", loss, seed), func(b *testing.B) { liveThrough(b, newModel(1000, 8, loss, seed)) })
		}
		for _, gone := range []int{1, 300} {
			b.Run(fmt.Sprintf("loss=%g/vanish=%d", loss, gone), func(b *testing.B) {
				for b.Loop() {
					m := newModel(1000, 8, loss, 0)
					m.run(time.Minute)
					m.vanish(b, gone)
				}
			})
		}
	}
}

// liveThrough so many node-hours in which nobody vanishes, and then 100 members do.
func liveThrough(b *testing.B, m *model) {
	m.run(time.Minute) // until every link is up
	m.judgeQuiet()
	m.wrong, m.alarms, m.cuts, m.beatBytes, m.gossipBytes = 0, 0, 0, 0, 0
	rounds := 0
	for b.Loop() {
		m.run(6 * time.Minute)
		m.judgeQuiet()
		rounds++
	}
	nodeHours := float64(rounds*len(m.members)) / 10
	b.ReportMetric(nodeHours, "node-hours")
	b.ReportMetric(float64(m.alarms), "alarms")
	b.ReportMetric(float64(m.wrong), "false")
	b.ReportMetric(float64(m.cuts), "cuts")
	b.ReportMetric(float64(m.beatBytes)/nodeHours/3600, "beat-B/s")
	b.ReportMetric(float64(m.gossipBytes)/nodeHours/3600, "gossip-B/s")
	m.vanish(b, 100)
}

// vanish ends so many members at once, and reports how the others notice.
func (m *model) vanish(b *testing.B, count int) {
	for i := range count {
		m.members[i].gone = true
	}
	gone := m.now
	m.run(2 * time.Minute)
	var spans []float64
	for _, at := range m.noticedAt {
		spans = append(spans, (at - gone).Seconds())
	}
	slices.Sort(spans)
	if len(spans) == 0 {
		b.Fatal("nobody noticed")
	}
	at := func(share float64) float64 { return spans[int(share*float64(len(spans)-1))] }
	b.ReportMetric(at(0.5), "p50-s")
	b.ReportMetric(at(0.99), "p99-s")
	b.ReportMetric(at(0.999), "p99.9-s")
	b.ReportMetric(at(1), "max-s")
	late, _ := slices.BinarySearch(spans, 15.000001)
	b.ReportMetric(float64(len(spans)-late), "late")
	b.ReportMetric(float64(count*(len(m.members)-count)-len(spans)), "unnoticed")
}

// TestModel: what the benchmark runs, smaller, and that it finds what it looks for.
func TestModel(t *testing.T) {
	m := newModel(40, 6, 0.05, 0)
	m.run(5 * time.Minute)
	m.judgeQuiet()
	if m.wrong > 0 {
		t.Errorf("%d false judgements", m.wrong)
	}
	for i := range 3 {
		m.members[i].gone = true
	}
	m.run(time.Minute)
	if got := len(m.noticedAt); got != 3*37 {
		t.Errorf("%d judgements about the vanished, want %d", got, 3*37)
	}
	deaf := newModel(40, 6, 0.6, 0)
	deaf.run(2 * time.Minute)
	if deaf.cuts == 0 {
		t.Error("links that lose 60 % are never cut: the model loses nothing")
	}
}

type model struct {
	now     moment
	events  events
	members []*modelled
	loss    float64
	random  *rand.Rand

	wrong, alarms, cuts    int
	beatBytes, gossipBytes int
	// doubts are those that stand, of the living; noticedAt is when one of the vanished was doubted first.
	doubts    map[[2]int]bool
	noticedAt map[[2]int]moment
	// notices are the last ones about each member.
	notices map[fleet.MemberID]*fleet.Notice
}

type modelled struct {
	lives
	id         fleet.MemberID
	gone       bool
	neighbours []*wireEnd // that it beats with
	ends       []*wireEnd // that it ever had
	beatAt     moment     // of the last heartbeat
	ticks      int
	said       uint64
	index      map[fleet.MemberID]int
}

// wireEnd is one end of a link.
type wireEnd struct {
	from, to      int
	other         *wireEnd
	sent, heardAt moment
	timer         int // the one that counts; those set before do not
	// judged is what from makes of to, doubted what it was when it was looked at last.
	judged  *life
	doubted bool
}

// event is a beat that is due where beats is there, a look at the time where do is not, and else whatever it does.
type event struct {
	at    moment
	beats *wireEnd
	n     int // the timer, or the member
	do    func()
}

// events are a heap, the next one on top. It is written out as most of the model's time goes here.
type events []event

func (e *events) push(v event) {
	*e = append(*e, v)
	h := *e
	for i := len(h) - 1; i > 0; {
		up := (i - 1) / 2
		if h[up].at <= h[i].at {
			return
		}
		h[up], h[i], i = h[i], h[up], up
	}
}

func (e *events) pop() event {
	h := *e
	top, last := h[0], len(h)-1
	h[0], h[last] = h[last], event{}
	*e = h[:last]
	h = h[:last]
	for i := 0; ; {
		down := 2*i + 1
		if down+1 < last && h[down+1].at < h[down].at {
			down++
		}
		if down >= last || h[i].at <= h[down].at {
			return top
		}
		h[down], h[i], i = h[i], h[down], down
	}
}

func newModel(size, degree int, loss float64, seed uint64) *model {
	m := &model{
		loss: loss, random: rand.New(rand.NewPCG(seed, 2)), doubts: map[[2]int]bool{}, noticedAt: map[[2]int]moment{},
		notices: map[fleet.MemberID]*fleet.Notice{},
	}
	index := make(map[fleet.MemberID]int, size)
	for i := range size {
		n := &modelled{id: fleet.MemberID(fmt.Sprint(i)), index: index}
		index[n.id] = i
		n.begin(n.id, lan)
		m.members = append(m.members, n)
	}
	for i := range size {
		for range degree / 2 {
			m.dials(i)
		}
	}
	for i := range size {
		m.events.push(event{at: m.now + m.draw(lan.tick()), n: i})
		m.after(m.draw(lan.interval(size)), func() { m.heartbeats(i) })
	}
	return m
}

// dials links a member with another one that is there.
func (m *model) dials(i int) {
	linked := func(j int) bool {
		return slices.ContainsFunc(m.members[i].neighbours, func(e *wireEnd) bool { return e.to == j })
	}
	j := m.random.IntN(len(m.members))
	for j == i || m.members[j].gone || linked(j) {
		j = m.random.IntN(len(m.members))
	}
	a, b := &wireEnd{from: i, to: j, heardAt: m.now}, &wireEnd{from: j, to: i, heardAt: m.now}
	a.other, b.other = b, a
	a.judged, b.judged = m.members[i].get(m.members[j].id), m.members[j].get(m.members[i].id)
	for _, e := range []*wireEnd{a, b} {
		self := m.members[e.from]
		self.neighbours, self.ends = append(self.neighbours, e), append(self.ends, e)
	}
	m.beatsAfter(m.draw(lan.beat), a)
	m.beatsAfter(m.draw(lan.beat), b)
}

func (m *model) draw(below time.Duration) time.Duration {
	return time.Duration(m.random.Int64N(int64(below) + 1))
}

func (m *model) after(d time.Duration, do func()) { m.events.push(event{at: m.now + d, do: do}) }

// beatsAfter sets an end's timer.
func (m *model) beatsAfter(d time.Duration, e *wireEnd) {
	e.timer++
	m.events.push(event{at: m.now + d, beats: e, n: e.timer})
}

func (m *model) run(d time.Duration) {
	for end := m.now + d; len(m.events) > 0 && m.events[0].at < end; {
		e := m.events.pop()
		m.now = e.at
		switch {
		case e.beats != nil:
			m.beats(e.beats, e.n)
		case e.do == nil:
			m.ticks(e.n)
		default:
			e.do()
		}
	}
}

// travels loses a message, or delivers it after a while.
func (m *model) travels(deliver func()) {
	if m.random.Float64() >= m.loss {
		m.after(20*time.Millisecond+m.draw(60*time.Millisecond), deliver)
	}
}

func (m *model) beats(e *wireEnd, timer int) {
	self := m.members[e.from]
	if self.gone || timer != e.timer {
		return
	}
	silence := self.silence(e.heardAt, m.now)
	if silence >= lan.lostAfter() {
		if m.members[e.to].gone {
			self.neighbours = slices.DeleteFunc(self.neighbours, func(other *wireEnd) bool { return other == e })
			m.after(time.Second+m.draw(time.Second), func() { m.dials(e.from) })
			return
		}
		m.cuts++
		e.heardAt = m.now // dialled again
	}
	m.sends(e, true)
	m.beatsAfter(lan.next(silence, m.draw), e)
}

func (m *model) sends(e *wireEnd, asks bool) {
	e.sent = m.now
	counter, doubts := uint64(m.now.Milliseconds())+1, m.members[e.from].doubtSum()
	m.travels(func() {
		self, end := m.members[e.to], e.other
		if self.gone {
			return
		}
		m.beatBytes += beatSize + 60 + 31 // half the exchanges' packets need an acknowledgement of their own
		end.heardAt = m.now
		self.beat(m.members[e.from].id, beat{life: lifeID{1}, asks: asks, counter: counter, doubts: doubts}, true, m.now)
		if len(m.doubts) > 0 {
			delete(m.doubts, [2]int{e.to, e.from})
		}
		if asks && m.now-end.sent >= lan.crossing() {
			m.sends(end, false)
			m.beatsAfter(lan.next(0, m.draw), end)
		}
	})
}

func (m *model) ticks(i int) {
	self := m.members[i]
	if self.gone {
		return
	}
	due := self.tick(m.now, m.draw)
	for _, e := range self.ends {
		if e.judged.doubted && !e.doubted {
			m.noteDoubt(i, m.members[e.to].id)
		}
		e.doubted = e.judged.doubted
	}
	for _, lost := range due {
		if !m.members[self.index[lost.about]].gone {
			m.alarms++
		}
		self.said++
		n := &fleet.Notice{
			Writer: self.id, Life: lifeID{1}, Counter: self.said, About: lost.about, AboutLife: lost.last.value, AboutCounter: lost.last.counter,
		}
		m.notices[lost.about] = n
		m.gossip(i, 195, func(to int) bool { return m.hearsNotice(to, n) })
	}
	if self.ticks++; self.ticks%int(lan.beat/lan.tick()) == 0 {
		for _, id := range self.disagreeing(m.now) {
			m.asks(i, self.index[id])
		}
	}
	m.events.push(event{at: m.now + lan.tick(), n: i})
}

// asks a neighbour for the notices that it heard and this member did not. The neighbour may be gone by now.
func (m *model) asks(i, of int) {
	self, other := m.members[i], m.members[of]
	m.travels(func() {
		if other.gone {
			return
		}
		for id, l := range other.of {
			if n := m.notices[id]; l.doubted && n != nil && !self.get(id).doubted {
				m.travels(func() {
					m.gossipBytes += 195 + 60
					if !self.gone && self.noticeByHearsay(n, m.now) {
						m.noteDoubt(i, id)
						m.gossip(i, 195, func(to int) bool { return m.hearsNotice(to, n) })
					}
				})
			}
		}
	})
}

// beatSize is that of an idle beat, with its length before it.
var beatSize = func() int {
	b := beat{life: lifeID{1}, counter: 3_600_000}
	return b.frame().size() + 1
}()

func (m *model) hearsNotice(to int, n *fleet.Notice) bool {
	self := m.members[to]
	if teaches, within := self.noticeIsNews(n, m.now); !teaches || !within {
		return false
	}
	heard, pass := self.notice(n, m.now)
	if !heard {
		return false
	}
	if n.About == self.id {
		m.after(max(0, self.beatAt+lan.beat/3-m.now), func() { m.tells(to) })
	} else if self.of[n.About].doubted {
		m.noteDoubt(to, n.About)
	}
	return pass
}

func (m *model) noteDoubt(by int, about fleet.MemberID) {
	of := m.members[by].index[about]
	pair := [2]int{by, of}
	if m.members[of].gone {
		if _, ok := m.noticedAt[pair]; !ok {
			m.noticedAt[pair] = m.now
		}
	} else if !m.doubts[pair] {
		m.doubts[pair] = true
		m.wrong++
	}
}

func (m *model) heartbeats(i int) {
	m.tells(i)
	next := lan.interval(len(m.members))
	m.after(next*9/10+m.draw(next/5), func() { m.heartbeats(i) })
}

func (m *model) tells(i int) {
	self := m.members[i]
	if self.gone {
		return
	}
	self.beatAt = m.now
	h := &fleet.Heartbeat{Writer: self.id, Nonce: [16]byte{1}, Counter: uint64(m.now.Milliseconds()) + 1}
	m.gossip(i, 195, func(to int) bool {
		other := m.members[to]
		if !other.heartbeat(h, shown{}, true, m.now) {
			return false
		}
		if !other.of[self.id].doubted {
			delete(m.doubts, [2]int{to, i})
		}
		return true
	})
}

// gossip floods a message: whoever hears it first passes it on to six neighbours, or all.
func (m *model) gossip(from, size int, hear func(to int) bool) {
	heard := make([]bool, len(m.members))
	heard[from] = true
	var pass func(i int)
	pass = func(i int) {
		ends := m.members[i].neighbours
		for _, k := range m.random.Perm(len(ends))[:min(6, len(ends))] {
			to := ends[k].to
			m.travels(func() {
				if m.members[to].gone {
					return
				}
				m.gossipBytes += size + 95 + 60
				if !heard[to] {
					heard[to] = true
					if hear(to) {
						pass(to)
					}
				}
			})
		}
	}
	pass(from)
}

// judgeQuiet counts who is said to be quiet, or never heard, and lives.
func (m *model) judgeQuiet() {
	for i, self := range m.members {
		for j, other := range m.members {
			if i == j || self.gone || other.gone {
				continue
			}
			if p := self.standing(other.id, lan.interval(len(m.members)), m.now).presence; p == Quiet {
				m.wrong++
			}
		}
	}
}
