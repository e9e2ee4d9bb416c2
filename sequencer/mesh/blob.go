// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/store"
)

// blobProtocol and its history.
//
//	/flotilla/blob/1  2026-11: a digest; answered by the content after its length + 1 as a varint, or by 0
const blobProtocol protocol.ID = "/flotilla/blob/1"

// ErrNoBlob is in the error of FetchBlob when nobody reached has it.
var ErrNoBlob = errors.New("no connected member has it")

var errBlobContent = errors.New("content does not have the digest")

// PutBlob keeps a blob for others to fetch.
func (n *Node) PutBlob(content []byte) (fleet.Digest, error) { return n.cfg.Store.PutBlob(content) }

// FetchBlob gives a blob from the store, or else from the connected members, one after another, and then
// keeps it. Errors are retryable.
func (n *Node) FetchBlob(ctx context.Context, digest fleet.Digest) ([]byte, error) {
	content, ok, err := n.cfg.Store.Blob(digest)
	if err != nil || ok {
		return content, err
	}
	w := n.running.Load()
	if w == nil {
		return nil, fmt.Errorf("blob %s: %w", digest.Short(), ErrNoBlob)
	}
	peers := w.host.Network().Peers()
	rand.Shuffle(len(peers), func(i, j int) { peers[i], peers[j] = peers[j], peers[i] })
	failures := []error{fmt.Errorf("blob %s: %w", digest.Short(), ErrNoBlob)}
	for _, id := range peers {
		content, err := w.fetchBlobFrom(ctx, id, digest)
		if errors.Is(err, errBlobContent) {
			n.counts.blobsRefused.Add(1)
			n.flood.strike(id, err.Error())
		}
		if err != nil {
			failures = append(failures, fmt.Errorf("from %s: %w", id, err))
			continue
		}
		n.counts.blobsFetched.Add(1)
		_, err = n.cfg.Store.PutBlob(content)
		return content, err
	}
	return nil, errors.Join(append(failures, ctx.Err())...)
}

func (w *wire) fetchBlobFrom(ctx context.Context, id peer.ID, digest fleet.Digest) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, w.blobTime())
	defer cancel()
	s, err := w.open(ctx, id, blobProtocol)
	if err != nil {
		return nil, err
	}
	// Reset ends it for both sides, whatever was read.
	defer func() { _ = s.Reset() }()
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	if _, err := s.Write(digest[:]); err != nil {
		return nil, err
	}
	return readBlob(bufio.NewReader(s), digest)
}

// blobTime is for a whole blob, sixteen frames long.
func (w *wire) blobTime() time.Duration { return store.MaxBlob / maxFrame * w.cfg.StreamTimeout }

func readBlob(in *bufio.Reader, digest fleet.Digest) ([]byte, error) {
	size, err := binary.ReadUvarint(in)
	switch {
	case err != nil:
		return nil, err
	case size == 0:
		return nil, errors.New("has none")
	case size-1 > store.MaxBlob:
		return nil, fmt.Errorf("blob of %d bytes: %w: at most %d", size-1, fleet.ErrTooLarge, store.MaxBlob)
	}
	content := make([]byte, size-1)
	if _, err := io.ReadFull(in, content); err != nil {
		return nil, err
	}
	if fleet.BlobDigest(content) != digest {
		return nil, errBlobContent
	}
	return content, nil
}

// serveBlob answers one question.
func (w *wire) serveBlob(s network.Stream) error {
	if err := s.SetReadDeadline(time.Now().Add(w.cfg.StreamTimeout)); err != nil {
		return err
	}
	var digest fleet.Digest
	if _, err := io.ReadFull(s, digest[:]); err != nil {
		return err
	}
	content, ok, err := w.cfg.Store.Blob(digest)
	if err != nil {
		return err
	}
	if err := s.SetWriteDeadline(time.Now().Add(w.blobTime())); err != nil {
		return err
	}
	if !ok {
		_, err := s.Write([]byte{0})
		return err
	}
	w.counts.blobsServed.Add(1)
	_, err = s.Write(append(binary.AppendUvarint(nil, uint64(len(content))+1), content...))
	return err
}
