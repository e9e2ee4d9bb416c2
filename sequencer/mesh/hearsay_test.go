// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// tells gives the observer a heartbeat by hearsay.
func (o *observer) tells(id fleet.MemberID, life byte, counter uint64, ago time.Duration) bool {
	h := fleet.Heartbeat{Writer: id, Nonce: [16]byte{life}, Counter: counter}
	return o.hearsay(testimony{Heartbeat: &h, sign: sign{ago: uint64(ago / time.Second)}, same: true}, o.now)
}

func TestHearsay(t *testing.T) {
	quiet := quietAfter * lan.interval(1000)
	for name, c := range map[string]struct {
		story   func(*observer)
		want    Presence
		hearsay bool
	}{
		"told":         {func(o *observer) { o.tells("w", 1, 5000, 3*time.Second) }, Heard, true},
		"long ago":     {func(o *observer) { o.tells("w", 1, 5000, quiet+time.Second) }, Quiet, true},
		"and no more":  {func(o *observer) { o.tells("w", 1, 5000, quiet-time.Minute); o.passHearing(2*time.Minute, "a") }, Quiet, true},
		"alone":        {func(o *observer) { o.tells("w", 1, 5000, time.Second); o.pass(time.Minute) }, Quiet, true},
		"heard before": {func(o *observer) { o.heartbeats("w", 1); o.tells("w", 1, 1<<40, time.Second) }, Heard, false},
		"heard after":  {func(o *observer) { o.tells("w", 1, 5000, time.Second); o.beats("w", 1) }, Heard, false},
		"doubted": {func(o *observer) {
			o.noticed("a", "w", 1, 100_000)
			o.tells("w", 1, 99_000, time.Second)
		}, Doubted, true},
		"doubted, and signed after the loss": {func(o *observer) {
			o.noticed("a", "w", 1, 100_000)
			o.tells("w", 1, 100_001+lan.later(), time.Second)
		}, Heard, true},
		"doubted, and another life": {func(o *observer) {
			o.noticed("a", "w", 1, 100_000)
			o.tells("w", 2, 500_000, time.Second)
		}, Doubted, true},
		"told and lost": {func(o *observer) {
			o.tells("w", 1, 5000, time.Second)
			o.passHearing(time.Minute, "a")
			o.noticed("a", "w", 1, 5000)
		}, Doubted, true},
	} {
		t.Run(name, func(t *testing.T) {
			o := observe()
			o.passHearing(time.Minute, "a")
			c.story(o)
			if got := o.standing("w", lan.interval(1000), o.now); got.presence != c.want || got.hearsay != c.hearsay {
				t.Errorf("%s, hearsay %v, want %s, %v", got.presence, got.hearsay, c.want, c.hearsay)
			}
		})
	}
}

// TestHearsayIsNoSecondAgent: replays of earlier lives by neighbours make nobody a duplicate, and an older heartbeat does not
// replace a newer one.
func TestHearsayIsNoSecondAgent(t *testing.T) {
	o := observe()
	o.passHearing(time.Minute, "a")
	if !o.tells("w", 1, 50_000, 9*time.Second) || o.tells("w", 1, 50_000, 0) || o.tells("w", 1, 40_000, 0) {
		t.Error("only the first one is news")
	}
	if got := o.standing("w", 0, o.now).silence; got != 9*time.Second {
		t.Errorf("silent for %s", got)
	}
	for i := range uint64(5) {
		o.tells("w", 2, 60_000+i, 0)
		o.tells("w", 1, 60_000+i, 0)
	}
	if o.flagged("w", o.now) {
		t.Error("hearsay made two of one member")
	}
	o.heartbeatAt("w", 2, 70_000)
	for i := range uint64(5) {
		o.tells("w", 1, 80_000+i, 0)
		o.heartbeatAt("w", 2, 80_000+i)
	}
	if o.flagged("w", o.now) {
		t.Error("hearsay made two of one member that is heard")
	}
}

