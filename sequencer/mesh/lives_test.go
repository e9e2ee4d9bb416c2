// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// lan is the pace of the tests; a beat is 3 s, so suspected is 6 s and lost 10.5 s.
var lan = pace{LAN().Beat, LAN().Heartbeat}

// observer is one member's judgement in a test that moves the time by hand.
type observer struct {
	*lives
	now  moment
	told []loss
	// toldAlone: it said of others that they are lost while it heard nobody.
	toldAlone bool
}

func observe() *observer {
	o := &observer{lives: &lives{}}
	o.begin("self", lan)
	o.pass(time.Second)
	return o
}

func never(time.Duration) time.Duration { return 0 }

// pass lets time go by, looked at in time.
func (o *observer) pass(d time.Duration) {
	for end := o.now + d; o.now < end; {
		o.now = min(end, o.now+lan.tick())
		told := o.tick(o.now, never)
		o.toldAlone = o.toldAlone || len(told) > 0 && o.alone(o.now)
		o.told = append(o.told, told...)
	}
}

// passHearing is pass while members beat.
func (o *observer) passHearing(d time.Duration, members ...fleet.MemberID) {
	for end := o.now + d; o.now < end; {
		for _, id := range members {
			o.beats(id, 1)
		}
		o.pass(min(lan.beat, end-o.now))
	}
}

func (o *observer) beats(id fleet.MemberID, life byte) {
	o.beat(id, beat{life: lifeID{life}, counter: o.counter()}, true, o.now)
}

// counter of who began when we did.
func (o *observer) counter() uint64 { return uint64(o.now.Milliseconds()) }

func (o *observer) heartbeats(id fleet.MemberID, life byte) bool {
	return o.heartbeatAt(id, life, o.counter())
}

func (o *observer) heartbeatAt(id fleet.MemberID, life byte, counter uint64) bool {
	h := fleet.Heartbeat{Writer: id, Nonce: [16]byte{life}, Counter: counter}
	return o.heartbeat(&h, shown{}, true, o.now)
}

func (o *observer) noticed(by, about fleet.MemberID, life byte, counter uint64) bool {
	n := fleet.Notice{Writer: by, Life: lifeID{1}, Counter: o.counter(), About: about, AboutLife: lifeID{life}, AboutCounter: counter}
	fresh, within := o.noticeIsNews(&n, o.now)
	took, _ := o.notice(&n, o.now)
	if took != (fresh && within) {
		panic("the cheap check and the dear one disagree")
	}
	return took
}

func (o *observer) presence(id fleet.MemberID) Presence {
	return o.standing(id, lan.interval(1000), o.now).presence
}

