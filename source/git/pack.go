// SPDX-License-Identifier: Apache-2.0

package git

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/idxfile"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	gitsync "github.com/go-git/go-git/v5/utils/sync"

	"github.com/flotilla-dev/flotilla/source/disk"
)

const (
	packHeader  = 12 // PACK, version, count
	packTrailer = 20 // SHA-1 of all before
	maxChain    = 4095
)

// pack is an open pack file and its index. It reads with ReadAt and keeps no position, so many
// goroutines may read at once.
type pack struct {
	path string
	file *os.File
	size int64
	idx  *idxfile.MemoryIndex

	bases bases
}

// openPack opens a pack whose index is beside it and checks that both belong together and are whole.
func openPack(path string) (*pack, error) {
	idx, err := readIndex(strings.TrimSuffix(path, ".pack") + ".idx")
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, packError(err)
	}
	p := &pack{path: path, file: f, idx: idx}
	var trailer plumbing.Hash
	info, err := f.Stat()
	if err == nil {
		p.size = info.Size()
		_, err = f.ReadAt(trailer[:], p.size-packTrailer)
	}
	if err == nil && trailer != idx.PackfileChecksum {
		err = errors.New("it does not end as its index says")
	}
	if err != nil {
		f.Close() //nolint:errcheck // read only
		return nil, packError(fmt.Errorf("pack: %w", err))
	}
	return p, nil
}

func readIndex(path string) (idx *idxfile.MemoryIndex, err error) {
	defer recovered("reading a pack's index", &err)
	f, err := os.Open(path)
	if err != nil {
		return nil, packError(err)
	}
	defer f.Close() //nolint:errcheck // read only
	idx = idxfile.NewMemoryIndex()
	if err := idxfile.NewDecoder(f).Decode(idx); err != nil {
		return nil, packError(fmt.Errorf("index: %w", err))
	}
	return idx, nil
}

// packError is an error of reading what was written here: damage, unless the machine is in trouble.
func packError(err error) error {
	if isLocal(err) {
		return disk.Failed("reading the mirror", err)
	}
	return damaged("%w", err)
}

func (p *pack) close() { p.file.Close() } //nolint:errcheck // read only

// offset of an object; false where it is not in this pack.
func (p *pack) offset(h plumbing.Hash) (int64, bool) {
	at, err := p.idx.FindOffset(h)
	return at, err == nil
}

// entry is how an object lies in a pack.
type entry struct {
	typ    plumbing.ObjectType
	length int64 // unpacked; of a delta, of the delta itself
	base   int64 // offset of a delta's base
	data   int64 // offset of the packed bytes
}

func (p *pack) entry(at int64) (entry, error) {
	var raw [48]byte
	if at < packHeader || at >= p.size-packTrailer {
		return entry{}, damaged("no object is at %d", at)
	}
	n, err := p.file.ReadAt(raw[:], at)
	if err != nil && !errors.Is(err, io.EOF) {
		return entry{}, packError(err)
	}
	b := raw[:n]
	e := entry{typ: plumbing.ObjectType(b[0] >> 4 & 7), length: int64(b[0] & 15)}
	i := 1
	for shift := 4; b[i-1]&0x80 != 0; shift, i = shift+7, i+1 {
		if i >= len(b) || shift > 56 {
			return entry{}, damaged("the object at %d has no length", at)
		}
		e.length |= int64(b[i]&0x7f) << shift
	}
	used, err := p.findBase(&e, at, b[i:])
	e.data = at + int64(i+used)
	return e, err
}

// findBase reads where a delta's base is: so many bytes before it, or by its hash.
func (p *pack) findBase(e *entry, at int64, b []byte) (used int, err error) {
	switch e.typ {
	case plumbing.OFSDeltaObject:
		var back int64
		for ; ; used++ {
			if used >= len(b) || used > 8 {
				return 0, damaged("the delta at %d has no base", at)
			}
			back = back<<7 | int64(b[used]&0x7f)
			if b[used]&0x80 == 0 {
				break
			}
			back++
		}
		e.base = at - back
		return used + 1, nil
	case plumbing.REFDeltaObject:
		var h plumbing.Hash
		found := false
		if len(b) >= len(h) {
			copy(h[:], b)
			e.base, found = p.offset(h)
		}
		if !found {
			return 0, damaged("the delta at %d has no base", at)
		}
		return len(h), nil
	}
	return 0, nil
}

