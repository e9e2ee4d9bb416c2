// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/store"
)

// runFresh lets a replica with nothing on its disk catch up.
func (b *bench) runFresh(ctx context.Context) {
	if !b.wants("fresh") {
		return
	}
	keys := b.fewer(10_000)
	what := fmt.Sprintf("fresh node, %d keys", keys)
	b.try(ctx, "ours", what, func(ctx context.Context, folder string) error { return b.freshOurs(ctx, folder, keys) })
	b.try(ctx, "etcd", what, func(ctx context.Context, folder string) error { return b.freshEtcd(ctx, folder, keys) })
	b.try(ctx, "crdt", what, func(ctx context.Context, folder string) error { return b.freshCRDT(ctx, folder, keys) })
}

const freshLimit = 90 * time.Second

// freshOurs: four members hold records of 25 writers, more than one writer may have; a fifth comes.
func (b *bench) freshOurs(ctx context.Context, folder string, keys int) error {
	const nodes, writers = 5, 25
	o := newOurs(folder, nodes, newWatch(), nil)
	var records []fleet.Record
	size := 0
	for i := range keys {
		key := oursKey(nodes + i%writers)
		if i < writers {
			public := key.Public().(ed25519.PublicKey)
			o.silent = append(o.silent, fleet.Member{ID: fleet.MemberIDOf(public), Name: fleet.Name(fmt.Sprintf("writer-%d", i)), Zone: "lab"})
		}
		value, _ := payload()
		r := fleet.Record{
			Fleet: oursFleet, Epoch: 1, Seq: uint64(i/writers + 1), Kind: fleet.KindRegister, Key: fmt.Sprint("key", i), Body: value,
		}
		if err := r.Sign(key); err != nil {
			return err
		}
		records = append(records, r)
		size += len(r.Encode())
	}
	for i := range nodes - 1 {
		if err := fill(o.members[i].path, records); err != nil {
			return err
		}
		if err := o.start(ctx, i); err != nil {
			return errors.Join(err, o.close())
		}
	}
	o.introduce()
	if err := o.awaitConnected(ctx); err != nil {
		return errors.Join(err, o.close())
	}
	begin := time.Now()
	if err := o.start(ctx, nodes-1); err != nil {
		return errors.Join(err, o.close())
	}
	fresh := o.members[nodes-1]
	err := until(ctx, freshLimit, "ours: equal roots", func() bool { return fresh.node.Root() == o.members[0].node.Root() })
	if err == nil {
		result := caughtUp("ours", nodes, keys, time.Since(begin), fresh.meter.in.Load()+fresh.meter.out.Load())
		result.say("%.1f MB of records, signatures and all", float64(size)/1e6)
		b.record(result)
	}
	return errors.Join(err, o.close())
}

func fill(path string, records []fleet.Record) error {
	s, err := store.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(s.Put(records...), s.Close())
}

func caughtUp(system string, nodes, keys int, took time.Duration, bytes uint64) row {
	result := row{Part: "fresh", System: system, Nodes: nodes}
	result.add("keys", float64(keys))
	result.add("s", took.Seconds())
	result.add("MB", float64(bytes)/1e6)
	return result
}

// freshEtcd adds a fourth member to three. What its peers sent meanwhile is counted for all of them.
func (b *bench) freshEtcd(ctx context.Context, folder string, keys int) error {
	e, err := startEtcd(ctx, folder, 3, newWatch())
	if err != nil {
		return err
	}
	if err := b.fillEtcd(ctx, e, keys); err != nil {
		return errors.Join(err, e.close())
	}
	held, err := e.members[0].local.Get(ctx, "key0")
	if err != nil {
		return errors.Join(err, e.close())
	}
	if err := e.add(); err != nil {
		return errors.Join(err, e.close())
	}
	fresh := e.members[len(e.members)-1]
	// A cluster takes nobody in before its members have been connected for some seconds.
	err = until(ctx, freshLimit, "etcd: a fourth member", func() bool {
		_, err := e.members[0].local.MemberAdd(ctx, []string{fresh.peers.String()})
		return err == nil
	})
	if err != nil {
		return errors.Join(err, e.close())
	}
	sent, begin := e.sent(), time.Now()
	if err := e.start(ctx, len(e.members)-1, embed.ClusterStateFlagExisting); err != nil {
		return errors.Join(err, e.close())
	}
	err = until(ctx, freshLimit, "etcd: equal revisions", func() bool {
		answer, err := fresh.local.Get(ctx, "key0", clientv3.WithSerializable())
		return err == nil && answer.Header.Revision >= held.Header.Revision
	})
	if err == nil {
		result := caughtUp("etcd", len(e.members), keys, time.Since(begin), e.sent()-sent)
		result.say("bytes are all that members sent meanwhile")
		b.record(result)
	}
	return errors.Join(err, e.close())
}

func (b *bench) fillEtcd(ctx context.Context, e *etcd, keys int) error {
	var work sync.WaitGroup
	errs := make([]error, writersAtOnce)
	leader := e.leader()
	for writer := range writersAtOnce {
		work.Go(func() {
			for i := writer; i < keys && errs[writer] == nil; i += writersAtOnce {
				value, _ := payload()
				errs[writer] = e.put(ctx, leader, fmt.Sprint("key", i), value)
			}
		})
	}
	work.Wait()
	return errors.Join(errs...)
}

