// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	"sigs.k8s.io/yaml"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// helmCase is one cases/<name> of a transcript in testdata/helm: files/ is the source, repository/<chart> a chart that
// is not in it, and want/<name> the manifest or the error.
type helmCase struct {
	Path       string                       `json:"path"`
	Specialize *v1alpha1.Specialize         `json:"specialize"`
	Member     string                       `json:"member"`
	Rollout    string                       `json:"rollout"`
	Chart      string                       `json:"chart"`
	Kube       string                       `json:"kubeVersion"`
	APIs       []string                     `json:"apiVersions"`
	Objects    map[string]map[string]string `json:"objects"`
	Retryable  bool                         `json:"retryable"`
}

// input of a case; its name is the payload's folder where it says no other.
func (c helmCase) input(t testing.TB, name string, all fs.FS) Input {
	t.Helper()
	in := Input{
		Files: sub(t, all, "files"), Path: c.Path, Spec: c.Specialize, Member: parseHelmMember(c.Member),
		Rollout: fleet.RolloutName{Namespace: "shop", Name: "web"},
		Cluster: Cluster{KubeVersion: c.Kube, APIVersions: c.APIs, Objects: map[Reference]map[string]string{}},
	}
	if c.Path == "" {
		in.Path = name
	}
	if c.Rollout != "" {
		in.Rollout.Name = c.Rollout
	}
	if c.Chart != "" {
		in.Chart = sub(t, all, "repository/"+c.Chart)
	}
	for ref, data := range c.Objects {
		kind, object, _ := strings.Cut(ref, "/")
		in.Cluster.Objects[Reference{kind, object}] = data
	}
	return in
}

// parseHelmMember reads "eu-1 zone=a region=eu".
func parseHelmMember(line string) fleet.Member {
	words := strings.Fields(line)
	m := fleet.Member{Name: "eu-1", Labels: map[string]string{}}
	for i, w := range words {
		switch k, v, isPair := strings.Cut(w, "="); {
		case i == 0:
			m.Name = fleet.Name(w)
		case isPair && k == "zone":
			m.Zone = v
		case isPair:
			m.Labels[k] = v
		}
	}
	return m
}

func sub(t testing.TB, all fs.FS, dir string) fs.FS {
	t.Helper()
	if _, err := fs.Stat(all, dir); err != nil {
		t.Fatalf("no %s: %v", dir, err)
	}
	files, err := fs.Sub(all, dir)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// helmCases reads a transcript: its files, and the inputs of its cases by their names.
func helmCases(t testing.TB, name string) (*txtar.Archive, []string, map[string]helmCase, fs.FS) {
	t.Helper()
	archive, err := txtar.ParseFile(name)
	if err != nil {
		t.Fatal(err)
	}
	all, err := txtar.FS(archive)
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]helmCase{}
	var names []string
	for _, f := range archive.Files {
		caseName, is := strings.CutPrefix(f.Name, "cases/")
		if !is {
			continue
		}
		var c helmCase
		if err := yaml.UnmarshalStrict(f.Data, &c); err != nil {
			t.Fatalf("%s: %s: %v", name, f.Name, err)
		}
		cases[caseName] = c
		names = append(names, caseName)
	}
	return archive, names, cases, all
}

func helmTranscripts(t testing.TB) []string {
	t.Helper()
	names, err := filepath.Glob("testdata/helm/*.txtar")
	if err != nil || len(names) == 0 {
		t.Fatalf("no transcripts in testdata/helm: %v", err)
	}
	return names
}

// saidOfChart is what a case's want file holds.
func saidOfChart(t *testing.T, m Manifest, err error, retryable bool) string {
	t.Helper()
	if err != nil {
		if got := fleet.KindOf(err) == fleet.Retryable; got != retryable {
			t.Errorf("retryable is %v: %v", got, err)
		}
		return fmt.Sprintf("%s: %s\n", fleet.ReasonOf(err, "?"), err)
	}
	text, err := m.YAML()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("# %s, %s, %d objects\n%s", m.Engine, m.Path, len(m.Objects), text)
}

func TestHelmTranscripts(t *testing.T) {
	for _, name := range helmTranscripts(t) {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			archive, names, cases, all := helmCases(t, name)
			got := map[string]string{}
			for _, c := range names {
				m, err := Render(cases[c].input(t, c, all))
				got["want/"+c] = saidOfChart(t, m, err, cases[c].Retryable)
			}
			if os.Getenv("UPDATE_GOLDEN") == "1" {
				rewriteHelm(t, name, archive, names, got)
				return
			}
			want := map[string]string{}
			for _, f := range archive.Files {
				if strings.HasPrefix(f.Name, "want/") {
					want[f.Name] = string(f.Data)
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the manifests are others now (-want +got; UPDATE_GOLDEN=1 rewrites):\n%s", diff)
			}
		})
	}
}

func rewriteHelm(t *testing.T, name string, archive *txtar.Archive, names []string, got map[string]string) {
	t.Helper()
	archive.Files = slices.DeleteFunc(archive.Files, func(f txtar.File) bool { return strings.HasPrefix(f.Name, "want/") })
	for _, c := range names {
		archive.Files = append(archive.Files, txtar.File{Name: "want/" + c, Data: []byte(got["want/"+c])})
	}
	if err := os.WriteFile(name, txtar.Format(archive), 0o644); err != nil {
		t.Fatal(err)
	}
}
