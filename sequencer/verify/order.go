// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// checkOrder is I14 and I5: what a member took and started never went back. Numbers of seals are in their records. Which of two
// revisions is the older one only the payload's history knows; but it is one history, so that whatever
// members did, no two went through the same revisions in contrary order.
func (b *book) checkOrder(plans []*plan) {
	histories := map[history]*revisions{}
	for _, id := range slices.Sorted(maps.Keys(b.writers)) {
		if b.removed[id] {
			continue
		}
		last := map[fleet.RolloutName]step{}
		for _, next := range taken(id, plans) {
			if next.plan.Plan == nil { // of which rollout, nobody can say
				clear(last)
				continue
			}
			before, there := last[next.plan.Rollout]
			last[next.plan.Rollout] = next
			if !there || before.plan == next.plan {
				continue
			}
			b.result.check(ruleOrder)
			if b.checkNumbers(id, before, next) {
				continue
			}
			from, to := historyOf(before.plan), historyOf(next.plan)
			if from != to {
				continue // revisions of two sources do not compare: the newer seal says which one
			}
			if histories[from] == nil {
				histories[from] = &revisions{after: map[fleet.Revision][]passage{}}
			}
			b.checkRevisions(histories[from], passage{id, before, next})
		}
	}
}

// checkNumbers of two releases that a member took one after the other. True says that it is told.
func (b *book) checkNumbers(id fleet.MemberID, before, next step) bool {
	x, y := before.plan.sealed.Seal, next.plan.sealed.Seal
	if x.Author != y.Author || x.Term < y.Term || x.Term == y.Term && x.Number < y.Number {
		return false // numbers of two authors do not compare
	}
	if x.Term == y.Term && x.Number == y.Number && x.Digest() == y.Digest() {
		return false
	}
	b.broken(ruleOrder, finding{
		plan: next.plan, member: id, words: []*word{before.word, next.word},
		story: fmt.Sprintf("it %s seal %d after it %s seal %d", next.verb(), y.Number, before.verb(), x.Number),
	})
	return true
}

func (s *step) verb() string {
	if s.starts {
		return "started"
	}
	return "accepted"
}

// history of a payload: revisions of one head are ordered among each other.
type history struct {
	rollout fleet.RolloutName
	head    string
}

func historyOf(p *plan) history {
	h := history{rollout: p.Rollout}
	switch s := p.sealed.Spec.Source; {
	case s.Helm != nil:
		h.head = strings.Join([]string{"helm", s.Helm.URL, s.Helm.Chart, s.Helm.Version}, "\n")
	case s.Git != nil:
		h.head = "git\n" + s.Git.URL + "\n" + s.Git.Ref.String()
	}
	return h
}

// passage of a member from one release to another.
type passage struct {
	member       fleet.MemberID
	before, next step
}

func (p *passage) from() fleet.Revision { return p.before.plan.Release.Revision }

func (p *passage) to() fleet.Revision { return p.next.plan.Release.Revision }

// revisions of a history, each with the passages that began at it.
type revisions struct {
	after map[fleet.Revision][]passage
}

// checkRevisions: nobody went from a revision to one from which somebody came to it.
func (b *book) checkRevisions(h *revisions, p passage) {
	if p.from() == p.to() || slices.ContainsFunc(h.after[p.from()], func(q passage) bool { return q.to() == p.to() }) {
		return
	}
	back := h.way(p.to(), p.from())
	if back == nil {
		h.after[p.from()] = append(h.after[p.from()], p)
		return
	}
	f := finding{plan: p.next.plan, member: p.member, words: []*word{p.before.word, p.next.word}}
	others := map[fleet.Name]bool{}
	for i := range back {
		f.words = append(f.words, back[i].before.word, back[i].next.word)
		if back[i].member != p.member {
			others[b.name(back[i].member)] = true
		}
	}
	f.story = fmt.Sprintf("it went from %s to %s, and had come the other way", p.from().Short(), p.to().Short())
	if len(others) > 0 {
		names := make([]string, 0, len(others))
		for _, name := range slices.Sorted(maps.Keys(others)) {
			names = append(names, string(name))
		}
		f.story = fmt.Sprintf("it went from %s to %s, and %s went the other way: one of them went back", p.from().Short(), p.to().Short(), strings.Join(names, ", "))
	}
	b.broken(ruleOrder, f)
}

// way from one revision to another, the shortest; nil where there is none.
func (h *revisions) way(from, to fleet.Revision) []passage {
	type visit struct {
		at  fleet.Revision
		way []passage
	}
	seen := map[fleet.Revision]bool{from: true}
	for queue := []visit{{at: from}}; len(queue) > 0; queue = queue[1:] {
		for _, p := range h.after[queue[0].at] {
			way := append(slices.Clip(queue[0].way), p)
			if p.to() == to {
				return way
			}
			if !seen[p.to()] {
				seen[p.to()] = true
				queue = append(queue, visit{p.to(), way})
			}
		}
	}
	return nil
}
