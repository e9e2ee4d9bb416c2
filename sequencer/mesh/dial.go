// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

const (
	// dialsAtOnce bounds how many members are dialled at the same time.
	dialsAtOnce = 16
	// roamEvery so often the connection that roams goes on.
	roamEvery = 5 * 60 // seconds
	// shedAfter so many times DialMax a connection that is not wanted any more is ended.
	shedAfter = 4
)

// attempt is how dialling one member stands.
type attempt struct {
	running bool
	pause   time.Duration
	next    time.Time
	// reached is when the last successful one ended.
	reached time.Time
	// failed: the last one did not get there.
	failed bool
}

// recheck ends connections that are no longer allowed and wakes who depends on the roster.
func (w *wire) recheck() {
	w.closeRefused()
	w.rechecks.Add(1)
	wake(w.dialNow)
	wake(w.topicsNow)
	wake(w.sharesNow)
	if interval := w.ownInterval(); w.interval.Swap(int64(interval)) != int64(interval) {
		wake(w.retime)
	}
}

func (w *wire) closeRefused() {
	for _, id := range w.host.Network().Peers() {
		if !w.allows(id) {
			_ = w.host.Network().ClosePeer(id)
		}
	}
}

// dial keeps a connection to every member that was chosen. The state of all attempts is this goroutine's own.
func (w *wire) dial(ctx context.Context) {
	d := dialler{wire: w, attempts: map[fleet.MemberID]*attempt{}, idle: map[peer.ID]time.Time{}, ended: make(chan dialled)}
	defer w.save()
	defer d.work.Wait()
	w.announce()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case end := <-d.ended:
			d.settle(end)
		case <-w.flood.shun:
			w.closeRefused()
		case <-w.dialNow:
			if asked := w.rechecks.Load(); asked != d.rechecked {
				d.rechecked = asked
				d.forgetPauses()
				w.announce()
				d.directory = nil
			}
		case <-timer.C:
		}
		timer.Reset(d.start(ctx))
	}
}

type dialler struct {
	*wire
	attempts  map[fleet.MemberID]*attempt
	idle      map[peer.ID]time.Time // since when a connection is not chosen any more
	running   int
	rechecked uint64
	ended     chan dialled
	work      sync.WaitGroup

	// directory of the roster; nil where it is out of date. plan is made from it.
	directory *directory
	plan      []slot
	// ins are the zones of whose stand-ins this member is one.
	ins []string
	// toldOf, carriedOf, round and planned are what the plan was made of, and when.
	toldOf, carriedOf, round uint64
	planned                  time.Time
	savedAt                  time.Time
}

// start dials who is due, and gives the time until somebody else is.
func (d *dialler) start(ctx context.Context) time.Duration {
	wait := d.cfg.DialMax
	d.replan()
	d.standIn()
	chosen := choose(d.plan, d.stands)
	d.shed(chosen)
	for _, member := range chosen {
		id, err := peerID(member)
		if err != nil || d.host.Network().Connectedness(id) == network.Connected {
			continue
		}
		a := d.attempts[member]
		if a == nil {
			a = &attempt{}
			d.attempts[member] = a
		}
		if a.running || d.running >= dialsAtOnce {
			continue
		}
		if left := time.Until(a.next); left > 0 {
			wait = min(wait, left)
			continue
		}
		a.running = true
		d.running++
		d.work.Go(func() {
			select {
			case d.ended <- dialled{member, d.dialOne(ctx, member, id)}:
			case <-ctx.Done():
			}
		})
	}
	if now := time.Now(); now.Sub(d.savedAt) > d.cfg.DialMax {
		d.savedAt = now
		d.save()
	}
	return wait
}

// replan where the roster, what is announced or carried, or the round is another. Members that announce in turn make it
// no busier than DialMin. Which zones this member stands in for follows from the same directory.
func (d *dialler) replan() {
	now, told, carriedAnew := time.Now(), d.book.told.Load(), d.carriedAnew.Load()
	// Not everyone's at the same moment.
	round := (uint64(now.Unix()) + markOf(string(d.id))%roamEvery) / roamEvery
	if d.directory != nil && round == d.round && carriedAnew == d.carriedOf && (told == d.toldOf || now.Sub(d.planned) < d.cfg.DialMin) {
		return
	}
	if d.directory == nil || told != d.toldOf {
		d.directory = newDirectory(d.roster().Members(), d.reachable)
		d.ins = d.directory.standsIn(d.id)
	}
	pinned := slices.Sorted(maps.Keys(d.book.pinned))
	d.plan = plan(surroundings{self: d.id, directory: d.directory, pinned: pinned, carried: d.zonesAsked(), round: round})
	d.toldOf, d.carriedOf, d.round, d.planned = told, carriedAnew, round, now
}

