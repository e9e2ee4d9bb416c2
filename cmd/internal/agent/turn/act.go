// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/delivery"
	"github.com/flotilla-dev/flotilla/sequencer"
	"github.com/flotilla-dev/flotilla/specialize"
)

// Renderer makes a member's variant of a payload.
type Renderer interface {
	Render(context.Context, RenderRequest) (specialize.Manifest, error)
}

// waveRecheck is when a delivery that waits for a wave goes on at the latest; its objects are watched besides.
const waveRecheck = 5 * time.Second

// errOvertaken ends a delivery whose release is not the one to work on any more (R6).
var errOvertaken = errors.New("overtaken by a newer release")

// act does what the decision allows. Whatever it is, what runs here is kept as it should be (R11).
func (t *turn) act(ctx context.Context) error {
	working := t.promise.Progress.Plan == t.plan.Digest
	switch d := t.report.Decision; {
	case d.Reason == sequencer.MayStart:
		return t.start(ctx)
	case d.Reason == sequencer.NotTargeted:
		return nil // a newer seal left this member out: what it has stays, and is its own again (R12)
	case d.Reason == sequencer.HasStarted && !working:
		return t.attempt(ctx) // the promise is older than what was said: an API restored, an agent killed between
	case d.Reason == sequencer.HasStarted && t.promise.Progress.Phase == sequencer.Retrying:
		return t.retry(ctx)
	case d.Reason == sequencer.HasStarted && t.promise.Progress.Phase == sequencer.Resigned:
		return t.giveUp(ctx)
	}
	if !t.duplicate {
		if err := t.carryOver(ctx); err != nil {
			return err
		}
	}
	return t.keep(ctx)
}

// start is everything that must hold before Started is said: it renders, and the cluster would take
// it. So a release that does not build touches nothing, anywhere.
func (t *turn) start(ctx context.Context) error {
	release, err := t.release(ctx)
	if err != nil {
		return t.cannotStart(ctx, v1alpha1.ReasonRenderFailed, err)
	}
	if done, err := t.carry(ctx, release); done || err != nil {
		return err
	}
	if err := t.Deliverer.Check(ctx, release.Release); err != nil {
		return t.cannotStart(ctx, v1alpha1.ReasonApplyFailed, err)
	}
	return t.attempt(ctx)
}

// cannotStart tells the fleet where the plan itself is at fault, leaves it where this cluster cannot
// take part (R1), and otherwise waits for somebody to change something. What runs is kept.
func (t *turn) cannotStart(ctx context.Context, reason string, err error) error {
	t.trouble(v1alpha1.ConditionApplied, withReason(err, reason))
	switch {
	case fleet.ReasonOf(err, "") == v1alpha1.ReasonNamespaceMissing && fleet.KindOf(err) != fleet.Retryable:
		if err := t.say(ctx, t.promise.clone(), t.plan.Digest, err.Error(), fleet.Yielded); err != nil {
			return err
		}
	case fleet.KindOf(err) == fleet.Terminal:
		if err := t.say(ctx, t.promise.clone(), t.plan.Digest, err.Error(), fleet.Failed); err != nil {
			return err
		}
	}
	t.wake(t.report.Rollout.Settings.RetryInterval)
	return t.keep(ctx)
}

// attempt begins one: the promise first, then Started, then the first write (R6).
func (t *turn) attempt(ctx context.Context) error {
	release, err := t.release(ctx)
	if err != nil {
		t.trouble(v1alpha1.ConditionApplied, withReason(err, v1alpha1.ReasonRenderFailed))
		return t.keep(ctx)
	}
	next := t.promise.clone()
	next.keepSaid(t.plan.Digest)
	next.Progress, next.Failure = next.Progress.Begin(t.plan.Digest, t.now), nil
	next.Installed = release.installed
	if err := t.say(ctx, next, t.plan.Digest, string(t.plan.Release.Revision), fleet.Started); err != nil {
		return err
	}
	t.Log.Info("started a release", "rollout", t.name.String(), "revision", string(t.plan.Release.Revision),
		"plan", t.plan.Digest.Short(), "stage", t.report.Decision.Stage, "attempt", next.Progress.Attempts)
	return t.deliver(ctx, release)
}

// retry when the pause is over and no stop is in force; until then the last good release is kept (R5, R11).
func (t *turn) retry(ctx context.Context) error {
	due, wait := t.promise.Progress.MayRetry(t.now)
	if due && sequencer.Permitted(t.plan, t.Ledger) && !t.report.Rollout.Settings.Suspend {
		return t.attempt(ctx)
	}
	t.wake(wait)
	return t.keep(ctx)
}

