// SPDX-License-Identifier: Apache-2.0

package meshtest

import (
	"container/heap"
	"context"
	"math"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	"github.com/marcopolo/simnet"
	"github.com/quic-go/quic-go"
	"go.uber.org/fx"
)

// Model says what the network between simulated members does to packets. Everything drawn is drawn by Seed.
type Model struct {
	Seed uint64
	// Delay is one way; Spread is the sigma of its logarithm from one pair of members to another, and 0
	// makes all pairs alike.
	Delay  time.Duration
	Spread float64
	// Jitter is the share by which each packet's delay may be off, either way. Packets of one pair stay in
	// order.
	Jitter float64
	// Loss is the share of packets that never arrive.
	Loss float64
	// BitsPerSecond of each member's line, each way; 0 is without bound. See [Sim.Throttle].
	BitsPerSecond int
}

// WAN is the network that figures are given for where none is named: 50 ms there and back +-10 %, and one
// packet in a hundred lost.
func WAN(seed uint64) Model {
	return Model{Seed: seed, Delay: 25 * time.Millisecond, Jitter: 0.1, Loss: 0.01}
}

// Wide is a network of members all over the world: 40 ms one way in the median, another delay for each pair
// (95 % of them between 15 and 107 ms), and one packet in a hundred lost.
func Wide(seed uint64) Model {
	return Model{Seed: seed, Delay: 40 * time.Millisecond, Spread: 0.5, Jitter: 0.1, Loss: 0.01}
}

const (
	// tick: packets arrive at whole ticks, later rather than sooner, so that those which arrive together
	// cost one waking of the simulation.
	tick = time.Millisecond
	// header is what IP and UDP add to every packet.
	header = 28
	// A line's queue holds this much, whichever is more, before packets fall off its end.
	queueTime  = 200 * time.Millisecond
	queueBytes = 16 << 10
)

// Traffic counts packets as they are on a member's line, IP and UDP headers included.
type Traffic struct {
	SentBytes, SentPackets, ReceivedBytes, ReceivedPackets uint64
	// Lost are packets that it sent and nobody got.
	Lost uint64
}

// wires carry packets between ports, in virtual time.
type wires struct {
	model Model
	ports []*port
	wake  chan struct{}

	mu      sync.Mutex
	draw    *rand.Rand
	cut     func(from, to int) bool
	flying  flight
	ordinal uint64
	next    time.Time
}

// port is where one member is plugged in. All but index and ip is guarded by wires.mu.
type port struct {
	index    int
	ip       net.IP
	conn     *simnet.SimConn // nil while nobody listens
	up, down line
	links    map[int]*link
	traffic  Traffic
}

// link is one way between two ports.
type link struct {
	delay time.Duration
	last  time.Time
}

// line is a member's way to the network, one way.
type line struct {
	bits int
	free time.Time
}

// pass is when a packet is through; false where the queue is full.
func (l *line) pass(now time.Time, size int) (time.Time, bool) {
	if l.bits == 0 {
		return now, true
	}
	start := now
	if l.free.After(now) {
		start = l.free
	}
	if start.Sub(now) > max(queueTime, l.takes(queueBytes)) {
		return now, false
	}
	l.free = start.Add(l.takes(size))
	return l.free, true
}

func (l *line) takes(size int) time.Duration {
	return time.Duration(float64(size) * 8 / float64(l.bits) * float64(time.Second))
}

func newWires(model Model, size int) *wires {
	w := &wires{
		model: model, wake: make(chan struct{}, 1), draw: rand.New(rand.NewPCG(model.Seed, 0)),
		cut: func(int, int) bool { return false },
	}
	for i := range size {
		w.ports = append(w.ports, &port{
			index: i, ip: simnet.IntToPublicIPv4(i).To4(), links: map[int]*link{},
			up: line{bits: model.BitsPerSecond}, down: line{bits: model.BitsPerSecond},
		})
	}
	return w
}

// packet on its way.
type packet struct {
	*simnet.Packet
	at      time.Time
	ordinal uint64
	to      *port
	size    int
	// arrived: it waits for the receiver's line.
	arrived bool
}

// flight is a heap of packets, the next to arrive on top.
type flight []packet

func (f flight) Len() int { return len(f) }
func (f flight) Less(i, j int) bool {
	return f[i].at.Before(f[j].at) || f[i].at.Equal(f[j].at) && f[i].ordinal < f[j].ordinal
}
func (f flight) Swap(i, j int) { f[i], f[j] = f[j], f[i] }
func (f *flight) Push(p any)   { *f = append(*f, p.(packet)) }
func (f *flight) Pop() any {
	old := *f
	p := old[len(old)-1]
	old[len(old)-1] = packet{}
	*f = old[:len(old)-1]
	return p
}

// sized is an address with the size of the packet that goes there, which simnet does not tell.
type sized struct {
	*net.UDPAddr
	size int
}

// endpoint is a member's socket.
type endpoint struct{ *simnet.SimConn }

// WriteTo sends a packet.
func (e endpoint) WriteTo(b []byte, to net.Addr) (int, error) {
	address, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, net.InvalidAddrError(to.String())
	}
	return e.SimConn.WriteTo(b, sized{address, len(b)})
}

