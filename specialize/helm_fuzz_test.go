// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"io/fs"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
	"sigs.k8s.io/yaml"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// FuzzValues: whatever a values file holds, reading it ends, and gives what Helm reads.
func FuzzValues(f *testing.F) {
	for _, text := range []string{
		"a: 1\nb: {c: [d, null]}\n", "- a\n", "just text", "a: &x [1]\nb: *x\n", "<<: {a: b}\nc: d\n", "a: 1\n---\nb: 2\n", "&a {b: *a}\n",
		"\xef\xbb\xbfa: b\n", "a: b\n...\n", "a: 0x1f\nb: 1e400\nc: .nan\n", "? [a]\n: b\n", "true: 1\n1: 2\n", "a: [1, 2\n", "null", "!!set {a, b}\n",
		"a: {{ .Values.b }}\n", "*x\n", "a: !!binary AA==\n", "a: \"\\ud83d\"\n", "%YAML 1.1\n---\na: 1\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		values, err := newTree(nil).valuesIn("values.yaml", content)
		if err != nil {
			if fleet.KindOf(err) != fleet.Terminal || !slices.Contains([]string{v1alpha1.ReasonValuesInvalid, v1alpha1.ReasonTooLarge}, fleet.ReasonOf(err, "")) {
				t.Fatalf("not as values are refused: %v", err)
			}
			return
		}
		var want map[string]any
		if err := yaml.Unmarshal(content, &want); err != nil {
			t.Fatalf("Helm refuses it: %v", err)
		}
		if len(values)+len(want) > 0 && !reflect.DeepEqual(values, want) {
			t.Fatalf("got %v, Helm reads %v", values, want)
		}
	})
}

// templatesOfTests are all texts that may be templates in testdata/helm and in the charts that others wrote.
func templatesOfTests(t testing.TB) map[string]string {
	t.Helper()
	texts := map[string]string{}
	for _, name := range helmTranscripts(t) {
		archive, err := txtar.ParseFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range archive.Files {
			if strings.Contains(f.Name, "/templates/") {
				texts[name+": "+f.Name] = string(f.Data)
			}
		}
	}
	return texts
}

// TestDisturbedTemplates: the second look parses what the first does, and has its lines where they were.
func TestDisturbedTemplates(t *testing.T) {
	texts := templatesOfTests(t)
	for text, want := range map[string]string{
		"a\n{{ now }}":                     "a\n{{ NOW }}",
		"{{ now.Year }}{{- (now).Year -}}": "{{ NOW.Year }}{{- (NOW).Year -}}",
		`{{ date "2006" (now) }}`:          `{{ list "2006" (NOW) DATE }}`,
		`{{now|date "2006"}}`:              `{{NOW|list "2006" DATE}}`,
		`{{- .x | date ")|}}" -}}`:         `{{- .x | list ")|}}" DATE -}}`,
		"{{ date `\\` .x | upper }}":       "{{ list `\\` .x DATE | upper }}",
		`{{ date "\"" .x}}`:                `{{ list "\"" .x DATE}}`,
		`{{ print (date "2006"
			.x) (htmlDate .y) }}`: "{{ print (list \"2006\"\n\t\t\t.x DATE) (list `2006-01-02` .y DATE) }}",
		`{{ if lookup "v1" "Pod" "" "" }}x{{ end }}`:                                   `{{ if LOOKUP "v1" "Pod" "" "" }}x{{ end }}`,
		`{{ $now := now }}{{ $now }}{{ .now }}{{ "now" }}`:                             `{{ $now := NOW }}{{ $now }}{{ .now }}{{ "now" }}`,
		`{{ define "now" }}{{ ago .x }}{{ end }}{{/* now */}}{{ template "now" now }}`: `{{ define "now" }}{{ AGO .x }}{{ end }}{{/* now */}}{{ template "now" NOW }}`,
		"{{ .x | durationRound }} {{ $x":                                               "{{ .x | durationRound }} {{ $x",
		"now and lookup":                                                               "now and lookup",
	} {
		want = strings.NewReplacer("NOW", anInstant, "LOOKUP", anObject, "AGO", anAge, " DATE", aDate).Replace(want)
		if got := disturbed(text, anyReason); got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", text, got, want)
		}
		texts[text] = text
	}
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		checkDisturbed(t, name, texts[name])
	}
}

func checkDisturbed(t testing.TB, name, text string) {
	t.Helper()
	again := disturbed(text, anyReason)
	if strings.Count(text, "\n") != strings.Count(again, "\n") {
		t.Errorf("%s: lines moved:\n%s", name, again)
	}
	before, after := parseTemplate(name, text), parseTemplate(name, again)
	if len(before) != len(after) {
		t.Errorf("%s: %d templates became %d:\n%s", name, len(before), len(after), again)
	}
	if len(calls(name, again, func(f string) bool { return f == "now" || f == "lookup" || f == "ago" })) > 0 {
		t.Errorf("%s: still calls the clock or the cluster:\n%s", name, again)
	}
}

// FuzzTemplate: whatever a template holds, looking at it ends, and what the second look makes of it is a template too.
func FuzzTemplate(f *testing.F) {
	for _, text := range templatesOfTests(f) {
		f.Add(text)
	}
	f.Add("{{ date '\\'' now | list `}}` \"|\" (now) }}")
	f.Add("{{ range $i, $x := until 5 }}{{ repeat 9 (indent 2 $x) }}{{ else }}{{ break }}{{ end }}")
	f.Fuzz(func(t *testing.T, text string) {
		_ = checkRepetition("a", text)
		checkDisturbed(t, "a", text)
	})
}

// TestDisturbedChartsOfOthers: the templates that others wrote parse in the second look as well.
func TestDisturbedChartsOfOthers(t *testing.T) {
	root := os.DirFS(payloads(t))
	seen := 0
	err := fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.Contains(name, "/templates/") {
			return err
		}
		text, err := fs.ReadFile(root, name)
		checkDisturbed(t, name, string(text))
		seen++
		return err
	})
	if err != nil || seen < 50 {
		t.Errorf("%d templates: %v", seen, err)
	}
}

// FuzzChart: whatever a template and a values file hold, rendering ends without a panic, and gives the same twice.
func FuzzChart(f *testing.F) {
	for _, text := range templatesOfTests(f) {
		if len(text) < 1024 && !strings.Contains(text, "gen") {
			f.Add(text, "a: {b: [1, 2]}\ntext: x\n")
		}
	}
	f.Fuzz(func(t *testing.T, template, values string) {
		if strings.Contains(template, "range") || strings.Contains(template, "repeat") || strings.Contains(template, "gen") || strings.Contains(template, "until") {
			t.Skip("such a template may take its time")
		}
		files := chartOf(map[string]string{"templates/a.yaml": template, "eu.yaml": values})
		spec := &v1alpha1.Specialize{Helm: &v1alpha1.HelmRender{ValuesFiles: []string{"eu.yaml"}}}
		m, err := renderChart(files, spec)
		if err != nil && strings.Contains(err.Error(), "the engine stopped with") {
			t.Fatalf("it panicked: %v", err)
		}
		again, err2 := renderChart(files, spec)
		if (err == nil) != (err2 == nil) || m.Digest != again.Digest {
			t.Fatalf("got %v %v, then %v %v", m.Digest, err, again.Digest, err2)
		}
	})
}
