// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/multiformats/go-multiaddr"
	madns "github.com/multiformats/go-multiaddr-dns"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// Where a member can be dialled is said by the roster, by a person on this machine (Config.Peers), by the member
// itself in a register, and by what was reached before. The first two are believed; of the others only addresses
// that could be a member's are tried. Who answers must have the member's key, wherever it is.

const (
	// metaPeers is where the store keeps what was reached last.
	metaPeers = "mesh.peers"
	// reachKey is the one key of the register in which a member announces its addresses. Every zone carries it: an
	// anchor is dialled from others, too.
	reachKey = "reach"

	// maxAnnounced addresses of one member, and the bytes of one. The roster has the same bounds.
	maxAnnounced = 8
	maxAddress   = 256
	// maxPeers that a person names.
	maxPeers = 256
	// maxRemembered members, and the addresses of one.
	maxRemembered  = 256
	rememberedEach = 2
	// maxTried bounds the addresses of one attempt, and maxResolved what a name stands for.
	maxTried    = 32
	maxResolved = 8
	// dnsDepth is how many dnsaddr names may lead to each other.
	dnsDepth = 4
)

// announcement is the body of the register reach.
type announcement struct {
	Addresses []string `json:"addresses"`
}

// book is what this member knows of addresses beside the roster and the registers.
type book struct {
	// pinned are Config.Peers by member; it does not change.
	pinned map[fleet.MemberID][]multiaddr.Multiaddr
	// told goes up when a register of addresses came.
	told atomic.Uint64

	mu      sync.Mutex
	reached map[fleet.MemberID]reached
	unsaved bool
}

// reached is where a member answered, the last address first.
type reached struct {
	Addresses []string `json:"addresses"`
	// Day of the last time, by which the bounded book forgets.
	Day int64 `json:"day"`
}

// splitPeer checks an address of Config.Peers.
func splitPeer(text string) (multiaddr.Multiaddr, peer.ID, error) {
	address, err := multiaddr.NewMultiaddr(text)
	if err != nil {
		return nil, "", err
	}
	transport, id := peer.SplitAddr(address)
	switch {
	case id == "":
		return nil, "", errors.New("does not end in /p2p/ and the peer ID of a member")
	case transport == nil:
		return nil, "", errors.New("is a peer ID and no address")
	case isName(transport, multiaddr.P_DNSADDR):
		return transport, id, nil
	}
	return transport, id, checkTransport(transport)
}

// CheckPeer says what is wrong with an address for Config.Peers.
func CheckPeer(text string) error {
	if _, _, err := splitPeer(text); err != nil {
		return fmt.Errorf("peer address %q: %w", text, err)
	}
	return nil
}

// CheckAnnounced says what is wrong with an address for Config.Announce.
func CheckAnnounced(text string) error {
	address, err := multiaddr.NewMultiaddr(text)
	if err == nil {
		err = checkTransport(address)
	}
	if err == nil && len(text) > maxAddress {
		err = fmt.Errorf("has %d bytes, at most %d", len(text), maxAddress)
	}
	if err == nil && !isName(address) {
		if ip, e := manet.ToIP(address); e == nil && ip.IsUnspecified() {
			err = errors.New("is where to listen; announce where others reach it")
		}
	}
	if err != nil {
		return fmt.Errorf("announced address %q: %w", text, err)
	}
	return nil
}

// isName says whether an address begins with a name to resolve, of these protocols or any.
func isName(address multiaddr.Multiaddr, codes ...int) bool {
	if len(codes) == 0 {
		codes = []int{multiaddr.P_DNS, multiaddr.P_DNS4, multiaddr.P_DNS6, multiaddr.P_DNSADDR}
	}
	return len(address) > 0 && slices.Contains(codes, address[0].Code())
}

// checkTransport refuses what is not an IP address or a name, and a port over tcp or quic-v1: nothing else is
// spoken here.
func checkTransport(address multiaddr.Multiaddr) error {
	var path []string
	for _, c := range address {
		path = append(path, c.Protocol().Name)
	}
	said := strings.Join(path, "/")
	switch {
	case len(path) == 0:
		return errors.New("is empty")
	case !slices.Contains([]string{"ip4", "ip6", "dns", "dns4", "dns6"}, path[0]):
		return fmt.Errorf("/%s: does not begin with ip4, ip6, dns, dns4 or dns6", said)
	case said != path[0]+"/tcp" && said != path[0]+"/udp/quic-v1":
		return fmt.Errorf("/%s: is neither /tcp/<port> nor /udp/<port>/quic-v1", said)
	}
	if port, err := strconv.Atoi(address[1].Value()); err != nil || port == 0 {
		return errors.New("has no port")
	}
	return nil
}

