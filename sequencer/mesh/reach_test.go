// SPDX-License-Identifier: Apache-2.0

package mesh_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	madns "github.com/multiformats/go-multiaddr-dns"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/mesh"
	"github.com/flotilla-dev/flotilla/sequencer/mesh/meshtest"
	"github.com/flotilla-dev/flotilla/sequencer/store"
)

func openStore(t *testing.T) *store.Store {
	t.Helper()
	s, err := store.Open(filepath.Join(t.TempDir(), "fleet.db"))
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

// freePort of this machine, as far as one can know.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	defer func() { must(t, l.Close()) }()
	return fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
}

// shapes of a fleet of seven: whom the i-th member is told to dial, and nothing else differs.
var shapes = map[string]func(i int) []int{
	"star": func(i int) []int { return []int{0}[:min(i, 1)] },
	"mesh": below,
	"tree": func(i int) []int { return []int{(i - 1) / 2}[:min(i, 1)] },
	"line": func(i int) []int { return []int{i - 1}[:min(i, 1)] },
	"ring": func(i int) []int { return map[bool][]int{true: {0, 5}, false: []int{i - 1}[:min(i, 1)]}[i == 6] },
	"two islands with a bridge": func(i int) []int {
		if i <= bridge {
			return below(min(i, 2))
		}
		return below(i)[bridge:]
	},
}

// bridge is the member that is on both islands: 0, 1, 2 and 4, 5, 6.
const bridge = 3

func below(i int) []int {
	all := make([]int, i)
	for j := range all {
		all[j] = j
	}
	return all
}

// calm members beat so seldom that a slow machine with the race detector keeps up with many of them.
func calm(c *mesh.Config) { c.Heartbeat = time.Second }

func TestShapes(t *testing.T) {
	for name, dials := range shapes {
		for _, gossip := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, gossip %v", name, gossip), func(t *testing.T) {
				t.Parallel()
				w := meshtest.Linked(t, 7, dials, calm, func(c *mesh.Config) { c.NoGossip = !gossip })
				var words []fleet.Record
				for i := range 7 {
					words = append(words, say(t, w.Node(i), fmt.Sprint("from", i), "x"))
				}
				for i := range 7 {
					meshtest.Await(t, fmt.Sprintf("every word at member %d", i), func() bool { return hearsAll(w.Node(i), words) })
				}
			})
		}
	}
}

func TestBridgeGoesAndComesBack(t *testing.T) {
	t.Parallel()
	for _, gossip := range []bool{true, false} {
		t.Run(fmt.Sprint("gossip ", gossip), func(t *testing.T) {
			w := meshtest.Linked(t, 7, shapes["two islands with a bridge"], calm, func(c *mesh.Config) { c.NoGossip = !gossip })
			say(t, w.Node(0), "k", "before")
			w.AwaitEqualRoots()
			w.Stop(bridge)
			here, there := say(t, w.Node(1), "k", "here"), say(t, w.Node(6), "k", "there")
			meshtest.Await(t, "the own island", func() bool { return hears(w.Node(2), here) && hears(w.Node(4), there) })
			if hears(w.Node(4), here) || hears(w.Node(2), there) {
				t.Error("the islands meet without their bridge")
			}
			w.Start(bridge)
			meshtest.Await(t, "the other island", func() bool { return hears(w.Node(5), here) && hears(w.Node(0), there) })
			w.AwaitEqualRoots()
		})
	}
}

// names is a name server that can be changed, and be away.
type names struct {
	mu sync.Mutex
	// silent: it answers nobody, and refuses nobody.
	silent bool
	ip     map[string]string
	txt    map[string][]string
}

func (n *names) LookupIPAddr(_ context.Context, name string) ([]net.IPAddr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ip[name] == "" {
		return nil, errors.New("no such name")
	}
	return []net.IPAddr{{IP: net.ParseIP(n.ip[name])}}, nil
}

