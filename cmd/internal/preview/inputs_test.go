// SPDX-License-Identifier: Apache-2.0

package preview

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/specialize"
)

func TestObjects(t *testing.T) {
	body := `apiVersion: v1
kind: ConfigMap
metadata: {name: a, namespace: apps}
data: {x: "1"}
binaryData: {z: Mg==}
---
# nothing
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Secret, metadata: {name: a}, data: {p: aHVudGVy}, stringData: {q: plain}}
`
	file := filepath.Join(t.TempDir(), "objects.yaml")
	if err := os.WriteFile(file, []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := readObjects([]string{file}, "apps")
	if err != nil {
		t.Fatal(err)
	}
	want := map[specialize.Reference]map[string]string{
		{Kind: "ConfigMap", Name: "a"}: {"x": "1", "z": "2"},
		{Kind: "Secret", Name: "a"}:    {"p": "hunter", "q": "plain"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

var secrets = []string{
	`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a"},"data":{"p":"hunter2!"}}`,
	`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a"},"data":{"p":{"hunter2":1}}}`,
	`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a"},"stringData":["hunter2"]}`,
	`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a"},"stringData":"hunter2"}`,
	`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a"},"stringData":{"p":"hunter2"}} hunter2`,
	`{"kind":"List","items":[{"apiVersion":"v1","kind":"Secret","data":"hunter2"}]}`,
	`{"kind":"List","items":{"data":"hunter2"}}`, `"hunter2"`, `["hunter2"]`,
}

// No error repeats what a Secret holds.
func TestObjectsAreNotQuoted(t *testing.T) {
	for _, raw := range secrets {
		err := addObject(map[specialize.Reference]map[string]string{}, []byte(raw), "apps")
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", raw, err)
		}
	}
}

// No bytes make reading objects panic, and none are kept where it fails.
func FuzzObjects(f *testing.F) {
	for _, raw := range append(secrets, `null`, `{"kind":"List","items":[null,1]}`, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}`) {
		f.Add([]byte(raw))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		out := map[specialize.Reference]map[string]string{}
		err := addObject(out, raw, "apps")
		for ref, data := range out {
			if ref.Name == "" || data == nil || ref.Kind != "ConfigMap" && ref.Kind != "Secret" {
				t.Errorf("%v of %s: %v", ref, raw, err)
			}
		}
	})
}

// A chart in a folder is compared with the one that the rollout names.
func TestChartNotes(t *testing.T) {
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "Chart.yaml"), []byte("apiVersion: v2\nname: web\nversion: 1.4.2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for about, test := range map[string]struct {
		source *v1alpha1.HelmSource
		chart  *v1alpha1.HelmChart
		want   string
	}{
		"the one":                  {&v1alpha1.HelmSource{Chart: "charts/web", Version: "v1.4.2"}, nil, ""},
		"a range":                  {&v1alpha1.HelmSource{Chart: "web", Version: "1.x"}, nil, ""},
		"another version":          {&v1alpha1.HelmSource{Chart: "web", Version: "1.4.3"}, nil, "holds the chart web 1.4.2; the rollout names web 1.4.3"},
		"another chart":            {nil, &v1alpha1.HelmChart{Chart: "api", Version: "1.4.2"}, "holds the chart web 1.4.2; the rollout names api 1.4.2"},
		"the one beside a payload": {nil, &v1alpha1.HelmChart{Chart: "web", Version: "1.4.2"}, ""},
	} {
		r := rolloutOf(t, "")
		in := Inputs{Payload: folder}
		if test.source != nil {
			r.Spec.Source = v1alpha1.Source{Helm: test.source}
		} else {
			r.Spec.Specialize = &v1alpha1.Specialize{Helm: &v1alpha1.HelmRender{Chart: test.chart}}
			in.Chart = folder
		}
		p, err := Open(r, in)
		if err != nil {
			t.Errorf("%s: %v", about, err)
			continue
		}
		if notes := strings.Join(p.Notes, "\n"); (test.want == "") != (notes == "") || !strings.HasSuffix(notes, test.want) {
			t.Errorf("%s: %q, want %q", about, notes, test.want)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	r := rolloutOf(t, "")
	r.Spec.Specialize = &v1alpha1.Specialize{Helm: &v1alpha1.HelmRender{Chart: &v1alpha1.HelmChart{Chart: "web", Version: "1.4.2"}}}
	if _, err := Open(r, Inputs{Payload: folder}); err == nil || err.Error() != "spec.specialize.helm.chart: the rollout needs the chart web 1.4.2 (give its folder with --chart)" {
		t.Errorf("without the chart: %v", err)
	}
}
