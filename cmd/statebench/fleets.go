// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync/atomic"

	"github.com/libp2p/go-libp2p/core/metrics"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// replicas of one system, all in this process. They are numbered from 0.
type replicas interface {
	// put writes through a replica, and returns when that says that the write is accepted.
	put(ctx context.Context, replica int, key string, value []byte) error
	// sent is how many bytes all of them have sent to each other, as the systems themselves count:
	// without TCP's and encryption's own.
	sent() uint64
	close() error
}

// divisible replicas can be kept from reaching each other.
type divisible interface {
	// divide lets only replicas of one side reach each other.
	divide(side func(replica int) int)
	heal()
}

// dialled says whom a replica dials: everyone in small fleets, else some others, the same for every system.
func dialled(replica, replicas int) []int {
	const everyone, some = 9, 8
	if replicas <= everyone {
		others := make([]int, 0, replicas)
		for other := range replica {
			others = append(others, other)
		}
		return others
	}
	// The next one, so that all hang together, and others by chance, the same in every run.
	others := []int{(replica + 1) % replicas}
	chance := rand.New(rand.NewPCG(uint64(replica), uint64(replicas)))
	for len(others) < some {
		if other := chance.IntN(replicas); other != replica && !slices.Contains(others, other) {
			others = append(others, other)
		}
	}
	return others
}

// meter counts what one libp2p host sends and receives in its streams.
type meter struct {
	*metrics.BandwidthCounter
	out, in atomic.Uint64
}

var _ metrics.Reporter = (*meter)(nil)

func newMeter() *meter { return &meter{BandwidthCounter: metrics.NewBandwidthCounter()} }

func (m *meter) LogSentMessage(n int64) { m.out.Add(uint64(n)) }
func (m *meter) LogRecvMessage(n int64) { m.in.Add(uint64(n)) }

func (*meter) LogSentMessageStream(int64, protocol.ID, peer.ID) {}
func (*meter) LogRecvMessageStream(int64, protocol.ID, peer.ID) {}