// newBook checks Config.Peers and reads what was reached before the restart.
func (n *Node) newBook() error {
	n.book.pinned, n.book.reached = map[fleet.MemberID][]multiaddr.Multiaddr{}, map[fleet.MemberID]reached{}
	for _, text := range n.cfg.Peers {
		transport, id, err := splitPeer(text)
		if err != nil {
			return fmt.Errorf("mesh: peer address %q: %w", text, err)
		}
		if member := fleet.MemberID(id.String()); member != n.id {
			n.book.pinned[member] = append(n.book.pinned[member], transport)
		}
	}
	stored, err := n.cfg.Store.Meta(metaPeers)
	if err != nil {
		return fmt.Errorf("mesh: %w", err)
	}
	if len(stored) > 0 {
		if err := json.Unmarshal(stored, &n.book.reached); err != nil {
			n.cfg.Log.Error(err, "the addresses that were reached before are not used")
			n.book.reached = map[fleet.MemberID]reached{}
		}
	}
	return nil
}

// reachable says whether an address of a member is known.
func (n *Node) reachable(m *fleet.Member) bool {
	if m.ID == n.id {
		return len(m.Addresses) > 0 || len(n.cfg.Announce) > 0
	}
	if len(m.Addresses) > 0 || len(n.book.pinned[m.ID]) > 0 || len(n.announced(m.ID)) > 0 {
		return true
	}
	n.book.mu.Lock()
	defer n.book.mu.Unlock()
	return len(n.book.reached[m.ID].Addresses) > 0
}

// announced are the addresses that a member's own register gives.
func (n *Node) announced(id fleet.MemberID) []string {
	n.setMu.RLock()
	r, ok := n.set.Get(id, fleet.KindReach, reachKey)
	n.setMu.RUnlock()
	if !ok {
		return nil
	}
	var a announcement
	if err := json.Unmarshal(r.Body, &a); err != nil {
		return nil // of a later version, or nonsense; nobody else is harmed
	}
	return a.Addresses[:min(len(a.Addresses), maxAnnounced)]
}

// announce says where this member is reached, or takes back what it said in an earlier life.
func (n *Node) announce() {
	if len(n.cfg.Announce) == 0 && len(n.announced(n.id)) == 0 {
		return
	}
	body, err := json.Marshal(announcement{Addresses: append([]string{}, n.cfg.Announce...)})
	if err == nil {
		_, err = n.Publish(fleet.KindReach, reachKey, body)
	}
	if err != nil && fleet.KindOf(err) != fleet.Refused { // not on the roster yet: it is said when the roster changes
		n.cfg.Log.Error(err, "addresses not announced")
	}
}

// heardOf tells the dialler that members announced other addresses.
func (n *Node) heardOf(records []fleet.Record) {
	isReach := func(r fleet.Record) bool {
		return r.Kind == fleet.KindReach && r.Key == reachKey && r.Writer != n.id
	}
	if slices.ContainsFunc(records, isReach) {
		n.book.told.Add(1)
		if w := n.running.Load(); w != nil {
			wake(w.dialNow)
		}
	}
}

// addresses to try for a member, names resolved now: a name stands for something else after a move.
func (w *wire) addresses(ctx context.Context, member fleet.MemberID) []multiaddr.Multiaddr {
	var all []multiaddr.Multiaddr
	add := func(found ...multiaddr.Multiaddr) {
		for _, a := range found {
			if len(all) < maxTried && !slices.ContainsFunc(all, a.Equal) {
				all = append(all, a)
			}
		}
	}
	id, err := peerID(member)
	if err != nil {
		return nil
	}
	// A name server that does not answer leaves time for the other addresses.
	ctx, cancel := context.WithTimeout(ctx, w.cfg.DialTimeout/3)
	defer cancel()
	for _, address := range w.book.pinned[member] {
		add(w.resolve(ctx, id, address)...)
	}
	if m, ok := w.roster().Member(member); ok {
		for _, text := range m.Addresses {
			// The roster's reader says what is wrong with one; the other addresses may do.
			if transport := transportOf(text, id); transport != nil {
				add(w.resolve(ctx, id, transport)...)
			}
		}
	}
	w.book.mu.Lock()
	before := w.book.reached[member].Addresses
	w.book.mu.Unlock()
	for _, text := range slices.Concat(w.announced(member), before) {
		transport := transportOf(text, id)
		if len(text) > maxAddress || transport == nil || checkTransport(transport) != nil {
			continue
		}
		add(slices.DeleteFunc(w.resolve(ctx, id, transport), func(a multiaddr.Multiaddr) bool { return !w.plausible(a) })...)
	}
	return all
}

