// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/binary"
	"sync"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/cmd/internal/agent/turn"
	"github.com/flotilla-dev/flotilla/source"
)

// PolledHeads looks at each source when it is due, once for all rollouts that share it, and keeps
// the last good snapshot: a server that is away takes nothing back.
type PolledHeads struct {
	Source source.Source
	// Clock is read for Elapsed alone.
	Clock func() fleet.Moment
	// Seed differs from member to member, so that a fleet does not look all at once.
	Seed fleet.MemberID

	mu    sync.Mutex
	heads map[string]*head
}

// head of one source.
type head struct {
	looking sync.Mutex // one look at a time; the others wait for what it finds
	mu      sync.Mutex // the fields below; never held over I/O
	poll    source.Poll
	snap    source.Snapshot
	err     error
}

// Latest is in turn.Heads.
func (p *PolledHeads) Latest(ctx context.Context, src source.Origin, s turn.Settings) (source.Snapshot, time.Duration, error) {
	h := p.head(src)
	h.looking.Lock()
	defer h.looking.Unlock()
	if h.due(p.Clock().Elapsed, s.SourceInterval) {
		timeout := s.SourceTimeout
		if timeout <= 0 {
			timeout = turn.SettingsOf(v1alpha1.FleetRolloutSpec{}).SourceTimeout
		}
		within, cancel := context.WithTimeout(ctx, timeout)
		snap, err := p.Source.Latest(within, src)
		cancel()
		if ctx.Err() != nil {
			return source.Snapshot{}, 0, ctx.Err() // whoever asked went away: that says nothing of the source
		}
		h.looked(p.Clock().Elapsed, snap, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.snap, h.poll.Wait(p.Clock().Elapsed), h.err
}

func (h *head) due(now, interval time.Duration) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.poll.Every(interval)
	return h.poll.Wait(now) == 0
}

func (h *head) looked(now time.Duration, snap source.Snapshot, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.poll.Looked(now, snap.Revision, err)
	h.err = err
	if err == nil {
		h.snap = snap
	}
}

// At is in turn.Heads.
func (p *PolledHeads) At(ctx context.Context, src source.Origin, rev fleet.Revision) (source.Snapshot, error) {
	return p.Source.At(ctx, src, rev)
}

// Relation is in turn.Heads.
func (p *PolledHeads) Relation(ctx context.Context, src source.Origin, from, to fleet.Revision) (source.Relation, error) {
	return p.Source.Relation(ctx, src, from, to)
}

// Told that a member has verified a head of the source..
func (p *PolledHeads) Told(src source.Origin, rev fleet.Revision) {
	h := p.head(src)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.poll.Told(rev)
}

// Ask for a look at once.
func (p *PolledHeads) Ask(src source.Origin) {
	h := p.head(src)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.poll.Ask()
}

func (p *PolledHeads) head(src source.Origin) *head {
	key := src.Files() + "\n" + src.Head()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.heads == nil {
		p.heads = map[string]*head{}
	}
	h := p.heads[key]
	if h == nil {
		seed := fleet.DigestOf("flotilla.dev/poll", []byte(p.Seed), []byte(key))
		h = &head{poll: source.Poll{Seed: binary.BigEndian.Uint64(seed[:])}}
		p.heads[key] = h
	}
	return h
}
