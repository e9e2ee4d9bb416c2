// SPDX-License-Identifier: Apache-2.0

package git

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/idxfile"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"

	"github.com/flotilla-dev/flotilla/source"
	"github.com/flotilla-dev/flotilla/source/disk"
)

// intake takes packs in. A pack is first checked while it streams to disk: go-git's indexer allocates
// what a pack declares (objects, lengths, delta chains), so nothing that declares too much gets there.
type intake struct {
	folder string // objects/pack
	limits Limits
	bytes  int64
}

// take writes a pack and its index under their final names, on disk for good, and opens it. It returns
// nil for a pack without objects. What fails leaves nothing behind.
func (in intake) take(ctx context.Context, r io.Reader) (p *pack, err error) {
	defer recovered("indexing the pack", &err)
	f, err := os.CreateTemp(in.folder, "tmp_pack_*")
	if err != nil {
		return nil, disk.Failed("writing a pack", err)
	}
	defer os.Remove(f.Name()) //nolint:errcheck // gone already where it got its final name
	defer f.Close()           //nolint:errcheck // synced before it is used
	sink := &fileSink{f: f}
	over := false
	count, err := checkPack(io.TeeReader(&bounded{from: ending(ctx, r), left: in.bytes, over: &over}, sink), in.limits)
	switch {
	case sink.err != nil:
		return nil, disk.Failed("writing a pack", sink.err)
	case over:
		return nil, tooLarge("raise the agent's limit, or use a smaller repository",
			"the history is larger than %s on disk", source.Size(in.limits.MaxBytes))
	case err != nil:
		return nil, err
	case count == 0:
		return nil, nil
	}
	if err := f.Sync(); err != nil {
		return nil, disk.Failed("writing a pack", err)
	}
	idx, err := index(ctx, f, count)
	if err != nil {
		return nil, err
	}
	path, err := in.keep(f.Name(), idx)
	if err != nil {
		return nil, disk.Failed("writing a pack", err)
	}
	return openPack(path)
}

// index makes the index of a pack; on the way every object is unpacked and hashed.
func index(ctx context.Context, f *os.File, count uint32) (*idxfile.MemoryIndex, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, disk.Failed("indexing a pack", err)
	}
	seekable := struct {
		io.Reader
		io.Seeker
	}{ending(ctx, f), f}
	writer := &idxfile.Writer{}
	parser, err := packfile.NewParser(packfile.NewScanner(seekable), writer)
	if err != nil {
		return nil, fetchFailed("", err)
	}
	sum, err := parser.Parse()
	if err != nil {
		return nil, badPack(err)
	}
	var trailer plumbing.Hash
	at, err := f.Seek(-int64(len(trailer)), io.SeekEnd)
	if err == nil {
		_, err = f.ReadAt(trailer[:], at)
	}
	if err != nil {
		return nil, disk.Failed("indexing a pack", err)
	}
	if trailer != sum {
		return nil, badPack(errors.New("it goes on after its end"))
	}
	idx, err := writer.Index()
	if err != nil {
		return nil, badPack(err)
	}
	if unique, err := idx.Count(); err != nil || unique != int64(count) {
		return nil, badPack(errors.New("it holds an object twice"))
	}
	return idx, nil
}

// keep gives a pack and its index their names: the index first, because a pack is found by its .pack.
func (in intake) keep(temp string, idx *idxfile.MemoryIndex) (string, error) {
	base := filepath.Join(in.folder, fmt.Sprintf("pack-%x", idx.PackfileChecksum))
	err := disk.WriteFile(base+".idx", func(w io.Writer) error {
		_, err := idxfile.NewEncoder(w).Encode(idx)
		return err
	})
	if err == nil {
		err = os.Chmod(temp, 0o444)
	}
	if err == nil {
		err = os.Rename(temp, base+".pack")
	}
	if err == nil {
		err = disk.SyncFolder(in.folder)
	}
	return base + ".pack", err
}

