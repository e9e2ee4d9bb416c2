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
	"sigs.k8s.io/yaml"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/delivery"
)

// World is a Deliverer and the cluster behind it, seen as its administrator sees it.
type World struct {
	Deliverer interface {
		delivery.Deliverer
		Inventory(context.Context, fleet.RolloutName) (delivery.Inventory, error)
	}
	// Namespace of the test's own, with a service account "flotilla" that may do everything in it.
	Namespace string
	// Get an object, nil where there is none; Put and Remove are what somebody else does.
	Get    func(delivery.ObjectID) *unstructured.Unstructured
	Put    func(*unstructured.Unstructured)
	Remove func(delivery.ObjectID)
	// Finish a Job whose pods nobody runs: it is complete, or it has failed.
	Finish func(id delivery.ObjectID, failed bool)
	// Versions of all that the rollouts of the namespace have, inventories included: they tell whether anything was written.
	Versions func() string
}

// Conformance is what every Deliverer does, whatever it is made of.
func Conformance(t *testing.T, start func(t *testing.T) World) {
	for _, tc := range []struct {
		name string
		run  func(*testing.T, *script)
	}{
		{"deliver, and again", deliverTwice},
		{"namespace and labels", namespaceAndLabels},
		{"drift is corrected", driftIsCorrected},
		{"fields have owners", fieldsHaveOwners},
		{"prune", prune},
		{"prune is off", pruneIsOff},
		{"prune guard", pruneGuard},
		{"nothing rendered deletes nothing", nothingRendered},
		{"another rollout's object", anotherRolloutsObject},
		{"an object that another rollout gave up", givenUp},
		{"an object that was taken over is not deleted", takenOver},
		{"what cannot be delivered", cannotBeDelivered},
		{"stopped before any write", stoppedAtOnce},
		{"stopped at each write, then completed", stoppedAtEachWrite},
		{"health", health},
		{"waves wait for what is before them", wavesWait},
		{"a wave that fails", waveFails},
		{"an update in waves", updateInWaves},
		{"waves are stopped at each write, then completed", wavesStopped},
		{"drift in waves", driftInWaves},
		{"a Job that is gone is not run again", jobIsGone},
		{"an object of a wave to come", claimed},
		{"immutable, and made anew", madeAnew},
		{"annotations that say nothing", badAnnotations},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tc.run(t, &script{T: t, World: start(t)})
		})
	}
}

// script is one test's talk with the world.
type script struct {
	*testing.T
	World
}

func (s *script) rollout() fleet.RolloutName {
	return fleet.RolloutName{Namespace: s.Namespace, Name: "podinfo"}
}

// release of ConfigMaps, one for each word: name=value.
func (s *script) release(revision string, maps ...string) delivery.Release {
	r := delivery.Release{
		Rollout: s.rollout(), Revision: fleet.Revision("main@sha1:" + revision), Plan: fleet.DigestOf("plan", []byte(revision)),
		Digest: fleet.DigestOf("manifest", []byte(strings.Join(maps, " "))), ServiceAccount: "flotilla",
		Prune: true, MaxPruneObjects: 10, MaxPrunePercent: 50,
	}
	for _, word := range maps {
		name, value, _ := strings.Cut(word, "=")
		r.Objects = append(r.Objects, configMap(name, value))
	}
	return r
}

func configMap(name, value string) *unstructured.Unstructured {
	return Object(fmt.Sprintf("{apiVersion: v1, kind: ConfigMap, metadata: {name: %s}, data: {value: %q}}", name, value))
}

// Object reads one manifest; it panics on what is none, as only tests write them.
func Object(manifest string) *unstructured.Unstructured {
	o := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(manifest), &o.Object); err != nil {
		panic(err)
	}
	return o
}

func (s *script) id(name string) delivery.ObjectID {
	return delivery.ObjectID{Version: "v1", Kind: "ConfigMap", Namespace: s.Namespace, Name: name}
}

func (s *script) deliver(r delivery.Release) delivery.Outcome {
	s.Helper()
	outcome, err := s.Deliverer.Deliver(context.Background(), r)
	if err != nil {
		s.Fatalf("%s: %v", r.Revision, err)
	}
	return outcome
}

// wantValues compares the ConfigMaps a, b, c ... of the namespace: name=value, in order.
func (s *script) wantValues(want string) {
	s.Helper()
	var got []string
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		if o := s.Get(s.id(name)); o != nil {
			value, _, _ := unstructured.NestedString(o.Object, "data", "value")
			got = append(got, name+"="+value)
		}
	}
	if diff := cmp.Diff(want, strings.Join(got, " ")); diff != "" {
		s.Errorf("in the cluster (-want +got):\n%s", diff)
	}
}

