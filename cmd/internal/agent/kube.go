// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/cmd/internal/agent/turn"
	"github.com/flotilla-dev/flotilla/cmd/internal/readapi"
	"github.com/flotilla-dev/flotilla/sequencer"
)

// homeFinalizer keeps a rollout at its home until its end was told to the fleet.
const homeFinalizer = "fleet.flotilla.dev/home"

const (
	// concurrentTurns of different rollouts, so that a source that does not answer holds up only its own.
	concurrentTurns = 8
	// firstRetry and lastRetry bound the pause after a turn that failed: an API server that comes back is noticed.
	firstRetry, lastRetry = 200 * time.Millisecond, 30 * time.Second
)

// Controller is the agent's face in its cluster: it reads FleetRollouts, takes turns, and writes what
// came of them. All of controller-runtime is in this file and in run.go.
type Controller struct {
	Agent  *turn.Agent
	Client client.Client
	Home   *Home
	Homes  *Homes
	Ledger *MeshLedger
	Heard  func() Heard
	NameOf func(fleet.MemberID) fleet.Name
	// Watch tells which objects of a rollout to look at for drift.
	Watch func(ctx context.Context, name fleet.RolloutName, serviceAccount string) error
	// Look at a source now: somebody asked for it.
	Look func(fleet.RolloutName, v1alpha1.FleetRolloutSpec)
	// Changed is called after each turn that people might see something of.
	Changed func()
	// Settled is closed when this member has heard the others out, or nobody is there: before that no turn is taken. Nil does not
	// wait.
	Settled <-chan struct{}
	// Hearsay of a rollout from other zones; nil: none.
	Hearsay func(fleet.RolloutName) []fleet.Rollup
	// Metrics and Events of the turns; nil: none.
	Metrics *Metrics
	Events  *Events

	mu      sync.Mutex
	reports map[fleet.RolloutName]turn.Report
	wakes   chan event.GenericEvent
	pending map[fleet.RolloutName]bool
	ringing chan struct{}
	asked   map[fleet.RolloutName]string // the last request to look now that was heard, and the generation
	watched map[fleet.RolloutName]watching
}

// isWatched says whether the objects of a manifest are what is watched for a rollout, as the account.
func (c *Controller) isWatched(name fleet.RolloutName, manifest fleet.Digest, account string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.watched[name] == watching{manifest, account}
}

// watching is whose objects are watched, and as whom.
type watching struct {
	manifest fleet.Digest
	account  string
}

// NewController has its channels.
func NewController() *Controller {
	return &Controller{
		reports: map[fleet.RolloutName]turn.Report{}, pending: map[fleet.RolloutName]bool{}, asked: map[fleet.RolloutName]string{}, watched: map[fleet.RolloutName]watching{},
		wakes: make(chan event.GenericEvent), ringing: make(chan struct{}, 1),
	}
}

// SetupWithManager registers the controller.
func (c *Controller) SetupWithManager(mgr ctrl.Manager) error {
	spoken := predicate.Or(predicate.GenerationChangedPredicate{}, predicate.AnnotationChangedPredicate{}, predicate.LabelChangedPredicate{})
	return ctrl.NewControllerManagedBy(mgr).
		Named("fleetrollout").
		For(&v1alpha1.FleetRollout{}, builder.WithPredicates(spoken)).
		WatchesRawSource(source.Channel(c.wakes, &handler.EnqueueRequestForObject{})).
		WithOptions(controller.Options{
			SkipNameValidation:      new(true), // several agents may live in one process
			MaxConcurrentReconciles: concurrentTurns,
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[ctrl.Request](firstRetry, lastRetry),
		}).
		Complete(c)
}

// Wake rollouts for a turn. It never blocks: the mesh calls it.
func (c *Controller) Wake(names ...fleet.RolloutName) {
	c.mu.Lock()
	for _, name := range names {
		c.pending[name] = true
	}
	c.mu.Unlock()
	select {
	case c.ringing <- struct{}{}:
	default:
	}
}

