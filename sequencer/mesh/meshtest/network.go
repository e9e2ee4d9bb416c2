// SPDX-License-Identifier: Apache-2.0

// Package meshtest answers: what does a mesh of several members do when one is stopped or the network is cut?
//
// All members live in this process and speak real libp2p over loopback.
package meshtest

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/mesh"
	"github.com/flotilla-dev/flotilla/sequencer/store"
)

// patience is how long Await polls; far more than anything takes.
const patience = 90 * time.Second

// Network is a fleet of members on loopback. Its methods are for the test's own goroutine.
type Network struct {
	t       testing.TB
	configs []func(*mesh.Config)
	members []*member
	// dials says whom a member dials, where the roster gives no addresses; nil where it does.
	dials func(i int) []int

	mu  sync.Mutex
	cut map[[2]fleet.MemberID]bool
}

type member struct {
	key    ed25519.PrivateKey
	member fleet.Member
	path   string
	// listened are the addresses of its last life, where others look for it.
	listened []string
	// These are nil while it is stopped.
	node  *mesh.Node
	store *store.Store
	end   func()
}

// Roster is a list of members.
type Roster []fleet.Member

var _ mesh.Roster = Roster{}

// Member by ID.
func (r Roster) Member(id fleet.MemberID) (fleet.Member, bool) {
	i := slices.IndexFunc(r, func(m fleet.Member) bool { return m.ID == id })
	if i < 0 {
		return fleet.Member{}, false
	}
	return r[i], true
}

// Members are all of them.
func (r Roster) Members() []fleet.Member { return r }

// New starts size members that are all on one roster, and stops them when the test ends. Each option may
// change the configuration of every member before it starts.
func New(t testing.TB, size int, options ...func(*mesh.Config)) *Network {
	t.Helper()
	return Linked(t, size, nil, options...)
}

// Linked is New for a fleet whose roster has no addresses: the i-th member is given those of the members that
// dials names, all below i, and nothing else. It listens at the same ones in every life.
func Linked(t testing.TB, size int, dials func(i int) []int, options ...func(*mesh.Config)) *Network {
	t.Helper()
	w := &Network{t: t, configs: options, dials: dials, cut: map[[2]fleet.MemberID]bool{}}
	folder := t.TempDir()
	for i := range size {
		key := Key(i)
		w.members = append(w.members, &member{
			key: key,
			member: fleet.Member{
				ID: fleet.MemberIDOf(key.Public().(ed25519.PublicKey)), Name: fleet.Name(fmt.Sprintf("member-%03d", i)), Zone: "lab",
			},
			path: filepath.Join(folder, fmt.Sprintf("%03d.db", i)),
		})
	}
	t.Cleanup(func() {
		for i := range w.members {
			w.Stop(i)
		}
	})
	for i := range w.members {
		w.start(i)
	}
	w.introduce()
	return w
}

// Key of the i-th member of every network; those not below size are strangers.
func Key(i int) ed25519.PrivateKey {
	seed := fleet.DigestOf("flotilla.dev/meshtest-key", []byte{byte(i >> 8), byte(i)})
	return ed25519.NewKeyFromSeed(seed[:])
}

// Fleet of every network.
func Fleet() fleet.Digest { return fleet.DigestOf("flotilla.dev/meshtest-fleet") }

// Fleet of the network.
func (w *Network) Fleet() fleet.Digest { return Fleet() }

// Key of the i-th member.
func (w *Network) Key(i int) ed25519.PrivateKey { return w.members[i].key }

// Member is the i-th member as the roster has it, with the addresses it listens at now.
func (w *Network) Member(i int) fleet.Member { return w.members[i].member }

// Node is the i-th member's node; nil while it is stopped.
func (w *Network) Node(i int) *mesh.Node { return w.members[i].node }

// PeerAddresses are where the i-th member listens now, or did when it was stopped, as others configure them.
func (w *Network) PeerAddresses(i int) []string {
	var all []string
	for _, address := range w.members[i].listened {
		all = append(all, address+"/p2p/"+string(w.members[i].member.ID))
	}
	return all
}

// Store is the i-th member's store; nil while it is stopped.
func (w *Network) Store(i int) *store.Store { return w.members[i].store }

// File is where the i-th member's store lies.
func (w *Network) File(i int) string { return w.members[i].path }

// Roster is everyone.
func (w *Network) Roster() Roster {
	var all Roster
	for _, m := range w.members {
		all = append(all, m.member)
	}
	return all
}

// Start starts a stopped member on the store it had.
func (w *Network) Start(i int) {
	w.t.Helper()
	w.start(i)
	w.introduce()
}

