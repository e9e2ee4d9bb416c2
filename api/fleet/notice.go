// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
)

// MaxNotice is the most bytes in an encoded notice.
const MaxNotice = 256

// noticeDomain keeps its signature from being shown as one of anything else.
const noticeDomain = "flotilla.dev/notice\n"

// LifeID names one start of an agent: the first half of its heartbeats' nonce.
type LifeID [8]byte

// Notice says that its writer does not hear a member next to it any more. It is what one member noticed, never a
// fact about another one: never stored, never reconciled, and no evidence of anything. Whoever it is about and
// lives answers with a heartbeat.
type Notice struct {
	Fleet  Digest
	Writer MemberID
	// Life of the writer, and Counter, which goes up with every notice of that life: a replayed notice is known by
	// them.
	Life    LifeID
	Counter uint64
	// About is another member.
	About MemberID
	// AboutLife and AboutCounter are the last that the writer heard of it; who heard a later life or a higher counter
	// knows better.
	AboutLife    LifeID
	AboutCounter uint64
	Sig          []byte
}

// Encode gives the canonical bytes of the notice, signature included.
func (n *Notice) Encode() []byte { return append(n.signed(), n.Sig...) }

func (n *Notice) signed() []byte {
	b := []byte{'F', 'N', WireVersion}
	b = append(b, n.Fleet[:]...)
	b = appendPublicKey(b, n.Writer)
	b = append(b, n.Life[:]...)
	b = binary.BigEndian.AppendUint64(b, n.Counter)
	b = appendPublicKey(b, n.About)
	b = append(b, n.AboutLife[:]...)
	return binary.BigEndian.AppendUint64(b, n.AboutCounter)
}

// appendPublicKey of a member; of one that is none it appends zeros, which never verify.
func appendPublicKey(b []byte, id MemberID) []byte {
	key, err := id.PublicKey()
	if err != nil {
		key = make([]byte, publicKeySize)
	}
	return append(b, key...)
}

// IsNotice says whether bytes begin as an encoded notice does. Notices and heartbeats share their topics.
func IsNotice(b []byte) bool { return len(b) > 1 && b[0] == 'F' && b[1] == 'N' }

// DecodeNotice reads what Encode wrote. It checks form and bounds, not the signature. A notice of a member about
// itself is malformed: nobody loses itself.
func DecodeNotice(b []byte) (Notice, error) {
	if len(b) > MaxNotice {
		return Notice{}, fmt.Errorf("notice of %d bytes: %w: at most %d", len(b), ErrMalformed, MaxNotice)
	}
	d := decoder{rest: b}
	d.header('F', 'N')
	var n Notice
	copy(n.Fleet[:], d.take(32))
	writer := d.take(publicKeySize)
	copy(n.Life[:], d.take(len(n.Life)))
	n.Counter = d.uint64()
	about := d.take(publicKeySize)
	copy(n.AboutLife[:], d.take(len(n.AboutLife)))
	n.AboutCounter = d.uint64()
	n.Sig = append([]byte(nil), d.take(signatureSize)...)
	if d.err == nil {
		n.Writer, n.About = MemberIDOf(writer), MemberIDOf(about)
	}
	if d.err == nil && n.Writer == n.About {
		d.fail("by a member about itself")
	}
	if err := d.end("notice"); err != nil {
		return Notice{}, err
	}
	return n, nil
}

// Sign fills in Writer and Sig.
func (n *Notice) Sign(key ed25519.PrivateKey) {
	n.Writer = MemberIDOf(key.Public().(ed25519.PublicKey))
	n.Sig = ed25519.Sign(key, append([]byte(noticeDomain), n.signed()...))
}

// Verify checks that the notice is of this fleet and signed by its writer.
func (n *Notice) Verify(of Digest) error {
	if n.Fleet != of {
		return fmt.Errorf("notice by %s: %w (%s)", n.Writer, ErrFleet, n.Fleet.Short())
	}
	key, err := n.Writer.PublicKey()
	if err != nil {
		return fmt.Errorf("notice: %w", err)
	}
	if !ed25519.Verify(key, append([]byte(noticeDomain), n.signed()...), n.Sig) {
		return fmt.Errorf("notice by %s: %w", n.Writer, ErrSignature)
	}
	return nil
}
