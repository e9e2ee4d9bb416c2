// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"slices"
	"strings"
	"testing"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
)

// What hostile peers in the tests speak.
const (
	SyncProtocol = syncProtocol
	BlobProtocol = blobProtocol
	MaxMessage   = maxMessage
)

// The topics of a fleet and of its zones.
var (
	RecordsTopic    = recordsTopic
	HeartbeatsTopic = heartbeatsTopic
)

// Batch of encoded records, however large they are.
func Batch(records ...[]byte) []byte {
	var b batch
	for _, r := range records {
		b.add(r, 1<<30)
	}
	return b.bytes
}

func framed(f frame) []byte {
	var b bytes.Buffer
	if err := writeFrame(&b, f); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// HelloFrame as it goes over the wire.
func HelloFrame(root fleet.Digest) []byte { return framed(rootFrame(frameHello, root, introduction{})) }

// OfferFrame as it goes over the wire.
func OfferFrame(batch []byte) []byte { return framed(frame{frameOffer, batch}) }

// TakenFrame answers an offer.
func TakenFrame() []byte { return framed(frame{kind: frameTaken}) }

// ReadFrame gives the type and the body of the next frame.
func ReadFrame(r *bufio.Reader) (kind byte, body []byte, err error) {
	f, err := readFrame(r)
	return byte(f.kind), f.body, err
}

// DiffersFrame answers a hello.
func DiffersFrame(root fleet.Digest) []byte {
	return framed(rootFrame(frameDiffers, root, introduction{}))
}

// SummaryFrame answers an ask for as many prefixes with one summary repeated.
func SummaryFrame(asked []byte, m lattice.Summary) []byte {
	q, err := readAsk(asked)
	if err != nil {
		panic(err)
	}
	return framed(summariesFrame(slices.Repeat([]lattice.Summary{m}, len(q.prefixes))))
}

// RecordsFrame answers a want.
func RecordsFrame(done int, records ...[]byte) []byte {
	var b batch
	for _, r := range records {
		b.add(r, 1<<30)
	}
	return framed(recordsFrame(done, b))
}

// SharesFrame says that one share is carried.
func SharesFrame(share lattice.Share, root fleet.Digest) []byte {
	f, _ := sharesFrame(carried{shares: []sharePrint{{share, root}}}, 0)
	return framed(f)
}

// Sweep is what tidy does now and then.
func (n *Node) Sweep() { n.sweep() }

// Decode puts another decoder of bodies in place, before Run.
func (n *Node) Decode(bodies func(*fleet.Record) error) { n.bodies = bodies }

// RecordTopics is how many topics of records are joined.
func (n *Node) RecordTopics() int {
	return n.topicsWhere(func(name string) bool { return strings.HasPrefix(name, topicBase(n.cfg.Fleet)+"/records/") })
}

// HeartbeatTopics is how many topics of heartbeats are joined.
func (n *Node) HeartbeatTopics() int {
	return n.topicsWhere(func(name string) bool { return strings.HasSuffix(name, "/heartbeats") })
}

func (n *Node) topicsWhere(is func(string) bool) (count int) {
	w := n.running.Load()
	w.topics.mu.Lock()
	defer w.topics.mu.Unlock()
	for name := range w.topics.joined {
		if is(name) {
			count++
		}
	}
	return count
}

// Admit takes what a reconciliation brings.
func (n *Node) Admit(encoded ...[]byte) error {
	learnt, err := n.admit("", encoded)
	n.tell(learnt)
	return err
}

// AddressesAnnounced are those that a running node would dial for what a member announces.
func AddressesAnnounced(t testing.TB, n *Node, key ed25519.PrivateKey, body []byte) []string {
	t.Helper()
	w := n.running.Load()
	id := fleet.MemberIDOf(key.Public().(ed25519.PublicKey))
	r := fleet.Record{Fleet: n.cfg.Fleet, Epoch: 1, Seq: 1, Kind: fleet.KindReach, Key: reachKey, Body: body}
	if err := r.Sign(key); err != nil {
		t.Fatal(err)
	}
	n.commitMu.Lock()
	defer n.commitMu.Unlock()
	n.setMu.Lock()
	was := n.set
	n.set = lattice.New()
	n.set.Add(r)
	n.setMu.Unlock()
	var found []string
	for _, a := range w.addresses(t.Context(), id) {
		found = append(found, a.String())
	}
	n.setMu.Lock()
	n.set = was
	n.setMu.Unlock()
	return found
}

// TopicsOf a neighbour that are remembered.
func TopicsOf(n *Node, key ed25519.PrivateKey) int {
	id, err := peerID(fleet.MemberIDOf(key.Public().(ed25519.PublicKey)))
	if err != nil {
		panic(err)
	}
	n.flood.mu.Lock()
	defer n.flood.mu.Unlock()
	return len(n.flood.of(id).topics)
}

// Learn what another member would have told while it was connected.
func Learn(t testing.TB, n *Node, encoded [][]byte) {
	t.Helper()
	if _, err := n.admit("", encoded); err != nil {
		t.Fatal(err)
	}
}

// Bursts of gossip from one neighbour and of as many writers, at one moment; what was let in.
func Bursts(n *Node, from peer.ID, writers []fleet.MemberID, each, size int) (messages, records int) {
	for _, writer := range writers {
		for range each {
			rpc := pubsub.RPC{RPC: pb.RPC{Publish: []*pb.Message{{Data: make([]byte, size)}}}}
			if n.flood.inspect(from, &rpc) == nil {
				messages++
			}
			if n.flood.says(from, writer) {
				records++
			}
		}
	}
	return messages, records
}

// JudgeMessage of gossip that a neighbour brought.
func JudgeMessage(t testing.TB, n *Node, from ed25519.PrivateKey, records ...[]byte) pubsub.ValidationResult {
	t.Helper()
	id, err := peerID(fleet.MemberIDOf(from.Public().(ed25519.PublicKey)))
	if err != nil {
		t.Fatal(err)
	}
	return n.running.Load().validateRecords(t.Context(), id, &pubsub.Message{Message: &pb.Message{Data: Batch(records...)}})
}

// Snapshot of a life that runs: what brings it back to this moment, as a machine's snapshot does, random numbers and all.
func (n *Node) Snapshot() (rewind func()) {
	n.commitMu.Lock()
	defer n.commitMu.Unlock()
	epoch, seq := n.epoch, n.seq
	return func() {
		n.commitMu.Lock()
		defer n.commitMu.Unlock()
		n.epoch, n.seq = epoch, seq
	}
}

// SetCount of what this life has said.
func (n *Node) SetCount(count uint64) {
	n.commitMu.Lock()
	defer n.commitMu.Unlock()
	n.seq = count << seqContentBits
}

// Hears a verified heartbeat as if it had come by gossip.
func (n *Node) Hears(h *fleet.Heartbeat) { n.life.heartbeat(h, shownWhole(h.Root), true, n.now()) }

// HearsayProtocol is what a hostile peer in the tests answers; SignsFrame is such an answer.
const HearsayProtocol = hearsayProtocol

// SignsFrame as it goes over the wire.
func SignsFrame(ago uint64, signs ...[]byte) []byte {
	var all []sign
	for _, s := range signs {
		all = append(all, sign{ago, s})
	}
	return framed(signsFrame(all))
}
