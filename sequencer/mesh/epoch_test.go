// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"math"
	"math/rand/v2"
	"testing"
)

func TestNextEpoch(t *testing.T) {
	const second = 1 << epochRandomBits
	for name, c := range map[string]struct {
		highest      uint64
		clock        int64
		random, want uint64
	}{
		"first":                        {0, 5, 7, 5*second + 7},
		"no clock":                     {0, 0, 7, 1*second + 7},
		"before 1970":                  {0, -9, 7, 1*second + 7},
		"plain seconds before":         {1_800_000_000, 5, 7, 5*second + 7},
		"later":                        {5*second + 7, 6, 0, 6 * second},
		"same second, luck":            {5*second + 7, 5, 8, 5*second + 8},
		"same second":                  {5*second + 7, 5, 7, 6*second + 7},
		"clock set back":               {5*second + 7, 1, 3, 6*second + 3},
		"clock beyond what fits":       {0, math.MaxInt64, 7, maxSeconds*second + 7},
		"the last second":              {maxSeconds*second + 9, 5, 7, maxSeconds*second + 10},
		"the second before the last":   {maxSeconds*second - 1, 5, 0, maxSeconds * second},
		"nothing is left":              {math.MaxUint64, 5, 7, 0},
		"one is left, and not by luck": {math.MaxUint64 - 1, 5, 7, math.MaxUint64},
	} {
		got, ok := nextEpoch(c.highest, c.clock, c.random)
		if got != c.want || ok != (c.want > 0) {
			t.Errorf("%s: %d %v, want %d", name, got, ok, c.want)
		}
	}
}

// TestNoEpochTwice: 1,000 restarts from a seed, a hundred times: the disk remembers, or is a copy from any time before, or
// is empty; the clock is anywhere within a year, and often set to the very second of an earlier start. No epoch
// is used twice. With seconds alone it is, at once.
func TestNoEpochTwice(t *testing.T) {
	meetings := func(seed uint64, random func(*rand.Rand) uint64) (met int) {
		draw := rand.New(rand.NewPCG(seed, 1))
		used, disks := map[uint64]bool{}, []uint64{0}
		clocks := []int64{1_800_000_000}
		disk := uint64(0)
		for range 1000 {
			switch draw.IntN(3) {
			case 0:
				disk = disks[draw.IntN(len(disks))]
			case 1:
				disks = append(disks, disk)
			}
			clock := 1_800_000_000 + draw.Int64N(31_536_000)
			if draw.IntN(2) == 0 {
				clock = clocks[draw.IntN(len(clocks))]
			}
			clocks = append(clocks, clock)
			epoch, ok := nextEpoch(disk, clock, random(draw))
			if !ok || epoch <= disk {
				t.Fatalf("seed %d: epoch %d after %d", seed, epoch, disk)
			}
			if used[epoch] {
				met++
			}
			used[epoch], disk = true, epoch
		}
		return met
	}
	for seed := range uint64(100) {
		if met := meetings(seed, func(r *rand.Rand) uint64 { return r.Uint64N(1 << epochRandomBits) }); met > 0 {
			t.Errorf("seed %d: %d epochs used twice", seed, met)
		}
		if met := meetings(seed, func(*rand.Rand) uint64 { return 0 }); met == 0 {
			t.Errorf("seed %d: restores and clocks that make nothing meet show nothing", seed)
		}
	}
}
