// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-logr/logr"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/delivery"
	"github.com/flotilla-dev/flotilla/sequencer"
	"github.com/flotilla-dev/flotilla/source"
	"github.com/flotilla-dev/flotilla/specialize"
)

// Agent takes rollouts through the pipeline, for one cluster. The demo, the simulator and the
// controller differ only in what they put into the fields.
type Agent struct {
	Self fleet.Member
	// Rollouts says what is asked.
	Rollouts Rollouts
	// Heads is the payload's newest revision, as far as it was looked at.
	Heads    Heads
	Renderer Renderer
	// Inputs and Charts are what renders take beside the source's files.
	Inputs    Inputs
	Charts    Charts
	Deliverer delivery.Deliverer
	Promises  Promises
	Ledger    Ledger
	// Duplicate says that another live agent uses this member's key. Nil: nobody looks.
	Duplicate func() bool
	// Said is the highest position of this member's own milestones that are held, whoever brought them, and Restorations
	// remembers that the API did not know of one (R13). Nil: nobody looks.
	Said         func() Position
	Restorations Restorations
	// Incarnation of this member by the roster of now; nil is Self's.
	Incarnation func() uint64
	// Plans remembers what was compiled; nil remembers nothing.
	Plans *Plans
	// Clock gives both clocks.
	Clock func() fleet.Moment
	Log   logr.Logger

	recent recentPlans
	vows   vows
}

// Rollout is one rollout as it is asked for: the seal, and what is not sealed.
type Rollout struct {
	sequencer.Sealed
	Settings Settings
	Origin   v1alpha1.Origin
	// Withdrawn: ended by its author; nothing of it is touched any more.
	Withdrawn bool
}

// Settings of a rollout that make no release when they change (R1).
type Settings struct {
	Suspend          bool          `json:"suspend,omitempty"`
	SourceInterval   time.Duration `json:"sourceInterval"`
	SourceTimeout    time.Duration `json:"sourceTimeout"`
	DeliveryInterval time.Duration `json:"deliveryInterval"`
	RetryInterval    time.Duration `json:"retryInterval"`
}

// SettingsOf a spec, with the CRD's defaults: files of the fleet repository meet no API server.
func SettingsOf(spec v1alpha1.FleetRolloutSpec) Settings {
	whole := spec.WithSchemaDefaults()
	return Settings{
		Suspend:          spec.Suspend,
		SourceInterval:   whole.Source.Interval.Or(0),
		SourceTimeout:    whole.Source.Timeout.Or(0),
		DeliveryInterval: whole.Delivery.Interval.Or(0),
		RetryInterval:    whole.Delivery.RetryInterval.Or(0),
	}
}

// Rollouts says what is asked of this fleet: the newest seal of each rollout.
type Rollouts interface {
	// Rollout by name. An error says why there is a rollout that cannot be acted on; false that there is none.
	Rollout(context.Context, fleet.RolloutName) (Rollout, bool, error)
	// Gone says that the fleet repository positively has no such rollout (any more).
	Gone(fleet.RolloutName) bool
}

// Heads looks at sources, each as often as it is due, however many rollouts it has.
type Heads interface {
	// Latest snapshot known, looking again if that is due. next is when it will be. With an error
	// the snapshot, if any, is the last good one.
	Latest(ctx context.Context, src source.Origin, s Settings) (snap source.Snapshot, next time.Duration, err error)
	// At one revision.
	At(ctx context.Context, src source.Origin, rev fleet.Revision) (source.Snapshot, error)
	// Relation of two revisions.
	Relation(ctx context.Context, src source.Origin, from, to fleet.Revision) (source.Relation, error)
}

// Report of one turn: what the status, the endpoint and the demo show of it.
type Report struct {
	Rollout Rollout
	// Unmatched says which of the spec's overrides are for nobody.
	Unmatched []string
	Plan      *sequencer.Plan
	Decision  sequencer.Decision
	Promise   Promise
	// Subject and Author of the accepted revision's commit.
	Subject, Author string
	// Outcome and Health of the delivery, where there was one.
	Outcome delivery.Outcome
	Health  delivery.Health
	// Took says how long the steps took.
	Took Took
	// Trouble by condition type: what went wrong without ending the turn.
	Trouble map[string]error
	// Next is when to take the next turn if no news comes; 0 is the rollout's own interval.
	Next time.Duration
}