func (s *script) wantSummary(o delivery.Outcome, want string, objects int) {
	s.Helper()
	if o.Summary() != want || o.Objects != objects {
		s.Errorf("got %q and %d objects, want %q and %d: %+v", o.Summary(), o.Objects, want, objects, o.Changes)
	}
}

func (s *script) wantError(err error, kind fleet.ErrorKind, reason, words string) {
	s.Helper()
	if err == nil {
		s.Errorf("no error, want %s", reason)
		return
	}
	if fleet.KindOf(err) != kind || fleet.ReasonOf(err, "") != reason || !strings.Contains(err.Error(), words) {
		s.Errorf("got kind %d, reason %s: %v; want kind %d, reason %s: %q", fleet.KindOf(err), fleet.ReasonOf(err, ""), err, kind, reason, words)
	}
}

// refuses: Check and Deliver say the same, and nothing changes.
func (s *script) refuses(r delivery.Release, kind fleet.ErrorKind, reason, words string) {
	s.Helper()
	before := s.Versions()
	s.wantError(s.Deliverer.Check(context.Background(), r), kind, reason, words)
	_, err := s.Deliverer.Deliver(context.Background(), r)
	s.wantError(err, kind, reason, words)
	if diff := cmp.Diff(before, s.Versions()); diff != "" {
		s.Errorf("refused, and something was written (-before +after):\n%s", diff)
	}
}

func deliverTwice(t *testing.T, s *script) {
	r := s.release("1", "a=1", "b=1")
	if err := s.Deliverer.Check(context.Background(), r); err != nil {
		t.Fatal(err)
	}
	if s.Get(s.id("a")) != nil {
		t.Fatal("Check wrote")
	}
	s.wantSummary(s.deliver(r), "2 created", 2)
	s.wantValues("a=1 b=1")
	before := s.Versions()
	outcome := s.deliver(r)
	s.wantSummary(outcome, "2 unchanged", 2)
	if outcome.Changed() {
		t.Error("unchanged, and Changed")
	}
	if diff := cmp.Diff(before, s.Versions()); diff != "" {
		t.Errorf("the same release again wrote (-before +after):\n%s", diff)
	}
	s.wantSummary(s.deliver(s.release("2", "a=1", "b=2", "c=2")), "1 created, 1 configured, 1 unchanged", 3)
	have, err := s.Deliverer.Inventory(context.Background(), s.rollout())
	if err != nil || have.Revision != "main@sha1:2" || len(have.Objects) != 3 {
		t.Errorf("inventory: %+v, %v", have, err)
	}
	if len(r.Objects[0].GetLabels()) != 0 || r.Objects[0].GetNamespace() != "" {
		t.Error("the caller's objects were changed")
	}
}

func namespaceAndLabels(t *testing.T, s *script) {
	r := s.release("1", "a=1")
	r.Objects[0].SetLabels(map[string]string{"app": "web"})
	s.deliver(r)
	got := s.Get(s.id("a"))
	if got == nil {
		t.Fatal("not in the rollout's namespace")
	}
	want := map[string]string{"app": "web", v1alpha1.LabelRolloutName: "podinfo", v1alpha1.LabelRolloutNamespace: s.Namespace}
	if diff := cmp.Diff(want, got.GetLabels()); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
}

func driftIsCorrected(_ *testing.T, s *script) {
	r := s.release("1", "a=1", "b=1", "c=1")
	s.deliver(r)
	edited := s.Get(s.id("a"))
	_ = unstructured.SetNestedField(edited.Object, "edited", "data", "value")
	s.Put(edited)
	s.Remove(s.id("b"))
	s.wantSummary(s.deliver(r), "1 created, 1 configured, 1 unchanged", 3)
	s.wantValues("a=1 b=1 c=1")
}

