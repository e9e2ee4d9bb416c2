// SPDX-License-Identifier: Apache-2.0

package git

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/source"
	"github.com/flotilla-dev/flotilla/source/disk"
)

// mirror of one repository. Whoever asks the server, or writes in the folder, holds its turn; whoever
// reads does not wait for them.
type mirror struct {
	dir    string
	remote *remote
	limits Limits

	turn    chan struct{} // holds one token while somebody has the turn
	begun   atomic.Int64  // looks that were begun
	waiting atomic.Int64  // callers that wait for the turn or have it
	last    *looked       // by the holder of the turn
	refused refusals      // by the holder of the turn

	mu     sync.RWMutex // guards store; held for reading while packs are read
	store  *store
	closed bool

	damaged atomic.Bool // a pack was found to be damaged: whoever has the turn next rebuilds
	seen    seen
}

// looked is a look's outcome, for those who waited for the turn since before it began.
type looked struct {
	number int64
	advert *advert
	err    error
}

// latest is where a reference is at the origin, held here with its history, and the files there.
func (m *mirror) latest(ctx context.Context, what ref) (at revision, files *tree, err error) {
	ticket, err := m.enter(ctx)
	if err != nil {
		return revision{}, nil, err
	}
	defer m.leave()
	if err := m.mend(ctx); err != nil {
		return revision{}, nil, err
	}
	ad, err := m.look(ctx, ticket, what)
	if err != nil {
		return revision{}, nil, err
	}
	at.label, at.commit, err = ad.find(what)
	if err != nil {
		return revision{}, nil, err
	}
	files, err = m.obtain(ctx, ad, at.commit)
	return at, files, err
}

// at is a commit's files: from here where they are whole, else from the origin.
func (m *mirror) at(ctx context.Context, what ref, commit plumbing.Hash) (*tree, error) {
	m.tryMend(ctx)
	files, err := m.check(ctx, commit)
	if !lacking(err) {
		return files, err
	}
	ticket, err := m.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer m.leave()
	if err := m.mend(ctx); err != nil {
		return nil, err
	}
	if files, err := m.check(ctx, commit); !lacking(err) {
		return files, err
	}
	ad, err := m.look(ctx, ticket, what)
	if err != nil {
		return nil, err
	}
	return m.request(ctx, ad, what, commit)
}

// request a commit from the origin: by its hash where the server allows it, else with its reference, or
// where none is named with those that it is most likely below.
func (m *mirror) request(ctx context.Context, ad *advert, what ref, commit plumbing.Hash) (*tree, error) {
	if ad.serves(commit) {
		files, err := m.obtain(ctx, ad, commit)
		if err == nil || ctx.Err() != nil || fleet.KindOf(err) != fleet.Retryable {
			return files, err
		}
	}
	through := []ref{what}
	if what.kind == byCommit {
		through = []ref{{kind: byName, name: headName}, {kind: byBranch, name: v1alpha1.DefaultBranch}}
	}
	for _, what := range through {
		_, head, err := ad.find(what)
		if err != nil || head == commit {
			continue
		}
		if _, err := m.obtain(ctx, ad, head); err != nil {
			return nil, err
		}
		if files, err := m.check(ctx, commit); !lacking(err) {
			return files, err
		}
	}
	return nil, &fleet.Error{Kind: fleet.Retryable, Reason: v1alpha1.ReasonRefNotFound,
		Hint: "was it pushed, or the branch rewritten? a server may be told to serve any commit (uploadpack.allowReachableSHA1InWant)",
		Err:  fmt.Errorf("the server does not give commit %s", commit)}
}

// lacking says that the mirror lacks something that the origin may have.
func lacking(err error) bool { return errors.Is(err, errNotHeld) || errors.Is(err, errDamaged) }

