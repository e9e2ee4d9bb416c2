// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"bufio"
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"

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

// written is the end of a link to which things are written.
type written struct {
	network.Stream
	spoken protocol.ID
	wire   bytes.Buffer
}

func (w *written) Protocol() protocol.ID            { return w.spoken }
func (w *written) SetWriteDeadline(time.Time) error { return nil }
func (w *written) Write(b []byte) (int, error)      { return w.wire.Write(b) }

// TestDoubtsAreForWhoKnowsThem: one that speaks the version before takes their flag for malformed.
func TestDoubtsAreForWhoKnowsThem(t *testing.T) {
	n := nodeOf(t, 0, rosterOf("", ""))
	n.life.doubt(n.life.get(idOf(1)), true)
	for spoken, want := range map[protocol.ID]uint32{beatProtocol: n.life.doubtSum(), beatBefore: 0} {
		to := written{spoken: spoken}
		l := link{wire: &wire{Node: n}, stream: &to, member: idOf(1)}
		if err := l.send(false); err != nil {
			t.Fatal(err)
		}
		f, err := readFrame(bufio.NewReader(&to.wire))
		if err != nil {
			t.Fatal(err)
		}
		if b, err := readBeat(f); err != nil || b.doubts != want {
			t.Errorf("%s: doubts %d, want %d, %v", spoken, b.doubts, want, err)
		}
	}
}
