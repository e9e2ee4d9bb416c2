// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"pgregory.net/rapid"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// TestSameInputSameBytes renders every member of a transcript many times, concurrently.
func TestSameInputSameBytes(t *testing.T) {
	for _, name := range []string{"hello", "per-region", "features", "transforms", "substitution"} {
		tr := readTranscript(t, "testdata/"+name+".txtar")
		files := tr.files(t)
		results := make([][]string, len(tr.members))
		times := 20
		if len(tr.specs) > 0 {
			times = 5 // each builds anew, with more to do
		}
		var wait sync.WaitGroup
		for i, member := range tr.members {
			results[i] = make([]string, times)
			for j := range times {
				wait.Go(func() {
					m, err := Render(tr.input(files, member))
					text, yamlErr := m.YAML()
					results[i][j] = fmt.Sprint(m.Digest, err, yamlErr, string(text))
				})
			}
		}
		wait.Wait()
		for i, member := range tr.members {
			if different := slices.Compact(results[i]); len(different) != 1 {
				t.Errorf("%s: %s has %d different manifests:\n%s", name, member.Name, len(different), strings.Join(different, "\n"))
			}
		}
	}
}

// drawObjects gives objects as JSON values, named apart.
func drawObjects(t *rapid.T) []map[string]any {
	scalar := rapid.OneOf(
		rapid.Just[any](nil), rapid.Map(rapid.Bool(), toAny), rapid.Map(rapid.Int64(), toAny),
		rapid.Map(rapid.StringN(0, 12, 24), toAny), rapid.Map(rapid.StringMatching(`[ \t\n|>#:a-]{0,8}`), toAny),
		rapid.Map(rapid.SampledFrom([]string{"yes", "1", "~", "<<", "a: b", "- x", "0x1", "#", "\n", "\u0085", "\x7f"}), toAny),
	)
	var objects []map[string]any
	for i := range rapid.IntRange(1, 5).Draw(t, "objects") {
		o := map[string]any{
			"apiVersion": "v1", "kind": "ConfigMap",
			"metadata": map[string]any{"name": fmt.Sprintf("o%d", i)},
			"data":     map[string]any{},
		}
		for range rapid.IntRange(0, 4).Draw(t, "fields") {
			key := rapid.StringMatching(`[a-z<&*?. -]{1,8}`).Draw(t, "key")
			o["data"].(map[string]any)[key] = scalar.Draw(t, "value")
		}
		objects = append(objects, o)
	}
	return objects
}

func toAny[T any](v T) any { return v }

// TestFormDoesNotMatter: the same objects in JSON, in YAML, in a list or in files of their own have one digest.
func TestFormDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		objects := drawObjects(t)
		single, list := fstest.MapFS{}, map[string]any{"apiVersion": "v1", "kind": "List"}
		var docs []string
		var items []any
		for i, o := range objects {
			items = append(items, o)
			text := must(Manifest{Objects: []*unstructured.Unstructured{{Object: o}}}.YAML())(t)
			docs = append(docs, string(text))
			single[fmt.Sprintf("%d.yml", i)] = &fstest.MapFile{Data: text}
		}
		list["items"] = items
		digests := map[fleet.Digest]string{}
		for form, files := range map[string]fstest.MapFS{
			"documents": {"a.yaml": {Data: []byte(strings.Join(docs, "---\n"))}},
			"files":     single,
			"list":      {"a.yaml": {Data: must(Manifest{Objects: []*unstructured.Unstructured{{Object: list}}}.YAML())(t)}},
			"json":      {"a.json": {Data: must(json.Marshal(list))(t)}},
		} {
			m, err := Render(Input{Files: files})
			if err != nil {
				t.Fatalf("%s: %v", form, err)
			}
			if len(m.Objects) != len(objects) {
				t.Fatalf("%s: %d objects, want %d", form, len(m.Objects), len(objects))
			}
			digests[m.Digest] = form
		}
		if len(digests) != 1 {
			t.Fatalf("%d digests: %v", len(digests), digests)
		}
	})
}

func must[T any](v T, err error) func(*rapid.T) T {
	return func(t *rapid.T) T {
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// TestDigestTellsApart: another value, another order, another object is another manifest.
func TestDigestTellsApart(t *testing.T) {
	a := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {k: v}\n"
	b := strings.ReplaceAll(a, "name: a", "name: b")
	seen := map[fleet.Digest]int{}
	for i, text := range []string{a, b, a + "---\n" + b, b + "---\n" + a, strings.ReplaceAll(a, "k: v", `k: "1"`), strings.ReplaceAll(a, "k: v", "k: 1")} {
		m, err := Render(Input{Files: fstest.MapFS{"a.yaml": {Data: []byte(text)}}})
		if err != nil {
			t.Fatal(err)
		}
		if other, twice := seen[m.Digest]; twice {
			t.Errorf("payloads %d and %d have one digest", other, i)
		}
		seen[m.Digest] = i
	}
}

// TestBuildsLeaveNothingBehind: a payload that is refused or breaks the build changes no later one.
func TestBuildsLeaveNothingBehind(t *testing.T) {
	tr := readTranscript(t, "testdata/per-region.txtar")
	good := Input{Files: tr.files(t), Path: tr.path, Member: tr.members[0]}
	before, err := Render(good)
	if err != nil {
		t.Fatal(err)
	}
	refused := readTranscript(t, "testdata/refused.txtar")
	files := refused.files(t)
	for _, member := range refused.members {
		if _, err := Render(Input{Files: files, Path: refused.path, Member: member, Rollout: fleet.RolloutName{Namespace: "shop"}}); err == nil {
			t.Errorf("%s is not refused", member.Name)
		}
		after, err := Render(good)
		if err != nil || after.Digest != before.Digest {
			t.Fatalf("after %s the manifest is another: %v", member.Name, err)
		}
	}
}

func TestEmptyIsNotDelete(t *testing.T) {
	for name, files := range map[string]fstest.MapFS{
		"no manifest":         {"README.md": {Data: []byte("x")}},
		"only comments":       {"a.yaml": {Data: []byte("# a\n---\n# b\n")}},
		"an empty list":       {"a.yaml": {Data: []byte("apiVersion: v1\nkind: List\nitems: []\n")}},
		"empty kustomization": {"kustomization.yaml": {Data: []byte("# nothing\n")}},
		"no resources":        {"kustomization.yaml": {Data: []byte("resources: []\nnamespace: a\n")}},
		"all local": {"kustomization.yaml": {Data: []byte("resources: [a.yaml]\n")},
			"a.yaml": {Data: []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, annotations: {config.kubernetes.io/local-config: \"true\"}}\n")}},
	} {
		m, err := Render(Input{Files: files})
		if fleet.ReasonOf(err, "") != v1alpha1.ReasonEmptyRender || fleet.KindOf(err) != fleet.Terminal || !strings.Contains(err.Error(), "nothing is deleted (R12)") {
			t.Errorf("%s: got %v", name, err)
		}
		if len(m.Objects) > 0 || !m.Digest.IsZero() {
			t.Errorf("%s: there is a manifest: %+v", name, m)
		}
	}
}

func TestYAMLOfNothing(t *testing.T) {
	if text, err := (Manifest{}).YAML(); err != nil || !bytes.Equal(text, nil) {
		t.Errorf("got %q, %v", text, err)
	}
}
