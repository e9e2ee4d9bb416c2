// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"bufio"
	"bytes"
	"slices"
	"strings"

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
func HelloFrame(root fleet.Digest) []byte { return framed(rootFrame(frameHello, root, lifeID{})) }

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
	return framed(rootFrame(frameDiffers, root, lifeID{}))
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
func (n *Node) RecordTopics() (count int) {
	w := n.running.Load()
	w.topics.mu.Lock()
	defer w.topics.mu.Unlock()
	for name := range w.topics.joined {
		if strings.HasPrefix(name, topicBase(n.cfg.Fleet)+"/records/") {
			count++
		}
	}
	return count
}

// Admit takes what a reconciliation brings.
func (n *Node) Admit(encoded ...[]byte) error {
	learnt, err := n.admit(encoded)
	n.tell(learnt)
	return err
}
