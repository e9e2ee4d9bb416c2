// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/multiformats/go-multiaddr"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/store"
)

// Roster is who belongs to the fleet. One roster never changes; [Node.SetRoster] puts another in its place.
type Roster interface {
	fleet.Roster
	// Members are all of them, in any order.
	Members() []fleet.Member
}

// Config of a node. Begin with a preset, [LAN] or [Test], and fill in the first block. A duration of
// zero means LAN's.
type Config struct {
	// Key is the member's own; its peer ID is the member's ID.
	Key ed25519.PrivateKey
	// Fleet is the digest that every record of this fleet bears.
	Fleet fleet.Digest
	// Roster at start.
	Roster Roster
	// Store is opened by the caller, and closed by it after Run has returned. Meta keys that begin
	// with "mesh." are the node's.
	Store *store.Store

	// Listen are multiaddrs over tcp or quic-v1, such as /ip4/0.0.0.0/udp/4001/quic-v1.
	// None means that this member only dials out.
	Listen []string
	// Peers are multiaddrs of members to dial beside those of the roster, each ending in /p2p/<ID>; /dns4,
	// /dns6 and /dnsaddr are resolved at every attempt. Whoever answers there must be on the roster.
	Peers []string
	// Announce are multiaddrs at which this member can be reached, told to the fleet in a register of its own.
	// For where the roster gives none; at most 8.
	Announce []string
	// Resolver of names in addresses; nil asks whom this machine asks.
	Resolver network.MultiaddrDNSResolver
	// Rates bound what others may bring; those left out are LAN's.
	Rates Rates
	// Flat is how many members a fleet may have for every member to carry everything; above it a member
	// carries its own zone and what [Node.Carry] names. Zero means 1,000.
	Flat int
	// Options are added to those of the libp2p host, such as another network.
	Options []libp2p.Option

	// OnNews is told every record that changed the set, the member's own ones too, in order, from one
	// goroutine of Run. It must not block: news waits meanwhile. Records loaded at start are no news: see
	// [Node.Held]. A record that this process dies of while it is told is told once more, alone, and then never again.
	OnNews func([]fleet.Record)
	// OnDropped is told records that left the set for another reason than that a newer one took their place: retired,
	// over a quota, ended, or in a share that is not carried any more. It is called from the goroutine of OnNews, in
	// order with it. That a member is forked is news: the proof.
	OnDropped func([]fleet.Record)
	// OnWithheld is told what OnNews and [Node.Held] do not show: records in quarantine, those that did not read back from disk
	// until they come again, and commands that no decoder here reads. Any of them may have been a stop. It is told as well
	// what of that is gone. It is called by Held, and from the goroutine of OnNews, in order with it.
	OnWithheld func(now, gone []Withheld)
	// Log is silent by default.
	Log logr.Logger
	// Now is time.Now by default.
	Now func() time.Time
	// Allow is asked, as well as the roster, before a member may be connected. Nil allows everyone.
	// After its answers changed, call [Node.Recheck].
	Allow func(fleet.MemberID) bool
	// NoGossip leaves all records to reconciliation.
	NoGossip bool

	// Beat is the time between two beats of neighbours. One that vanished is lost after 3.5, and the others hear of
	// it within another half: 4 x 3 s <= 15 s. A beat is 30 B and its packet 60 B, with half an acknowledgement: eight
	// neighbours cost a member 2.6 kbit/s, each way.
	Beat time.Duration
	// Heartbeat is the time between two signed heartbeats by gossip, in fleets of up to 8 members; above, it
	// grows, so that they cost no member more than 3 kbit/s each way (pace.go).
	Heartbeat time.Duration
	// Coalesce is how long a record waits for others to travel with. It delays news by that much.
	Coalesce time.Duration
	// SyncEvery is the time between two reconciliations with a random member, +-25 %. With gossip
	// dead, everyone has heard a record after about SyncEvery x log2(members).
	SyncEvery time.Duration
	// SyncGap is the least time between two reconciliations that heartbeats ask for.
	SyncGap time.Duration
	// DialMin and DialMax bound the pause before a member is dialled again: DialMin x 2^failures, +-50 %.
	DialMin, DialMax time.Duration
	// DialTimeout is for one attempt, handshake included.
	DialTimeout time.Duration
	// StreamTimeout is for a frame to begin, and for each 4 KiB of it to get through, beside a second for those.
	StreamTimeout time.Duration
	// SessionTimeout is for one whole reconciliation; what is missing then is left to the next one.
	SessionTimeout time.Duration
	// GossipBeat is how often gossipsub tends its mesh and tells what it has.
	GossipBeat time.Duration
}

