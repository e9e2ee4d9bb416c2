// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
)

const (
	// Library defaults of 32 lose messages without a word.
	outboundQueue    = 1024
	validationQueue  = 1024
	subscriberBuffer = 4096
	// validationsAtOnce per topic; each holds one message.
	validationsAtOnce = 1024
	// maxRPC is what one gossipsub envelope may hold: two full messages, so that one that is too large by a
	// little is counted and not only cut off.
	maxRPC = 2*maxMessage + 4096
	// ingestAtOnce bounds the messages that share one transaction.
	ingestAtOnce = 256
	// messageID is how much of a message's digest names it. Who makes two messages of one name keeps one of them from
	// those who hear the other first, until they reconcile.
	messageID = 16
)

// newGossip sets up gossipsub. Records are signed by their writers, and others must be able to pass
// them on, so pubsub's own signatures are off; a message is its content.
func (w *wire) newGossip(ctx context.Context) (*pubsub.PubSub, error) {
	params := pubsub.DefaultGossipSubParams()
	// Each of D neighbours is told everything, and most tell it back: what gossip loses with fewer of them,
	// reconciliation brings.
	params.D, params.Dlo, params.Dhi, params.Dout, params.Dscore = 4, 3, 6, 1, 3
	// What others were told is mentioned to one neighbour in each of two beats: each mention is a packet of its own. Who
	// is neither told nor mentioned anything learns of it by the next beat that shows another root.
	params.Dlazy, params.GossipFactor, params.HistoryGossip = 1, 0.1, 2
	params.HeartbeatInterval = w.cfg.GossipBeat
	params.HeartbeatInitialDelay = w.cfg.GossipBeat / 10
	// Not to want a message costs a packet to each neighbour, and its acknowledgement. A record of 512 B is dearer to turn
	// down than to hear again.
	params.IDontWantMessageThreshold = 1024
	return pubsub.NewGossipSub(ctx, gossipHost{w.host, w.flood}, append(w.flood.scoring(w.scored),
		pubsub.WithAppSpecificRpcInspector(w.flood.inspect),
		pubsub.WithSubscriptionFilter(topicFilter{w.flood}),
		pubsub.WithGossipSubParams(params),
		pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign),
		pubsub.WithNoAuthor(),
		pubsub.WithMessageIdFn(func(m *pb.Message) string {
			sum := sha256.Sum256(m.GetData())
			return string(sum[:messageID])
		}),
		pubsub.WithMaxMessageSize(maxRPC),
		pubsub.WithPeerOutboundQueueSize(outboundQueue),
		pubsub.WithValidateQueueSize(validationQueue),
		pubsub.WithRawTracer(dropCounter{w.Node}),
	)...)
}

// Topics and their history. A topic has one kind of message, and reaches who carries what is said in it.
//
//	/flotilla/1/<fleet>/<zone>/records, /flotilla/1/<fleet>/<zone>/heartbeats   2026-11: never released
//	<fleet> in 64 hex digits                         2026-11: never released; a name is in every message
//	<fleet>: 16 bytes of its digest, base64url. What is told in a topic bears all of it.
//	/flotilla/1/<fleet>/records/fleet                2026-11: batches of records that everybody carries
//	/flotilla/1/<fleet>/records/milestones/<zone>    2026-11: batches of records of a share
//	/flotilla/1/<fleet>/records/detail/<zone>        2026-11: the same
//	/flotilla/1/<fleet>/<zone>/heartbeats            2026-11: heartbeats of the members of a zone
//
// A fleet that carries everything tells all records in the first one, however many zones it has: gossipsub pays for
// every topic with every member and every second.
func topicBase(fleetID fleet.Digest) string {
	return "/flotilla/1/" + base64.RawURLEncoding.EncodeToString(fleetID[:16])
}

// recordsTopic is where the records of a share are told; the one of ScopeFleet where flat.
func recordsTopic(fleetID fleet.Digest, share lattice.Share, flat bool) string {
	base := topicBase(fleetID) + "/records/"
	switch {
	case flat || share.Scope == fleet.ScopeFleet:
		return base + "fleet"
	case share.Scope == fleet.ScopeMilestones:
		return base + "milestones/" + url.PathEscape(share.Zone)
	}
	return base + "detail/" + url.PathEscape(share.Zone)
}

