// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/multiformats/go-multiaddr"
)

// dialsAtOnce bounds how many members are dialled at the same time.
const dialsAtOnce = 16

// attempt is how dialling one member stands.
type attempt struct {
	running bool
	pause   time.Duration
	next    time.Time
	// reached is when the last successful one ended.
	reached time.Time
}

// recheck ends connections that are no longer allowed and wakes who depends on the roster.
func (w *wire) recheck() {
	for _, id := range w.host.Network().Peers() {
		if !w.allows(id) {
			_ = w.host.Network().ClosePeer(id)
		}
	}
	w.rechecks.Add(1)
	wake(w.dialNow)
	wake(w.zonesNow)
	if interval := w.ownInterval(); w.interval.Swap(int64(interval)) != int64(interval) {
		wake(w.retime)
	}
}

// dial keeps a connection to every member that has addresses. The state of all attempts is this
// goroutine's own.
func (w *wire) dial(ctx context.Context) {
	d := dialler{wire: w, attempts: map[peer.ID]*attempt{}, ended: make(chan dialled)}
	defer d.work.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case end := <-d.ended:
			d.settle(end)
		case <-w.dialNow:
			if asked := w.rechecks.Load(); asked != d.rechecked {
				d.rechecked = asked
				d.forgetPauses()
			}
		case <-timer.C:
		}
		timer.Reset(d.start(ctx))
	}
}

type dialler struct {
	*wire
	attempts  map[peer.ID]*attempt
	running   int
	rechecked uint64
	ended     chan dialled
	work      sync.WaitGroup
}

// start dials who is due, and gives the time until somebody else is.
func (d *dialler) start(ctx context.Context) time.Duration {
	wait := d.cfg.DialMax
	for _, target := range d.missing() {
		a := d.attempts[target.ID]
		if a == nil {
			a = &attempt{}
			d.attempts[target.ID] = a
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
			case d.ended <- dialled{target.ID, d.dialOne(ctx, target)}:
			case <-ctx.Done():
			}
		})
	}
	return wait
}

// dialled is the end of one attempt.
type dialled struct {
	id  peer.ID
	err error
}

func (d *dialler) settle(end dialled) {
	a := d.attempts[end.id]
	a.running = false
	d.running--
	now := time.Now()
	// A connection that did not live longer than the longest pause counts as a failure.
	if end.err == nil && now.Sub(a.reached) > d.cfg.DialMax {
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

// missing are the members that can be dialled, may be, and are not connected.
func (w *wire) missing() []peer.AddrInfo {
	var targets []peer.AddrInfo
	for _, member := range w.roster().Members() {
		if member.ID == w.id || len(member.Addresses) == 0 {
			continue
		}
		id, err := peerID(member.ID)
		if err != nil || !w.allows(id) || w.host.Network().Connectedness(id) == network.Connected {
			continue
		}
		target := peer.AddrInfo{ID: id}
		for _, text := range member.Addresses {
			address, err := multiaddr.NewMultiaddr(text)
			if err != nil {
				continue // the roster's reader says so; the other addresses may do
			}
			if transport, _ := peer.SplitAddr(address); transport != nil {
				target.Addrs = append(target.Addrs, transport)
			}
		}
		if len(target.Addrs) > 0 {
			targets = append(targets, target)
		}
	}
	return targets
}

func (w *wire) dialOne(ctx context.Context, target peer.AddrInfo) error {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.DialTimeout)
	defer cancel()
	// Only the roster's addresses, and only our own pauses.
	w.host.Peerstore().ClearAddrs(target.ID)
	w.host.Peerstore().AddAddrs(target.ID, target.Addrs, peerstore.TempAddrTTL)
	if s, ok := w.host.Network().(*swarm.Swarm); ok {
		s.Backoff().Clear(target.ID)
	}
	_, err := w.host.Network().DialPeer(ctx, target.ID)
	if err != nil {
		w.cfg.Log.V(1).Info("member not reached", "peer", target.ID, "why", err.Error())
	}
	return err
}
