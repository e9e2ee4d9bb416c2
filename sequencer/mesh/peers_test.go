// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"testing"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// TestDuplicateTable: which rows of heartbeats look like two agents with one key.
func TestDuplicateTable(t *testing.T) {
	type beat struct {
		nonce   byte
		counter uint64
		at      int64 // seconds, by our clock and by the writer's
		clock   int64 // what the writer's clock is off
	}
	for name, c := range map[string]struct {
		beats []beat
		want  bool
	}{
		"one agent":                          {[]beat{{1, 1, 0, 0}, {1, 2, 5, 0}, {1, 3, 10, 0}}, false},
		"restart":                            {[]beat{{1, 1, 0, 0}, {1, 2, 5, 0}, {2, 1, 7, 0}, {2, 2, 12, 0}}, false},
		"restart, and the last old one late": {[]beat{{1, 1, 0, 0}, {2, 1, 7, 0}, {1, 2, 8, 0}, {2, 2, 12, 0}}, false},
		"crash loop":                         {[]beat{{1, 1, 0, 0}, {2, 1, 1, 0}, {3, 1, 2, 0}, {4, 1, 3, 0}, {5, 1, 4, 0}, {6, 1, 5, 0}}, false},
		"two agents":                         {[]beat{{1, 1, 0, 0}, {2, 1, 1, 0}, {1, 2, 5, 0}, {2, 2, 6, 0}, {1, 3, 10, 0}}, true},
		"three agents":                       {[]beat{{1, 1, 0, 0}, {2, 1, 1, 0}, {3, 1, 2, 0}, {1, 2, 5, 0}, {2, 2, 6, 0}, {3, 2, 7, 0}}, true},
		"two, long ago":                      {[]beat{{1, 1, 0, 0}, {2, 1, 1, 0}, {1, 2, 5, 0}, {2, 2, 6, 0}, {1, 3, 10, 0}, {1, 4, 500, 0}}, false},
		"an old life replayed":               {[]beat{{2, 1, 0, 0}, {1, 1, 1, -9000}, {2, 2, 5, 0}, {1, 2, 6, -9000}, {2, 3, 10, 0}, {1, 3, 11, -9000}}, false},
		"the same ones replayed":             {[]beat{{1, 1, 0, 0}, {2, 1, 1, 0}, {1, 1, 2, 0}, {2, 1, 3, 0}, {1, 1, 4, 0}, {2, 1, 5, 0}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			var l lives
			start := time.Unix(1_800_000_000, 0)
			l.begin(start, 5*time.Second)
			now := start
			for _, b := range c.beats {
				now = start.Add(time.Duration(b.at) * time.Second)
				h := fleet.Heartbeat{Writer: "w", Nonce: [16]byte{b.nonce}, Counter: b.counter, Time: now.Unix() + b.clock}
				fresh := l.advances(&h)
				if l.heard(&h, now) != fresh {
					t.Errorf("advances said %v", fresh)
				}
			}
			if got := l.state("w", now).Duplicate; got != c.want {
				t.Errorf("duplicate %v, want %v", got, c.want)
			}
		})
	}
}

func TestSilence(t *testing.T) {
	var l lives
	start := time.Unix(1_800_000_000, 0)
	l.begin(start, time.Second)
	if s := l.state("w", start.Add(time.Minute)); s.Heard || s.Silence != time.Minute {
		t.Errorf("never heard: %+v", s)
	}
	l.met("w", lifeID{1}, fleet.Digest{1}, start)
	if s := l.state("w", start.Add(time.Minute)); s.Heard || s.Silence != time.Minute || s.Root != (fleet.Digest{1}) {
		t.Errorf("met, but not heard: %+v", s)
	}
	l.heard(&fleet.Heartbeat{Writer: "w", Counter: 1, Root: fleet.Digest{2}}, start.Add(time.Minute))
	if s := l.state("w", start.Add(90*time.Second)); !s.Heard || s.Silence != 30*time.Second || s.Root != (fleet.Digest{2}) {
		t.Errorf("heard: %+v", s)
	}
}
