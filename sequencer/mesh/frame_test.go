// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/protocol"
	"pgregory.net/rapid"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
	"github.com/flotilla-dev/flotilla/sequencer/lattice/latticetest"
)

// detail is the share that setOf fills.
var detail = lattice.Share{Scope: fleet.ScopeDetail}

func setOf(n int) *lattice.Set {
	s := lattice.New()
	for i := range n {
		s.Add(fleet.Record{
			Writer: latticetest.Writer(0), Kind: fleet.KindRegister, Key: string(rune('a' + i)), Epoch: 1, Seq: uint64(i), Sig: make([]byte, 64),
		})
	}
	return s
}

func drawPrefix(t *rapid.T) lattice.Prefix {
	p := lattice.Prefix{Digits: uint8(rapid.IntRange(0, 64).Draw(t, "digits"))}
	for i := range int(p.Digits) {
		shift := 4 * (1 - i%2)
		p.Path[i/2] |= byte(rapid.IntRange(0, 15).Draw(t, "digit")) << shift
	}
	return p
}

func TestFramesReadBackAsWritten(t *testing.T) {
	sets := []*lattice.Set{setOf(0), setOf(5), setOf(16), setOf(500)}
	rapid.Check(t, func(t *rapid.T) {
		prefixes := rapid.SliceOfN(rapid.Custom(drawPrefix), 1, asksAtOnce).Draw(t, "prefixes")
		salt := lattice.Salt(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "salt"))
		share := lattice.Share{Scope: fleet.ScopeDetail, Zone: rapid.StringMatching("[a-z]{0,63}").Draw(t, "zone")}
		got, err := readAsk(askFrame(salt, share, prefixes).body)
		if err != nil || got.salt != salt || got.share != share || !slices.Equal(got.prefixes, prefixes) {
			t.Fatalf("ask: %v, %v", got, err)
		}
		set := rapid.SampledFrom(sets).Draw(t, "set")
		var summaries []lattice.Summary
		for _, p := range prefixes {
			summaries = append(summaries, set.Summary(salt, detail, p))
		}
		f := summariesFrame(summaries)
		if f.size() > maxFrame {
			t.Fatalf("summaries of %d bytes", f.size())
		}
		read, err := readSummaries(f.body, prefixes)
		if err != nil || !slices.EqualFunc(read, summaries, equalSummaries) {
			t.Fatalf("summaries: %v", err)
		}
	})
}

func equalSummaries(a, b lattice.Summary) bool {
	return a.At == b.At && a.Divided == b.Divided && a.Parts == b.Parts && slices.Equal(a.Entries, b.Entries)
}

