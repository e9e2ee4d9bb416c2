// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/x/rate"
	"github.com/multiformats/go-multiaddr"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// wire is a node while it is connected: what lives from Run's start to its end.
type wire struct {
	*Node
	host   host.Host
	pubsub *pubsub.PubSub

	// incoming are verified records from gossip on their way to disk.
	incoming chan []fleet.Record
	// asks are reconciliations that somebody thinks are due.
	asks   chan ask
	topics topicTable
	// following are the topics that are followed: first Run's, then followTopics' alone.
	following map[string]followed
	// dialNow, topicsNow, sharesNow and tendNow wake a loop: the roster, the connections or what is carried are
	// others. beatNow asks for a heartbeat at once, retime for another interval.
	dialNow, topicsNow, sharesNow, tendNow, beatNow, retime chan struct{}
	rechecks                                                atomic.Uint64

	// handlersMu guards closing and the start of handlers, which are libp2p's goroutines: none begins
	// once close has begun, and close waits for the others.
	handlersMu sync.Mutex
	closing    bool
	handlers   sync.WaitGroup
	serving    map[peer.ID]bool
	// asked is when each member began, or ended, a reconciliation with this one last.
	askedAt map[peer.ID]time.Time
	links   map[peer.ID]int
	// whomBy and whomAll bound the questions of whom this member heard.
	whomBy  map[peer.ID]*bucket
	whomAll bucket

	// scored: gossipsub scores its neighbours.
	scored bool

	// behindMu guards behind: which life is behind each connection, as far as it has said hello.
	behindMu sync.Mutex
	behind   map[string]lifeID

	// doubleAt is when another agent with this key was answered last: 0 if none was ever heard of, 1 if one was never
	// answered.
	doubleAt atomic.Int64
	// voice is this member's last heartbeat.
	voice atomic.Pointer[voice]
	// interval of this member's heartbeats when it was asked for last.
	interval atomic.Int64
}

// connect builds the host and its protocols.
func (n *Node) connect(ctx context.Context) (*wire, error) {
	h, err := n.newHost()
	if err != nil {
		return nil, fmt.Errorf("mesh: listening at %v: %w", n.cfg.Listen, err)
	}
	w := &wire{
		Node: n, host: h,
		incoming:  make(chan []fleet.Record, 64),
		asks:      make(chan ask, 256),
		dialNow:   make(chan struct{}, 1),
		topicsNow: make(chan struct{}, 1),
		sharesNow: make(chan struct{}, 1),
		tendNow:   make(chan struct{}, 1),
		beatNow:   make(chan struct{}, 1),
		retime:    make(chan struct{}, 1),
		links:     map[peer.ID]int{},
		whomBy:    map[peer.ID]*bucket{},
		whomAll:   bucket{size: whomOfAll, every: n.cfg.Beat / allInBeat},
		serving:   map[peer.ID]bool{},
		askedAt:   map[peer.ID]time.Time{},
		behind:    map[string]lifeID{},
		topics:    topicTable{joined: map[string]*pubsub.Topic{}},
		following: map[string]followed{},
		scored:    n.flood.scored(),
	}
	if w.pubsub, err = w.newGossip(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("mesh: gossip: %w", err), h.Close())
	}
	w.handle(syncProtocol, w.serveSync)
	w.handle(syncBefore, w.serveSync)
	w.handle(blobProtocol, w.serveBlob)
	w.handle(beatProtocol, w.serveBeat)
	w.handle(beatBefore, w.serveBeat)
	w.handle(hearsayProtocol, w.serveHearsay)
	h.Network().Notify(&network.NotifyBundle{
		ConnectedF:    func(_ network.Network, c network.Conn) { w.connected(c) },
		DisconnectedF: func(_ network.Network, c network.Conn) { w.disconnected(c) },
	})
	return w, nil
}

// close ends the host and waits for its handlers, so that nobody touches the store after Run.
func (w *wire) close() error {
	w.handlersMu.Lock()
	w.closing = true
	w.handlersMu.Unlock()
	err := w.host.Close()
	w.handlers.Wait()
	return err
}