func (n *names) LookupTXT(ctx context.Context, name string) ([]string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.silent {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if n.txt[name] == nil {
		return nil, errors.New("no such name")
	}
	return n.txt[name], nil
}

func (n *names) set(change func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change()
}

func (n *names) use(t *testing.T) func(*mesh.Config) {
	resolver, err := madns.NewResolver(madns.WithDefaultResolver(n))
	must(t, err)
	return func(c *mesh.Config) { c.Resolver = swarm.ResolverFromMaDNS{Resolver: resolver} }
}

// TestAnchorMoves: it is found by its name at another address, without one of the others being told or restarted;
// and where names are away, at where it was last.
func TestAnchorMoves(t *testing.T) {
	t.Parallel()
	dns := &names{ip: map[string]string{}, txt: map[string][]string{}}
	anchor := string(memberID(0))
	w := meshtest.Linked(t, 3, func(int) []int { return nil }, dns.use(t), func(c *mesh.Config) {
		c.Listen = []string{"/ip4/127.0.0.1/tcp/0"}
		c.Peers = []string{"/dnsaddr/anchors.example/p2p/" + anchor}
	})
	if meshtest.Connected(w.Node(1), w.Member(0).ID) {
		t.Fatal("connected without an address")
	}
	publish := func() {
		dns.set(func() { dns.txt["_dnsaddr.anchors.example"] = []string{"dnsaddr=" + w.PeerAddresses(0)[0]} })
	}
	connected := func() bool {
		return meshtest.Connected(w.Node(1), w.Member(0).ID) && meshtest.Connected(w.Node(2), w.Member(0).ID)
	}
	publish()
	meshtest.Await(t, "the anchor by its name", connected)

	before := w.PeerAddresses(0)[0]
	w.Stop(0)
	w.Start(0)
	if w.PeerAddresses(0)[0] == before {
		t.Fatal("it did not move")
	}
	publish()
	meshtest.Await(t, "the anchor where it is now", connected)

	w.Stop(1)
	dns.set(func() { dns.silent = true })
	w.Start(1)
	meshtest.Await(t, "the anchor where it was last, with names away", connected)
}

func TestRosterMovesAnAnchor(t *testing.T) {
	t.Parallel()
	w := meshtest.New(t, 3, func(c *mesh.Config) { c.Announce = nil })
	w.AwaitConnected()
	w.Stop(0)
	w.Start(0) // at another port, and introduced anew
	w.AwaitConnected()
}

// TestNames: /dns4 and /dns6 in what a person or the roster gives.
func TestNames(t *testing.T) {
	dns := &names{ip: map[string]string{"anchor.example": "127.0.0.1"}, txt: map[string][]string{}}
	w := meshtest.Linked(t, 1, func(int) []int { return nil })
	port := w.Node(0).Addresses()[0][len("/ip4/127.0.0.1/tcp/"):]
	for _, c := range []struct{ name, peer string }{
		{"dns4", "/dns4/anchor.example/tcp/" + port},
		{"dns", "/dns/anchor.example/tcp/" + port},
	} {
		t.Run(c.name, func(t *testing.T) {
			other := startBeside(t, w, 7, dns.use(t), func(cfg *mesh.Config) {
				cfg.Peers = []string{c.peer + "/p2p/" + string(w.Member(0).ID)}
			})
			meshtest.Await(t, "a connection", func() bool { return meshtest.Connected(other, w.Member(0).ID) })
		})
	}
}

// startBeside starts a node with the i-th key beside the first member of a network, on a roster of the two.
func startBeside(t *testing.T, w *meshtest.Network, i int, options ...func(*mesh.Config)) *mesh.Node {
	t.Helper()
	roster := meshtest.Roster{
		{ID: w.Member(0).ID, Name: "first", Zone: "lab"},
		{ID: memberID(i), Name: "beside", Zone: "lab"},
	}
	cfg := mesh.Test()
	cfg.Key, cfg.Fleet, cfg.Roster, cfg.Store = meshtest.Key(i), meshtest.Fleet(), roster, openStore(t)
	for _, option := range options {
		option(&cfg)
	}
	n, err := mesh.New(cfg)
	must(t, err)
	w.Node(0).SetRoster(roster)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		must(t, <-ended)
	})
	return n
}