// heartbeatsTopic of a zone.
func heartbeatsTopic(fleetID fleet.Digest, zone string) string {
	return topicBase(fleetID) + "/" + url.PathEscape(zone) + "/heartbeats"
}

// followTopics joins topics as the roster and Carry name them, and leaves them. The first were joined by Run, so
// that nothing is said before somebody listens.
func (w *wire) followTopics(ctx context.Context) {
	defer func() {
		for _, f := range w.following {
			f.leave()
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.topicsNow:
			w.updateTopics(ctx)
		}
	}
}

// topicsWanted are those of what is carried, and the heartbeats of the zones that this member hears, each with how to
// follow it.
func (w *wire) topicsWanted() map[string]listener {
	wanted := map[string]listener{}
	audience := w.audience()
	for zone := range audience.zones {
		if audience.hears(zone) {
			wanted[heartbeatsTopic(w.cfg.Fleet, zone)] = listener{validate: w.validateHeartbeat, hear: w.heardSign}
		}
	}
	if w.cfg.NoGossip {
		return wanted
	}
	w.setMu.RLock()
	c := w.carries
	w.setMu.RUnlock()
	deaf := w.line.tooSlow()
	for _, share := range append(c.shares(), lattice.Share{Scope: fleet.ScopeFleet}) {
		wanted[recordsTopic(w.cfg.Fleet, share, c.everything)] = listener{w.validateRecords, w.heardRecords, deaf}
	}
	return wanted
}

func (w *wire) updateTopics(ctx context.Context) {
	wanted := w.topicsWanted()
	for name, f := range w.following {
		if l, ok := wanted[name]; !ok || l.deaf != f.deaf {
			f.leave()
			delete(w.following, name)
		}
	}
	for name, l := range wanted {
		if _, ok := w.following[name]; ok {
			continue
		}
		leave, err := w.follow(ctx, name, l)
		if err != nil {
			w.cfg.Log.Error(err, "topic not followed", "topic", name)
			continue
		}
		w.following[name] = followed{leave, l.deaf}
	}
}

type (
	validator = func(context.Context, peer.ID, *pubsub.Message) pubsub.ValidationResult
	hearer    = func(context.Context, *pubsub.Message)
)

// listener is what is done with the messages of a topic. Who is deaf hears none and only speaks: gossipsub hands what it
// says to a few who listen.
type listener struct {
	validate validator
	hear     hearer
	deaf     bool
}

// followed is a topic that is followed, and how to leave it.
type followed struct {
	leave func()
	deaf  bool
}

// follow joins a topic and hears its messages in a goroutine until leave is called.
func (w *wire) follow(ctx context.Context, name string, l listener) (leave func(), err error) {
	if l.deaf {
		return w.speakIn(name)
	}
	err = w.pubsub.RegisterTopicValidator(name, l.validate, pubsub.WithValidatorConcurrency(validationsAtOnce))
	if err != nil {
		return nil, err
	}
	topic, err := w.pubsub.Join(name)
	if err != nil {
		_ = w.pubsub.UnregisterTopicValidator(name)
		return nil, fmt.Errorf("joining: %w", err)
	}
	if w.scored {
		if err := topic.SetScoreParams(topicScore()); err != nil {
			return nil, errors.Join(err, topic.Close(), w.pubsub.UnregisterTopicValidator(name))
		}
	}
	subscription, err := topic.Subscribe(pubsub.WithBufferSize(subscriberBuffer))
	if err != nil {
		_ = topic.Close()
		_ = w.pubsub.UnregisterTopicValidator(name)
		return nil, fmt.Errorf("subscribing: %w", err)
	}
	w.topics.put(name, topic)
	var hearing sync.WaitGroup
	hearing.Go(func() {
		for {
			m, err := subscription.Next(ctx)
			if err != nil {
				return // left, or the end
			}
			l.hear(ctx, m)
		}
	})
	return func() {
		w.topics.drop(name)
		subscription.Cancel()
		hearing.Wait()
		// All three fail only when pubsub has ended already.
		_ = topic.Close()
		_ = w.pubsub.UnregisterTopicValidator(name)
	}, nil
}

