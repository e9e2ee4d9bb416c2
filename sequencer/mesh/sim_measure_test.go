// SPDX-License-Identifier: Apache-2.0

//go:build !race

package mesh_test

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sys/unix"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/mesh"
	"github.com/flotilla-dev/flotilla/sequencer/mesh/meshtest"
)

// What is measured here takes minutes and gigabytes: make sim-mesh. FLOTILLA_MESH_SIZES are the numbers of
// hosts, FLOTILLA_MESH_HEARTBEAT is the time between two heartbeats of a member, the default where it is not set.

// arrivals collects how long records took to be durable on the other members.
type arrivals struct {
	mu   sync.Mutex
	said map[place]time.Time
	took []time.Duration
	// apart are collected for one member alone.
	apart map[fleet.MemberID]*arrivals
}

func newArrivals() *arrivals {
	return &arrivals{said: map[place]time.Time{}, apart: map[fleet.MemberID]*arrivals{}}
}

// only collects what reaches one member apart.
func (a *arrivals) only(by fleet.MemberID) *arrivals {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.apart[by] = newArrivals()
	return a.apart[by]
}

type place struct {
	writer     fleet.MemberID
	epoch, seq uint64
}

// expect a record that is said now.
func (a *arrivals) expect(r fleet.Record) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.said[place{r.Writer, r.Epoch, r.Seq}] = time.Now()
}

// news is a member's OnNews: what it is told is on its disk.
func (a *arrivals) news(by fleet.MemberID) func([]fleet.Record) {
	return func(records []fleet.Record) {
		now := time.Now()
		a.mu.Lock()
		defer a.mu.Unlock()
		if apart := a.apart[by]; apart != nil {
			apart.news(by)(records)
		}
		for i := range records {
			r := &records[i]
			if said, ok := a.said[place{r.Writer, r.Epoch, r.Seq}]; ok && r.Writer != by {
				a.took = append(a.took, now.Sub(said))
			}
		}
	}
}

// quantiles in milliseconds: p50, p99, p99.9 and the most.
func (a *arrivals) quantiles() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.took) == 0 {
		return "nothing arrived"
	}
	slices.Sort(a.took)
	at := func(share float64) int64 { return a.took[int(share*float64(len(a.took)-1))].Milliseconds() }
	return fmt.Sprintf("p50 %d ms, p99 %d ms, p99.9 %d ms, max %d ms, of %d", at(0.5), at(0.99), at(0.999), at(1), len(a.took))
}

// gauge is a simulated fleet that is measured.
type gauge struct {
	*simulated
	arrivals *arrivals
	wall     time.Duration
	begun    time.Time
}

// measure simulates a fleet and shows what that cost.
func measure(t *testing.T, model meshtest.Model, layout meshtest.Layout, test func(*gauge)) {
	t.Helper()
	wall, cpu := realTime(), cpuTime()
	synctest.Test(t, func(t *testing.T) {
		g := &gauge{arrivals: newArrivals(), begun: time.Now(), wall: wall}
		configure := layout.Configure
		layout.Configure = func(i int, c *mesh.Config) {
			if configure != nil {
				configure(i, c)
			}
			if text := os.Getenv("FLOTILLA_MESH_HEARTBEAT"); text != "" {
				every, err := time.ParseDuration(text)
				must(t, err)
				c.Heartbeat = every
			}
			c.OnNews = g.arrivals.news(fleet.MemberIDOf(c.Key.Public().(ed25519.PublicKey)))
		}
		g.simulated = &simulated{
			Sim: meshtest.Simulate(t, model, layout), t: t, members: layout.Members, said: map[fleet.Digest]fleet.Record{},
		}
		test(g)
		g.tell("virtual time", "%s", time.Since(g.begun).Round(time.Second))
	})
	t.Logf("%-28s %s, CPU %s, resident %d MiB", "real time", (realTime() - wall).Round(time.Second), (cpuTime() - cpu).Round(time.Second), resident()>>20)
}

func (g *gauge) tell(what, format string, args ...any) {
	g.t.Helper()
	g.t.Logf("%-28s %s  [%s]", what, fmt.Sprintf(format, args...), (realTime() - g.wall).Round(time.Second))
}

// realTime and cpuTime are not the bubble's.
func realTime() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		panic(err)
	}
	return time.Duration(now.Nano())
}

