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

	"github.com/cockroachdb/pebble/v2"
	ipfslite "github.com/hsanjuan/ipfs-lite"
	datastore "github.com/ipfs/go-datastore"
	crdt "github.com/ipfs/go-ds-crdt"
	pebbleds "github.com/ipfs/go-ds-pebble"
	"github.com/libp2p/go-libp2p"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/multiformats/go-multiaddr"
)

const crdtTopic = "statebench"

// crdts are replicas of go-ds-crdt: libp2p, gossipsub, ipfs-lite's DAG service and pebble, as its
// documentation wires them.
type crdts struct {
	folder  string
	watch   *watch
	options crdtOptions
	nodes   []*crdtNode

	mu   sync.Mutex
	side func(replica int) int
}

type crdtOptions struct {
	// fsync every write of the store, which is not its usual wiring.
	fsync bool
	// timeout for fetching a block; 0 is the library's, 5 min.
	timeout time.Duration
	// rebroadcast of heads; 0 is that of its own example, 5 s.
	rebroadcast time.Duration
	// onPut is told of every value that became visible, beside the watch.
	onPut func(replica int, key string)
}

type crdtNode struct {
	key   ed25519.PrivateKey
	id    peer.ID
	path  string
	meter *meter
	// These are nil while it is stopped.
	host  host.Host
	topic func(context.Context, []byte) error
	crdt  *crdt.Datastore
	end   func() error
}

var (
	_ replicas  = (*crdts)(nil)
	_ divisible = (*crdts)(nil)
)

// newCRDTs makes replicas of which none runs yet.
func newCRDTs(folder string, n int, w *watch, options crdtOptions) (*crdts, error) {
	c := &crdts{folder: folder, watch: w, options: options}
	for i := range n {
		key := oursKey(i)
		public, err := crypto.UnmarshalEd25519PublicKey(key.Public().(ed25519.PublicKey))
		if err != nil {
			return nil, err
		}
		id, err := peer.IDFromPublicKey(public)
		if err != nil {
			return nil, err
		}
		c.nodes = append(c.nodes, &crdtNode{key: key, id: id, path: filepath.Join(folder, fmt.Sprintf("crdt-%03d", i)), meter: newMeter()})
	}
	return c, nil
}

