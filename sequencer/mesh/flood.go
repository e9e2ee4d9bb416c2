// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"golang.org/x/time/rate"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// Who is on the roster may still have been taken over, or have gone mad. What it can cost the others is bounded
// here, in two ways. A rate for each neighbour, and for each writer, cuts off what is too much: that is lost, and
// reconciliation brings the last state of it. And who does what no member in its senses does is blamed: it is
// disconnected, and stays out for a while, though it is on the roster.

// Rate is a token bucket: so many in a second, and so many at once.
type Rate struct {
	PerSecond float64
	AtOnce    int
}

// Rates bound what others may bring. A rate of zero means LAN's.
type Rates struct {
	// Messages and Bytes of gossip from one neighbour. Who relays for 1,000 members brings 200 heartbeats in a
	// second, and some 4,000 messages at once when all of them end a stage together.
	Messages, Bytes Rate
	// Streams that one neighbour opens, and Records that it offers in reconciliations: a member that was
	// away for months offers 10,000.
	Streams, Records Rate
	// Gossips are streams of gossip that one neighbour opens: an honest one opens one on each connection.
	Gossips Rate
	// Said is how many records of one writer gossip takes and passes on, and Beats how many heartbeats. A member
	// with 500 rollouts that all move says some 1,000 records at once. Who brings four times as many of its own
	// on top is blamed: together that is more than it may have in the state.
	Said, Beats Rate
	// Strikes are how many things that no honest member does get one blamed; one is forgiven each minute.
	Strikes int
	// Blame is how long the first blame lasts; each further one lasts twice as long, up to BlameMost. Who
	// was good for BlameMost begins anew.
	Blame, BlameMost time.Duration
}

// lanRates are generous: an honest member comes nowhere near.
func lanRates() Rates {
	return Rates{
		Messages: Rate{300, 8000}, Bytes: Rate{4 << 20, 32 << 20},
		Streams: Rate{100, 1000}, Records: Rate{2000, 20_000}, Gossips: Rate{1, 30},
		Said: Rate{50, 1000}, Beats: Rate{10, 50},
		Strikes: 4, Blame: time.Minute, BlameMost: time.Hour,
	}
}

// fill in what was left out.
func (r *Rates) fill() {
	lan := lanRates()
	for _, at := range []struct{ is, otherwise *Rate }{
		{&r.Messages, &lan.Messages}, {&r.Bytes, &lan.Bytes}, {&r.Streams, &lan.Streams},
		{&r.Records, &lan.Records}, {&r.Gossips, &lan.Gossips}, {&r.Said, &lan.Said}, {&r.Beats, &lan.Beats},
	} {
		if *at.is == (Rate{}) {
			*at.is = *at.otherwise
		}
	}
	if r.Strikes == 0 {
		r.Strikes = lan.Strikes
	}
	if r.Blame == 0 {
		r.Blame = lan.Blame
	}
	if r.BlameMost == 0 {
		r.BlameMost = max(lan.BlameMost, r.Blame)
	}
}

// maxTopics that one neighbour may follow: three for each of some hundred zones.
const maxTopics = 1024

// flood is how the neighbours and the writers behave. It is safe for concurrent use.
type flood struct {
	n *Node
	// now is this process's own monotonic clock: who sets the wall clock neither forgives nor punishes.
	now func() time.Time
	// shun wakes who ends the connections of the blamed.
	shun chan struct{}

	mu      sync.Mutex
	peers   map[peer.ID]*conduct
	writers map[fleet.MemberID]*said
}

// conduct of one neighbour.
type conduct struct {
	messages, bytes, streams, records, gossips allowance
	// own records and heartbeats that were too many.
	own    int
	topics map[string]bool
	// forms is up to which number of them it said that it judges bodies; 0 where it has not said.
	forms uint8

	strikes  float64
	struckAt time.Time
	// blamed until, for the times-th time.
	until time.Time
	times int
}

// said bounds one writer.
type said struct{ records, beats *rate.Limiter }

// allowance is a bucket that notes what came when it was empty.
type allowance struct {
	bucket *rate.Limiter
	over   int
}

func newAllowance(r Rate) allowance {
	return allowance{bucket: rate.NewLimiter(rate.Limit(r.PerSecond), r.AtOnce)}
}

