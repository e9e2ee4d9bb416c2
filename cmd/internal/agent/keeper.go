// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/cmd/internal/agent/turn"
	"github.com/flotilla-dev/flotilla/sequencer"
)

// The pace of a keeper.
const (
	// keepEvery so often zones and rollups are looked at: a rollup is written at most so often.
	keepEvery = 5 * time.Second
	// retireEvery so often it is asked whether a floor pays.
	retireEvery = time.Minute
)

// Keeper keeps this member's part of the fleet's state small, and what it carries of the other zones' sufficient. It
// decides nothing: it asks the sequencer, and tells the mesh.
type Keeper struct {
	Self     fleet.MemberID
	Roster   func() *Roster
	Ledger   *MeshLedger
	Promises turn.Promises
	// Reports of the last turn of each rollout.
	Reports func() map[fleet.RolloutName]turn.Report
	// Flat is how many members a fleet may have for each to carry everything: there are no zones to ask for or to report on.
	Flat int
	// Carry these zones' milestones beside the own; nil where the mesh carries everything.
	Carry func(zones []string)
	// Root of a zone's milestones, for rollups; nil: they have none.
	Root func(zone string) fleet.Digest
	// Settled is closed when this member has heard the others out: a floor covers what it said and does not know of any
	// more. Nil does not wait.
	Settled <-chan struct{}
	Clock   func() fleet.Moment
	Log     logr.Logger

	mu      sync.Mutex
	carried []string
}

