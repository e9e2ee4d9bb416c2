// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"encoding/binary"
	"fmt"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// Bounds of what travels between members, in bytes.
const (
	// maxMessage of gossip, and maxFrame of a reconciliation with its type byte.
	maxMessage = 64 << 10
	maxFrame   = 64 << 10
	// batchVersion is the version of a batch and its history.
	//
	//	1  2026-11: 'F' 'B' version, then each record after its length in two bytes
	batchVersion = 1
	batchHeader  = 3
	lengthSize   = 2
)

// batch is several encoded records in one message or frame.
type batch struct {
	bytes []byte
	count int
}

// add appends a record if the batch stays within most bytes.
func (b *batch) add(record []byte, most int) bool {
	if len(b.bytes) == 0 {
		b.bytes = append(b.bytes, 'F', 'B', batchVersion)
	}
	if len(b.bytes)+lengthSize+len(record) > most {
		return false
	}
	b.bytes = binary.BigEndian.AppendUint16(b.bytes, uint16(len(record)))
	b.bytes = append(b.bytes, record...)
	b.count++
	return true
}

// splitBatch gives the records of a batch, still encoded. They share the batch's memory.
func splitBatch(b []byte) ([][]byte, error) {
	if len(b) < batchHeader || b[0] != 'F' || b[1] != 'B' {
		return nil, fmt.Errorf("batch: %w: not the first bytes of one", fleet.ErrMalformed)
	}
	if b[2] != batchVersion {
		return nil, fmt.Errorf("batch: %w: %d, this is %d", fleet.ErrVersion, b[2], batchVersion)
	}
	var records [][]byte
	for rest := b[batchHeader:]; len(rest) > 0; {
		if len(rest) < lengthSize {
			return nil, fmt.Errorf("batch: %w: cut short", fleet.ErrMalformed)
		}
		size := int(binary.BigEndian.Uint16(rest))
		rest = rest[lengthSize:]
		if size == 0 || size > len(rest) {
			return nil, fmt.Errorf("batch: %w: record of %d bytes in %d", fleet.ErrMalformed, size, len(rest))
		}
		records = append(records, rest[:size])
		rest = rest[size:]
	}
	if len(records) == 0 {
		return nil, fmt.Errorf("batch: %w: empty", fleet.ErrMalformed)
	}
	return records, nil
}
