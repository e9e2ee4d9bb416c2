// SPDX-License-Identifier: Apache-2.0

package mesh

import "sync/atomic"

// Stats are counters since New. Nothing is dropped without being counted here.
type Stats struct {
	// Published are records written by this process, Gossiped and Synced those learnt from others.
	Published, Gossiped, Synced uint64
	// GossipReceived are messages that came to a validator, Heartbeats those of them that were heartbeats
	// worth hearing.
	GossipReceived, Heartbeats uint64
	// Beats are those that came from neighbours. Notices are losses told by this member, NoticesHeard those told by
	// others, NoticesRefused those over what one writer, or all, may say.
	Beats, Notices, NoticesHeard, NoticesRefused uint64

	// Known are records held already; Stale are older registers, later milestones, old
	// heartbeats and old notices. Neither is verified.
	Known, Stale uint64

	// Refused, by reason. TooLarge counts messages and records over their bounds; a message over
	// twice the bound ends the stream unread.
	TooLarge, Malformed, OtherFleet, Stranger, BadSignature, Version uint64

	// Undelivered are messages, in or out, lost to a full queue; reconciliation brings them.
	Undelivered uint64
	// Unstored are records lost to a disk that did not take them; reconciliation brings them again.
	Unstored uint64
	// Quarantined are records that did not read back from disk at start.
	Quarantined uint64

	// Sessions are reconciliations begun here and ended, SessionsFailed those that did not end well,
	// SessionsServed those begun by others, SessionsRefused those that came while one of the same
	// member was running, or that broke the rules or the time.
	Sessions, SessionsFailed, SessionsServed, SessionsRefused uint64
	// SyncBytes is what reconciliations begun here sent and received, without encryption.
	SyncBytes uint64

	// Overrun are messages, streams, offers and records beyond their rates, Blamed how often a member was
	// disconnected for what no honest one does.
	Overrun, Blamed uint64
	// ConnectionsRefused are strangers at the door, or strangers nearly dialled.
	ConnectionsRefused uint64
	// BlobsFetched and BlobsServed; BlobsRefused did not have the digest that was asked for.
	BlobsFetched, BlobsServed, BlobsRefused uint64
}

// counters is Stats while it counts.
type counters struct {
	published, gossiped, synced                                      atomic.Uint64
	gossipReceived, heartbeats                                       atomic.Uint64
	beats, notices, noticesHeard, noticesRefused                     atomic.Uint64
	known, stale                                                     atomic.Uint64
	tooLarge, malformed, otherFleet, stranger, badSignature, version atomic.Uint64
	undelivered, unstored, quarantined                               atomic.Uint64
	sessions, sessionsFailed, sessionsServed, sessionsRefused        atomic.Uint64
	syncBytes                                                        atomic.Uint64
	connectionsRefused                                               atomic.Uint64
	overrun, blamed                                                  atomic.Uint64
	blobsFetched, blobsServed, blobsRefused                          atomic.Uint64
}

// Stats gives the counters as they are now.
func (n *Node) Stats() Stats {
	c := &n.counts
	return Stats{
		Published: c.published.Load(), Gossiped: c.gossiped.Load(), Synced: c.synced.Load(),
		GossipReceived: c.gossipReceived.Load(), Heartbeats: c.heartbeats.Load(),
		Beats: c.beats.Load(), Notices: c.notices.Load(),
		NoticesHeard: c.noticesHeard.Load(), NoticesRefused: c.noticesRefused.Load(),
		Known: c.known.Load(), Stale: c.stale.Load(),
		TooLarge: c.tooLarge.Load(), Malformed: c.malformed.Load(), OtherFleet: c.otherFleet.Load(),
		Stranger: c.stranger.Load(), BadSignature: c.badSignature.Load(), Version: c.version.Load(),
		Undelivered: c.undelivered.Load(), Unstored: c.unstored.Load(), Quarantined: c.quarantined.Load(),
		Sessions: c.sessions.Load(), SessionsFailed: c.sessionsFailed.Load(),
		SessionsServed: c.sessionsServed.Load(), SessionsRefused: c.sessionsRefused.Load(),
		SyncBytes:          c.syncBytes.Load(),
		ConnectionsRefused: c.connectionsRefused.Load(),
		Overrun:            c.overrun.Load(), Blamed: c.blamed.Load(),
		BlobsFetched: c.blobsFetched.Load(), BlobsServed: c.blobsServed.Load(), BlobsRefused: c.blobsRefused.Load(),
	}
}
