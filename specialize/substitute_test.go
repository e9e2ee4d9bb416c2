// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/fluxcd/pkg/envsubst"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// shape is all of a value but its scalars.
func shape(value any) any {
	switch v := value.(type) {
	case map[string]any:
		out := map[string]any{}
		for key, field := range v {
			out[key] = shape(field)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = shape(v[i])
		}
		return out
	}
	return "scalar"
}

// evil are values that break out of the YAML they are put into as text.
func evil() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.String(), rapid.StringMatching(`[a-z0-9:{}\[\]"'\n #&*!|>%@,-]{0,24}`),
		rapid.SampledFrom([]string{
			"1\nevil: true", "x\"\nevil: \"y", "{evil: true}", "[1, 2]", "a: b", "- a\n- b", "# gone", "x # gone", "|\n  evil", "*alias", "&a b",
			"!!map {evil: yes}", "---\nevil: true", "'", "\"", "${evil}", "$${evil}", "<<: {evil: true}", "? evil", "\u2028evil: true", "\u0085evil: true", "\t",
			"!!binary aGk=", "2026-11-21", "1_000", "0b11", "0o17", "017", "1e400", ".inf", ".nan", "-", "~", "null", "true", "No", "0x1f", "9223372036854775808",
		}),
	)
}

// TestSubstitutionAddsNoFields: whatever the values, the object has the fields and lists that it had.
func TestSubstitutionAddsNoFields(t *testing.T) {
	texts := []string{"${a}", "\"${a}\"", "x ${a}", "${a}${b}", "${b}: ${a}", "${a:=${b}}", "- ${a}", "a\n${b}\n", "$${a}", "${a^^}", "plain", "${nobody:=${a}}"}
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.SampledFrom(texts)
		thing := map[string]any{
			"apiVersion": "example.com/v1", "kind": "Thing", "metadata": map[string]any{"name": "a", "labels": map[string]any{"l": text.Draw(t, "label")}},
			"spec": map[string]any{
				"one": text.Draw(t, "one"), "items": []any{text.Draw(t, "item"), map[string]any{"deep": text.Draw(t, "deep")}},
				"env": []any{map[string]any{"name": "n", "value": text.Draw(t, "env")}},
			},
		}
		s := &substitution{builtIn: &variables{}, given: map[string]string{"a": evil().Draw(t, "a"), "b": evil().Draw(t, "b")}}
		got, err := s.replaced(object{fields: thing, where: "test"})
		if err != nil {
			return // refused, not changed
		}
		if diff := cmp.Diff(shape(thing), shape(got)); diff != "" {
			t.Fatalf("other fields with %q (-before +after):\n%s", s.given, diff)
		}
		for _, must := range []any{got["metadata"].(map[string]any)["labels"].(map[string]any)["l"], got["spec"].(map[string]any)["env"].([]any)[0].(map[string]any)["value"]} {
			if _, isText := must.(string); !isText {
				t.Fatalf("a label or the value of an environment variable became %T %v", must, must)
			}
		}
	})
}

// TestSameAsFlux: where a value is a scalar, the result is what Flux makes of it: it replaces the variables in the
// object's YAML, and reads that again.
func TestSameAsFlux(t *testing.T) {
	values := []string{
		"3", "-3", "0", "1.5", "1e3", "true", "false", "yes", "No", "on", "~", "null", "", "abc", "v1.2", "0644", "0x1f", "1_000", `"3"`, "'true'", "a-b", "10.0.0.1", "1.2.3",
		"2026-11-21", "12:30:45", ".5", "5.", "+1", "0o7", "0b11", "Infinity", "a:b", "http://x/y", "x,y", "100m", "1Gi", "a b", "é",
	}
	texts := []string{"${a}", "v${a}", "${a}${b}", "${a}.${b}", "${a}:${b}", "http://${a}/${b}", "${a}m", "${nobody:=4}", "${a/1/2}", "${#a}", "'${a}'", "x ${a} y"}
	for _, text := range texts {
		for i, a := range values {
			given := map[string]string{"a": a, "b": values[(i*7+3)%len(values)]}
			s := &substitution{builtIn: &variables{}, given: given}
			got, err := s.scalar(text, place{path: "spec.x", field: "x"})
			want, fluxErr := asFlux(text, given)
			if fluxErr != nil {
				continue // Flux fails, or makes something else of it than a scalar
			}
			if err != nil {
				t.Errorf("%s with %q: %v", text, given, err)
				continue
			}
			if fmt.Sprintf("%T %v", got, got) != fmt.Sprintf("%T %v", want, want) {
				t.Errorf("%s with %q is %T %v, Flux has %T %v", text, given, got, got, want, want)
			}
		}
	}
}