// Run until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	if k.Settled != nil {
		select {
		case <-ctx.Done():
			return nil
		case <-k.Settled:
		}
	}
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	for n := time.Duration(0); ; n += keepEvery {
		k.follow()
		err := k.reportZone(ctx)
		if n%retireEvery == 0 {
			err = errors.Join(err, k.retire(ctx))
		}
		if err != nil && ctx.Err() == nil {
			k.Log.Error(err, "this member's part of the fleet's state could not be looked after; tried again")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// zoned fleets are so large that nobody carries everything.
func (k *Keeper) zoned() bool { return len(k.Roster().Members()) > k.Flat }

// follow asks for the zones whose milestones the plans in hand need, when they change.
func (k *Keeper) follow() {
	if k.Carry == nil {
		return
	}
	var zones []string
	if roster := k.Roster(); k.zoned() {
		zoneOf := func(id fleet.MemberID) (string, bool) { m, ok := roster.Member(id); return m.Zone, ok }
		own, _ := zoneOf(k.Self)
		for name, report := range k.Reports() {
			if report.Plan != nil && !report.Rollout.Withdrawn {
				zones = append(zones, sequencer.Zones(report.Plan, k.Ledger, k.Self, zoneOf, k.told(name))...)
			}
		}
		slices.Sort(zones)
		zones = slices.DeleteFunc(slices.Compact(zones), func(z string) bool { return z == own })
	}
	k.mu.Lock()
	same := slices.Equal(zones, k.carried)
	k.carried = zones
	k.mu.Unlock()
	if !same {
		k.Log.Info("carries the milestones of other zones", "zones", zones)
		k.Carry(zones)
	}
}

// told are the reports of a rollout that members of the very zones wrote. One of them that lies can show something
// that is not there, and hide nothing that another one tells.
func (k *Keeper) told(name fleet.RolloutName) (told []fleet.Rollup) {
	roster := k.Roster()
	for writer, rollups := range k.Ledger.Rollups(name) {
		m, on := roster.Member(writer)
		for _, u := range rollups {
			if on && m.Zone == u.Zone {
				told = append(told, u)
			}
		}
	}
	return told
}

// reports of a rollout from all zones, for people: of each the newest.
func (k *Keeper) reports(name fleet.RolloutName) []fleet.Rollup {
	newest := map[string]fleet.Rollup{}
	for _, u := range k.told(name) {
		if held, ok := newest[u.Zone]; !ok || held.Time < u.Time {
			newest[u.Zone] = u
		}
	}
	out := make([]fleet.Rollup, 0, len(newest))
	for _, u := range newest {
		out = append(out, u)
	}
	slices.SortFunc(out, func(a, b fleet.Rollup) int { return cmp.Compare(a.Zone, b.Zone) })
	return out
}

// Hearsay of a rollout is what the zones tell whose milestones are not carried here.
func (k *Keeper) Hearsay(name fleet.RolloutName) []fleet.Rollup {
	if k == nil || !k.zoned() {
		return nil
	}
	self, _ := k.Roster().Member(k.Self)
	k.mu.Lock()
	carried := slices.Clone(k.carried)
	k.mu.Unlock()
	return slices.DeleteFunc(k.reports(name), func(u fleet.Rollup) bool {
		return u.Zone == self.Zone || slices.Contains(carried, u.Zone)
	})
}

// reportZone tells the other zones how this one stands in each rollout that it is this member's turn to report on. In
// a fleet where everybody carries everything there is nobody to tell.
func (k *Keeper) reportZone(ctx context.Context) error {
	roster := k.Roster()
	self, on := roster.Member(k.Self)
	if !on || !k.zoned() {
		return nil
	}
	var zone []fleet.Member
	in := map[fleet.MemberID]bool{}
	for _, m := range roster.Members() {
		if m.Zone == self.Zone {
			zone, in[m.ID] = append(zone, m), true
		}
	}
	for name, report := range k.Reports() {
		if report.Plan == nil || report.Rollout.Withdrawn || !sequencer.Reports(k.Self, name, zone) {
			continue
		}
		u := sequencer.RollupOf(report.Plan, k.Ledger, func(id fleet.MemberID) bool { return in[id] })
		u.Zone = self.Zone
		if u.Members == 0 {
			continue
		}
		if err := k.writeRollup(ctx, u); err != nil {
			return fmt.Errorf("report on %s: %w", name, err)
		}
	}
	return nil
}

// writeRollup where it says something new, or would expire. What else the zone says is no news of this rollout.
func (k *Keeper) writeRollup(ctx context.Context, u fleet.Rollup) error {
	now := k.Clock().Wall
	for _, held := range k.Ledger.Rollups(u.Rollout)[k.Self] {
		u.Root, u.Time = held.Root, held.Time
		if reflect.DeepEqual(held, u) && now.Sub(time.Unix(held.Time, 0)) < turn.RenewAfter {
			return nil
		}
	}
	u.Root, u.Time = fleet.Digest{}, now.Unix()
	if k.Root != nil {
		u.Root = k.Root(u.Zone)
	}
	body, err := u.Encode()
	if err != nil {
		return err
	}
	return k.say(ctx, fleet.KindRollup, fleet.RollupKey(u.Zone, u.Rollout), body)
}

func (k *Keeper) say(ctx context.Context, kind fleet.Kind, key string, body []byte) error {
	record, err := k.Ledger.Prepare(kind, key, body)
	if err != nil {
		return err
	}
	return k.Ledger.Commit(ctx, record)
}

// retire what this member said and nobody needs any more.
func (k *Keeper) retire(ctx context.Context) error {
	if k.Ledger.Removed(k.Self) {
		return nil
	}
	reports := k.Reports()
	facts, factsPay := k.factFloor(reports)
	commands, commandsPay := k.commandFloor(reports)
	if !factsPay && !commandsPay {
		return nil
	}
	// What a promise is not known of could be needed.
	names, err := k.Promises.All(ctx)
	if err != nil {
		return fmt.Errorf("own promises: %w", err)
	}
	for _, name := range names {
		if _, turned := reports[name]; !turned {
			return nil
		}
	}
	if factsPay {
		err = k.floor(ctx, facts)
	}
	if commandsPay {
		err = errors.Join(err, k.floor(ctx, commands))
	}
	return err
}

// factFloor of this member: of each rollout what its promise says is live stays, and so does what no promise knows of.
func (k *Keeper) factFloor(reports map[fleet.RolloutName]turn.Report) (fleet.Floor, bool) {
	held := k.Ledger.Own(k.Self)
	var own []sequencer.Own
	live := map[fleet.Group]bool{}
	for plan, records := range held {
		own = append(own, records...)
		live[fleet.PlanGroup(plan)] = true
	}
	scarce := sequencer.Scarce(fleet.KindFact, len(own))
	now := k.Clock().Wall
	for _, report := range reports {
		for _, plan := range report.Promise.Plans {
			delete(live, fleet.PlanGroup(plan))
		}
	}
	for name, report := range reports {
		spoken := report.Promise.Spoken(now)
		spoken.Sick = k.sick(name, spoken.Plans)
		for _, plan := range spoken.Live(scarce) {
			live[fleet.PlanGroup(plan)] = true
		}
		for _, b := range report.Promise.Said {
			if r, err := fleet.DecodeRecord(b); err == nil {
				own = append(own, sequencer.Own{Epoch: r.Epoch, Seq: r.Seq, Group: r.Group()})
			}
		}
	}
	return sequencer.Retire(fleet.KindFact, own, live, k.Ledger.Floor(k.Self, fleet.KindFact))
}

// sick are the plans of a rollout in which this member's sickness stands.
func (k *Keeper) sick(name fleet.RolloutName, plans []fleet.Digest) (sick []fleet.Digest) {
	var commands []fleet.Command
	for _, plan := range plans {
		id, degraded := k.Ledger.Fact(plan, k.Self, fleet.Degraded)
		if !degraded {
			continue
		}
		if commands == nil {
			commands = k.Ledger.Commands(name)
		}
		if !slices.ContainsFunc(commands, func(c fleet.Command) bool { return lifts(c, id) }) {
			sick = append(sick, plan)
		}
	}
	return sick
}

// lifts says whether a command names a stop, or a sickness, that it ends.
func lifts(c fleet.Command, id fleet.Digest) bool {
	return c.Verb == fleet.Resume && slices.Contains(c.Lifts, id)
}

// commandFloor of this member, once half of the quota is used up: people like to read who stopped what and why.
func (k *Keeper) commandFloor(reports map[fleet.RolloutName]turn.Report) (fleet.Floor, bool) {
	commands := k.Ledger.OwnCommands(k.Self)
	if !sequencer.Scarce(fleet.KindCommand, len(commands)) {
		return fleet.Floor{}, false
	}
	var needed []fleet.Digest
	for _, report := range reports {
		if stop := report.Promise.Stop; stop != nil {
			if r, err := fleet.DecodeRecord(stop.Record); err == nil {
				needed = append(needed, r.Digest())
			}
		}
	}
	own := make([]sequencer.Own, len(commands))
	for i := range commands {
		own[i] = commands[i].Own
	}
	return sequencer.Retire(fleet.KindCommand, own, sequencer.LiveCommands(commands, needed), k.Ledger.Floor(k.Self, fleet.KindCommand))
}

func (k *Keeper) floor(ctx context.Context, f fleet.Floor) error {
	if err := k.say(ctx, fleet.KindFloor, fleet.FloorKey(f.Kind), f.Encode()); err != nil {
		return fmt.Errorf("retire: %w", err)
	}
	k.Log.Info("took back what is of no use any more", "kind", f.Kind.String(), "kept", len(f.Keep))
	return nil
}
