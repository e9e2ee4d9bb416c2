// SPDX-License-Identifier: Apache-2.0

package deliverytest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/delivery"
)

// job is one whose pods find no node: it ends by Finish and not by itself.
func job(name, image string) *unstructured.Unstructured {
	return Object(fmt.Sprintf(`
apiVersion: batch/v1
kind: Job
metadata: {name: %s}
spec:
  backoffLimit: 0
  template:
    spec: {restartPolicy: Never, nodeSelector: {nobody: has-this}, containers: [{name: main, image: "%s"}]}`, name, image))
}

func (s *script) jobID(name string) delivery.ObjectID {
	return delivery.ObjectID{Group: "batch", Version: "v1", Kind: "Job", Namespace: s.Namespace, Name: name}
}

func annotated(o *unstructured.Unstructured, key, value string) *unstructured.Unstructured {
	annotations := o.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[key] = value
	o.SetAnnotations(annotations)
	return o
}

func inWave(wave string, o *unstructured.Unstructured) *unstructured.Unstructured {
	return annotated(o, v1alpha1.AnnotationWave, wave)
}

// inWaves is a release of a ConfigMap a, then a Job, then a ConfigMap b.
func (s *script) inWaves(revision, image string) delivery.Release {
	r := s.release(revision)
	migrate := annotated(job("migrate", image), v1alpha1.AnnotationForce, v1alpha1.ForceEnabled)
	r.Objects = []*unstructured.Unstructured{
		inWave("5", configMap("b", revision)), inWave("-1", configMap("a", revision)), migrate,
	}
	r.Digest = fleet.DigestOf("manifest", []byte(revision))
	return r
}

func (s *script) wantWaiting(o delivery.Outcome, words string) {
	s.Helper()
	if words == "" && o.Waiting != "" || !strings.Contains(o.Waiting, words) {
		s.Errorf("waits for %q, want %q", o.Waiting, words)
	}
}

func (s *script) wantHealth(state delivery.HealthState, words string) {
	s.Helper()
	got, err := s.Deliverer.Health(context.Background(), s.rollout(), "flotilla")
	if err != nil {
		s.Fatal(err)
	}
	if got.State != state || !strings.Contains(got.Because, words) {
		s.Errorf("health is %s: %q; want %s: %q", got.State, got.Because, state, words)
	}
}

// writesNothing delivers a release that is there, or waits, and compares.
func (s *script) writesNothing(r delivery.Release) delivery.Outcome {
	s.Helper()
	before := s.Versions()
	outcome := s.deliver(r)
	if outcome.Changed() {
		s.Errorf("changed: %s", outcome.Summary())
	}
	if diff := cmp.Diff(before, s.Versions()); diff != "" {
		s.Errorf("written (-before +after):\n%s", diff)
	}
	return outcome
}

func (s *script) jobName() string { return "Job " + s.Namespace + "/migrate" }

func wavesWait(t *testing.T, s *script) {
	r := s.inWaves("1", "app:1")
	if err := s.Deliverer.Check(context.Background(), r); err != nil {
		t.Fatal(err)
	}
	outcome := s.deliver(r)
	s.wantSummary(outcome, "2 created", 3)
	s.wantWaiting(outcome, "wave 0 is not ready: "+s.jobName()+": is not complete")
	s.wantValues("a=1")
	s.wantHealth(delivery.Progressing, s.jobName())
	s.wantWaiting(s.writesNothing(r), s.jobName())
	s.Finish(s.jobID("migrate"), false)
	outcome = s.deliver(r)
	s.wantSummary(outcome, "1 created, 2 unchanged", 3)
	s.wantWaiting(outcome, "")
	s.wantValues("a=1 b=1")
	s.wantHealth(delivery.Healthy, "")
	s.wantWaiting(s.writesNothing(r), "")
	// A payload whose waves are all there is no news under another revision either.
	again := r
	again.Revision = "main@sha1:1b"
	s.wantSummary(s.deliver(again), "3 unchanged", 3)
	s.writesNothing(again)
}