// take so many; beyond says that a whole bucket came on top of an empty one: no burst, but a flood.
func (a *allowance) take(now time.Time, n int) (ok, beyond bool) {
	if a.bucket.AllowN(now, n) {
		if a.bucket.TokensAt(now) > float64(a.bucket.Burst())/2 {
			a.over = 0
		}
		return true, false
	}
	a.over += n
	return false, a.over > a.bucket.Burst()
}

func newFlood(n *Node) *flood {
	return &flood{n: n, now: time.Now, shun: make(chan struct{}, 1), peers: map[peer.ID]*conduct{}, writers: map[fleet.MemberID]*said{}}
}

// of is called with mu held. Only members get here, so that the roster bounds the table.
func (f *flood) of(id peer.ID) *conduct {
	c := f.peers[id]
	if c == nil {
		r := &f.n.cfg.Rates
		c = &conduct{
			messages: newAllowance(r.Messages), bytes: newAllowance(r.Bytes),
			streams: newAllowance(r.Streams), records: newAllowance(r.Records), gossips: newAllowance(r.Gossips), topics: map[string]bool{},
		}
		f.peers[id] = c
	}
	return c
}

// keep forgets who is not on the roster.
func (f *flood) keep(roster Roster) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id := range f.peers {
		if _, ok := roster.Member(fleet.MemberID(id.String())); !ok {
			delete(f.peers, id)
		}
	}
	for id := range f.writers {
		if _, ok := roster.Member(id); !ok {
			delete(f.writers, id)
		}
	}
}

var errOverrun = errors.New("more than a member may bring")

// inspect lets one envelope of gossip in, before anything in it is looked at.
func (f *flood) inspect(from peer.ID, rpc *pubsub.RPC) error {
	messages, size := 1, 0
	for i, m := range rpc.GetPublish() {
		messages, size = i+1, size+len(m.GetData())
	}
	for _, have := range rpc.GetControl().GetIhave() {
		size += 32 * len(have.GetMessageIDs())
	}
	for _, want := range rpc.GetControl().GetIwant() {
		size += 32 * len(want.GetMessageIDs())
	}
	return f.take(from, func(c *conduct) []wanted { return []wanted{{&c.messages, messages}, {&c.bytes, size}} })
}

// stream lets a neighbour open one more.
func (f *flood) stream(from peer.ID) error {
	return f.take(from, func(c *conduct) []wanted { return []wanted{{&c.streams, 1}} })
}

// gossipHost counts the streams that neighbours open to gossipsub, which ends one for an envelope that is too large
// and takes the next.
type gossipHost struct {
	host.Host
	*flood
}

// SetStreamHandler is how gossipsub asks for streams.
func (g gossipHost) SetStreamHandler(id protocol.ID, handle network.StreamHandler) {
	g.Host.SetStreamHandler(id, func(s network.Stream) {
		if g.gossip(s.Conn().RemotePeer()) != nil {
			_ = s.Reset()
			return
		}
		handle(s)
	})
}

func (f *flood) gossip(from peer.ID) error {
	return f.take(from, func(c *conduct) []wanted { return []wanted{{&c.gossips, 1}} })
}

// offered lets a neighbour bring records by a reconciliation; what is too much is left to a later one.
func (f *flood) offered(from peer.ID, records int) error {
	return f.take(from, func(c *conduct) []wanted { return []wanted{{&c.records, records}} })
}

type wanted struct {
	from *allowance
	n    int
}

func (f *flood) take(from peer.ID, wants func(*conduct) []wanted) error {
	now := f.now()
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.of(from)
	if now.Before(c.until) {
		return errOverrun
	}
	for _, w := range wants(c) {
		ok, beyond := w.from.take(now, w.n)
		if ok {
			continue
		}
		f.n.counts.overrun.Add(1)
		if beyond {
			f.blame(from, c, "it floods")
		}
		return errOverrun
	}
	return nil
}

// says lets a verified record of a writer be heard by gossip and passed on.
func (f *flood) says(from peer.ID, writer fleet.MemberID) bool {
	return f.hears(from, writer, func(s *said) *rate.Limiter { return s.records })
}

// beats lets a verified heartbeat of a writer be heard and passed on.
func (f *flood) beats(from peer.ID, writer fleet.MemberID) bool {
	return f.hears(from, writer, func(s *said) *rate.Limiter { return s.beats })
}