// Run hands wakes to the controller's queue until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.ringing:
		}
		c.mu.Lock()
		due := c.pending
		c.pending = map[fleet.RolloutName]bool{}
		c.mu.Unlock()
		for name := range due {
			object := &v1alpha1.FleetRollout{}
			object.Namespace, object.Name = name.Namespace, name.Name
			select {
			case <-ctx.Done():
				return nil
			case c.wakes <- event.GenericEvent{Object: object}:
			}
		}
	}
}

// Reconcile takes one turn of one rollout, whether or not this member has an object of that name.
func (c *Controller) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	if c.Settled != nil {
		select {
		case <-ctx.Done():
			return ctrl.Result{}, ctx.Err()
		case <-c.Settled:
		}
	}
	name := fleet.RolloutName{Namespace: req.Namespace, Name: req.Name}
	object := &v1alpha1.FleetRollout{}
	if err := c.Client.Get(ctx, req.NamespacedName, object); apierrors.IsNotFound(err) {
		object = nil
	} else if err != nil {
		return ctrl.Result{}, err
	}
	spoken := c.hear(ctx, name, object)
	began := c.Agent.Clock().Elapsed
	report, err := c.Agent.Turn(ctx, name)
	if spoken != nil {
		report.Trouble[v1alpha1.ConditionSealed] = spoken
	}
	if c.Metrics != nil {
		c.Metrics.Turned(&report, c.outlook().input(name, &report), c.Agent.Clock().Elapsed-began, err)
	}
	if errors.Is(err, turn.ErrConflict) {
		return ctrl.Result{RequeueAfter: time.Second}, nil // another agent wrote: read again before doing anything
	}
	if err != nil {
		return ctrl.Result{}, err
	}
	if report.Plan != nil {
		c.Ledger.Follow(report.Plan.Digest, name)
	}
	c.keep(name, report)
	if err := c.show(ctx, name, object, &report); err != nil {
		return ctrl.Result{}, err
	}
	c.watch(ctx, name, &report)
	next := report.Rollout.Settings.DeliveryInterval
	if next == 0 || report.Next > 0 && report.Next < next {
		next = report.Next
	}
	return ctrl.Result{RequeueAfter: next}, nil
}

// watch for drift of what is installed. Only a delivery changes what there is to watch, so a turn that
// changed nothing reads no inventory; one that ran into trouble is not relied on.
func (c *Controller) watch(ctx context.Context, name fleet.RolloutName, r *turn.Report) {
	installed := r.Promise.Installed
	if installed == nil {
		return
	}
	now := watching{installed.Manifest, turn.AccountOf(installed.Delivery)}
	c.mu.Lock()
	known := c.watched[name] == now
	c.mu.Unlock()
	if known && !r.Outcome.Changed() {
		return
	}
	if err := c.Watch(ctx, name, now.account); err != nil || r.Trouble[v1alpha1.ConditionApplied] != nil {
		now = watching{}
	}
	c.mu.Lock()
	c.watched[name] = now
	c.mu.Unlock()
}

// hear what people wrote on this member: a rollout that lives here, and stops. What cannot be used of it is
// the returned error; the turn goes on with the last good word.
func (c *Controller) hear(ctx context.Context, name fleet.RolloutName, object *v1alpha1.FleetRollout) error {
	if object == nil {
		return nil
	}
	c.hearRequest(name, object)
	atHome := isHome(object) && !c.Homes.IsDeclared(name)
	reason := object.Annotations[v1alpha1.AnnotationPause]
	if _, asked := object.Annotations[v1alpha1.AnnotationPause]; asked && reason == "" {
		reason = "no reason given"
	}
	if atHome && reason == "" && object.Spec.Suspend {
		reason = "spec.suspend is true"
	}
	if err := c.Home.Stop(ctx, name, reason); err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	if !atHome {
		return nil
	}
	if !object.DeletionTimestamp.IsZero() {
		return c.letGo(ctx, name, object)
	}
	before := object.DeepCopy()
	if controllerutil.AddFinalizer(object, homeFinalizer) {
		// A patch of the finalizer alone: what the user wrote stays as it was written.
		if err := c.Client.Patch(ctx, object, client.MergeFrom(before)); err != nil {
			return err
		}
	}
	c.Homes.Set(name, turn.SettingsOf(object.Spec))
	return c.Home.Seal(ctx, name, object.Spec)
}