func TestHearsayIsPassedOn(t *testing.T) {
	o := observe()
	o.passHearing(time.Minute, "a")
	h := fleet.Heartbeat{Counter: 5, Nonce: [16]byte{7}}
	h.Sign(keyOf(3))
	o.heartbeat(&h, shown{}, true, o.now)
	o.passHearing(10*time.Second, "a")
	hour := time.Hour
	if s, ok := o.heartbeatOf(h.Writer, hour, o.now); !ok || s.ago != 10 || string(s.bytes) != string(h.Encode()) {
		t.Errorf("gives %+v, %v", s, ok)
	}
	o.noticed("a", h.Writer, 7, 5)
	if _, ok := o.heartbeatOf(h.Writer, hour, o.now); ok {
		t.Error("a heartbeat of who is doubted is given")
	}
	if o.noticeAbout(h.Writer) == nil {
		t.Error("the notice is not kept")
	}
	o.beat(h.Writer, beat{life: lifeID{8}, counter: 1}, true, o.now)
	if _, ok := o.heartbeatOf(h.Writer, hour, o.now); ok {
		t.Error("a heartbeat of a life that is over is given")
	}
	if o.noticeAbout(h.Writer) != nil || o.doubtSum() != 0 {
		t.Error("it is doubted still")
	}
}

// TestDoubtsAreCompared: a neighbour that doubts others for a beat is asked, and what it gives ends the difference.
func TestDoubtsAreCompared(t *testing.T) {
	o, other := observe(), observe()
	step := func() {
		o.beat("a", beat{life: lifeID{1}, counter: o.counter(), doubts: other.doubtSum()}, true, o.now)
		o.pass(lan.beat)
		other.now = o.now
	}
	for range 3 {
		step()
	}
	other.passHearing(time.Second, "b")
	other.noticed("b", "w", 1, 100)
	step()
	if len(o.disagreeing(o.now)) != 0 && other.doubtSum() == 0 {
		t.Fatal("it asks before anything differs")
	}
	step()
	step()
	if got := o.disagreeing(o.now); !slices.Equal(got, []fleet.MemberID{"a"}) {
		t.Fatalf("disagrees with %v", got)
	}
	n := fleet.Notice{Writer: "b", Life: lifeID{1}, Counter: 3, About: "w", AboutLife: lifeID{1}, AboutCounter: 100}
	if !o.noticeIsUnheard(&n) || !o.noticeByHearsay(&n, o.now) || o.noticeByHearsay(&n, o.now) {
		t.Fatal("the notice is news once")
	}
	step()
	if got := o.disagreeing(o.now); len(got) != 0 || o.presence("w") != Doubted {
		t.Errorf("disagrees with %v, and w is %s", got, o.presence("w"))
	}
	o.keep(rosterWithout{})
	if o.doubtSum() != 0 {
		t.Error("who is not on the roster is doubted")
	}
}

type rosterWithout struct{}

func (rosterWithout) Member(fleet.MemberID) (fleet.Member, bool) { return fleet.Member{}, false }
func (rosterWithout) Members() []fleet.Member                    { return nil }

// TestLiesWithinReason: a notice with a counter that no heartbeat could ever outweigh is outweighed by the next one.
func TestLiesWithinReason(t *testing.T) {
	o := observe()
	o.heartbeats("w", 1)
	o.passHearing(time.Hour, "a")
	if !o.noticed("liar", "w", 1, 1<<60) || o.presence("w") != Doubted {
		t.Fatalf("a member is not told that %s is %s", "w", o.presence("w"))
	}
	o.passHearing(time.Second, "a")
	o.heartbeats("w", 1)
	if got := o.presence("w"); got != Heard {
		t.Errorf("it answered, and is %s", got)
	}
}

