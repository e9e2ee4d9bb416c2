// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"context"
	"crypto/sha256"
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
)

// newGossip sets up gossipsub. Records are signed by their writers, and others must be able to pass
// them on, so pubsub's own signatures are off; a message is its content.
func (w *wire) newGossip(ctx context.Context) (*pubsub.PubSub, error) {
	params := pubsub.DefaultGossipSubParams()
	params.D, params.Dlo, params.Dhi, params.Dout, params.Dscore = 6, 4, 8, 2, 4
	params.HeartbeatInterval = w.cfg.GossipBeat
	params.HeartbeatInitialDelay = w.cfg.GossipBeat / 10
	params.IDontWantMessageThreshold = 256
	return pubsub.NewGossipSub(ctx, gossipHost{w.host, w.flood}, append(w.flood.scoring(w.scored),
		pubsub.WithAppSpecificRpcInspector(w.flood.inspect),
		pubsub.WithSubscriptionFilter(topicFilter{w.flood}),
		pubsub.WithGossipSubParams(params),
		pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign),
		pubsub.WithNoAuthor(),
		pubsub.WithMessageIdFn(func(m *pb.Message) string {
			sum := sha256.Sum256(m.GetData())
			return string(sum[:])
		}),
		pubsub.WithMaxMessageSize(maxRPC),
		pubsub.WithPeerOutboundQueueSize(outboundQueue),
		pubsub.WithValidateQueueSize(validationQueue),
		pubsub.WithRawTracer(dropCounter{w.Node}),
	)...)
}

// topics of one zone. Every member follows every zone of the roster and speaks in its own, so that
// what is said of a zone can later be left to those who are in it.
func topicNames(fleetID fleet.Digest, zone string) (records, heartbeats string) {
	base := fmt.Sprintf("/flotilla/1/%s/%s", fleetID, url.PathEscape(zone))
	return base + "/records", base + "/heartbeats"
}

// followZones joins the topics of zones as the roster names them, and leaves them. The first were joined
// by Run, so that nothing is said before somebody listens.
func (w *wire) followZones(ctx context.Context) {
	defer func() {
		for _, leave := range w.zones {
			leave()
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.zonesNow:
			w.updateZones(ctx)
		}
	}
}

func (w *wire) updateZones(ctx context.Context) {
	wanted := map[string]bool{}
	for _, member := range w.roster().Members() {
		wanted[member.Zone] = true
	}
	for zone, leave := range w.zones {
		if !wanted[zone] {
			leave()
			delete(w.zones, zone)
		}
	}
	for zone := range wanted {
		if w.zones[zone] != nil {
			continue
		}
		leave, err := w.followZone(ctx, zone)
		if err != nil {
			w.cfg.Log.Error(err, "zone not followed", "zone", zone)
			continue
		}
		w.zones[zone] = leave
	}
}

// followZone joins the two topics of a zone until leave is called.
func (w *wire) followZone(ctx context.Context, zone string) (leave func(), err error) {
	records, heartbeats := topicNames(w.cfg.Fleet, zone)
	leaveHeartbeats, err := w.follow(ctx, heartbeats, w.validateHeartbeat, w.heardSign)
	if err != nil {
		return nil, err
	}
	if w.cfg.NoGossip {
		return leaveHeartbeats, nil
	}
	leaveRecords, err := w.follow(ctx, records, w.validateRecords, w.heardRecords)
	if err != nil {
		leaveHeartbeats()
		return nil, err
	}
	return func() { leaveRecords(); leaveHeartbeats() }, nil
}

type (
	validator = func(context.Context, peer.ID, *pubsub.Message) pubsub.ValidationResult
	hearer    = func(context.Context, *pubsub.Message)
)

// follow joins a topic and hears its messages in a goroutine until leave is called.
func (w *wire) follow(ctx context.Context, name string, validate validator, hear hearer) (leave func(), err error) {
	err = w.pubsub.RegisterTopicValidator(name, validate, pubsub.WithValidatorConcurrency(validationsAtOnce))
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
			hear(ctx, m)
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
	tooMuch := false
	for _, b := range encoded {
		r, v := w.examine(b)
		switch {
		case v.dishonest():
			w.cfg.Log.V(1).Info("message refused", "peer", from, "writer", r.Writer)
			return pubsub.ValidationReject
		case v == stranger || v == version:
			return pubsub.ValidationIgnore
		case v == news:
			learnt, tooMuch = append(learnt, r), tooMuch || !w.flood.says(from, r.Writer)
		default:
			unverified = append(unverified, r)
		}
	}
	if len(learnt) == 0 || tooMuch {
		return pubsub.ValidationIgnore
	}
	// What is passed on is vouched for: to others, what is old here may be news, and this member would be blamed.
	for i := range unverified {
		if err := unverified[i].Verify(w.cfg.Fleet); err != nil {
			w.counts.badSignature.Add(1)
			return pubsub.ValidationReject
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

// tellOthers publishes what tell was given, in the topic of its writer's zone, several records in a message.
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
	zones := map[string]*batch{}
	for i := range records {
		r := &records[i]
		if w.compare(r) == stale {
			continue // another took its place while it waited
		}
		writer, ok := w.roster().Member(r.Writer)
		if !ok {
			continue
		}
		b := zones[writer.Zone]
		if b == nil {
			b = &batch{}
			zones[writer.Zone] = b
		}
		encoded := r.Encode()
		if !b.add(encoded, maxMessage) {
			w.send(ctx, writer.Zone, b)
			*b = batch{}
			b.add(encoded, maxMessage)
		}
	}
	for zone, b := range zones {
		w.send(ctx, zone, b)
	}
}

func (w *wire) send(ctx context.Context, zone string, b *batch) {
	name, _ := topicNames(w.cfg.Fleet, zone)
	w.publishTo(ctx, name, b.bytes)
}

// publishTo never waits for anyone: what a full queue loses is counted by dropCounter.
func (w *wire) publishTo(ctx context.Context, name string, message []byte) {
	topic := w.topics.get(name)
	if topic == nil {
		w.counts.undelivered.Add(1)
		return // a zone that is just coming or going
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