// IsEmpty says that nobody asks for the rollout and this member has promised nothing in it: there is nothing to tell.
func (r *Report) IsEmpty() bool {
	p := &r.Promise
	return r.Rollout.Author == "" && len(r.Trouble) == 0 && p.Accepted.IsZero() && p.Authored == nil && p.Stop == nil &&
		p.Installed == nil && len(p.Plans)+len(p.Said) == 0
}

// Took is the time of the steps of one turn that start something.
type Took struct{ Fetch, Decide, Render, Apply time.Duration }

// errTurnOver ends a turn early and is no failure: there is nothing to act on.
var errTurnOver = errors.New("turn over")

// Turn takes one rollout through the pipeline, once. Read it top to bottom: each step either adds to
// the report and goes on, or ends the turn. It starts no goroutine and reads no clock but Clock.
func (a *Agent) Turn(ctx context.Context, name fleet.RolloutName) (Report, error) {
	t := &turn{Agent: a, name: name, now: a.Clock(), report: Report{Trouble: map[string]error{}}}
	for _, step := range []func(context.Context) error{
		t.recall,  // what this member has promised, from its own API
		t.seal,    // what is asked, and of whom
		t.vouch,   // does the API know all that this member has said?
		t.fetch,   // the newest revision of the payload
		t.accept,  // the highest release, written down before it is acted on
		t.compile, // its stages and ranks
		t.decide,  // may this member go now?
		t.close,   // is it everywhere already?
		t.act,     // render, deliver and watch it; or heal what runs here
		t.tell,    // one line for the others
	} {
		if err := step(ctx); err != nil {
			t.report.Promise = t.promise
			if errors.Is(err, errTurnOver) {
				return t.report, nil
			}
			return t.report, fmt.Errorf("rollout %s: %w", name, err)
		}
	}
	t.report.Promise = t.promise
	return t.report, nil
}

// turn is the state of one Turn.
type turn struct {
	*Agent
	name    fleet.RolloutName
	now     fleet.Moment
	promise Promise
	// latest is the newest snapshot; its Files are nil where the source could not be read.
	latest source.Snapshot
	plan   *sequencer.Plan
	report Report
	// asked is the digest of the seal that is asked for: hashed once a turn.
	asked fleet.Digest
	// duplicate: two agents use this member's key. Neither starts anything, or says that it succeeded without.
	duplicate bool
	// restored is the incarnation under which nothing new is said; zero where the API is as it was.
	restored uint64
}

// origin of what is asked now.
func (t *turn) origin() source.Origin {
	spec := t.report.Rollout.Spec
	return OriginOf(t.name, spec.Source, spec.Delivery)
}

// recall reads what was promised, and says again what the fleet's state has lost of it (R5).
func (t *turn) recall(ctx context.Context) error {
	promise, err := t.Promises.Load(ctx, t.name)
	if err != nil {
		return fmt.Errorf("read own promise: %w", err)
	}
	t.promise = promise
	t.promise.Rollout = t.name
	if err := t.compare(ctx); err != nil {
		t.heal(ctx) // one promise that cannot be read silences the member, and no more (R11)
		return err
	}
	for _, b := range promise.Said {
		record, err := fleet.DecodeRecord(b)
		if err != nil {
			return fmt.Errorf("own promise: %w", err)
		}
		fact, err := fleet.DecodeFact(&record)
		if err != nil {
			return fmt.Errorf("own promise: %w", err)
		}
		if _, held := t.Ledger.Fact(fact.Plan, t.Self.ID, fact.Kind); held {
			continue
		}
		if err := t.Ledger.Commit(ctx, record); err != nil {
			return fmt.Errorf("say again %s of plan %s: %w", fact.Kind, fact.Plan.Short(), err)
		}
	}
	return nil
}

// seal finds what is asked. A rollout that is in no view is healed and else left alone (R12); one that
// its home has ended is not touched any more.
func (t *turn) seal(ctx context.Context) error {
	rollout, ok, err := t.Rollouts.Rollout(ctx, t.name)
	if err != nil {
		t.trouble(v1alpha1.ConditionSealed, err)
	}
	ended := rollout.Withdrawn || !ok && t.promise.Author == fleet.AuthorGit && t.Rollouts.Gone(t.name)
	if ended {
		if err := t.end(ctx); err != nil {
			return err
		}
	}
	switch {
	case ok:
		t.report.Rollout, t.report.Unmatched = rollout, specialize.Unmatched(rollout.Spec.Specialize, rollout.Targets)
		t.asked = rollout.Digest()
		if ended {
			return errTurnOver
		}
		t.promise.Ended = 0
		return nil
	case !ended:
		t.heal(ctx)
	}
	return errTurnOver
}

