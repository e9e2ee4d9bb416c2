// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"

	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
)

// A reconciliation is a row of questions and answers over one stream: the side that opened it asks. Each
// frame is its length as a varint, a type byte and a body. The version is in the protocol's name.
//
//	/flotilla/sync/1  2026-11: one root for everything; never released
//	/flotilla/sync/2  2026-11: shares, each with a root of its own; the root in a hello is of what both carry, as
//	                           far as the asker knows; shares come in pages
//	/flotilla/sync/3  2026-11: who speaks says what it judges; 2 is spoken with who does not know 3
type frameType byte

const (
	// hello: who I am and the root of what I think that we both carry. Answered by same: who you are, or by differs: your
	// root and who you are.
	frameHello   frameType = 1
	frameSame    frameType = 2
	frameDiffers frameType = 3
	// ask: a salt, a share and prefixes in it. Answered by one summary for each, in that order.
	frameAsk       frameType = 4
	frameSummaries frameType = 5
	// want: a share and positions in it. Answered by how many of them, from the first, are dealt with, and a batch of what
	// lies there.
	frameWant    frameType = 6
	frameRecords frameType = 7
	// offer: a batch. Answered by taken, when what was news is on disk.
	frameOffer frameType = 8
	frameTaken frameType = 9
	// shares: a page of what I carry, with roots, after a hello that differs. Answered in kind, until neither has more.
	frameShares frameType = 10
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
	size, err := readFrameSize(r)
	if err != nil {
		return frame{}, err
	}
	return readFrameBody(r, size)
}

func readFrameSize(r *bufio.Reader) (int, error) {
	size, err := binary.ReadUvarint(r)
	if err != nil {
		if errors.Is(err, io.EOF) {
			return 0, io.EOF
		}
		return 0, fmt.Errorf("frame's length: %w", err)
	}
	if size == 0 || size > maxFrame {
		return 0, fmt.Errorf("frame of %d bytes: %w: at most %d", size, fleet.ErrTooLarge, maxFrame)
	}
	return int(size), nil
}

func readFrameBody(r io.Reader, size int) (frame, error) {
	b := make([]byte, size)
	if _, err := io.ReadFull(r, b); err != nil {
		return frame{}, fmt.Errorf("frame of %d bytes: %w", size, err)
	}
	return frame{frameType(b[0]), b[1:]}, nil
}

func malformedFrame(what string) error { return fmt.Errorf("%s: %w", what, fleet.ErrMalformed) }

// rootFrame is a hello, or the answer of who holds something else.
func rootFrame(kind frameType, root fleet.Digest, who introduction) frame {
	return frame{kind, who.append(append([]byte(nil), root[:]...))}
}

func readRoot(body []byte) (root fleet.Digest, who introduction, err error) {
	if len(body) < digestSize {
		return root, who, malformedFrame("root")
	}
	who, err = readIntroduction(body[digestSize:])
	return fleet.Digest(body), who, err
}

func sameFrame(who introduction) frame { return frame{frameSame, who.append(nil)} }

func readSame(body []byte) (introduction, error) { return readIntroduction(body) }

// introduction is who speaks: the member's life, and the number of [fleet.Forms] up to which it judges bodies. There it ends
// with the life where the number is 0, as in syncBefore.
type introduction struct {
	life  lifeID
	forms uint8
}

func (i introduction) append(b []byte) []byte {
	if b = append(b, i.life[:]...); i.forms > 0 {
		b = append(b, i.forms)
	}
	return b
}

func readIntroduction(b []byte) (who introduction, err error) {
	switch {
	case len(b) == lifeSize:
		return introduction{life: lifeID(b)}, nil
	case len(b) == lifeSize+1 && b[lifeSize] > 0:
		return introduction{lifeID(b), b[lifeSize]}, nil
	}
	return who, malformedFrame("introduction")
}

// introduction in a protocol.
func (n *Node) introduction(in protocol.ID) introduction {
	if in == syncBefore {
		return introduction{life: n.lifeID()}
	}
	return introduction{n.lifeID(), n.forms}
}

// carried is what one side carries: everything, or the shares listed. Where it carries everything, only those with
// something in them are listed.
type carried struct {
	everything bool
	shares     []sharePrint
}

// sharePrint is a share and its root; zero where it is empty.
type sharePrint struct {
	share lattice.Share
	root  fleet.Digest
}

// root of a share; zero where it is empty, false where it is not carried.
func (c carried) root(share lattice.Share) (root fleet.Digest, ok bool) {
	for _, s := range c.shares {
		if s.share == share {
			return s.root, true
		}
	}
	return fleet.Digest{}, c.everything
}

// roots of the shares listed.
func (c carried) roots() map[lattice.Share]fleet.Digest {
	roots := make(map[lattice.Share]fleet.Digest, len(c.shares))
	for _, s := range c.shares {
		roots[s.share] = s.root
	}
	return roots
}

// differing are the shares that both carry and hold differently.
func (c carried) differing(theirs carried) []lattice.Share {
	var shares []lattice.Share
	there, here := theirs.roots(), c.roots()
	for _, s := range c.shares {
		root, listed := there[s.share]
		if (listed || theirs.everything) && root != s.root {
			shares = append(shares, s.share)
		}
	}
	for _, s := range theirs.shares {
		if _, listed := here[s.share]; !listed && c.everything && !s.root.IsZero() {
			shares = append(shares, s.share)
		}
	}
	return shares
}