// obtain a commit that the server advertises: it is fetched where the mirror does not have all of it.
func (m *mirror) obtain(ctx context.Context, ad *advert, commit plumbing.Hash) (*tree, error) {
	if err := m.refused.of(commit); err != nil {
		return nil, err
	}
	files, err := m.obtainOnce(ctx, ad, commit)
	if lacking(err) {
		// What the server sent builds on something that the mirror should have and has not.
		if err := errors.Join(m.mend(ctx), m.forgetTips()); err != nil {
			return nil, err
		}
		files, err = m.obtainOnce(ctx, ad, commit)
	}
	if errors.Is(err, errNotHeld) {
		err = fetchFailed("the repository may be damaged on the server: git fsck", fmt.Errorf("the server sent commit %s without all that belongs to it: %w", commit, err))
	}
	m.refused.note(commit, err)
	return files, err
}

func (m *mirror) obtainOnce(ctx context.Context, ad *advert, commit plumbing.Hash) (*tree, error) {
	whole, err := m.whole(ctx, commit)
	if err != nil {
		return nil, err
	}
	if !whole {
		if err := m.fetch(ctx, ad, commit); err != nil {
			return nil, err
		}
	}
	return m.check(ctx, commit)
}

// fetch a commit and what of its history is not here.
func (m *mirror) fetch(ctx context.Context, ad *advert, commit plumbing.Hash) error {
	s, haves, err := m.prepare(ctx)
	if err != nil {
		return err
	}
	room := m.limits.MaxBytes
	if len(haves) > 0 {
		room -= s.bytes()
	}
	var p *pack
	if err := ad.pack(ctx, commit, haves, func(r io.Reader) error {
		p, err = s.intake(m.limits, room).take(ctx, r)
		return err
	}); err != nil {
		return err
	}
	if p != nil {
		m.mu.Lock()
		replaced := s.add(p)
		m.mu.Unlock()
		if replaced != nil {
			replaced.close()
		}
	}
	if _, err := m.links(commit); err != nil {
		return err
	}
	known, err := m.tipsBelow(ctx, commit)
	if err != nil {
		return err
	}
	return m.settle(ctx, s, commit, known, len(haves) == 0)
}

// settle notes what a fetch brought, and tidies up.
func (m *mirror) settle(ctx context.Context, s *store, commit plumbing.Hash, below []plumbing.Hash, full bool) error {
	m.mu.Lock()
	err := s.addTip(commit, below)
	if err == nil && full {
		s.remove(s.redundant())
	}
	m.mu.Unlock()
	if err != nil {
		return err
	}
	m.compact(ctx, s)
	return nil
}

// prepare is the store and what of it to tell the server.
func (m *mirror) prepare(ctx context.Context) (*store, []plumbing.Hash, error) {
	s, done, err := m.use()
	if err != nil {
		return nil, nil, err
	}
	done() // only the holder of the turn changes it
	haves, err := m.haves(ctx)
	return s, haves, err
}

// compact merges small packs, while others go on reading them. A merge that fails leaves them as they
// are: they serve as well, if slower.
func (m *mirror) compact(ctx context.Context, s *store) {
	small := s.small(m.limits)
	if small == nil {
		return
	}
	merged, err := s.merge(ctx, small, m.limits)
	if errors.Is(err, errDamaged) {
		m.damaged.Store(true)
	}
	if err != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s.remove(small)
	s.packs = append(s.packs, merged)
}

// enter waits for the turn. The ticket tells which looks began after the caller came.
func (m *mirror) enter(ctx context.Context) (ticket int64, err error) {
	m.waiting.Add(1)
	ticket = m.begun.Load()
	select {
	case m.turn <- struct{}{}:
		return ticket, nil
	case <-ctx.Done():
		m.waiting.Add(-1)
		return 0, fetchFailed("it goes on; this is tried again", fmt.Errorf("another look at this repository is under way: %w", ctx.Err()))
	}
}

func (m *mirror) leave() {
	m.remote.hangUp()
	if m.waiting.Add(-1) == 0 {
		m.last = nil
	}
	<-m.turn
}