// transportOf an address without a /p2p at its end, which must be the member's; nil where it is of no use.
func transportOf(text string, id peer.ID) multiaddr.Multiaddr {
	address, err := multiaddr.NewMultiaddr(text)
	if err != nil {
		return nil
	}
	transport, of := peer.SplitAddr(address)
	if of != "" && of != id {
		return nil
	}
	return transport
}

// resolve gives what an address stands for; itself where it has no name in it.
func (w *wire) resolve(ctx context.Context, id peer.ID, address multiaddr.Multiaddr) (found []multiaddr.Multiaddr) {
	if !isName(address) {
		return []multiaddr.Multiaddr{address}
	}
	asked := []multiaddr.Multiaddr{address}
	var err error
	if isName(address, multiaddr.P_DNSADDR) {
		whole := multiaddr.Join(address, multiaddr.StringCast("/p2p/"+id.String()))
		if asked, err = w.cfg.Resolver.ResolveDNSAddr(ctx, id, whole, dnsDepth, maxResolved); err != nil {
			asked = nil
		}
	}
	for _, a := range asked {
		transport, _ := peer.SplitAddr(a)
		if !isName(transport) {
			found = append(found, transport)
			continue
		}
		resolved, e := w.cfg.Resolver.ResolveDNSComponent(ctx, transport, maxResolved)
		found, err = append(found, resolved...), cmp.Or(err, e)
	}
	if err != nil {
		w.cfg.Log.V(1).Info("name not resolved", "address", address.String(), "why", err.Error())
	}
	found = slices.DeleteFunc(found, func(a multiaddr.Multiaddr) bool { return checkTransport(a) != nil || isName(a) })
	return found[:min(len(found), maxResolved)]
}

// plausible says whether a member could be at an address that it named itself: a hostile one names our own
// ports, or this machine's metadata service. Loopback and link-local are for members that listen there themselves.
func (w *wire) plausible(address multiaddr.Multiaddr) bool {
	ip, err := manet.ToIP(address)
	if err != nil || ip.IsUnspecified() || ip.IsMulticast() || ip.Equal(broadcast) {
		return false
	}
	local := ip.IsLoopback() || ip.IsLinkLocalUnicast()
	if !local {
		return true
	}
	return slices.ContainsFunc(w.host.Network().ListenAddresses(), func(own multiaddr.Multiaddr) bool {
		at, err := manet.ToIP(own)
		return err == nil && (at.IsLoopback() && ip.IsLoopback() || at.IsLinkLocalUnicast() && ip.IsLinkLocalUnicast())
	})
}

var broadcast = []byte{255, 255, 255, 255}

// remember where a member answered.
func (n *Node) remember(member fleet.MemberID, address multiaddr.Multiaddr) {
	text, today := address.String(), fleet.Day(n.cfg.Now())
	n.book.mu.Lock()
	defer n.book.mu.Unlock()
	was := n.book.reached[member]
	if was.Day == today && len(was.Addresses) > 0 && was.Addresses[0] == text {
		return
	}
	others := slices.DeleteFunc(slices.Clone(was.Addresses), func(a string) bool { return a == text })
	others = append([]string{text}, others...)
	n.book.reached[member] = reached{others[:min(len(others), rememberedEach)], today}
	n.book.unsaved = true
}

// save what is remembered, of the members that are on the roster: those reached last.
func (n *Node) save() {
	roster := n.roster()
	n.book.mu.Lock()
	defer n.book.mu.Unlock()
	if !n.book.unsaved || len(roster.Members()) == 0 {
		return // without a roster nobody can be told from a stranger
	}
	n.book.unsaved = false
	var members []fleet.MemberID
	for id := range n.book.reached {
		if _, ok := roster.Member(id); ok {
			members = append(members, id)
		}
	}
	slices.SortFunc(members, func(a, b fleet.MemberID) int {
		return cmp.Or(cmp.Compare(n.book.reached[b].Day, n.book.reached[a].Day), cmp.Compare(a, b))
	})
	kept := map[fleet.MemberID]reached{}
	for _, id := range members[:min(len(members), maxRemembered)] {
		kept[id] = n.book.reached[id]
	}
	n.book.reached = kept
	stored, err := json.Marshal(kept)
	if err == nil {
		err = n.cfg.Store.SetMeta(metaPeers, stored)
	}
	if err != nil {
		n.cfg.Log.Error(err, "the addresses that were reached are not stored")
	}
}

// machineResolver asks whom this machine asks.
func machineResolver() network.MultiaddrDNSResolver {
	return swarm.ResolverFromMaDNS{Resolver: madns.DefaultResolver}
}
