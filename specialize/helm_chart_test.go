// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"pgregory.net/rapid"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

const chartHead = "apiVersion: v2\nname: web\nversion: 1.0.0\n"

const configMap = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"

// chartOf is a chart at the root of the source.
func chartOf(files map[string]string) fstest.MapFS {
	all := fstest.MapFS{"Chart.yaml": {Data: []byte(chartHead)}}
	for name, text := range files {
		all[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return all
}

func renderChart(files fs.FS, spec *v1alpha1.Specialize) (Manifest, error) {
	return Render(Input{Files: files, Spec: spec, Member: fleet.Member{Name: "eu-1"}, Rollout: fleet.RolloutName{Namespace: "shop", Name: "web"}})
}

// archived packs files as helm package does: below one folder. A name that ends in / is a folder, and a text of
// "-> x" a link.
func archived(t testing.TB, files map[string]string) string {
	t.Helper()
	var b bytes.Buffer
	zipped := gzip.NewWriter(&b)
	w := tar.NewWriter(zipped)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		text := files[name]
		h := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(text)), Typeflag: tar.TypeReg}
		if target, isLink := strings.CutPrefix(text, "-> "); isLink {
			h.Typeflag, h.Linkname, h.Size, text = tar.TypeSymlink, target, 0, ""
		} else if strings.HasSuffix(name, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), zipped.Close()); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestSubchartsInArchives(t *testing.T) {
	inner := archived(t, map[string]string{
		"inner/":                  "",
		"inner/Chart.yaml":        "\xef\xbb\xbfapiVersion: v2\nname: inner\nversion: 0.1.0\n",
		"inner/templates/cm.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: inner}\ndata: {a: \"{{ .Values.a }}\"}\n",
	})
	files := chartOf(map[string]string{
		"charts/db-2.0.0.tgz": archived(t, map[string]string{
			"db/Chart.yaml": "apiVersion: v2\nname: db\nversion: 2.0.0\n", "db/values.yaml": "inner: {a: from-db}\n",
			"db/templates/cm.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: db}\n", "db/charts/inner-0.1.0.tgz": inner,
		}),
		"charts/_left.tgz":      "this is not looked at",
		"files/not-a-chart.tgz": "nor this",
		"templates/cm.yaml":     configMap,
	})
	files["Chart.yaml"].Data = []byte(chartHead + "dependencies: [{name: db, version: 2.x, repository: \"https://charts.example\"}]\n")
	m, err := renderChart(files, nil)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, o := range m.Objects {
		names = append(names, o.GetName())
	}
	if got := strings.Join(names, " "); got != "inner db a" {
		t.Errorf("got %s", got)
	}
	if a, _, _ := unstructured.NestedString(m.Objects[0].Object, "data", "a"); a != "from-db" {
		t.Errorf("inner's value is %q", a)
	}
}

