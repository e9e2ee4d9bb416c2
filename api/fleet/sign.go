// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"crypto/ed25519"
	"errors"
	"fmt"
)

// Domains keep a signature of one thing from being shown as one of another.
const (
	recordDomain    = "flotilla.dev/record\n"
	heartbeatDomain = "flotilla.dev/heartbeat\n"
)

// Why a record is not believed.
var (
	ErrSignature = errors.New("signature does not match")
	ErrFleet     = errors.New("of another fleet")
	ErrStranger  = errors.New("writer is not on the roster")
	ErrTooLarge  = errors.New("too large")
)

// Sign fills in Writer and Sig. It refuses a record that nobody would accept: over the bounds
// (ErrTooLarge), or with a key that is no plain text (ErrMalformed).
func (r *Record) Sign(key ed25519.PrivateKey) error {
	r.Writer = MemberIDOf(key.Public().(ed25519.PublicKey))
	if len(r.Key) > MaxKey {
		return fmt.Errorf("record key of %d bytes: %w: at most %d", len(r.Key), ErrTooLarge, MaxKey)
	}
	if err := checkText(r.Key); err != nil {
		return fmt.Errorf("record key %q: %w", clip(r.Key, 80), err)
	}
	if n := len(r.Body); r.Kind == KindRegister && n > MaxRegister {
		return fmt.Errorf("register %q of %d bytes: %w: at most %d", clip(r.Key, 80), n, ErrTooLarge, MaxRegister)
	}
	signed := r.signed()
	if n := len(signed) + signatureSize; n > MaxRecord {
		return fmt.Errorf("record %q of %d bytes: %w: at most %d", clip(r.Key, 80), n, ErrTooLarge, MaxRecord)
	}
	r.Sig = ed25519.Sign(key, append([]byte(recordDomain), signed...))
	return nil
}

// Verify checks that the record is of this fleet and signed by its writer.
func (r *Record) Verify(of Digest) error {
	if r.Fleet != of {
		return fmt.Errorf("record %q by %s: %w (%s)", clip(r.Key, 80), r.Writer, ErrFleet, r.Fleet.Short())
	}
	key, err := r.Writer.PublicKey()
	if err != nil {
		return fmt.Errorf("record %q: %w", clip(r.Key, 80), err)
	}
	if !ed25519.Verify(key, append([]byte(recordDomain), r.signed()...), r.Sig) {
		return fmt.Errorf("record %q by %s: %w", clip(r.Key, 80), r.Writer, ErrSignature)
	}
	return nil
}

// Sign fills in Writer and Sig.
func (h *Heartbeat) Sign(key ed25519.PrivateKey) {
	h.Writer = MemberIDOf(key.Public().(ed25519.PublicKey))
	h.Sig = ed25519.Sign(key, append([]byte(heartbeatDomain), h.signed()...))
}

// Verify checks that the heartbeat is of this fleet and signed by its writer.
func (h *Heartbeat) Verify(of Digest) error {
	if h.Fleet != of {
		return fmt.Errorf("heartbeat of %s: %w (%s)", h.Writer, ErrFleet, h.Fleet.Short())
	}
	key, err := h.Writer.PublicKey()
	if err != nil {
		return err
	}
	if !ed25519.Verify(key, append([]byte(heartbeatDomain), h.signed()...), h.Sig) {
		return fmt.Errorf("heartbeat of %s: %w", h.Writer, ErrSignature)
	}
	return nil
}

// Authorize says whether the roster lets the record's writer write it. Today every member may say
// what is about itself: each decoder ties what a record states to the one who wrote it. Roles and
// revocations are decided here, and nowhere else, once the fleet has a root of trust.
func Authorize(roster Roster, r *Record) error {
	if _, ok := roster.Member(r.Writer); !ok {
		return fmt.Errorf("record %q: %w: %s", clip(r.Key, 80), ErrStranger, r.Writer)
	}
	return nil
}
