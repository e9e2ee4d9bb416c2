// SPDX-License-Identifier: Apache-2.0

package git

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/flotilla-dev/flotilla/source"
)

// TestReadersWhileItChanges: fetches, merges of packs and a rebuild go on under readers, who notice nothing.
func TestReadersWhileItChanges(t *testing.T) {
	o, m := newOrigin(t), newMirrors(t, Limits{})
	content := func(i int) string { return strings.Repeat(fmt.Sprintf("line %d\n", i), 50) }
	var mu sync.Mutex
	heads := []plumbing.Hash{o.push(files{"a": content(0), "n": "0"})}
	latest(t, m, o.src())
	mir := m.mirror(parsed(t, o.src()))

	stop, step := make(chan struct{}), make(chan struct{}, 3)
	var readers sync.WaitGroup
	for r := range 3 {
		readers.Go(func() {
			random := rand.New(rand.NewPCG(uint64(r), 1))
			for range 150 {
				select {
				case <-stop:
					return
				case <-step: // one read for one change, more or less
				}
				mu.Lock()
				i := random.IntN(len(heads))
				h, first := heads[i], heads[0]
				mu.Unlock()
				snap, err := m.At(t.Context(), o.src(), onMain(h))
				if err != nil {
					t.Error(err)
					return
				}
				if got, err := fs.ReadFile(snap.Files, "a"); err != nil || string(got) != content(i) {
					t.Errorf("commit %d: %.20q, %v", i, got, err)
					return
				}
				if rel, err := m.Relation(t.Context(), o.src(), onMain(first), onMain(h)); err != nil || i > 0 && rel != source.Descends {
					t.Errorf("commit %d: %v, %v", i, rel, err)
					return
				}
			}
		})
	}
	for i := 1; i <= maxPacks+4; i++ {
		for range cap(step) {
			select {
			case step <- struct{}{}:
			default:
			}
		}
		h := o.push(files{"a": content(i), "n": fmt.Sprint(i)})
		latest(t, m, o.src())
		mu.Lock()
		heads = append(heads, h)
		mu.Unlock()
		if i%12 == 0 {
			mir.damaged.Store(true) // the next look rebuilds
		}
	}
	close(stop)
	readers.Wait()
}

// TestRelationOfAllPairs compares with what follows from the definition, on a history full of merges.
func TestRelationOfAllPairs(t *testing.T) {
	o, m := newOrigin(t), newMirrors(t, Limits{})
	random := rand.New(rand.NewPCG(5, 6))
	tree := o.tree(files{"a": "1"})
	const n = 30
	var all []plumbing.Hash
	below := make([]map[int]bool, n) // ancestors by number
	for i := range n {
		below[i] = map[int]bool{}
		var parents []plumbing.Hash
		for range min(i, random.IntN(3)) {
			p := max(0, i-1-random.IntN(6))
			if below[i][p] {
				continue
			}
			parents = append(parents, all[p])
			below[i][p] = true
			for a := range below[p] {
				below[i][a] = true
			}
		}
		all = append(all, o.commitTree(tree, parents...))
	}
	o.set("main", o.commitTree(tree, all...)) // leads to all of them
	latest(t, m, o.src())
	for i := range n {
		for j := range n {
			want := source.Unrelated
			switch {
			case i == j:
				want = source.Same
			case below[j][i]:
				want = source.Descends
			case below[i][j]:
				want = source.Precedes
			}
			if got, err := m.Relation(t.Context(), o.src(), onMain(all[i]), onMain(all[j])); err != nil || got != want {
				t.Errorf("%d to %d: %v, %v; want %v", i, j, got, err, want)
			}
		}
	}
}
