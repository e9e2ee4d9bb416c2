// SPDX-License-Identifier: Apache-2.0

package sequencer

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// zoned deals the members of a plan into zones.
type zoned map[fleet.MemberID]string

func drawZones(t *rapid.T, p *Plan) zoned {
	z, n := zoned{}, rapid.IntRange(1, 5).Draw(t, "zones")
	for _, s := range p.Stages {
		for _, m := range s.Members {
			z[m.ID] = fmt.Sprintf("z%d", rapid.IntRange(0, n-1).Draw(t, "zone of "+string(m.Name)))
		}
	}
	return z
}

func (z zoned) of(id fleet.MemberID) (string, bool) { zone, ok := z[id]; return zone, ok }

func (z zoned) in(zone string) func(fleet.MemberID) bool {
	return func(id fleet.MemberID) bool { return z[id] == zone }
}

func (z zoned) all() []string { return slices.Compact(slices.Sorted(maps.Values(z))) }

// share is what somebody holds who carries these zones: their members' milestones, and what everybody has.
func (z zoned) share(whole *ledger, zones ...string) *ledger {
	part := &ledger{facts: map[milestone]bool{}, commands: whole.commands, proven: whole.proven}
	for f := range whole.facts {
		if slices.Contains(zones, z[f.member]) {
			part.facts[f] = true
		}
	}
	return part
}

func (z zoned) reports(p *Plan, whole *ledger) []fleet.Rollup {
	var out []fleet.Rollup
	for _, zone := range z.all() {
		u := RollupOf(p, z.share(whole, zone), z.in(zone))
		u.Zone = zone
		out = append(out, u)
	}
	return out
}

// TestZonesDecideAlike: a member that carries its own zone starts nothing that a member with everything would not
// have the evidence for; with the zones that it needs it decides word for word alike; and so it does when zones are
// put together in groups, in any order, some of them twice.
func TestZonesDecideAlike(t *testing.T) {
	var early, pulled, spared, sick int
	checks(t, 16, func(t *rapid.T) {
		p := drawPlan(t)
		whole := drawLives(t, p)
		drawProofs(t, p, whole, newLedger())
		drawCommands(t, p, whole)
		z := drawZones(t, p)
		reports := z.reports(p, whole)
		nested := z.nested(t, whole)
		for _, s := range p.Stages {
			for _, m := range s.Members {
				flat := Decide(p, whole, m.ID, at(0))
				if d := Decide(p, nested, m.ID, at(0)); !cmp.Equal(flat, d) {
					t.Fatalf("%s: flat %s; by zones of zones %s", m.Name, flat.Because(), d.Because())
				}
				own := z.share(whole, z[m.ID])
				alone := Decide(p, own, m.ID, at(0))
				if alone.Verdict == Go && flat.Verdict != Go && flat.Reason != Sick {
					t.Fatalf("%s: with its own zone %s; with everything %s", m.Name, alone.Because(), flat.Because())
				}
				if alone.Verdict == Go && flat.Reason == Sick {
					early++
				}
				needed := Zones(p, own, m.ID, z.of, reports)
				if len(needed) < len(z.all())-1 {
					spared++
				}
				d := Decide(p, z.share(whole, append(needed, z[m.ID])...), m.ID, at(0))
				if diff := cmp.Diff(flat, d); diff != "" {
					t.Fatalf("%s of zone %s, with %v: %s; with everything: %s\n%s", m.Name, z[m.ID], needed, d.Because(), flat.Because(), diff)
				}
				if d.Reason == Sick {
					sick++
				}
				if d.Verdict != alone.Verdict {
					pulled++
				}
			}
		}
	})
	t.Logf("cases: %d held only by another zone's sickness, %d decided otherwise with more zones, %d needed fewer than all, %d sick", early, pulled, spared, sick)
	if early == 0 || pulled == 0 || spared == 0 || sick == 0 {
		t.Errorf("vacuous: %d held only by another zone's sickness, %d decided otherwise with more zones, %d needed fewer than all, %d sick", early, pulled, spared, sick)
	}
}