func TestArchivesOfChartsAreBounded(t *testing.T) {
	// A gibibyte of nothing, packed twice.
	nothing := strings.Repeat("\x00", 8<<20)
	bomb := map[string]string{"db/Chart.yaml": "apiVersion: v2\nname: db\nversion: 2.0.0\n"}
	for i := range 8 {
		bomb[fmt.Sprintf("db/files/%d", i)] = nothing
	}
	itself := archived(t, map[string]string{"a/Chart.yaml": "apiVersion: v2\nname: a\nversion: 2.0.0\n"})
	for range maxSubcharts + 2 {
		itself = archived(t, map[string]string{"a/Chart.yaml": "apiVersion: v2\nname: a\nversion: 2.0.0\n", "a/charts/a.tgz": itself})
	}
	many := map[string]string{"db/Chart.yaml": "apiVersion: v2\nname: db\nversion: 2.0.0\n"}
	for i := range maxFiles + 1 {
		many[fmt.Sprintf("db/files/%d", i)] = ""
	}
	long := map[string]string{} // folders, which are no files, with names of half a mebibyte
	for i := range 2*maxUnpacked>>20 + 3 {
		long[strings.Repeat("a/", 1<<18)+fmt.Sprint(i)+"/"] = ""
	}
	for name, tt := range map[string]struct{ archive, reason, says string }{
		"bytes":   {archived(t, bomb), "TooLarge", "charts/db.tgz"},
		"itself":  {itself, "TooLarge", "over 16 charts lie within each other"},
		"names":   {archived(t, long), "TooLarge", "charts/db.tgz: unpacked, it is over 41 MiB"},
		"files":   {archived(t, many), "TooLarge", "over 10000 files"},
		"link":    {archived(t, map[string]string{"db/Chart.yaml": "-> /etc/passwd"}), "RenderFailed", "holds db/Chart.yaml, which is no file"},
		"above":   {archived(t, map[string]string{"db/../../Chart.yaml": "a: b"}), "RenderFailed", "not in the chart's folder"},
		"windows": {archived(t, map[string]string{`db\..\..\Chart.yaml`: "a: b"}), "RenderFailed", "not in the chart's folder"},
		"root":    {archived(t, map[string]string{"Chart.yaml": "a: b"}), "RenderFailed", "not in the chart's folder"},
		"cut":     {archived(t, bomb)[:2000], "RenderFailed", "no archive of a chart: unexpected EOF"},
		"no tar":  {zippedText(t, "this is no tar"), "RenderFailed", "no archive of a chart"},
	} {
		_, err := renderChart(chartOf(map[string]string{"charts/db.tgz": tt.archive, "templates/cm.yaml": configMap}), nil)
		if fleet.ReasonOf(err, "") != tt.reason || !strings.Contains(fmt.Sprint(err), tt.says) {
			t.Errorf("%s: got %v, want %s: %s", name, err, tt.reason, tt.says)
		}
	}
}

func zippedText(t testing.TB, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestLinksInChartsAreRefused(t *testing.T) {
	files := chartOf(map[string]string{"templates/cm.yaml": configMap})
	files["files/link"] = &fstest.MapFile{Data: []byte("/etc/passwd"), Mode: fs.ModeSymlink | 0o777}
	if _, err := renderChart(files, nil); fleet.ReasonOf(err, "") != v1alpha1.ReasonRenderFailed || !strings.Contains(err.Error(), "files/link is a symbolic link") {
		t.Errorf("got %v", err)
	}
	files[".helmignore"] = &fstest.MapFile{Data: []byte("files/\n")}
	if _, err := renderChart(files, nil); err != nil {
		t.Errorf("ignored: %v", err)
	}
}

// TestSchemasAreNotFetched asks a real server, and a real file, in every way that a schema has.
func TestSchemasAreNotFetched(t *testing.T) {
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		_, _ = w.Write([]byte(`{}`))
	}))
	defer server.Close()
	for schema, want := range map[string]string{
		`{"$ref": "URL/a.json"}`:                                                    "nothing is fetched",
		`{"$schema": "URL/a.json"}`:                                                 "nothing is fetched",
		`{"$schema": "URL/a.json#"}`:                                                "nothing is fetched",
		`{"properties": {"a": {"$ref": "URL/a.json#/b"}}}`:                          "nothing is fetched",
		`{"$id": "URL/a.json", "properties": {"a": {"$ref": "b.json"}}}`:            "nothing is fetched",
		`{"$id": "URL/a.json", "properties": {"a": {"$ref": ""}}}`:                  "nothing is fetched",
		`{"properties": {"a": {"$dynamicRef": "URL/a.json"}}}`:                      "nothing is fetched",
		`{"$recursiveRef": "URL/a.json"}`:                                           "nothing is fetched",
		`{"properties": {"a": {"$schema": "URL/a.json", "$id": "URL/b.json"}}}`:     "nothing is fetched",
		`{"$ref": "#/x/y", "x": {"y": {"$ref": "URL/a.json"}}}`:                     "nothing is fetched",
		`{"$ref": "file:///etc/hostname"}`:                                          "nothing is fetched",
		`{"$ref": "hostname"}`:                                                      "nothing is fetched",
		`{"$ref": "urn:example:a"}`:                                                 "nothing is fetched",
		`{"$ref": "HTTP://example.org/a"}`:                                          "nothing is fetched",
		`{"$schema": "https://json-schema.org/draft/2020-12/else"}`:                 "nothing is fetched",
		`{"$ref": "#/nowhere"}`:                                                     "/nowhere",
		`{"properties": {"a": {"$ref": "#"}}}`:                                      "",
		`{"$schema": "http://json-schema.org/draft-07/schema#"}`:                    "",
		`{"$ref": "#/x/y", "x": {"$id": "URL/x.json", "y": {"$id": "URL/y.json"}}}`: "",
		`{"$id": "URL/a.json", "$defs": {"x": {"$anchor": "x"}}, "$ref": "#x"}`:     "",
		`{"$schema": "http://json-schema.org/draft-04/schema#", "id": "URL/a.json", "properties": {"a": {"id": "URL/b.json", "$ref": "#/c"}}, "c": {}}`: "",
		`{"$schema": "https://json-schema.org/draft/2020-12/schema", "$vocabulary": {"URL/v": true}}`:                                                   "",
	} {
		files := chartOf(map[string]string{"templates/cm.yaml": configMap, "values.schema.json": strings.ReplaceAll(schema, "URL", server.URL), "values.yaml": "a: {}\n"})
		_, err := renderChart(files, nil)
		if n := asked.Swap(0); n > 0 {
			t.Errorf("%s: fetched %d times", schema, n)
		}
		if (err == nil) != (want == "") || !strings.Contains(fmt.Sprint(err), want) || err != nil && fleet.KindOf(err) != fleet.Terminal {
			t.Errorf("%s: got %v, want %q", schema, err, want)
		}
	}
}