// handle serves a protocol. A handler has the stream until it returns.
func (w *wire) handle(id protocol.ID, serve func(network.Stream) error) {
	w.host.SetStreamHandler(id, func(s network.Stream) {
		w.handlersMu.Lock()
		if w.closing {
			w.handlersMu.Unlock()
			_ = s.Reset()
			return
		}
		w.handlers.Add(1)
		w.handlersMu.Unlock()
		defer w.handlers.Done()
		if err := w.flood.stream(s.Conn().RemotePeer()); err != nil {
			_ = s.Reset()
			return
		}
		if err := serve(s); err != nil {
			w.cfg.Log.V(1).Info("stream ended", "protocol", id, "peer", s.Conn().RemotePeer(), "why", err.Error())
			_ = s.Reset()
			return
		}
		_ = s.Close()
	})
}

// open opens a stream over a connection that is there: dialling is the dialler's business. The other side speaks the first
// protocol that it knows.
func (w *wire) open(ctx context.Context, id peer.ID, protocols ...protocol.ID) (network.Stream, error) {
	return w.host.NewStream(network.WithNoDial(ctx, "only the dialler dials"), id, protocols...)
}

// connected begins a reconciliation on a new connection, from the side that dialled.
func (w *wire) connected(c network.Conn) {
	if c.Stat().Direction == network.DirOutbound {
		w.askFor(ask{peer: c.RemotePeer(), urgent: true})
	}
	wake(w.dialNow)
	wake(w.tendNow)
}

func (w *wire) disconnected(c network.Conn) {
	w.behindMu.Lock()
	delete(w.behind, c.ID())
	w.behindMu.Unlock()
	if w.host.Network().Connectedness(c.RemotePeer()) != network.Connected {
		w.flood.parted(c.RemotePeer())
		w.handlersMu.Lock()
		delete(w.askedAt, c.RemotePeer())
		w.handlersMu.Unlock()
	}
	wake(w.dialNow)
}

// met notes which life of a member is behind a connection, and what it showed.
func (w *wire) met(c network.Conn, life lifeID, root fleet.Digest) {
	member := fleet.MemberID(c.RemotePeer().String())
	w.life.met(member, life, root, w.sameAs(member, shownWhole(root)), w.now())
	w.endOthers(c, life)
}

// endOthers ends the connections to other lives of a member than the one behind this one. After a restart they are
// dead and only not known to be; gossipsub would go on speaking into them, as it keeps one stream for each peer. Two
// agents with one key take each other's connections in turn, which flags them; then both may stay.
func (w *wire) endOthers(c network.Conn, life lifeID) {
	id := c.RemotePeer()
	var dead []network.Conn
	w.behindMu.Lock()
	if !c.IsClosed() {
		w.behind[c.ID()] = life
	}
	for _, other := range w.host.Network().ConnsToPeer(id) {
		if earlier, known := w.behind[other.ID()]; known && earlier != life {
			dead = append(dead, other)
		}
	}
	w.behindMu.Unlock()
	if w.life.flagged(fleet.MemberID(id.String()), w.now()) {
		return
	}
	for _, other := range dead {
		_ = other.Close()
	}
}

func wake(sleeper chan struct{}) {
	select {
	case sleeper <- struct{}{}:
	default:
	}
}

// newHost listens over tcp and quic-v1 with the member's key, and does nothing that was not asked for:
// no relay, no port mapping, no discovery, no ping, no metrics.
func (n *Node) newHost() (host.Host, error) {
	key, err := crypto.UnmarshalEd25519PrivateKey(n.cfg.Key)
	if err != nil {
		return nil, err
	}
	limits, err := n.resourceLimits()
	if err != nil {
		return nil, err
	}
	h, err := libp2p.New(append([]libp2p.Option{
		libp2p.Identity(key),
		libp2p.Transport(quic.NewTransport),
		// Sharing a port helps hole punching, and would let two agents listen at one address unnoticed.
		libp2p.Transport(tcp.NewTCPTransport, tcp.DisableReuseport()),
		libp2p.NoListenAddrs, // below: a host that cannot listen would be left half built
		libp2p.ConnectionGater(gater{n}),
		libp2p.ConnectionManager(connmgr.NullConnMgr{}), // the roster bounds connections
		libp2p.ResourceManager(limits),
		libp2p.DisableRelay(),
		libp2p.DisableMetrics(),
		libp2p.DisableIdentifyAddressDiscovery(),
		libp2p.Ping(false),
		libp2p.WithDialTimeout(n.cfg.DialTimeout),
		// A member whose site lost its network for an hour must not be held to be without UDP afterwards.
		libp2p.UDPBlackHoleSuccessCounter(nil),
		libp2p.IPv6BlackHoleSuccessCounter(nil),
		libp2p.UserAgent("flotilla"),
	}, n.cfg.Options...)...)
	if err != nil {
		return nil, err
	}
	if err := listen(h, n.cfg.Listen); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return h, nil
}

