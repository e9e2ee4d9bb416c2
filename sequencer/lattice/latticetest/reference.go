// SPDX-License-Identifier: Apache-2.0

package latticetest

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// slot is where records meet.
type slot struct {
	writer fleet.MemberID
	kind   fleet.Kind
	key    string
}

func slotOf(r *fleet.Record) slot { return slot{r.Writer, r.Kind, r.Key} }

// Reference is what a set comes to that heard all of this, on a day, as one would write it without caring for speed:
// of what has not ended and no floor retires the best under every key; of these the newest seals, and as many as
// the quotas have room for. A floor of a forked writer retires no command.
func Reference(said []fleet.Record, day int64) []fleet.Record {
	standing := slices.Clone(said)
	standing = slices.DeleteFunc(standing, func(r fleet.Record) bool {
		last, ok := r.Expires()
		return r.Kind.IsRegister() && ok && last < day
	})
	var floors []fleet.Floor
	forked := map[fleet.MemberID]bool{}
	for _, r := range within(best(standing)) {
		if f, err := fleet.DecodeFloor(&r); err == nil {
			floors = append(floors, f)
		}
		if p, err := fleet.DecodeProof(&r); err == nil {
			forked[p.A.Writer] = true
		}
	}
	floors = slices.DeleteFunc(floors, func(f fleet.Floor) bool { return f.Kind == fleet.KindCommand && forked[f.Writer] })
	standing = slices.DeleteFunc(standing, func(r fleet.Record) bool {
		return slices.ContainsFunc(floors, func(f fleet.Floor) bool { return f.Retires(&r) })
	})
	return within(best(standing))
}

// best under every key: the newest register, the first of all else.
func best(records []fleet.Record) []fleet.Record {
	kept := map[slot]fleet.Record{}
	for _, r := range records {
		held, ok := kept[slotOf(&r)]
		if !ok || (r.Kind >= 128 && r.Newer(&held)) || (r.Kind < 128 && held.Newer(&r)) {
			kept[slotOf(&r)] = r
		}
	}
	return slices.Collect(maps.Values(kept))
}

// within the quotas: of a rollout's seals the newest, of everything the lowest.
func within(records []fleet.Record) (kept []fleet.Record) {
	type family struct {
		writer fleet.MemberID
		kind   fleet.Kind
		scope  fleet.Scope
	}
	families := map[family]map[string][]fleet.Record{}
	for _, r := range records {
		in, group := family{r.Writer, r.Kind, r.Scope()}, r.Key
		if i := strings.LastIndexByte(r.Key, '/'); r.Kind == fleet.KindSeal && i >= 0 {
			group = r.Key[:i]
		}
		if families[in] == nil {
			families[in] = map[string][]fleet.Record{}
		}
		families[in][group] = append(families[in][group], r)
	}
	for in, groups := range families {
		room := in.kind.Quota()
		if in.kind == fleet.KindSeal {
			room /= fleet.SealsKept
		}
		names := slices.Sorted(maps.Keys(groups))
		for _, name := range names[:min(room, len(names))] {
			group := groups[name]
			slices.SortFunc(group, func(a, b fleet.Record) int { return cmp.Compare(b.Key, a.Key) })
			kept = append(kept, group[:min(len(group), fleet.SealsKept)]...)
		}
	}
	return kept
}

// digests of records, sorted.
func digests(records []fleet.Record) []fleet.Digest {
	all := make([]fleet.Digest, 0, len(records))
	for i := range records {
		all = append(all, records[i].Digest())
	}
	slices.SortFunc(all, func(a, b fleet.Digest) int { return slices.Compare(a[:], b[:]) })
	return all
}
