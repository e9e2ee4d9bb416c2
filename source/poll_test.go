// SPDX-License-Identifier: Apache-2.0

package source

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

var errDown = errors.New("down")

func TestPollWaits(t *testing.T) {
	const s = time.Second
	fail := func(p *Poll, times int) {
		for range times {
			p.Looked(0, "", errDown)
		}
	}
	for _, tc := range []struct {
		name      string
		interval  time.Duration
		do        func(*Poll)
		low, high time.Duration
	}{
		{"never looked", time.Minute, func(*Poll) {}, 0, 0},
		{"told before the first look", time.Minute, func(p *Poll) { p.Told("a") }, 0, 0},
		{"after success", time.Minute, func(p *Poll) { p.Looked(0, "a", nil) }, 54 * s, 66 * s},
		{"no interval", 0, func(p *Poll) { p.Looked(0, "a", nil) }, 54 * s, 66 * s},
		{"first failure", time.Minute, func(p *Poll) { fail(p, 1) }, 2500 * time.Millisecond, 5 * s},
		{"second failure", time.Minute, func(p *Poll) { fail(p, 2) }, 5 * s, 10 * s},
		{"fourth failure", time.Minute, func(p *Poll) { fail(p, 4) }, 20 * s, 40 * s},
		{"capped", time.Minute, func(p *Poll) { fail(p, 1000) }, 5 * time.Minute, 10 * time.Minute},
		{"capped at a long interval", time.Hour, func(p *Poll) { fail(p, 1000) }, 30 * time.Minute, time.Hour},
		{"short interval", s, func(p *Poll) { fail(p, 1) }, 500 * time.Millisecond, s},
		{"success ends the back-off", time.Minute, func(p *Poll) { fail(p, 9); p.Looked(0, "a", nil) }, 54 * s, 66 * s},
		{"told of a new head", time.Minute, func(p *Poll) { p.Looked(0, "a", nil); p.Told("b") }, 5 * s, 5 * s},
		{"told of the head that is here", time.Minute, func(p *Poll) { p.Looked(0, "a", nil); p.Told("a") }, 54 * s, 66 * s},
		{"told of nothing", time.Minute, func(p *Poll) { p.Looked(0, "a", nil); p.Told("") }, 54 * s, 66 * s},
		{"told while it fails", time.Minute, func(p *Poll) { fail(p, 9); p.Told("b") }, 5 * s, 5 * s},
		{"told twice of one head", time.Minute, func(p *Poll) {
			p.Looked(0, "a", nil)
			p.Told("b")
			p.Looked(0, "a", nil)
			p.Told("b")
		}, 54 * s, 66 * s},
		{"told in vain, then again", time.Minute, func(p *Poll) {
			p.Looked(0, "a", nil)
			p.Told("b")
			p.Looked(0, "a", nil)
			p.Told("c")
		}, 10 * s, 10 * s},
		{"news resets what lies cost", time.Minute, func(p *Poll) {
			p.Looked(0, "a", nil)
			p.Told("b")
			p.Looked(0, "a", nil)
			p.Looked(0, "c", nil)
			p.Told("d")
		}, 5 * s, 5 * s},
		{"asked by a person", time.Minute, func(p *Poll) { fail(p, 9); p.Ask() }, 0, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for seed := range uint64(50) {
				p := Poll{Interval: tc.interval, Seed: seed}
				tc.do(&p)
				if got := p.Wait(0); got < tc.low || got > tc.high {
					t.Fatalf("seed %d: wait %v, want %v to %v", seed, got, tc.low, tc.high)
				}
			}
		})
	}
}

func TestPollWaitShrinksWithTime(t *testing.T) {
	p := Poll{Interval: time.Minute}
	p.Looked(100*time.Second, "a", nil)
	whole := p.Wait(100 * time.Second)
	if got := p.Wait(110 * time.Second); got != whole-10*time.Second {
		t.Errorf("10 s later the wait is %v, want %v", got, whole-10*time.Second)
	}
	if got := p.Wait(time.Hour); got != 0 {
		t.Errorf("long after it is due the wait is %v", got)
	}
}

// TestPollSpreads: members with other seeds do not look together; the same seed gives the same waits.
func TestPollSpreads(t *testing.T) {
	waits := map[time.Duration]bool{}
	for seed := range uint64(1000) {
		a, b := Poll{Interval: time.Minute, Seed: seed}, Poll{Interval: time.Minute, Seed: seed}
		a.Looked(0, "a", nil)
		b.Looked(0, "a", nil)
		if a.Wait(0) != b.Wait(0) {
			t.Fatalf("seed %d: %v and %v", seed, a.Wait(0), b.Wait(0))
		}
		waits[a.Wait(0).Truncate(time.Second)] = true
	}
	if len(waits) < 12 {
		t.Errorf("1,000 seeds fall on %d of the 13 seconds", len(waits))
	}
}

// TestPollBounds: whatever happens, a wait is never longer than the cap, never shorter than half of F
// without news, and a server is asked at most so often as news and time allow.
func TestPollBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		interval := time.Duration(rapid.Int64Range(int64(10*time.Second), int64(48*time.Hour)).Draw(t, "interval"))
		p := Poll{Interval: interval, Seed: rapid.Uint64().Draw(t, "seed")}
		var now time.Duration
		for i := range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0, 1:
				now += p.Wait(now)
				var err error
				if rapid.Bool().Draw(t, "fails") {
					err = errDown
				}
				p.Looked(now, fleet.Revision(rapid.SampledFrom([]string{"a", "b"}).Draw(t, "found")), err)
				if wait, least := p.Wait(now), min(interval, shortest)/2; wait < least {
					t.Fatalf("wait %v right after a look, want at least %v", wait, least)
				}
			case 2, 3:
				p.Told(fleet.Revision(fmt.Sprint("told", i)))
			case 4:
				now += time.Duration(rapid.Int64Range(0, int64(interval)).Draw(t, "pass"))
			}
			if wait, most := p.Wait(now), max(interval*11/10, backoffCap); wait > most {
				t.Fatalf("wait %v, want at most %v", wait, most)
			}
		}
	})
}

// TestPollLiar: a member that tells of a new head every second costs a handful of looks, not one each.
func TestPollLiar(t *testing.T) {
	p := Poll{Interval: time.Minute}
	looks := 0
	for second := range 3600 {
		now := time.Duration(second) * time.Second
		p.Told(fleet.Revision(fmt.Sprint("lie", second)))
		if p.Wait(now) == 0 {
			p.Looked(now, "a", nil)
			looks++
		}
	}
	if looks < 50 || looks > 130 {
		t.Errorf("%d looks in an hour of lies; 60 without them", looks)
	}
}