// TestDefaultKubeVersion: the version that charts are rendered for is that of the libraries in go.mod.
func TestDefaultKubeVersion(t *testing.T) {
	text, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`k8s.io/apimachinery v0\.(\d+\.\d+)`).FindSubmatch(text)
	if len(m) < 2 || defaultKubeVersion != "v1."+string(m[1]) {
		t.Errorf("%s, and go.mod has %q", defaultKubeVersion, m)
	}
	_, err = Render(Input{Files: chartOf(map[string]string{"templates/cm.yaml": configMap}), Rollout: fleet.RolloutName{Name: "web"}, Cluster: Cluster{KubeVersion: "new"}})
	if err == nil || fleet.KindOf(err) != fleet.Retryable {
		t.Errorf("a version that is none: %v", err)
	}
	spec := &v1alpha1.Specialize{Helm: &v1alpha1.HelmRender{Chart: &v1alpha1.HelmChart{Chart: "web", Version: "1.0.0"}}}
	if _, err := renderChart(fstest.MapFS{"a.yaml": {}}, spec); err == nil || fleet.KindOf(err) != fleet.Retryable {
		t.Errorf("a chart that is not here yet: %v", err)
	}
}

// TestChartsAtOnce renders every good case of the transcripts many times, concurrently.
func TestChartsAtOnce(t *testing.T) {
	for _, name := range helmTranscripts(t) {
		if strings.HasSuffix(name, "refused.txtar") {
			continue
		}
		_, names, cases, all := helmCases(t, name)
		results := make([][]string, len(names))
		var wait sync.WaitGroup
		for i, c := range names {
			if c == "certificate" {
				continue // which takes its time
			}
			in := cases[c].input(t, c, all)
			results[i] = make([]string, 4)
			for j := range results[i] {
				wait.Go(func() {
					m, err := Render(in)
					results[i][j] = fmt.Sprint(m.Digest, err)
				})
			}
		}
		wait.Wait()
		for i, c := range names {
			if different := slices.Compact(results[i]); len(different) > 1 {
				t.Errorf("%s: %s has %d different results:\n%s", name, c, len(different), strings.Join(different, "\n"))
			}
		}
	}
}

