// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"pgregory.net/rapid"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

var podinfo = fleet.RolloutName{Namespace: "apps", Name: "podinfo"}

// parse reads "group/version Kind namespace/name", as tables write objects.
func parse(t testing.TB, s string) ObjectID {
	t.Helper()
	fields := strings.Fields(s)
	if len(fields) != 3 {
		t.Fatalf("object %q: want apiVersion, kind and name", s)
	}
	id := ObjectID{Version: fields[0], Kind: fields[1], Name: fields[2]}
	if group, version, found := strings.Cut(fields[0], "/"); found {
		id.Group, id.Version = group, version
	}
	if namespace, name, found := strings.Cut(fields[2], "/"); found {
		id.Namespace, id.Name = namespace, name
	}
	return id
}

func parseAll(t testing.TB, list ...string) []ObjectID {
	t.Helper()
	var ids []ObjectID
	for _, s := range list {
		ids = append(ids, parse(t, s))
	}
	return ids
}

// TestNextIsPending until the last wave of another manifest was applied; a Job that is done is remembered with it.
func TestNextIsPending(t *testing.T) {
	one, two := fleet.DigestOf("test", []byte("1")), fleet.DigestOf("test", []byte("2"))
	ids := parseAll(t, "batch/v1 Job apps/migrate", "v1 ConfigMap apps/a")
	done := []Done{{Object: ids[0], Manifest: one}}
	for _, tc := range []struct {
		name    string
		before  Inventory
		digest  fleet.Digest
		ids     []ObjectID
		pending bool
		done    []Done
	}{
		{"the first", Inventory{}, one, ids, true, nil},
		{"the same", Inventory{Digest: one, Done: done}, one, ids, false, done},
		{"the same, which did not come to its end", Inventory{Digest: one, Pending: true}, one, ids, true, nil},
		{"another", Inventory{Digest: one, Done: done}, two, ids, true, done},
		{"another, without the Job", Inventory{Digest: one, Done: done}, two, ids[1:], true, nil},
	} {
		got := tc.before.Next(Release{Digest: tc.digest}, tc.ids)
		if got.Pending != tc.pending || cmp.Diff(tc.done, got.Done) != "" {
			t.Errorf("%s: pending %t, done %v", tc.name, got.Pending, got.Done)
		}
	}
}

func TestNextKeepsWhatWasThere(t *testing.T) {
	before := Inventory{
		Rollout: podinfo,
		Objects: parseAll(t, "apps/v1 Deployment apps/web", "v1 Service apps/web", "v1 Namespace shop"),
		Left:    parseAll(t, "v1 ConfigMap apps/old"),
	}
	for _, tc := range []struct {
		name         string
		objects      []string
		prune        bool
		left, remove []string
		keep         []Action
	}{
		{
			name:    "the same again",
			objects: []string{"v1 Namespace shop", "v1 Service apps/web", "apps/v1 Deployment apps/web"}, prune: true,
			left: []string{"v1 ConfigMap apps/old"}, remove: []string{"v1 ConfigMap apps/old"},
		},
		{
			name:    "one less, in reverse order of applying",
			objects: []string{"v1 Namespace shop", "v1 Service apps/web"}, prune: true,
			left:   []string{"v1 ConfigMap apps/old", "apps/v1 Deployment apps/web"},
			remove: []string{"apps/v1 Deployment apps/web", "v1 ConfigMap apps/old"},
		},
		{
			name:    "another version is no other object",
			objects: []string{"v1 Namespace shop", "v1 Service apps/web", "apps/v1beta2 Deployment apps/web"}, prune: true,
			left: []string{"v1 ConfigMap apps/old"}, remove: []string{"v1 ConfigMap apps/old"},
		},
		{
			name:    "what was left comes back",
			objects: []string{"v1 Namespace shop", "v1 Service apps/web", "apps/v1 Deployment apps/web", "v1 ConfigMap apps/old"}, prune: true,
		},
		{
			name:    "a namespace is never pruned",
			objects: []string{"v1 Service apps/web", "apps/v1 Deployment apps/web", "v1 ConfigMap apps/old"}, prune: true,
			left: []string{"v1 Namespace shop"}, keep: []Action{Kept},
		},
		{
			name:    "without pruning",
			objects: []string{"v1 Namespace shop"}, prune: false,
			left: []string{"v1 ConfigMap apps/old", "v1 Service apps/web", "apps/v1 Deployment apps/web"},
			keep: []Action{Kept, Kept, Kept},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			next := before.Next(Release{Rollout: podinfo, Revision: "main@sha1:b"}, parseAll(t, tc.objects...))
			if diff := cmp.Diff(parseAll(t, tc.left...), next.Left); diff != "" {
				t.Errorf("left (-want +got):\n%s", diff)
			}
			remove, keep := next.Prunable(tc.prune)
			if diff := cmp.Diff(parseAll(t, tc.remove...), remove); diff != "" {
				t.Errorf("remove (-want +got):\n%s", diff)
			}
			var actions []Action
			for _, c := range keep {
				actions = append(actions, c.Action)
				if c.Why == "" {
					t.Errorf("%s is kept without a why", c.Object)
				}
			}
			if !slices.Equal(actions, tc.keep) {
				t.Errorf("keep: got %v, want %v", keep, tc.keep)
			}
		})
	}
}

