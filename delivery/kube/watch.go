// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/delivery"
)

// maxWatches of one Watcher. What is beyond is found by the interval of its rollout.
const maxWatches = 512

// Pauses after a watch that failed: doubled each time, up to the limit, with half as much again by chance.
const (
	firstPause = time.Second
	maxPause   = 5 * time.Minute
)

// Watcher sees changes of what was delivered, by whomever: edits, deletions, and status, which is how an object gets
// well. It is a hint and no more. What it misses, because a watch is forbidden or the server closes it, is found when
// the rollout's interval ends.
type Watcher struct {
	Cluster *Cluster
	// OnChange is told that an object of a rollout is no longer what it was. It is called from several goroutines and
	// must return at once; to make one of many calls is up to it.
	OnChange func(fleet.RolloutName)
	Log      logr.Logger

	mu      sync.Mutex
	wanted  map[fleet.RolloutName]watched
	changed chan struct{}
	// steady are the streams that have listed and are watching: whatever changes now is told of.
	steady map[stream]bool
}

// Steady says that all objects that are to be watched for a rollout are: nothing of them changes from now on without
// OnChange being told, until a later call says otherwise.
func (w *Watcher) Steady(rollout fleet.RolloutName) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	what, ok := w.wanted[rollout]
	for p := range what.places {
		ok = ok && w.steady[stream{rollout, what.account, p}]
	}
	return ok
}

func (w *Watcher) setSteady(s stream, is bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.steady == nil {
		w.steady = map[stream]bool{}
	}
	if is {
		w.steady[s] = true
	} else {
		delete(w.steady, s)
	}
}

// watched is what to watch for one rollout.
type watched struct {
	account string
	// names by place; a watch sees all of a place, and tells of these.
	places map[place]map[string]bool
}

// place is what one watch covers: the objects of one kind in one namespace.
type place struct {
	kind      schema.GroupVersionKind
	namespace string
}

// stream is one watch.
type stream struct {
	rollout fleet.RolloutName
	account string
	place   place
}