// standIn for zones that have no anchors, or none that is up: their members meet here, and what they say to each other is
// carried from one to the other. Where everybody carries everything it is anyway.
func (d *dialler) standIn() {
	var zones []string
	if len(d.ins) > 0 && len(d.directory.zoneOf) > d.cfg.Flat {
		var connected []fleet.MemberID
		for _, id := range d.host.Network().Peers() {
			connected = append(connected, fleet.MemberID(id.String()))
		}
		d.setMu.RLock()
		stood := d.stood
		d.setMu.RUnlock()
		for _, zone := range d.ins {
			if d.directory.deserted(zone, connected, stood[zone]) {
				zones = append(zones, zone)
			}
		}
	}
	d.carry(&d.stood, zones)
}

// stands says how this member stands with another one.
func (d *dialler) stands(member fleet.MemberID) footing {
	id, err := peerID(member)
	if err != nil || !d.allows(id) {
		return barred
	}
	if d.host.Network().Connectedness(id) == network.Connected {
		return open
	}
	if a := d.attempts[member]; a != nil && a.failed {
		return failing
	}
	return open
}

// parted is why a connection ends that is not needed any more, said to the other side: none of the two is lost.
const parted = network.ConnGarbageCollected

// shed ends connections dialled here that stood in for others, or roamed, a while after they are not chosen any
// more. The other side dials if it wants this member.
func (d *dialler) shed(chosen []fleet.MemberID) {
	now, idle := time.Now(), map[peer.ID]time.Time{}
	for _, c := range d.host.Network().Conns() {
		id := c.RemotePeer()
		if c.Stat().Direction != network.DirOutbound || slices.Contains(chosen, fleet.MemberID(id.String())) {
			continue
		}
		since, ok := d.idle[id]
		switch {
		case !ok:
			idle[id] = now
		case now.Sub(since) > shedAfter*d.cfg.DialMax:
			_ = c.CloseWithError(parted)
		default:
			idle[id] = since
		}
	}
	d.idle = idle
}

// dialled is the end of one attempt.
type dialled struct {
	id  fleet.MemberID
	err error
}

func (d *dialler) settle(end dialled) {
	a := d.attempts[end.id]
	d.running--
	now := time.Now()
	// A connection that did not live longer than the longest pause counts as a failure.
	a.running, a.failed = false, end.err != nil || now.Sub(a.reached) <= d.cfg.DialMax
	if !a.failed {
		a.pause = 0
	}
	if end.err == nil {
		a.reached = now
	}
	a.pause = min(max(2*a.pause, d.cfg.DialMin), d.cfg.DialMax)
	a.next = now.Add(jitter(a.pause))
}

func (d *dialler) forgetPauses() {
	for id, a := range d.attempts {
		if !a.running {
			delete(d.attempts, id)
			continue
		}
		a.pause = 0
	}
}

// jitter is d +-50 %, so that members that lost each other together do not come back together.
func jitter(d time.Duration) time.Duration {
	return d/2 + rand.N(d+1)
}

var errNoAddress = errors.New("no address, or no name of one resolves")

func (w *wire) dialOne(ctx context.Context, member fleet.MemberID, id peer.ID) error {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.DialTimeout)
	defer cancel()
	addresses := w.addresses(ctx, member)
	// Only these addresses, and only our own pauses. Of several, libp2p tries QUIC first and TCP a moment later.
	w.host.Peerstore().ClearAddrs(id)
	w.host.Peerstore().AddAddrs(id, addresses, peerstore.TempAddrTTL)
	if s, ok := w.host.Network().(*swarm.Swarm); ok {
		s.Backoff().Clear(id)
	}
	err := errNoAddress
	if len(addresses) > 0 {
		var c network.Conn
		if c, err = w.host.Network().DialPeer(ctx, id); err == nil && c.Stat().Direction == network.DirOutbound {
			w.remember(member, c.RemoteMultiaddr())
		}
	}
	if err != nil {
		w.cfg.Log.V(1).Info("member not reached", "peer", id, "why", err.Error())
	}
	return err
}