// LAN is for members that reach each other within a second.
func LAN() Config {
	return Config{
		Beat:           3 * time.Second,
		Heartbeat:      5 * time.Second,
		Coalesce:       50 * time.Millisecond,
		SyncEvery:      30 * time.Second,
		SyncGap:        time.Second,
		DialMin:        time.Second,
		DialMax:        30 * time.Second,
		DialTimeout:    10 * time.Second,
		StreamTimeout:  10 * time.Second,
		SessionTimeout: 2 * time.Minute,
		GossipBeat:     time.Second,
	}
}

// Test is for members in one process: everything LAN does, in a hurry.
func Test() Config {
	return Config{
		Beat:           500 * time.Millisecond,
		Heartbeat:      200 * time.Millisecond,
		Coalesce:       5 * time.Millisecond,
		SyncEvery:      time.Second,
		SyncGap:        50 * time.Millisecond,
		DialMin:        20 * time.Millisecond,
		DialMax:        200 * time.Millisecond,
		DialTimeout:    5 * time.Second,
		StreamTimeout:  2 * time.Second,
		SessionTimeout: 10 * time.Second,
		GossipBeat:     100 * time.Millisecond,
	}
}

// check refuses what cannot work and fills in what was left out.
func (c *Config) check() error {
	switch {
	case len(c.Key) != ed25519.PrivateKeySize:
		return errors.New("mesh: no key")
	case c.Fleet.IsZero():
		return errors.New("mesh: no fleet")
	case c.Roster == nil:
		return errors.New("mesh: no roster")
	case c.Store == nil:
		return errors.New("mesh: no store")
	}
	for _, address := range c.Listen {
		if _, err := multiaddr.NewMultiaddr(address); err != nil {
			return fmt.Errorf("mesh: listen address %q: %w", address, err)
		}
	}
	if err := c.checkReach(); err != nil {
		return err
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Resolver == nil {
		c.Resolver = machineResolver()
	}
	c.Rates.fill()
	if c.Flat == 0 {
		c.Flat = 1000
	}
	lan := LAN()
	for _, d := range []struct{ is, otherwise *time.Duration }{
		{&c.Beat, &lan.Beat}, {&c.Heartbeat, &lan.Heartbeat}, {&c.Coalesce, &lan.Coalesce}, {&c.SyncEvery, &lan.SyncEvery},
		{&c.SyncGap, &lan.SyncGap}, {&c.DialMin, &lan.DialMin}, {&c.DialMax, &lan.DialMax},
		{&c.DialTimeout, &lan.DialTimeout}, {&c.StreamTimeout, &lan.StreamTimeout},
		{&c.SessionTimeout, &lan.SessionTimeout}, {&c.GossipBeat, &lan.GossipBeat},
	} {
		if *d.is < 0 {
			return fmt.Errorf("mesh: duration %s is negative", *d.is)
		}
		if *d.is == 0 {
			*d.is = *d.otherwise
		}
	}
	return nil
}

func (c *Config) checkReach() error {
	if len(c.Peers) > maxPeers {
		return fmt.Errorf("mesh: %d peer addresses, at most %d", len(c.Peers), maxPeers)
	}
	if len(c.Announce) > maxAnnounced {
		return fmt.Errorf("mesh: %d announced addresses, at most %d", len(c.Announce), maxAnnounced)
	}
	for _, address := range c.Peers {
		if err := CheckPeer(address); err != nil {
			return fmt.Errorf("mesh: %w", err)
		}
	}
	for _, address := range c.Announce {
		if err := CheckAnnounced(address); err != nil {
			return fmt.Errorf("mesh: %w", err)
		}
	}
	return nil
}