// nested puts the shares of zones together in groups, and groups in groups, until one is left.
func (z zoned) nested(t *rapid.T, whole *ledger) *ledger {
	var parts []*ledger
	for _, zone := range z.all() {
		parts = append(parts, z.share(whole, zone))
	}
	parts = append(parts, parts[0]) // delivered twice
	for again := 3; len(parts) > 1; {
		i := rapid.IntRange(0, len(parts)-1).Draw(t, "group")
		j := (i + rapid.IntRange(1, len(parts)-1).Draw(t, "with")) % len(parts)
		group := newLedger()
		group.join(parts[i])
		group.join(parts[j])
		if again > 0 && rapid.Bool().Draw(t, "again") {
			again--
			parts[j] = group // the other part is told once more
			continue
		}
		parts[min(i, j)] = group
		parts = slices.Delete(parts, max(i, j), max(i, j)+1)
	}
	return parts[0]
}

// TestRollupsCountWhatTalliesCount: the zones' counts add up to those of a member with everything.
func TestRollupsCountWhatTalliesCount(t *testing.T) {
	var failing int
	checks(t, 3, func(t *rapid.T) {
		p := drawPlan(t)
		whole := drawLives(t, p)
		drawProofs(t, p, whole, newLedger())
		z := drawZones(t, p)
		members, counted := 0, map[string]map[string]int{}
		for _, u := range z.reports(p, whole) {
			members += u.Members
			failing += len(u.Failing)
			for _, s := range u.Stages {
				for state, n := range s.Counts {
					if counted[s.Name] == nil {
						counted[s.Name] = map[string]int{}
					}
					counted[s.Name][state] += n
				}
			}
		}
		want := map[string]map[string]int{}
		for _, tally := range Tallies(p, whole) {
			want[tally.Stage.Name] = map[string]int{}
			for state, n := range tally.Counts {
				want[tally.Stage.Name][state.String()] = n
			}
		}
		if diff := cmp.Diff(want, counted); diff != "" || members != p.Size() {
			t.Fatalf("%d members of %d; counts (- tallies, + rollups):\n%s", members, p.Size(), diff)
		}
	})
	if failing == 0 {
		t.Error("vacuous: nobody was named as failing")
	}
}

// TestReporters: three of a zone report, whoever else is in it; who comes or goes changes at most one of them.
func TestReporters(t *testing.T) {
	zone := members(40)
	reporters := func(zone []fleet.Member, name string) (out []fleet.Name) {
		for _, m := range zone {
			if Reports(m.ID, fleet.RolloutName{Namespace: "shop", Name: name}, zone) {
				out = append(out, m.Name)
			}
		}
		return out
	}
	seen := map[fleet.Name]bool{}
	for n := range 50 {
		name := fmt.Sprint("web-", n)
		before := reporters(zone, name)
		if len(before) != ReportersPerZone {
			t.Fatalf("%s: %d reporters", name, len(before))
		}
		after := reporters(zone[1:], name)
		kept := slices.DeleteFunc(slices.Clone(before), func(m fleet.Name) bool { return !slices.Contains(after, m) })
		if len(after) != ReportersPerZone || len(kept) < ReportersPerZone-1 {
			t.Errorf("%s: %v, and without %s %v", name, before, zone[0].Name, after)
		}
		for _, m := range before {
			seen[m] = true
		}
	}
	if len(seen) < 30 {
		t.Errorf("only %d of 40 members ever report: the work should be spread", len(seen))
	}
	if got := reporters(zone[:2], "web"); len(got) != 2 {
		t.Errorf("of a zone of two, %v report", got)
	}
	if Reports(member("stranger").ID, checkout, zone) {
		t.Error("a member of another zone reports")
	}
}