func waveFails(_ *testing.T, s *script) {
	r := s.inWaves("1", "app:1")
	s.deliver(r)
	s.Finish(s.jobID("migrate"), true)
	s.wantWaiting(s.writesNothing(r), "failed: Job has reached the specified backoff limit")
	s.wantHealth(delivery.Failed, s.jobName()+": failed: Job has reached the specified backoff limit")
	s.wantValues("a=1")
	// The next release runs it again, because it asks for that and is another one.
	fixed := s.inWaves("2", "app:2")
	s.wantWaiting(s.deliverAll(fixed), s.jobName()+": is not complete")
	s.wantValues("a=2")
	s.Finish(s.jobID("migrate"), false)
	s.wantWaiting(s.deliver(fixed), "")
	s.wantValues("a=2 b=2")
	s.wantHealth(delivery.Healthy, "")
}

// deliverAll goes on while what has to be made anew is on its way out.
func (s *script) deliverAll(r delivery.Release) delivery.Outcome {
	s.Helper()
	for range 20 {
		if outcome := s.deliver(r); !strings.Contains(outcome.Waiting, "is being deleted") {
			return outcome
		}
	}
	s.Fatal("never gone")
	return delivery.Outcome{}
}

// updateInWaves: everything exists, so only what was applied tells that the release is not there yet. What left the
// payload goes last.
func updateInWaves(_ *testing.T, s *script) {
	first := s.inWaves("1", "app:1")
	first.Objects = append(first.Objects, configMap("c", "1"))
	s.deliver(first)
	s.Finish(s.jobID("migrate"), false)
	s.deliver(first)
	s.wantValues("a=1 b=1 c=1")
	second := s.inWaves("2", "app:2")
	s.wantWaiting(s.deliverAll(second), s.jobName())
	s.wantValues("a=2 b=1 c=1")
	s.wantHealth(delivery.Progressing, s.jobName())
	s.wantWaiting(s.writesNothing(second), s.jobName())
	s.Finish(s.jobID("migrate"), false)
	s.wantSummary(s.deliver(second), "1 configured, 2 unchanged, 1 pruned", 3)
	s.wantValues("a=2 b=2")
	s.wantHealth(delivery.Healthy, "")
	s.writesNothing(second)
}

// wavesStopped at each question to the fence, as by a kill: nothing of a later wave was written, and the next completes it.
func wavesStopped(t *testing.T, s *script) {
	for stop := 0; ; stop++ {
		old, next := fmt.Sprint("1.", stop), fmt.Sprint("2.", stop)
		first, r := s.inWaves(old, "app:1"), s.inWaves(next, "app:1")
		s.deliver(first)
		s.Finish(s.jobID("migrate"), false)
		s.deliver(first)
		asked := 0
		r.Fence = func(context.Context) error {
			if asked++; asked > stop {
				return errOvertaken
			}
			return nil
		}
		_, err := s.Deliverer.Deliver(context.Background(), r)
		if err != nil && !errors.Is(err, errOvertaken) {
			t.Fatal(err)
		}
		if err != nil && stop > 0 {
			health, healthErr := s.Deliverer.Health(context.Background(), s.rollout(), "flotilla")
			if healthErr != nil || health.State == delivery.Healthy {
				t.Errorf("stopped after %d: %s, %v", stop, health.State, healthErr)
			}
		}
		r.Fence = nil
		s.wantWaiting(s.deliver(r), "")
		s.wantValues("a=" + next + " b=" + next)
		s.writesNothing(r)
		if err == nil {
			if stop < 4 {
				t.Errorf("done after only %d questions to the fence", stop)
			}
			return
		}
	}
}

// driftInWaves: what was edited is put right at once; what is missing is made again when what is before it is ready.
func driftInWaves(_ *testing.T, s *script) {
	r := s.inWaves("1", "app:1")
	r.Objects = append(r.Objects, inWave("5", configMap("c", "1")))
	s.deliver(r)
	s.Finish(s.jobID("migrate"), false)
	s.wantSummary(s.deliver(r), "2 created, 2 unchanged", 4)
	s.deliver(s.inWaves("2", "app:1")) // the Job is the same, and is not run again
	s.deliver(r)
	edited := s.Get(s.id("b"))
	_ = unstructured.SetNestedField(edited.Object, "edited", "data", "value")
	s.Put(edited)
	s.Remove(s.id("c"))
	s.wantSummary(s.deliver(r), "1 created, 1 configured, 2 unchanged", 4)
	s.wantValues("a=1 b=1 c=1")
	s.writesNothing(r)
}

