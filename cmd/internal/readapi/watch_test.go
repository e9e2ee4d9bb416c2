// SPDX-License-Identifier: Apache-2.0

package readapi

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// wire is a ResponseWriter whose bytes may be read while they are written.
type wire struct {
	mutex  sync.Mutex
	header http.Header
	status int
	body   bytes.Buffer
}

func newWire() *wire { return &wire{header: http.Header{}} }

func (w *wire) Header() http.Header { return w.header }

func (w *wire) WriteHeader(status int) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.status = status
}

func (w *wire) Write(b []byte) (int, error) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return w.body.Write(b)
}

func (w *wire) Flush() {}

func (w *wire) text() string {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return w.body.String()
}

func (w *wire) events() int { return strings.Count(w.text(), "data: {\"namespace\"") }

// watching is one watch under way in a bubble.
type watching struct {
	*wire
	ended chan struct{}
	leave context.CancelFunc
}

func watchWeb(t *testing.T, s *Server) *watching {
	ctx, cancel := context.WithCancel(t.Context())
	w := &watching{wire: newWire(), ended: make(chan struct{}), leave: cancel}
	r := httptest.NewRequest(http.MethodGet, "/v1/rollouts/apps/web/watch", nil).WithContext(ctx)
	go func() {
		defer close(w.ended)
		s.ServeHTTP(w.wire, r)
	}()
	synctest.Wait()
	return w
}

func (w *watching) over() bool {
	select {
	case <-w.ended:
		return true
	default:
		return false
	}
}

// later lets the bubble's clock run.
func later(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func inPhase(phase string) Rollout {
	r := web("web")
	r.Stages[0].Phase = phase
	return r
}

func TestWatchTellsAtOnceAndAfterChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackend(web("web"))
		s := newServer(b, &gate{})
		w := watchWeb(t, s)
		if w.events() != 1 || w.header.Get("Content-Type") != "text/event-stream" || w.status != 200 {
			t.Fatalf("at once: %d %v %q", w.status, w.header, w.text())
		}
		later(time.Second)
		b.set(inPhase("Soaking"))
		synctest.Wait()
		if w.events() != 2 || !strings.Contains(w.text(), "Soaking") {
			t.Errorf("after a change: %q", w.text())
		}
		b.Notify() // nothing is different
		later(time.Second)
		if w.events() != 2 {
			t.Errorf("an event without a change: %q", w.text())
		}
		w.leave()
		synctest.Wait()
		if !w.over() || len(b.subs) != 0 || s.feeds.total != 0 || len(s.feeds.by) != 0 {
			t.Errorf("left behind: over %v, %d subscriptions, %+v", w.over(), len(b.subs), &s.feeds)
		}
	})
}

func TestWatchSaysWhoWasHeardWithOtherNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		heard := func(seconds float64) Rollout {
			r := web("web")
			r.Members[0].HeardSeconds = &seconds
			return r
		}
		b := newBackend(heard(1))
		w := watchWeb(t, newServer(b, &gate{}))
		b.set(heard(2))
		later(time.Second)
		if w.events() != 1 {
			t.Errorf("an age alone is no news: %q", w.text())
		}
		w.leave()
		synctest.Wait()
	})
}

func TestWatchCoalesces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackend(web("web"))
		w := watchWeb(t, newServer(b, &gate{}))
		for i := range 1000 {
			b.set(inPhase(fmt.Sprint("phase-", i)))
			later(2 * time.Millisecond)
		}
		later(time.Second)
		if n := w.events(); n < 9 || n > 12 { // two seconds, five a second, the first and the last
			t.Errorf("%d events of 1000 changes in 2 s", n)
		}
		if !strings.Contains(w.text(), "phase-999") {
			t.Error("the last change was not told")
		}
		w.leave()
		synctest.Wait()
	})
}

// TestWatchersShare: a change is built once, however many watch, and everyone gets the newest state.
func TestWatchersShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackend(web("web"))
		s := newServer(b, &gate{})
		var all []*watching
		for range 20 {
			all = append(all, watchWeb(t, s))
			later(7 * time.Millisecond)
		}
		before := b.reads
		for i := range 10 {
			b.set(inPhase(fmt.Sprint("phase-", i)))
			later(time.Millisecond)
		}
		later(time.Second)
		if built := b.reads - before; built > 30 {
			t.Errorf("20 watchers built %d times for 10 changes in 10 ms", built)
		}
		for i, w := range all {
			if !strings.Contains(w.text(), "phase-9") {
				t.Errorf("watcher %d did not get the last change: %q", i, w.text())
			}
			w.leave()
		}
		synctest.Wait()
	})
}

func TestWatchBeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watchWeb(t, newServer(newBackend(web("web")), &gate{}))
		later(time.Minute + time.Second)
		if n := strings.Count(w.text(), ": still here\n\n"); n != 4 {
			t.Errorf("%d beats in a minute", n)
		}
		w.leave()
		synctest.Wait()
	})
}

func TestWatchersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(newBackend(web("web")), &gate{})
		s.MaxWatchers = 2
		one, two := watchWeb(t, s), watchWeb(t, s)
		three := watchWeb(t, s)
		if !three.over() || three.status != http.StatusTooManyRequests || three.header.Get("Retry-After") == "" || !strings.Contains(three.text(), "2 watchers are all") {
			t.Errorf("the third: %d %v %s", three.status, three.header, three.text())
		}
		one.leave()
		synctest.Wait()
		if four := watchWeb(t, s); four.over() {
			t.Errorf("a place was free: %s", four.text())
		} else {
			four.leave()
		}
		two.leave()
		synctest.Wait()
	})
}

func TestWatchEndsWhenTheRolloutIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackend(web("web"))
		w := watchWeb(t, newServer(b, &gate{}))
		name := web("web")
		b.remove(name.FullName())
		later(time.Second)
		if !w.over() || !strings.HasSuffix(w.text(), "event: gone\ndata: {}\n\n") {
			t.Errorf("over %v: %q", w.over(), w.text())
		}
	})
}

func TestWatchEndsWithTheRight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{}
		w := watchWeb(t, newServer(newBackend(web("web")), g))
		later(59 * time.Second)
		g.now(refusal(ReasonForbidden, "no more", ""))
		later(2 * time.Second)
		if !w.over() || !strings.HasSuffix(w.text(), "event: refused\ndata: {}\n\n") {
			t.Errorf("over %v: %q", w.over(), w.text())
		}
	})
}

// TestWatchEndsWithTheClient: writes that fail end it, although nobody cancelled anything.
func TestWatchEndsWithTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackend(web("web"))
		s := newServer(b, &gate{})
		r := httptest.NewRequest(http.MethodGet, "/v1/rollouts/apps/web/watch", nil).WithContext(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			s.ServeHTTP(&cut{ResponseRecorder: httptest.NewRecorder()}, r)
		}()
		<-ended
		if len(b.subs) != 0 {
			t.Errorf("%d subscriptions left", len(b.subs))
		}
	})
}

// cut takes nothing.
type cut struct{ *httptest.ResponseRecorder }

func (c *cut) Write([]byte) (int, error) { return 0, fmt.Errorf("broken pipe") }