const (
	// maxZone is the most bytes in a zone's name: a label's value has no more.
	maxZone = 63
	// sharesAtOnce are on one page: 50 kB at most. maxShares is what one side may say that it carries: every
	// share of a fleet that carries everything and has a zone for each member.
	sharesAtOnce = 512
	maxShares    = 1 << 14
)

// The first byte of a page.
const (
	carriesEverything = 1 << iota
	morePages
)

// sharesFrame is the i-th page of what is carried; more says that another one follows.
func sharesFrame(c carried, i int) (f frame, more bool) {
	from, to := min(i*sharesAtOnce, len(c.shares)), min((i+1)*sharesAtOnce, len(c.shares))
	more = to < len(c.shares)
	body := []byte{0}
	if c.everything {
		body[0] |= carriesEverything
	}
	if more {
		body[0] |= morePages
	}
	for _, s := range c.shares[from:to] {
		body = append(appendShare(body, s.share), s.root[:]...)
	}
	return frame{frameShares, body}, more
}

// readShares reads one page.
func readShares(body []byte) (c carried, more bool, err error) {
	if len(body) == 0 || body[0] > carriesEverything|morePages {
		return carried{}, false, malformedFrame("shares")
	}
	c.everything, more, body = body[0]&carriesEverything != 0, body[0]&morePages != 0, body[1:]
	for len(body) > 0 {
		share, rest, ok := readShare(body)
		if !ok || len(rest) < digestSize || len(c.shares) == sharesAtOnce {
			return carried{}, false, malformedFrame("shares")
		}
		c.shares, body = append(c.shares, sharePrint{share, fleet.Digest(rest)}), rest[digestSize:]
	}
	return c, more, nil
}

// addPage joins the next page of one side to those before it.
func (c *carried) addPage(page carried) error {
	c.everything = page.everything
	c.shares = append(c.shares, page.shares...)
	if len(c.shares) > maxShares {
		return fmt.Errorf("what the other side carries: %w: more than %d shares", fleet.ErrTooLarge, maxShares)
	}
	return nil
}

// appendShare: the scope, and the zone after its length.
func appendShare(b []byte, share lattice.Share) []byte {
	return append(append(b, byte(share.Scope), byte(len(share.Zone))), share.Zone...)
}

func readShare(b []byte) (share lattice.Share, rest []byte, ok bool) {
	if len(b) < 2 || int(b[1]) > maxZone || len(b) < 2+int(b[1]) || b[0] > byte(fleet.ScopeDetail) {
		return share, nil, false
	}
	end := 2 + int(b[1])
	return lattice.Share{Scope: fleet.Scope(b[0]), Zone: string(b[2:end])}, b[end:], true
}

// askFrame: the salt, the share, then each prefix as its number of digits and its bytes.
func askFrame(salt lattice.Salt, share lattice.Share, prefixes []lattice.Prefix) frame {
	body := appendShare(append([]byte(nil), salt[:]...), share)
	for _, p := range prefixes {
		body = append(body, p.Digits)
		body = append(body, p.Path[:(p.Digits+1)/2]...)
	}
	return frame{frameAsk, body}
}

// question is an ask as it was read.
type question struct {
	salt     lattice.Salt
	share    lattice.Share
	prefixes []lattice.Prefix
}

func readAsk(body []byte) (q question, err error) {
	if len(body) < saltSize {
		return q, malformedFrame("ask")
	}
	q.salt, body = lattice.Salt(body), body[saltSize:]
	var ok bool
	if q.share, body, ok = readShare(body); !ok {
		return q, malformedFrame("ask's share")
	}
	for len(body) > 0 {
		p := lattice.Prefix{Digits: body[0]}
		size := (int(p.Digits) + 1) / 2
		if size > digestSize || len(body) < 1+size || len(q.prefixes) == asksAtOnce {
			return q, malformedFrame("ask")
		}
		copy(p.Path[:], body[1:1+size])
		if !p.Valid() {
			return q, malformedFrame("ask's prefix")
		}
		q.prefixes, body = append(q.prefixes, p), body[1+size:]
	}
	if len(q.prefixes) == 0 {
		return q, malformedFrame("ask for nothing")
	}
	return q, nil
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

func wantFrame(share lattice.Share, positions []fleet.Digest) frame {
	body := appendShare(make([]byte, 0, 2+len(share.Zone)+len(positions)*digestSize), share)
	for _, p := range positions {
		body = append(body, p[:]...)
	}
	return frame{frameWant, body}
}

func readWant(body []byte) (share lattice.Share, positions []fleet.Digest, err error) {
	share, body, ok := readShare(body)
	if !ok || len(body) == 0 || len(body)%digestSize != 0 || len(body) > wantsAtOnce*digestSize {
		return share, nil, malformedFrame("want")
	}
	positions = make([]fleet.Digest, 0, len(body)/digestSize)
	for ; len(body) > 0; body = body[digestSize:] {
		positions = append(positions, fleet.Digest(body))
	}
	return share, positions, nil
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