// mayHear says whether a record of a writer would be heard, were it verified. What is not is not worth verifying: only
// what the writer signed, and nobody had heard, has emptied its bucket.
func (f *flood) mayHear(from peer.ID, writer fleet.MemberID) bool {
	now := f.now()
	f.mu.Lock()
	defer f.mu.Unlock()
	b := f.said(writer).records
	if b.TokensAt(now) >= 1 {
		return true
	}
	f.tooMuch(from, writer, b, now)
	return false
}

// said is called with mu held.
func (f *flood) said(writer fleet.MemberID) *said {
	s := f.writers[writer]
	if s == nil {
		r := &f.n.cfg.Rates
		s = &said{
			records: rate.NewLimiter(rate.Limit(r.Said.PerSecond), r.Said.AtOnce),
			beats:   rate.NewLimiter(rate.Limit(r.Beats.PerSecond), r.Beats.AtOnce),
		}
		f.writers[writer] = s
	}
	return s
}

func (f *flood) hears(from peer.ID, writer fleet.MemberID, bucket func(*said) *rate.Limiter) bool {
	now := f.now()
	f.mu.Lock()
	defer f.mu.Unlock()
	b := bucket(f.said(writer))
	if b.AllowN(now, 1) {
		if c := f.peers[from]; c != nil && writer == fleet.MemberID(from.String()) && b.TokensAt(now) > float64(b.Burst())/2 {
			c.own = 0
		}
		return true
	}
	f.tooMuch(from, writer, b, now)
	return false
}

// ownBeyond times its burst a neighbour may say on top of it.
const ownBeyond = 4

// tooMuch counts what a writer said beyond its rate. Others who pass it on keep to the rate as well. Who wrote it knows what it
// does. It is called with mu held.
func (f *flood) tooMuch(from peer.ID, writer fleet.MemberID, b *rate.Limiter, now time.Time) {
	f.n.counts.overrun.Add(1)
	if c := f.of(from); writer == fleet.MemberID(from.String()) && !now.Before(c.until) {
		if c.own++; c.own > ownBeyond*b.Burst() {
			f.blame(from, c, "it says too much")
		}
	}
}

// strike notes that a neighbour did what no honest one does.
func (f *flood) strike(id peer.ID, why string) {
	now := f.now()
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.of(id)
	if now.Before(c.until) {
		return
	}
	c.strikes = max(0, c.strikes-now.Sub(c.struckAt).Minutes()) + 1
	c.struckAt = now
	if c.strikes > float64(f.n.cfg.Rates.Strikes)-0.5 { // the forgiving goes on between two
		f.blame(id, c, why)
	}
}

// parted forgets what gossipsub forgets when a neighbour's last connection ends, and what the neighbour judges, as another
// version may come back; what it did is remembered.
func (f *flood) parted(id peer.ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.peers[id]; c != nil {
		clear(c.topics)
		c.forms = 0
	}
}

// judges notes what a neighbour says that it judges.
func (f *flood) judges(by fleet.MemberID, forms uint8) {
	id, err := peerID(by)
	if err != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.of(id).forms = forms
}

// answers says whether a member is to be blamed for bringing a body that is not what its kind says: it wrote it, or it
// judges such bodies itself. What every version judged is expected of who has not said anything.
func (f *flood) answers(from fleet.MemberID, r *fleet.Record) bool {
	if from == r.Writer {
		return true
	}
	id, err := peerID(from)
	if err != nil {
		return false
	}
	since := f.n.judgedSince(r)
	f.mu.Lock()
	defer f.mu.Unlock()
	return since > 0 && since <= max(f.of(id).forms, 1)
}

// judge the end of a reconciliation.
func (f *flood) judge(id peer.ID, err error) {
	if errors.Is(err, errDishonest) || errors.Is(err, fleet.ErrMalformed) || errors.Is(err, fleet.ErrTooLarge) {
		f.strike(id, err.Error())
	}
}

// blame is called with mu held.
func (f *flood) blame(id peer.ID, c *conduct, why string) {
	r, now := &f.n.cfg.Rates, f.now()
	if now.Sub(c.until) > r.BlameMost {
		c.times = 0
	}
	c.times++
	lasts := r.Blame
	for i := 1; i < c.times && lasts < r.BlameMost; i++ {
		lasts *= 2
	}
	lasts = min(lasts, r.BlameMost)
	c.until, c.strikes, c.own = now.Add(lasts), 0, 0
	for _, a := range []*allowance{&c.messages, &c.bytes, &c.streams, &c.records, &c.gossips} {
		a.over = 0
	}
	f.n.counts.blamed.Add(1)
	member, _ := f.n.roster().Member(fleet.MemberID(id.String()))
	f.n.cfg.Log.Info("member blamed: disconnected, and refused for a while",
		"member", member.Name, "peer", id.String(), "why", why, "for", lasts.String(), "time", c.times)
	wake(f.shun)
}