// hearRequest to look at the source now: each value of the annotation is one request, and so is another spec, because
// who edits the one has often just pushed to the other.
func (c *Controller) hearRequest(name fleet.RolloutName, object *v1alpha1.FleetRollout) {
	request := fmt.Sprintf("%d %s", object.Generation, object.Annotations[v1alpha1.AnnotationReconcile])
	c.mu.Lock()
	news := c.asked[name] != request
	c.asked[name] = request
	c.mu.Unlock()
	if news {
		c.Look(name, object.Spec)
	}
}

func (c *Controller) letGo(ctx context.Context, name fleet.RolloutName, object *v1alpha1.FleetRollout) error {
	if !controllerutil.ContainsFinalizer(object, homeFinalizer) {
		return nil
	}
	if err := c.Home.Withdraw(ctx, name); err != nil {
		return err
	}
	before := object.DeepCopy()
	controllerutil.RemoveFinalizer(object, homeFinalizer)
	return client.IgnoreNotFound(c.Client.Patch(ctx, object, client.MergeFrom(before)))
}

// show the turn in the cluster: the copy, where the rollout lives elsewhere, and the status.
func (c *Controller) show(ctx context.Context, name fleet.RolloutName, object *v1alpha1.FleetRollout, r *turn.Report) error {
	object, err := c.copyHere(ctx, name, object, r)
	if err != nil {
		return err
	}
	c.Events.Turned(name, object, sight{*r, sequencer.Stops(c.Ledger.Commands(name))})
	if object == nil || !object.DeletionTimestamp.IsZero() {
		return nil
	}
	in := c.outlook().input(name, r)
	after := status(object.Status, object.Generation, r, in)
	if apiequality.Semantic.DeepEqual(object.Status, after) {
		return nil
	}
	patch := client.MergeFrom(object.DeepCopy())
	object.Status = after
	return client.IgnoreNotFound(c.Client.Status().Patch(ctx, object, patch))
}

// copyHere keeps this member's copy of a rollout that lives elsewhere. It is written when the seal
// changes, and only where its namespace is; nil where there is nothing to show.
func (c *Controller) copyHere(ctx context.Context, name fleet.RolloutName, object *v1alpha1.FleetRollout, r *turn.Report) (*v1alpha1.FleetRollout, error) {
	switch {
	case r.Rollout.Author == string(c.Agent.Self.ID):
		return object, nil
	case r.Rollout.Author == "":
		if object != nil && object.Labels[v1alpha1.LabelOrigin] == v1alpha1.OriginRepository && c.Homes.Gone(name) {
			return nil, client.IgnoreNotFound(c.Client.Delete(ctx, object)) // its file was taken out; what it delivered stays
		}
		return object, nil
	}
	if r.Rollout.Withdrawn {
		if object != nil && !isHome(object) {
			return nil, client.IgnoreNotFound(c.Client.Delete(ctx, object))
		}
		return nil, nil
	}
	want := copyOf(name, r.Rollout)
	if object == nil {
		err := c.Client.Create(ctx, want)
		if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) {
			return nil, nil // no such namespace, or one that is going away
		}
		return want, err
	}
	if object.Annotations[v1alpha1.AnnotationSeal] == want.Annotations[v1alpha1.AnnotationSeal] &&
		object.Labels[v1alpha1.LabelOrigin] == want.Labels[v1alpha1.LabelOrigin] {
		return object, nil
	}
	object.Spec = want.Spec
	if object.Labels == nil {
		object.Labels = map[string]string{}
	}
	if object.Annotations == nil {
		object.Annotations = map[string]string{}
	}
	maps.Copy(object.Labels, want.Labels)
	maps.Copy(object.Annotations, want.Annotations)
	controllerutil.RemoveFinalizer(object, homeFinalizer)
	return object, c.Client.Update(ctx, object)
}

