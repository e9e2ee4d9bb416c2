// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/mesh"
	"github.com/flotilla-dev/flotilla/sequencer/store"
)

// ours are real mesh nodes with their stores, over tcp on loopback.
type ours struct {
	folder string
	watch  *watch
	// change may alter a member's configuration before it starts.
	change  func(replica int, c *mesh.Config)
	members []*oursMember
	// silent are on the roster and never run: writers of records that are there already.
	silent []fleet.Member
	// stranger is on nobody's roster but its own; -1 for none.
	stranger int

	mu   sync.Mutex
	side func(replica int) int
}

type oursMember struct {
	key    ed25519.PrivateKey
	member fleet.Member
	meter  *meter
	path   string
	// These are nil while it is stopped.
	node  *mesh.Node
	store *store.Store
	end   func() error
}

var (
	_ replicas  = (*ours)(nil)
	_ divisible = (*ours)(nil)
)

// roster of the fleet. Members are found by a map: each record is looked up.
type roster struct {
	all  []fleet.Member
	byID map[fleet.MemberID]fleet.Member
}

var _ mesh.Roster = (*roster)(nil)

func (r *roster) Member(id fleet.MemberID) (fleet.Member, bool) {
	m, ok := r.byID[id]
	return m, ok
}

func (r *roster) Members() []fleet.Member { return r.all }

var oursFleet = fleet.DigestOf("flotilla.dev/statebench-fleet")

func oursKey(replica int) ed25519.PrivateKey {
	seed := fleet.DigestOf("flotilla.dev/statebench-key", []byte{byte(replica >> 8), byte(replica)})
	return ed25519.NewKeyFromSeed(seed[:])
}

// newOurs makes a fleet of which nobody runs yet.
func newOurs(folder string, n int, w *watch, change func(int, *mesh.Config)) *ours {
	o := &ours{folder: folder, watch: w, change: change, stranger: -1}
	for i := range n {
		key := oursKey(i)
		o.members = append(o.members, &oursMember{
			key: key,
			member: fleet.Member{
				ID: fleet.MemberIDOf(key.Public().(ed25519.PublicKey)), Name: fleet.Name(fmt.Sprintf("member-%03d", i)), Zone: "lab",
			},
			meter: newMeter(),
			path:  filepath.Join(folder, fmt.Sprintf("%03d.db", i)),
		})
	}
	return o
}

// startOurs starts a whole fleet and waits until it hangs together.
func startOurs(ctx context.Context, folder string, n int, w *watch, change func(int, *mesh.Config)) (*ours, error) {
	o := newOurs(folder, n, w, change)
	for i := range o.members {
		if err := o.start(ctx, i); err != nil {
			return nil, errors.Join(err, o.close())
		}
	}
	o.introduce()
	if err := o.awaitConnected(ctx); err != nil {
		return nil, errors.Join(err, o.close())
	}
	return o, nil
}

// start runs one member on the store that it has, or on a new one.
func (o *ours) start(ctx context.Context, i int) error {
	m := o.members[i]
	s, err := store.Open(m.path)
	if err != nil {
		return err
	}
	cfg := mesh.LAN()
	cfg.Key, cfg.Fleet, cfg.Roster, cfg.Store = m.key, oursFleet, o.rosterOf(i), s
	cfg.Listen = []string{"/ip4/127.0.0.1/tcp/0"}
	cfg.Options = []libp2p.Option{libp2p.BandwidthReporter(m.meter)}
	cfg.Allow = func(other fleet.MemberID) bool { return o.reachable(i, other) }
	cfg.OnNews = func(records []fleet.Record) {
		for _, r := range records {
			o.watch.heard(i, r.Body)
		}
	}
	if o.change != nil {
		o.change(i, &cfg)
	}
	node, err := mesh.New(cfg)
	if err != nil {
		return errors.Join(err, s.Close())
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- node.Run(running) }()
	select {
	case <-node.Ready():
	case err := <-ended:
		cancel()
		return errors.Join(err, s.Close())
	}
	m.node, m.store, m.member.Addresses = node, s, node.Addresses()
	m.end = func() error {
		cancel()
		return errors.Join(<-ended, s.Close())
	}
	return nil
}

// rosterOf a member has everyone, and the addresses of those whom it dials.
func (o *ours) rosterOf(i int) *roster {
	known := map[int]bool{}
	for _, other := range dialled(i, len(o.members)) {
		known[other] = true
	}
	r := &roster{byID: map[fleet.MemberID]fleet.Member{}}
	for j, other := range o.members {
		member := other.member
		if j == o.stranger && i != j {
			continue
		}
		if !known[j] {
			member.Addresses = nil
		}
		r.all = append(r.all, member)
	}
	r.all = append(r.all, o.silent...)
	for _, member := range r.all {
		r.byID[member.ID] = member
	}
	return r
}

// introduce tells everyone where those are whom it dials.
func (o *ours) introduce() {
	for i, m := range o.members {
		if m.node != nil {
			m.node.SetRoster(o.rosterOf(i))
		}
	}
}

func (o *ours) reachable(i int, other fleet.MemberID) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.side == nil {
		return true
	}
	for j, m := range o.members {
		if m.member.ID == other {
			return o.side(i) == o.side(j)
		}
	}
	return true
}

// awaitConnected waits until everyone has heard a heartbeat of everyone who runs: then gossip works.
func (o *ours) awaitConnected(ctx context.Context) error {
	running := 0
	for _, m := range o.members {
		if m.node != nil {
			running++
		}
	}
	done := map[int]bool{}
	return until(ctx, time.Minute, "ours: heartbeats of everyone", func() bool {
		for i, m := range o.members {
			if m.node == nil || done[i] {
				continue
			}
			heard := 1
			for _, p := range m.node.Peers() {
				if p.Heard {
					heard++
				}
			}
			if heard < running {
				return false
			}
			done[i] = true
		}
		return true
	})
}

// put publishes a register: the latest word of this member under the key.
func (o *ours) put(_ context.Context, replica int, key string, value []byte) error {
	_, err := o.members[replica].node.Publish(fleet.KindRegister, key, value)
	return err
}

func (o *ours) sent() uint64 {
	var sum uint64
	for _, m := range o.members {
		sum += m.meter.out.Load()
	}
	return sum
}

func (o *ours) divide(side func(int) int) {
	o.mu.Lock()
	o.side = side
	o.mu.Unlock()
	for _, m := range o.members {
		if m.node != nil {
			m.node.Recheck()
		}
	}
}

func (o *ours) heal() { o.divide(nil) }

func (o *ours) stop(i int) error {
	m := o.members[i]
	if m.node == nil {
		return nil
	}
	err := m.end()
	m.node, m.store, m.end, m.member.Addresses = nil, nil, nil, nil
	return err
}

func (o *ours) close() error {
	ends := make(chan error, len(o.members))
	for i := range o.members {
		go func() { ends <- o.stop(i) }()
	}
	var errs []error
	for range o.members {
		errs = append(errs, <-ends)
	}
	return errors.Join(errs...)
}
