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
	// others, NoticesRefused those over what one writer, or all, may say: not passed on, and most not heard.
	Beats, Notices, NoticesHeard, NoticesRefused uint64
	// Hearsay are heartbeats and notices that a neighbour gave when it was asked, and that were news.
	Hearsay uint64

	// Known are records held already; Stale are older registers, later milestones, what the state has no place for,
	// old heartbeats and old notices. Neither is verified, but for the first of what there is no place for.
	Known, Stale uint64

	// Refused, by reason. TooLarge counts messages and records over their bounds; a message over
	// twice the bound ends the stream unread.
	TooLarge, Malformed, OtherFleet, Stranger, BadSignature, Version uint64

	// Elsewhere are records of shares that are not carried here. Poisoned made a decoder panic, and were refused.
	Elsewhere, Poisoned uint64
	// Rivals are verified records in the position of another one of their writer. Proven are writers that were
	// accused by a proof of ours, Unprovable those whose two records do not fit into one.
	Rivals, Proven, Unprovable uint64
	// Forked are writers against which a proof is held, OverQuota those of whom more was heard than anybody keeps;
	// both as it is now. Dropped are records that left the set, or did not stay: over a quota, retired, ended, or
	// in a share that is not carried any more.
	Forked, OverQuota, Dropped uint64
	// Withheld are records in quarantine: this agent died of them.
	Withheld uint64

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
	// SessionsUnspoken are those of SessionsFailed where the other side speaks another version.
	SessionsUnspoken uint64
	// SyncBytes is what reconciliations begun here sent and received, without encryption.
	SyncBytes uint64

	// GossipLeft is how often this member left gossip because its own line is too slow for it, SlowLine 1 while it stays
	// out.
	GossipLeft, SlowLine uint64

	// Overrun are messages, streams, offers and records beyond their rates, Blamed how often a member was
	// disconnected for what no honest one does.
	Overrun, Blamed uint64
	// ConnectionsRefused are strangers at the door, or strangers nearly dialled.
	ConnectionsRefused uint64
	// BlobsFetched and BlobsServed; BlobsRefused did not have the digest that was asked for. BlobsDropped were
	// named by no seal any more.
	BlobsFetched, BlobsServed, BlobsRefused, BlobsDropped uint64
}

// counters is Stats while it counts.
type counters struct {
	published, gossiped, synced                                      atomic.Uint64
	gossipReceived, heartbeats                                       atomic.Uint64
	beats, notices, noticesHeard, noticesRefused, hearsay            atomic.Uint64
	known, stale                                                     atomic.Uint64
	tooLarge, malformed, otherFleet, stranger, badSignature, version atomic.Uint64
	elsewhere, poisoned, rivals, proven, unprovable                  atomic.Uint64
	dropped, withheld, unspoken                                      atomic.Uint64
	undelivered, unstored, quarantined                               atomic.Uint64
	sessions, sessionsFailed, sessionsServed, sessionsRefused        atomic.Uint64
	syncBytes                                                        atomic.Uint64
	connectionsRefused                                               atomic.Uint64
	overrun, blamed, gossipLeft                                      atomic.Uint64
	blobsFetched, blobsServed, blobsRefused, blobsDropped            atomic.Uint64
}

// Stats gives the counters as they are now.
func (n *Node) Stats() Stats {
	c := &n.counts
	n.setMu.RLock()
	forked, over := len(n.set.AllForked()), len(n.set.AllOver())
	n.setMu.RUnlock()
	slowLine := uint64(0)
	if n.line.tooSlow() {
		slowLine = 1
	}
	return Stats{
		Published: c.published.Load(), Gossiped: c.gossiped.Load(), Synced: c.synced.Load(),
		GossipReceived: c.gossipReceived.Load(), Heartbeats: c.heartbeats.Load(),
		Beats: c.beats.Load(), Notices: c.notices.Load(),
		NoticesHeard: c.noticesHeard.Load(), NoticesRefused: c.noticesRefused.Load(), Hearsay: c.hearsay.Load(),
		Known: c.known.Load(), Stale: c.stale.Load(),
		TooLarge: c.tooLarge.Load(), Malformed: c.malformed.Load(), OtherFleet: c.otherFleet.Load(),
		Stranger: c.stranger.Load(), BadSignature: c.badSignature.Load(), Version: c.version.Load(),
		Elsewhere: c.elsewhere.Load(), Poisoned: c.poisoned.Load(),
		Rivals: c.rivals.Load(), Proven: c.proven.Load(), Unprovable: c.unprovable.Load(),
		Forked: uint64(forked), OverQuota: uint64(over), Dropped: c.dropped.Load(), Withheld: c.withheld.Load(),
		Undelivered: c.undelivered.Load(), Unstored: c.unstored.Load(), Quarantined: c.quarantined.Load(),
		Sessions: c.sessions.Load(), SessionsFailed: c.sessionsFailed.Load(),
		SessionsServed: c.sessionsServed.Load(), SessionsRefused: c.sessionsRefused.Load(),
		SessionsUnspoken:   c.unspoken.Load(),
		SyncBytes:          c.syncBytes.Load(),
		ConnectionsRefused: c.connectionsRefused.Load(),
		Overrun:            c.overrun.Load(), Blamed: c.blamed.Load(),
		GossipLeft: c.gossipLeft.Load(), SlowLine: slowLine,
		BlobsFetched: c.blobsFetched.Load(), BlobsServed: c.blobsServed.Load(), BlobsRefused: c.blobsRefused.Load(),
		BlobsDropped: c.blobsDropped.Load(),
	}
}
