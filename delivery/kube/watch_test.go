// SPDX-License-Identifier: Apache-2.0

package kube_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/delivery"
	"github.com/flotilla-dev/flotilla/delivery/kube"
)

// watching counts what a Watcher tells of the site's rollout.
func (s *site) watching() (*kube.Watcher, *atomic.Int64) {
	s.Helper()
	var told atomic.Int64
	w := &kube.Watcher{Cluster: s.cluster, OnChange: func(rollout fleet.RolloutName) {
		if rollout != s.rollout() {
			s.Errorf("told of %s", rollout)
		}
		told.Add(1)
	}}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	s.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			s.Errorf("Run: %v", err)
		}
	})
	return w, &told
}

func (s *site) objects() []delivery.ObjectID {
	s.Helper()
	have, err := s.cluster.Inventory(context.Background(), s.rollout())
	if err != nil {
		s.Fatal(err)
	}
	return have.Objects
}

func (s *site) edit(id delivery.ObjectID, value string) {
	s.Helper()
	o := s.get(id)
	if err := unstructured.SetNestedField(o.Object, value, "data", "value"); err != nil {
		s.Fatal(err)
	}
	s.put(o)
}

// until repeats an edit until it is told of: only then is the watch known to be there.
func (s *site) until(told *atomic.Int64, do func(n int)) {
	s.Helper()
	before := told.Load()
	n := 0
	s.eventually("told of a change", func() bool {
		n++
		do(n)
		return told.Load() > before
	})
}

func TestWatchTellsOfDrift(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.deliver(s.release("1", settings, strings.Replace(settings, "settings", "others", 1), web))
	w, told := s.watching()
	w.Watch(s.rollout(), "flotilla", s.objects())
	s.until(told, func(n int) { s.edit(s.configMap("settings"), strings.Repeat("x", n)) })

	// Quiet where nothing happens, and of what is not the rollout's.
	s.eventually("the deployment is healthy", func() bool { return s.health().State == delivery.Healthy })
	settled := s.settled(told)
	s.create(s.unlabelled("stranger"))
	s.edit(s.configMap("stranger"), "2")
	if now := s.settled(told); now != settled {
		t.Errorf("told %d times more of a stranger's object", now-settled)
	}

	before := told.Load()
	s.remove(s.configMap("others"))
	s.eventually("told of a deletion", func() bool { return told.Load() > before })
	before = told.Load()
	o := s.get(s.configMap("settings"))
	o.SetLabels(nil)
	s.put(o)
	s.eventually("told of labels that were taken off", func() bool { return told.Load() > before })

	// Status is how a Deployment gets well or ill.
	before = s.settled(told)
	d := s.get(delivery.ObjectID{Group: "apps", Version: "v1", Kind: "Deployment", Namespace: s.namespace, Name: "web"})
	_ = unstructured.SetNestedField(d.Object, int64(3), "spec", "replicas")
	s.put(d)
	s.eventually("told of status too", func() bool { return told.Load() > before+1 })

	w.Watch(s.rollout(), "flotilla", nil)
	settled = s.settled(told)
	s.edit(s.configMap("settings"), "no longer watched")
	if now := s.settled(told); now != settled {
		t.Errorf("told %d times after the end", now-settled)
	}
}

func (s *site) unlabelled(name string) *unstructured.Unstructured {
	o := &unstructured.Unstructured{Object: map[string]any{"data": map[string]any{"value": "1"}}}
	o.SetAPIVersion("v1")
	o.SetKind("ConfigMap")
	o.SetNamespace(s.namespace)
	o.SetName(name)
	return o
}

// settled is the count once it has stood still for a while.
func (s *site) settled(told *atomic.Int64) int64 {
	s.Helper()
	last, since := told.Load(), time.Now()
	s.eventually("quiet", func() bool {
		if now := told.Load(); now != last {
			last, since = now, time.Now()
		}
		return time.Since(since) > 300*time.Millisecond
	})
	return last
}

// TestWatchBegins with a look: what was deleted while nobody watched is told of.
func TestWatchBegins(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.deliver(s.release("1", settings, strings.Replace(settings, "settings", "others", 1)))
	ids := s.objects()
	s.remove(s.configMap("others"))
	w, told := s.watching()
	w.Watch(s.rollout(), "flotilla", ids)
	s.eventually("told of what is missing", func() bool { return told.Load() > 0 })
}

// TestWatchForbidden: an account that may not watch is left to the interval, and the rest is watched.
func TestWatchForbidden(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.deliver(s.release("1", settings))
	w, told := s.watching()
	w.Watch(s.rollout(), "default", s.objects())
	if n := s.settled(told); n != 0 {
		t.Errorf("told %d times", n)
	}
	if w.Steady(s.rollout()) {
		t.Error("what cannot be watched counts as watched")
	}
	w.Watch(s.rollout(), "flotilla", s.objects())
	s.until(told, func(n int) { s.edit(s.configMap("settings"), strings.Repeat("x", n)) })
}

// TestWatchSteady: from when it says so, no change goes by untold.
func TestWatchSteady(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.deliver(s.release("1", settings, strings.Replace(settings, "settings", "others", 1), web))
	w, told := s.watching()
	if w.Steady(s.rollout()) {
		t.Error("nothing is watched yet")
	}
	w.Watch(s.rollout(), "flotilla", s.objects())
	s.eventually("watched", func() bool { return w.Steady(s.rollout()) })
	s.settled(told)
	before := told.Load()
	s.edit(s.configMap("others"), "edited")
	s.eventually("told", func() bool { return told.Load() > before })
	w.Watch(s.rollout(), "flotilla", nil)
	if w.Steady(s.rollout()) {
		t.Error("nothing is watched any more")
	}
}

// TestWatchEnds with its context, and leaves nothing running.
func TestWatchEnds(t *testing.T) {
	s := newSite(t)
	s.deliver(s.release("1", settings))
	before := goleak.IgnoreCurrent()
	w := &kube.Watcher{Cluster: s.cluster, OnChange: func(fleet.RolloutName) {}}
	w.Watch(s.rollout(), "flotilla", s.objects())
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	s.edit(s.configMap("settings"), "2")
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	goleak.VerifyNone(t, before,
		// Connections are the transport's, which keeps them for the next request.
		goleak.IgnoreAnyFunction("net/http.(*http2ClientConn).readLoop"),
		goleak.IgnoreAnyFunction("golang.org/x/net/http2.(*clientConnReadLoop).run"),
		goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"),
		goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"))
}