// fieldsHaveOwners: a field that leaves the manifest leaves the cluster; a field that somebody else added stays.
func fieldsHaveOwners(t *testing.T, s *script) {
	with := func(data string) delivery.Release {
		r := s.release(data)
		r.Objects = append(r.Objects, Object(fmt.Sprintf("{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: %s}", data)))
		return r
	}
	s.deliver(with(`{value: "1", extra: "1"}`))
	theirs := s.Get(s.id("a"))
	_ = unstructured.SetNestedField(theirs.Object, "1", "data", "theirs")
	s.Put(theirs)
	s.wantSummary(s.deliver(with(`{value: "1", extra: "1"}`)), "1 unchanged", 1)
	s.wantSummary(s.deliver(with(`{value: "1"}`)), "1 configured", 1)
	data, _, _ := unstructured.NestedStringMap(s.Get(s.id("a")).Object, "data")
	if diff := cmp.Diff(map[string]string{"value": "1", "theirs": "1"}, data); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func prune(_ *testing.T, s *script) {
	s.deliver(s.release("1", "a=1", "b=1", "c=1"))
	s.Remove(s.id("c")) // gone already: fine
	s.wantSummary(s.deliver(s.release("2", "a=1")), "1 unchanged, 2 pruned", 1)
	s.wantValues("a=1")
	s.wantSummary(s.deliver(s.release("2", "a=1")), "1 unchanged", 1)
}

func pruneIsOff(_ *testing.T, s *script) {
	s.deliver(s.release("1", "a=1", "b=1"))
	r := s.release("2", "a=1")
	r.Prune = false
	s.wantSummary(s.deliver(r), "1 unchanged, 1 kept", 2)
	s.wantValues("a=1 b=1")
	r.Prune = true // what was kept was not forgotten
	s.wantSummary(s.deliver(r), "1 unchanged, 1 pruned", 1)
	s.wantValues("a=1")
}

func pruneGuard(_ *testing.T, s *script) {
	var many []string
	for n := range 12 {
		many = append(many, fmt.Sprintf("m%d=1", n))
	}
	s.deliver(s.release("1", append(many, "a=1")...))
	s.refuses(s.release("2", "a=1"), fleet.Refused, v1alpha1.ReasonPruneGuard, "main@2 would prune 12 of 13 objects here, more than 10 and more than 50%")
	r := s.release("2", "a=1")
	r.MaxPruneObjects = 12
	s.wantSummary(s.deliver(r), "1 unchanged, 12 pruned", 1)
}

func nothingRendered(_ *testing.T, s *script) {
	s.deliver(s.release("1", "a=1", "b=1"))
	s.refuses(s.release("2"), fleet.Refused, v1alpha1.ReasonEmptyRender, "nothing is deleted")
	s.wantValues("a=1 b=1")
}

func anotherRolloutsObject(_ *testing.T, s *script) {
	s.deliver(s.release("1", "a=1"))
	other := s.release("1", "a=2", "b=2")
	other.Rollout.Name = "other"
	s.refuses(other, fleet.Refused, v1alpha1.ReasonConflict,
		fmt.Sprintf("ConfigMap %s/a belongs to rollout %s/podinfo, not to %s/other", s.Namespace, s.Namespace, s.Namespace))
	s.wantValues("a=1")
}

// givenUp: what one rollout no longer has, another may have; the first then leaves it alone.
func givenUp(_ *testing.T, s *script) {
	s.deliver(s.release("1", "a=1", "b=1"))
	less := s.release("2", "a=1")
	less.Prune = false
	s.wantSummary(s.deliver(less), "1 unchanged, 1 kept", 2)
	other := s.release("1", "b=2")
	other.Rollout.Name = "other"
	s.wantSummary(s.deliver(other), "1 configured", 1)
	less.Prune = true
	s.wantSummary(s.deliver(less), "1 unchanged, 1 kept", 1)
	s.wantValues("a=1 b=2")
	s.wantSummary(s.deliver(less), "1 unchanged", 1)
}

func takenOver(_ *testing.T, s *script) {
	s.deliver(s.release("1", "a=1", "b=1"))
	b := s.Get(s.id("b"))
	b.SetLabels(map[string]string{})
	s.Put(b)
	s.wantSummary(s.deliver(s.release("2", "a=1")), "1 unchanged, 1 kept", 1)
	s.wantValues("a=1 b=1")
}

func cannotBeDelivered(t *testing.T, s *script) {
	account := s.release("1", "a=1")
	account.ServiceAccount = "nobody"
	noAccount := s.release("1", "a=1")
	noAccount.ServiceAccount = ""
	space := s.release("1", "a=1", "b=1")
	space.Objects[1].SetNamespace("flotilla-is-not-here")
	kind := s.release("1", "a=1")
	kind.Objects = append(kind.Objects, Object("{apiVersion: nowhere.example.com/v1, kind: Shop, metadata: {name: corner}}"))
	twice := s.release("1", "a=1", "a=2")
	twice.Objects[1].SetNamespace(s.Namespace)
	own := s.release("1", "a=1")
	own.Objects = append(own.Objects, Object("{apiVersion: fleet.flotilla.dev/v1alpha1, kind: FleetRollout, metadata: {name: x}}"))
	for _, tc := range []struct {
		name          string
		release       delivery.Release
		kind          fleet.ErrorKind
		reason, words string
	}{
		{"no such service account", account, fleet.Refused, v1alpha1.ReasonServiceAccountNotFound, "service account " + s.Namespace + "/nobody is not here"},
		{"no such namespace", space, fleet.Refused, v1alpha1.ReasonNamespaceMissing, "namespace flotilla-is-not-here is not here, and the payload does not bring it"},
		{"no such kind", kind, fleet.Refused, v1alpha1.ReasonUnknownKind, "Shop"},
		{"the same twice", twice, fleet.Terminal, v1alpha1.ReasonInvalidManifest, "ConfigMap " + s.Namespace + "/a is in the payload twice"},
		{"our own kinds", own, fleet.Terminal, v1alpha1.ReasonInvalidManifest, "payloads may not carry fleet.flotilla.dev kinds"},
		{"an empty service account", noAccount, fleet.Refused, v1alpha1.ReasonServiceAccountNotFound, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sub := &script{T: t, World: s.World}
			sub.refuses(tc.release, tc.kind, tc.reason, tc.words)
			sub.wantValues("")
		})
	}
}

