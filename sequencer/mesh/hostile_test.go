// SPDX-License-Identifier: Apache-2.0

package mesh_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
	"github.com/flotilla-dev/flotilla/sequencer/mesh"
	"github.com/flotilla-dev/flotilla/sequencer/mesh/meshtest"
)

// rogue is a libp2p host with a key of its own and none of our manners.
func rogue(t *testing.T, key ed25519.PrivateKey) host.Host {
	t.Helper()
	identity, err := crypto.UnmarshalEd25519PrivateKey(key)
	must(t, err)
	h, err := libp2p.New(libp2p.Identity(identity), libp2p.NoListenAddrs, libp2p.DisableRelay(),
		libp2p.DisableMetrics(), libp2p.DisableIdentifyAddressDiscovery())
	must(t, err)
	t.Cleanup(func() { _ = h.Close() })
	return h
}

func infoOf(t *testing.T, m fleet.Member) peer.AddrInfo {
	t.Helper()
	id, err := peer.Decode(string(m.ID))
	must(t, err)
	info := peer.AddrInfo{ID: id}
	for _, a := range m.Addresses {
		info.Addrs = append(info.Addrs, multiaddr.StringCast(a))
	}
	return info
}

// intruder is a member of the roster, the last of the network, gone bad. What it speaks it says as it connects.
func intruder(t *testing.T, w *meshtest.Network, i int, speaks ...func(host.Host)) host.Host {
	t.Helper()
	w.Stop(i)
	h := rogue(t, w.Key(i))
	for _, prepare := range speaks {
		prepare(h)
	}
	must(t, h.Connect(t.Context(), infoOf(t, w.Member(0))))
	meshtest.Await(t, "the intruder", func() bool { return meshtest.Connected(w.Node(0), w.Member(i).ID) })
	return h
}

func signedBy(t testing.TB, key ed25519.PrivateKey, r fleet.Record) fleet.Record {
	t.Helper()
	if r.Fleet.IsZero() {
		r.Fleet = meshtest.Fleet()
	}
	must(t, r.Sign(key))
	return r
}

// badRecord is one that must not get in, by whatever way, and the counter that tells.
type badRecord struct {
	name    string
	bytes   []byte
	counted func(mesh.Stats) uint64
}

// badRecords: the intruder holds key, and has heard old, which has been superseded since.
func badRecords(t *testing.T, key ed25519.PrivateKey, old fleet.Record) []badRecord {
	register := func(change func(*fleet.Record)) fleet.Record {
		r := fleet.Record{Epoch: 9, Seq: 1, Kind: fleet.KindRegister, Key: "bad", Body: []byte("x")}
		change(&r)
		return r
	}
	encode := func(r fleet.Record) []byte { return r.Encode() }
	good := signedBy(t, key, register(func(*fleet.Record) {}))
	flip := func(i int) []byte {
		b := encode(good)
		b[(i+len(b))%len(b)] ^= 1
		return b
	}
	unsigned := good
	unsigned.Sig = make([]byte, ed25519.SignatureSize)
	forged := good
	forged.Writer = old.Writer
	huge := good
	huge.Body = make([]byte, fleet.MaxRecord)
	fact := fleet.Fact{Plan: fleet.Digest{1}, Kind: fleet.Started}
	badSignature := func(s mesh.Stats) uint64 { return s.BadSignature }
	malformed := func(s mesh.Stats) uint64 { return s.Malformed }
	return []badRecord{
		{"stranger's", encode(signedBy(t, meshtest.Key(99), good)), func(s mesh.Stats) uint64 { return s.Stranger }},
		{"unsigned", encode(unsigned), badSignature},
		{"under another's ID", encode(forged), badSignature},
		{"bit flipped in the body", flip(-65), badSignature},
		{"bit flipped in the signature", flip(-1), badSignature},
		{"bit flipped in the epoch", flip(3 + 32 + 32 + 7), badSignature},
		{"not a record", []byte("hello"), malformed},
		{"cut short", encode(good)[:100], malformed},
		{"with something behind", append(encode(good), 0), malformed},
		{"of a later version", flip(2), func(s mesh.Stats) uint64 { return s.Version }},
		{"of another fleet", encode(signedBy(t, key, register(func(r *fleet.Record) { r.Fleet = fleet.Digest{7} }))),
			func(s mesh.Stats) uint64 { return s.OtherFleet }},
		{"too large", encode(huge), func(s mesh.Stats) uint64 { return s.TooLarge }},
		{"replayed", encode(old), func(s mesh.Stats) uint64 { return s.Stale }},
		{"fact with no body", encode(signedBy(t, key, register(func(r *fleet.Record) { r.Kind, r.Body = fleet.KindFact, []byte{1} }))), malformed},
		{"fact under another's key", encode(signedBy(t, key, register(func(r *fleet.Record) {
			r.Kind, r.Body, r.Key = fleet.KindFact, fact.Encode(), fleet.FactKey(fact.Plan, fleet.Succeeded)
		}))), malformed},
		{"seal of another author", encode(signedBy(t, key, register(func(r *fleet.Record) {
			seal := fleet.Seal{Author: string(old.Writer)}
			r.Kind, r.Body, r.Key = fleet.KindSeal, seal.Encode(), seal.SealKey()
		}))), malformed},
		{"command that is none", encode(signedBy(t, key, register(func(r *fleet.Record) { r.Kind, r.Body = fleet.KindCommand, []byte{1} }))), malformed},
		{"status that is none", encode(signedBy(t, key, register(func(r *fleet.Record) { r.Key = "status/a/b" }))), malformed},
	}
}

