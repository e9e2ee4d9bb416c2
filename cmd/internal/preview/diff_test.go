// SPDX-License-Identifier: Apache-2.0

package preview

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"pgregory.net/rapid"
	kyaml "sigs.k8s.io/yaml"
)

func objectOf(t *testing.T, manifest string) *unstructured.Unstructured {
	t.Helper()
	if manifest == "" {
		return nil
	}
	o := &unstructured.Unstructured{}
	if err := kyaml.Unmarshal([]byte(manifest), &o.Object); err != nil {
		t.Fatal(err)
	}
	return o
}

const configMap = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"

func TestCompareObject(t *testing.T) {
	long := strings.Repeat("x", 80)
	for about, test := range map[string]struct{ old, now, want string }{
		"nothing":                {configMap, configMap, ""},
		"two that are not there": {"", "", ""},
		"a value":                {configMap + "data: {a: b}", configMap + "data: {a: c}", "changed data.a: b -> c"},
		"a key":                  {configMap, configMap + "data: {a: b, c: d}", "changed data.a:  -> b; data.c:  -> d"},
		"a mapping of nothing":   {configMap, configMap + "data: {}", "changed data:  -> {}"},
		"a key with dots":        {configMap + "data: {a.b/c: x}", configMap, "changed data[a.b/c]: x ->"},
		"an empty text":          {configMap + "data: {a: ''}", configMap + "data: {a: b}", `changed data.a: "" -> b`},
		"another type":           {configMap + "data: {a: [1]}", configMap + "data: {a: {b: 1}}", `changed data.a: [1] -> {"b":1}`},
		"items without names":    {configMap + "data: [1, 2]", configMap + "data: [1, 3, 4]", "changed data[1]: 2 -> 3; data[2]:  -> 4"},
		"items with names":       {configMap + "data: [{name: a, v: 1}]", configMap + "data: [{name: b, v: 1}, {name: a, v: 2}]", "changed data[a].v: 1 -> 2; data[b].name:  -> b; data[b].v:  -> 1"},
		"two items of one name":  {configMap + "data: [{name: a}, {name: a}]", configMap + "data: [{name: a}, {name: a, v: 1}]", "changed data[1].v:  -> 1"},
		"another order":          {configMap + "data: [{name: a}, {name: b}]", configMap + "data: [{name: b}, {name: a}]", "changed data: a, b -> b, a"},
		"a long value":           {configMap + "data: {a: " + long + "1}", configMap + "data: {a: " + long + "2}", "changed data.a: " + long[:59] + "… -> " + long[:59] + "… (other text)"},
		"one that is new":        {"", configMap, "added"},
		"one that goes":          {configMap, "", "removed"},
	} {
		d, differs := CompareObject(objectOf(t, test.old), objectOf(t, test.now))
		var words []string
		for _, f := range d.Fields {
			words = append(words, fmt.Sprintf("%s: %s -> %s", f.Path, f.Old, f.New))
		}
		got := strings.TrimSpace(d.Action + " " + strings.Join(words, "; "))
		if !differs {
			got = ""
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", about, diff)
		}
	}
}

// However the values of two Secrets differ, none of them is in what is shown, and that they differ is.
func TestSecretsAreMasked(t *testing.T) {
	value := rapid.StringMatching(`secret[a-z0-9]{4,12}`)
	rapid.Check(t, func(t *rapid.T) {
		secret := func(which string) (*unstructured.Unstructured, []string) {
			var all []string
			fields := map[string]any{"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": "a", "namespace": "b"}}
			for _, field := range []string{"data", "stringData"} {
				if !rapid.Bool().Draw(t, which+field) {
					continue
				}
				if rapid.IntRange(0, 9).Draw(t, which+field+" is none") == 0 {
					v := value.Draw(t, which+field+" value")
					fields[field], all = v, append(all, v)
					continue
				}
				values := map[string]any{}
				for _, key := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c"}), 0, 3, rapid.ID).Draw(t, which+field+" keys") {
					v := value.Draw(t, which+field+key)
					values[key], all = v, append(all, v)
				}
				fields[field] = values
			}
			o := &unstructured.Unstructured{Object: fields}
			if rapid.Bool().Draw(t, which+"applied") {
				o.SetAnnotations(map[string]string{lastApplied: strings.Join(all, " ")})
			}
			return o, all
		}
		before, old := secret("before")
		after, now := secret("after")
		for _, pair := range [][2]*unstructured.Unstructured{{before, after}, {nil, after}, {before, nil}} {
			d, _ := CompareObject(pair[0], pair[1])
			shown := fmt.Sprintf("%+v", d)
			for _, v := range append(old, now...) {
				if strings.Contains(shown, v) {
					t.Fatalf("%s is shown: %s", v, shown)
				}
			}
		}
		same := cmp.Equal(before.Object["data"], after.Object["data"]) && cmp.Equal(before.Object["stringData"], after.Object["stringData"])
		_, dataIs := before.Object["data"].(string)
		_, plainIs := before.Object["stringData"].(string)
		if _, differs := CompareObject(before, after); !same && !differs && !dataIs && !plainIs {
			t.Fatalf("no difference between %v and %v", before.Object, after.Object)
		}
	})
}