func asFlux(text string, given map[string]string) (any, error) {
	written, err := yaml.Marshal(map[string]any{"x": text})
	if err != nil {
		return nil, err
	}
	replaced, err := envsubst.Eval(string(written), func(name string) (string, bool) { v, has := given[name]; return v, has })
	if err != nil {
		return nil, err
	}
	var read struct{ X any }
	if err := yaml.Unmarshal([]byte(replaced), &read); err != nil {
		return nil, err
	}
	switch v := read.X.(type) {
	case map[string]any, []any:
		return nil, fmt.Errorf("a %T", v)
	case float64:
		if v == float64(int64(v)) {
			return int64(v), nil // JSON has one kind of number
		}
	}
	return read.X, nil
}

func TestPatternsAreForShortValues(t *testing.T) {
	s := &substitution{builtIn: &variables{}, given: map[string]string{"long": strings.Repeat("x", maxTrimmed+1), "short": "xxx"}}
	if _, err := s.evaluate("long%x*"); err == nil || !strings.HasSuffix(err.Error(), "# and % are for values of at most 1024 bytes") {
		t.Errorf("got %v", err)
	}
	if got, err := s.evaluate("short%x"); err != nil || got != "xx" {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := s.evaluate("long//x/y"); err != nil || len(got) != maxTrimmed+1 {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
	if got, err := s.evaluate("#long"); err != nil || got != "1025" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestSubstituteIsBounded(t *testing.T) {
	spec := &v1alpha1.Specialize{PostBuild: &v1alpha1.PostBuild{Substitute: map[string]string{"a": strings.Repeat("x", 1<<20)}}}
	files := fstest.MapFS{"a.yaml": {Data: []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {a: \"" + strings.Repeat("${a}", 100) + "\"}\n")}}
	if _, err := Render(Input{Files: files, Spec: spec}); fleet.ReasonOf(err, "") != v1alpha1.ReasonTooLarge {
		t.Errorf("got %.200v", err)
	}
}

// TestFillIsDone: what is filled once has nothing left to fill.
func TestFillIsDone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOfN(rapid.SampledFrom([]string{"${CLUSTER}", "${ZONE}", "${LABEL_x}", "a", "/", "$", "{", "}", " "}), 0, 8).Draw(t, "template")
		value := rapid.StringMatching(`[a-z0-9.{}/-]{0,8}`)
		in := Input{Member: fleet.Member{Name: fleet.Name(value.Draw(t, "name")), Zone: value.Draw(t, "zone"), Labels: map[string]string{"x": value.Draw(t, "x")}}}
		once, err := in.fill(strings.Join(parts, ""))
		if err != nil || strings.Contains(once, opening) {
			return // a value and what stands before it made a variable, which is not looked into
		}
		twice, err := in.fill(once)
		if err != nil || twice != once {
			t.Fatalf("%q is filled to %q, %v", once, twice, err)
		}
	})
}