func cpuTime() time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		panic(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// resident bytes of this process; 0 where the system does not say.
func resident() int {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.Atoi(fields[1])
	if err != nil {
		return 0
	}
	return pages * os.Getpagesize()
}

// traffic of all members: sent by each in the mean and at most, and lost.
func (g *gauge) traffic() (sent, most, lost float64) {
	for i := range g.members {
		at := g.Traffic(i)
		sent += float64(at.SentBytes)
		most = max(most, float64(at.SentBytes+at.ReceivedBytes))
		lost += float64(at.Lost)
	}
	return sent / float64(g.members), most, lost
}

// steady waits until the first round of heartbeats is over.
func (g *gauge) steady() {
	g.StartAll()
	g.AwaitConnected()
	g.Pass(20 * time.Second)
	_, _, lost := g.traffic()
	var peers, connected int
	for i := range g.members {
		for _, p := range g.Node(i).Peers() {
			peers++
			if p.Connected {
				connected++
			}
		}
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	g.tell("connected", "%.1f connections per member, %.0f packets lost, %d goroutines, heap %d MiB",
		float64(connected)/float64(g.members), lost, runtime.NumGoroutine(), m.HeapInuse>>20)
}

// idle gives bytes and CPU per second of a fleet in which nothing happens.
func (g *gauge) idle(span time.Duration) (bytes float64, cpu time.Duration) {
	before := make([]meshtest.Traffic, g.members)
	for i := range before {
		before[i] = g.Traffic(i)
	}
	said := g.stats()
	used := cpuTime()
	g.Pass(span)
	cpu = time.Duration(float64(cpuTime()-used) / span.Seconds())
	var each []float64
	var packets float64
	for i, b := range before {
		now := g.Traffic(i)
		each = append(each, float64(now.SentBytes-b.SentBytes)/span.Seconds())
		packets += float64(now.SentPackets-b.SentPackets) / span.Seconds()
		bytes += each[i]
	}
	slices.Sort(each)
	bytes /= float64(g.members)
	g.tell("idle", "%.0f B/s sent per agent (%.1f kbit/s; median %.0f, most %.0f B/s), %.2f packets/s, %s; received is the same in the mean",
		bytes, bytes*8/1000, each[len(each)/2], each[len(each)-1], packets/float64(g.members), span)
	per, now := span.Seconds()*float64(g.members), g.stats()
	g.tell("of that", "%.2f gossip messages, %.2f heartbeats that were news, %.2f beats and %.3f reconciliations a second and member",
		float64(now.GossipReceived-said.GossipReceived)/per, float64(now.Heartbeats-said.Heartbeats)/per,
		float64(now.Beats-said.Beats)/per, float64(now.Sessions-said.Sessions)/per)
	return bytes, cpu
}

// stats of all members.
func (g *gauge) stats() (sum mesh.Stats) {
	for i := range g.members {
		s := g.Node(i).Stats()
		sum.GossipReceived += s.GossipReceived
		sum.Heartbeats += s.Heartbeats
		sum.Beats += s.Beats
		sum.Sessions += s.Sessions
	}
	return sum
}

// facts measures A9, and what a fact costs.
func (g *gauge) facts(count int, idleBytes float64, idleCPU time.Duration) {
	draw := rand.New(rand.NewPCG(1, 2))
	g.writes("facts, one a second", count, idleBytes, idleCPU, func() { g.arrivals.expect(g.say(draw.IntN(g.members))) })
	g.tell("durable on all others", "%s", g.arrivals.quantiles())
}

// writes measures what a write costs the fleet beside what it spends anyway.
func (g *gauge) writes(what string, count int, idleBytes float64, idleCPU time.Duration, write func()) {
	sent, _, _ := g.traffic()
	used := cpuTime()
	begin := time.Now()
	for range count {
		write()
		g.Pass(time.Second)
	}
	g.Pass(2 * time.Second)
	span := time.Since(begin)
	cpu := cpuTime() - used - time.Duration(float64(idleCPU)*span.Seconds())
	after, _, _ := g.traffic()
	each := (after - sent - idleBytes*span.Seconds()) / float64(count)
	g.tell(what, "%d; %.0f B sent per write and node, CPU %.3f ms per write and node (the simulation's included)",
		count, each, float64(cpu.Microseconds())/1000/float64(count)/float64(g.members))
}

// registers measures bytes per write of 512 bytes.
func (g *gauge) registers(count int, idleBytes float64, idleCPU time.Duration) {
	draw := rand.New(rand.NewPCG(3, 4))
	body := make([]byte, 512)
	g.writes("512 B, one a second", count, idleBytes, idleCPU, func() {
		for i := range body {
			body[i] = byte(draw.Uint32())
		}
		say(g.t, g.Node(draw.IntN(g.members)), fmt.Sprint("key", draw.IntN(10)), string(body))
	})
}

// partition measures how long a fleet whose halves were apart takes to agree.
func (g *gauge) partition(lasts time.Duration) {
	west, east := half(g.members)
	g.Partition(west, east)
	for i := range 10 {
		g.say(west[i])
		g.say(east[i])
	}
	g.Pass(lasts)
	g.Heal()
	g.tell("halves apart for "+lasts.String(), "healed in %s", g.AwaitEqualRoots().Round(10*time.Millisecond))
}

// vanish measures how long it takes until the others know that a member is off the network.
func (g *gauge) vanish() {
	gone := g.Member(g.members / 2).ID
	g.Cut(func(from, to int) bool { return from == g.members/2 || to == g.members/2 })
	begin := time.Now()
	noticed := map[int]time.Duration{}
	g.Await("that all notice", 100*time.Millisecond, func() bool {
		for i := range g.members {
			if _, done := noticed[i]; !done && i != g.members/2 && lost(g.Node(i), gone) {
				noticed[i] = time.Since(begin)
			}
		}
		return len(noticed) == g.members-1
	})
	at := &arrivals{}
	for _, d := range noticed {
		at.took = append(at.took, d)
	}
	g.tell("a vanished member noticed", "%s members", at.quantiles())
	g.Heal()
}

func lost(n *mesh.Node, id fleet.MemberID) bool {
	for _, p := range n.Peers() {
		if p.Member.ID == id {
			return p.Presence == mesh.Doubted
		}
	}
	return false
}

func sizes(t *testing.T) (hosts []int) {
	t.Helper()
	text := os.Getenv("FLOTILLA_MESH_SIZES")
	if text == "" {
		t.Skip("it takes minutes and gigabytes: make sim-mesh")
	}
	for part := range strings.SplitSeq(text, ",") {
		size, err := strconv.Atoi(strings.TrimSpace(part))
		must(t, err)
		hosts = append(hosts, size)
	}
	return hosts
}

// TestMeasureFleet prints what a fleet does in the default network, and how news travel in the wide one.
// inFull is up to how many hosts everything is measured. A virtual minute of 1,000 in which everyone says a heartbeat
// takes six real ones: there, only what is asked of a fleet of that size.
const inFull = 500

func TestMeasureFleet(t *testing.T) {
	for _, members := range sizes(t) {
		layout := meshtest.Layout{Members: members} // everyone has everyone's addresses, and dials whom it chooses
		t.Run(fmt.Sprint(members, " hosts, 50 ms RTT, 1 % loss"), func(t *testing.T) {
			measure(t, meshtest.WAN(1), layout, func(g *gauge) {
				g.steady()
				if members > inFull {
					bytes, cpu := g.idle(20 * time.Second)
					g.facts(30, bytes, cpu)
					g.vanish()
					return
				}
				g.idle(time.Minute)
				g.Pass(5 * time.Minute) // until the heartbeats after the start are over
				bytes, cpu := g.idle(2 * time.Minute)
				g.facts(30, bytes, cpu)
				g.registers(20, bytes, cpu)
				g.vanish()
				g.AwaitConnected()
				g.partition(time.Minute)
			})
		})
		t.Run(fmt.Sprint(members, " hosts, 40 ms median one way, 1 % loss"), func(t *testing.T) {
			measure(t, meshtest.Wide(1), layout, func(g *gauge) {
				g.steady()
				bytes, cpu := g.idle(20 * time.Second)
				g.facts(30, bytes, cpu)
			})
		})
	}
}

// rolledOut are the facts of members that went through rollouts: four of each member and rollout.
func rolledOut(t testing.TB, members, rollouts int) (records []fleet.Record) {
	t.Helper()
	for i := range members {
		key, seq := meshtest.Key(i), uint64(0)
		for n := range rollouts {
			plan := fleet.DigestOf("plan", []byte{byte(n >> 8), byte(n)})
			for _, kind := range []fleet.FactKind{fleet.Accepted, fleet.Started, fleet.Succeeded, fleet.Soaked} {
				seq++
				r := fleet.Record{
					Fleet: meshtest.Fleet(), Epoch: 1, Seq: seq, Kind: fleet.KindFact, Key: fleet.FactKey(plan, kind),
					Body: fleet.Fact{Plan: plan, Kind: kind, Time: 1_770_000_000}.Encode(),
				}
				must(t, r.Sign(key))
				records = append(records, r)
			}
		}
	}
	return records
}

// TestMeasureCatchUp: a fresh member joins twelve that hold the facts of 1,000 clusters in five rollouts.
func TestMeasureCatchUp(t *testing.T) {
	sizes(t)
	const members, clusters, rollouts = 13, 1000, 5
	records := rolledOut(t, clusters, rollouts)
	size := 0
	for i := range records {
		size += len(records[i].Encode())
	}
	for _, line := range []int{0, 10_000_000} {
		t.Run(fmt.Sprint("line of ", line, " bit/s"), func(t *testing.T) {
			layout := meshtest.Layout{Members: members, Writers: clusters - members}
			measure(t, meshtest.WAN(1), layout, func(g *gauge) {
				fresh := members - 1
				for i := range fresh {
					g.Fill(i, records)
					g.Start(i)
				}
				g.AwaitConnected()
				g.Pass(10 * time.Second)
				g.Throttle(fresh, line)
				g.Start(fresh)
				took := g.Await("the fresh member", 10*time.Millisecond, func() bool { return length(g.Node(fresh)) == len(records) })
				at := g.Traffic(fresh)
				g.tell("a fresh member", "%d facts, %d B, in %s; it received %d B and sent %d B", len(records), size, took, at.ReceivedBytes, at.SentBytes)
				g.Pass(10 * time.Second)
				s := g.Node(fresh).Stats()
				g.tell("ten seconds later", "%d B received; sessions %d, failed %d", g.Traffic(fresh).ReceivedBytes, s.Sessions, s.SessionsFailed)
			})
		})
	}
}

// mouth tells a fleet what others said: a host that offers records to members.
type mouth struct {
	t    *testing.T
	host host.Host
}

func (m mouth) offer(to fleet.Member, records []fleet.Record) error {
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
	defer cancel()
	id, err := peer.Decode(string(to.ID))
	if err != nil {
		return err
	}
	s, err := m.host.NewStream(ctx, id, mesh.SyncProtocol)
	if err != nil {
		return err
	}
	var encoded [][]byte
	for i := range records {
		encoded = append(encoded, records[i].Encode())
	}
	if _, err := s.Write(mesh.OfferFrame(mesh.Batch(encoded...))); err != nil {
		return err
	}
	if _, _, err := mesh.ReadFrame(bufio.NewReader(s)); err != nil {
		return err
	}
	return s.Close()
}

// TestMeasureSlowSite: a rollout over 2,000 members in 20 minutes, as a site with a line of 64 kbit/s hears
// it, with gossip and without. 30 hosts run; the facts of the others come in at random ones of them as they would by reconciliation, and
// travel by gossip from there.
func TestMeasureSlowSite(t *testing.T) {
	sizes(t)
	t.Run("gossip", func(t *testing.T) { measureSlowSite(t, false) })
	t.Run("no gossip", func(t *testing.T) { measureSlowSite(t, true) })
}

func measureSlowSite(t *testing.T, silent bool) {
	const members, clusters, slow, teller, lasts = 31, 2000, 0, 30, 20 * time.Minute
	records := rolledOut(t, clusters, 1)
	rand.New(rand.NewPCG(5, 6)).Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
	layout := meshtest.Layout{
		Members: members, Writers: clusters - members, Near: neighbours(members-1, 8, 29),
		Configure: func(i int, c *mesh.Config) { c.NoGossip = silent && i == slow },
	}
	measure(t, meshtest.WAN(1), layout, func(g *gauge) {
		for i := range teller {
			g.Start(i)
		}
		g.AwaitConnected()
		g.Throttle(slow, 64_000)
		g.Pass(30 * time.Second)
		h, err := g.Host(teller)
		must(g.t, err)
		defer func() { must(g.t, h.Close()) }()
		m := mouth{g.t, h}
		for i := range teller {
			if i != slow {
				must(g.t, h.Connect(g.t.Context(), infoOf(g.t, g.Member(i))))
			}
		}
		before, begin := g.Traffic(slow), time.Now()
		draw, next := rand.New(rand.NewPCG(7, 8)), 0
		late := g.arrivals.only(g.Member(slow).ID)
		failed := 0
		for next < len(records) {
			due := min(len(records), int(float64(len(records))*(time.Since(begin)+time.Second).Seconds()/lasts.Seconds()))
			for _, r := range records[next:due] {
				late.expect(r)
			}
			if err := m.offer(g.Member(1+draw.IntN(teller-1)), records[next:due]); err != nil {
				failed++
			}
			next = due
			g.Pass(time.Second)
		}
		stats := g.Node(slow).Stats()
		g.tell("its gossip", "left %d times, by itself; out of it at the end: %d", stats.GossipLeft, stats.SlowLine)
		after := g.Traffic(slow)
		span := time.Since(begin).Seconds()
		g.tell("2,000 members in "+lasts.String(), "%d facts; the slow site holds %d at the end, %d offers failed", len(records), length(g.Node(slow)), failed)
		g.tell("its line", "%.1f kbit/s received, %.1f kbit/s sent", float64(after.ReceivedBytes-before.ReceivedBytes)*8/1000/span, float64(after.SentBytes-before.SentBytes)*8/1000/span)
		g.tell("it held them after", "%s", late.quantiles())
		g.tell("and all of them", "%s after the last was said", g.AwaitEqualRoots(0, 1, 2))
	})
}