// fetch looks for a newer revision. A source that cannot be read stops nothing that runs.
func (t *turn) fetch(ctx context.Context) error {
	began := t.Clock().Elapsed
	snap, next, err := t.Heads.Latest(ctx, t.origin(), t.report.Rollout.Settings)
	t.report.Took.Fetch = t.Clock().Elapsed - began
	if err != nil {
		t.trouble(v1alpha1.ConditionSourceReady, err)
	}
	t.latest = snap
	t.wake(next)
	return nil
}

// accept takes the highest release and writes it down first: from then on nothing below it is
// started here, whatever becomes of this process (R6).
func (t *turn) accept(ctx context.Context) error {
	rollout := t.report.Rollout
	from := t.origin().Head()
	order, revision, err := t.revision(ctx, from)
	if err != nil {
		return err
	}
	if revision == "" {
		return t.nothingYet(ctx)
	}
	candidate := sequencer.Release{Seal: t.asked, Term: rollout.Term, Number: rollout.Number, Revision: revision}
	accepted := t.promise.Accepted
	if t.promise.Author != "" && t.promise.Author != rollout.Author {
		if t.promise.Author == fleet.AuthorGit && !t.Rollouts.Gone(t.name) {
			return nil // the repository that declared it was not read (yet): nobody else's word replaces it
		}
		accepted = sequencer.Release{} // it moved to another home: numbers of two authors do not compare
	}
	switch sequencer.Accept(accepted, candidate, order) {
	case sequencer.Ignore:
		t.trouble(v1alpha1.ConditionSealed, &fleet.Error{
			Kind: fleet.Refused, Reason: v1alpha1.ReasonForeignAuthor,
			Err: fmt.Errorf("a second seal %s of number %d, this member holds %s", candidate.Seal.Short(), candidate.Number, t.promise.Accepted.Seal.Short()),
		})
		return nil
	case sequencer.Keep:
		return nil
	}
	next := t.promise.clone()
	next.Accepted, next.AcceptedFrom, next.Author = candidate, from, rollout.Author
	next.keepSaid(candidate.Plan(), next.Progress.Plan)
	if err := t.vouchFor(ctx, &next); err != nil {
		return err
	}
	if err := t.say(ctx, next, candidate.Plan(), string(revision), fleet.Accepted); err != nil {
		return err
	}
	t.Log.Info("accepted a release", "rollout", t.name.String(), "revision", string(revision), "seal", candidate.Seal.Short(), "plan", candidate.Plan().Short())
	return nil
}

// revision to accept with the seal, and its order to the accepted one.
func (t *turn) revision(ctx context.Context, from string) (sequencer.RevisionOrder, fleet.Revision, error) {
	latest, accepted := t.latest.Revision, t.promise.Accepted.Revision
	switch {
	case accepted == "" || t.promise.AcceptedFrom != from:
		return sequencer.Newer, latest, nil // revisions of two sources do not compare: the newer seal says which one
	case latest == "" || latest == accepted:
		return sequencer.Equal, accepted, nil
	}
	relation, err := t.Heads.Relation(ctx, t.origin(), accepted, latest)
	if err != nil {
		t.trouble(v1alpha1.ConditionSourceReady, err)
		return sequencer.Equal, accepted, nil
	}
	switch relation {
	case source.Descends:
		return sequencer.Newer, latest, nil
	case source.Unrelated:
		t.trouble(v1alpha1.ConditionSourceReady, notFollowed(t.origin(), accepted, latest))
	}
	return sequencer.Equal, accepted, nil
}

// notFollowed says why a revision that is not newer than the accepted one is left alone (R1): a version that was
// delivered once stays what it was, and a branch goes forward only.
func notFollowed(o source.Origin, accepted, latest fleet.Revision) error {
	was, _, _ := strings.Cut(string(accepted), "@")
	is, _, _ := strings.Cut(string(latest), "@")
	versioned := o.Helm != nil || o.Git != nil && o.Git.Ref != nil && (o.Git.Ref.Tag != "" || o.Git.Ref.SemVer != "")
	if versioned && was == is {
		hint := "release a new version"
		if o.Git != nil {
			hint += ", or name the commit to go to in spec.source.git.ref.commit"
		}
		return &fleet.Error{
			Kind: fleet.Refused, Reason: v1alpha1.ReasonVersionMoved, Hint: hint,
			Err: fmt.Errorf("%s was moved: it was %s when it was accepted here, and is %s now; a version once delivered stays what it was, and the running release stays", is, accepted.Short(), latest.Short()),
		}
	}
	return &fleet.Error{
		Kind: fleet.Refused, Reason: v1alpha1.ReasonNotDescending,
		Err:  fmt.Errorf("the source moved from %s to %s, which does not descend from it (force-push?); the running release stays", accepted.Short(), latest.Short()),
		Hint: "push a commit that descends from " + accepted.Short() + ", or name the commit to go to in spec.source.git.ref.commit",
	}
}

