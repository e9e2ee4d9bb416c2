// SPDX-License-Identifier: Apache-2.0

package readapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// The pace of a watch.
const (
	// watchInterval between two events of one watch, at least: at most five a second.
	watchInterval = 200 * time.Millisecond
	// watchBeat: a comment goes out after so long, so that both sides see that the other is there.
	watchBeat = 15 * time.Second
	// watchReauthorize: a right that was taken away ends the watch after so long.
	watchReauthorize = time.Minute
	// watchWrite: a client that takes nothing for so long is let go.
	watchWrite = 20 * time.Second
)

// watch tells a rollout as server-sent events: at once, and after each change of it.
func (s *Server) watch(w http.ResponseWriter, r *http.Request) {
	name := nameIn(r)
	need := accessTo("watch", name)
	if !s.allowed(w, r, need) {
		return
	}
	feed, ok := s.feeds.join(name, s.maxWatchers())
	if !ok {
		w.Header().Set("Retry-After", "10")
		s.problem(w, http.StatusTooManyRequests, Problem{
			Error: fmt.Sprintf("%d watchers are all that this agent serves at once", s.maxWatchers()),
			Hint:  "try again later, or ask another member",
		})
		return
	}
	defer s.feeds.leave(name)
	changed, cancel := s.Changes.Subscribe()
	defer cancel()
	first, known, err := feed.latest(s.Rollouts, name, time.Now())
	switch {
	case err != nil:
		s.Log.Error(err, "cannot encode a rollout", "rollout", name.String())
		s.problem(w, http.StatusInternalServerError, Problem{Error: "the rollout cannot be encoded"})
	case !known:
		s.unknown(w, name)
	default:
		out := newStream(w)
		allowed := func(ctx context.Context) bool { return s.Auth.Authorize(ctx, r, need) == nil }
		stream{out: out, feed: feed, rollouts: s.Rollouts, name: name, changed: changed, allowed: allowed}.run(r.Context(), first)
	}
}

func (s *Server) maxWatchers() int {
	if s.MaxWatchers > 0 {
		return s.MaxWatchers
	}
	return DefaultMaxWatchers
}

// stream is one watch under way.
type stream struct {
	out      *eventWriter
	feed     *feed
	rollouts Rollouts
	name     fleet.RolloutName
	changed  <-chan struct{}
	allowed  func(context.Context) bool
}

// run until the client goes, the agent ends, the rollout is gone or the right to see it.
func (s stream) run(ctx context.Context, first view) {
	beat, reauthorize := time.NewTicker(watchBeat), time.NewTicker(watchReauthorize)
	defer beat.Stop()
	defer reauthorize.Stop()
	last, sent := first.key, time.Now()
	err := s.out.event("", first.data)
	for err == nil {
		select {
		case <-ctx.Done():
			return
		case <-beat.C:
			err = s.out.comment()
		case <-reauthorize.C:
			if !s.allowed(ctx) {
				_ = s.out.event("refused", []byte("{}"))
				return
			}
		case <-s.changed:
			noted := time.Now()
			if !pause(ctx, watchInterval-time.Since(sent)) {
				return
			}
			now, known, latestErr := s.feed.latest(s.rollouts, s.name, noted)
			switch {
			case latestErr != nil:
				return
			case !known:
				_ = s.out.event("gone", []byte("{}"))
				return
			case !bytes.Equal(now.key, last):
				err = s.out.event("", now.data)
				last, sent = now.key, time.Now()
			}
		}
	}
}

// pause waits; false where the context ended first.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// eventWriter writes server-sent events, each with a deadline of its own.
type eventWriter struct {
	w  http.ResponseWriter
	rc *http.ResponseController
}

func newStream(w http.ResponseWriter) *eventWriter {
	e := &eventWriter{w: w, rc: http.NewResponseController(w)}
	// The deadlines of ordinary answers would cut the stream; a writer without deadlines has none to lift.
	_ = e.rc.SetReadDeadline(time.Time{})
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	return e
}

func (e *eventWriter) event(kind string, data []byte) error {
	var b bytes.Buffer
	if kind != "" {
		fmt.Fprintf(&b, "event: %s\n", kind)
	}
	fmt.Fprintf(&b, "data: %s\n\n", data)
	return e.write(b.Bytes())
}

func (e *eventWriter) comment() error { return e.write([]byte(": still here\n\n")) }

func (e *eventWriter) write(b []byte) error {
	if err := e.rc.SetWriteDeadline(time.Now().Add(watchWrite)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := e.w.Write(b); err != nil {
		return err
	}
	return e.rc.Flush()
}

// view of a rollout as it goes over the wire. Two views of one key differ at most in how long ago
// somebody was heard, which is no news.
type view struct{ data, key []byte }

// feed shares the latest view of one rollout among its watchers: what all of them would build anew
// after each change is built once.
type feed struct {
	watchers int // guarded by feeds

	mu    sync.Mutex
	begun time.Time
	view  view
	known bool
}

// latest view, built after the moment at which a change was noted.
func (f *feed) latest(rollouts Rollouts, name fleet.RolloutName, noted time.Time) (view, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.begun.After(noted) {
		return f.view, f.known, nil
	}
	begun := time.Now()
	rollout, known := rollouts.Rollout(name)
	var now view
	if known {
		var err error
		if now, err = encode(rollout); err != nil {
			return view{}, false, fmt.Errorf("rollout %s: %w", name, err)
		}
	}
	f.begun, f.view, f.known = begun, now, known
	return f.view, f.known, nil
}

func encode(r Rollout) (view, error) {
	data, err := json.Marshal(r)
	if err != nil {
		return view{}, err
	}
	members := make([]Member, len(r.Members))
	for i, m := range r.Members {
		m.HeardSeconds = nil
		members[i] = m
	}
	r.Members = members
	timeless, err := json.Marshal(r)
	if err != nil {
		return view{}, err
	}
	key := fleet.BlobDigest(timeless)
	return view{data: data, key: key[:]}, nil
}

// feeds of the rollouts that somebody watches.
type feeds struct {
	mu    sync.Mutex
	total int
	by    map[fleet.RolloutName]*feed
}

// join a rollout's feed; false where as many watch as may.
func (f *feeds) join(name fleet.RolloutName, most int) (*feed, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.total >= most {
		return nil, false
	}
	if f.by == nil {
		f.by = map[fleet.RolloutName]*feed{}
	}
	if f.by[name] == nil {
		f.by[name] = &feed{}
	}
	f.total++
	f.by[name].watchers++
	return f.by[name], true
}

func (f *feeds) leave(name fleet.RolloutName) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.total--
	if f.by[name].watchers--; f.by[name].watchers == 0 {
		delete(f.by, name)
	}
}

// Notifier is the simplest [Changes]: whoever changes something calls Notify. The zero value is ready.
type Notifier struct {
	mu   sync.Mutex
	subs map[chan struct{}]bool
}

// Notify wakes every subscriber. It never blocks.
func (n *Notifier) Notify() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.subs {
		select {
		case c <- struct{}{}:
		default: // it has not looked since the last change, and will see this one with it
		}
	}
}

// Subscribe to all changes from now on.
func (n *Notifier) Subscribe() (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.subs == nil {
		n.subs = map[chan struct{}]bool{}
	}
	n.subs[c] = true
	return c, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.subs, c)
	}
}