func TestPruneGuard(t *testing.T) {
	for _, tc := range []struct {
		name                   string
		total, removed         int
		kind                   string
		maxObjects, maxPercent int
		noPrune                bool
		want                   string
	}{
		{name: "under both", total: 20, removed: 10, maxObjects: 10, maxPercent: 50},
		{name: "over the number only", total: 40, removed: 20, maxObjects: 10, maxPercent: 50},
		{name: "over the percentage only", total: 4, removed: 3, maxObjects: 10, maxPercent: 50},
		{
			name: "over both", total: 60, removed: 41, maxObjects: 10, maxPercent: 50,
			want: "main@b0b1b2b would prune 41 of 60 objects here, more than 10 and more than 50%; nothing is applied (if this is meant, raise spec.delivery.pruneGuard)",
		},
		{name: "one over both", total: 21, removed: 11, maxObjects: 10, maxPercent: 50, want: "would prune 11 of 21 objects here"},
		{name: "nothing may go", total: 3, removed: 1, want: "would prune 1 of 3 objects here"},
		{name: "nothing may go and nothing goes", total: 3},
		{name: "pruning is off", total: 60, removed: 41, maxObjects: 10, maxPercent: 50, noPrune: true},
		{name: "kinds that stay do not count", total: 60, removed: 41, kind: "Namespace", maxObjects: 10, maxPercent: 50},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var all []ObjectID
			for n := range tc.total {
				id := ObjectID{Version: "v1", Kind: "ConfigMap", Namespace: "apps", Name: fmt.Sprint("c", n)}
				if tc.kind != "" {
					id = ObjectID{Version: "v1", Kind: tc.kind, Name: fmt.Sprint("c", n)}
				}
				all = append(all, id)
			}
			i := Inventory{Rollout: podinfo, Objects: all}
			r := Release{
				Rollout: podinfo, Revision: "main@sha1:b0b1b2b3b4", Prune: !tc.noPrune,
				MaxPruneObjects: tc.maxObjects, MaxPrunePercent: tc.maxPercent,
			}
			err := i.GuardPrune(r, all[tc.removed:])
			if tc.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want %q", err, tc.want)
			}
			if fleet.KindOf(err) != fleet.Refused || fleet.ReasonOf(err, "") != v1alpha1.ReasonPruneGuard {
				t.Errorf("got kind %d and reason %s", fleet.KindOf(err), fleet.ReasonOf(err, ""))
			}
		})
	}
}

