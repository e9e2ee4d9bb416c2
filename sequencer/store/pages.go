// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

// bbolt trusts its file: a wrong length in it is a slice over foreign memory, a wrong page number a loop, and
// either may come to light only at a later write, as the end of the process. So every page is read here
// first, with bounds. This is version 2 of the format, which has not changed since 2014; numbers are in the
// machine's own order.
const (
	boltMagic   = 0xED0CDAED
	boltVersion = 2

	pageBranch   = 0x01
	pageLeaf     = 0x02
	pageFreelist = 0x10

	pageHeader    = 16 // id 8, flags 2, count 2, overflow 4
	elementSize   = 16 // branch: pos 4, ksize 4, page 8; leaf: flags 4, pos 4, ksize 4, vsize 4
	metaSize      = 64 // magic 4, version 4, page size 4, flags 4, root 16, freelist 8, pages 8, txid 8, checksum 8
	bucketHeader  = 16 // root page 8, sequence 8
	bucketElement = 0x01
	bucketDepth   = 8
	manyFree      = 0xFFFF // a count that says: the count is in the first number
)

var order = binary.NativeEndian

// checker walks a file. owner of a page is 0 until it is met: each must be met exactly once, in a tree or on
// the list of free ones.
type checker struct {
	file     io.ReaderAt
	pageSize int64
	pages    uint64
	met      []bool
	// slack is how many bytes of the leaves met nothing lies in.
	slack int64
}

// pages of a sound file.
type pages struct {
	// behind: one of the two meta pages is not sound; if that was the newer one, the last transaction is missing.
	behind bool
	// slack is how many bytes of pages in use nothing lies in.
	slack int64
}

// checkPages says why a file of so many bytes is not sound: errDamaged, or what reading it says.
func checkPages(file io.ReaderAt, size int64) (found pages, err error) {
	meta, behind, err := readMeta(file, size)
	if err != nil {
		return pages{}, err
	}
	slack, err := checkFrom(meta, file, size)
	return pages{behind, slack}, err
}

func checkFrom(meta []byte, file io.ReaderAt, size int64) (slack int64, err error) {
	c := checker{file: file, pageSize: int64(order.Uint32(meta[8:])), pages: order.Uint64(meta[40:])}
	if c.pages < 4 || c.pages > uint64(size/c.pageSize) {
		return 0, fmt.Errorf("%w: %d bytes, want %d pages of %d", errDamaged, size, c.pages, c.pageSize)
	}
	c.met = make([]bool, c.pages)
	c.met[0], c.met[1] = true, true
	if err := c.checkFree(order.Uint64(meta[32:])); err != nil {
		return 0, err
	}
	if err := c.checkTree(order.Uint64(meta[16:]), nil, nil, 0); err != nil {
		return 0, err
	}
	for id, met := range c.met {
		if !met {
			return 0, fmt.Errorf("%w: page %d is neither used nor free", errDamaged, id)
		}
	}
	return c.slack, nil
}

// readMeta gives the newer one of the two meta pages that is valid, as bbolt does; alone says that the other one is not.
func readMeta(file io.ReaderAt, size int64) (best []byte, alone bool, err error) {
	valid := 0
	try := func(offset int64) error {
		meta := make([]byte, metaSize)
		if _, err := file.ReadAt(meta, offset+pageHeader); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		sum := fnv.New64a()
		_, _ = sum.Write(meta[:56])
		if order.Uint32(meta) != boltMagic || order.Uint32(meta[4:]) != boltVersion || order.Uint64(meta[56:]) != sum.Sum64() {
			return nil
		}
		valid++
		if best == nil || order.Uint64(meta[48:]) > order.Uint64(best[48:]) {
			best = meta
		}
		return nil
	}
	if err := try(0); err != nil {
		return nil, false, err
	}
	// Without the first, the second is where a page of some size would begin.
	for pageSize := int64(1 << 10); pageSize <= 1<<16 && pageSize < size; pageSize <<= 1 {
		if best != nil && pageSize != int64(order.Uint32(best[8:])) {
			continue
		}
		if err := try(pageSize); err != nil {
			return nil, false, err
		}
	}
	if best == nil {
		return nil, false, fmt.Errorf("%w: no valid meta page", errDamaged)
	}
	if pageSize := order.Uint32(best[8:]); pageSize < 1<<10 || pageSize > 1<<16 || pageSize&(pageSize-1) != 0 {
		return nil, false, fmt.Errorf("%w: pages of %d bytes", errDamaged, pageSize)
	}
	return best, valid < 2, nil
}

// page is one page with those it runs on into.
type page struct {
	id    uint64
	flags uint16
	count int
	bytes []byte
}

// read gives a page that nobody has met yet.
func (c *checker) read(id uint64) (page, error) {
	p := page{id: id}
	if id >= c.pages {
		return p, fmt.Errorf("%w: page %d of %d", errDamaged, id, c.pages)
	}
	header := make([]byte, pageHeader)
	offset := int64(id) * c.pageSize
	if _, err := c.file.ReadAt(header, offset); err != nil {
		return p, err
	}
	p.flags, p.count = order.Uint16(header[8:]), int(order.Uint16(header[10:]))
	end := id + uint64(order.Uint32(header[12:])) + 1
	if order.Uint64(header) != id || end > c.pages {
		return p, p.damaged("header")
	}
	for i := id; i < end; i++ {
		if c.met[i] {
			return p, p.damaged("used twice")
		}
		c.met[i] = true
	}
	p.bytes = make([]byte, int64(end-id)*c.pageSize)
	_, err := c.file.ReadAt(p.bytes, offset)
	return p, err
}

