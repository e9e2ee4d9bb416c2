// SPDX-License-Identifier: Apache-2.0

package git

import (
	"cmp"
	"errors"
	"os"
	"path/filepath"
	"slices"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/flotilla-dev/flotilla/source/disk"
)

// maxPacks is when small packs are merged: each fetch adds one, and each look-up goes through all.
const maxPacks = 24

// store is the generation of a mirror that is in force, opened. Its mirror guards it.
type store struct {
	dir    string // .../g<number>
	packs  []*pack
	tips   map[plumbing.Hash]bool // commits whose whole history is here, unless a pack was lost
	broken bool                   // a pack could not be opened
}

// openStore opens the highest generation under dir, or makes the first one. A pack that does not open
// is left out, so that the others can still be read, and the store is marked as broken.
func openStore(dir, url string) (*store, error) {
	_, number, err := generations(dir)
	if err == nil && number == 0 {
		number = 1
		err = initGeneration(filepath.Join(dir, generation(number)), url)
	}
	if err == nil {
		err = tidy(dir, number)
	}
	if err != nil {
		return nil, disk.Failed("opening the mirror", err)
	}
	s := &store{dir: filepath.Join(dir, generation(number))}
	paths, err := filepath.Glob(filepath.Join(s.dir, packFolder, "pack-*.pack"))
	if err == nil {
		_, err = os.Stat(filepath.Join(s.dir, packFolder))
	}
	if err == nil {
		s.tips, err = readTips(s.dir)
	}
	if errors.Is(err, os.ErrNotExist) {
		// Somebody removed a folder of it: what is left is salvaged into a new generation.
		s.tips, s.broken, err = map[plumbing.Hash]bool{}, true, nil
	}
	if err != nil {
		return nil, disk.Failed("opening the mirror", err)
	}
	for _, path := range paths {
		p, err := openPack(path)
		if err != nil {
			if !errors.Is(err, errDamaged) {
				s.close()
				return nil, err
			}
			s.broken = true
			continue
		}
		s.packs = append(s.packs, p)
	}
	return s, nil
}

func (s *store) close() {
	for _, p := range s.packs {
		p.close()
	}
	s.packs = nil
}

// find an object; nil where it is not held.
func (s *store) find(h plumbing.Hash) (*pack, int64) {
	for i := len(s.packs) - 1; i >= 0; i-- {
		if at, ok := s.packs[i].offset(h); ok {
			return s.packs[i], at
		}
	}
	return nil, 0
}

func (s *store) bytes() int64 {
	var sum int64
	for _, p := range s.packs {
		sum += p.size
	}
	return sum
}

func (s *store) intake(limits Limits, bytes int64) intake {
	return intake{folder: filepath.Join(s.dir, packFolder), limits: limits, bytes: bytes}
}

// add a pack that was taken in. One that was here already takes the place of the other.
func (s *store) add(p *pack) (replaced *pack) {
	for i, old := range s.packs {
		if old.path == p.path {
			s.packs[i] = p
			return old
		}
	}
	s.packs = append(s.packs, p)
	return nil
}

// addTip notes that a commit and all its history is here, and drops those that it leads to.
func (s *store) addTip(h plumbing.Hash, ancestors []plumbing.Hash) error {
	if err := writeTip(s.dir, h); err != nil {
		return disk.Failed("writing a reference", err)
	}
	s.tips[h] = true
	for _, a := range ancestors {
		s.dropTip(a)
	}
	return nil
}

func (s *store) dropTip(h plumbing.Hash) {
	delete(s.tips, h)
	// One that stays behind is read again at the next start: it costs a line in a request.
	os.Remove(filepath.Join(s.dir, refsFolder, h.String())) //nolint:errcheck // see above
}

// redundant are the packs whose every object is in others that stay.
func (s *store) redundant() []*pack {
	var out []*pack
	for _, p := range s.packs {
		needed := false
		for h := range p.hashes {
			needed = !slices.ContainsFunc(s.packs, func(o *pack) bool {
				_, ok := o.offset(h)
				return ok && o != p && !slices.Contains(out, o)
			})
			if needed {
				break
			}
		}
		if !needed {
			out = append(out, p)
		}
	}
	return out
}

// remove packs, files and all. Nobody may be reading them.
func (s *store) remove(packs []*pack) {
	s.packs = slices.DeleteFunc(s.packs, func(p *pack) bool { return slices.Contains(packs, p) })
	for _, p := range packs {
		p.close()
		os.Remove(p.path)                                   //nolint:errcheck // found again at the next start, and then redundant
		os.Remove(p.path[:len(p.path)-len("pack")] + "idx") //nolint:errcheck // of no use without its pack
	}
}

// small are the packs worth merging once there are too many: the smallest ones, as long as the next is
// at most twice as large as those before it together. So each byte is copied only so often as the whole
// doubles.
func (s *store) small(limits Limits) []*pack {
	if len(s.packs) <= maxPacks {
		return nil
	}
	sorted := slices.SortedFunc(slices.Values(s.packs), func(a, b *pack) int { return cmp.Compare(a.size, b.size) })
	var sum, objects int64
	for i, p := range sorted {
		count, _ := p.idx.Count()
		if i > 1 && p.size > 2*sum || objects+count > int64(limits.MaxObjects) {
			sorted = sorted[:i]
			break
		}
		sum, objects = sum+p.size, objects+count
	}
	if len(sorted) < 2 {
		return nil
	}
	return sorted
}