// checkPack reads a whole pack and refuses what is over the bounds. It returns how many objects it has.
func checkPack(r io.Reader, limits Limits) (uint32, error) {
	s := packfile.NewScanner(r)
	_, count, err := s.Header()
	if err != nil {
		return 0, badPack(err)
	}
	if int64(count) > int64(limits.MaxObjects) {
		return 0, tooLarge("raise the agent's limit, or use a repository with less history",
			"%d objects to fetch, at most %d are taken", count, limits.MaxObjects)
	}
	c := chains{limits: limits, cost: map[int64]int64{}, loose: map[int64]bool{}}
	for range count {
		h, err := s.NextObjectHeader()
		if err != nil {
			return 0, badPack(err)
		}
		if h.Length > limits.MaxObjectBytes {
			return 0, objectTooLarge(h.Length, limits)
		}
		var start prefix
		n, _, err := s.NextObject(&start)
		if err == nil && n != h.Length {
			err = fmt.Errorf("an object of %d bytes declares %d", n, h.Length)
		}
		if err != nil {
			return 0, badPack(err)
		}
		if err := c.add(h, start.bytes); err != nil {
			return 0, err
		}
	}
	if _, err := s.Checksum(); err != nil {
		return 0, badPack(err)
	}
	// The rest is read too, so that it is on disk and index can refuse it.
	if err := s.Close(); err != nil {
		return 0, badPack(err)
	}
	return count, nil
}

// chains bounds what it takes to resolve deltas. Whoever resolves one holds all deltas below it in
// memory; their sum along a chain is kept under MaxObjectBytes. A delta that names its base by hash may
// sit on any other of these, so they share one sum.
type chains struct {
	limits Limits
	cost   map[int64]int64 // of the deltas by offset: bytes from there down to the chain's base
	loose  map[int64]bool  // those whose chain goes through a base named by hash
	shared int64
}

func (c *chains) add(h *packfile.ObjectHeader, start []byte) error {
	switch h.Type {
	case plumbing.CommitObject, plumbing.TreeObject, plumbing.BlobObject, plumbing.TagObject:
		return nil
	case plumbing.OFSDeltaObject, plumbing.REFDeltaObject:
	default:
		return badPack(fmt.Errorf("an object of type %d", h.Type))
	}
	from, to, ok := deltaSizes(start)
	if !ok || from == 0 {
		return badPack(packfile.ErrInvalidDelta)
	}
	if most := uint64(c.limits.MaxObjectBytes); from > most || to > most {
		return objectTooLarge(int64(min(max(from, to), 1<<62)), c.limits)
	}
	sum := h.Length + c.cost[h.OffsetReference]
	if h.Type == plumbing.REFDeltaObject || c.loose[h.OffsetReference] {
		c.loose[h.Offset] = true
		c.shared += h.Length
		sum = c.shared
	}
	c.cost[h.Offset] = sum
	if sum > c.limits.MaxObjectBytes {
		return tooLarge("repack the repository on the server", "a chain of deltas is larger than %s", source.Size(c.limits.MaxObjectBytes))
	}
	return nil
}

func objectTooLarge(bytes int64, limits Limits) error {
	return tooLarge("keep large files out of the repository and its history, or raise the agent's limit",
		"an object of %d bytes is in the history, at most %d are taken", bytes, limits.MaxObjectBytes)
}

// badPack is a pack that is not whole or not one: the connection broke, or the server sends nonsense.
// Errors of the reader below, such as an ended context, stay visible in it.
func badPack(err error) error {
	return fetchFailed("", fmt.Errorf("the server sent a broken pack: %w", err))
}

// deltaSizes reads the two sizes that a delta begins with: of its base and of its result.
func deltaSizes(b []byte) (from, to uint64, ok bool) {
	if from, b, ok = leb128(b); ok {
		to, _, ok = leb128(b)
	}
	return from, to, ok
}

func leb128(b []byte) (n uint64, rest []byte, ok bool) {
	for i, c := range b {
		if i > 8 {
			break
		}
		n |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			return n, b[i+1:], true
		}
	}
	return 0, nil, false
}

// prefix keeps the first bytes written to it.
type prefix struct{ bytes []byte }

func (p *prefix) Write(b []byte) (int, error) {
	if room := 20 - len(p.bytes); room > 0 {
		p.bytes = append(p.bytes, b[:min(room, len(b))]...)
	}
	return len(b), nil
}

// fileSink tells an error of the disk from one of the network, which io.TeeReader mixes.
type fileSink struct {
	f   *os.File
	err error
}

func (s *fileSink) Write(b []byte) (int, error) {
	n, err := s.f.Write(b)
	if err != nil {
		s.err = err
	}
	return n, err
}

// ending reads until its context ends, so that a pack that is cheap to send and dear to unpack is given up.
func ending(ctx context.Context, r io.Reader) reading {
	return func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return r.Read(p)
	}
}

type reading func([]byte) (int, error)

func (r reading) Read(p []byte) (int, error) { return r(p) }