// forbearing members blame nobody, so that a test can show what else is refused.
func forbearing(c *mesh.Config) { c.Rates.Strikes = 1 << 30 }

// besieged is two honest members and an intruder, and a register that was heard in two versions.
func besieged(t *testing.T, options ...func(*mesh.Config)) (w *meshtest.Network, h host.Host, old fleet.Record) {
	t.Helper()
	w = meshtest.New(t, 3, append(options, forbearing)...)
	w.AwaitConnected()
	old = say(t, w.Node(1), "k", "old")
	say(t, w.Node(1), "k", "new")
	w.AwaitEqualRoots()
	return w, intruder(t, w, 2), old
}

func wantUnmoved(t *testing.T, w *meshtest.Network, name string, root fleet.Digest) {
	t.Helper()
	for i := range 2 {
		if w.Node(i).Root() != root {
			t.Errorf("%s: it is in the set of member %d", name, i)
		}
	}
	w.Node(0).View(func(s *lattice.Set) {
		if held, _ := s.Get(w.Member(1).ID, fleet.KindRegister, "k"); string(held.Body) != "new" {
			t.Errorf("%s: the register says %q", name, held.Body)
		}
	})
}

func TestBadRecordsByGossip(t *testing.T) {
	t.Parallel()
	w, h, old := besieged(t)
	topic := gossipTopic(t, h)
	root := w.Node(0).Root()
	for _, bad := range badRecords(t, w.Key(2), old) {
		before := bad.counted(w.Node(0).Stats())
		// Twice in a message, or gossipsub may know the very same message from its writer.
		must(t, topic.Publish(t.Context(), mesh.Batch(bad.bytes, bad.bytes)))
		meshtest.Await(t, bad.name, func() bool { return bad.counted(w.Node(0).Stats()) > before })
		wantUnmoved(t, w, bad.name, root)
	}
	for name, message := range map[string][]byte{
		"not a batch":    []byte("hello"),
		"empty batch":    {'F', 'B', 1},
		"later version":  {'F', 'B', 9},
		"batch cut":      {'F', 'B', 1, 9, 9, 9},
		"empty record":   {'F', 'B', 1, 0, 0},
		"one byte more?": {'F', 'B', 1, 0, 1},
	} {
		before := w.Node(0).Stats().Malformed
		must(t, topic.Publish(t.Context(), message))
		meshtest.Await(t, name, func() bool { return w.Node(0).Stats().Malformed > before })
	}
	before := w.Node(0).Stats().TooLarge
	must(t, topic.Publish(t.Context(), make([]byte, mesh.MaxMessage+1)))
	meshtest.Await(t, "message too large", func() bool { return w.Node(0).Stats().TooLarge > before })
	wantUnmoved(t, w, "messages", root)

	// The same hands bring a good one in.
	good := signedBy(t, w.Key(2), fleet.Record{Epoch: 1, Seq: 1, Kind: 200, Key: "good"})
	must(t, topic.Publish(t.Context(), mesh.Batch(good.Encode())))
	meshtest.Await(t, "the good record", func() bool { return hears(w.Node(0), good) && hears(w.Node(1), good) })
}

