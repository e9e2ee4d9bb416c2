// SPDX-License-Identifier: Apache-2.0

package git

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/flotilla-dev/flotilla/source"
)

const (
	maxSeenCommits = 100_000
	maxSeenTrees   = 4
	maxHaves       = 256
)

// seen is what a mirror remembers of objects that it read. They never change, so it never lies.
type seen struct {
	mu      sync.Mutex
	commits map[plumbing.Hash]links
	depths  map[plumbing.Hash]uint64
	trees   []*tree
	views   []seenView
}

func (s *seen) tree(commit plumbing.Hash) *tree {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.trees {
		if t.commit == commit {
			return t
		}
	}
	return nil
}

func (s *seen) addTree(commit plumbing.Hash, t *tree) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trees = slices.DeleteFunc(s.trees, func(t *tree) bool { return t.commit == commit })
	if s.trees = append(s.trees, t); len(s.trees) > maxSeenTrees {
		s.trees = slices.Delete(s.trees, 0, 1)
	}
}

// dropTree makes the next look at a commit check it again.
func (s *seen) dropTree(commit plumbing.Hash) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trees = slices.DeleteFunc(s.trees, func(t *tree) bool { return t.commit == commit })
}

func (s *seen) dropTrees() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trees, s.views = nil, nil
}

// links of a commit that is held.
func (m *mirror) links(h plumbing.Hash) (links, error) {
	m.seen.mu.Lock()
	l, ok := m.seen.commits[h]
	m.seen.mu.Unlock()
	if ok {
		return l, nil
	}
	raw, err := m.object(h, plumbing.CommitObject)
	if err != nil {
		return links{}, err
	}
	c, err := parseCommit(raw)
	if err != nil {
		return links{}, fmt.Errorf("commit %s: %w", h, err)
	}
	m.seen.mu.Lock()
	defer m.seen.mu.Unlock()
	if m.seen.commits == nil || len(m.seen.commits) >= maxSeenCommits {
		m.seen.commits = map[plumbing.Hash]links{}
	}
	m.seen.commits[h] = c.links
	return c.links, nil
}

// ancestry walks a commit and its ancestors, nearest first. Where a parent is not held the history ends.
type ancestry struct {
	m       *mirror
	queue   []plumbing.Hash
	visited map[plumbing.Hash]bool
}

func (m *mirror) ancestry(from ...plumbing.Hash) *ancestry {
	a := &ancestry{m: m, visited: map[plumbing.Hash]bool{}}
	for _, h := range from {
		a.visited[h] = true
		a.queue = append(a.queue, h)
	}
	return a
}

// next is the next commit; false at the end.
func (a *ancestry) next(ctx context.Context) (plumbing.Hash, bool, error) {
	if len(a.queue) == 0 {
		return plumbing.ZeroHash, false, nil
	}
	if err := ctx.Err(); err != nil {
		return plumbing.ZeroHash, false, fetchFailed("", fmt.Errorf("reading the history: %w", err))
	}
	h := a.queue[0]
	a.queue = a.queue[1:]
	l, err := a.m.links(h)
	if err != nil && !errors.Is(err, errNotHeld) {
		return plumbing.ZeroHash, false, err
	}
	for _, parent := range l.parents {
		if !a.visited[parent] {
			a.visited[parent] = true
			a.queue = append(a.queue, parent)
		}
	}
	return h, true, nil
}

// relation walks from both ends at once, so that the usual answer, a few commits apart, is found in a few steps.
func (m *mirror) relation(ctx context.Context, from, to plumbing.Hash) (source.Relation, error) {
	if from == to {
		return source.Same, nil
	}
	for _, h := range []plumbing.Hash{from, to} {
		if _, err := m.links(h); errors.Is(err, errNotHeld) {
			return source.Unrelated, nil
		} else if err != nil {
			return source.Unrelated, err
		}
	}
	newer, older := m.ancestry(to), m.ancestry(from)
	for range m.limits.MaxCommits {
		a, more, err := newer.next(ctx)
		if err != nil {
			return source.Unrelated, err
		}
		b, moreOld, err := older.next(ctx)
		if err != nil {
			return source.Unrelated, err
		}
		switch {
		case more && a == from:
			return source.Descends, nil
		case moreOld && b == to:
			return source.Precedes, nil
		case !more && !moreOld:
			return source.Unrelated, nil
		}
	}
	return source.Unrelated, nil
}

