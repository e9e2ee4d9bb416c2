// SPDX-License-Identifier: Apache-2.0

package git

import (
	"bytes"
	"compress/zlib"
	"context"
	"crypto/sha1" // the format of packs
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// evolve pushes a history in which large files change a little each time, so that git sends deltas.
func evolve(o *origin, r *rand.Rand, commits int) []plumbing.Hash {
	all := files{}
	for i := range 8 {
		var b strings.Builder
		for range 120 {
			fmt.Fprintf(&b, "key%d: %d\n", r.IntN(1000), r.Uint64())
		}
		all[fmt.Sprintf("dir%d/file%d.yaml", i%3, i)] = b.String()
	}
	var out []plumbing.Hash
	for range commits {
		name := fmt.Sprintf("dir%d/file%d.yaml", r.IntN(8)%3, r.IntN(8))
		old := all[name]
		if len(old) > 100 {
			at := r.IntN(len(old) - 50)
			all[name] = old[:at] + fmt.Sprintf("inserted %d\n", r.Uint64()) + old[at+r.IntN(50):]
		} else {
			all[name] = fmt.Sprint(r.Uint64())
		}
		out = append(out, o.push(all))
	}
	return out
}

// TestReadsWhatGitReads compares every object of a mirror full of deltas with what git says of it.
func TestReadsWhatGitReads(t *testing.T) {
	o, m := newOrigin(t), newMirrors(t, Limits{})
	evolve(o, rand.New(rand.NewPCG(1, 2)), 40)
	o.git("repack", "-adfq", "--depth=50", "--window=10")
	latest(t, m, o.src())
	mir := m.mirror(parsed(t, o.src()))
	deltas := 0
	var names, ours strings.Builder
	for _, p := range mir.store.packs {
		for h := range p.hashes {
			at, ok := p.offset(h)
			e, err := p.entry(at)
			if !ok || err != nil {
				t.Fatal(h, err)
			}
			if e.typ.IsDelta() {
				deltas++
			}
			typ, content, err := p.read(h, at)
			if err != nil {
				t.Fatal(err)
			}
			if size, err := mir.sizeOf(h); err != nil || size != int64(len(content)) {
				t.Errorf("%s: size %d, %v; want %d", h, size, err, len(content))
			}
			fmt.Fprintf(&ours, "%s %s %d\n%s\n", h, typ, len(content), content)
			fmt.Fprintln(&names, h)
		}
	}
	if gits := o.gitIn(names.String(), "cat-file", "--batch"); gits != ours.String() {
		t.Error("an object differs from git's")
	}
	if deltas < 50 {
		t.Errorf("%d deltas: the history does not test what it should", deltas)
	}
	o.git("--git-dir="+mir.store.dir, "fsck", "--full", "--strict")
}

// TestManyFetches: packs are merged, nothing is lost on the way, and each byte is copied a few times only.
func TestManyFetches(t *testing.T) {
	o, m := newOrigin(t), newMirrors(t, Limits{})
	r := rand.New(rand.NewPCG(3, 4))
	var all []plumbing.Hash
	for range maxPacks + 6 {
		all = append(all, evolveOnce(o, r))
		latest(t, m, o.src())
	}
	mir := m.mirror(parsed(t, o.src()))
	if n := len(mir.store.packs); n > maxPacks {
		t.Errorf("%d packs", n)
	}
	onDisk, err := filepath.Glob(filepath.Join(mir.store.dir, packFolder, "*"))
	if err != nil || len(onDisk) != 2*len(mir.store.packs) {
		t.Errorf("%d files for %d packs, %v", len(onDisk), len(mir.store.packs), err)
	}
	o.breakWith(http.NotFound)
	if err := m.Close(); err != nil { // and all of it is on disk
		t.Fatal(err)
	}
	for _, h := range all {
		snap, err := m.At(t.Context(), o.src(), onMain(h))
		if err != nil {
			t.Fatal(err)
		}
		if err := fs.WalkDir(snap.Files, ".", func(name string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				_, err = fs.ReadFile(snap.Files, name)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	mir = m.mirror(parsed(t, o.src()))
	o.git("--git-dir="+mir.store.dir, "fsck", "--full", "--strict")
}

func evolveOnce(o *origin, r *rand.Rand) plumbing.Hash {
	all := files{"fixed": strings.Repeat("stays as it is\n", 300)}
	for i := range 5 {
		all[fmt.Sprintf("f%d", i)] = strings.Repeat(fmt.Sprintf("line %d\n", r.IntN(40)), 200)
	}
	return o.push(all)
}

func TestRedundantPacksGo(t *testing.T) {
	o, m := newOrigin(t), newMirrors(t, Limits{})
	for i := range 5 {
		o.push(files{"a": fmt.Sprint(i)})
		latest(t, m, o.src())
	}
	mir := m.mirror(parsed(t, o.src()))
	if err := mir.forgetTips(); err != nil {
		t.Fatal(err)
	}
	o.push(files{"a": "last"})
	latest(t, m, o.src())
	if n := len(mir.store.packs); n != 1 {
		t.Errorf("%d packs after a full fetch", n)
	}
}

// packOf builds a pack by hand.
type packOf struct {
	body  bytes.Buffer
	count uint32
}

func (p *packOf) at() int64 { return packHeader + int64(p.body.Len()) }

// entry writes an object that declares a type and a length; base is what stands between header and content.
func (p *packOf) entry(typ plumbing.ObjectType, declared uint64, base, content []byte) int64 {
	at := p.at()
	first := byte(typ)<<4 | byte(declared&15)
	for declared >>= 4; declared > 0; declared >>= 7 {
		p.body.WriteByte(first | 0x80)
		first = byte(declared & 0x7f)
	}
	p.body.WriteByte(first)
	p.body.Write(base)
	z := zlib.NewWriter(&p.body)
	z.Write(content) //nolint:errcheck // to memory
	z.Close()        //nolint:errcheck // to memory
	p.count++
	return at
}

func (p *packOf) blob(content []byte) int64 {
	return p.entry(plumbing.BlobObject, uint64(len(content)), nil, content)
}

func (p *packOf) offsetDelta(base int64, delta []byte) int64 {
	back := p.at() - base
	var raw []byte
	for raw = []byte{byte(back & 0x7f)}; back > 0x7f; {
		back = back>>7 - 1
		raw = append([]byte{byte(back&0x7f) | 0x80}, raw...)
	}
	return p.entry(plumbing.OFSDeltaObject, uint64(len(delta)), raw, delta)
}

func (p *packOf) bytes() []byte {
	out := binary.BigEndian.AppendUint32([]byte("PACK\x00\x00\x00\x02"), p.count)
	out = append(out, p.body.Bytes()...)
	sum := sha1.Sum(out) // the format of packs
	return append(out, sum[:]...)
}

func uleb(n uint64) []byte {
	var out []byte
	for ; n > 0x7f; n >>= 7 {
		out = append(out, byte(n)|0x80)
	}
	return append(out, byte(n))
}

// grow is a delta that makes of a base of from bytes a result of to bytes, by copying its start again and again.
func grow(from, to uint64) []byte {
	out := append(uleb(from), uleb(to)...)
	for to > 0 {
		n := min(to, from, 0xffff)
		out = append(out, 0x80|0x10|0x20, byte(n), byte(n>>8))
		to -= n
	}
	return out
}

// TestHostilePacks: what a pack declares, and what it would unpack to, is bounded before it is indexed.
func TestHostilePacks(t *testing.T) {
	limits := Limits{MaxObjectBytes: 1 << 20, MaxObjects: 1000}.orDefaults()
	limits.MaxObjectBytes, limits.MaxObjects = 1<<20, 1000
	build := func(do func(p *packOf)) []byte {
		var p packOf
		do(&p)
		return p.bytes()
	}
	short := bytes.Repeat([]byte("x"), 100)
	for _, tc := range []struct {
		name string
		raw  []byte
		part string // empty: it is fine
	}{
		{"a blob", build(func(p *packOf) { p.blob(short) }), ""},
		{"a delta", build(func(p *packOf) { p.offsetDelta(p.blob(short), grow(100, 5000)) }), ""},
		{"four billion objects", binary.BigEndian.AppendUint32([]byte("PACK\x00\x00\x00\x02"), 1<<32-1), "4294967295 objects to fetch"},
		{"a blob that declares a terabyte", build(func(p *packOf) { p.entry(plumbing.BlobObject, 1<<40, nil, short) }), "1099511627776 bytes is in the history"},
		{"a blob that is larger than it declares", build(func(p *packOf) { p.entry(plumbing.BlobObject, 10, nil, short) }), "exceeds declared size"},
		{"a blob that is smaller than it declares", build(func(p *packOf) { p.entry(plumbing.BlobObject, 1000, nil, short) }), "declares 1000"},
		{"a zip bomb", build(func(p *packOf) { p.blob(make([]byte, 2<<20)) }), "2097152 bytes is in the history"},
		{"a delta to a gigabyte", build(func(p *packOf) { p.offsetDelta(p.blob(short), append(append(uleb(100), uleb(1<<30)...), 1, 'x')) }), "1073741824 bytes is in the history"},
		{"a delta without sizes", build(func(p *packOf) { p.offsetDelta(p.blob(short), bytes.Repeat([]byte{0xff}, 20)) }), "invalid delta"},
		{"a delta of nothing", build(func(p *packOf) { p.offsetDelta(p.blob(nil), append(append(uleb(0), uleb(1)...), 1, 'x')) }), "invalid delta"},
		{"a delta of another size", build(func(p *packOf) { p.offsetDelta(p.blob(short), grow(99, 50)) }), "invalid delta"},
		{"a delta of itself", build(func(p *packOf) { p.blob(short); p.offsetDelta(p.at(), grow(100, 100)) }), "broken pack"},
		{"a delta of what is not there", build(func(p *packOf) {
			p.entry(plumbing.REFDeltaObject, 4, bytes.Repeat([]byte{7}, 20), append(append(uleb(1), uleb(1)...), 1, 'x'))
		}), "broken pack"},
		{"a chain of large deltas", build(func(p *packOf) {
			at := p.blob(short)
			for range 20 {
				at = p.offsetDelta(at, append(append(uleb(100), uleb(100)...), bytes.Repeat([]byte{0x90, 0}, 50_000)...))
			}
		}), "chain of deltas"},
		{"large deltas by hash", build(func(p *packOf) {
			p.blob(short)
			h := plumbing.ComputeHash(plumbing.BlobObject, short)
			for range 20 {
				p.entry(plumbing.REFDeltaObject, 100_002, h[:], append(append(uleb(100), uleb(100)...), bytes.Repeat([]byte{0x90, 0}, 50_000)...))
			}
		}), "chain of deltas"},
		{"an unknown type", build(func(p *packOf) { p.entry(5, 1, nil, []byte("x")) }), "an object of type 5"},
		{"more after the end", append(build(func(p *packOf) { p.blob(short) }), 'x'), "goes on after its end"},
		{"another sum", append(build(func(p *packOf) { p.blob(short) })[:40], bytes.Repeat([]byte{1}, 40)...), "broken pack"},
		{"the same object twice", build(func(p *packOf) { p.blob(short); p.blob(short) }), "an object twice"},
		{"no pack", []byte("<html>hello</html>"), "broken pack"},
		{"nothing", nil, "broken pack"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			p, err := intake{folder: dir, limits: limits, bytes: 1 << 20}.take(t.Context(), bytes.NewReader(tc.raw))
			if tc.part == "" {
				if err != nil {
					t.Fatal(err)
				}
				p.close()
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.part) {
				t.Fatalf("%v, want %q in it", err, tc.part)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

// TestSlowPack: a pack that is cheap to send and takes for ever to unpack ends with the caller's patience.
func TestSlowPack(t *testing.T) {
	var p packOf
	at := p.blob(bytes.Repeat([]byte("x"), 60_000))
	delta := grow(60_000, 30<<20)
	for range 200 {
		p.offsetDelta(at, delta)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := intake{folder: t.TempDir(), limits: Limits{}.orDefaults(), bytes: 1 << 30}.take(ctx, bytes.NewReader(p.bytes()))
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("gave up after %v", took)
	}
}

// TestEmptyPack is what some servers send when there is nothing to send.
func TestEmptyPack(t *testing.T) {
	p, err := intake{folder: t.TempDir(), limits: Limits{}.orDefaults(), bytes: 1 << 20}.take(t.Context(), bytes.NewReader(new(packOf).bytes()))
	if p != nil || err != nil {
		t.Errorf("%v, %v", p, err)
	}
}

// TestPanicsAreErrors: a decoder that panics ends one look, not the agent.
func TestPanicsAreErrors(t *testing.T) {
	err := func() (err error) {
		defer recovered("reading the pack", &err)
		none := os.Args[:0]
		_ = none[len(os.Args)]
		return nil
	}()
	wantError(t, wrap("https://git.example/x (branch main)", err), fleet.Retryable, v1alpha1.ReasonFetchFailed, "reading the pack: panic: runtime error: index out of range")
}

func FuzzPack(f *testing.F) {
	var p packOf
	at := p.blob([]byte("hello hello hello hello"))
	at = p.offsetDelta(at, grow(23, 60))
	p.offsetDelta(at, grow(60, 7))
	f.Add(p.bytes())
	limits := Limits{MaxObjectBytes: 1 << 16, MaxObjects: 100}.orDefaults()
	f.Fuzz(func(t *testing.T, raw []byte) {
		// The sum at the end is made right, or nothing gets past it.
		if len(raw) > packHeader+packTrailer {
			sum := sha1.Sum(raw[:len(raw)-packTrailer]) // the format of packs
			raw = append(slices.Clone(raw[:len(raw)-packTrailer]), sum[:]...)
		}
		p, err := intake{folder: t.TempDir(), limits: limits, bytes: 1 << 16}.take(t.Context(), bytes.NewReader(raw))
		if err != nil && strings.Contains(err.Error(), "panic") {
			t.Fatal(err)
		}
		if err != nil || p == nil {
			return
		}
		defer p.close()
		for h := range p.hashes {
			at, _ := p.offset(h)
			size, err := p.sizeAt(at)
			if err != nil {
				t.Fatal(err)
			}
			if _, content, err := p.read(h, at); err != nil || int64(len(content)) != size {
				t.Fatalf("%s was taken in but reads as %d bytes, %v; want %d", h, len(content), err, size)
			}
		}
	})
}
