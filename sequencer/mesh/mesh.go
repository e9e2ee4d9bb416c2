// SPDX-License-Identifier: Apache-2.0

// Package mesh answers: what do the other members say, and how do they hear what we say?
//
// A [Node] keeps a member's copy of the fleet's state and lets it converge with everyone else's, with
// no member in the middle. What a member says is a signed record. It is on its own disk before anybody
// hears of it, travels by gossip, and is repaired by reconciliation: on every new connection, every so
// often with a random member, and when a beat or a heartbeat shows that another member holds a different set.
// Gossip may lose anything; reconciliation is what makes the sets equal.
//
// The state is divided into shares; a small fleet's members carry all of them, a large one's those of their
// zone and those that they ask for (carry.go). Every record from outside passes the same checks, whichever
// way it came (check.go). Who is not on the roster is not even connected (host.go). In the order of reading:
// config.go, mesh.go, epoch.go, commit.go, statement.go, check.go, carry.go, gossip.go, sync.go, peers.go;
// for who is there: pace.go, lives.go, beat.go, heartbeat.go, notice.go,
// hearsay.go.
package mesh

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
)

// Node is one member's end of the mesh. All methods are safe for concurrent use; Publish, Adopt, View
// and the like work before Run and without it, and what was said then is told once Run connects.
type Node struct {
	cfg    Config
	id     fleet.MemberID
	nonce  [16]byte
	counts counters

	rosterNow atomic.Pointer[Roster]

	// commitMu is held by whoever changes the set, from the decision to the disk to memory. It guards what
	// stands below it up to doubled, and is taken before setMu.
	commitMu   sync.Mutex
	epoch, seq uint64
	raises     int
	// leaving are records that are not in the set any more and still on disk.
	leaving map[fleet.Digest]fleet.Record
	// unprovable are forked members that cannot be accused; over are those whose quota was flagged.
	unprovable, over map[fleet.MemberID]bool
	// uncarried are shares that the last sweep found in the set and not carried.
	uncarried map[lattice.Share]bool
	// doubled: somebody else writes with this key, now.
	doubled atomic.Bool
	// setMu guards set, asked, stood and carries. Under its read lock the set's fingerprints are settled, so that
	// reading does not write.
	setMu sync.RWMutex
	set   *lattice.Set
	// asked are the zones of the last Carry, stood those for which this member stands in; carries says what this
	// member carries by them and the roster. carriedAnew goes up when either is another.
	asked, stood map[string]bool
	carries      carries
	carriedAnew  atomic.Uint64

	// blobsMu guards unnamed, the blobs that the last sweep found no seal to name.
	blobsMu sync.Mutex
	unnamed map[fleet.Digest]bool

	// showMu is held while a consumer looks at records. It guards what stands below it up to undecoded after New.
	showMu      sync.Mutex
	quarantined map[fleet.Digest]bool
	suspects    []fleet.Digest
	// unread did not read back from disk and have not come again; undecoded are commands refused because a decoder panicked.
	unread    map[placed]Withheld
	undecoded map[fleet.Digest]bool

	fresh   queue[change]       // for OnNews, OnDropped and OnWithheld
	outbox  queue[fleet.Record] // for gossip
	stated  queue[*statement]   // by Publish and Adopt, to be written
	life    lives
	told    announcements
	settle  settling
	flights flights
	// bodies is fleet.CheckBody; decoders meet what others wrote. forms and judgedSince are fleet's, too.
	bodies      func(*fleet.Record) error
	forms       uint8
	judgedSince func(*fleet.Record) uint8
	// born is New's moment, counted the last counter of a beat or a heartbeat.
	born    time.Time
	counted atomic.Uint64
	book    book
	flood   *flood
	line    ownLine

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
		cfg:        cfg,
		id:         fleet.MemberIDOf(cfg.Key.Public().(ed25519.PublicKey)),
		fresh:      newQueue[change](),
		outbox:     newQueue[fleet.Record](),
		stated:     newQueue[*statement](),
		leaving:    map[fleet.Digest]fleet.Record{},
		unprovable: map[fleet.MemberID]bool{},
		over:       map[fleet.MemberID]bool{},
		bodies:     fleet.CheckBody,
		forms:      fleet.Forms, judgedSince: fleet.JudgedSince,
		ready: make(chan struct{}),
		born:  time.Now(),
	}
	n.told.begin()
	n.flights.begin()
	n.settle.begin()
	n.line.begin()
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
	n.divide(n.set)
	if err := errors.Join(n.beginEpoch(), n.newBook(), n.beginSuspects(), n.beginUnread()); err != nil {
		return nil, err
	}
	n.age()
	return n, nil
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
// dialled at once, and waiting times of the others begin anew. What this member carries follows the roster.
func (n *Node) SetRoster(roster Roster) {
	n.commitMu.Lock()
	n.setMu.Lock()
	n.rosterNow.Store(&roster)
	begun := n.divide(n.set)
	n.setMu.Unlock()
	n.commitMu.Unlock()
	n.life.keep(roster)
	n.flood.keep(roster)
	n.told.keep(roster)
	n.told.wantMore(begun)
	n.settle.look(n)
	n.Recheck()
}

// Recheck asks the roster and Allow again about every connection, and dials at once who is missing.
func (n *Node) Recheck() {
	if w := n.running.Load(); w != nil {
		w.recheck()
	}
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
	w.updateTopics(ctx)
	n.running.Store(w)
	close(n.ready)
	n.cfg.Log.Info("mesh is up", "member", n.id, "addresses", n.Addresses())

	var work sync.WaitGroup
	for _, loop := range []func(context.Context){
		n.tellNews, n.tidy, n.settleInTime, w.ingest, w.tellOthers, w.followTopics, w.heartbeats, w.tend, w.askAround, w.dial, w.reconcileLoop,
	} {
		work.Go(func() { loop(ctx) })
	}
	<-ctx.Done()
	n.running.Store(nil)
	err = w.close()
	work.Wait()
	return err
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