func (w *Network) start(i int) {
	w.t.Helper()
	m := w.members[i]
	s, err := store.Open(m.path)
	if err != nil {
		w.t.Fatal(err)
	}
	cfg := mesh.Test()
	cfg.Key, cfg.Fleet, cfg.Roster, cfg.Store = m.key, Fleet(), w.Roster(), s
	cfg.Listen = []string{"/ip4/127.0.0.1/tcp/0"}
	cfg.Allow = func(other fleet.MemberID) bool { return w.reachable(m.member.ID, other) }
	if w.dials != nil {
		if m.listened != nil {
			cfg.Listen = m.listened
		}
		for _, j := range w.dials(i) {
			cfg.Peers = append(cfg.Peers, w.PeerAddresses(j)...)
		}
	}
	for _, option := range w.configs {
		option(&cfg)
	}
	m.run(w.t, cfg)
	m.listened = m.node.Addresses()
	if w.dials == nil {
		m.member.Addresses = m.listened
	}
}

// run starts a node on cfg's store, and returns when it listens.
func (m *member) run(t testing.TB, cfg mesh.Config) {
	t.Helper()
	node, err := mesh.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- node.Run(ctx) }()
	m.node, m.store = node, cfg.Store
	m.end = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("%s: %v", m.member.Name, err)
		}
		if err := cfg.Store.Close(); err != nil {
			t.Errorf("%s: %v", m.member.Name, err)
		}
	}
	select {
	case <-node.Ready():
	case err := <-ended:
		ended <- err
		t.Fatalf("%s: %v", m.member.Name, err)
	}
}

// stop ends a member and says whether it ran. Its store stays.
func (m *member) stop() (ran bool) {
	if m.node == nil {
		return false
	}
	m.end()
	m.node, m.store, m.end = nil, nil, nil
	return true
}

// introduce tells everyone where everyone is.
func (w *Network) introduce() {
	for _, m := range w.members {
		if m.node != nil {
			m.node.SetRoster(w.Roster())
		}
	}
}

// Stop ends a member. Its store stays. Stopping twice is stopping once.
func (w *Network) Stop(i int) {
	if m := w.members[i]; m.stop() {
		m.member.Addresses = nil
	}
}

// Wipe takes a stopped member's store away, as a new machine under an old name has none.
func (w *Network) Wipe(i int) {
	w.t.Helper()
	if w.members[i].node != nil {
		w.t.Fatalf("member %d is running", i)
	}
	if err := os.Remove(w.members[i].path); err != nil {
		w.t.Fatal(err)
	}
}

// Partition cuts every connection between members of different sides, and lets none come up. Who is in no
// side is on one of their own.
func (w *Network) Partition(sides ...[]int) {
	side := make([]int, len(w.members))
	for n, indices := range sides {
		for _, i := range indices {
			side[i] = n + 1
		}
	}
	w.setCut(func(i, j int) bool { return side[i] != side[j] })
}

// Heal lets everyone reach everyone again.
func (w *Network) Heal() {
	w.setCut(func(int, int) bool { return false })
}

func (w *Network) setCut(apart func(i, j int) bool) {
	w.mu.Lock()
	for i, a := range w.members {
		for j, b := range w.members {
			w.cut[[2]fleet.MemberID{a.member.ID, b.member.ID}] = apart(i, j)
		}
	}
	w.mu.Unlock()
	for _, m := range w.members {
		if m.node != nil {
			m.node.Recheck()
		}
	}
}

func (w *Network) reachable(a, b fleet.MemberID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.cut[[2]fleet.MemberID{a, b}]
}

// AwaitConnected polls until every running member is connected with each other one that it may reach.
func (w *Network) AwaitConnected() {
	w.t.Helper()
	Await(w.t, "connections", func() bool {
		for _, a := range w.members {
			for _, b := range w.members {
				if a == b || a.node == nil || b.node == nil || !w.reachable(a.member.ID, b.member.ID) {
					continue
				}
				if !Connected(a.node, b.member.ID) {
					return false
				}
			}
		}
		return true
	})
}

// Connected says whether a node has a connection to a member.
func Connected(node *mesh.Node, to fleet.MemberID) bool {
	return slices.ContainsFunc(node.Peers(), func(p mesh.PeerState) bool { return p.Member.ID == to && p.Connected })
}

// AwaitEqualRoots polls until these members, or all that run, hold equal sets.
func (w *Network) AwaitEqualRoots(members ...int) {
	w.t.Helper()
	Await(w.t, "equal roots", func() bool { return w.equalRoots(members) })
}

func (w *Network) equalRoots(members []int) bool {
	roots := map[fleet.Digest]bool{}
	for i, m := range w.members {
		if m.node != nil && (len(members) == 0 || slices.Contains(members, i)) {
			roots[m.node.Root()] = true
		}
	}
	return len(roots) <= 1
}

// Await polls until something is true and fails the test if it does not come true.
func Await(t testing.TB, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s in vain for: %s", patience, what)
		}
		<-tick.C
	}
}
