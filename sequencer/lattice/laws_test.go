// SPDX-License-Identifier: Apache-2.0

package lattice_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
	"github.com/flotilla-dev/flotilla/sequencer/lattice/latticetest"
)

func TestSetObeysTheLaws(t *testing.T) { latticetest.Laws(t, lattice.New) }

func TestInterleavings(t *testing.T) {
	seen := make([]latticetest.Seen, 4)
	t.Run("seeds", func(t *testing.T) {
		for shard := range seen {
			t.Run(fmt.Sprint(shard), func(t *testing.T) {
				t.Parallel()
				for seed := shard; seed < interleavings; seed += len(seen) {
					s, err := latticetest.Interleave(uint64(seed), latticetest.Sound)
					if err != nil {
						t.Fatal(err)
					}
					seen[shard].Add(s)
				}
			})
		}
	})
	var all latticetest.Seen
	for _, s := range seen {
		all.Add(s)
	}
	t.Logf("%d interleavings: %+v", interleavings, all)
	for what, n := range map[string]int{
		"over quota": all.OverQuota, "retired": all.Retired, "expired": all.Expired, "seals gone": all.SealsGone,
		"forked": all.Forked, "restarts": all.Restarted, "jumps": all.Jumped, "partial": all.Partial, "divided": all.Divided, "conflicts": all.Conflicts,
		"outlived": all.Outlived,
	} {
		if n == 0 {
			t.Errorf("nothing was ever %s: the interleavings show less than they say", what)
		}
	}
}

// Each mistake has been made by somebody, somewhere. None survives.
var mistakes = map[string]func() latticetest.Mistake{
	"quota by arrival order": func() latticetest.Mistake {
		return latticetest.Mistake{Refuses: func(s *lattice.Set, r *fleet.Record) bool {
			held := 0
			for other := range s.All() {
				if other.Writer == r.Writer && other.Kind == r.Kind && other.Scope() == r.Scope() {
					if held++; other.Key == r.Key {
						return false
					}
				}
			}
			return held >= r.Kind.Quota()
		}}
	},
	"high-water mark applied to milestones": func() latticetest.Mistake {
		type counters struct{ epoch, seq uint64 }
		marks := map[fleet.MemberID]counters{}
		return latticetest.Mistake{Refuses: func(_ *lattice.Set, r *fleet.Record) bool {
			mark := marks[r.Writer]
			if r.Epoch < mark.epoch || r.Epoch == mark.epoch && r.Seq <= mark.seq {
				return true
			}
			marks[r.Writer] = counters{r.Epoch, r.Seq}
			return false
		}}
	},
	"epoch wins over union": func() latticetest.Mistake {
		return latticetest.Mistake{
			Refuses: func(s *lattice.Set, r *fleet.Record) bool {
				for other := range s.All() {
					if overtaken(r, &other) {
						return true
					}
				}
				return false
			},
			Forgets: func(held, added *fleet.Record, _ int64) bool { return added != nil && overtaken(held, added) },
		}
	},
	"milestones of an open plan expire": func() latticetest.Mistake {
		today := int64(0)
		old := func(r *fleet.Record) bool {
			f, err := fleet.DecodeFact(r)
			return err == nil && fleet.Day(time.Unix(f.Time, 0))+fleet.Lifetime < today
		}
		return latticetest.Mistake{
			Refuses: func(_ *lattice.Set, r *fleet.Record) bool { return old(r) },
			Forgets: func(held, _ *fleet.Record, day int64) bool { today = day; return old(held) },
		}
	},
	"the day never goes back": func() latticetest.Mistake {
		last := int64(0)
		ended := func(r *fleet.Record) bool {
			day, ok := r.Expires()
			return ok && day < last
		}
		return latticetest.Mistake{
			Refuses: func(_ *lattice.Set, r *fleet.Record) bool { return ended(r) },
			Forgets: func(held, _ *fleet.Record, day int64) bool { last = max(last, day); return ended(held) },
		}
	},
	"a forked writer's floor retires its commands": func() latticetest.Mistake {
		return latticetest.Mistake{Refuses: func(s *lattice.Set, r *fleet.Record) bool {
			if r.Kind != fleet.KindCommand {
				return false
			}
			held, _ := s.Get(r.Writer, fleet.KindFloor, fleet.FloorKey(fleet.KindCommand))
			f, err := fleet.DecodeFloor(&held)
			return err == nil && f.Retires(r)
		}}
	},
	"a floor is forgotten when more is said": func() latticetest.Mistake {
		return latticetest.Mistake{Forgets: func(held, added *fleet.Record, _ int64) bool {
			return held.Kind == fleet.KindFloor && added != nil && added.Kind == fleet.KindFact
		}}
	},
}

// overtaken says that a milestone is of an epoch before that of another one by its writer.
func overtaken(r, by *fleet.Record) bool {
	return r.Writer == by.Writer && r.Epoch < by.Epoch && !r.Kind.IsRegister() && !by.Kind.IsRegister()
}

func TestInterleavingsFindMistakes(t *testing.T) {
	for name, plant := range mistakes {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(500) {
				if _, err := latticetest.Interleave(seed, plant); err != nil {
					t.Log(err)
					return
				}
			}
			t.Error("not found in 500 interleavings")
		})
	}
}
