// SPDX-License-Identifier: Apache-2.0

// Package mesh answers: what do the other members say, and how do they hear what we say?
//
// A [Node] keeps a member's copy of the fleet's state and lets it converge with everyone else's, with
// no member in the middle. What a member says is a signed record. It is on its own disk before anybody
// hears of it, travels by gossip, and is repaired by reconciliation: on every new connection, every so
// often with a random member, and when a beat or a heartbeat shows that another member holds a different set.
// Gossip may lose anything; reconciliation is what makes the sets equal.
//
// Every record from outside passes the same checks, whichever way it came (check.go). Who is not on the
// roster is not even connected (host.go). In the order of reading: config.go, mesh.go, commit.go,
// check.go, gossip.go, sync.go, peers.go;
// for who is there: pace.go, lives.go, beat.go, heartbeat.go, notice.go.
package mesh

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
)

// metaEpoch is where the store keeps the epoch of the last start.
const metaEpoch = "mesh.epoch"

// Node is one member's end of the mesh. All methods are safe for concurrent use; Publish, Adopt, View
// and the like work before Run and without it, and what was said then is told once Run connects.
type Node struct {
	cfg    Config
	id     fleet.MemberID
	nonce  [16]byte
	counts counters

	rosterNow atomic.Pointer[Roster]

	// commitMu is held by whoever changes the set, from the decision to the disk to memory. It guards
	// epoch, seq and raises, and is taken before setMu.
	commitMu   sync.Mutex
	epoch, seq uint64
	raises     int
	// doubled: somebody else writes with this key, now.
	doubled atomic.Bool
	// setMu guards set. Under its read lock the set's fingerprints are settled, so that reading does
	// not write.
	setMu sync.RWMutex
	set   *lattice.Set

	fresh  queue[fleet.Record] // for OnNews
	outbox queue[fleet.Record] // for gossip
	life   lives
	// born is New's moment, counted the last counter of a beat or a heartbeat.
	born    time.Time
	counted atomic.Uint64
	book    book
	flood   *flood

	started atomic.Bool
	ready   chan struct{}
	// running is nil before Run listens and after it ends.
	running atomic.Pointer[wire]
}

// New loads the store and fixes the epoch of this process. It starts nothing and opens no socket.
func New(cfg Config) (*Node, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	n := &Node{
		cfg:    cfg,
		id:     fleet.MemberIDOf(cfg.Key.Public().(ed25519.PublicKey)),
		fresh:  newQueue[fleet.Record](),
		outbox: newQueue[fleet.Record](),
		ready:  make(chan struct{}),
		born:   time.Now(),
	}
	n.life.begin(n.id, n.pace())
	n.rosterNow.Store(&cfg.Roster)
	n.flood = newFlood(n)
	if _, err := rand.Read(n.nonce[:]); err != nil {
		return nil, fmt.Errorf("mesh: drawing a nonce: %w", err)
	}
	set, quarantined, err := cfg.Store.Load()
	if err != nil {
		return nil, fmt.Errorf("mesh: %w", err)
	}
	n.counts.quarantined.Store(uint64(quarantined))
	n.set = set
	n.share()
	if err := errors.Join(n.beginEpoch(), n.newBook()); err != nil {
		return nil, err
	}
	return n, nil
}

// beginEpoch takes an epoch above every one that this member is known to have used, and at least the
// wall clock, so that a member with an empty disk speaks after what it said before it lost it.
func (n *Node) beginEpoch() error {
	held, err := n.cfg.Store.Meta(metaEpoch)
	if err != nil {
		return fmt.Errorf("mesh: %w", err)
	}
	epoch := uint64(max(n.cfg.Now().Unix(), 1))
	if len(held) == 8 {
		epoch = max(epoch, binary.BigEndian.Uint64(held)+1)
	}
	for r := range n.set.All() {
		if r.Writer == n.id {
			epoch = max(epoch, r.Epoch+1)
		}
	}
	return n.setEpoch(epoch)
}

// setEpoch is called with commitMu held, or before anyone else knows the node.
func (n *Node) setEpoch(epoch uint64) error {
	if err := n.cfg.Store.SetMeta(metaEpoch, binary.BigEndian.AppendUint64(nil, epoch)); err != nil {
		return fmt.Errorf("mesh: keeping the epoch: %w", err)
	}
	n.epoch, n.seq = epoch, 0
	return nil
}

