// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/flotilla-dev/flotilla/sequencer/mesh"
)

// runSpread measures how writes get to everyone, and what a node costs.
func (b *bench) runSpread(ctx context.Context) {
	if !b.wants("visible", "burst", "heal") {
		return
	}
	for i, n := range b.members {
		if n == 1 || i%2 == 1 && !b.short {
			continue
		}
		b.try(ctx, "etcd", fmt.Sprintf("%d nodes", n), func(ctx context.Context, folder string) error {
			s := b.spread("etcd", n)
			e, err := startEtcd(ctx, folder, n, s.watch)
			if err != nil {
				return err
			}
			return errors.Join(s.measure(ctx, e, true), e.close())
		})
	}
	for _, n := range slices.Concat(b.nodes, b.further) {
		what := fmt.Sprintf("%d nodes", n)
		b.try(ctx, "ours", what, func(ctx context.Context, folder string) error {
			s := b.spread("ours", n)
			o, err := startOurs(ctx, folder, n, s.watch, nil)
			if err != nil {
				return err
			}
			return errors.Join(s.measure(ctx, o, true), o.close())
		})
		if slices.Contains(b.further, n) {
			continue
		}
		if b.wants("visible") && n > 5 {
			b.try(ctx, "ours", what+", records do not wait", func(ctx context.Context, folder string) error {
				s := b.spread("ours, without waiting 50 ms for company", n)
				o, err := startOurs(ctx, folder, n, s.watch, func(_ int, c *mesh.Config) { c.Coalesce = time.Nanosecond })
				if err != nil {
					return err
				}
				return errors.Join(s.measure(ctx, o, false), o.close())
			})
		}
		b.try(ctx, "crdt", what, func(ctx context.Context, folder string) error {
			s := b.spread(crdtName(false), n)
			c, err := startCRDTs(ctx, folder, n, s.watch, crdtOptions{})
			if err != nil {
				return err
			}
			return errors.Join(s.measure(ctx, c, true), c.close())
		})
		if b.wants("visible") && n <= 20 {
			b.try(ctx, "crdt", what+", fsync", func(ctx context.Context, folder string) error {
				s := b.spread(crdtName(true), n)
				c, err := startCRDTs(ctx, folder, n, s.watch, crdtOptions{fsync: true})
				if err != nil {
					return err
				}
				return errors.Join(s.measure(ctx, c, false), c.close())
			})
		}
	}
}

// spread is one fleet in the parts visible, burst and heal.
type spread struct {
	*bench
	system string
	nodes  int
	watch  *watch
	// heap of the process before the fleet was there.
	heap uint64
}

func (b *bench) spread(system string, n int) *spread {
	return &spread{bench: b, system: system, nodes: n, watch: newWatch(), heap: heapLive()}
}

// measure does all that was asked for on one fleet. A half of etcd cannot write, so it is not halved.
func (s *spread) measure(ctx context.Context, r divisibleReplicas, all bool) error {
	if err := s.visible(ctx, r); err != nil || !all {
		return err
	}
	if err := s.burst(ctx, r); err != nil {
		return err
	}
	if _, votes := r.(*etcd); votes {
		return nil
	}
	return s.halves(ctx, r)
}