// giveUp for ever, once the last good release is back where there is one (R5).
func (t *turn) giveUp(ctx context.Context) error {
	t.heal(ctx)
	failed := t.report.Trouble[v1alpha1.ConditionApplied]
	if failed != nil && fleet.KindOf(failed) == fleet.Retryable {
		t.wake(t.report.Rollout.Settings.RetryInterval)
		return nil
	}
	waits := failed == nil && t.report.Outcome.Waiting != ""
	if waits && !t.hopeless(ctx) {
		t.wake(waveRecheck)
		return nil
	}
	detail := "restored: false"
	if t.promise.Installed != nil && failed == nil && !waits {
		detail = "restored: true"
	}
	return t.say(ctx, t.promise.clone(), t.plan.Digest, detail, fleet.GaveUp)
}

// hopeless: something of what runs here says that it will not get healthy by itself.
func (t *turn) hopeless(ctx context.Context) bool {
	health, err := t.Deliverer.Health(ctx, t.name, AccountOf(t.promise.Installed.Delivery))
	return err == nil && health.State == delivery.Failed
}

// carryOver signs success at once where the new release is, byte for byte, what already runs and is
// healthy here (R1). It starts nothing, so it needs no gate.
func (t *turn) carryOver(ctx context.Context) error {
	d := t.report.Decision
	if d.Verdict == sequencer.Done || d.Verdict == sequencer.Out || d.Reason == sequencer.HasStarted || !t.promise.Good() {
		return nil
	}
	release, err := t.release(ctx)
	if err != nil {
		t.trouble(v1alpha1.ConditionApplied, withReason(err, v1alpha1.ReasonRenderFailed))
		return nil
	}
	_, err = t.carry(ctx, release)
	return err
}

func (t *turn) carry(ctx context.Context, r rendered) (done bool, err error) {
	if !t.promise.Good() || t.promise.Installed.Manifest != r.installed.Manifest ||
		t.promise.Installed.Delivery.ServiceAccountName != r.installed.Delivery.ServiceAccountName {
		return false, nil
	}
	health, err := t.Deliverer.Health(ctx, t.name, r.ServiceAccount)
	if err != nil || health.State != delivery.Healthy {
		return false, nil //nolint:nilerr // not known to be healthy: no carry-over, the ordinary way remains
	}
	t.report.Health = health
	next := t.promise.clone()
	next.keepSaid(t.plan.Digest)
	next.Progress, next.Failure = sequencer.CarryOver(t.plan.Digest, t.now), nil
	next.Installed, next.LastGood = r.installed, r.installed
	if err := t.say(ctx, next, t.plan.Digest, "the payload already ran here", fleet.Succeeded); err != nil {
		return false, err
	}
	return true, t.observe(ctx, health)
}

// Good says that what is installed has succeeded here.
func (p *Promise) Good() bool {
	return p.Installed != nil && p.Progress.Plan == p.Installed.Release.Plan() &&
		(p.Progress.Phase == sequencer.Ready || p.Progress.Phase == sequencer.Settled)
}

// keep heals what runs here, and goes on watching the plan that it belongs to.
func (t *turn) keep(ctx context.Context) error {
	if t.promise.Installed == nil {
		return nil
	}
	release, err := t.again(ctx, t.promise.Installed)
	if err != nil {
		t.trouble(v1alpha1.ConditionApplied, err)
		return nil
	}
	return t.deliver(ctx, release)
}

// heal is keep for those who have no plan to watch.
func (t *turn) heal(ctx context.Context) {
	if t.promise.Installed == nil {
		return
	}
	release, err := t.again(ctx, t.promise.Installed)
	if err == nil {
		t.report.Outcome, err = t.Deliverer.Deliver(ctx, release.Release)
	}
	if err != nil {
		t.trouble(v1alpha1.ConditionApplied, err)
	}
	if t.report.Outcome.Waiting != "" {
		t.wake(waveRecheck)
	}
}

// deliver and look at the outcome. What the cluster refuses for good ends the attempt; what it
// could not do now is tried again until the progress deadline.
func (t *turn) deliver(ctx context.Context, r rendered) error {
	began := t.Clock().Elapsed
	outcome, err := t.Deliverer.Deliver(ctx, r.Release)
	t.report.Took.Apply = t.Clock().Elapsed - began
	t.report.Outcome = outcome
	if outcome.Changed() {
		took := t.report.Took
		t.Log.Info("delivered", "rollout", t.name.String(), "revision", string(r.Revision), "changes", outcome.Summary(),
			"fetch", took.Fetch.String(), "decide", took.Decide.String(), "render", took.Render.String(), "apply", took.Apply.String())
	}
	if err != nil {
		t.trouble(v1alpha1.ConditionApplied, err)
		return t.hindered(ctx, err)
	}
	if outcome.Waiting != "" {
		t.wake(waveRecheck)
	}
	health, err := t.Deliverer.Health(ctx, t.name, r.ServiceAccount)
	if err != nil {
		t.trouble(v1alpha1.ConditionAvailable, err)
		return t.hindered(ctx, &fleet.Error{Kind: fleet.Retryable, Err: err})
	}
	t.report.Health = health
	return t.observe(ctx, health)
}

