// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strconv"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// A record on disk is its place and the rest of it. Together they give its bytes as they travel, to the last one, so that
// its signature and its digest are what they were. The checksum is over those bytes: it covers the place, and the values
// that are written elsewhere (names.go).
//
//	place  1, kind, number of the writer, key             any record
//	       2, number of the plan, milestone, number of the writer    under the key of a milestone
//	rest   checksum 4, how the body is written 1, number of the fleet, epoch, seq, body, signature 64
//	body   as it is; or of a fact under its own key: time, detail
//
// Numbers in a place have four bytes, in the order of bytes, those in the rest are varints. Milestones of one plan lie
// together: they come together, and are retired together.
const (
	placePlain     = 1
	placeMilestone = 2

	bodyPlain = 0
	bodyFact  = 1

	signatureSize = 64

	// recordFill is how full a page is left when it is split. Places come partly in order and partly at random: split in
	// the middle, pages in order stay half full; split at the end, those at random do worse.
	recordFill = 0.65
)

// placeOf is where a record lies; false where its writer is none, or a value has no number.
func placeOf(r *fleet.Record, number func(value) (number, bool)) (at []byte, ok bool) {
	key, err := r.Writer.PublicKey()
	if err != nil {
		return nil, false
	}
	writer, ok := number(value(key))
	if !ok {
		return nil, false
	}
	if plan, kind, ok := milestoneOf(r.Kind, r.Key); ok {
		of, ok := number(value(plan))
		at = binary.BigEndian.AppendUint32([]byte{placeMilestone}, uint32(of))
		return binary.BigEndian.AppendUint32(append(at, byte(kind)), uint32(writer)), ok
	}
	at = binary.BigEndian.AppendUint32([]byte{placePlain, byte(r.Kind)}, uint32(writer))
	return append(at, r.Key...), true
}

// milestoneOf a key, where it is written as [fleet.FactKey] writes it. The body has no part in it: two records with one
// key must have one place.
func milestoneOf(kind fleet.Kind, key string) (plan fleet.Digest, milestone fleet.FactKind, ok bool) {
	const digits = 2 * len(plan)
	if kind != fleet.KindFact || len(key) < digits+2 || key[digits] != '/' {
		return plan, 0, false
	}
	plan, err := fleet.ParseDigest(key[:digits])
	if err != nil {
		return plan, 0, false
	}
	n, err := strconv.ParseUint(key[digits+1:], 10, 8)
	return plan, fleet.FactKind(n), err == nil && fleet.FactKey(plan, fleet.FactKind(n)) == key
}

// pack gives the rest of a record. It has to be signed.
func pack(r *fleet.Record, of number) []byte {
	b := binary.BigEndian.AppendUint32(nil, crc32.Checksum(r.Encode(), castagnoli))
	form, body := byte(bodyPlain), r.Body
	if _, _, ok := milestoneOf(r.Kind, r.Key); ok {
		if f, err := fleet.DecodeFact(r); err == nil && bytes.Equal(f.Encode(), r.Body) {
			form, body = bodyFact, append(binary.AppendUvarint(nil, uint64(f.Time)), f.Detail...)
		}
	}
	b = binary.AppendUvarint(append(b, form), uint64(of))
	b = binary.AppendUvarint(binary.AppendUvarint(b, r.Epoch), r.Seq)
	return append(append(b, body...), r.Sig...)
}

// place is what a record's place says: who, what kind, which key.
type place struct {
	writer *name
	kind   fleet.Kind
	key    string
	// plan and milestone, of the place of one.
	plan      fleet.Digest
	milestone fleet.FactKind
}

// readPlace knows nobody where a value has no name.
func readPlace(at []byte, name func(number) *name) (p place, ok bool) {
	switch {
	case len(at) >= 2+numberSize && at[0] == placePlain:
		p.writer = name(number(binary.BigEndian.Uint32(at[2:])))
		p.kind, p.key = fleet.Kind(at[1]), string(at[2+numberSize:])
	case len(at) == 2+2*numberSize && at[0] == placeMilestone:
		p.writer = name(number(binary.BigEndian.Uint32(at[2+numberSize:])))
		plan := name(number(binary.BigEndian.Uint32(at[1:])))
		if plan == nil {
			return p, false
		}
		p.plan, p.milestone = fleet.Digest(plan.value), fleet.FactKind(at[1+numberSize])
		p.kind, p.key = fleet.KindFact, fleet.FactKey(p.plan, p.milestone)
	}
	return p, p.writer != nil
}

// numbersIn a place and its rest: what the record uses. Of nothing it is nothing; of what is damaged it is always the same.
func numbersIn(at, rest []byte) (all []number) {
	if rest == nil {
		return nil
	}
	switch {
	case len(at) >= 2+numberSize && at[0] == placePlain:
		all = append(all, number(binary.BigEndian.Uint32(at[2:])))
	case len(at) == 2+2*numberSize && at[0] == placeMilestone:
		all = append(all, number(binary.BigEndian.Uint32(at[1:])), number(binary.BigEndian.Uint32(at[2+numberSize:])))
	}
	if len(rest) > 5 {
		if k, n := binary.Uvarint(rest[5:]); n > 0 && k == uint64(number(k)) {
			all = append(all, number(k))
		}
	}
	return all
}

func malformed(what string) error {
	return fmt.Errorf("stored record: %w: %s", fleet.ErrMalformed, what)
}

// unpack gives the record at a place, as it was signed.
func unpack(at, rest []byte, name func(number) *name) (fleet.Record, error) {
	if len(rest) < 4+1+3+signatureSize {
		return fleet.Record{}, fmt.Errorf("stored record of %d bytes: %w", len(rest), fleet.ErrMalformed)
	}
	p, ok := readPlace(at, name)
	if !ok {
		return fleet.Record{}, malformed("no place of one")
	}
	sum, form := binary.BigEndian.Uint32(rest), rest[4]
	rest, sig := rest[5:len(rest)-signatureSize], rest[len(rest)-signatureSize:]
	short := false
	varint := func() uint64 {
		v, n := binary.Uvarint(rest)
		if n <= 0 {
			short = true
			return 0
		}
		rest = rest[n:]
		return v
	}
	of := varint()
	r := fleet.Record{Writer: p.writer.writer, Epoch: varint(), Seq: varint(), Kind: p.kind, Key: p.key, Sig: sig}
	switch {
	case form == bodyPlain:
		r.Body = rest
	case form == bodyFact && at[0] == placeMilestone:
		time := varint()
		r.Body = fleet.Fact{Plan: p.plan, Kind: p.milestone, Time: int64(time), Detail: string(rest)}.Encode()
	default:
		short = true
	}
	fleetName := name(number(of))
	if short || fleetName == nil {
		return fleet.Record{}, malformed("not as it was written")
	}
	r.Fleet = fleet.Digest(fleetName.value)
	wire := r.Encode()
	if crc32.Checksum(wire, castagnoli) != sum {
		return fleet.Record{}, malformed("wrong checksum")
	}
	return fleet.DecodeRecord(wire)
}