// TestDuplicateTable: which rows of heartbeats look like two agents with one key.
func TestDuplicateTable(t *testing.T) {
	// The n-th agent was started at second n-1; a late heartbeat was signed so long before it is heard.
	type said struct {
		nonce byte
		at    int64 // seconds, by our clock and by the writer's
		late  int64
		clock int64 // what the writer's clock is off
	}
	const year = 365 * 24 * 3600
	for name, c := range map[string]struct {
		beats []said
		want  bool
	}{
		"one agent":                          {[]said{{1, 0, 0, 0}, {1, 5, 0, 0}, {1, 10, 0, 0}}, false},
		"restart":                            {[]said{{1, 0, 0, 0}, {2, 7, 0, 0}, {2, 12, 0, 0}}, false},
		"restart, and the last old one late": {[]said{{1, 0, 0, 0}, {2, 1, 0, 0}, {1, 2, 1, 0}, {2, 12, 0, 0}}, false},
		"crash loop":                         {[]said{{1, 0, 0, 0}, {2, 1, 0, 0}, {3, 2, 0, 0}, {4, 3, 0, 0}, {5, 4, 0, 0}, {6, 5, 0, 0}}, false},
		"two agents":                         {[]said{{1, 0, 0, 0}, {2, 1, 0, 0}, {1, 5, 0, 0}, {2, 6, 0, 0}, {1, 10, 0, 0}}, true},
		"two agents, at once":                {[]said{{1, 0, 0, 0}, {2, 1, 0, 0}, {1, 2, 0, 0}, {2, 3, 0, 0}, {1, 3, 0, 0}, {2, 4, 0, 0}, {1, 5, 0, 0}, {2, 6, 0, 0}, {1, 7, 0, 0}}, true},
		"two agents, whose clock jumps":      {[]said{{1, 0, 0, 0}, {2, 1, 0, 0}, {1, 5, 0, year}, {2, 6, 0, year}, {1, 10, 0, year}, {2, 11, 0, year}}, true},
		"two agents, whose clock jumps back": {[]said{{1, 0, 0, 0}, {2, 1, 0, 0}, {1, 5, 0, -year}, {2, 6, 0, -year}, {1, 10, 0, -year}, {2, 11, 0, -year}}, true},
		"two agents, one clock a bit slow":   {[]said{{1, 0, 0, -60}, {2, 1, 0, 0}, {1, 65, 0, -60}, {2, 66, 0, 0}, {1, 70, 0, -60}, {2, 71, 0, 0}}, true},
		"two agents, the first one unheard":  {[]said{{2, 1, 0, 0}, {1, 5, 0, 0}, {2, 6, 0, 0}, {1, 10, 0, 0}, {2, 11, 0, 0}}, true},
		"three agents":                       {[]said{{1, 0, 0, 0}, {2, 1, 0, 0}, {3, 2, 0, 0}, {1, 6, 0, 0}, {2, 7, 0, 0}, {3, 8, 0, 0}}, true},
		"two, long ago":                      {[]said{{1, 0, 0, 0}, {2, 1, 0, 0}, {1, 5, 0, 0}, {2, 6, 0, 0}, {1, 10, 0, 0}, {1, 500, 0, 0}}, false},
		"an old life replayed":               {[]said{{2, 9001, 0, 0}, {1, 9002, 9000, -9000}, {2, 9005, 0, 0}, {1, 9006, 9000, -9000}, {2, 9010, 0, 0}, {1, 9011, 9000, -9000}}, false},
		"the same ones replayed":             {[]said{{1, 0, 0, 0}, {2, 1, 0, 0}, {1, 2, 2, 0}, {2, 3, 2, 0}, {1, 4, 4, 0}, {2, 5, 4, 0}}, false},
		// Agent 1 ran until second 300, agent 302 is the same one started again.
		"withheld ones of a life that was heard, replayed": {[]said{
			{1, 0, 0, 0}, {1, 100, 0, 0}, {45, 302, 0, 0}, {1, 303, 100, -100}, {45, 304, 0, 0}, {1, 305, 80, -80}, {45, 307, 0, 0}, {1, 308, 60, -60}, {45, 400, 0, 0},
		}, false},
		"the same, and the clock was set back": {[]said{
			{1, 0, 0, 300}, {1, 100, 0, 300}, {45, 302, 0, 0}, {1, 303, 100, 200}, {45, 304, 0, 0}, {1, 305, 80, 220}, {45, 307, 0, 0}, {1, 308, 60, 240}, {45, 400, 0, 0},
		}, false},
		"withheld ones of a life that was never heard, replayed": {[]said{
			{45, 302, 0, 0}, {1, 303, 100, -100}, {45, 304, 0, 0}, {1, 305, 80, -80}, {45, 307, 0, 0}, {1, 308, 60, -60}, {45, 400, 0, 0},
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			var l lives
			l.begin("self", lan)
			var now moment
			for _, b := range c.beats {
				now = time.Duration(b.at) * time.Second
				began := int64(b.nonce - 1)
				if b.nonce == 45 {
					began = 301
				}
				h := fleet.Heartbeat{Writer: "w", Nonce: [16]byte{b.nonce}, Counter: uint64(b.at-b.late-began)*1000 + 1, Time: 1_800_000_000 + b.at + b.clock}
				fresh := l.advances(&h)
				if l.heartbeat(&h, shown{}, true, now) != fresh {
					t.Errorf("advances said %v", fresh)
				}
			}
			if got := l.standing("w", time.Hour, now).duplicate; got != c.want || l.flagged("w", now) != got {
				t.Errorf("duplicate %v, want %v", got, c.want)
			}
		})
	}
}