func TestBadHeartbeats(t *testing.T) {
	t.Parallel()
	w := meshtest.New(t, 3, func(c *mesh.Config) { c.Heartbeat = time.Hour }, forbearing)
	w.AwaitConnected()
	h := intruder(t, w, 2)
	topic := joinTopic(t, h, mesh.HeartbeatsTopic(meshtest.Fleet(), "lab"))
	shown, bad := fleet.Digest{5}, fleet.Digest{6}
	beat := func(key ed25519.PrivateKey, counter uint64) fleet.Heartbeat {
		b := fleet.Heartbeat{Fleet: meshtest.Fleet(), Nonce: [16]byte{1}, Counter: counter, Root: shown, Time: time.Now().Unix()}
		b.Sign(key)
		return b
	}
	good := beat(w.Key(2), 5)
	must(t, topic.Publish(t.Context(), good.Encode()))
	meshtest.Await(t, "a good one", func() bool {
		return slices.ContainsFunc(w.Node(0).Peers(), func(p mesh.PeerState) bool {
			return p.Member.ID == w.Member(2).ID && p.Root == shown
		})
	})
	shown = bad
	forged, old, stranger := beat(w.Key(2), 6), beat(w.Key(2), 4), beat(meshtest.Key(99), 1)
	forged.Writer = w.Member(1).ID
	elsewhere := beat(w.Key(2), 7)
	elsewhere.Fleet = fleet.Digest{9}
	elsewhere.Sign(w.Key(2))
	for _, bad := range []badRecord{
		{"under another's ID", forged.Encode(), func(s mesh.Stats) uint64 { return s.BadSignature }},
		{"replayed", old.Encode(), func(s mesh.Stats) uint64 { return s.Stale }},
		{"stranger's", stranger.Encode(), func(s mesh.Stats) uint64 { return s.Stranger }},
		{"of another fleet", elsewhere.Encode(), func(s mesh.Stats) uint64 { return s.OtherFleet }},
		{"not one", []byte("hello"), func(s mesh.Stats) uint64 { return s.Malformed }},
		{"too large", make([]byte, fleet.MaxHeartbeat+1), func(s mesh.Stats) uint64 { return s.TooLarge }},
	} {
		before := bad.counted(w.Node(0).Stats())
		must(t, topic.Publish(t.Context(), bad.bytes))
		meshtest.Await(t, bad.name, func() bool { return bad.counted(w.Node(0).Stats()) > before })
	}
	for _, p := range w.Node(0).Peers() {
		if p.Root == bad || p.Member.ID == w.Member(2).ID && p.Root != good.Root {
			t.Errorf("of %s a bad heartbeat was heard", p.Member.Name)
		}
	}
}

// gossipTopic is the records topic as somebody sees it who checks nothing.
func gossipTopic(t *testing.T, h host.Host) *pubsub.Topic {
	t.Helper()
	return joinTopic(t, h, mesh.RecordsTopic(meshtest.Fleet(), lattice.Share{}, true))
}

func joinTopic(t *testing.T, h host.Host, name string) *pubsub.Topic {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	ps, err := pubsub.NewGossipSub(ctx, h, pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign), pubsub.WithNoAuthor(),
		pubsub.WithMessageIdFn(func(m *pb.Message) string { return string(m.GetData()) }))
	must(t, err)
	topic, err := ps.Join(name)
	must(t, err)
	meshtest.Await(t, "a listener", func() bool { return len(topic.ListPeers()) > 0 })
	return topic
}

func TestBadRecordsByReconciliation(t *testing.T) {
	t.Parallel()
	w, h, old := besieged(t, func(c *mesh.Config) { c.NoGossip = true })
	root := w.Node(0).Root()
	target := infoOf(t, w.Member(0)).ID
	for _, bad := range badRecords(t, w.Key(2), old) {
		before := bad.counted(w.Node(0).Stats())
		meshtest.Await(t, bad.name, func() bool {
			_ = offer(t, h, target, bad.bytes)
			return bad.counted(w.Node(0).Stats()) > before
		})
		wantUnmoved(t, w, bad.name, root)
	}
	good := signedBy(t, w.Key(2), fleet.Record{Epoch: 1, Seq: 1, Kind: 77, Key: "good"})
	meshtest.Await(t, "the good record", func() bool {
		return bytes.Equal(offer(t, h, target, good.Encode()), mesh.TakenFrame())
	})
	meshtest.Await(t, "the good record everywhere", func() bool { return hears(w.Node(0), good) && hears(w.Node(1), good) })
}

// offer gives what is answered before the stream ends. It may be refused while the end of an earlier one has not
// been noticed.
func offer(t *testing.T, h host.Host, target peer.ID, record []byte) []byte {
	t.Helper()
	s, err := h.NewStream(t.Context(), target, mesh.SyncProtocol)
	must(t, err)
	if _, err = s.Write(mesh.OfferFrame(mesh.Batch(record))); err == nil {
		err = s.CloseWrite()
	}
	if err != nil {
		_ = s.Reset()
		return nil
	}
	answer, _ := io.ReadAll(s)
	return answer
}