// listen at all addresses: one that fails is a mistake that a person has to mend.
func listen(h host.Host, addresses []string) error {
	for _, text := range addresses {
		address, err := multiaddr.NewMultiaddr(text)
		if err != nil {
			return err
		}
		if err := h.Network().Listen(address); err != nil {
			return err
		}
	}
	return nil
}

// resourceLimits bounds what others can make this process hold. libp2p's defaults are for strangers: eight
// connections from one address, where a whole site of members may stand behind one.
func (n *Node) resourceLimits() (network.ResourceManager, error) {
	const (
		members   = 4096 // connections; also streams x 8: two of gossip, and of sync, blobs and beats one each way
		perPeer   = 8    // both ends dial, over two transports, while an old connection dies
		perSource = 1024 // connections from one address
		memory    = 512 << 20
	)
	base := rcmgr.DefaultLimits.Scale(memory, members)
	partial := rcmgr.PartialLimitConfig{
		System: rcmgr.ResourceLimits{
			Conns: members, ConnsInbound: members, ConnsOutbound: members,
			Streams: 8 * members, StreamsInbound: 4 * members, StreamsOutbound: 4 * members,
			FD: members, Memory: memory,
		},
		Transient:   rcmgr.ResourceLimits{Conns: 256, ConnsInbound: 128, ConnsOutbound: 256},
		PeerDefault: rcmgr.ResourceLimits{Conns: perPeer, ConnsInbound: perPeer, ConnsOutbound: perPeer, Streams: 64, StreamsInbound: 32, StreamsOutbound: 32},
	}
	rates := &rate.Limiter{
		NetworkPrefixLimits: []rate.PrefixLimit{
			{Prefix: netip.MustParsePrefix("127.0.0.0/8")}, {Prefix: netip.MustParsePrefix("::1/128")},
		},
		SubnetRateLimiter: rate.SubnetLimiter{
			IPv4SubnetLimits: []rate.SubnetLimit{{PrefixLength: 32, Limit: rate.Limit{RPS: 20, Burst: perSource}}},
			IPv6SubnetLimits: []rate.SubnetLimit{{PrefixLength: 56, Limit: rate.Limit{RPS: 20, Burst: perSource}}},
			GracePeriod:      time.Minute,
		},
	}
	return rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(partial.Build(base)),
		rcmgr.WithMetricsDisabled(),
		rcmgr.WithConnRateLimiters(rates),
		rcmgr.WithLimitPerSubnet(
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 32, ConnCount: perSource}},
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 56, ConnCount: perSource}}))
}

// gater lets in, and lets out to, who is on the roster. Who it is, is known once the handshake has proved
// the key.
type gater struct{ n *Node }

var _ connmgr.ConnectionGater = gater{}

// allows says whether a peer may be connected.
func (n *Node) allows(id peer.ID) bool {
	member := fleet.MemberID(id.String())
	if _, ok := n.roster().Member(member); !ok {
		return false
	}
	if n.flood.blames(id) {
		return false
	}
	return n.cfg.Allow == nil || n.cfg.Allow(member)
}

func (g gater) allow(id peer.ID) bool {
	ok := g.n.allows(id)
	if !ok {
		g.n.counts.connectionsRefused.Add(1)
	}
	return ok
}

func (g gater) InterceptPeerDial(id peer.ID) bool                               { return g.allow(id) }
func (g gater) InterceptAddrDial(peer.ID, multiaddr.Multiaddr) bool             { return true }
func (g gater) InterceptAccept(network.ConnMultiaddrs) bool                     { return true }
func (g gater) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }

func (g gater) InterceptSecured(_ network.Direction, id peer.ID, _ network.ConnMultiaddrs) bool {
	return g.allow(id)
}

// peerID of a member; it was checked when the roster was read, or there is no such peer.
func peerID(member fleet.MemberID) (peer.ID, error) {
	id, err := peer.Decode(string(member))
	if err != nil {
		return "", fmt.Errorf("member ID %q: %w", member, err)
	}
	return id, nil
}

// Addresses are the multiaddrs that Run listens at, ports filled in; none before Ready or after Run.
func (n *Node) Addresses() []string {
	w := n.running.Load()
	if w == nil {
		return nil
	}
	var all []string
	for _, address := range w.host.Network().ListenAddresses() {
		all = append(all, address.String())
	}
	return all
}