// freshCRDT: four replicas hold the keys, a fifth comes.
func (b *bench) freshCRDT(ctx context.Context, folder string, keys int) error {
	const nodes = 5
	var (
		mu   sync.Mutex
		have [nodes]map[string]bool
	)
	for i := range have {
		have[i] = map[string]bool{}
	}
	count := func(replica int) int {
		mu.Lock()
		defer mu.Unlock()
		return len(have[replica])
	}
	c, err := newCRDTs(folder, nodes, newWatch(), crdtOptions{onPut: func(replica int, key string) {
		mu.Lock()
		defer mu.Unlock()
		have[replica][key] = true
	}})
	if err != nil {
		return err
	}
	if err := fillCRDTs(ctx, c, nodes-1, keys); err != nil {
		return errors.Join(err, c.close())
	}
	begin := time.Now()
	if err := c.start(ctx, nodes-1); err != nil {
		return errors.Join(err, c.close())
	}
	var first time.Duration
	err = until(ctx, freshLimit, "go-ds-crdt: the keys on the fresh one", func() bool {
		have := count(nodes - 1)
		if have > 0 && first == 0 {
			first = time.Since(begin)
		}
		return have > keys
	})
	if err != nil && !errors.Is(err, errLate) {
		return errors.Join(err, c.close())
	}
	m := c.nodes[nodes-1].meter
	result := caughtUp(crdtName(false), nodes, count(nodes-1)-1, time.Since(begin), m.in.Load()+m.out.Load())
	result.say("its first key came after %.1f s: it waits for somebody to tell its heads", first.Seconds())
	if err != nil {
		result.say("%d keys were not there yet", keys+1-count(nodes-1))
	}
	b.record(result)
	return c.close()
}

// fillCRDTs writes the keys on one replica, one put each, and gives the others copies of its disk.
func fillCRDTs(ctx context.Context, c *crdts, nodes, keys int) error {
	if err := c.start(ctx, 0); err != nil {
		return err
	}
	for i := range keys {
		value, _ := payload()
		if err := c.put(ctx, 0, fmt.Sprint("key", i), value); err != nil {
			return err
		}
	}
	if err := c.stop(0); err != nil {
		return err
	}
	for i := nodes - 1; i >= 0; i-- {
		if i > 0 {
			if err := copied(ctx, c.nodes[0].path, c.nodes[i].path); err != nil {
				return err
			}
		}
		if err := c.start(ctx, i); err != nil {
			return err
		}
	}
	return errors.Join(c.awaitConnected(ctx), c.warm(ctx, nodes))
}

// copied waits for files to stay: a store that was just closed still takes some away.
func copied(ctx context.Context, from, to string) error {
	var err error
	for range 10 {
		if err = os.CopyFS(to, os.DirFS(from)); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.RemoveAll(to); err != nil {
			return err
		}
		pause(ctx, 200*time.Millisecond)
	}
	return err
}

const (
	updates     = 100_000
	updatedKeys = 10
	// diskLimit is for one system; what it has not written by then is left out, and said.
	diskLimit = 45 * time.Second
)

// runDisk updates few keys often, on one replica that has nobody to talk to.
func (b *bench) runDisk(ctx context.Context) {
	if !b.wants("disk") {
		return
	}
	b.try(ctx, "ours", "updates on disk", func(ctx context.Context, folder string) error {
		o, err := startOurs(ctx, folder, 1, newWatch(), nil)
		if err != nil {
			return err
		}
		return b.disk(ctx, o, "ours", folder)
	})
	b.try(ctx, "etcd", "updates on disk", func(ctx context.Context, folder string) error {
		e, err := startEtcd(ctx, folder, 1, newWatch())
		if err != nil {
			return err
		}
		return b.disk(ctx, e, "etcd, never compacted", folder)
	})
	b.try(ctx, "crdt", "updates on disk", func(ctx context.Context, folder string) error {
		c, err := startCRDTs(ctx, folder, 1, newWatch(), crdtOptions{})
		if err != nil {
			return err
		}
		return b.disk(ctx, c, crdtName(false), folder)
	})
}

func (b *bench) disk(ctx context.Context, r replicas, system, folder string) error {
	result := row{Part: "disk", System: system, Nodes: 1}
	at := func(written int) error {
		size, err := folderSize(folder)
		if err == nil {
			result.say("%.1f MiB after %d", float64(size)/(1<<20), written)
		}
		return err
	}
	begin, written := time.Now(), 0
	for goal := b.fewer(updates); written < goal && time.Since(begin) < diskLimit; written++ {
		if written == goal/100 || written == goal/10 {
			if err := at(written); err != nil {
				return errors.Join(err, r.close())
			}
		}
		value, _ := payload()
		if err := r.put(ctx, 0, fmt.Sprint("key", written%updatedKeys), value); err != nil {
			return errors.Join(err, r.close())
		}
	}
	took := time.Since(begin)
	if err := r.close(); err != nil {
		return err
	}
	size, err := folderSize(folder)
	result.add("updates", float64(written))
	result.add("s", took.Seconds())
	result.add("MiB at the end", float64(size)/(1<<20))
	b.record(result)
	return err
}
