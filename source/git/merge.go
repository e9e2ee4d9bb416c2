// SPDX-License-Identifier: Apache-2.0

package git

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha1" // the format of packs
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/go-git/go-git/v5/plumbing"
)

// merge makes one pack of several. Entries are copied as they lie there, packed; an object that is in
// two of them is taken from the first, and deltas of the second then build on that one. As every base of
// a copied delta lies before it, no circle can come about.
func (s *store) merge(ctx context.Context, packs []*pack, limits Limits) (*pack, error) {
	count := map[plumbing.Hash]struct{}{}
	var total int64
	for _, p := range packs {
		total += p.size
		for h := range p.hashes {
			count[h] = struct{}{}
		}
	}
	c := &copier{packs: packs, placed: make(map[plumbing.Hash]int64, len(count))}
	merged, err := s.intake(limits, total+total/8).take(ctx, c.pack(uint32(len(count))))
	if err != nil {
		return nil, fmt.Errorf("merging %d packs: %w", len(packs), err)
	}
	for h := range count {
		if _, ok := merged.offset(h); !ok {
			merged.close()
			return nil, damaged("merging packs lost object %s", h)
		}
	}
	return merged, nil
}

// copier reads several packs as one.
type copier struct {
	packs  []*pack
	placed map[plumbing.Hash]int64 // where an object lies in the new pack
	at     int64                   // where the next entry goes

	entries []located
	from    *pack
	moved   map[int64]int64 // where the entries of from went
}

type located struct {
	hash    plumbing.Hash
	at, end int64
}

// pack is the new pack: header, entries, sum.
func (c *copier) pack(count uint32) io.Reader {
	var current io.Reader = bytes.NewReader(binary.BigEndian.AppendUint32([]byte("PACK\x00\x00\x00\x02"), count))
	c.at = packHeader
	sum := sha1.New() // the format of packs
	content := io.TeeReader(reading(func(b []byte) (int, error) {
		for {
			n, err := current.Read(b)
			if n > 0 || !errors.Is(err, io.EOF) {
				return n, err
			}
			if current, err = c.next(); err != nil {
				return 0, err
			}
		}
	}), sum)
	var trailer io.Reader
	return io.MultiReader(content, reading(func(b []byte) (int, error) {
		if trailer == nil {
			trailer = bytes.NewReader(sum.Sum(nil))
		}
		return trailer.Read(b)
	}))
}

// next is the next entry that is not in the new pack yet.
func (c *copier) next() (io.Reader, error) {
	for {
		for len(c.entries) == 0 {
			if len(c.packs) == 0 {
				return bytes.NewReader(nil), io.EOF
			}
			c.open()
		}
		e := c.entries[0]
		c.entries = c.entries[1:]
		if there, ok := c.placed[e.hash]; ok {
			c.moved[e.at] = there
			continue
		}
		c.placed[e.hash], c.moved[e.at] = c.at, c.at
		return c.copy(e)
	}
}

// open the next pack: its entries in the order in which they lie, each up to the next.
func (c *copier) open() {
	c.from, c.packs, c.moved = c.packs[0], c.packs[1:], map[int64]int64{}
	for h := range c.from.hashes {
		at, _ := c.from.offset(h)
		c.entries = append(c.entries, located{hash: h, at: at})
	}
	slices.SortFunc(c.entries, func(a, b located) int { return cmp.Compare(a.at, b.at) })
	end := c.from.size - packTrailer
	for i := len(c.entries) - 1; i >= 0; i-- {
		c.entries[i].end, end = end, c.entries[i].at
	}
}

// copy an entry. Only the distance to the base of a delta is written anew.
func (c *copier) copy(l located) (io.Reader, error) {
	e, err := c.from.entry(l.at)
	if err != nil {
		return nil, err
	}
	size, start := l.end-l.at, io.NewSectionReader(c.from.file, l.at, l.end-l.at)
	if e.typ != plumbing.OFSDeltaObject {
		c.at += size
		return start, nil
	}
	head := offsetDeltaHeader(e.length, c.at-c.moved[e.base])
	c.at += int64(len(head)) + l.end - e.data
	return io.MultiReader(bytes.NewReader(head), io.NewSectionReader(c.from.file, e.data, l.end-e.data)), nil
}

// offsetDeltaHeader is how an entry begins whose base lies so many bytes before it.
func offsetDeltaHeader(length, back int64) []byte {
	head := []byte{byte(plumbing.OFSDeltaObject)<<4 | byte(length&15)}
	for length >>= 4; length > 0; length >>= 7 {
		head[len(head)-1] |= 0x80
		head = append(head, byte(length&0x7f))
	}
	distance := []byte{byte(back & 0x7f)}
	for back >>= 7; back > 0; back >>= 7 {
		back--
		distance = append(distance, byte(back&0x7f)|0x80)
	}
	slices.Reverse(distance)
	return append(head, distance...)
}
