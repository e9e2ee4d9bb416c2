// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	writersAtOnce = 50
	// settleLimit is how long writes may take to get everywhere before the row says that they did not.
	settleLimit = 15 * time.Second
)

// runMembers measures what a vote costs as it grows.
func (b *bench) runMembers(ctx context.Context) {
	if !b.wants("local", "writers") {
		return
	}
	for i, n := range b.members {
		what := fmt.Sprintf("%d members", n)
		b.try(ctx, "ours", what, func(ctx context.Context, folder string) error {
			w := newWatch()
			o, err := startOurs(ctx, folder, n, w, nil)
			if err != nil {
				return err
			}
			return errors.Join(b.local(ctx, o, "ours", n, 0), b.writers(ctx, o, w, "ours", n), o.close())
		})
		b.try(ctx, "etcd", what, func(ctx context.Context, folder string) error {
			w := newWatch()
			e, err := startEtcd(ctx, folder, n, w)
			if err != nil {
				return err
			}
			leader := e.leader()
			err = b.local(ctx, e, "etcd, by the leader", n, leader)
			if err == nil && n > 1 {
				err = b.local(ctx, e, "etcd, by a follower", n, (leader+1)%n)
			}
			return errors.Join(err, b.writers(ctx, e, w, "etcd", n), e.close())
		})
		if i%2 == 1 {
			continue // go-ds-crdt asks nobody either; every other size shows it
		}
		for _, fsync := range []bool{false, true} {
			b.try(ctx, "crdt", what, func(ctx context.Context, folder string) error {
				w := newWatch()
				c, err := startCRDTs(ctx, folder, n, w, crdtOptions{fsync: fsync})
				if err != nil {
					return err
				}
				name := crdtName(fsync)
				err = b.local(ctx, c, name, n, 0)
				if !fsync {
					err = errors.Join(err, b.writers(ctx, c, w, name, n))
				}
				return errors.Join(err, c.close())
			})
		}
	}
}

func crdtName(fsync bool) string {
	if fsync {
		return "go-ds-crdt, fsync"
	}
	return "go-ds-crdt, no fsync"
}

// local writes one after the other through one replica.
func (b *bench) local(ctx context.Context, r replicas, system string, n, via int) error {
	if !b.wants("local") {
		return nil
	}
	const warming, keys = 20, 100
	var spans []time.Duration
	for i := range warming + b.fewer(300) {
		value, _ := payload()
		begin := time.Now()
		if err := r.put(ctx, via, fmt.Sprint("local", i%keys), value); err != nil {
			return err
		}
		if i >= warming {
			spans = append(spans, time.Since(begin))
		}
	}
	result := row{Part: "local", System: system, Nodes: n}
	result.add("p50 ms", quantile(spans, 0.5))
	result.add("p99 ms", quantile(spans, 0.99))
	b.record(result)
	return nil
}

// writers write as fast as they can, each its own key through one replica.
func (b *bench) writers(ctx context.Context, r replicas, w *watch, system string, n int) error {
	if !b.wants("writers") {
		return nil
	}
	span := 2 * time.Second
	if b.short {
		span /= 2
	}
	var (
		accepted atomic.Uint64
		work     sync.WaitGroup
		mu       sync.Mutex
		last     []*awaited
		failed   error
	)
	begin := time.Now()
	for writer := range writersAtOnce {
		work.Go(func() {
			for done := false; !done; {
				done = time.Since(begin) > span
				value, token := payload()
				var a *awaited
				if done {
					a = w.expect(token, n)
				}
				err := r.put(ctx, writer%n, fmt.Sprint("writer", writer), value)
				accepted.Add(1)
				if done || err != nil {
					mu.Lock()
					if a != nil {
						last = append(last, a)
					}
					failed = errors.Join(failed, err)
					mu.Unlock()
				}
				if err != nil {
					return
				}
			}
		})
	}
	work.Wait()
	took := time.Since(begin)
	if failed != nil {
		return failed
	}
	result := row{Part: "writers", System: system, Nodes: n}
	result.add("puts/s accepted", float64(accepted.Load())/took.Seconds())
	switch err := waitAll(ctx, settleLimit, last); {
	case errors.Is(err, errLate):
		result.say("not everywhere %s after the last write", settleLimit)
	case err != nil:
		return err
	default:
		result.add("s until everywhere", (time.Since(begin) - took).Seconds())
	}
	b.record(result)
	return nil
}

// runMinority counts what either side of a partition accepts.
func (b *bench) runMinority(ctx context.Context) {
	if !b.wants("minority") {
		return
	}
	const n = 5
	what := "partition of 5"
	b.try(ctx, "ours", what, func(ctx context.Context, folder string) error {
		w := newWatch()
		o, err := startOurs(ctx, folder, n, w, nil)
		if err != nil {
			return err
		}
		return errors.Join(b.minority(ctx, o, w, "ours"), o.close())
	})
	b.try(ctx, "etcd", what, func(ctx context.Context, folder string) error {
		w := newWatch()
		e, err := startEtcd(ctx, folder, n, w)
		if err != nil {
			return err
		}
		return errors.Join(b.minority(ctx, e, w, "etcd"), e.close())
	})
	b.try(ctx, "crdt", what, func(ctx context.Context, folder string) error {
		w := newWatch()
		c, err := startCRDTs(ctx, folder, n, w, crdtOptions{})
		if err != nil {
			return err
		}
		return errors.Join(b.minority(ctx, c, w, crdtName(false)), c.close())
	})
}

type divisibleReplicas interface {
	replicas
	divisible
}

func (b *bench) minority(ctx context.Context, r divisibleReplicas, w *watch, system string) error {
	const n, few, writes = 5, 2, 20
	r.divide(func(replica int) int {
		if replica < few {
			return 0
		}
		return 1
	})
	pause(ctx, 4*time.Second) // twice the longest election
	var (
		mu       sync.Mutex
		accepted [2]int
		awaiting []*awaited
		work     sync.WaitGroup
	)
	for side, members := range [][]int{{0, 1}, {2, 3, 4}} {
		for i := range writes {
			work.Go(func() {
				ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
				defer cancel()
				value, token := payload()
				a := w.expect(token, n)
				if r.put(ctx, members[i%len(members)], fmt.Sprintf("side%d-%d", side, i), value) != nil {
					return
				}
				mu.Lock()
				defer mu.Unlock()
				accepted[side]++
				awaiting = append(awaiting, a)
			})
		}
	}
	work.Wait()
	r.heal()
	healed := time.Now()
	result := row{Part: "minority", System: system, Nodes: n}
	result.add("accepted by the 2, of 20", float64(accepted[0]))
	result.add("accepted by the 3, of 20", float64(accepted[1]))
	if err := waitAll(ctx, settleLimit, slices.Clip(awaiting)); errors.Is(err, errLate) {
		result.say("not everywhere %s after healing", settleLimit)
	} else if err != nil {
		return err
	} else {
		result.add("s from healing until everywhere", time.Since(healed).Seconds())
	}
	b.record(result)
	return nil
}