// drawValues gives values, some of them null.
func drawValues(t *rapid.T, depth int) map[string]any {
	values := map[string]any{}
	for range rapid.IntRange(0, 4).Draw(t, "entries") {
		key := rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "key")
		switch kind := rapid.IntRange(0, 5).Draw(t, "kind"); {
		case kind == 0:
			values[key] = nil
		case kind < 3 && depth > 0:
			values[key] = drawValues(t, depth-1)
		default:
			values[key] = rapid.SampledFrom([]any{"x", "y", 1.0, true, []any{"z"}}).Draw(t, "value")
		}
	}
	return values
}

// TestLaterValuesWin checks merging against a dumb way: the value at a path is the last file's that has anything
// there or at a prefix of it.
func TestLaterValuesWin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		layers := []map[string]any{drawValues(t, 2), drawValues(t, 2), drawValues(t, 2)}
		merged := map[string]any{}
		for _, l := range layers {
			merged = mergeValues(merged, l)
		}
		for _, path := range []string{"a", "a.b", "a.b.c", "b", "c.a", "d.d.d"} {
			var want any
			has := false
			for _, l := range layers {
				if v, there, scalarAbove := valueAt(l, path); there && !isMap(v) {
					want, has = v, true
				} else if scalarAbove {
					want, has = nil, false
				} else if there && !(has && isMap(want)) {
					want, has = v, true
				}
			}
			got, there, _ := valueAt(merged, path)
			if there != has || !isMap(want) && fmt.Sprint(got) != fmt.Sprint(want) || isMap(got) != isMap(want) {
				t.Fatalf("%s: got %v (%v), want %v (%v)\n%v\n%v", path, got, there, want, has, layers, merged)
			}
		}
	})
}

func isMap(v any) bool { _, is := v.(map[string]any); return is }

// valueAt gives what lies at a path, and says whether something that is no mapping lies above it.
func valueAt(values map[string]any, path string) (v any, there, scalarAbove bool) {
	v = values
	for word := range strings.SplitSeq(path, ".") {
		fields, is := v.(map[string]any)
		if !is {
			return nil, false, true
		}
		if v, there = fields[word]; !there {
			return nil, false, false
		}
	}
	return v, true, false
}

// TestSameValuesSameDigest: in which of the layers values stand does not matter, and their order does.
func TestSameValuesSameDigest(t *testing.T) {
	template := configMap + "data: {values: {{ .Values | toJson | quote }}}\n"
	rapid.Check(t, func(t *rapid.T) {
		file := func(values map[string]any) string {
			text, err := json.Marshal(values)
			if err != nil {
				t.Fatal(err)
			}
			return string(text)
		}
		a, b := drawValues(t, 2), drawValues(t, 2)
		digest := func(files map[string]string, spec v1alpha1.HelmRender) fleet.Digest {
			files["templates/cm.yaml"] = template
			m, err := renderChart(chartOf(files), &v1alpha1.Specialize{Helm: &spec})
			if err != nil {
				t.Fatal(err)
			}
			return m.Digest
		}
		inFiles := digest(map[string]string{"a.yaml": file(a), "b.yaml": file(b)}, v1alpha1.HelmRender{ValuesFiles: []string{"a.yaml", "b.yaml"}})
		inline := digest(map[string]string{"a.yaml": file(a)}, v1alpha1.HelmRender{ValuesFiles: []string{"a.yaml"}, Values: &runtime.RawExtension{Raw: []byte(file(b))}})
		if inFiles != inline {
			t.Fatalf("%v\n%v", a, b)
		}
		merged := digest(map[string]string{"c.yaml": file(mergeValues(a, b))}, v1alpha1.HelmRender{ValuesFiles: []string{"c.yaml"}})
		if inFiles != merged {
			t.Fatalf("merged: %v\n%v", a, b)
		}
	})
}

