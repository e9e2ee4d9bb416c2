// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
)

// A reconciliation is a row of questions and answers over one stream: the side that opened it asks. Each
// frame is its length as a varint, a type byte and a body. The version is in the protocol's name.
//
//	/flotilla/sync/1  2026-11: the six frames below
type frameType byte

const (
	// hello: my root and my life. Answered by same: your life, or by differs: your root and your life.
	frameHello   frameType = 1
	frameSame    frameType = 2
	frameDiffers frameType = 3
	// ask: a salt and prefixes. Answered by one summary for each, in that order.
	frameAsk       frameType = 4
	frameSummaries frameType = 5
	// want: positions. Answered by how many of them, from the first, are dealt with, and a batch of what
	// lies there.
	frameWant    frameType = 6
	frameRecords frameType = 7
	// offer: a batch. Answered by taken, when what was news is on disk.
	frameOffer frameType = 8
	frameTaken frameType = 9
)

const (
	// asksAtOnce prefixes have summaries of at most 1 + 16 x 48 B each: 49 kB.
	asksAtOnce = 64
	// wantsAtOnce positions: 32 kB.
	wantsAtOnce = 1024
	digestSize  = len(fleet.Digest{})
	tagSize     = len(lattice.Tag{})
	saltSize    = len(lattice.Salt{})
	lifeSize    = len(lifeID{})
)

// frame is one question or answer.
type frame struct {
	kind frameType
	body []byte
}

func (f frame) size() int { return 1 + len(f.body) }

// writeFrame never writes more than readFrame takes.
func writeFrame(w io.Writer, f frame) error {
	if f.size() > maxFrame {
		return fmt.Errorf("frame %d of %d bytes: %w: at most %d", f.kind, f.size(), fleet.ErrTooLarge, maxFrame)
	}
	b := binary.AppendUvarint(make([]byte, 0, binary.MaxVarintLen32+f.size()), uint64(f.size()))
	b = append(append(b, byte(f.kind)), f.body...)
	_, err := w.Write(b)
	return err
}