func TestDuplicateBeats(t *testing.T) {
	o := observe()
	o.beats("w", 1)
	o.pass(time.Minute) // stopped, and gone on: the same life
	o.beats("w", 1)
	o.beats("w", 2) // restarted
	o.beats("w", 2)
	if o.flagged("w", o.now) {
		t.Fatal("a restart is flagged")
	}
	for range 2 {
		o.beats("w", 1)
		o.beats("w", 2)
	}
	if !o.flagged("w", o.now) {
		t.Error("two lives that beat in turn are not flagged")
	}
}

func TestPresence(t *testing.T) {
	quiet := quietAfter * lan.interval(1000)
	for name, c := range map[string]struct {
		story func(*observer)
		want  Presence
	}{
		"never heard":         {func(o *observer) { o.passHearing(time.Minute, "a", "b") }, Unheard},
		"never, for long":     {func(o *observer) { o.passHearing(quiet+time.Minute, "a") }, Quiet},
		"heartbeat":           {func(o *observer) { o.beats("a", 1); o.heartbeats("w", 1) }, Heard},
		"heartbeat, hours":    {func(o *observer) { o.heartbeats("w", 1); o.passHearing(quiet-time.Minute, "a") }, Heard},
		"heartbeat, too long": {func(o *observer) { o.heartbeats("w", 1); o.passHearing(quiet+time.Minute, "a") }, Quiet},
		"neighbour":           {func(o *observer) { o.passHearing(time.Minute, "a", "w") }, Heard},
		"neighbour, 9 s":      {func(o *observer) { o.passHearing(time.Minute, "a", "w"); o.passHearing(6*time.Second, "a") }, Heard},
		"neighbour, lost": {func(o *observer) {
			o.passHearing(time.Minute, "a", "w")
			o.passHearing(12*time.Second, "a")
		}, Doubted},
		"neighbour, lost with most others": {func(o *observer) {
			o.passHearing(time.Minute, "a", "b", "c", "w")
			o.passHearing(12*time.Second, "a")
		}, Heard},
		"neighbour, lost with most others, and they stay away": {func(o *observer) {
			o.passHearing(time.Minute, "a", "b", "c", "w")
			o.passHearing(time.Minute, "a")
		}, Doubted},
		"neighbour, lost and back": {func(o *observer) {
			o.passHearing(time.Minute, "a", "w")
			o.passHearing(12*time.Second, "a")
			o.beats("w", 1)
		}, Heard},
		"neighbour no more, and heard by gossip": {func(o *observer) {
			o.passHearing(time.Minute, "a", "w")
			for range 3 {
				o.passHearing(6*time.Second, "a")
				o.heartbeats("w", 1)
			}
			o.passHearing(12*time.Second, "a")
		}, Heard},
		"noticed": {func(o *observer) {
			o.heartbeats("w", 1)
			o.passHearing(time.Minute, "a")
			o.noticed("a", "w", 1, o.counter()-11_000)
		}, Doubted},
		"noticed, never heard": {func(o *observer) { o.beats("a", 1); o.noticed("a", "w", 1, 1) }, Doubted},
		"noticed, and answered": {func(o *observer) {
			o.passHearing(time.Minute, "a")
			o.noticed("a", "w", 1, o.counter()-11_000)
			o.heartbeats("w", 1)
		}, Heard},
		"noticed, and a heartbeat from before the loss comes late": {func(o *observer) {
			o.passHearing(time.Minute, "a")
			o.noticed("a", "w", 1, o.counter()-11_000)
			o.heartbeatAt("w", 1, o.counter()-10_000)
		}, Doubted},
		"noticed, and born again": {func(o *observer) {
			o.passHearing(time.Minute, "a")
			o.noticed("a", "w", 1, o.counter()-11_000)
			o.heartbeatAt("w", 2, 1)
		}, Heard},
		"noticed in an earlier life": {func(o *observer) {
			o.heartbeats("w", 1)
			o.heartbeats("w", 2)
			o.passHearing(time.Minute, "a")
			o.noticed("a", "w", 1, o.counter())
		}, Heard},
		"noticed, heard after that": {func(o *observer) {
			o.passHearing(time.Minute, "a")
			o.heartbeats("w", 1)
			o.noticed("a", "w", 1, o.counter()-7_000)
		}, Heard},
		"noticed, a neighbour with fresh beats": {func(o *observer) {
			o.passHearing(time.Minute, "a", "w")
			o.noticed("a", "w", 1, o.counter()+20_000)
		}, Heard},
		"noticed twice, an older one last": {func(o *observer) {
			o.passHearing(time.Minute, "a")
			o.noticed("a", "w", 1, o.counter()-11_000)
			o.noticed("b", "w", 1, o.counter()-40_000)
			o.heartbeatAt("w", 1, o.counter()-20_000)
		}, Doubted},
		"alone": {func(o *observer) { o.passHearing(time.Minute, "a", "w"); o.pass(12 * time.Second) }, Quiet},
		"alone, never heard": {func(o *observer) {
			o.passHearing(time.Minute, "a")
			o.pass(12 * time.Second)
		}, Unheard},
		"alone, noticed before": {func(o *observer) {
			o.passHearing(time.Minute, "a")
			o.heartbeats("w", 1)
			o.noticed("a", "w", 1, o.counter())
			o.pass(12 * time.Second)
		}, Quiet},
		"alone, and back: its time begins anew": {func(o *observer) {
			o.passHearing(time.Minute, "a", "w")
			o.pass(time.Hour)
			o.passHearing(9*time.Second, "a")
		}, Heard},
		"stopped, and gone on": {func(o *observer) {
			o.passHearing(time.Minute, "a", "w")
			o.now += time.Hour
			o.passHearing(9*time.Second, "a")
		}, Heard},
		"asked before the clock was looked at again": {func(o *observer) {
			o.passHearing(time.Minute, "a", "w")
			o.now += 10 * time.Hour
		}, Heard},
	} {
		t.Run(name, func(t *testing.T) {
			o := observe()
			c.story(o)
			if got := o.presence("w"); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

func TestAlone(t *testing.T) {
	o := observe()
	if o.alone(o.now) {
		t.Error("alone before anybody could be heard")
	}
	o.pass(12 * time.Second)
	if !o.alone(o.now) {
		t.Error("nobody is heard, and it is not alone")
	}
	o.heartbeats("self", 1)
	if !o.alone(o.now) {
		t.Error("it hears itself")
	}
	o.beats("a", 1)
	if o.alone(o.now) {
		t.Error("alone with a neighbour")
	}
	o.now += time.Hour
	if o.alone(o.now) {
		t.Error("alone because it was stopped")
	}
}

func TestTelling(t *testing.T) {
	for name, c := range map[string]struct {
		story func(*observer)
		want  int
	}{
		"a neighbour vanishes":        {func(o *observer) { o.passHearing(time.Hour, "a") }, 1},
		"everybody does":              {func(o *observer) { o.pass(time.Hour) }, 0},
		"it restarts in time":         {func(o *observer) { o.passHearing(6*time.Second, "a"); o.beats("w", 2) }, 0},
		"it is no neighbour any more": {func(o *observer) { o.part("w"); o.passHearing(time.Hour, "a") }, 0},
		"it was none, is one again, and vanishes": {func(o *observer) {
			o.part("w")
			o.passHearing(time.Minute, "a", "w")
			o.passHearing(time.Minute, "a")
		}, 1},
		"another one said it": {func(o *observer) {
			o.passHearing(6*time.Second, "a")
			o.noticed("b", "w", 1, o.counter()-9_000)
			o.passHearing(time.Hour, "a")
		}, 0},
		"another one said it of an earlier life": {func(o *observer) {
			o.passHearing(6*time.Second, "a")
			o.noticed("b", "w", 9, o.counter())
			o.passHearing(time.Hour, "a")
		}, 1},
		"vanishes, comes back, vanishes": {func(o *observer) {
			o.passHearing(time.Minute, "a")
			o.passHearing(time.Minute, "a", "w")
			o.passHearing(time.Minute, "a")
		}, 2},
		"this member was stopped": {func(o *observer) {
			o.now += time.Hour
			o.passHearing(6*time.Second, "a")
			o.passHearing(time.Minute, "a", "w")
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			o := observe()
			o.passHearing(time.Minute, "a", "w")
			c.story(o)
			if len(o.told) != c.want {
				t.Errorf("told %v, want %d", o.told, c.want)
			}
			for _, l := range o.told {
				if l.about != "w" || l.last.value != (lifeID{1}) || l.last.counter == 0 {
					t.Errorf("told %+v", l)
				}
			}
		})
	}
}

// TestCutIsToldBitByBit: a member between two halves that loses one of them does not flood the other.
func TestCutIsToldBitByBit(t *testing.T) {
	o := observe()
	var all, stay []fleet.MemberID
	for i := range 600 {
		id := fleet.MemberID(fmt.Sprint("m", i))
		all = append(all, id)
		if i < 301 {
			stay = append(stay, id)
		}
	}
	o.passHearing(time.Minute, all...)
	o.passHearing(12*time.Second, stay...)
	if got := len(o.told); got < noticesOfOne || got > noticesOfOne+int(12*time.Second/(beatsPerNotice*lan.beat)) {
		t.Errorf("%d told at once", got)
	}
	for _, id := range all[301:] {
		if got := o.presence(id); got != Doubted {
			t.Fatalf("%s is %s here, though it was not told yet", id, got)
		}
	}
	o.passHearing(time.Hour, stay...)
	if got := len(o.told); got != 299 {
		t.Errorf("%d told in the end, want 299", got)
	}
}

func TestNoticesAreBounded(t *testing.T) {
	o := observe()
	o.passHearing(time.Minute, "a")
	took := 0
	for i := range 1000 {
		n := fleet.Notice{Writer: "a", Life: lifeID{1}, Counter: uint64(i + 1), About: fleet.MemberID(fmt.Sprint("m", i)), AboutLife: lifeID{1}}
		if heard, _ := o.notice(&n, o.now); heard {
			took++
		}
	}
	if want := noticesOfOne * 3 / 2; took != want {
		t.Errorf("%d of one writer, want %d", took, want)
	}
	replay := fleet.Notice{Writer: "a", Life: lifeID{1}, Counter: 1, About: "m1", AboutLife: lifeID{1}}
	o.passHearing(time.Hour, "a")
	if heard, _ := o.notice(&replay, o.now); heard {
		t.Error("a replay was taken")
	}
	if !o.noticed("b", "m1", 1, 10_000) {
		t.Error("after an hour there is room for another writer's")
	}
	if o.noticed("c", "m1", 1, 9_000) {
		t.Error("what was noticed is news once more")
	}
}

func TestNoticesOvertakeEachOther(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var told []saying
		heard := map[uint64]bool{}
		for _, counter := range rapid.SliceOf(rapid.Uint64Range(0, 200)).Draw(t, "counters") {
			is := fresh(told, lifeID{1}, counter)
			if is && heard[counter] {
				t.Fatalf("%d is fresh twice", counter)
			}
			if highest := highestOf(heard); !is && !heard[counter] && counter+64 > highest {
				t.Fatalf("%d is not fresh, and the highest is %d", counter, highest)
			}
			if is {
				told, heard[counter] = remember(told, lifeID{1}, counter), true
			}
		}
	})
}

func highestOf(heard map[uint64]bool) (highest uint64) {
	for counter := range heard {
		highest = max(highest, counter)
	}
	return highest
}

func TestDiffering(t *testing.T) {
	o := observe()
	if o.differing("w", o.now) != 0 {
		t.Error("it never showed anything")
	}
	show := func(same bool) { o.beat("w", beat{life: lifeID{1}, counter: o.counter()}, same, o.now) }
	show(false)
	o.pass(time.Second)
	show(false)
	o.pass(time.Second)
	if got := o.differing("w", o.now); got != 2*time.Second {
		t.Errorf("differs for %s", got)
	}
	show(true)
	if o.differing("w", o.now) != 0 {
		t.Error("it differs no more")
	}
}

func TestInterval(t *testing.T) {
	last := time.Duration(0)
	for members := range 3000 {
		is := lan.interval(members)
		if is < last {
			t.Fatalf("%d members: %s, fewer: %s", members, is, last)
		}
		if members <= still && is != lan.heartbeat {
			t.Fatalf("%d members: %s", members, is)
		}
		if cost := float64(members) * heartbeatCost / is.Seconds(); members >= 24 && cost > heartbeatBudget+1 {
			t.Fatalf("%d members: %.0f B/s", members, cost)
		}
		last = is
	}
	for _, p := range []pace{{time.Second, time.Hour}, {time.Hour, 24 * time.Hour}} {
		if is := p.interval(1 << 30); is < p.heartbeat || quietAfter*is < is {
			t.Errorf("%v: %s", p, is)
		}
	}
	if lan.young(0, time.Hour) != 3*time.Second || lan.young(2, time.Hour) != 192*time.Second || lan.young(40, time.Hour) != time.Hour {
		t.Error("who is young does not speak at once, and eight times as seldom each time")
	}
}

// TestJudgementProperties: whatever happens, in whatever order.
func TestJudgementProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := observe()
		ids := []fleet.MemberID{"a", "b", "c", "d"}
		t.Repeat(map[string]func(*rapid.T){
			"beat":      func(t *rapid.T) { o.beats(rapid.SampledFrom(ids).Draw(t, "of"), rapid.Byte().Draw(t, "life")%3) },
			"heartbeat": func(t *rapid.T) { o.heartbeats(rapid.SampledFrom(ids).Draw(t, "of"), rapid.Byte().Draw(t, "life")%3) },
			"notice": func(t *rapid.T) {
				by, about := rapid.SampledFrom(ids).Draw(t, "by"), rapid.SampledFrom(append(ids, "self")).Draw(t, "about")
				if by != about {
					o.noticed(by, about, rapid.Byte().Draw(t, "life")%3, rapid.Uint64Range(0, 2*o.counter()).Draw(t, "counter"))
				}
			},
			"pass": func(t *rapid.T) { o.pass(time.Duration(rapid.IntRange(1, 20_000).Draw(t, "ms")) * time.Millisecond) },
			"stop": func(t *rapid.T) { o.now += time.Duration(rapid.IntRange(1, 1<<20).Draw(t, "ms")) * time.Millisecond },
			"": func(t *rapid.T) {
				alone := o.alone(o.now)
				if o.toldAlone {
					t.Fatal("told of others while alone")
				}
				for _, id := range ids {
					s := o.standing(id, lan.interval(1000), o.now)
					m := o.of[id]
					switch {
					case alone && (s.presence == Doubted || s.presence == Heard):
						t.Fatalf("alone, and %s is %s", id, s.presence)
					case s.silence < 0 || s.silence > o.now:
						t.Fatalf("silent for %s of %s", s.silence, o.now)
					case m != nil && m.neighbour && o.now-m.beatAt < lan.suspectAfter() && !alone && s.presence != Heard:
						t.Fatalf("neighbour %s with fresh beats is %s", id, s.presence)
					case m != nil && (m.neighbour || m.tellAt > 0) != (o.near[id] == m):
						t.Fatalf("%s: neighbour %v, to be told %s, and near: %v", id, m.neighbour, m.tellAt, o.near[id] == m)
					}
				}
			},
		})
	})
}