// TestLaterOverridesWin in the order that they are written in, whatever that is.
func TestLaterOverridesWin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		spec := &v1alpha1.Specialize{Patches: []v1alpha1.Patch{note("everyone")}, PostBuild: &v1alpha1.PostBuild{Substitute: map[string]string{"who": "everyone"}}}
		want, trace := "everyone", []string{"everyone"}
		for i, matches := range rapid.SliceOfN(rapid.Bool(), 0, 6).Draw(t, "overrides") {
			o := v1alpha1.Override{Name: fmt.Sprintf("o%d", i), Substitute: map[string]string{}}
			o.Names = []string{"somebody-else"}
			if matches {
				o.Names = append(o.Names, "eu-1")
				want = o.Name
				trace = append(trace, o.Name)
			}
			o.Substitute["who"] = o.Name
			o.Patches = []v1alpha1.Patch{note(o.Name)}
			spec.Overrides = append(spec.Overrides, o)
		}
		files := fstest.MapFS{"a.yaml": {Data: []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {who: \"${who}\"}\ntrace: []\n")}}
		m, err := Render(Input{Files: files, Member: fleet.Member{Name: "eu-1"}, Spec: spec})
		if err != nil {
			t.Fatal(err)
		}
		got := m.Objects[0].Object
		if got["data"].(map[string]any)["who"] != want || fmt.Sprint(got["trace"]) != fmt.Sprint(trace) {
			t.Fatalf("got %v, want %s by way of %v", got, want, trace)
		}
	})
}

func note(name string) v1alpha1.Patch {
	return v1alpha1.Patch{Target: &v1alpha1.PatchTarget{Kind: "ConfigMap"}, Patch: fmt.Sprintf(`[{"op": "add", "path": "/trace/-", "value": %q}]`, name)}
}

// FuzzSubstitute: whatever a text says and a value holds, it ends, the same way each time, in a scalar.
func FuzzSubstitute(f *testing.F) {
	for _, text := range []string{
		"${a}", "${a:=b}", "${a//x/${b}}", "${a/#x/y}", "${a%%*.}", "${#a}", "${a:1:2}", "${a:-9:99}", "${a^}", "${a,,}", "$${a}", "$$${a}", "${a", "${}", "${a b}", "${${a}}",
		"${a:=${b:=${a//${b}/x}}}", "${a##[a-}", "${a/\\//-}", "${a:?x}", "${a:1:9223372036854775807}", "\xff${a}", "${a:0:1}",
	} {
		for _, value := range []string{"", "3", "a: b", "x/y\nz", "é", "${b}", strings.Repeat("x", 2000)} {
			f.Add(text, value)
		}
	}
	f.Fuzz(func(t *testing.T, text, value string) {
		result := func() (any, error) {
			s := &substitution{builtIn: &variables{member: store12}, given: map[string]string{"a": value, "b": "x"}}
			return s.scalar(text, place{path: "spec.x", field: "x"})
		}
		first, err := result()
		again, errAgain := result()
		if (err == nil) != (errAgain == nil) || err == nil && first != again {
			t.Fatalf("%q gives %v, %v and then %v, %v", text, first, err, again, errAgain)
		}
		if err != nil && fleet.KindOf(err) != fleet.Terminal {
			t.Fatalf("%q: not terminal: %v", text, err)
		}
		if _, err := json.Marshal(first); err != nil {
			t.Fatalf("%q gives %v: %v", text, first, err)
		}
	})
}