// speakIn joins a topic and hears nothing of it.
func (w *wire) speakIn(name string) (leave func(), err error) {
	topic, err := w.pubsub.Join(name)
	if err != nil {
		return nil, fmt.Errorf("joining: %w", err)
	}
	w.topics.put(name, topic)
	return func() {
		w.topics.drop(name)
		_ = topic.Close() // fails only when pubsub has ended already
	}, nil
}

// topicTable are the topics that can be published to.
type topicTable struct {
	mu     sync.Mutex
	joined map[string]*pubsub.Topic
}

func (t *topicTable) put(name string, topic *pubsub.Topic) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.joined[name] = topic
}

func (t *topicTable) drop(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.joined, name)
}

func (t *topicTable) get(name string) *pubsub.Topic {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.joined[name]
}

// validateRecords decides whether a message is passed on and heard. One record that no honest member sends
// condemns the message. One that is not for us to judge keeps it from being passed on by us;
// reconciliation brings what else was in it.
func (w *wire) validateRecords(_ context.Context, from peer.ID, m *pubsub.Message) pubsub.ValidationResult {
	if from == w.host.ID() {
		return pubsub.ValidationAccept // what this node tells it has checked
	}
	result := w.judgeMessage(from, m)
	if result == pubsub.ValidationReject {
		w.flood.strike(from, "a bad message")
	}
	return result
}

func (w *wire) judgeMessage(from peer.ID, m *pubsub.Message) pubsub.ValidationResult {
	w.counts.gossipReceived.Add(1)
	if len(m.Data) > maxMessage {
		w.counts.tooLarge.Add(1)
		return pubsub.ValidationReject
	}
	encoded, err := splitBatch(m.Data)
	if err != nil {
		w.counts.malformed.Add(1)
		if errors.Is(err, fleet.ErrVersion) {
			return pubsub.ValidationIgnore
		}
		return pubsub.ValidationReject
	}
	var learnt, unverified []fleet.Record
	for _, b := range encoded {
		r, v := w.examine(b, func(writer fleet.MemberID) bool { return w.flood.mayHear(from, writer) })
		switch {
		case v.dishonest() || v == misshapen && w.flood.answers(fleet.MemberID(from.String()), &r):
			w.cfg.Log.V(1).Info("message refused", "peer", from, "writer", r.Writer)
			return pubsub.ValidationReject
		case !v.passed():
			return pubsub.ValidationIgnore
		case v == news:
			if !w.flood.says(from, r.Writer) {
				return pubsub.ValidationIgnore // and nothing more is verified
			}
			learnt = append(learnt, r)
		default:
			unverified = append(unverified, r)
		}
	}
	// What is passed on is vouched for: to others, what is old here may be news, and this member would be blamed. It is at
	// the neighbour's expense, not at the writer's: anyone may repeat what a writer once said.
	if len(learnt) == 0 || len(unverified) > 0 && w.flood.offered(from, len(unverified)) != nil {
		return pubsub.ValidationIgnore
	}
	for i := range unverified {
		switch v := w.vouch(&unverified[i]); {
		case v.dishonest() || v == misshapen && w.flood.answers(fleet.MemberID(from.String()), &unverified[i]):
			return pubsub.ValidationReject
		case !v.passed():
			return pubsub.ValidationIgnore
		}
	}
	m.ValidatorData = learnt
	return pubsub.ValidationAccept
}

func (w *wire) heardRecords(ctx context.Context, m *pubsub.Message) {
	learnt, ok := m.ValidatorData.([]fleet.Record)
	if !ok {
		return // this node's own
	}
	select {
	case w.incoming <- learnt:
	case <-ctx.Done():
	}
}