// Watch sets what is watched for a rollout, in place of what was before. Without ids nothing is any more.
// It may be called before Run, while it runs, and after.
func (w *Watcher) Watch(rollout fleet.RolloutName, serviceAccount string, ids []delivery.ObjectID) {
	next := watched{account: serviceAccount, places: map[place]map[string]bool{}}
	for _, id := range ids {
		p := place{schema.GroupVersionKind{Group: id.Group, Version: id.Version, Kind: id.Kind}, id.Namespace}
		if next.places[p] == nil {
			next.places[p] = map[string]bool{}
		}
		next.places[p][id.Name] = true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.wanted == nil {
		w.wanted = map[fleet.RolloutName]watched{}
	}
	if len(ids) == 0 {
		delete(w.wanted, rollout)
	} else {
		w.wanted[rollout] = next
	}
	select {
	case w.signal() <- struct{}{}:
	default:
	}
}

// signal must be called with the lock held.
func (w *Watcher) signal() chan struct{} {
	if w.changed == nil {
		w.changed = make(chan struct{}, 1)
	}
	return w.changed
}

// Run watches until the context ends, and returns when nothing of it runs any more.
func (w *Watcher) Run(ctx context.Context) error {
	w.mu.Lock()
	changed := w.signal()
	w.mu.Unlock()
	running := map[stream]context.CancelFunc{}
	var done sync.WaitGroup
	defer done.Wait()
	for {
		w.adjust(ctx, running, &done)
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// adjust stops the streams that are no longer wanted and starts those that are missing.
func (w *Watcher) adjust(ctx context.Context, running map[stream]context.CancelFunc, done *sync.WaitGroup) {
	wanted := w.streams()
	for s, stop := range running {
		if !wanted[s] {
			stop()
			delete(running, s)
		}
	}
	for s := range wanted {
		if running[s] != nil {
			continue
		}
		if len(running) >= maxWatches {
			w.Log.V(1).Info("too many watches: the rest is found by interval", "rollout", s.rollout.String(), "kind", s.place.kind.Kind)
			return
		}
		sub, stop := context.WithCancel(ctx)
		running[s] = stop
		done.Go(func() { w.follow(sub, s) })
	}
}

func (w *Watcher) streams() map[stream]bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := map[stream]bool{}
	for rollout, what := range w.wanted {
		for p := range what.places {
			all[stream{rollout, what.account, p}] = true
		}
	}
	return all
}

// names that are asked for in a stream.
func (w *Watcher) names(s stream) map[string]bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.wanted[s.rollout].places[s.place]
}

// follow keeps one stream going until the context ends.
func (w *Watcher) follow(ctx context.Context, s stream) {
	var seen versions
	pause := newPause()
	for ctx.Err() == nil {
		began := time.Now()
		err := w.once(ctx, s, &seen)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > maxPause {
			pause = newPause() // it worked for long
		}
		if err == nil {
			err = errors.New("closed by the server")
		}
		w.Log.V(1).Info("watch ended", "rollout", s.rollout.String(), "kind", s.place.kind.Kind, "namespace", s.place.namespace, "because", err.Error())
		select {
		case <-ctx.Done():
		case <-time.After(pause.Step()):
		}
	}
}

func newPause() *wait.Backoff {
	return &wait.Backoff{Duration: firstPause, Factor: 2, Jitter: 0.5, Steps: 1000, Cap: maxPause}
}

// versions of the objects as they were seen last; nil before the first look.
type versions map[string]string

// once lists and then watches until the server ends it.
func (w *Watcher) once(ctx context.Context, s stream, seen *versions) error {
	objects, err := w.objects(s)
	if err != nil {
		return err
	}
	options := metav1.ListOptions{LabelSelector: labels.Set(ownerLabels(s.rollout)).String()}
	list, err := objects.List(ctx, options)
	if err != nil {
		return err
	}
	now := versions{}
	for _, o := range list.Items {
		now[o.Name] = o.ResourceVersion
	}
	w.compare(s, *seen, now)
	*seen = now
	options.ResourceVersion = list.ResourceVersion
	options.AllowWatchBookmarks = true
	events, err := objects.Watch(ctx, options)
	if err != nil {
		return err
	}
	defer events.Stop()
	w.setSteady(s, true)
	defer w.setSteady(s, false)
	return w.read(ctx, s, now, events.ResultChan())
}

func (w *Watcher) objects(s stream) (metadata.ResourceInterface, error) {
	conn, err := w.Cluster.connect()
	if err != nil {
		return nil, err
	}
	as, err := accountOf(s.rollout, s.account)
	if err != nil {
		return nil, err
	}
	mapping, err := conn.kinds.RESTMapping(s.place.kind.GroupKind(), s.place.kind.Version)
	if err != nil {
		return nil, err
	}
	clients, err := conn.as(as)
	if err != nil {
		return nil, err
	}
	if s.place.namespace == "" {
		return clients.watching.Resource(mapping.Resource), nil
	}
	return clients.watching.Resource(mapping.Resource).Namespace(s.place.namespace), nil
}

// compare tells of what changed between two lists. At the first list only what is missing can be told.
func (w *Watcher) compare(s stream, before, now versions) {
	for name := range w.names(s) {
		if now[name] == "" || before != nil && before[name] != now[name] {
			w.OnChange(s.rollout)
			return
		}
	}
}

// read tells of each event that changes an object of the rollout.
func (w *Watcher) read(ctx context.Context, s stream, seen versions, events <-chan watch.Event) error {
	for {
		var event watch.Event
		var open bool
		select {
		case <-ctx.Done():
			return ctx.Err()
		case event, open = <-events:
		}
		if !open {
			return nil
		}
		switch event.Type {
		case watch.Bookmark:
			continue
		case watch.Error:
			return fmt.Errorf("watch: %w", apierrors.FromObject(event.Object))
		}
		o, ok := event.Object.(*metav1.PartialObjectMetadata)
		if !ok {
			return fmt.Errorf("watch: got a %T", event.Object)
		}
		if event.Type == watch.Deleted {
			delete(seen, o.Name)
		} else if seen[o.Name] == o.ResourceVersion {
			continue
		} else {
			seen[o.Name] = o.ResourceVersion
		}
		if w.names(s)[o.Name] {
			w.OnChange(s.rollout)
		}
	}
}