func TestStrangerIsNotConnected(t *testing.T) {
	w := meshtest.New(t, 1)
	h := rogue(t, meshtest.Key(99))
	info := infoOf(t, w.Member(0))
	if err := h.Connect(t.Context(), info); err == nil {
		// Its own side may think for a moment that it is in.
		s, err := h.NewStream(t.Context(), info.ID, mesh.SyncProtocol)
		if err == nil {
			_, err = io.ReadAll(s)
		}
		if err == nil {
			t.Error("a stranger was served")
		}
	}
	meshtest.Await(t, "refusal", func() bool { return w.Node(0).Stats().ConnectionsRefused > 0 })
	meshtest.Await(t, "end", func() bool { return h.Network().Connectedness(info.ID) != network.Connected })
	if served := w.Node(0).Stats().SessionsServed; served != 0 {
		t.Errorf("%d reconciliations of a stranger were served", served)
	}
}

func TestSlowReconciliationIsCutOff(t *testing.T) {
	t.Parallel()
	for name, trickle := range map[string]bool{"silent": false, "a byte now and then": true} {
		t.Run(name, func(t *testing.T) {
			w := meshtest.New(t, 3, func(c *mesh.Config) { c.StreamTimeout, c.NoGossip = 300*time.Millisecond, true })
			w.AwaitConnected()
			h := intruder(t, w, 2)
			s, err := h.NewStream(t.Context(), infoOf(t, w.Member(0)).ID, mesh.SyncProtocol)
			must(t, err)
			hello := mesh.HelloFrame(fleet.Digest{1})
			_, err = s.Write(hello[:1])
			must(t, err)
			cut := make(chan error, 1)
			go func() {
				_, err := s.Read(make([]byte, 1))
				cut <- err
			}()

			r := say(t, w.Node(1), "meanwhile", "x")
			meshtest.Await(t, "others meanwhile", func() bool { return hears(w.Node(0), r) })

			tick := time.NewTicker(50 * time.Millisecond)
			defer tick.Stop()
			for i := 1; ; i++ {
				select {
				case err := <-cut:
					if err == nil {
						t.Error("half a question was answered")
					}
					meshtest.Await(t, "the count", func() bool { return w.Node(0).Stats().SessionsRefused > 0 })
					return
				case <-tick.C:
					if trickle && i < len(hello)-1 {
						_, _ = s.Write(hello[i : i+1])
					}
				}
			}
		})
	}
}

func TestOneReconciliationPerMember(t *testing.T) {
	// On a slow machine, too, the first one lasts while the second one asks.
	w := meshtest.New(t, 2, func(c *mesh.Config) { c.StreamTimeout, c.SessionTimeout = time.Minute, time.Minute })
	w.AwaitConnected()
	h := intruder(t, w, 1)
	target := infoOf(t, w.Member(0)).ID
	first, err := h.NewStream(t.Context(), target, mesh.SyncProtocol)
	must(t, err)
	hello := mesh.HelloFrame(fleet.Digest{1})
	_, err = first.Write(hello)
	must(t, err)
	_, err = io.ReadFull(first, make([]byte, 10)) // it is being served
	must(t, err)
	second, err := h.NewStream(t.Context(), target, mesh.SyncProtocol)
	must(t, err)
	_, _ = second.Write(hello) // may be cut off already
	if answer, err := io.ReadAll(second); err == nil || len(answer) > 0 {
		t.Errorf("a second one was served: %d bytes", len(answer))
	}
	must(t, first.Close())
}

func TestBlobs(t *testing.T) {
	w := meshtest.New(t, 3)
	w.AwaitConnected()
	content := []byte(strings.Repeat("a seal's body ", 10_000))
	digest, err := w.Node(1).PutBlob(content)
	must(t, err)
	h := intruder(t, w, 2)
	asked := make(chan struct{}, 16)
	h.SetStreamHandler(mesh.BlobProtocol, func(s network.Stream) {
		_, _ = io.ReadFull(s, make([]byte, 32))
		_, _ = s.Write(append([]byte{6}, "wrong"...))
		_ = s.Close()
		asked <- struct{}{}
	})
	got, err := w.Node(0).FetchBlob(t.Context(), digest)
	if err != nil || !bytes.Equal(got, content) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if kept, ok, err := w.Store(0).Blob(digest); err != nil || !ok || !bytes.Equal(kept, content) {
		t.Errorf("it was not kept: %v", err)
	}

	missing := fleet.Digest{1}
	if _, err := w.Node(0).FetchBlob(t.Context(), missing); err == nil || !strings.Contains(err.Error(), mesh.ErrNoBlob.Error()) {
		t.Errorf("a blob nobody has: %v", err)
	}
	<-asked // the intruder's was fetched, and refused
	meshtest.Await(t, "the counts", func() bool {
		s := w.Node(0).Stats()
		return s.BlobsRefused > 0 && s.BlobsFetched == 1
	})
	w.Stop(1)
	if _, err := w.Node(0).FetchBlob(t.Context(), digest); err != nil {
		t.Errorf("from the own store: %v", err)
	}
}

