// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"crypto/ed25519"
	"fmt"
	"math/big"
	"strings"
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

// peerIDPrefix is an identity multihash (0x00) of 0x24 bytes: a libp2p public key of type ed25519.
var peerIDPrefix = [...]byte{0x00, 0x24, 0x08, 0x01, 0x12, 0x20}

// MemberIDOf is the ID of a key.
func MemberIDOf(key ed25519.PublicKey) MemberID {
	raw := append(peerIDPrefix[:], key...)
	n := new(big.Int).SetBytes(raw)
	radix, digit := big.NewInt(58), new(big.Int)
	var reversed []byte
	for n.Sign() > 0 {
		n.DivMod(n, radix, digit)
		reversed = append(reversed, base58[digit.Int64()])
	}
	reversed = append(reversed, base58[0]) // the leading zero byte of the prefix
	for i, j := 0, len(reversed)-1; i < j; i, j = i+1, j-1 {
		reversed[i], reversed[j] = reversed[j], reversed[i]
	}
	return MemberID(reversed)
}

// PublicKey is the key that the ID names. It refuses every ID that is not an ed25519 key's.
func (id MemberID) PublicKey() (ed25519.PublicKey, error) {
	const idLength = 52
	wrong := func() error {
		return fmt.Errorf("member ID %q: want the peer ID of an ed25519 key (12D3KooW...)", clip(string(id), 64))
	}
	if len(id) != idLength || id[0] != base58[0] {
		return nil, wrong()
	}
	n, radix := new(big.Int), big.NewInt(58)
	for _, c := range []byte(id) {
		digit := strings.IndexByte(base58, c)
		if digit < 0 {
			return nil, wrong()
		}
		n.Add(n.Mul(n, radix), big.NewInt(int64(digit)))
	}
	raw := make([]byte, len(peerIDPrefix)+ed25519.PublicKeySize)
	if n.BitLen() > (len(raw)-1)*8 {
		return nil, wrong()
	}
	n.FillBytes(raw)
	if [len(peerIDPrefix)]byte(raw) != peerIDPrefix {
		return nil, wrong()
	}
	key := ed25519.PublicKey(raw[len(peerIDPrefix):])
	if MemberIDOf(key) != id {
		return nil, wrong()
	}
	return key, nil
}

// Roster answers who belongs to the fleet, now.
type Roster interface {
	// Member by ID; false for a stranger.
	Member(MemberID) (Member, bool)
}