// readFrame reads one frame. It is io.EOF only where a frame would begin.
func readFrame(r *bufio.Reader) (frame, error) {
	size, err := binary.ReadUvarint(r)
	if err != nil {
		if errors.Is(err, io.EOF) {
			return frame{}, io.EOF
		}
		return frame{}, fmt.Errorf("frame's length: %w", err)
	}
	if size == 0 || size > maxFrame {
		return frame{}, fmt.Errorf("frame of %d bytes: %w: at most %d", size, fleet.ErrTooLarge, maxFrame)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(r, b); err != nil {
		return frame{}, fmt.Errorf("frame of %d bytes: %w", size, err)
	}
	return frame{frameType(b[0]), b[1:]}, nil
}

func malformedFrame(what string) error { return fmt.Errorf("%s: %w", what, fleet.ErrMalformed) }

// rootFrame is a hello, or the answer of who holds something else.
func rootFrame(kind frameType, root fleet.Digest, life lifeID) frame {
	return frame{kind, append(append([]byte(nil), root[:]...), life[:]...)}
}

func readRoot(body []byte) (root fleet.Digest, life lifeID, err error) {
	if len(body) != digestSize+lifeSize {
		return root, life, malformedFrame("root")
	}
	return fleet.Digest(body), lifeID(body[digestSize:]), nil
}

func sameFrame(life lifeID) frame { return frame{frameSame, append([]byte(nil), life[:]...)} }

func readSame(body []byte) (lifeID, error) {
	if len(body) != lifeSize {
		return lifeID{}, malformedFrame("same")
	}
	return lifeID(body), nil
}

// askFrame: the salt, then each prefix as its number of digits and its bytes.
func askFrame(salt lattice.Salt, prefixes []lattice.Prefix) frame {
	body := append([]byte(nil), salt[:]...)
	for _, p := range prefixes {
		body = append(body, p.Digits)
		body = append(body, p.Path[:(p.Digits+1)/2]...)
	}
	return frame{frameAsk, body}
}

func readAsk(body []byte) (salt lattice.Salt, prefixes []lattice.Prefix, err error) {
	if len(body) < saltSize {
		return salt, nil, malformedFrame("ask")
	}
	salt, body = lattice.Salt(body), body[saltSize:]
	for len(body) > 0 {
		p := lattice.Prefix{Digits: body[0]}
		size := (int(p.Digits) + 1) / 2
		if size > digestSize || len(body) < 1+size || len(prefixes) == asksAtOnce {
			return salt, nil, malformedFrame("ask")
		}
		copy(p.Path[:], body[1:1+size])
		if !p.Valid() {
			return salt, nil, malformedFrame("ask's prefix")
		}
		prefixes, body = append(prefixes, p), body[1+size:]
	}
	if len(prefixes) == 0 {
		return salt, nil, malformedFrame("ask for nothing")
	}
	return salt, prefixes, nil
}

// dividedMark begins a summary with parts; any other first byte is a number of entries.
const dividedMark = 0xff

// summariesFrame: for a divided part the mark, two bytes that say which parts there are, and their tags; else
// the number of entries and each one's position and tag.
func summariesFrame(summaries []lattice.Summary) frame {
	var body []byte
	for _, m := range summaries {
		if !m.Divided {
			body = append(body, byte(len(m.Entries)))
			for _, e := range m.Entries {
				body = append(append(body, e.Position[:]...), e.Tag[:]...)
			}
			continue
		}
		var present uint16
		for i, tag := range m.Parts {
			if tag != (lattice.Tag{}) {
				present |= 1 << i
			}
		}
		body = binary.BigEndian.AppendUint16(append(body, dividedMark), present)
		for _, tag := range m.Parts {
			if tag != (lattice.Tag{}) {
				body = append(body, tag[:]...)
			}
		}
	}
	return frame{frameSummaries, body}
}

// readSummaries reads the answer to an ask for these prefixes.
func readSummaries(body []byte, asked []lattice.Prefix) ([]lattice.Summary, error) {
	summaries := make([]lattice.Summary, 0, len(asked))
	for _, at := range asked {
		m := lattice.Summary{At: at}
		var ok bool
		if body, ok = readSummary(body, &m); !ok || !m.Valid() {
			return nil, malformedFrame("summary")
		}
		summaries = append(summaries, m)
	}
	if len(body) > 0 {
		return nil, malformedFrame("summaries with something behind")
	}
	return summaries, nil
}

func readSummary(body []byte, m *lattice.Summary) (rest []byte, ok bool) {
	if len(body) == 0 {
		return nil, false
	}
	mark, body := body[0], body[1:]
	if mark == dividedMark {
		return readParts(body, m)
	}
	const size = digestSize + tagSize
	if int(mark) > lattice.MaxEntries || len(body) < int(mark)*size {
		return nil, false
	}
	for range mark {
		m.Entries = append(m.Entries, lattice.Entry{
			Position: fleet.Digest(body), Tag: lattice.Tag(body[digestSize:]),
		})
		body = body[size:]
	}
	return body, true
}

func readParts(body []byte, m *lattice.Summary) (rest []byte, ok bool) {
	m.Divided = true
	if len(body) < 2 {
		return nil, false
	}
	present := binary.BigEndian.Uint16(body)
	body = body[2:]
	if len(body) < bits.OnesCount16(present)*tagSize {
		return nil, false
	}
	for i := range m.Parts {
		if present&(1<<i) != 0 {
			m.Parts[i], body = lattice.Tag(body), body[tagSize:]
		}
	}
	return body, true
}

func wantFrame(positions []fleet.Digest) frame {
	body := make([]byte, 0, len(positions)*digestSize)
	for _, p := range positions {
		body = append(body, p[:]...)
	}
	return frame{frameWant, body}
}

func readWant(body []byte) ([]fleet.Digest, error) {
	if len(body) == 0 || len(body)%digestSize != 0 || len(body) > wantsAtOnce*digestSize {
		return nil, malformedFrame("want")
	}
	positions := make([]fleet.Digest, 0, len(body)/digestSize)
	for ; len(body) > 0; body = body[digestSize:] {
		positions = append(positions, fleet.Digest(body))
	}
	return positions, nil
}

func recordsFrame(done int, b batch) frame {
	return frame{frameRecords, append(binary.BigEndian.AppendUint16(nil, uint16(done)), b.bytes...)}
}

// readRecords reads the answer to a want for so many positions. At least one is dealt with.
func readRecords(body []byte, wanted int) (done int, records [][]byte, err error) {
	if len(body) < 2 {
		return 0, nil, malformedFrame("records")
	}
	done, body = int(binary.BigEndian.Uint16(body)), body[2:]
	if done == 0 || done > wanted {
		return 0, nil, malformedFrame("records' count")
	}
	if len(body) == 0 {
		return done, nil, nil
	}
	records, err = splitBatch(body)
	if err == nil && len(records) > done {
		err = malformedFrame("more records than positions")
	}
	return done, records, err
}