// TestBombsOfCharts: a chart that asks for too much by what stands in it is told so soon.
func TestBombsOfCharts(t *testing.T) {
	line := strings.Repeat("x", 100)
	for name, tt := range map[string]struct {
		files  map[string]string
		reason string
	}{
		"loops":             {map[string]string{"templates/a.yaml": "{{ range until 1100 }}{{ range until 1100 }}{{ end }}{{ end }}"}, "TooLarge"},
		"loops of numbers":  {map[string]string{"templates/a.yaml": "{{ range 2000 }}{{ range (2000) }}{{ end }}{{ end }}"}, "TooLarge"},
		"long loop":         {map[string]string{"templates/a.yaml": "{{ range untilStep 0 90000000 1 }}{{ end }}"}, "TooLarge"},
		"repeat":            {map[string]string{"templates/a.yaml": `{{ repeat 5000 (repeat 5000 "x") }}`}, "TooLarge"},
		"repeat in a loop":  {map[string]string{"templates/a.yaml": `{{ range until 5000 }}{{ $x := "x" | repeat 5000 }}{{ end }}`}, "TooLarge"},
		"long random":       {map[string]string{"templates/a.yaml": `{{ randAlphaNum 900000000 }}`}, "TooLarge"},
		"long output":       {map[string]string{"templates/a.yaml": "{{ range until 400000 }}" + line + "{{ end }}"}, "TooLarge"},
		"many documents":    {map[string]string{"templates/a.yaml": "{{ range until 20000 }}\n---\na: b{{ end }}"}, "TooLarge"},
		"many objects":      {map[string]string{"templates/a.yaml": "{{ range until 6000 }}\n---\n" + configMap + "{{ end }}"}, "TooLarge"},
		"many values":       {map[string]string{"templates/a.yaml": "a: [{{ range until 1000000 }}1,1,{{ end }}]"}, "TooLarge"},
		"itself":            {map[string]string{"templates/a.yaml": `{{ define "a" }}{{ template "a" }}{{ end }}{{ template "a" }}`}, "RenderFailed"},
		"itself, included":  {map[string]string{"templates/a.yaml": `{{ define "a" }}{{ include "a" . }}{{ end }}{{ include "a" . }}`}, "RenderFailed"},
		"itself, by tpl":    {map[string]string{"templates/a.yaml": `{{ define "a" }}{{ tpl "{{ include \"a\" . }}" . }}{{ end }}{{ include "a" . }}`}, "RenderFailed"},
		"values":            {map[string]string{"values.yaml": "a0: &a [" + strings.Repeat("x,", 1000) + "]\nb: &b [" + strings.Repeat("*a,", 1000) + "]\nc: [*b, *b]\n"}, "TooLarge"},
		"values of a chart": {map[string]string{"charts/db/Chart.yaml": chartHead, "charts/db/values.yaml": "a: " + strings.Repeat("[", 5000) + strings.Repeat("]", 5000)}, "TooLarge"},
		"Chart.yaml":        {map[string]string{"Chart.yaml": chartHead + "keywords: [" + strings.Repeat("x,", 2<<20) + "]"}, "TooLarge"},
	} {
		t.Run(name, func(t *testing.T) {
			tt.files["templates/b.yaml"] = configMap
			_, err := renderChart(chartOf(tt.files), nil)
			if fleet.ReasonOf(err, "") != tt.reason || fleet.KindOf(err) != fleet.Terminal {
				t.Errorf("got %v, want %s", err, tt.reason)
			}
			if len(fmt.Sprint(err)) > 2*mostSaid {
				t.Errorf("it says too much: %d bytes", len(err.Error()))
			}
		})
	}
}

// TestRealCharts renders charts that others wrote, with their default values.
func TestRealCharts(t *testing.T) {
	root := payloads(t)
	for path, objects := range map[string]int{
		"podinfo/charts/podinfo": 2, "online-boutique/helm-chart": 36, "ingress-nginx/charts/ingress-nginx": 18,
	} {
		in := Input{Files: os.DirFS(root), Path: path, Rollout: fleet.RolloutName{Namespace: "shop", Name: "web"}}
		m, err := Render(in)
		if err != nil || len(m.Objects) != objects {
			t.Errorf("%s: %d objects, want %d: %v", path, len(m.Objects), objects, err)
			continue
		}
		again, err := Render(in)
		if err != nil || again.Digest != m.Digest {
			t.Errorf("%s: another digest: %v", path, err)
		}
	}
}