func (p page) damaged(what string) error {
	return fmt.Errorf("%w: page %d: %s", errDamaged, p.id, what)
}

// field gives length bytes at a distance from an element.
func (p page) field(element int, distance, length uint32) ([]byte, bool) {
	from := uint64(element) + uint64(distance)
	to := from + uint64(length)
	if to > uint64(len(p.bytes)) {
		return nil, false
	}
	return p.bytes[from:to], true
}

// checkFree reads the list of free pages.
func (c *checker) checkFree(id uint64) error {
	p, err := c.read(id)
	if err != nil {
		return err
	}
	numbers := p.bytes[pageHeader:]
	count := uint64(p.count)
	if p.count == manyFree {
		count, numbers = order.Uint64(numbers), numbers[8:]
	}
	if p.flags != pageFreelist || count > uint64(len(numbers)/8) {
		return p.damaged("not a list of free pages")
	}
	for ; count > 0; count-- {
		free := order.Uint64(numbers)
		if free >= c.pages || c.met[free] {
			return p.damaged("free page")
		}
		c.met[free], numbers = true, numbers[8:]
	}
	return nil
}

// checkTree reads a page and those below it. Keys go up, from low exactly, which is how the page above finds
// it again when it is rewritten, and below high; nil is no bound.
func (c *checker) checkTree(id uint64, low, high []byte, buckets int) error {
	p, err := c.read(id)
	if err != nil {
		return err
	}
	keys, err := p.keys(low, high)
	if err != nil {
		return err
	}
	switch p.flags {
	case pageBranch:
		for i, key := range keys {
			below := high
			if i+1 < len(keys) {
				below = keys[i+1]
			}
			if err := c.checkTree(order.Uint64(p.bytes[pageHeader+i*elementSize+8:]), key, below, buckets); err != nil {
				return err
			}
		}
		return nil
	case pageLeaf:
		c.slack += p.slack()
		return c.checkLeaf(p, buckets)
	}
	return p.damaged("neither branch nor leaf")
}

// keys of all elements, in order and within bounds.
func (p page) keys(low, high []byte) ([][]byte, error) {
	if pageHeader+p.count*elementSize > len(p.bytes) || p.count == 0 && (p.flags == pageBranch || low != nil) {
		return nil, p.damaged("elements")
	}
	var keys [][]byte
	for i := range p.count {
		at := pageHeader + i*elementSize
		element := p.bytes[at:]
		distance, length := order.Uint32(element), order.Uint32(element[4:])
		if p.flags == pageLeaf {
			distance, length = length, order.Uint32(element[8:])
		}
		key, ok := p.field(at, distance, length)
		switch {
		case !ok || int(distance) < (p.count-i)*elementSize:
			return nil, p.damaged("key out of the page")
		case i == 0 && int(distance) != p.count*elementSize:
			// The first key follows the last element: with a smaller count, records would be gone without a word.
			return nil, p.damaged("not as many elements as it says")
		case i > 0 && bytes.Compare(key, keys[i-1]) <= 0, i == 0 && low != nil && !bytes.Equal(key, low),
			high != nil && bytes.Compare(key, high) >= 0:
			return nil, p.damaged("key out of order")
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// slack of a leaf whose keys are sound: what lies behind the last value.
func (p page) slack() int64 {
	end := uint64(pageHeader)
	if p.count > 0 {
		at := pageHeader + (p.count-1)*elementSize
		element := p.bytes[at:]
		end = uint64(at) + uint64(order.Uint32(element[4:])) + uint64(order.Uint32(element[8:])) + uint64(order.Uint32(element[12:]))
	}
	return int64(len(p.bytes)) - int64(min(end, uint64(len(p.bytes))))
}

// checkLeaf reads the values, and the trees of those that are buckets.
func (c *checker) checkLeaf(p page, buckets int) error {
	for i := range p.count {
		at := pageHeader + i*elementSize
		element := p.bytes[at:]
		value, ok := p.field(at, order.Uint32(element[4:])+order.Uint32(element[8:]), order.Uint32(element[12:]))
		if !ok {
			return p.damaged("value out of the page")
		}
		switch flags := order.Uint32(element); {
		case flags == 0:
			continue
		case flags != bucketElement || len(value) < bucketHeader || buckets >= bucketDepth:
			return p.damaged("bucket")
		}
		if err := c.checkBucket(p, value, buckets+1); err != nil {
			return err
		}
	}
	return nil
}

// checkBucket reads the tree of a bucket, which is a page of its own or, while it is small, in the value.
func (c *checker) checkBucket(in page, value []byte, buckets int) error {
	if root := order.Uint64(value); root != 0 {
		return c.checkTree(root, nil, nil, buckets)
	}
	inline := page{id: in.id, bytes: value[bucketHeader:]}
	if len(inline.bytes) < pageHeader {
		return in.damaged("small bucket")
	}
	inline.flags, inline.count = order.Uint16(inline.bytes[8:]), int(order.Uint16(inline.bytes[10:]))
	if inline.flags != pageLeaf {
		return in.damaged("small bucket")
	}
	if _, err := inline.keys(nil, nil); err != nil {
		return err
	}
	return c.checkLeaf(inline, buckets)
}
