// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"math/bits"
)

// Member is one cluster of the fleet, as the roster has it. Labels come from the roster and
// never from the member itself, or a cluster could choose its own stage.
type Member struct {
	ID   MemberID `json:"id"`
	Name Name     `json:"name"`
	// Zone groups members that are near each other.
	Zone string `json:"zone,omitempty"`
	// Incarnation goes up when another cluster takes the name.
	Incarnation uint64            `json:"incarnation"`
	Labels      map[string]string `json:"labels,omitempty"`
	// Addresses are multiaddrs at which others can dial it; none means that it only dials out.
	// They are how to reach it, not who it is: no seal covers them.
	Addresses []string `json:"-"`
}

// MemberID names a member's ed25519 key: its libp2p peer ID (12D3KooW...), which holds the key itself.
type MemberID string

// base58 is Bitcoin's alphabet, which peer IDs use.
const base58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

const (
	// idLength of a member ID: one digit for the leading zero byte, and 51 for the rest, of which the first are
	// always the prefix's.
	idLength = 52
	// Digits are read and written ten at a time, as many as go into 64 bits. Every record that comes or is hashed
	// has its writer's ID turned round; with big integers that took as long as the hashing.
	digitsAtOnce = 10
	radix        = 58
	radixAtOnce  = radix * radix * radix * radix * radix * radix * radix * radix * radix * radix
)

// digitOf a character; radix for what is none.
var digitOf = func() (digits [256]byte) {
	for i := range digits {
		digits[i] = radix
	}
	for i, c := range []byte(base58) {
		digits[c] = byte(i)
	}
	return digits
}()

// peerIDPrefix is an identity multihash (0x00) of 0x24 bytes: a libp2p public key of type ed25519.
var peerIDPrefix = [...]byte{0x00, 0x24, 0x08, 0x01, 0x12, 0x20}

// number is 320 bits, the highest first: a peer ID with two zero bytes before it.
type number [5]uint64

const idOffset = len(number{})*8 - len(peerIDPrefix) - ed25519.PublicKeySize

// MemberIDOf is the ID of a key.
func MemberIDOf(key ed25519.PublicKey) MemberID {
	var raw [len(number{}) * 8]byte
	copy(raw[idOffset:], peerIDPrefix[:])
	copy(raw[idOffset+len(peerIDPrefix):], key)
	var n number
	for i := range n {
		n[i] = binary.BigEndian.Uint64(raw[8*i:])
	}
	id := [idLength]byte{base58[0]}
	for at := idLength; at > 1; {
		var rest uint64
		for i := range n {
			n[i], rest = bits.Div64(rest, n[i], radixAtOnce)
		}
		for range min(digitsAtOnce, at-1) {
			at--
			id[at] = base58[rest%radix]
			rest /= radix
		}
	}
	return MemberID(id[:])
}

// PublicKey is the key that the ID names. It refuses every ID that is not an ed25519 key's.
func (id MemberID) PublicKey() (ed25519.PublicKey, error) {
	n, ok := id.number()
	var raw [len(number{}) * 8]byte
	for i := range n {
		binary.BigEndian.PutUint64(raw[8*i:], n[i])
	}
	// No two rows of digits are one number with this prefix, so a key has one ID.
	if !ok || raw[0] != 0 || raw[1] != 0 || [len(peerIDPrefix)]byte(raw[idOffset:]) != peerIDPrefix {
		return nil, fmt.Errorf("member ID %q: want the peer ID of an ed25519 key (12D3KooW...)", clip(string(id), 64))
	}
	return ed25519.PublicKey(raw[idOffset+len(peerIDPrefix):]), nil
}

// number that the digits behind the first are; 51 of them always fit.
func (id MemberID) number() (n number, ok bool) {
	if len(id) != idLength || id[0] != base58[0] {
		return n, false
	}
	for at := 1; at < idLength; {
		part, unit := uint64(0), uint64(1)
		for range min(digitsAtOnce, idLength-at) {
			digit := digitOf[id[at]]
			if digit == radix {
				return n, false
			}
			part, unit = part*radix+uint64(digit), unit*radix
			at++
		}
		for i := len(n) - 1; i >= 0; i-- {
			high, low := bits.Mul64(n[i], unit)
			sum, carry := bits.Add64(low, part, 0)
			n[i], part = sum, high+carry
		}
	}
	return n, true
}

// Roster answers who belongs to the fleet, now.
type Roster interface {
	// Member by ID; false for a stranger.
	Member(MemberID) (Member, bool)
}
