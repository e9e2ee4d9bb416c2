// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"context"
	"sync"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/delivery"
)

// Steady spares the cluster what is known. A turn is taken at every word from the fleet, and each would ask the API
// server once more about every object of a release that is there already. Between two looks nothing needs asking if
// all of its objects are watched and none has changed; so what was found is given again, until one changes, the watch
// has a gap, another release comes, or Release.Recheck is over.
type Steady struct {
	delivery.Deliverer
	// Watched says that every object of a manifest, as the account may see it, has been watched without a gap since
	// before the call.
	Watched func(name fleet.RolloutName, manifest fleet.Digest, account string) bool
	// Clock is read for Elapsed alone.
	Clock func() fleet.Moment

	mu      sync.Mutex
	changes map[fleet.RolloutName]uint64
	found   map[fleet.RolloutName]finding
}

// finding is what the last look found, and what it was a look at.
type finding struct {
	release steadyKey
	changes uint64
	at      time.Duration
	recheck time.Duration
	objects int
	health  *delivery.Health // where it was healthy
}

type steadyKey struct {
	plan, manifest fleet.Digest
	account        string
	prune          bool
}

// Changed is told by the watch that an object of a rollout is not what it was.
func (s *Steady) Changed(name fleet.RolloutName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changes == nil {
		s.changes = map[fleet.RolloutName]uint64{}
	}
	s.changes[name]++
}

// Deliver is in delivery.Deliverer.
func (s *Steady) Deliver(ctx context.Context, r delivery.Release) (delivery.Outcome, error) {
	key := steadyKey{r.Plan, r.Digest, r.ServiceAccount, r.Prune}
	watched := s.Watched(r.Rollout, r.Digest, r.ServiceAccount)
	known, changes, ok := s.recall(r.Rollout, watched)
	if ok && known.release == key {
		return delivery.Outcome{Objects: known.objects}, nil
	}
	outcome, err := s.Deliverer.Deliver(ctx, r)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.found, r.Rollout)
	if err == nil && watched && outcome.Waiting == "" && !outcome.Changed() {
		if s.found == nil {
			s.found = map[fleet.RolloutName]finding{}
		}
		// A change while it looked counts as one after it.
		s.found[r.Rollout] = finding{release: key, changes: changes, at: s.Clock().Elapsed, recheck: r.Recheck, objects: outcome.Objects}
	}
	return outcome, err
}

// Health is in delivery.Deliverer. Only good health is given again: everything else is on its way somewhere.
func (s *Steady) Health(ctx context.Context, name fleet.RolloutName, account string) (delivery.Health, error) {
	known, _, ok := s.known(name, account)
	if ok && known.health != nil {
		return *known.health, nil
	}
	health, err := s.Deliverer.Health(ctx, name, account)
	if err != nil || !ok || health.State != delivery.Healthy {
		return health, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if now, is := s.found[name]; is && now.release == known.release && now.at == known.at {
		now.health = &health
		s.found[name] = now
	}
	return health, nil
}

func (s *Steady) known(name fleet.RolloutName, account string) (finding, uint64, bool) {
	s.mu.Lock()
	last := s.found[name]
	s.mu.Unlock()
	if last.release.account != account {
		return finding{}, 0, false
	}
	return s.recall(name, s.Watched(name, last.release.manifest, account))
}

// recall the finding, if it still holds, and how many changes there were so far.
func (s *Steady) recall(name fleet.RolloutName, watched bool) (finding, uint64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	changes := s.changes[name]
	f, ok := s.found[name]
	return f, changes, ok && watched && f.changes == changes && s.Clock().Elapsed-f.at < f.recheck
}