// startCRDTs starts all replicas and waits until a first write is everywhere.
func startCRDTs(ctx context.Context, folder string, n int, w *watch, options crdtOptions) (*crdts, error) {
	c, err := newCRDTs(folder, n, w, options)
	if err != nil {
		return nil, err
	}
	for i := range c.nodes {
		if err := c.start(ctx, i); err != nil {
			return nil, errors.Join(err, c.close())
		}
	}
	if err := errors.Join(c.awaitConnected(ctx), c.warm(ctx, n)); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

func (c *crdts) awaitConnected(ctx context.Context) error {
	err := until(ctx, time.Minute, "go-ds-crdt: connections", func() bool {
		for i := range c.nodes {
			if len(c.missing(i)) > 0 {
				return false
			}
		}
		return true
	})
	if err != nil {
		return err
	}
	pause(ctx, 2*time.Second) // two heartbeats of gossipsub make its mesh
	return nil
}

// warm writes one key and waits until everyone who runs has it: from then on nobody begins with nothing.
func (c *crdts) warm(ctx context.Context, running int) error {
	value, token := payload()
	a := c.watch.expect(token, running)
	if err := c.put(ctx, 0, "warm", value); err != nil {
		return err
	}
	if err := a.wait(ctx, time.Minute); err != nil {
		return fmt.Errorf("go-ds-crdt: the first write: %w", err)
	}
	return nil
}

func (c *crdts) start(ctx context.Context, i int) error {
	n := c.nodes[i]
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ends := []func() error{func() error { cancel(); return nil }}
	n.end = func() error {
		var errs []error
		for j := len(ends) - 1; j >= 0; j-- {
			errs = append(errs, ends[j]())
		}
		return errors.Join(errs...)
	}
	var stored []pebbleds.Option
	if c.options.fsync {
		stored = append(stored, pebbleds.WithPebbleWriteOptions(pebble.Sync))
	}
	stores, err := pebbleds.NewDatastore(n.path, stored...)
	if err != nil {
		return errors.Join(err, n.end())
	}
	ends = append(ends, stores.Close)
	h, err := c.newHost(i)
	if err != nil {
		return errors.Join(err, n.end())
	}
	ends = append(ends, h.Close)
	lite, err := ipfslite.New(running, stores, nil, h, nil, &ipfslite.Config{ReprovideInterval: -1})
	if err != nil {
		return errors.Join(err, n.end())
	}
	gossip, err := pubsub.NewGossipSub(running, h, pubsub.WithPeerOutboundQueueSize(1024), pubsub.WithValidateQueueSize(1024))
	if err != nil {
		return errors.Join(err, n.end())
	}
	// The broadcaster has to end before the datastore.
	broadcasting, silence := context.WithCancel(running)
	broadcaster, err := crdt.NewPubSubBroadcaster(broadcasting, gossip, crdtTopic)
	if err != nil {
		silence()
		return errors.Join(err, n.end())
	}
	n.topic = broadcaster.Broadcast
	n.crdt, err = crdt.New(stores, datastore.NewKey("crdt"), lite, broadcaster, c.crdtOptions(i))
	if err != nil {
		silence()
		return errors.Join(err, n.end())
	}
	ends = append(ends, n.crdt.Close, func() error { silence(); return nil })
	c.mu.Lock()
	n.host = h
	c.mu.Unlock()
	go c.dial(broadcasting, i, h)
	return nil
}

func (c *crdts) crdtOptions(i int) *crdt.Options {
	options := crdt.DefaultOptions()
	options.RebroadcastInterval = 5 * time.Second
	if c.options.rebroadcast > 0 {
		options.RebroadcastInterval = c.options.rebroadcast
	}
	if c.options.timeout > 0 {
		options.DAGSyncerTimeout = c.options.timeout
	}
	options.PutHook = func(key datastore.Key, value []byte) {
		c.watch.heard(i, value)
		if c.options.onPut != nil {
			c.options.onPut(i, key.String())
		}
	}
	return options
}

func (c *crdts) newHost(i int) (host.Host, error) {
	n := c.nodes[i]
	key, err := crypto.UnmarshalEd25519PrivateKey(n.key)
	if err != nil {
		return nil, err
	}
	return libp2p.New(
		libp2p.Identity(key),
		libp2p.Transport(tcp.NewTCPTransport, tcp.DisableReuseport()),
		libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"),
		libp2p.BandwidthReporter(n.meter),
		libp2p.ConnectionGater(crdtGate{c, i}),
		libp2p.ConnectionManager(connmgr.NullConnMgr{}),
		libp2p.ResourceManager(&network.NullResourceManager{}),
		libp2p.DisableRelay(),
		libp2p.DisableMetrics(),
		libp2p.DisableIdentifyAddressDiscovery(),
		libp2p.Ping(false),
	)
}

// dial connects to whom this replica dials, again and again: the library leaves that to its user.
func (c *crdts) dial(ctx context.Context, i int, h host.Host) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, target := range c.missing(i) {
			if s, ok := h.Network().(*swarm.Swarm); ok {
				s.Backoff().Clear(target.ID)
			}
			_ = h.Connect(ctx, target) // the next round tries again
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// missing are those whom a replica dials and is not connected with.
func (c *crdts) missing(i int) []peer.AddrInfo {
	c.mu.Lock()
	defer c.mu.Unlock()
	var targets []peer.AddrInfo
	for _, j := range dialled(i, len(c.nodes)) {
		other := c.nodes[j]
		if other.host == nil || c.nodes[i].host == nil || c.apart(i, j) {
			continue
		}
		if c.nodes[i].host.Network().Connectedness(other.id) != network.Connected {
			targets = append(targets, peer.AddrInfo{ID: other.id, Addrs: other.host.Addrs()})
		}
	}
	return targets
}

// apart is called with mu held.
func (c *crdts) apart(i, j int) bool { return c.side != nil && c.side(i) != c.side(j) }

func (c *crdts) put(ctx context.Context, replica int, key string, value []byte) error {
	return c.nodes[replica].crdt.Put(ctx, datastore.NewKey(key), value)
}

func (c *crdts) get(ctx context.Context, replica int, key string) ([]byte, error) {
	return c.nodes[replica].crdt.Get(ctx, datastore.NewKey(key))
}

func (c *crdts) sent() uint64 {
	var sum uint64
	for _, n := range c.nodes {
		sum += n.meter.out.Load()
	}
	return sum
}

func (c *crdts) divide(side func(int) int) {
	c.mu.Lock()
	c.side = side
	var cut []func()
	for i, a := range c.nodes {
		for j, b := range c.nodes {
			if a.host != nil && c.apart(i, j) {
				cut = append(cut, func() { _ = a.host.Network().ClosePeer(b.id) })
			}
		}
	}
	c.mu.Unlock()
	for _, f := range cut {
		f()
	}
}

func (c *crdts) heal() { c.divide(nil) }

func (c *crdts) stop(i int) error {
	n := c.nodes[i]
	if n.host == nil {
		return nil
	}
	c.mu.Lock()
	n.host = nil // nobody dials it any more
	c.mu.Unlock()
	err := n.end()
	n.crdt, n.topic = nil, nil
	return err
}

func (c *crdts) close() error {
	var errs []error
	for i := range c.nodes {
		errs = append(errs, c.stop(i))
	}
	return errors.Join(errs...)
}

// crdtGate keeps the sides of a partition apart.
type crdtGate struct {
	c       *crdts
	replica int
}

var _ connmgr.ConnectionGater = crdtGate{}

func (g crdtGate) allow(id peer.ID) bool {
	g.c.mu.Lock()
	defer g.c.mu.Unlock()
	for j, n := range g.c.nodes {
		if n.id == id {
			return !g.c.apart(g.replica, j)
		}
	}
	return true
}

func (g crdtGate) InterceptPeerDial(id peer.ID) bool                               { return g.allow(id) }
func (g crdtGate) InterceptAddrDial(peer.ID, multiaddr.Multiaddr) bool             { return true }
func (g crdtGate) InterceptAccept(network.ConnMultiaddrs) bool                     { return true }
func (g crdtGate) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }

func (g crdtGate) InterceptSecured(_ network.Direction, id peer.ID, _ network.ConnMultiaddrs) bool {
	return g.allow(id)
}
