// SPDX-License-Identifier: Apache-2.0

package mesh_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
	"github.com/flotilla-dev/flotilla/sequencer/mesh"
	"github.com/flotilla-dev/flotilla/sequencer/mesh/meshtest"
)

// soak is how long the long form of a test goes on; zero where it was not asked for.
func soak(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("FLOTILLA_SOAK")
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	must(t, err)
	return d
}

// envelope of gossipsub around messages, as bytes: field 2 of the RPC, and in it data (2) and topic (4).
func envelope(topic string, messages ...[]byte) []byte {
	field := func(b []byte, number int, content []byte) []byte {
		return append(binary.AppendUvarint(append(b, byte(number<<3|2)), uint64(len(content))), content...)
	}
	var rpc []byte
	for _, m := range messages {
		rpc = field(rpc, 2, field(field(nil, 2, m), 4, []byte(topic)))
	}
	return append(binary.AppendUvarint(nil, uint64(len(rpc))), rpc...)
}

// flooder is a member gone mad: it writes envelopes as fast as it is told to, and comes back when it is cut off.
type flooder struct {
	host   host.Host
	target peer.AddrInfo
	next   func(i int) []byte
	topic  string
	sent   int
	paused atomic.Bool
}

// run sends 100 messages every 10 ms until the end.
func (f *flooder) run(ctx context.Context) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var s network.Stream
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if s == nil {
			// On loopback nothing else slows it down: elsewhere an address may connect 20 times in a second.
			if f.sent > 0 {
				tick.Reset(50 * time.Millisecond)
			}
			if f.paused.Load() || f.host.Connect(ctx, f.target) != nil {
				continue
			}
			var err error
			if s, err = f.host.NewStream(ctx, f.target.ID, pubsub.GossipSubID_v11); err != nil {
				s = nil
				continue
			}
			tick.Reset(10 * time.Millisecond)
		}
		if f.paused.Load() {
			continue
		}
		_ = s.SetWriteDeadline(time.Now().Add(time.Second))
		for range 10 {
			messages := make([][]byte, 10)
			for i := range messages {
				messages[i] = f.next(f.sent)
				f.sent++
			}
			if _, err := s.Write(envelope(f.topic, messages...)); err != nil {
				_ = s.Reset()
				s = nil
				break
			}
		}
	}
}

// floods of 10,000 messages in a second, of one kind each.
func floods(t *testing.T, w *meshtest.Network, i int) map[string]func(n int) []byte {
	key := w.Key(i)
	register := func(n int) []byte {
		r := signedBy(t, key, fleet.Record{Epoch: 1 << 62, Seq: uint64(n) + 1, Kind: fleet.KindRegister, Key: fmt.Sprint("flood", n%8), Body: make([]byte, 256)})
		return mesh.Batch(r.Encode())
	}
	replayed := register(0)
	return map[string]func(n int) []byte{
		"garbage":       func(n int) []byte { return fmt.Appendf(nil, "garbage %d", n) },
		"replays":       func(int) []byte { return replayed },
		"own registers": register,
		"oversize":      func(n int) []byte { return append(make([]byte, mesh.MaxMessage), byte(n), byte(n>>8)) },
	}
}

// TestFlood: a member of the roster sends 10,000 messages in a second. What the others say arrives all the same,
// and it is cut off.
func TestFlood(t *testing.T) {
	for _, kind := range []string{"garbage", "replays", "own registers", "oversize"} {
		t.Run(kind, func(t *testing.T) { flood(t, kind) })
	}
}

