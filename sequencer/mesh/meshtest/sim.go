// SPDX-License-Identifier: Apache-2.0

package meshtest

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/mesh"
	"github.com/flotilla-dev/flotilla/sequencer/store"
)

// Layout of a simulated fleet.
type Layout struct {
	// Members that run.
	Members int
	// Writers are further members of the roster that never run: what they said may be held by the others.
	Writers int
	// Near are the members whose addresses the i-th one has; nil: everyone's.
	Near func(i int) []int
	// Configure may change the configuration of the i-th member, which is [mesh.LAN]'s, before each start.
	Configure func(i int, c *mesh.Config)
}

// Sim is a fleet of members in virtual time: the nodes and stores of the agent, over libp2p and QUIC, on a
// network that obeys a [Model]. It lives in a bubble of testing/synctest: time goes on only when everyone
// waits. Its methods are for the test's own goroutine.
type Sim struct {
	t       *testing.T
	layout  Layout
	wires   *wires
	members []*member
	roster  directory
}

// patienceSim is how long Await waits, in virtual time.
const patienceSim = 15 * time.Minute

// simPort is where every simulated member listens.
const simPort = 4001

// directory is a roster with an index: fleets are larger here.
type directory struct {
	byID    map[fleet.MemberID]fleet.Member
	members []fleet.Member
}

var _ mesh.Roster = directory{}

// Member by ID.
func (d directory) Member(id fleet.MemberID) (fleet.Member, bool) {
	m, ok := d.byID[id]
	return m, ok
}

// Members are all of them.
func (d directory) Members() []fleet.Member { return d.members }

// Simulate starts a fleet within a bubble of testing/synctest, and stops it when the test ends.
func Simulate(t *testing.T, model Model, layout Layout) *Sim {
	t.Helper()
	w := &Sim{t: t, layout: layout, wires: newWires(model, layout.Members)}
	w.roster.byID = map[fleet.MemberID]fleet.Member{}
	folder := memory(t)
	for i := range layout.Members + layout.Writers {
		key := Key(i)
		m := &member{key: key, path: filepath.Join(folder, fmt.Sprintf("%05d.db", i))}
		m.member = fleet.Member{
			ID: fleet.MemberIDOf(key.Public().(ed25519.PublicKey)), Name: fleet.Name(fmt.Sprintf("member-%05d", i)), Zone: "lab",
		}
		if i < layout.Members {
			m.member.Addresses = []string{fmt.Sprintf("/ip4/%s/udp/%d/quic-v1", w.wires.ports[i].ip, simPort)}
			w.members = append(w.members, m)
		}
		w.roster.byID[m.member.ID] = m.member
		w.roster.members = append(w.roster.members, m.member)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var network sync.WaitGroup
	network.Go(func() { w.wires.run(ctx) })
	t.Cleanup(func() {
		var stopping sync.WaitGroup
		for i := range w.members {
			stopping.Go(func() { w.Stop(i) })
		}
		stopping.Wait()
		cancel()
		network.Wait()
	})
	return w
}

// memory is a folder for stores: in memory where there is such a file system, as thousands of stores
// that wait for one disk measure the disk.
func memory(t *testing.T) string {
	folder, err := os.MkdirTemp("/dev/shm", "meshtest")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(folder); err != nil {
			t.Error(err)
		}
	})
	return folder
}

// Member is the i-th member as the roster has it.
func (w *Sim) Member(i int) fleet.Member { return w.roster.members[i] }

// Node is the i-th member's node; nil while it is stopped.
func (w *Sim) Node(i int) *mesh.Node { return w.members[i].node }

// Store is the i-th member's store; nil while it is stopped.
func (w *Sim) Store(i int) *store.Store { return w.members[i].store }

// Traffic of the i-th member since the beginning.
func (w *Sim) Traffic(i int) Traffic {
	w.wires.mu.Lock()
	defer w.wires.mu.Unlock()
	return w.wires.ports[i].traffic
}

// StartAll starts everyone who is stopped.
func (w *Sim) StartAll() {
	w.t.Helper()
	for i, m := range w.members {
		if m.node == nil {
			w.Start(i)
		}
	}
}

// Start starts a stopped member on the store it had.
func (w *Sim) Start(i int) {
	w.t.Helper()
	m := w.members[i]
	s, err := store.Open(m.path)
	if err != nil {
		w.t.Fatal(err)
	}
	cfg := mesh.LAN()
	cfg.Key, cfg.Fleet, cfg.Roster, cfg.Store = m.key, Fleet(), w.rosterOf(i), s
	cfg.Listen = m.member.Addresses
	cfg.Options = append(cfg.Options, w.wires.transport(i))
	if w.layout.Configure != nil {
		w.layout.Configure(i, &cfg)
	}
	m.run(w.t, cfg)
}

// rosterOf a member has addresses of those near it.
func (w *Sim) rosterOf(i int) mesh.Roster {
	if w.layout.Near == nil {
		return w.roster
	}
	mine := seen{directory: w.roster, members: slices.Clone(w.roster.members), near: map[fleet.MemberID]bool{}}
	for _, j := range w.layout.Near(i) {
		mine.near[w.roster.members[j].ID] = true
	}
	for j := range mine.members {
		if !mine.near[mine.members[j].ID] {
			mine.members[j].Addresses = nil
		}
	}
	return mine
}