// look asks the server, unless somebody did since the caller came: that is as new an answer as its own
// would be. So many callers at once cost two requests at most for each reference.
func (m *mirror) look(ctx context.Context, ticket int64, what ref) (*advert, error) {
	if m.last != nil && m.last.number > ticket && (m.last.err != nil || m.last.advert.covers(what)) {
		return m.last.advert, m.last.err
	}
	number := m.begun.Add(1)
	ad, err := m.remote.look(ctx, what)
	m.last = nil
	if ctx.Err() == nil {
		m.last = &looked{number: number, advert: ad, err: err}
	}
	return ad, err
}

// use the store for reading until done is called.
func (m *mirror) use() (s *store, done func(), err error) {
	for {
		m.mu.RLock()
		if m.store != nil {
			return m.store, m.mu.RUnlock, nil
		}
		m.mu.RUnlock()
		if err := m.open(); err != nil {
			return nil, nil, err
		}
	}
}

func (m *mirror) open() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return disk.Failed("reading the mirror", os.ErrClosed)
	}
	if m.store != nil {
		return nil
	}
	s, err := openStore(m.dir, m.remote.addr.url)
	if err != nil {
		return err
	}
	m.store = s
	return nil
}

func (m *mirror) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.remote.close()
	if m.store != nil {
		m.store.close()
		m.store = nil
	}
}

// object reads an object of a kind.
func (m *mirror) object(h plumbing.Hash, kind plumbing.ObjectType) ([]byte, error) {
	s, done, err := m.use()
	if err != nil {
		return nil, err
	}
	defer done()
	p, at := s.find(h)
	if p == nil {
		return nil, fmt.Errorf("%s %s: %w", kind, h, errNotHeld)
	}
	typ, content, err := p.read(h, at)
	if errors.Is(err, errDamaged) {
		m.damaged.Store(true)
	}
	if err == nil && typ != kind {
		err = unreadable("object %s is a %s, not a %s", h, typ, kind)
	}
	return content, err
}

// sizeOf an object, without reading it.
func (m *mirror) sizeOf(h plumbing.Hash) (int64, error) {
	s, done, err := m.use()
	if err != nil {
		return 0, err
	}
	defer done()
	p, at := s.find(h)
	if p == nil {
		return 0, fmt.Errorf("object %s: %w", h, errNotHeld)
	}
	n, err := p.sizeAt(at)
	if errors.Is(err, errDamaged) {
		m.damaged.Store(true)
	}
	return n, err
}

// check that a commit's files are all here and within the limits. Nothing is given out that was not
// checked: a reader never finds half a tree.
func (m *mirror) check(ctx context.Context, commit plumbing.Hash) (*tree, error) {
	if t := m.seen.tree(commit); t != nil && !m.damaged.Load() {
		return t, nil
	}
	l, err := m.links(commit)
	if err != nil {
		return nil, err
	}
	t := newTree(m, commit, l.tree)
	if err := t.walk(ctx); err != nil {
		return nil, err
	}
	m.seen.addTree(commit, t)
	return t, nil
}

func (m *mirror) snapshot(commit plumbing.Hash, files fs.FS, rev fleet.Revision) (source.Snapshot, error) {
	raw, err := m.object(commit, plumbing.CommitObject)
	if err != nil {
		return source.Snapshot{}, err
	}
	c, err := parseCommit(raw)
	if err != nil {
		return source.Snapshot{}, err
	}
	return source.Snapshot{Revision: rev, Subject: c.subject, Author: c.author, Files: files}, nil
}

// refusals remembers commits that are over a limit, so that their packs are not fetched again and again.
type refusals struct{ last []refusal }

type refusal struct {
	commit plumbing.Hash
	err    error
}

func (r *refusals) of(commit plumbing.Hash) error {
	for _, known := range r.last {
		if known.commit == commit {
			return known.err
		}
	}
	return nil
}

func (r *refusals) note(commit plumbing.Hash, err error) {
	const most = 16
	if err == nil || fleet.KindOf(err) != fleet.Terminal {
		return
	}
	if len(r.last) == most {
		r.last = slices.Delete(r.last, 0, 1)
	}
	r.last = append(r.last, refusal{commit, err})
}