// hindered: an attempt that cannot go on runs into its progress deadline like one that does not get
// healthy, or it would hold its slot for ever; one that is refused for good has failed. What merely heals
// is tried again.
func (t *turn) hindered(ctx context.Context, why error) error {
	retryable := fleet.KindOf(why) == fleet.Retryable
	if retryable {
		t.wake(t.retryInterval())
	}
	if t.promise.Progress.Phase != sequencer.Working {
		return nil
	}
	health := delivery.Health{State: delivery.Failed, Because: why.Error()}
	if retryable {
		health.State = delivery.Progressing
	}
	return t.observe(ctx, health)
}

// observe one look at the cluster and say what it earns (R4).
func (t *turn) observe(ctx context.Context, health delivery.Health) error {
	installed := t.promise.Installed
	progress := t.promise.Progress
	if installed == nil || progress.Plan != installed.Release.Plan() {
		return nil // healing the last good release of an attempt that failed: nothing is earned by it
	}
	seen := sequencer.Observation{Healthy: health.State == delivery.Healthy, Hopeless: health.State == delivery.Failed}
	next, earned, wait := progress.Observe(seen, installed.Pace, t.now)
	t.wake(wait)
	if len(earned) == 0 && same(next, progress) {
		return nil
	}
	promise := t.promise.clone()
	promise.Progress = next
	kinds := make([]fleet.FactKind, 0, len(earned))
	for _, kind := range earned {
		switch kind {
		case fleet.Succeeded:
			promise.LastGood = installed
		case fleet.Failed:
			promise.Installed, promise.Failure = promise.LastGood, failureOf(health, installed.Pace)
		case fleet.GaveUp:
			t.wake(time.Millisecond) // said by giveUp, when the last good release is back
			continue
		}
		kinds = append(kinds, kind)
	}
	if len(kinds) > 0 {
		t.Log.Info("earned", "rollout", t.name.String(), "plan", progress.Plan.Short(), "milestones", fmt.Sprint(kinds), "because", health.Because)
	}
	if promise.Installed != installed {
		t.wake(time.Millisecond) // go back to the last good release without waiting
	}
	return t.say(ctx, promise, progress.Plan, health.Because, kinds...)
}

// failureOf an attempt: it was hopeless, or its time was over.
func failureOf(health delivery.Health, pace sequencer.Pace) *Failure {
	if health.State == delivery.Failed {
		return &Failure{Reason: v1alpha1.ReasonFailed, Because: fleet.Cut(health.Because)}
	}
	because := fmt.Sprintf("not healthy within %s", pace.ProgressDeadline)
	if health.Because != "" {
		because += ": " + health.Because
	}
	return &Failure{Reason: v1alpha1.ReasonProgressDeadlineExceeded, Because: fleet.Cut(because)}
}

// say milestones of a plan: the records are signed, the promise that holds them is written to the
// cluster's API, and only then is the fleet told (R1, R5).
func (t *turn) say(ctx context.Context, next Promise, plan fleet.Digest, detail string, kinds ...fleet.FactKind) error {
	next.spoke(t.Ledger, t.Self.ID, plan, len(kinds))
	var records []fleet.Record
	for _, kind := range kinds {
		if _, said := t.Ledger.Fact(plan, t.Self.ID, kind); said {
			continue
		}
		fact := fleet.Fact{Plan: plan, Kind: kind, Detail: detail, Time: t.now.Wall.Unix()}
		record, err := t.Ledger.Prepare(fleet.KindFact, fleet.FactKey(plan, kind), fact.Encode())
		if err != nil {
			return fmt.Errorf("sign %s: %w", kind, err)
		}
		records = append(records, record)
		next.Said = append(next.Said, record.Encode())
	}
	if err := t.save(ctx, next); err != nil {
		return err
	}
	for _, record := range records {
		if err := t.Ledger.Commit(ctx, record); err != nil {
			return fmt.Errorf("tell the fleet: %w", err)
		}
	}
	if len(records) > 0 && t.plan != nil && plan == t.plan.Digest {
		t.report.Decision = sequencer.Decide(t.plan, t.Ledger, t.Self.ID, t.now)
	}
	return nil
}

func (t *turn) retryInterval() time.Duration {
	if i := t.promise.Installed; i != nil && i.Pace.RetryInterval > 0 {
		return i.Pace.RetryInterval
	}
	return t.report.Rollout.Settings.RetryInterval
}

func same(a, b sequencer.Progress) bool {
	equal := func(x, y *time.Duration) bool { return x == y || x != nil && y != nil && *x == *y }
	return equal(a.HealthySince, b.HealthySince) && equal(a.SickSince, b.SickSince) &&
		a.Phase == b.Phase && a.Boot == b.Boot && a.Begun == b.Begun && a.RetryAt == b.RetryAt && a.Degraded == b.Degraded
}

// withReason gives an error a reason where it has none.
func withReason(err error, reason string) error {
	if fleet.ReasonOf(err, "") != "" {
		return err
	}
	return &fleet.Error{Kind: fleet.KindOf(err), Reason: reason, Err: err}
}