var errOvertaken = errors.New("overtaken by a newer release")

func stoppedAtOnce(t *testing.T, s *script) {
	r := s.release("1", "a=1")
	r.Fence = func(context.Context) error { return errOvertaken }
	before := s.Versions()
	if _, err := s.Deliverer.Deliver(context.Background(), r); !errors.Is(err, errOvertaken) {
		t.Errorf("got %v", err)
	}
	if diff := cmp.Diff(before, s.Versions()); diff != "" {
		t.Errorf("written past the fence:\n%s", diff)
	}
}

// stoppedAtEachWrite ends a delivery at its first write, its second, and so on, as a kill would, and lets the next one
// complete it.
func stoppedAtEachWrite(t *testing.T, s *script) {
	for stop := 0; ; stop++ {
		s.deliver(s.release("1", "a=1", "b=1", "c=1"))
		r := s.release("2", "a=2", "b=1", "d=2")
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
		r.Fence = nil
		s.deliver(r)
		s.wantValues("a=2 b=1 d=2")
		have, inventoryErr := s.Deliverer.Inventory(context.Background(), s.rollout())
		if inventoryErr != nil || len(have.Objects) != 3 || len(have.Left) != 0 {
			t.Errorf("stopped after %d: inventory %+v, %v", stop, have, inventoryErr)
		}
		before := s.Versions()
		s.deliver(r)
		if diff := cmp.Diff(before, s.Versions()); diff != "" {
			t.Errorf("stopped after %d: a delivery without a change wrote:\n%s", stop, diff)
		}
		if err == nil {
			if stop < 4 {
				t.Errorf("done after only %d questions to the fence", stop)
			}
			return
		}
	}
}

func health(t *testing.T, s *script) {
	want := func(state delivery.HealthState, ready, total int, because, objects string) {
		t.Helper()
		got, err := s.Deliverer.Health(context.Background(), s.rollout(), "flotilla")
		if err != nil {
			t.Fatal(err)
		}
		if got.State != state || got.Ready != ready || got.Total != total || got.Because != because {
			t.Errorf("got %s, %d of %d: %q; want %s, %d of %d: %q", got.State, got.Ready, got.Total, got.Because, state, ready, total, because)
		}
		var words []string
		for _, o := range got.Objects {
			words = append(words, strings.TrimSpace(o.Object.Name+" "+o.State.String()+" "+o.Because))
		}
		if got := strings.Join(words, ", "); got != objects {
			t.Errorf("one by one: %q, want %q", got, objects)
		}
	}
	want(delivery.Progressing, 0, 0, "nothing has been delivered yet", "")
	s.deliver(s.release("1", "a=1", "b=1"))
	want(delivery.Healthy, 2, 2, "", "a healthy, b healthy")
	s.Remove(s.id("b"))
	want(delivery.Progressing, 1, 2, "ConfigMap "+s.Namespace+"/b: is not there", "a healthy, b progressing is not there")
}