// TestBlockedUDP: the member has an address over QUIC, which a firewall swallows, and one over TCP.
func TestBlockedUDP(t *testing.T) {
	t.Parallel()
	hole, err := net.ListenPacket("udp4", "127.0.0.1:0")
	must(t, err)
	defer func() { must(t, hole.Close()) }()
	w := meshtest.Linked(t, 1, func(int) []int { return nil })
	swallowed := fmt.Sprintf("/ip4/127.0.0.1/udp/%d/quic-v1/p2p/%s", hole.LocalAddr().(*net.UDPAddr).Port, w.Member(0).ID)
	n := startBeside(t, w, 7, func(c *mesh.Config) { c.Peers = append(w.PeerAddresses(0), swallowed) })
	meshtest.Await(t, "a connection over TCP", func() bool {
		return slices.ContainsFunc(n.Peers(), func(p mesh.PeerState) bool {
			return p.Connected && strings.Contains(p.Addresses[0], "/tcp/")
		})
	})
	must(t, hole.SetReadDeadline(time.Now().Add(5*time.Second)))
	if _, _, err := hole.ReadFrom(make([]byte, 2000)); err != nil {
		t.Errorf("QUIC was not tried: %v", err)
	}
}

// TestAnnounced: two members that only know the anchor learn from it where each other is, and keep that without it.
func TestAnnounced(t *testing.T) {
	ports := []string{freePort(t), freePort(t)}
	addressOf := func(i int) []string { return []string{"/ip4/127.0.0.1/tcp/" + ports[i-1]} }
	w := meshtest.Linked(t, 3, func(i int) []int { return []int{0}[:min(i, 1)] }, func(c *mesh.Config) {
		for i := 1; i < 3; i++ {
			if slices.Equal(c.Key, meshtest.Key(i)) {
				c.Listen, c.Announce = addressOf(i), addressOf(i)
			}
		}
	})
	meshtest.Await(t, "each other", func() bool { return meshtest.Connected(w.Node(1), w.Member(2).ID) })
	w.Stop(0)
	w.Stop(1)
	w.Start(1)
	meshtest.Await(t, "each other without the anchor", func() bool { return meshtest.Connected(w.Node(1), w.Member(2).ID) })
}

// TestAnnouncedAcrossZones: each member is alone in its zone, and learns from the anchor where the other is.
func TestAnnouncedAcrossZones(t *testing.T) {
	ports := []string{freePort(t), freePort(t)}
	w := meshtest.Linked(t, 3, func(i int) []int { return []int{0}[:min(i, 1)] }, func(c *mesh.Config) {
		c.Flat = 1
		for i := 1; i < 3; i++ {
			if slices.Equal(c.Key, meshtest.Key(i)) {
				c.Listen = []string{"/ip4/127.0.0.1/tcp/" + ports[i-1]}
				c.Announce = c.Listen
			}
		}
	})
	setZones(w, 1, []string{"eu", "us", "ap"})
	meshtest.Await(t, "each other", func() bool {
		return meshtest.Connected(w.Node(1), w.Member(2).ID) && meshtest.Connected(w.Node(2), w.Member(1).ID)
	})
}