// seen is the roster as one member has it: with the addresses of those near it.
type seen struct {
	directory
	members []fleet.Member
	near    map[fleet.MemberID]bool
}

// Member by ID.
func (s seen) Member(id fleet.MemberID) (fleet.Member, bool) {
	m, ok := s.directory.Member(id)
	if !s.near[id] {
		m.Addresses = nil
	}
	return m, ok
}

// Members are all of them.
func (s seen) Members() []fleet.Member { return s.members }

// Fill puts records into the store of a stopped member.
func (w *Sim) Fill(i int, records []fleet.Record) {
	w.t.Helper()
	s, err := store.Open(w.members[i].path)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := errors.Join(s.Put(records...), s.Close()); err != nil {
		w.t.Fatal(err)
	}
}

// Stop ends a member. Its store stays. Stopping twice is stopping once.
func (w *Sim) Stop(i int) {
	if w.members[i].stop() {
		w.wires.unplug(i)
	}
}

// Partition loses every packet between members of different sides. Who is in no side is on one of their own.
func (w *Sim) Partition(sides ...[]int) {
	side := make([]int, len(w.members))
	for n, indices := range sides {
		for _, i := range indices {
			side[i] = n + 1
		}
	}
	w.Cut(func(from, to int) bool { return side[from] != side[to] })
}

// Cut loses every packet that is sent from one member to another where lost says so, from now on.
func (w *Sim) Cut(lost func(from, to int) bool) {
	w.wires.mu.Lock()
	defer w.wires.mu.Unlock()
	w.wires.cut = lost
}

// Pass lets virtual time go by.
func (w *Sim) Pass(d time.Duration) { time.Sleep(d) }

// Heal lets everyone reach everyone again. Nobody is told.
func (w *Sim) Heal() { w.Cut(func(int, int) bool { return false }) }

// Throttle bounds a member's line, each way.
func (w *Sim) Throttle(i, bitsPerSecond int) {
	w.wires.mu.Lock()
	defer w.wires.mu.Unlock()
	w.wires.ports[i].up.bits, w.wires.ports[i].down.bits = bitsPerSecond, bitsPerSecond
}

// AwaitConnected waits until all running members are connected with each other, by others where not
// directly.
func (w *Sim) AwaitConnected() {
	w.t.Helper()
	w.Await("connections", time.Second, w.connected)
}

func (w *Sim) connected() bool {
	index := map[fleet.MemberID]int{}
	for i, m := range w.members {
		index[m.member.ID] = i
	}
	first := slices.IndexFunc(w.members, func(m *member) bool { return m.node != nil })
	reached := map[int]bool{first: true}
	for open := []int{first}; len(open) > 0; {
		at := open[len(open)-1]
		open = open[:len(open)-1]
		for _, p := range w.members[at].node.Peers() {
			if next, ok := index[p.Member.ID]; ok && p.Connected && !reached[next] && w.members[next].node != nil {
				reached[next] = true
				open = append(open, next)
			}
		}
	}
	running := 0
	for _, m := range w.members {
		if m.node != nil {
			running++
		}
	}
	return len(reached) == running
}

// AwaitEqualRoots waits until these members, or all that run, hold equal sets. It gives the virtual time that
// this took.
func (w *Sim) AwaitEqualRoots(members ...int) time.Duration {
	w.t.Helper()
	return w.Await("equal roots", 10*time.Millisecond, func() bool { return w.EqualRoots(members...) })
}

// EqualRoots says whether these members, or all that run, hold equal sets.
func (w *Sim) EqualRoots(members ...int) bool {
	roots := map[fleet.Digest]bool{}
	for i, m := range w.members {
		if m.node != nil && (len(members) == 0 || slices.Contains(members, i)) {
			roots[m.node.Root()] = true
			if len(roots) > 1 {
				return false
			}
		}
	}
	return true
}

// Await looks every so often until something is true, and fails the test if it does not come true. It gives the
// virtual time that this took.
func (w *Sim) Await(what string, every time.Duration, is func() bool) time.Duration {
	w.t.Helper()
	begin := time.Now()
	for !is() {
		if time.Since(begin) > patienceSim {
			w.t.Fatalf("waited %s of virtual time in vain for: %s", patienceSim, what)
		}
		time.Sleep(every)
	}
	return time.Since(begin)
}

// Host is a bare libp2p host with the key and at the place of a stopped member: one that can be made to say
// anything. The caller closes it.
func (w *Sim) Host(i int) (host.Host, error) {
	identity, err := crypto.UnmarshalEd25519PrivateKey(w.members[i].key)
	if err != nil {
		return nil, err
	}
	return libp2p.New(libp2p.Identity(identity), libp2p.Transport(quic.NewTransport), w.wires.transport(i),
		libp2p.ListenAddrStrings(w.members[i].member.Addresses...),
		libp2p.DisableRelay(), libp2p.DisableMetrics(), libp2p.DisableIdentifyAddressDiscovery())
}