// inflate unpacks the first most bytes of an entry; all of it where most is its length.
func (p *pack) inflate(e entry, most int64) ([]byte, error) {
	z, err := gitsync.GetZlibReader(io.NewSectionReader(p.file, e.data, p.size-packTrailer-e.data))
	defer gitsync.PutZlibReader(z)
	if err != nil {
		return nil, packError(err)
	}
	b := make([]byte, most)
	if _, err := io.ReadFull(z.Reader, b); err != nil {
		return nil, packError(err)
	}
	if most == e.length {
		if n, err := z.Reader.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			return nil, damaged("the object at %d does not end where it should", e.data)
		}
	}
	return b, nil
}

// read an object and check it against its hash. Nobody may write in what is returned.
func (p *pack) read(h plumbing.Hash, at int64) (typ plumbing.ObjectType, content []byte, err error) {
	defer recovered("reading an object", &err)
	o, err := p.resolve(at)
	if err != nil {
		return 0, nil, fmt.Errorf("object %s: %w", h, err)
	}
	if plumbing.ComputeHash(o.typ, o.content) != h {
		return 0, nil, damaged("object %s has other content", h)
	}
	return o.typ, o.content, nil
}

// resolve unpacks the object there: down its deltas to something known, and up again.
func (p *pack) resolve(at int64) (base, error) {
	type step struct {
		at    int64
		delta []byte
	}
	var steps []step
	o, known := p.bases.get(at)
	for !known {
		e, err := p.entry(at)
		if err != nil {
			return base{}, err
		}
		content, err := p.inflate(e, e.length)
		if err != nil {
			return base{}, err
		}
		if known = !e.typ.IsDelta(); known {
			o = base{typ: e.typ, content: content}
			p.bases.put(at, o)
			break
		}
		if steps = append(steps, step{at, content}); len(steps) > maxChain {
			return base{}, damaged("the deltas at %d have no end", at)
		}
		at = e.base
		o, known = p.bases.get(at)
	}
	for _, s := range slices.Backward(steps) {
		content, err := packfile.PatchDelta(o.content, s.delta)
		if err != nil {
			return base{}, damaged("the delta at %d: %w", s.at, err)
		}
		o.content = content
		p.bases.put(s.at, o)
	}
	return o, nil
}

// base is an unpacked object that deltas may build on.
type base struct {
	typ     plumbing.ObjectType
	content []byte
}

// bases remembers what was unpacked lately, by offset: neighbours in a folder or a history are deltas of
// each other. What was not asked for while half of the room filled up is forgotten.
type bases struct {
	mu         sync.Mutex
	young, old map[int64]base
	bytes      int64
}

const basesRoom = 4 << 20

func (b *bases) get(at int64) (base, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if o, ok := b.young[at]; ok {
		return o, true
	}
	o, ok := b.old[at]
	if ok {
		b.keep(at, o)
	}
	return o, ok
}

func (b *bases) put(at int64, o base) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.keep(at, o)
}

func (b *bases) keep(at int64, o base) {
	const overhead = 100
	n := int64(len(o.content)) + overhead
	if _, there := b.young[at]; there || n > basesRoom/8 {
		return
	}
	if b.young == nil || b.bytes+n > basesRoom/2 {
		b.young, b.old, b.bytes = map[int64]base{}, b.young, 0
	}
	b.young[at] = o
	b.bytes += n
}

// sizeAt is the size of the object there, without unpacking it.
func (p *pack) sizeAt(at int64) (int64, error) {
	e, err := p.entry(at)
	if err != nil || !e.typ.IsDelta() {
		return e.length, err
	}
	start, err := p.inflate(e, min(e.length, 20))
	if err != nil {
		return 0, err
	}
	_, to, ok := deltaSizes(start)
	if !ok {
		return 0, damaged("the delta at %d has no size", at)
	}
	return int64(to), nil
}

// hashes of all objects.
func (p *pack) hashes(yield func(plumbing.Hash) bool) {
	var h plumbing.Hash
	for _, bucket := range p.idx.Names {
		for ; len(bucket) >= len(h); bucket = bucket[len(h):] {
			copy(h[:], bucket)
			if !yield(h) {
				return
			}
		}
	}
}