// nothingYet: no revision was ever seen. What runs here, from an earlier seal, is healed.
func (t *turn) nothingYet(ctx context.Context) error {
	t.heal(ctx)
	if err := t.tell(ctx); err != nil {
		return err
	}
	return errTurnOver
}

// compile the accepted release. The seal in view may be another than the accepted one for a moment
// (it lies below it); then there is nothing to decide, and what runs is healed.
func (t *turn) compile(ctx context.Context) error {
	rollout := t.report.Rollout
	if t.asked != t.promise.Accepted.Seal {
		t.heal(ctx)
		return errTurnOver
	}
	plan, err := t.Plans.Compile(rollout.Sealed, t.promise.Accepted)
	if err != nil {
		t.trouble(v1alpha1.ConditionSealed, err)
		t.heal(ctx)
		return errTurnOver
	}
	t.plan, t.report.Plan = plan, plan
	t.report.Subject, t.report.Author = t.latest.Subject, t.latest.Author
	return nil
}

// decide asks the sequencer, and adds the one stop that is in no record: suspend, where the rollout is written.
func (t *turn) decide(context.Context) error {
	began := t.Clock().Elapsed
	d := sequencer.Decide(t.plan, t.Ledger, t.Self.ID, t.now)
	t.report.Took.Decide = t.Clock().Elapsed - began
	if d.Reason == sequencer.MayStart && t.report.Rollout.Settings.Suspend {
		d.Verdict, d.Reason = sequencer.Hold, sequencer.Stopped
		d.Stops = []fleet.Command{{Verb: fleet.Pause, Reason: "spec.suspend is true"}}
	}
	if t.Duplicate != nil && t.Duplicate() {
		t.duplicate = true
		if d.Verdict == sequencer.Go && t.begins(d) {
			d.Verdict, d.Reason = sequencer.Hold, sequencer.TwoAgents
		}
		t.wake(duplicateRecheck)
	}
	t.holdBack(&d)
	t.report.Decision = d
	t.wake(d.Recheck)
	return nil
}

// duplicateRecheck is when a member whose key two agents use looks again whether they still do.
const duplicateRecheck = 5 * time.Second

// begins says whether acting on the decision would begin an attempt, rather than go on with one.
func (t *turn) begins(d sequencer.Decision) bool {
	return d.Reason == sequencer.MayStart || t.promise.Progress.Plan != t.plan.Digest || t.promise.Progress.Phase == sequencer.Retrying
}

func (t *turn) trouble(condition string, err error) {
	if _, there := t.report.Trouble[condition]; !there {
		t.report.Trouble[condition] = err
	}
}

// wake asks for a turn no later than in d; 0 asks for none.
func (t *turn) wake(d time.Duration) {
	if d > 0 && (t.report.Next == 0 || d < t.report.Next) {
		t.report.Next = d
	}
}

func (t *turn) save(ctx context.Context, next Promise) error {
	if err := t.Promises.Save(ctx, next); err != nil {
		return fmt.Errorf("write own promise: %w", err)
	}
	t.promise = next
	t.vows.kept(t.name, next.LastSaid())
	return nil
}

// OriginOf a rollout's source: its secrets are read as the account that delivers.
func OriginOf(name fleet.RolloutName, src v1alpha1.Source, d v1alpha1.Delivery) source.Origin {
	o := source.Origin{Source: src}
	if src.SecretRef != nil || src.ProxySecretRef != nil {
		o.Reader = readerOf(name, d)
	}
	return o
}

func readerOf(name fleet.RolloutName, d v1alpha1.Delivery) source.Reader {
	return source.Reader{Namespace: name.Namespace, ServiceAccount: AccountOf(d)}
}

// AccountOf a delivery, as which everything of the rollout is read and written.
func AccountOf(d v1alpha1.Delivery) string {
	return d.Account()
}

// withDefaults is the delivery with what counts where nothing is written.
func withDefaults(d v1alpha1.Delivery) v1alpha1.Delivery {
	return *d.WithDefaults()
}