// uplink takes what a member's socket sends.
type uplink struct {
	*wires
	from *port
}

// RecvPacket of the member: loses it, or has it arrive later.
func (u uplink) RecvPacket(p *simnet.Packet) {
	address := p.To.(sized)
	u.mu.Lock()
	defer u.mu.Unlock()
	size := address.size + header
	sent, ok := u.from.up.pass(time.Now(), size)
	if !ok {
		u.from.traffic.Lost++
		return
	}
	u.from.traffic.SentBytes += uint64(size)
	u.from.traffic.SentPackets++
	to := u.portOf(address.IP)
	if to == nil || u.cut(u.from.index, to.index) || u.draw.Float64() < u.model.Loss {
		u.from.traffic.Lost++
		return
	}
	u.add(packet{Packet: p, at: u.arrival(u.from, to, sent), to: to, size: size})
}

// portOf an address is where simnet's numbering has it; nil for one outside the simulation. It is called with
// mu held.
func (w *wires) portOf(ip net.IP) *port {
	ip = ip.To4()
	i := int(ip[1])<<16 + int(ip[2])<<8 + int(ip[3]) - 1
	if i < 0 || i >= len(w.ports) || !w.ports[i].ip.Equal(ip) {
		return nil
	}
	return w.ports[i]
}

// arrival is called with mu held.
func (w *wires) arrival(from, to *port, sent time.Time) time.Time {
	l := from.links[to.index]
	if l == nil {
		delay := float64(w.model.Delay)
		if w.model.Spread > 0 {
			delay *= math.Exp(w.model.Spread * w.draw.NormFloat64())
		}
		l = &link{delay: time.Duration(delay)}
		from.links[to.index] = l
	}
	off := 1 + w.model.Jitter*(2*w.draw.Float64()-1)
	at := sent.Add(time.Duration(float64(l.delay) * off))
	if at.Before(l.last) {
		at = l.last
	}
	l.last = at
	return at
}

// add is called with mu held.
func (w *wires) add(p packet) {
	if rest := p.at.UnixNano() % int64(tick); rest > 0 {
		p.at = p.at.Add(tick - time.Duration(rest))
	}
	w.ordinal++
	p.ordinal = w.ordinal
	heap.Push(&w.flying, p)
	if w.next.IsZero() || p.at.Before(w.next) {
		w.next = p.at
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// run delivers packets until ctx ends.
func (w *wires) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-timer.C:
		}
		due, wait := w.due()
		for _, d := range due {
			d.conn.RecvPacket(d.packet)
		}
		timer.Reset(wait)
	}
}

type delivery struct {
	conn   *simnet.SimConn
	packet *simnet.Packet
}

// due takes what has arrived, and gives the time until more does.
func (w *wires) due() (due []delivery, wait time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	for len(w.flying) > 0 && !w.flying[0].at.After(now) {
		p := heap.Pop(&w.flying).(packet)
		if !p.arrived && p.to.down.bits > 0 {
			if at, ok := p.to.down.pass(now, p.size); ok {
				p.at, p.arrived = at, true
				w.add(p)
			}
			continue
		}
		if p.to.conn == nil {
			continue
		}
		p.to.traffic.ReceivedBytes += uint64(p.size)
		p.to.traffic.ReceivedPackets++
		due = append(due, delivery{p.to.conn, p.Packet})
	}
	if len(w.flying) == 0 {
		w.next = time.Time{}
		return due, time.Hour
	}
	w.next = w.flying[0].at
	return due, w.next.Sub(now)
}

// plug gives a member a socket; the one it had is dead.
func (w *wires) plug(i int, address *net.UDPAddr) net.PacketConn {
	p := w.ports[i]
	conn := simnet.NewBlockingSimConn(&net.UDPAddr{IP: p.ip, Port: address.Port})
	conn.SetUpPacketReceiver(uplink{w, p})
	w.mu.Lock()
	defer w.mu.Unlock()
	p.conn = conn
	return endpoint{conn}
}

func (w *wires) unplug(i int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ports[i].conn = nil
}

// source says from which address a member sends.
type source struct{ ip net.IP }

// PreferredSourceIPForDestination is always the member's one.
func (s source) PreferredSourceIPForDestination(*net.UDPAddr) (net.IP, error) { return s.ip, nil }

// transport makes a libp2p host send its QUIC packets over the wires. go-libp2p's x/simlibp2p does the same
// with simnet's own network, which loses nothing and is never cut.
func (w *wires) transport(i int) libp2p.Option {
	return libp2p.QUICReuse(
		func(life fx.Lifecycle, reset quic.StatelessResetKey, token quic.TokenGeneratorKey, options ...quicreuse.Option) (*quicreuse.ConnManager, error) {
			m, err := quicreuse.NewConnManager(reset, token, options...)
			if err != nil {
				return nil, err
			}
			life.Append(fx.StopHook(m.Close))
			return m, nil
		},
		quicreuse.OverrideSourceIPSelector(func() (quicreuse.SourceIPSelector, error) {
			return source{w.ports[i].ip}, nil
		}),
		quicreuse.OverrideListenUDP(func(_ string, address *net.UDPAddr) (net.PacketConn, error) {
			return w.plug(i, address), nil
		}))
}
