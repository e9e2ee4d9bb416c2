// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"pgregory.net/rapid"

	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// object reads "apiVersion Kind namespace/name @wave"; the wave may be left out.
func object(t testing.TB, s string) *unstructured.Unstructured {
	t.Helper()
	text, wave, given := strings.Cut(s, " @")
	id := parse(t, text)
	o := &unstructured.Unstructured{Object: map[string]any{}}
	o.SetAPIVersion(strings.Fields(text)[0])
	o.SetKind(id.Kind)
	o.SetNamespace(id.Namespace)
	o.SetName(id.Name)
	if given {
		o.SetAnnotations(map[string]string{v1alpha1.AnnotationWave: wave})
	}
	if plural, group, found := strings.Cut(id.Name, "."); id.Kind == "CustomResourceDefinition" && found {
		kind := strings.ToUpper(plural[:1]) + strings.TrimSuffix(plural[1:], "s")
		_ = unstructured.SetNestedField(o.Object, group, "spec", "group")
		_ = unstructured.SetNestedField(o.Object, kind, "spec", "names", "kind")
	}
	return o
}

func itself(o *unstructured.Unstructured) *unstructured.Unstructured { return o }

func TestWaves(t *testing.T) {
	const crd = "apiextensions.k8s.io/v1 CustomResourceDefinition shops.example.com"
	for _, tc := range []struct {
		name string
		in   []string
		want []string
	}{
		{"nothing", nil, nil},
		{"one", []string{"v1 ConfigMap apps/b", "v1 ConfigMap apps/a"}, []string{"0: b a"}},
		{
			"several", []string{"v1 ConfigMap apps/z @10", "v1 ConfigMap apps/y", "batch/v1 Job apps/x @-1000", "v1 Secret apps/w @0", "v1 Secret apps/v @1000"},
			[]string{"-1000: x", "0: y w", "10: z", "1000: v"},
		},
		{"a namespace comes with the first in it", []string{"v1 Namespace apps", "batch/v1 Job apps/x @-3", "v1 ConfigMap apps/y @-5"}, []string{"-5: apps y", "-3: x"}},
		{"a namespace may come before", []string{"v1 Namespace apps @-9", "v1 ConfigMap apps/y @-5"}, []string{"-9: apps", "-5: y"}},
		{"another namespace stays", []string{"v1 Namespace other", "v1 ConfigMap apps/y @-5"}, []string{"-5: y", "0: other"}},
		{"a kind comes with the first of it", []string{crd + " @5", "example.com/v1 Shop apps/x @1", "v1 ConfigMap apps/y"}, []string{"0: y", "1: shops.example.com x"}},
		{"a kind of another group stays", []string{crd + " @5", "example.org/v1 Shop apps/x @1"}, []string{"1: x", "5: shops.example.com"}},
		{"a kind that nobody uses stays", []string{crd + " @5"}, []string{"5: shops.example.com"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var objects []*unstructured.Unstructured
			for _, s := range tc.in {
				objects = append(objects, object(t, s))
			}
			waves, err := Waves(objects, itself)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, w := range waves {
				var names []string
				for _, o := range w.Items {
					names = append(names, o.GetName())
				}
				got = append(got, fmt.Sprintf("%d: %s", w.Number, strings.Join(names, " ")))
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	if _, err := Waves([]*unstructured.Unstructured{object(t, "v1 ConfigMap apps/a @1.5")}, itself); err == nil {
		t.Error("half a wave")
	}
}

func TestMayRecreate(t *testing.T) {
	for _, tc := range []struct {
		object, value string
		want          bool
		words         string
	}{
		{"batch/v1 Job apps/a", "enabled", true, ""},
		{"batch/v1 Job apps/a", "disabled", false, ""},
		{"batch/v1 Job apps/a", "", false, `annotation fleet.flotilla.dev/force is "": write "enabled" or "disabled"`},
		{"v1 Namespace apps", "enabled", false, "a Namespace is never deleted"},
		{"v1 PersistentVolume disk", "enabled", false, "a PersistentVolume is never deleted"},
		{"apiextensions.k8s.io/v1 CustomResourceDefinition shops.example.com", "enabled", false, "a CustomResourceDefinition is never deleted"},
	} {
		o := object(t, tc.object)
		o.SetAnnotations(map[string]string{v1alpha1.AnnotationForce: tc.value})
		got, err := MayRecreate(o)
		if got != tc.want || (err == nil) != (tc.words == "") || err != nil && !strings.Contains(err.Error(), tc.words) {
			t.Errorf("%s %q: got %t, %v", tc.object, tc.value, got, err)
		}
	}
	if anew, err := MayRecreate(object(t, "batch/v1 Job apps/a")); anew || err != nil {
		t.Errorf("without the annotation: %t, %v", anew, err)
	}
}

// TestPropertyWaves: every object is in one wave, its own unless others live in it, and never after what lives in it.
func TestPropertyWaves(t *testing.T) {
	kinds := []string{"v1 ConfigMap apps/", "v1 ConfigMap shop/", "example.com/v1 Shop apps/", "v1 Namespace ", "apiextensions.k8s.io/v1 CustomResourceDefinition "}
	fixed := map[int][]string{3: {"apps", "shop"}, 4: {"shops.example.com"}}
	rapid.Check(t, func(rt *rapid.T) {
		seen := map[string]bool{}
		var objects []*unstructured.Unstructured
		for range rapid.IntRange(0, 30).Draw(rt, "objects") {
			kind := rapid.IntRange(0, len(kinds)-1).Draw(rt, "kind")
			name := rapid.StringMatching("[a-c]{1,2}").Draw(rt, "name")
			if fixed[kind] != nil {
				name = rapid.SampledFrom(fixed[kind]).Draw(rt, "fixed")
			}
			if text := kinds[kind] + name; !seen[text] {
				seen[text] = true
				objects = append(objects, object(t, fmt.Sprintf("%s @%d", text, rapid.IntRange(-3, 3).Draw(rt, "wave"))))
			}
		}
		waves, err := Waves(objects, itself)
		if err != nil {
			rt.Fatal(err)
		}
		at := map[*unstructured.Unstructured]int{}
		for n, w := range waves {
			if n > 0 && waves[n-1].Number >= w.Number || len(w.Items) == 0 {
				rt.Fatalf("wave %d after %d", w.Number, waves[max(n-1, 0)].Number)
			}
			for _, o := range w.Items {
				if _, twice := at[o]; twice {
					rt.Fatalf("%s twice", IDOf(o))
				}
				at[o] = w.Number
			}
		}
		if len(at) != len(objects) {
			rt.Fatalf("%d of %d objects", len(at), len(objects))
		}
		for _, o := range objects {
			own, _ := WaveOf(o)
			lifted := at[o] < own
			if at[o] > own || lifted && definedBy(o).Kind == "" {
				rt.Fatalf("%s of wave %d is in %d", IDOf(o), own, at[o])
			}
			for _, other := range objects {
				lives := IDOf(o).is("", "Namespace") && other.GetNamespace() == o.GetName() ||
					IDOf(o).is("apiextensions.k8s.io", "CustomResourceDefinition") && other.GetKind() == "Shop"
				if lives && at[o] > at[other] {
					rt.Fatalf("%s is in wave %d, %s which lives in it in %d", IDOf(o), at[o], IDOf(other), at[other])
				}
			}
		}
		shuffled := rapid.Permutation(objects).Draw(rt, "shuffled")
		again, err := Waves(shuffled, itself)
		if err != nil || len(again) != len(waves) {
			rt.Fatalf("%d waves in another order, %v", len(again), err)
		}
		for n := range again {
			same := func(w Wave[*unstructured.Unstructured]) []string {
				var names []string
				for _, o := range w.Items {
					names = append(names, IDOf(o).String())
				}
				slices.Sort(names)
				return names
			}
			if diff := cmp.Diff(same(waves[n]), same(again[n])); diff != "" {
				rt.Fatalf("another order gives other waves:\n%s", diff)
			}
		}
	})
}