// jobIsGone: a Job that ended and was deleted, by its time to live or by hand, is still done; another one runs.
func jobIsGone(_ *testing.T, s *script) {
	r := s.inWaves("1", "app:1")
	s.deliver(r)
	s.Finish(s.jobID("migrate"), false)
	s.deliver(r)
	s.Remove(s.jobID("migrate"))
	s.wantSummary(s.writesNothing(r), "3 unchanged", 3)
	s.wantHealth(delivery.Healthy, "")
	s.wantSummary(s.deliver(s.inWaves("2", "app:1")), "2 configured, 1 unchanged", 3)
	outcome := s.deliver(s.inWaves("3", "app:2"))
	s.wantSummary(outcome, "1 created, 1 configured", 3)
	s.wantWaiting(outcome, s.jobName())
}

// claimed: what one rollout is going to write in a later wave, another may not write before it.
func claimed(_ *testing.T, s *script) {
	s.deliver(s.inWaves("1", "app:1"))
	other := s.release("1", "b=2")
	other.Rollout.Name = "other"
	s.refuses(other, fleet.Refused, v1alpha1.ReasonConflict,
		fmt.Sprintf("ConfigMap %s/b belongs to rollout %s/podinfo, not to %s/other", s.Namespace, s.Namespace, s.Namespace))
	s.wantValues("a=1")
}

func madeAnew(_ *testing.T, s *script) {
	immutable := func(revision string, force bool) delivery.Release {
		r := s.release(revision, "a="+revision, "b="+revision)
		r.Objects[1].Object["immutable"] = true
		if force {
			annotated(r.Objects[1], v1alpha1.AnnotationForce, v1alpha1.ForceEnabled)
		}
		return r
	}
	s.deliver(immutable("1", false))
	before := s.Versions()
	_, err := s.Deliverer.Deliver(context.Background(), immutable("2", false))
	s.wantError(err, fleet.Terminal, v1alpha1.ReasonImmutableField, "ConfigMap "+s.Namespace+"/b: ")
	if diff := cmp.Diff(before, s.Versions()); diff != "" {
		s.Errorf("refused, and something was written (-before +after):\n%s", diff)
	}
	s.wantSummary(s.deliver(immutable("2", true)), "1 configured, 1 recreated", 2)
	s.wantValues("a=2 b=2")
	s.writesNothing(immutable("2", true))
	for stop := 0; ; stop++ {
		r := immutable(fmt.Sprint("3.", stop), true)
		asked := 0
		r.Fence = func(context.Context) error {
			if asked++; asked > stop {
				return errOvertaken
			}
			return nil
		}
		_, err := s.Deliverer.Deliver(context.Background(), r)
		if err != nil && !errors.Is(err, errOvertaken) {
			s.Fatal(err)
		}
		r.Fence = nil
		s.deliver(r)
		s.wantValues(fmt.Sprintf("a=3.%d b=3.%d", stop, stop))
		s.writesNothing(r)
		if err == nil {
			return
		}
	}
}

func badAnnotations(t *testing.T, s *script) {
	for _, tc := range []struct {
		name, key, words string
		value            any
	}{
		{"no number", v1alpha1.AnnotationWave, `ConfigMap a: annotation fleet.flotilla.dev/wave is "soon": write a whole number from -1000 to 1000`, "soon"},
		{"too high", v1alpha1.AnnotationWave, `is "1001"`, "1001"},
		{"too low", v1alpha1.AnnotationWave, `is "-1001"`, "-1001"},
		{"empty", v1alpha1.AnnotationWave, `is ""`, ""},
		{"no text", v1alpha1.AnnotationWave, `annotation fleet.flotilla.dev/wave is 3 and not text: put it in quotes`, int64(3)},
		{"not a word we know", v1alpha1.AnnotationForce, `ConfigMap a: annotation fleet.flotilla.dev/force is "true": write "enabled" or "disabled"`, "true"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sub := &script{T: t, World: s.World}
			r := sub.release("1", "b=1", "a=1")
			_ = unstructured.SetNestedField(r.Objects[1].Object, tc.value, "metadata", "annotations", tc.key)
			sub.refuses(r, fleet.Terminal, v1alpha1.ReasonInvalidManifest, tc.words)
			sub.wantValues("")
		})
	}
}