func TestHearsayFrames(t *testing.T) {
	for _, want := range []whom{
		{}, {heartbeats: []uint64{1, 1 << 63}}, {notices: true}, {heartbeats: []uint64{4}, doubted: []uint64{5, 6}, notices: true},
	} {
		got, err := readWhom(want.frame())
		if err != nil || got.notices != want.notices || !slices.Equal(got.heartbeats, want.heartbeats) || !slices.Equal(got.doubted, want.doubted) {
			t.Errorf("%+v came back as %+v, %v", want, got, err)
		}
	}
	for name, f := range map[string]frame{
		"empty": {frameWhom, nil}, "another type": {frameSigns, []byte{0, 0}}, "an unknown flag": {frameWhom, []byte{2, 0}},
		"half a mark": {frameWhom, []byte{0, 1, 2, 3}}, "fewer than said": {frameWhom, []byte{0, 2, 1, 2, 3, 4, 5, 6, 7, 8}},
		"too many": (&whom{heartbeats: make([]uint64, whomAtOnce+1)}).frame(), "too many doubts": (&whom{doubted: make([]uint64, whomAtOnce+doubtsAtOnce+1)}).frame(),
	} {
		if _, err := readWhom(f); err == nil {
			t.Errorf("%s was read", name)
		}
	}
	signs := []sign{{0, []byte("ab")}, {maxAgo, []byte{}}}
	if got, err := readSigns(signsFrame(signs)); err != nil || !reflect.DeepEqual(got, signs) {
		t.Errorf("%v came back as %v, %v", signs, got, err)
	}
	for name, body := range map[string][]byte{
		"cut short": {0, 5, 1}, "no length": {0}, "too old": {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0}, "too long": {0, 0xff, 0xff, 3},
	} {
		if _, err := readSigns(frame{frameSigns, body}); !errors.Is(err, fleet.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzReadHearsay(f *testing.F) {
	q := whom{heartbeats: []uint64{4}, doubted: []uint64{5, 6}, notices: true}
	f.Add(byte(frameWhom), q.frame().body)
	f.Add(byte(frameSigns), signsFrame([]sign{{7, []byte("ab")}}).body)
	f.Fuzz(func(t *testing.T, kind byte, body []byte) {
		if q, err := readWhom(frame{frameType(kind), body}); err == nil {
			if again, err := readWhom(q.frame()); err != nil || !slices.Equal(again.doubted, q.doubted) {
				t.Fatalf("%+v came back as %+v, %v", q, again, err)
			}
		}
		if signs, err := readSigns(frame{frameType(kind), body}); err == nil {
			if again, err := readSigns(signsFrame(signs)); err != nil || len(again) != len(signs) {
				t.Fatalf("%v came back as %v, %v", signs, again, err)
			}
		}
	})
}

// TestRestartWithAnotherClock: a member that was started again is heard at once, however its wall clock was set in between,
// and ends a doubt about it; and it is one member.
func TestRestartWithAnotherClock(t *testing.T) {
	const year = 365 * 24 * 3600
	for _, off := range []int64{0, -2, -60, -500, 500, -year, year} {
		o := observe()
		heartbeat := func(life byte, clock int64) bool {
			h := fleet.Heartbeat{Writer: "w", Nonce: [16]byte{life}, Counter: o.counter(), Time: 1_800_000_000 + int64(o.now/time.Second) + clock}
			if life == 2 {
				h.Counter -= 60_000 // it began later
			}
			return o.heartbeat(&h, shown{}, true, o.now)
		}
		for range 12 {
			o.passHearing(5*time.Second, "a")
			heartbeat(1, 0)
		}
		o.passHearing(12*time.Second, "a")
		o.noticed("a", "w", 1, o.counter()-11_000)
		for i := range 20 {
			o.passHearing(5*time.Second, "a")
			if !heartbeat(2, off) || o.presence("w") != Heard || o.flagged("w", o.now) {
				t.Fatalf("clock off by %d s: after %d heartbeats it is %s, two: %v", off, i, o.presence("w"), o.flagged("w", o.now))
			}
		}
	}
}

// TestHearsayIsNoOlderThanItsHeartbeat: a neighbour says that it heard for the last time a year ago what was signed just now.
func TestHearsayIsNoOlderThanItsHeartbeat(t *testing.T) {
	n := nodeOf(t, 0, rosterOf("", ""))
	h := fleet.Heartbeat{Fleet: testFleet, Nonce: [16]byte{1}, Counter: 5, Time: n.cfg.Now().Unix()}
	h.Sign(keyOf(1))
	w := wire{Node: n}
	if v, err := w.takeHeartbeat(sign{maxAgo, h.Encode()}, map[uint64]bool{markOf(string(idOf(1))): true}); v != news || err != nil {
		t.Fatalf("%d, %v", v, err)
	}
	if s := n.life.standing(idOf(1), 0, n.now()); !s.hearsay || s.silence > maxAgo/2*time.Second {
		t.Errorf("hearsay: %v, silent for %s", s.hearsay, s.silence)
	}
}