// TestIntroduction: in the protocol before it ends with the life; a number of forms that is none is not written.
func TestIntroduction(t *testing.T) {
	n := nodeOf(t, 0, rosterOf(""))
	for in, forms := range map[protocol.ID]uint8{syncProtocol: fleet.Forms, syncBefore: 0} {
		who := n.introduction(in)
		if who.life != n.lifeID() || who.forms != forms {
			t.Errorf("%s: %+v", in, who)
		}
		if got, err := readSame(sameFrame(who).body); err != nil || got != who {
			t.Errorf("%s: %+v, %v", in, got, err)
		}
		if _, got, err := readRoot(rootFrame(frameHello, fleet.Digest{1}, who).body); err != nil || got != who {
			t.Errorf("%s: %+v, %v", in, got, err)
		}
	}
	for _, size := range []int{0, lifeSize - 1, lifeSize + 1, lifeSize + 2} {
		if _, err := readSame(make([]byte, size)); !errors.Is(err, fleet.ErrMalformed) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

func TestLargestAnswersFitAFrame(t *testing.T) {
	full := lattice.Summary{Entries: make([]lattice.Entry, lattice.MaxEntries)}
	if f := summariesFrame(slices.Repeat([]lattice.Summary{full}, asksAtOnce)); f.size() > maxFrame {
		t.Errorf("summaries of %d bytes", f.size())
	}
	if f := wantFrame(lattice.Share{Zone: strings.Repeat("z", maxZone)}, make([]fleet.Digest, wantsAtOnce)); f.size() > maxFrame {
		t.Errorf("want of %d bytes", f.size())
	}
	var b batch
	for b.add(make([]byte, fleet.MaxRecord), maxFrame-3) {
	}
	if f := recordsFrame(wantsAtOnce, b); b.count < 7 || f.size() > maxFrame {
		t.Errorf("%d records in %d bytes", b.count, f.size())
	}
}

func TestFrameBounds(t *testing.T) {
	if err := writeFrame(io.Discard, frame{body: make([]byte, maxFrame)}); !errors.Is(err, fleet.ErrTooLarge) {
		t.Errorf("writing a frame too large: %v", err)
	}
	for name, c := range map[string]struct {
		bytes []byte
		want  error
	}{
		"nothing":       {nil, io.EOF},
		"too large":     {[]byte{0xff, 0xff, 0xff, 0x7f}, fleet.ErrTooLarge},
		"without type":  {[]byte{0}, fleet.ErrTooLarge},
		"half a length": {[]byte{0x80}, io.ErrUnexpectedEOF},
		"cut short":     {[]byte{9, 1, 2}, io.ErrUnexpectedEOF},
		"no length":     {bytes.Repeat([]byte{0xff}, 12), nil},
	} {
		_, err := readFrame(bufio.NewReader(bytes.NewReader(c.bytes)))
		if err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// FuzzFrame: whatever comes, every decoder ends without a panic, and what it takes is within its bounds.
func FuzzFrame(f *testing.F) {
	set := setOf(40)
	asked := []lattice.Prefix{{}, {Path: fleet.Digest{0x30}, Digits: 1}}
	var b batch
	b.add([]byte("record"), maxFrame)
	for _, seed := range []frame{
		rootFrame(frameHello, fleet.Digest{1}, introduction{lifeID{1}, 1}), sameFrame(introduction{lifeID{1}, 1}),
		askFrame(lattice.Salt{1}, detail, asked),
		summariesFrame([]lattice.Summary{set.Summary(lattice.Salt{1}, detail, asked[0]), set.Summary(lattice.Salt{1}, detail, asked[1])}),
		wantFrame(detail, []fleet.Digest{{1}, {2}}), recordsFrame(2, b), {frameOffer, b.bytes},
	} {
		f.Add(framed(seed))
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		got, err := readFrame(bufio.NewReader(bytes.NewReader(wire)))
		if err != nil {
			return
		}
		if q, err := readAsk(got.body); err == nil {
			if len(q.prefixes) > asksAtOnce {
				t.Errorf("%d prefixes", len(q.prefixes))
			}
			for _, p := range q.prefixes {
				set.Summary(q.salt, q.share, p)
			}
		}
		if c, more, err := readShares(got.body); err == nil {
			again, _ := sharesFrame(c, 0)
			if more {
				again.body[0] |= morePages
			}
			if !bytes.Equal(again.body, got.body) {
				t.Error("shares have two encodings")
			}
		}
		if summaries, err := readSummaries(got.body, asked); err == nil {
			for _, m := range summaries {
				set.Diff(lattice.Salt{}, detail, m)
			}
		}
		if _, wants, err := readWant(got.body); err == nil && len(wants) > wantsAtOnce {
			t.Errorf("%d wants", len(wants))
		}
		if done, records, err := readRecords(got.body, 3); err == nil && (done < 1 || done > 3 || len(records) > done) {
			t.Errorf("%d done, %d records", done, len(records))
		}
		if records, err := splitBatch(got.body); err == nil {
			if again := Batch(records...); !bytes.Equal(again, got.body) {
				t.Error("a batch has two encodings")
			}
		}
		_, _, _ = readRoot(got.body)
		_, _ = readSame(got.body)
	})
}

// FuzzBlob: an answer is either what was asked for or an error.
func FuzzBlob(f *testing.F) {
	f.Add([]byte{0})
	f.Add([]byte{6, 'h', 'e', 'l', 'l', 'o'})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, wire []byte) {
		content, err := readBlob(bufio.NewReader(bytes.NewReader(wire)), fleet.Digest{1})
		if err == nil {
			t.Errorf("%q has a digest made up", content)
		}
	})
}