// badAnswer is what a member that is asked to reconcile says instead of what it should; nil ends the stream.
type badAnswer struct {
	name   string
	answer func(kind byte, body []byte) []byte
}

func badAnswers(unsigned fleet.Record) []badAnswer {
	const hello, ask, want, shares = 1, 4, 6, 10
	differs := mesh.DiffersFrame(fleet.Digest{9})
	one := lattice.Summary{Entries: []lattice.Entry{{
		Position: lattice.Position(unsigned.Writer, unsigned.Kind, unsigned.Key), Tag: lattice.Tag{1},
	}}}
	endless := lattice.Summary{Divided: true}
	for i := range endless.Parts {
		endless.Parts[i] = lattice.Tag{byte(i), 1}
	}
	// until gives proper answers up to a want, and then this one.
	until := func(records []byte) func(kind byte, body []byte) []byte {
		return func(kind byte, body []byte) []byte {
			switch kind {
			case shares:
				return mesh.SharesFrame(lattice.Share{Scope: fleet.ScopeDetail, Zone: "lab"}, fleet.Digest{9})
			case ask:
				return mesh.SummaryFrame(body, one)
			case want:
				return records
			}
			return differs
		}
	}
	return []badAnswer{
		{"nothing", func(byte, []byte) []byte { return nil }},
		{"noise", func(byte, []byte) []byte { return []byte{3, 200, 1, 2} }},
		{"out of turn", func(byte, []byte) []byte { return mesh.TakenFrame() }},
		{"a hello", func(byte, []byte) []byte { return mesh.HelloFrame(fleet.Digest{1}) }},
		{"its own question", func(kind byte, _ []byte) []byte {
			if kind == hello {
				return differs
			}
			return mesh.HelloFrame(fleet.Digest{1})
		}},
		{"parts without end", func(kind byte, body []byte) []byte {
			switch kind {
			case shares:
				return mesh.SharesFrame(lattice.Share{Scope: fleet.ScopeDetail, Zone: "lab"}, fleet.Digest{9})
			case ask:
				return mesh.SummaryFrame(body, endless)
			}
			return differs
		}},
		{"an unsigned record", until(mesh.RecordsFrame(1, unsigned.Encode()))},
		{"more records than asked for", until(mesh.RecordsFrame(9, unsigned.Encode()))},
		{"no progress", until(mesh.RecordsFrame(0))},
	}
}

func (c badAnswer) serve(s network.Stream) {
	in := bufio.NewReader(s)
	for {
		kind, body, err := mesh.ReadFrame(in)
		if err != nil {
			_ = s.Reset()
			return
		}
		answer := c.answer(kind, body)
		if answer == nil {
			_ = s.Close()
			return
		}
		_, _ = s.Write(answer)
	}
}

func TestBadAnswers(t *testing.T) {
	t.Parallel()
	w := meshtest.New(t, 2, func(c *mesh.Config) { c.NoGossip, c.SyncEvery = true, 20*time.Millisecond }, forbearing)
	w.AwaitConnected()
	say(t, w.Node(0), "k", "x")
	w.AwaitEqualRoots()
	root := w.Node(0).Root()
	h := intruder(t, w, 1)
	unsigned := fleet.Record{Fleet: meshtest.Fleet(), Writer: w.Member(1).ID, Epoch: 1, Seq: 1, Kind: fleet.KindRegister, Key: "bad", Sig: make([]byte, 64)}
	for _, c := range badAnswers(unsigned) {
		h.SetStreamHandler(mesh.SyncProtocol, c.serve)
		before := w.Node(0).Stats().SessionsFailed
		meshtest.Await(t, c.name, func() bool { return w.Node(0).Stats().SessionsFailed > before+1 })
		if w.Node(0).Root() != root {
			t.Errorf("%s: the set is another", c.name)
		}
	}
	if w.Node(0).Stats().BadSignature == 0 {
		t.Error("the unsigned record was not counted")
	}
}