// TestHostileAnnouncements: what a member says of its addresses makes nobody dial this machine, or a thousand
// places, or another member.
func TestHostileAnnouncements(t *testing.T) {
	trap, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	defer func() { must(t, trap.Close()) }()
	trapped := make(chan struct{}, 1)
	go func() {
		for {
			c, err := trap.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
			trapped <- struct{}{}
		}
	}()
	port := fmt.Sprint(trap.Addr().(*net.TCPAddr).Port)
	many := make([]string, 1000)
	for i := range many {
		many[i] = fmt.Sprintf("/ip4/203.0.113.1/tcp/%d", i+1)
	}
	w := meshtest.New(t, 1, func(c *mesh.Config) { c.Listen = nil })
	for name, said := range map[string]any{
		"loopback":           []string{"/ip4/127.0.0.1/tcp/" + port, "/ip6/::1/tcp/" + port, "/ip4/127.1.2.3/tcp/" + port},
		"unspecified":        []string{"/ip4/0.0.0.0/tcp/" + port, "/ip6/::/tcp/" + port},
		"mapped":             []string{"/ip6/::ffff:127.0.0.1/tcp/" + port, "/ip6/::ffff:7f00:1/tcp/" + port},
		"link-local":         []string{"/ip4/169.254.169.254/tcp/80", "/ip6/fe80::1/tcp/80", "/ip6zone/eth0/ip6/fe80::1/tcp/80"},
		"multicast":          []string{"/ip4/224.0.0.1/udp/4001/quic-v1", "/ip4/255.255.255.255/tcp/1"},
		"a name of loopback": []string{"/dns4/localhost/tcp/" + port},
		"no port":            []string{"/ip4/192.0.2.1/tcp/0", "/ip4/192.0.2.1"},
		"other protocols":    []string{"/ip4/192.0.2.1/tcp/80/http", "/unix/tmp/x", "/ip4/192.0.2.1/udp/53", "/dnsaddr/example.org"},
		"another's ID":       []string{"/ip4/192.0.2.1/tcp/4001/p2p/" + string(w.Member(0).ID)},
		"a relay":            []string{"/ip4/192.0.2.1/tcp/4001/p2p/" + string(w.Member(0).ID) + "/p2p-circuit"},
		"long":               []string{"/dns4/" + strings.Repeat("a.", 300) + "example/tcp/4001"},
		"not addresses":      []string{"hello", "", "/"},
		"no list":            map[string]int{"addresses": 3},
		"a number":           7,
	} {
		if found := mesh.AddressesAnnounced(t, w.Node(0), meshtest.Key(5), body(t, said)); len(found) > 0 {
			t.Errorf("%s: would dial %v", name, found)
		}
	}
	if found := mesh.AddressesAnnounced(t, w.Node(0), meshtest.Key(5), body(t, many[:40])); len(found) == 0 || len(found) > 8 {
		t.Errorf("of 40 addresses %d would be dialled", len(found))
	}
	if found := mesh.AddressesAnnounced(t, w.Node(0), meshtest.Key(5), body(t, many[:1])); len(found) != 1 {
		t.Errorf("a good one gives %v", found)
	}
	select {
	case <-trapped:
		t.Error("a port of this machine was dialled")
	default:
	}
}

func body(t *testing.T, addresses any) []byte {
	b, err := json.Marshal(map[string]any{"addresses": addresses})
	must(t, err)
	return b
}

func TestBadAddressesAreRefused(t *testing.T) {
	id := string(memberID(1))
	for _, c := range []struct {
		peer, want string
	}{
		{"/ip4/192.0.2.1/tcp/4001/p2p/" + id, ""},
		{"/ip6/2001:db8::1/udp/4001/quic-v1/p2p/" + id, ""},
		{"/dns4/a.example/tcp/4001/p2p/" + id, ""},
		{"/dnsaddr/a.example/p2p/" + id, ""},
		{"/ip4/192.0.2.1/tcp/4001", "does not end in /p2p/"},
		{"/p2p/" + id, "no address"},
		{"192.0.2.1:4001", "must begin with /"},
		{"/ip4/192.0.2.1/udp/4001/p2p/" + id, "neither /tcp"},
		{"/ip4/192.0.2.1/tcp/0/p2p/" + id, "no port"},
		{"/ip4/192.0.2.1/tcp/443/wss/p2p/" + id, "neither /tcp"},
	} {
		err := mesh.CheckPeer(c.peer)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("peer %s: %v, want %q", c.peer, err, c.want)
		}
	}
	for _, c := range []struct {
		announce, want string
	}{
		{"/ip4/192.0.2.1/tcp/4001", ""},
		{"/dns6/a.example/udp/4001/quic-v1", ""},
		{"/ip4/0.0.0.0/tcp/4001", "where to listen"},
		{"/ip6/::/udp/4001/quic-v1", "where to listen"},
		{"/dnsaddr/a.example", "does not begin with"},
		{"/dns4/" + strings.Repeat("abcdefgh.", 30) + "example/tcp/4001", "at most 256"},
		{"/ip4/192.0.2.1/tcp/4001/p2p/" + id, "neither /tcp"},
		{"a.example:4001", "must begin with /"},
	} {
		err := mesh.CheckAnnounced(c.announce)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("announced %s: %v, want %q", c.announce, err, c.want)
		}
	}
}