func flood(t *testing.T, kind string) {
	const members = 5
	span, long := 500*time.Millisecond, soak(t)
	if long > 0 {
		span = long
	}
	heard := tellers{told: map[fleet.Digest][]time.Time{}}
	w := meshtest.New(t, members, func(c *mesh.Config) {
		c.OnNews = heard.onNews
		if long == 0 {
			// A machine that is slow does not get to 10,000 in a second.
			c.Rates.Messages, c.Rates.Bytes = mesh.Rate{PerSecond: 20, AtOnce: 200}, mesh.Rate{PerSecond: 1 << 20, AtOnce: 8 << 20}
			c.Rates.Gossips = mesh.Rate{PerSecond: 1, AtOnce: 5}
		}
	})
	w.AwaitConnected()
	h := intruder(t, w, members-1)
	before := heapInUse()
	name := mesh.RecordsTopic(meshtest.Fleet(), lattice.Share{}, true)
	f := flooder{host: h, target: infoOf(t, w.Member(0)), topic: name, next: floods(t, w, members-1)[kind]}
	ctx, cancel := context.WithCancel(t.Context())
	var attack sync.WaitGroup
	began := time.Now()
	attack.Go(func() { f.run(ctx) })
	cut := make(chan time.Duration, 1)
	attack.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil && w.Node(0).Stats().Blamed == 0 {
			<-tick.C
		}
		cut <- time.Since(began)
	})
	var quiet, loud []time.Duration
	if long == 0 {
		speak(t, w, &heard, members-1, "busy", span)
	}
	// A machine that others work on is not the same a minute later: both are measured in turns.
	for i := 0; long > 0 && time.Since(began) < 2*long; i++ {
		f.paused.Store(i%2 == 1)
		took := speak(t, w, &heard, members-1, fmt.Sprint("turn", i, "/"), 5*time.Second)
		if i%2 == 1 {
			quiet = append(quiet, took...)
		} else {
			loud = append(loud, took...)
		}
	}
	f.paused.Store(false)
	calm, busy := p99(quiet), p99(loud)
	meshtest.Await(t, "blame", func() bool {
		return slices.ContainsFunc(w.Node(0).Peers(), func(p mesh.PeerState) bool {
			return p.Member.ID == w.Member(members-1).ID && p.Blamed && !p.Connected
		})
	})
	cancel()
	attack.Wait()
	grown := int64(heapInUse()) - int64(before)
	t.Logf("%s for %s, %d messages: honest p99 %s without, %s with it; cut off after %s; heap grew by %d KiB; %d overrun, %d refused connections",
		kind, span, f.sent, calm, busy, <-cut, grown>>10, w.Node(0).Stats().Overrun, w.Node(0).Stats().ConnectionsRefused)
	if grown > 64<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
	// Below a tenth of a second it is the machine that is measured.
	if long > 0 && busy > 2*max(calm, 100*time.Millisecond) {
		t.Errorf("p99 of what honest members say is %s with it, %s without", busy, calm)
	}
}

// speak has honest members say something in turn for a while, waits until all of them heard it all, and gives how long
// each took.
func speak(t *testing.T, w *meshtest.Network, heard *tellers, honest int, prefix string, span time.Duration) (spans []time.Duration) {
	t.Helper()
	end := time.Now().Add(span)
	for i := 0; i < 10 || time.Now().Before(end); i++ {
		began := time.Now()
		said := say(t, w.Node(i%honest), fmt.Sprint("said", i%100), fmt.Sprint(prefix, i))
		digest := said.Digest()
		var last time.Time
		meshtest.Await(t, "what an honest member said", func() (ok bool) {
			last, ok = heard.all(digest, honest)
			return ok
		})
		spans = append(spans, last.Sub(began))
	}
	return spans
}

// p99 of how long something took; 0 where it was not measured.
func p99(spans []time.Duration) time.Duration {
	if len(spans) == 0 {
		return 0
	}
	slices.Sort(spans)
	return spans[len(spans)*99/100]
}

// TestEclipse: half of those whom a member is connected with swallow or garble everything. It is heard, and hears.
func TestEclipse(t *testing.T) {
	t.Parallel()
	for _, gossip := range []bool{true, false} {
		t.Run(fmt.Sprint("gossip ", gossip), func(t *testing.T) {
			const members, honest = 6, 3 // and of the victim's five neighbours, three are hostile
			w := meshtest.New(t, members, func(c *mesh.Config) { c.NoGossip = !gossip })
			w.AwaitConnected()
			for i := honest; i < members; i++ {
				w.Stop(i)
			}
			for i := honest; i < members; i++ {
				swallower(t, w, i, honest)
			}
			for i := range 10 {
				r := say(t, w.Node(i%honest), fmt.Sprint("k", i), "x")
				meshtest.Await(t, "a word through them", func() bool {
					return hears(w.Node(0), r) && hears(w.Node(1), r) && hears(w.Node(2), r)
				})
			}
		})
	}
}

// swallower is a member that is connected with all honest ones, takes part in their gossip, and passes nothing on.
// Questions it leaves unanswered, or answers with noise.
func swallower(t *testing.T, w *meshtest.Network, i, honest int) {
	t.Helper()
	h := rogue(t, w.Key(i))
	for j := range honest {
		must(t, h.Connect(t.Context(), infoOf(t, w.Member(j))))
	}
	h.SetStreamHandler(mesh.SyncProtocol, func(s network.Stream) {
		if i%2 == 0 {
			_, _ = s.Write([]byte{3, 200, 1, 2})
		}
		_, _ = io.Copy(io.Discard, s)
		_ = s.Reset()
	})
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	ps, err := pubsub.NewGossipSub(ctx, h, pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign), pubsub.WithNoAuthor())
	must(t, err)
	for _, name := range []string{mesh.RecordsTopic(meshtest.Fleet(), lattice.Share{}, true), mesh.HeartbeatsTopic(meshtest.Fleet(), "lab")} {
		must(t, ps.RegisterTopicValidator(name, func(context.Context, peer.ID, *pubsub.Message) pubsub.ValidationResult {
			return pubsub.ValidationIgnore
		}))
		topic, err := ps.Join(name)
		must(t, err)
		_, err = topic.Subscribe()
		must(t, err)
	}
}