func TestUnmatched(t *testing.T) {
	roster := []fleet.Member{
		{Name: "eu-1", Labels: map[string]string{"size": "small", "region": "eu"}},
		{Name: "eu-2", Labels: map[string]string{"size": "large", "region": "eu"}},
		{Name: "us-1", Labels: map[string]string{"size": "large", "region": "us"}},
	}
	override := func(name string, labels map[string]string, names ...string) v1alpha1.Override {
		o := v1alpha1.Override{Name: name}
		o.Names, o.MatchLabels = names, labels
		return o
	}
	spec := &v1alpha1.Specialize{Overrides: []v1alpha1.Override{
		override("small", map[string]string{"size": "small"}),
		override("tiny", map[string]string{"size": "tiny"}),
		override("rings", map[string]string{"ring": "canary", "size": "large"}),
		override("two", nil, "eu-1", "eu-3"),
		override("gone", nil, "eu-9"),
		override("all", nil, "*"),
		override("empty", nil),
	}}
	want := []string{
		"spec.specialize.overrides[tiny]: no member matches size=tiny (3 members; labels in use for size: large, small)",
		"spec.specialize.overrides[rings]: no member matches ring=canary, size=large (3 members; none has a label ring; labels in use for size: large, small)",
		"spec.specialize.overrides[two].names: eu-3 is not a member (nearest: eu-1, eu-2, us-1)",
		"spec.specialize.overrides[gone].names: eu-9 is not a member (nearest: eu-1, eu-2, us-1)",
		"spec.specialize.overrides[gone]: no member matches names eu-9 (3 members)",
	}
	if diff := cmp.Diff(want, Unmatched(spec, roster)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if got := Unmatched(nil, roster); got != nil {
		t.Errorf("without a spec: %q", got)
	}
}

// TestCheckSaysAll that is wrong, not the first of it.
func TestCheckSaysAll(t *testing.T) {
	spec := &v1alpha1.Specialize{
		Variables:  []v1alpha1.Variable{{Name: "ZONE", Expression: "1 +"}},
		Components: []string{"${nobody}"},
		Patches:    []v1alpha1.Patch{{Patch: "[]"}},
		Overrides:  []v1alpha1.Override{{Name: "a"}},
	}
	err := Check(spec)
	for _, part := range []string{"variables[ZONE]: every member", "variables[ZONE]: line 1, column 4", "components[0]: there is no variable ${nobody}", "patches[0]: a list", "overrides[a]: say for which"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in %v", part, err)
		}
	}
	if fleet.KindOf(err) != fleet.Terminal || fleet.ReasonOf(err, "") != v1alpha1.ReasonInvalid {
		t.Errorf("%v is not a terminal Invalid", err)
	}
	if err := Check(nil); err != nil {
		t.Error(err)
	}
}

// TestTransformsKeepValues: what goes through kustomize for a change elsewhere is what it was.
func TestTransformsKeepValues(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		objects := drawObjects(t)
		list := must(json.Marshal(map[string]any{"apiVersion": "v1", "kind": "List", "items": objects}))(t)
		files := fstest.MapFS{"a.json": {Data: list}}
		plain, err := Render(Input{Files: files})
		if err != nil {
			t.Fatal(err)
		}
		changed, err := Render(Input{Files: files, Spec: &v1alpha1.Specialize{Images: []v1alpha1.Image{{Name: "nobody", NewTag: "x"}}}})
		if err != nil {
			t.Fatal(err)
		}
		if changed.Digest != plain.Digest {
			t.Fatalf("-plain +changed:\n%s", cmp.Diff(objectsIn(plain), objectsIn(changed)))
		}
	})
}

func objectsIn(m Manifest) (all []map[string]any) {
	for _, o := range m.Objects {
		all = append(all, o.Object)
	}
	return all
}

// TestNoNotesStay: nothing that kustomize was told is in the objects.
func TestNoNotesStay(t *testing.T) {
	tr := readTranscript(t, "testdata/transforms.txtar")
	files := tr.files(t)
	for _, member := range tr.members {
		m, err := Render(tr.input(files, member))
		if err != nil {
			t.Errorf("%s: %v", member.Name, err)
		}
		for _, o := range m.Objects {
			for _, key := range slices.Collect(maps.Keys(o.Object)) {
				if strings.HasPrefix(key, "flotilla.dev/") {
					t.Errorf("%s: %s %s has %s", member.Name, o.GetKind(), o.GetName(), key)
				}
			}
		}
	}
}
