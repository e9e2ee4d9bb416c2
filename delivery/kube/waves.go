// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/flotilla-dev/flotilla/delivery"
)

// apply writes what differs, wave by wave, up to the first that is not ready while another follows; waiting says which,
// and why. The changes are those made until then, or until an error.
//
// A release that was applied to its last wave before is only healed: what is there and differs is put right at once in
// all waves, and what is missing is made again in its turn.
func (s *session) apply(ctx context.Context, pending bool) (changes []delivery.Change, waiting string, err error) {
	for n, wave := range s.waves {
		items := wave.Items
		if waiting != "" {
			items = slices.DeleteFunc(slices.Clone(items), (*item).mustBeMade)
		}
		done, busy, err := s.applyStages(ctx, items)
		changes = append(changes, done...)
		if err != nil || busy != "" {
			return changes, busy, err
		}
		if waiting != "" || !mustWait(pending, s.waves[n+1:]) {
			continue
		}
		if waiting, err = s.unready(ctx, wave); err != nil || waiting != "" && pending {
			return changes, waiting, err
		}
	}
	return changes, waiting, nil
}

// mustWait: what follows is for its turn.
func mustWait(pending bool, later []delivery.Wave[*item]) bool {
	return pending && len(later) > 0 || slices.ContainsFunc(later, func(w delivery.Wave[*item]) bool {
		return slices.ContainsFunc(w.Items, (*item).mustBeMade)
	})
}

// mustBeMade: the object is not there, or has to be made again.
func (it *item) mustBeMade() bool {
	return it.action != delivery.Unchanged && it.action != delivery.Configured
}

// applyStages writes what differs of one wave.
func (s *session) applyStages(ctx context.Context, items []*item) (changes []delivery.Change, waiting string, err error) {
	for _, stage := range delivery.Stages(items, idOf) {
		if err := s.enter(ctx, stage); err != nil {
			return changes, "", err
		}
		for _, it := range stage {
			if it.action != delivery.Unchanged {
				if waiting, err = s.write(ctx, it); err != nil || waiting != "" {
					return changes, waiting, err
				}
			}
			it.written = true
			changes = append(changes, delivery.Change{Object: it.id, Action: it.action})
		}
	}
	return changes, "", nil
}

// unready says in words what of a wave is not ready; nothing where all is. Jobs that are seen to be complete are noted.
func (s *session) unready(ctx context.Context, wave delivery.Wave[*item]) (string, error) {
	var ids []delivery.ObjectID
	var items []*item
	for _, it := range wave.Items {
		if !it.done {
			ids, items = append(ids, it.id), append(items, it)
		}
	}
	verdicts, err := s.conn.judge(ctx, s.as, ids)
	if err != nil {
		return "", err
	}
	for n, it := range items {
		it.done = it.id.IsJob() && verdicts[n].State == delivery.Healthy
	}
	if health := delivery.Sum(verdicts); health.State != delivery.Healthy {
		return fmt.Sprintf("wave %d is not ready: %s", wave.Number, health.Because), nil
	}
	return "", nil
}

// wasDone: the Job was complete with the manifest that it has now. That it is gone since does not make it run again.
func (s *session) wasDone(it *item) bool {
	return it.id.IsJob() && slices.Contains(s.before.Done, delivery.Done{Object: it.id, Manifest: it.manifest})
}

// completed Jobs of the release: those that are seen to be, and those that were and are gone.
func (s *session) completed() []delivery.Done {
	var done []delivery.Done
	for _, it := range s.items {
		if it.done || it.live == nil && s.wasDone(it) {
			done = append(done, delivery.Done{Object: it.id, Manifest: it.manifest})
		}
	}
	slices.SortFunc(done, func(a, b delivery.Done) int { return strings.Compare(a.Object.String(), b.Object.String()) })
	return done
}