// tips of the store: their whole history is here.
func (m *mirror) tips() ([]plumbing.Hash, error) {
	s, done, err := m.use()
	if err != nil {
		return nil, err
	}
	defer done()
	var out []plumbing.Hash
	for h := range s.tips {
		if p, _ := s.find(h); p != nil {
			out = append(out, h)
		}
	}
	slices.SortFunc(out, func(a, b plumbing.Hash) int { return slices.Compare(a[:], b[:]) })
	return out, nil
}

// whole says that a commit is here with all its history: that a tip leads to it.
func (m *mirror) whole(ctx context.Context, commit plumbing.Hash) (bool, error) {
	tips, err := m.tips()
	if err != nil || slices.Contains(tips, commit) {
		return err == nil, err
	}
	if _, err := m.links(commit); err != nil {
		if errors.Is(err, errNotHeld) {
			err = nil
		}
		return false, err
	}
	walk := m.ancestry(tips...)
	for range m.limits.MaxCommits {
		h, more, err := walk.next(ctx)
		if err != nil || !more || h == commit {
			return more && err == nil, err
		}
	}
	return false, nil
}

// tipsBelow are the tips that a new one leads to.
func (m *mirror) tipsBelow(ctx context.Context, commit plumbing.Hash) ([]plumbing.Hash, error) {
	const most = 10_000
	tips, err := m.tips()
	if err != nil {
		return nil, err
	}
	var below []plumbing.Hash
	walk := m.ancestry(commit)
	for n := 0; n < most && len(below) < len(tips); n++ {
		h, more, err := walk.next(ctx)
		if err != nil {
			return nil, err
		}
		if !more {
			break
		}
		if h != commit && slices.Contains(tips, h) {
			below = append(below, h)
		}
	}
	return below, nil
}

// haves are commits to tell a server that it need not send: the tips, and ancestors at growing
// distances, for the server may have dropped what a force-push left behind.
func (m *mirror) haves(ctx context.Context) ([]plumbing.Hash, error) {
	tips, err := m.tips()
	if err != nil {
		return nil, err
	}
	var haves []plumbing.Hash
	walk, next := m.ancestry(tips...), 0
	for n := 0; len(haves) < maxHaves && n < m.limits.MaxCommits; n++ {
		h, more, err := walk.next(ctx)
		if err != nil {
			return nil, err
		}
		if !more {
			break
		}
		if n == next || n < len(tips) {
			haves = append(haves, h)
			next = n + 1 + max(0, n-32)/8
		}
	}
	return haves, nil
}

// depth is the number of a commit's first-parent ancestors.
func (m *mirror) depth(ctx context.Context, commit plumbing.Hash) (uint64, error) {
	var steps uint64
	for h := commit; ; steps++ {
		if err := ctx.Err(); err != nil {
			return 0, fetchFailed("", fmt.Errorf("counting commits: %w", err))
		}
		if known, ok := m.seen.depth(h); ok {
			steps += known
			break
		}
		l, err := m.links(h)
		if err != nil {
			return 0, fmt.Errorf("the history of %s cannot be counted: %w", commit, err)
		}
		if len(l.parents) == 0 {
			break
		}
		h = l.parents[0]
	}
	m.seen.addDepth(commit, steps)
	return steps, nil
}

func (s *seen) depth(h plumbing.Hash) (uint64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, ok := s.depths[h]
	return n, ok
}

func (s *seen) addDepth(h plumbing.Hash, n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.depths == nil || len(s.depths) >= maxSeenCommits {
		s.depths = map[plumbing.Hash]uint64{}
	}
	s.depths[h] = n
}
