// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// payloadSize of every write, in bytes.
const payloadSize = 512

// tokens number the writes of this process: each payload begins with one of its own.
var tokens atomic.Uint64

// payload is noise, so that no store gains by compressing it, behind a token.
func payload() (value []byte, token uint64) {
	value = make([]byte, payloadSize)
	token = tokens.Add(1)
	binary.BigEndian.PutUint64(value, token)
	for i := 8; i < len(value); i += 8 {
		binary.BigEndian.PutUint64(value[i:], rand.Uint64())
	}
	return value, token
}

// watch notes when each replica shows a write to whoever reads there. Writes nobody waits for are passed over.
type watch struct {
	mu   sync.Mutex
	open map[uint64]*awaited
}

func newWatch() *watch { return &watch{open: map[uint64]*awaited{}} }

// awaited is one write on its way.
type awaited struct {
	at   map[int]time.Time
	want int
	all  chan struct{}
}

// expect is called before the write, with how many replicas it is awaited on.
func (w *watch) expect(token uint64, replicas int) *awaited {
	w.mu.Lock()
	defer w.mu.Unlock()
	a := &awaited{at: map[int]time.Time{}, want: replicas, all: make(chan struct{})}
	w.open[token] = a
	return a
}

// heard is called by a replica for every value that became visible there.
func (w *watch) heard(replica int, value []byte) {
	if len(value) != payloadSize {
		return
	}
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	token := binary.BigEndian.Uint64(value)
	a := w.open[token]
	if a == nil {
		return
	}
	if _, again := a.at[replica]; again {
		return
	}
	a.at[replica] = now
	if len(a.at) == a.want {
		delete(w.open, token)
		close(a.all)
	}
}

// errLate: not everywhere in the time that was given.
var errLate = errors.New("not everywhere in time")

// wait until the write is on all the replicas that it is awaited on.
func (a *awaited) wait(ctx context.Context, limit time.Duration) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-a.all:
		return nil
	case <-timer.C:
		return errLate
	case <-ctx.Done():
		return ctx.Err()
	}
}

// waitAll waits for all of them, limit in all.
func waitAll(ctx context.Context, limit time.Duration, all []*awaited) error {
	deadline := time.Now().Add(limit)
	for _, a := range all {
		if err := a.wait(ctx, time.Until(deadline)); err != nil {
			return err
		}
	}
	return nil
}

// until polls, as often as a person would not notice, until something is true.
func until(ctx context.Context, limit time.Duration, what string, is func() bool) error {
	deadline := time.Now().Add(limit)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: %w", what, errLate)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// quantile of durations, by nearest rank, in milliseconds.
func quantile(spans []time.Duration, q float64) float64 {
	if len(spans) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(spans))
	rank := int(q*float64(len(sorted))+0.999999) - 1
	return milliseconds(sorted[min(max(rank, 0), len(sorted)-1)])
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// heapLive is what is reachable, with stacks. Finalizers free more with each collection.
func heapLive() uint64 {
	for range 3 {
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

// processCPU is what this process has used so far, in user and kernel mode.
func processCPU() time.Duration {
	var used syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &used) != nil {
		return 0
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// folderSize is what the files in a folder occupy on disk, in bytes.
func folderSize(folder string) (int64, error) {
	var size int64
	err := filepath.WalkDir(folder, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a store tidies up behind itself
		}
		if err != nil {
			return err
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			size += stat.Blocks * 512
		}
		return nil
	})
	return size, err
}