func copyOf(name fleet.RolloutName, r turn.Rollout) *v1alpha1.FleetRollout {
	out := &v1alpha1.FleetRollout{Spec: *r.Spec.DeepCopy()}
	out.Namespace, out.Name = name.Namespace, name.Name
	origin, home := v1alpha1.OriginMember, "member "+r.Origin.Name
	if r.Author == fleet.AuthorGit {
		origin, home = v1alpha1.OriginRepository, r.Origin.Name
	}
	out.Labels = map[string]string{v1alpha1.LabelOrigin: origin}
	out.Annotations = map[string]string{v1alpha1.AnnotationHome: home, v1alpha1.AnnotationSeal: r.Digest().String()}
	out.Spec.Suspend = r.Settings.Suspend
	return out
}

func isHome(object *v1alpha1.FleetRollout) bool {
	origin, ok := object.Labels[v1alpha1.LabelOrigin]
	return !ok || origin == v1alpha1.OriginLocal
}

// keep the report for the read endpoint.
func (c *Controller) keep(name fleet.RolloutName, r turn.Report) {
	c.mu.Lock()
	if r.IsEmpty() {
		delete(c.reports, name)
	} else {
		c.reports[name] = r
	}
	c.mu.Unlock()
	c.Changed()
}

// turned are the reports of all rollouts.
func (c *Controller) turned() map[fleet.RolloutName]turn.Report {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.reports)
}

func (c *Controller) report(name fleet.RolloutName) (turn.Report, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.reports[name]
	return r, ok
}

// Rollouts is in readapi.Rollouts.
func (c *Controller) Rollouts() []readapi.Rollout {
	c.mu.Lock()
	names := make([]fleet.RolloutName, 0, len(c.reports))
	for name := range c.reports {
		names = append(names, name)
	}
	c.mu.Unlock()
	out := make([]readapi.Rollout, 0, len(names))
	for _, name := range names {
		if r, ok := c.Rollout(name); ok {
			out = append(out, r)
		}
	}
	return out
}

// Rollout is in readapi.Rollouts.
func (c *Controller) Rollout(name fleet.RolloutName) (readapi.Rollout, bool) {
	r, ok := c.report(name)
	if !ok || r.Rollout.Author == "" {
		return readapi.Rollout{}, false
	}
	return readapi.Build(c.reading(name, &r)), true
}

// Explain is in readapi.Rollouts.
func (c *Controller) Explain(name fleet.RolloutName, member fleet.Name) (readapi.Explanation, error) {
	r, ok := c.report(name)
	if !ok {
		return readapi.Explanation{}, fmt.Errorf("no rollout %s is known here", name)
	}
	return readapi.Explain(c.reading(name, &r), member)
}

func (c *Controller) reading(name fleet.RolloutName, r *turn.Report) readapi.Input {
	in := c.outlook().input(name, r)
	if c.Hearsay != nil {
		in.Reports = c.Hearsay(name)
	}
	in.Conditions = append(conditions(r, in), in.Conditions...)
	for _, kind := range []string{v1alpha1.ConditionStalled, v1alpha1.ConditionPaused, v1alpha1.ConditionDegraded} {
		if extra := onlyIf(kind, r, in); extra != nil {
			in.Conditions = append(in.Conditions, *extra)
		}
	}
	return in
}