// blames says whether a member is kept out now.
func (f *flood) blames(id peer.ID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.peers[id]
	return c != nil && f.now().Before(c.until)
}

// score is what gossipsub thinks of a neighbour beside what it sees itself.
func (f *flood) score(id peer.ID) float64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.peers[id]; c != nil {
		return -c.strikes
	}
	return 0
}

// topicFilter bounds what neighbours make gossipsub remember.
type topicFilter struct{ *flood }

var _ pubsub.SubscriptionFilter = topicFilter{}

// CanSubscribe to what is Flotilla's.
func (t topicFilter) CanSubscribe(topic string) bool { return strings.HasPrefix(topic, topicPrefix) }

const topicPrefix = "/flotilla/"

// FilterIncomingSubscriptions leaves out topics of others, and who follows too many.
func (t topicFilter) FilterIncomingSubscriptions(from peer.ID, asked []*pb.RPC_SubOpts) ([]*pb.RPC_SubOpts, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.of(from)
	var followed []*pb.RPC_SubOpts
	for _, s := range asked {
		topic := s.GetTopicid()
		switch {
		case !t.CanSubscribe(topic) || len(topic) > maxTopicName:
		case !s.GetSubscribe():
			delete(c.topics, topic)
			followed = append(followed, s)
		case c.topics[topic] || len(c.topics) < maxTopics:
			c.topics[topic] = true
			followed = append(followed, s)
		default:
			return nil, fmt.Errorf("%w: more than %d topics", errOverrun, maxTopics)
		}
	}
	return followed, nil
}

const (
	// maxTopicName in bytes: a fleet, an escaped zone, and what it is.
	maxTopicName = 512
	// scoredFrom so many members gossipsub scores its neighbours: below, nearly everyone is a neighbour
	// and there is nobody better to turn to.
	scoredFrom = 100
)

// scoring is on in larger fleets: gossipsub then prefers those who bring news first, and turns from those who break
// its own rules. Blame does the rest, so that nothing here keeps anyone out for good.
func (f *flood) scoring(on bool) []pubsub.Option {
	if !on {
		return nil
	}
	return []pubsub.Option{pubsub.WithPeerScore(
		&pubsub.PeerScoreParams{
			Topics: map[string]*pubsub.TopicScoreParams{},
			// Behind one address there may be a whole site: no penalty for that (IPColocationFactorWeight 0).
			// A strike weighs as much as the threshold of gossip does: what else it says is not asked for.
			AppSpecificScore: f.score, AppSpecificWeight: 100,
			// Grafts against a backoff, and promises of messages that never came, beyond ten in some minutes: squared.
			BehaviourPenaltyWeight: -1, BehaviourPenaltyThreshold: 10, BehaviourPenaltyDecay: 0.99,
			DecayInterval: time.Second, DecayToZero: 0.01,
			// Who reconnects has not lost what it did.
			RetainScore:   10 * time.Minute,
			TopicScoreCap: 50,
		},
		&pubsub.PeerScoreThresholds{
			GossipThreshold: -100, PublishThreshold: -200, GraylistThreshold: -400,
			// No addresses are taken from gossipsub (PX): the roster has them.
			AcceptPXThreshold: 1000,
			// Where half of the mesh never brought anything first, others are tried: it may be an eclipse.
			OpportunisticGraftThreshold: 1,
		},
	)}
}

// scored says whether gossipsub scores, by the size of the fleet when Run began.
func (f *flood) scored() bool { return len(f.n.roster().Members()) >= scoredFrom }

// topicScore is the same for every topic: being first with news counts for some minutes, refused messages against.
// That a topic is quiet is held against nobody (no mesh delivery penalty).
func topicScore() *pubsub.TopicScoreParams {
	return &pubsub.TopicScoreParams{
		SkipAtomicValidation:         true,
		TopicWeight:                  1,
		TimeInMeshQuantum:            time.Second,
		FirstMessageDeliveriesWeight: 1, FirstMessageDeliveriesDecay: 0.99, FirstMessageDeliveriesCap: 20,
		InvalidMessageDeliveriesWeight: -10, InvalidMessageDeliveriesDecay: 0.99,
	}
}
