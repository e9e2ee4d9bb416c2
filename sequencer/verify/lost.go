// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"slices"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// This file knows what is gone where all stores are lost at once, such as when every agent of a small fleet is replaced in
// the same minute: each member says again what its promise holds, and a promise holds the milestones of the release
// that the member is on and of the one that it accepted. Those of a release that it has gone on from are nowhere then, all
// of them. Nobody who says that all is here can know of that.

// lost says whether a member may have said something of a plan that nobody holds any more: there is no word of it in the
// plan, and it has spoken of another release of the rollout that is not known to be an older one.
func (b *book) lost(p *plan, of fleet.MemberID) bool {
	if p.said[of].first(anyKind...) != nil {
		return false
	}
	key := lostKey{p.digest, of}
	gone, known := b.lostWords[key]
	if !known {
		gone = slices.ContainsFunc(b.all, func(q *plan) bool {
			return q != p && q.said[of].first(anyKind...) != nil && sameRollout(p, q) && !b.before(q, p)
		})
		b.lostWords[key] = gone
	}
	return gone
}

type lostKey struct {
	plan   fleet.Digest
	member fleet.MemberID
}

// outlasted says that a member's words have been kept since it said w: there is one of an earlier release, and its promise
// held that no more.
func (b *book) outlasted(p *plan, of fleet.MemberID, w *word) bool {
	return slices.ContainsFunc(b.all, func(q *plan) bool {
		earlier := q.said[of].earliest()
		return q != p && p.Plan != nil && q.Plan != nil && p.Rollout == q.Rollout && earlier != nil && earlier.at.before(w.at)
	})
}

// sameRollout, as far as is known.
func sameRollout(p, q *plan) bool {
	return p.Plan == nil || q.Plan == nil || p.Rollout == q.Rollout
}

// before says that q is known to be an older release than p: by the numbers of their seals, or because a member spoke of q first.
func (b *book) before(q, p *plan) bool {
	if x, y := q.sealed.Seal, p.sealed.Seal; q.Plan != nil && p.Plan != nil && x.Author == y.Author && (x.Term != y.Term || x.Number != y.Number) {
		return x.Term < y.Term || x.Term == y.Term && x.Number < y.Number
	}
	key := [2]fleet.Digest{q.digest, p.digest}
	older, known := b.olderThan[key]
	if !known {
		for id := range p.said {
			first, second := q.said[id].earliest(), p.said[id].earliest()
			if older = first != nil && second != nil && !b.removed[id] && first.at.before(second.at); older {
				break
			}
		}
		b.olderThan[key] = older
	}
	return older
}

var anyKind = func() (all []fleet.FactKind) {
	for k := range kinds {
		all = append(all, fleet.FactKind(k))
	}
	return all
}()

// earliest of the milestones by its position.
func (m *milestones) earliest() (first *word) {
	if m == nil {
		return nil
	}
	for _, w := range m {
		if w != nil && (first == nil || w.at.before(first.at)) {
			first = w
		}
	}
	return first
}