// ID is the member's own.
func (n *Node) ID() fleet.MemberID { return n.id }

// Ready is closed when Run listens.
func (n *Node) Ready() <-chan struct{} { return n.ready }

// Root names the set of records held: two members with equal roots hold equal sets.
func (n *Node) Root() fleet.Digest {
	n.setMu.RLock()
	defer n.setMu.RUnlock()
	return n.set.Root()
}

// View lets look read the records held. look must not keep the set, add to it, or call the node.
func (n *Node) View(look func(*lattice.Set)) {
	n.setMu.RLock()
	defer n.setMu.RUnlock()
	look(n.set)
}

func (n *Node) roster() Roster { return *n.rosterNow.Load() }

// SetRoster puts another roster in place. Connections to who is no longer on it are closed, who is new is
// dialled at once, and waiting times of the others begin anew.
func (n *Node) SetRoster(roster Roster) {
	n.commitMu.Lock()
	n.setMu.Lock()
	n.rosterNow.Store(&roster)
	n.share()
	n.setMu.Unlock()
	n.commitMu.Unlock()
	n.life.keep(roster)
	n.flood.keep(roster)
	n.Recheck()
}

// Recheck asks the roster and Allow again about every connection, and dials at once who is missing.
func (n *Node) Recheck() {
	if w := n.running.Load(); w != nil {
		w.recheck()
	}
}

// share divides the set by the roster and by what this member carries.
func (n *Node) share() {
	roster := n.roster()
	n.set.Divide(lattice.Division{ZoneOf: func(writer fleet.MemberID) (string, bool) {
		m, ok := roster.Member(writer)
		return m.Zone, ok
	}})
	n.set.Root()
}

// carried is what this member tells the side it reconciles with.
func (n *Node) carried() carried {
	n.setMu.RLock()
	defer n.setMu.RUnlock()
	c := carried{everything: true}
	for _, share := range n.set.Shares() {
		c.shares = append(c.shares, sharePrint{share, n.set.ShareRoot(share)})
	}
	return c
}

// Run connects the node to the mesh until ctx ends, which is no error. It can be called once.
func (n *Node) Run(ctx context.Context) error {
	if !n.started.CompareAndSwap(false, true) {
		return errors.New("mesh: a node runs once")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w, err := n.connect(ctx)
	if err != nil {
		return err
	}
	w.updateZones(ctx)
	n.running.Store(w)
	close(n.ready)
	n.cfg.Log.Info("mesh is up", "member", n.id, "addresses", n.Addresses())

	var work sync.WaitGroup
	for _, loop := range []func(context.Context){
		n.tellNews, w.ingest, w.tellOthers, w.followZones, w.heartbeats, w.tend, w.dial, w.reconcileLoop,
	} {
		work.Go(func() { loop(ctx) })
	}
	<-ctx.Done()
	n.running.Store(nil)
	err = w.close()
	work.Wait()
	return err
}

// tellNews calls OnNews, in the order in which the set changed.
func (n *Node) tellNews(ctx context.Context) {
	for {
		records, ok := n.fresh.wait(ctx)
		if !ok {
			return
		}
		n.heardOf(records)
		if n.cfg.OnNews != nil {
			n.cfg.OnNews(records)
		}
	}
}

// queue hands over what was put in, in order, all at once. It never blocks who puts.
type queue[T any] struct {
	mu    sync.Mutex
	items []T
	some  chan struct{}
}

func newQueue[T any]() queue[T] { return queue[T]{some: make(chan struct{}, 1)} }

func (q *queue[T]) put(items ...T) {
	if len(items) == 0 {
		return
	}
	q.mu.Lock()
	q.items = append(q.items, items...)
	q.mu.Unlock()
	select {
	case q.some <- struct{}{}:
	default:
	}
}

// wait gives what is there as soon as there is any; false when ctx ended.
func (q *queue[T]) wait(ctx context.Context) ([]T, bool) {
	for {
		select {
		case <-ctx.Done():
			return nil, false
		case <-q.some:
		}
		if items := q.take(); len(items) > 0 {
			return items, true
		}
	}
}

func (q *queue[T]) take() []T {
	q.mu.Lock()
	defer q.mu.Unlock()
	items := q.items
	q.items = nil
	return items
}
