// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"bytes"
	"errors"
	"testing"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

func sampleBeats() []beat {
	whole := shown{whole: short{1}, everything: true}
	parts := shown{whole: short{1}, parts: true, fleet: short{2}, milestones: short{3}, detail: short{4}}
	return []beat{
		{life: lifeID{9}, shown: whole},
		{asks: true, double: true, life: lifeID{9}, counter: 1 << 40, shown: whole},
		{asks: true, life: lifeID{9}, counter: 7, shown: parts},
		{life: lifeID{9}, counter: 7, doubts: 1 << 31, shown: whole},
	}
}

func TestBeatFrames(t *testing.T) {
	for _, want := range sampleBeats() {
		f := want.frame()
		got, err := readBeat(f)
		if err != nil || got != want {
			t.Errorf("%+v came back as %+v, %v", want, got, err)
		}
		for cut := range f.body {
			if _, err := readBeat(frame{frameBeat, f.body[:cut]}); !errors.Is(err, fleet.ErrMalformed) {
				t.Errorf("cut to %d bytes: %v", cut, err)
			}
		}
		for what, body := range map[string][]byte{
			"with a byte behind":   append(bytes.Clone(f.body), 0),
			"with an unknown flag": append([]byte{f.body[0] | 0x80}, f.body[1:]...),
		} {
			if _, err := readBeat(frame{frameBeat, body}); !errors.Is(err, fleet.ErrMalformed) {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	if got := len(sampleBeats()[0].frame().body); got > 32 {
		t.Errorf("an idle beat has %d bytes", got)
	}
	if _, err := readBeat(frame{kind: frameVoice}); err == nil {
		t.Error("a voice was read as a beat")
	}
}

func FuzzReadBeat(f *testing.F) {
	for _, b := range sampleBeats() {
		f.Add(b.frame().body)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		b, err := readBeat(frame{frameBeat, body})
		if err != nil {
			return
		}
		if again, err := readBeat(b.frame()); err != nil || again != b {
			t.Fatalf("%+v came back as %+v, %v", b, again, err)
		}
	})
}