// TestBlame: who sends what no honest member sends is out after a few times, and stays out, whatever the wall clock says.
func TestBlame(t *testing.T) {
	var ahead atomic.Int64
	w := meshtest.New(t, 2, func(c *mesh.Config) {
		c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	})
	w.AwaitConnected()
	h := intruder(t, w, 1)
	target := infoOf(t, w.Member(0))
	blamed := func() bool { return w.Node(0).Peers()[0].Blamed }
	meshtest.Await(t, "blame", func() bool {
		if h.Connect(t.Context(), target) == nil {
			if s, err := h.NewStream(t.Context(), target.ID, mesh.SyncProtocol); err == nil {
				_, _ = s.Write(mesh.OfferFrame(mesh.Batch([]byte("no record"))))
				_, _ = io.ReadAll(s)
				_ = s.Reset()
			}
		}
		return blamed()
	})
	meshtest.Await(t, "the end of the connection", func() bool { return !meshtest.Connected(w.Node(0), w.Member(1).ID) })
	ahead.Store(int64(24 * time.Hour))
	before := w.Node(0).Stats().ConnectionsRefused
	meshtest.Await(t, "a refusal", func() bool {
		_ = h.Connect(t.Context(), target)
		return w.Node(0).Stats().ConnectionsRefused > before
	})
	if s := w.Node(0).Stats(); !blamed() || s.Blamed != 1 {
		t.Errorf("blamed %d times, and a day later by the wall clock: %v", s.Blamed, blamed())
	}
}

// TestManyTopics: a neighbour cannot make others remember topics without end.
func TestManyTopics(t *testing.T) {
	w := meshtest.New(t, 2)
	w.AwaitConnected()
	h := intruder(t, w, 1)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ps, err := pubsub.NewGossipSub(ctx, h, pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign), pubsub.WithNoAuthor())
	must(t, err)
	for i := range 1500 {
		topic, err := ps.Join(fmt.Sprintf("/flotilla/%d", i))
		must(t, err)
		_, err = topic.Subscribe()
		must(t, err)
	}
	meshtest.Await(t, "topics", func() bool { return mesh.TopicsOf(w.Node(0), w.Key(1)) >= 1000 })
	r := say(t, w.Node(0), "k", "x")
	if !hears(w.Node(0), r) || mesh.TopicsOf(w.Node(0), w.Key(1)) > 1024 {
		t.Errorf("%d topics are remembered", mesh.TopicsOf(w.Node(0), w.Key(1)))
	}
}

// TestHonestBursts pass: a thousand members that end a stage together, heard through one neighbour; and a member that
// was away for months and gets 10,000 records by reconciliation.
func TestHonestBursts(t *testing.T) {
	w := meshtest.New(t, 3, func(c *mesh.Config) { c.Rates = mesh.Rates{} })
	w.AwaitConnected()
	w.Stop(2)
	writers, each := 100, 4
	if soak(t) > 0 {
		each = 100
	}
	roster := w.Roster()
	for i := range writers {
		roster = append(roster, fleet.Member{ID: memberID(100 + i), Name: fleet.Name(fmt.Sprint("w", i)), Zone: "lab"})
	}
	var all []fleet.MemberID
	for _, m := range roster[3:] {
		all = append(all, m.ID)
	}
	// Three milestones and a status of each of a thousand, in a message each.
	if messages, records := mesh.Bursts(w.Node(0), infoOf(t, w.Member(1)).ID, slices.Concat(all, all, all, all, all, all, all, all, all, all), 4, 700); messages != 4000 || records != 4000 {
		t.Errorf("of 4,000 at one moment %d messages and %d records were let in", messages, records)
	}
	w.Node(0).SetRoster(roster)
	w.Node(1).SetRoster(roster)
	var last fleet.Record
	var batch [][]byte
	for i := range writers {
		for k := range each {
			last = signedBy(t, meshtest.Key(100+i), fleet.Record{Epoch: 1, Seq: uint64(k + 1), Kind: fleet.KindRegister, Key: fmt.Sprint("k", k), Body: make([]byte, 200)})
			batch = append(batch, last.Encode())
		}
	}
	mesh.Learn(t, w.Node(0), batch)
	meshtest.Await(t, "all of it at one that was away", func() bool { return w.Node(0).Root() == w.Node(1).Root() })
	for i := range 2 {
		if s := w.Node(i).Stats(); s.Overrun != 0 || s.Blamed != 0 {
			t.Errorf("member %d: %d overrun, %d blamed", i, s.Overrun, s.Blamed)
		}
	}
}