func TestStages(t *testing.T) {
	ids := parseAll(t,
		"admissionregistration.k8s.io/v1 ValidatingWebhookConfiguration guard",
		"example.com/v1 Shop apps/corner",
		"apps/v1 Deployment apps/web",
		"storage.k8s.io/v1 StorageClass fast",
		"rbac.authorization.k8s.io/v1 RoleBinding apps/web",
		"rbac.authorization.k8s.io/v1 Role apps/web",
		"apiextensions.k8s.io/v1 CustomResourceDefinition shops.example.com",
		"v1 ConfigMap shop/a",
		"v1 ConfigMap apps/b",
		"v1 Namespace shop",
	)
	var got strings.Builder
	for n, stage := range Stages(ids, func(id ObjectID) ObjectID { return id }) {
		for _, id := range stage {
			fmt.Fprintf(&got, "%d %s\n", n, id)
		}
	}
	want := `0 Namespace shop
0 CustomResourceDefinition shops.example.com
1 StorageClass fast
2 Role apps/web
2 RoleBinding apps/web
2 ConfigMap apps/b
2 ConfigMap shop/a
2 Deployment apps/web
2 Shop apps/corner
2 ValidatingWebhookConfiguration guard
`
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if stages := Stages(nil, func(id ObjectID) ObjectID { return id }); len(stages) != 0 {
		t.Errorf("stages of nothing: %v", stages)
	}
}

var anyID = rapid.Custom(func(t *rapid.T) ObjectID {
	kind := rapid.SampledFrom([]ObjectID{
		{Version: "v1", Kind: "Namespace"},
		{Version: "v1", Kind: "PersistentVolume"},
		{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"},
		{Group: "storage.k8s.io", Version: "v1", Kind: "StorageClass"},
		{Version: "v1", Kind: "ConfigMap", Namespace: "x"},
		{Version: "v1", Kind: "Secret", Namespace: "x"},
		{Group: "apps", Version: "v1", Kind: "Deployment", Namespace: "x"},
		{Group: "apps", Version: "v1beta1", Kind: "Deployment", Namespace: "x"},
		{Group: "example.com", Version: "v1", Kind: "Deployment", Namespace: "x"},
		{Group: "admissionregistration.k8s.io", Version: "v1", Kind: "MutatingWebhookConfiguration"},
	}).Draw(t, "kind")
	kind.Name = rapid.StringMatching(`[a-c]{1,2}`).Draw(t, "name")
	if kind.Namespace != "" {
		kind.Namespace = rapid.StringMatching(`[a-b]`).Draw(t, "namespace")
	}
	return kind
})

func containsID(list []ObjectID, id ObjectID) bool { return slices.ContainsFunc(list, id.Same) }

func TestPropertyNothingIsForgotten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		i := Inventory{Rollout: podinfo, Objects: rapid.SliceOf(anyID).Draw(t, "objects"), Left: rapid.SliceOf(anyID).Draw(t, "left")}
		ids := rapid.SliceOf(anyID).Draw(t, "next")
		prune := rapid.Bool().Draw(t, "prune")
		next := i.Next(Release{Rollout: podinfo}, ids)
		old := slices.Concat(i.Objects, i.Left)
		for _, id := range slices.Concat(old, ids) {
			if !containsID(next.Objects, id) && !containsID(next.Left, id) {
				t.Fatalf("%s is in neither", id)
			}
		}
		for _, id := range next.Left {
			if containsID(ids, id) || !containsID(old, id) {
				t.Fatalf("%s is left, and is not one of old minus new", id)
			}
		}
		remove, keep := next.Prunable(prune)
		if len(remove)+len(keep) != len(next.Left) {
			t.Fatalf("%d removed and %d kept of %d", len(remove), len(keep), len(next.Left))
		}
		for _, id := range remove {
			if !prune || neverPruned(id) || !containsID(next.Left, id) {
				t.Fatalf("%s must not be removed", id)
			}
		}
		gone := remove[:rapid.IntRange(0, len(remove)).Draw(t, "gone")]
		after := next.Without(gone)
		if len(after.Left) != len(next.Left)-len(gone) || slices.ContainsFunc(gone, func(id ObjectID) bool { return containsID(after.Left, id) }) {
			t.Fatalf("after %v are gone of %v: %v", gone, next.Left, after.Left)
		}
		if again := after.Next(Release{Rollout: podinfo}, ids); cmp.Diff(after, again) != "" {
			t.Fatalf("the same release again changes the inventory:\n%s", cmp.Diff(after, again))
		}
	})
}

func TestPropertyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ids := rapid.SliceOfDistinct(anyID, unversioned).Draw(t, "ids")
		var flat []ObjectID
		for _, stage := range Stages(ids, func(id ObjectID) ObjectID { return id }) {
			if len(stage) == 0 {
				t.Fatal("an empty stage")
			}
			flat = append(flat, stage...)
		}
		if len(flat) != len(ids) || slices.ContainsFunc(ids, func(id ObjectID) bool { return !slices.Contains(flat, id) }) {
			t.Fatalf("%v is no permutation of %v", flat, ids)
		}
		if !slices.IsSortedFunc(flat, compareIDs) {
			t.Fatalf("not in order: %v", flat)
		}
		backwards := PruneOrder(ids)
		slices.Reverse(backwards)
		if !slices.Equal(flat, backwards) {
			t.Fatalf("pruned as %v, applied as %v", backwards, flat)
		}
		shuffled := rapid.Permutation(ids).Draw(t, "shuffled")
		if !slices.Equal(flat, slices.Concat(Stages(shuffled, func(id ObjectID) ObjectID { return id })...)) {
			t.Fatal("the order depends on the order that objects came in")
		}
	})
}

func TestPropertyEncoding(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		i := Inventory{Objects: rapid.SliceOf(anyID).Draw(t, "before")}.Next(Release{
			Rollout:  podinfo,
			Revision: fleet.Revision(rapid.String().Draw(t, "revision")),
			Digest:   fleet.DigestOf("test", []byte{1}),
		}, rapid.SliceOf(anyID).Draw(t, "objects"))
		i.Pending = rapid.Bool().Draw(t, "pending")
		for _, name := range rapid.SliceOf(rapid.StringMatching("[a-z]{1,5}")).Draw(t, "done") {
			job := ObjectID{Group: "batch", Version: "v1", Kind: "Job", Namespace: "apps", Name: name}
			i.Done = append(i.Done, Done{Object: job, Manifest: fleet.DigestOf("test", []byte(name))})
		}
		raw, err := i.Encode()
		if err != nil {
			t.Fatal(err)
		}
		back, err := DecodeInventory(raw)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(i, back); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

// FuzzDecodeInventory: whatever is read can be written, and reads the same.
func FuzzDecodeInventory(f *testing.F) {
	seed, err := Inventory{Rollout: podinfo, Objects: parseAll(f, "v1 Service apps/web", "v1 Namespace shop")}.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte(`{"version":1,"rollout":{"namespace":"a","name":"b"},"objects":[{"version":"v1","kind":"X","names":["a","a","b/a"]}]}`))
	f.Add([]byte(`{"version":1,"pending":true,"done":[{"object":{"group":"batch","version":"v1","kind":"Job","name":"m"},"manifest":""}]}`))
	f.Add([]byte(`{"version":2}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		i, err := DecodeInventory(raw)
		if err != nil {
			if i.Total() != 0 {
				t.Fatal("an error, and objects")
			}
			return
		}
		once, err := i.Encode()
		if err != nil {
			var known *fleet.Error
			if !errors.As(err, &known) || known.Reason != v1alpha1.ReasonTooLarge {
				t.Fatal(err)
			}
			return
		}
		back, err := DecodeInventory(once)
		if err != nil {
			t.Fatal(err)
		}
		twice, err := back.Encode()
		if err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%v\n%s\n%s", err, once, twice)
		}
	})
}

func TestDecodeInventoryRefuses(t *testing.T) {
	for _, tc := range []struct{ name, raw, want string }{
		{"nothing", "", "inventory cannot be read"},
		{"another version", `{"version":2}`, "written in version 2, this agent reads version 1"},
		{"no kind", `{"version":1,"objects":[{"version":"v1","names":["a"]}]}`, "without kind or version"},
		{"no name", `{"version":1,"objects":[{"version":"v1","kind":"A","names":[""]}]}`, `A "" is no name`},
		{"half a name", `{"version":1,"left":[{"version":"v1","kind":"A","names":["/a"]}]}`, `A "/a" is no name`},
		{"a name too much", `{"version":1,"left":[{"version":"v1","kind":"A","names":["a/b/c"]}]}`, `A "a/b/c" is no name`},
		{"done and no Job", `{"version":1,"done":[{"object":{"version":"v1","kind":"Pod","namespace":"a","name":"b"}}]}`, "Pod a/b is done and no Job"},
		{"too large", strings.Repeat(" ", maxInventoryBytes+1), "900 KiB"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := DecodeInventory([]byte(tc.raw))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want %q", err, tc.want)
			}
			if fleet.KindOf(err) != fleet.Refused {
				t.Errorf("kind %d", fleet.KindOf(err))
			}
		})
	}
}

func TestEncodeBounds(t *testing.T) {
	many := func(n, length int) Inventory {
		i := Inventory{Rollout: podinfo}
		for k := range n {
			name := fmt.Sprintf("%0*d", length, k)
			i.Objects = append(i.Objects, ObjectID{Version: "v1", Kind: "ConfigMap", Namespace: "apps", Name: name})
		}
		return i
	}
	if _, err := many(MaxObjects, 60).Encode(); err != nil {
		t.Errorf("%d objects with names as they are: %v", MaxObjects, err)
	}
	_, err := many(MaxObjects, 253).Encode()
	if fleet.ReasonOf(err, "") != v1alpha1.ReasonTooLarge || fleet.KindOf(err) != fleet.Terminal {
		t.Errorf("got %v", err)
	}
}

func TestValidate(t *testing.T) {
	object := func(apiVersion, kind, name string) *unstructured.Unstructured {
		u := &unstructured.Unstructured{Object: map[string]any{}}
		u.SetAPIVersion(apiVersion)
		u.SetKind(kind)
		u.SetName(name)
		return u
	}
	generated := object("v1", "Pod", "")
	generated.SetGenerateName("web-")
	many := make([]*unstructured.Unstructured, MaxObjects+1)
	for n := range many {
		many[n] = object("v1", "ConfigMap", fmt.Sprint("c", n))
	}
	for _, tc := range []struct {
		name    string
		objects []*unstructured.Unstructured
		kind    fleet.ErrorKind
		reason  string
		want    string
	}{
		{name: "good", objects: []*unstructured.Unstructured{object("v1", "ConfigMap", "a"), object("v1", "Secret", "a")}},
		{name: "as many as can be", objects: many[:MaxObjects]},
		{name: "nothing", kind: fleet.Refused, reason: v1alpha1.ReasonEmptyRender, want: "main@b holds no objects; nothing is applied and nothing is deleted"},
		{name: "too many", objects: many, kind: fleet.Terminal, reason: v1alpha1.ReasonTooLarge, want: "main@b holds 5001 objects, at most 5000 are delivered as one (deliver it as several rollouts)"},
		{
			name: "no kind", objects: []*unstructured.Unstructured{object("v1", "ConfigMap", "a"), object("v1", "", "a")},
			kind: fleet.Terminal, reason: v1alpha1.ReasonInvalidManifest, want: "object 2 of 2: no apiVersion or kind",
		},
		{
			name: "no name", objects: []*unstructured.Unstructured{object("v1", "ConfigMap", "")},
			kind: fleet.Terminal, reason: v1alpha1.ReasonInvalidManifest, want: "object 1 of 1: ConfigMap without a name",
		},
		{
			name: "generated", objects: []*unstructured.Unstructured{generated},
			kind: fleet.Terminal, reason: v1alpha1.ReasonInvalidManifest, want: "object 1 of 1: Pod: generateName would make another object each time; give it a name",
		},
		{
			name: "twice", objects: []*unstructured.Unstructured{object("apps/v1", "Deployment", "a"), object("apps/v1beta1", "Deployment", "a")},
			kind: fleet.Terminal, reason: v1alpha1.ReasonInvalidManifest, want: "Deployment a is in the payload twice",
		},
		{
			name: "our own", objects: []*unstructured.Unstructured{object("fleet.flotilla.dev/v1alpha1", "FleetRollout", "a")},
			kind: fleet.Terminal, reason: v1alpha1.ReasonInvalidManifest, want: "object 1 of 1: FleetRollout a: payloads may not carry fleet.flotilla.dev kinds",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := Validate(Release{Rollout: podinfo, Revision: "main@sha1:b", Objects: tc.objects})
			if tc.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || err.Error() != tc.want {
				t.Fatalf("got %v, want %s", err, tc.want)
			}
			if fleet.KindOf(err) != tc.kind || fleet.ReasonOf(err, "") != tc.reason {
				t.Errorf("kind %d, reason %s", fleet.KindOf(err), fleet.ReasonOf(err, ""))
			}
		})
	}
}