// visible writes one at a time, in turn through every replica, and waits until it is everywhere.
func (s *spread) visible(ctx context.Context, r replicas) error {
	if !s.wants("visible") {
		return nil
	}
	result := row{Part: "visible", System: s.system, Nodes: s.nodes}
	heap := float64(heapLive()) - float64(s.heap)
	const idle = 5 * time.Second // one heartbeat of ours
	pause(ctx, 2*time.Second)
	sent, cpu := r.sent(), processCPU()
	pause(ctx, idle)
	idleBytes := float64(r.sent()-sent) / idle.Seconds()
	idleCPU := (processCPU() - cpu).Seconds() / idle.Seconds()

	writes, nodes := s.fewer(60), float64(s.nodes)
	if s.nodes >= 50 {
		writes = s.fewer(40)
	}
	var each, last []time.Duration
	late := 0
	sent, cpu = r.sent(), processCPU()
	begin := time.Now()
	for i := range writes {
		spans, err := s.one(ctx, r, i)
		if errors.Is(err, errLate) {
			late++
		} else if err != nil {
			return err
		}
		if len(spans) > 0 {
			each, last = append(each, spans...), append(last, slices.Max(spans))
		}
		pause(ctx, 50*time.Millisecond)
	}
	took := time.Since(begin).Seconds()
	result.add("p50 ms", quantile(each, 0.5))
	result.add("p99 ms", quantile(each, 0.99))
	result.add("last replica p50 ms", quantile(last, 0.5))
	result.add("last replica max ms", quantile(last, 1))
	share := float64(writes) * nodes
	result.add("kB per write per node", max(float64(r.sent()-sent)-idleBytes*took, 0)/share/1000)
	result.add("CPU ms per write per node", max((processCPU()-cpu).Seconds()-idleCPU*took, 0)*1000/share)
	result.add("idle kbit/s per node", idleBytes*8/1000/nodes)
	result.add("heap MiB per node", heap/nodes/(1<<20))
	if late > 0 {
		result.say("%d of %d writes were not everywhere after %s", late, writes, settleLimit)
	}
	s.record(result)
	return nil
}

// one write; gives when the other replicas had it.
func (s *spread) one(ctx context.Context, r replicas, i int) ([]time.Duration, error) {
	value, token := payload()
	a := s.watch.expect(token, s.nodes)
	begin := time.Now()
	if err := r.put(ctx, i%s.nodes, fmt.Sprint("visible", i), value); err != nil {
		return nil, err
	}
	if err := a.wait(ctx, settleLimit); err != nil {
		return nil, err
	}
	var spans []time.Duration
	for replica, at := range a.at {
		if replica != i%s.nodes || s.nodes == 1 {
			spans = append(spans, at.Sub(begin))
		}
	}
	return spans, nil
}

// everyone writes one key, all at once.
func (s *spread) everyone(ctx context.Context, r replicas, key string) ([]*awaited, error) {
	var all []*awaited
	ended := make(chan error, s.nodes)
	for i := range s.nodes {
		value, token := payload()
		all = append(all, s.watch.expect(token, s.nodes))
		go func() { ended <- r.put(ctx, i, fmt.Sprint(key, i), value) }()
	}
	var errs []error
	for range s.nodes {
		errs = append(errs, <-ended)
	}
	return all, errors.Join(errs...)
}

func (s *spread) burst(ctx context.Context, r replicas) error {
	if !s.wants("burst") {
		return nil
	}
	result := row{Part: "burst", System: s.system, Nodes: s.nodes}
	rounds := s.fewer(3)
	for range rounds {
		begin := time.Now()
		all, err := s.everyone(ctx, r, "burst")
		if err != nil {
			return err
		}
		written := time.Since(begin)
		err = waitAll(ctx, settleLimit, all)
		switch {
		case errors.Is(err, errLate):
			result.say("not everywhere after %s", settleLimit)
			s.record(result)
			return nil // the next round would only wait behind this one
		case err != nil:
			return err
		default:
			result.say("%.2f s (all accepted after %.2f s)", time.Since(begin).Seconds(), written.Seconds())
		}
	}
	s.record(result)
	return nil
}

// halves cuts the fleet in two, lets everyone write, and heals it.
func (s *spread) halves(ctx context.Context, r divisibleReplicas) error {
	if !s.wants("heal") || s.nodes < 2 {
		return nil
	}
	r.divide(func(replica int) int { return replica % 2 })
	pause(ctx, 2*time.Second)
	all, err := s.everyone(ctx, r, "halves")
	if err != nil {
		return err
	}
	pause(ctx, 2*time.Second) // each side settles
	r.heal()
	begin := time.Now()
	result := row{Part: "heal", System: s.system, Nodes: s.nodes}
	const limit = 40 * time.Second
	switch err := waitAll(ctx, limit, all); {
	case errors.Is(err, errLate):
		result.say("not everywhere after %s", limit)
	case err != nil:
		return err
	default:
		result.add("s until everywhere", time.Since(begin).Seconds())
	}
	s.record(result)
	return nil
}