// ingest brings what gossip learnt to disk and into the set, as many messages at a time as are there:
// one fsync for all.
func (w *wire) ingest(ctx context.Context) {
	for {
		var records []fleet.Record
		select {
		case <-ctx.Done():
			return
		case records = <-w.incoming:
		}
		for more := 1; more < ingestAtOnce && len(w.incoming) > 0; more++ {
			records = append(records, <-w.incoming...)
		}
		learnt, err := w.commit(records...)
		if err != nil {
			w.cfg.Log.Error(err, "records from gossip not stored", "records", len(records))
			continue
		}
		w.counts.gossiped.Add(uint64(len(learnt)))
	}
}

// tellOthers publishes what tell was given, each record in the topic of its share, several in a message.
func (w *wire) tellOthers(ctx context.Context) {
	for {
		records, ok := w.outbox.wait(ctx)
		if !ok {
			return
		}
		pause := time.NewTimer(w.cfg.Coalesce)
		select {
		case <-ctx.Done():
			pause.Stop()
			return
		case <-pause.C:
		}
		w.publish(ctx, append(records, w.outbox.take()...))
	}
}

func (w *wire) publish(ctx context.Context, records []fleet.Record) {
	topics := map[string]*batch{}
	for i := range records {
		name, ok := w.topicOf(&records[i])
		if !ok {
			continue
		}
		b := topics[name]
		if b == nil {
			b = &batch{}
			topics[name] = b
		}
		encoded := records[i].Encode()
		if !b.add(encoded, maxMessage) {
			w.publishTo(ctx, name, b.bytes)
			*b = batch{}
			b.add(encoded, maxMessage)
		}
	}
	for name, b := range topics {
		w.publishTo(ctx, name, b.bytes)
	}
}

// topicOf a record; false where it is told to nobody: it is not held any more, another took its place while it
// waited, its writer left the roster.
func (w *wire) topicOf(r *fleet.Record) (name string, ok bool) {
	w.setMu.RLock()
	defer w.setMu.RUnlock()
	held, ok := w.set.Get(r.Writer, r.Kind, r.Key)
	if !ok || held.Epoch != r.Epoch || held.Seq != r.Seq {
		return "", false
	}
	share, present := w.set.ShareOf(r)
	if !present || !w.carries.share(share) {
		return "", false
	}
	return recordsTopic(w.cfg.Fleet, share, w.carries.everything), true
}

// publishTo never waits for anyone: what a full queue loses is counted by dropCounter.
func (w *wire) publishTo(ctx context.Context, name string, message []byte) {
	topic := w.topics.get(name)
	if topic == nil {
		w.counts.undelivered.Add(1)
		return // a topic that is just coming or going
	}
	if err := topic.Publish(ctx, message); err != nil && ctx.Err() == nil {
		w.counts.undelivered.Add(1)
		w.cfg.Log.V(1).Info("message not published", "topic", name, "why", err.Error())
	}
}

// dropCounter counts what gossipsub drops without telling.
type dropCounter struct{ n *Node }

var _ pubsub.RawTracer = dropCounter{}

func (d dropCounter) RejectMessage(_ *pubsub.Message, reason string) {
	if reason == pubsub.RejectValidationQueueFull || reason == pubsub.RejectValidationThrottled {
		d.n.counts.undelivered.Add(1)
	}
}
func (d dropCounter) UndeliverableMessage(*pubsub.Message) { d.n.counts.undelivered.Add(1) }
func (d dropCounter) DropRPC(*pubsub.RPC, peer.ID)         { d.n.counts.undelivered.Add(1) }

func (dropCounter) OnNewOutboundStream(peer.ID, protocol.ID) {}
func (dropCounter) OnClosedOutboundStream(peer.ID)           {}
func (dropCounter) Join(string)                              {}
func (dropCounter) Leave(string)                             {}
func (dropCounter) Graft(peer.ID, string)                    {}
func (dropCounter) Prune(peer.ID, string)                    {}
func (dropCounter) ValidateMessage(*pubsub.Message)          {}
func (dropCounter) DeliverMessage(*pubsub.Message)           {}
func (dropCounter) DuplicateMessage(*pubsub.Message)         {}
func (dropCounter) ThrottlePeer(peer.ID)                     {}
func (dropCounter) RecvRPC(*pubsub.RPC)                      {}
func (dropCounter) SendRPC(*pubsub.RPC, peer.ID)             {}
