// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// transcript is one txtar of testdata: files/ is the source, fleet and path say what to render, spec (of all) or
// spec/<member> how it differs, cluster/<kind>/<name> what is in the members' clusters, and want/<member> is the
// manifest or the error of each member.
type transcript struct {
	archive *txtar.Archive
	path    string
	members []fleet.Member
	specs   map[string]*v1alpha1.Specialize
	cluster Cluster
}

// input is what a member renders.
func (tr transcript) input(files fs.FS, m fleet.Member) Input {
	spec := tr.specs[string(m.Name)]
	if spec == nil {
		spec = tr.specs[""]
	}
	return Input{
		Files: files, Path: tr.path, Member: m, Spec: spec, Cluster: tr.cluster,
		Rollout: fleet.RolloutName{Namespace: "shop", Name: "web"},
	}
}

func readTranscript(t *testing.T, name string) transcript {
	t.Helper()
	archive, err := txtar.ParseFile(name)
	if err != nil {
		t.Fatal(err)
	}
	tr := transcript{
		archive: archive, specs: map[string]*v1alpha1.Specialize{}, cluster: Cluster{Objects: map[Reference]map[string]string{}},
	}
	for _, f := range archive.Files {
		into := func(value any) {
			if err := yaml.UnmarshalStrict(f.Data, value); err != nil {
				t.Fatalf("%s: %s: %v", name, f.Name, err)
			}
		}
		switch parts := strings.Split(f.Name, "/"); parts[0] {
		case "spec":
			spec := &v1alpha1.Specialize{}
			into(spec)
			tr.specs[strings.TrimPrefix(strings.TrimPrefix(f.Name, "spec"), "/")] = spec
		case "cluster":
			data := map[string]string{}
			into(&data)
			tr.cluster.Objects[Reference{parts[1], parts[2]}] = data
		case "path":
			tr.path = strings.TrimSpace(string(f.Data))
		case "fleet":
			for line := range strings.Lines(string(f.Data)) {
				tr.members = append(tr.members, parseMember(line))
			}
		}
	}
	if len(tr.members) == 0 || tr.path == "" {
		t.Fatalf("%s: a transcript has a fleet and a path", name)
	}
	return tr
}

// parseMember reads "eu-1 zone=a region=eu".
func parseMember(line string) fleet.Member {
	words := strings.Fields(line)
	m := fleet.Member{Name: fleet.Name(words[0]), Labels: map[string]string{}}
	for _, w := range words[1:] {
		k, v, _ := strings.Cut(w, "=")
		if k == "zone" {
			m.Zone = v
		} else {
			m.Labels[k] = v
		}
	}
	return m
}

func (tr transcript) files(t *testing.T) fs.FS {
	t.Helper()
	all, err := txtar.FS(tr.archive)
	if err != nil {
		t.Fatal(err)
	}
	files, err := fs.Sub(all, "files")
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// said is what a member's want file holds.
func said(t *testing.T, m Manifest, err error) []byte {
	t.Helper()
	if err != nil {
		if fleet.KindOf(err) != fleet.Terminal && fleet.ReasonOf(err, "") != v1alpha1.ReasonInputMissing {
			t.Errorf("not a terminal error: %v", err)
		}
		return fmt.Appendf(nil, "%s: %s\n", fleet.ReasonOf(err, "?"), err)
	}
	text, err := m.YAML()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Appendf(nil, "# %s, %s, %d objects, %s\n%s", m.Engine, m.Path, len(m.Objects), m.Digest, text)
}

func TestTranscripts(t *testing.T) {
	names, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(names) == 0 {
		t.Fatalf("no transcripts in testdata: %v", err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			tr := readTranscript(t, name)
			files := tr.files(t)
			got := map[string][]byte{}
			for _, member := range tr.members {
				in := tr.input(files, member)
				m, err := Render(in)
				want := said(t, m, err)
				if wrong := Check(in.Spec); wrong != nil {
					want = append(want, "Check: "+wrong.Error()+"\n"...)
				}
				got["want/"+string(member.Name)] = want
			}
			if os.Getenv("UPDATE_GOLDEN") == "1" {
				rewrite(t, name, tr, got)
				return
			}
			want := map[string][]byte{}
			for _, f := range tr.archive.Files {
				if strings.HasPrefix(f.Name, "want/") {
					want[f.Name] = f.Data
				}
			}
			if diff := cmp.Diff(texts(want), texts(got)); diff != "" {
				t.Errorf("the manifests are others now (-want +got; UPDATE_GOLDEN=1 rewrites):\n%s", diff)
			}
		})
	}
}

func texts(in map[string][]byte) map[string][]string {
	out := map[string][]string{}
	for k, v := range in {
		out[k] = strings.Split(string(v), "\n")
	}
	return out
}

func rewrite(t *testing.T, name string, tr transcript, got map[string][]byte) {
	t.Helper()
	tr.archive.Files = slices.DeleteFunc(tr.archive.Files, func(f txtar.File) bool { return strings.HasPrefix(f.Name, "want/") })
	for _, m := range tr.members {
		key := "want/" + string(m.Name)
		tr.archive.Files = append(tr.archive.Files, txtar.File{Name: key, Data: got[key]})
	}
	if err := os.WriteFile(name, txtar.Format(tr.archive), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestSameAsKustomize builds every transcript's payload with kustomize itself, from a copy on disk.
func TestSameAsKustomize(t *testing.T) {
	names, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	compared := 0
	for _, name := range names {
		tr := readTranscript(t, name)
		files := tr.files(t)
		dir := t.TempDir()
		if err := os.CopyFS(dir, files); err != nil {
			t.Fatal(err)
		}
		for _, member := range tr.members {
			in := tr.input(files, member)
			if in.Spec != nil {
				continue
			}
			m, err := Render(in)
			if err != nil || m.Engine != Kustomize {
				continue
			}
			compared++
			sameAsKustomize(t, filepath.Join(dir, m.Path), m)
		}
	}
	if compared < 10 {
		t.Errorf("only %d manifests were compared", compared)
	}
}

// sameAsKustomize compares a manifest with what kustomize prints for a folder on disk.
func sameAsKustomize(t *testing.T, dir string, m Manifest) {
	t.Helper()
	building.Lock()
	defer building.Unlock()
	options := krusty.MakeDefaultOptions()
	options.LoadRestrictions = types.LoadRestrictionsNone
	built, err := krusty.MakeKustomizer(options).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		t.Errorf("%s: kustomize itself fails: %v", m.Path, err)
		return
	}
	printed, err := built.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	var want, got []any
	for _, doc := range bytes.Split(printed, []byte("\n---\n")) {
		var o map[string]any
		if err := yaml.Unmarshal(doc, &o); err != nil {
			t.Fatal(err)
		}
		want = append(want, o)
	}
	for _, o := range m.Objects {
		text, err := yaml.Marshal(o.Object)
		if err != nil {
			t.Fatal(err)
		}
		var again map[string]any
		if err := yaml.Unmarshal(text, &again); err != nil {
			t.Fatal(err)
		}
		got = append(got, again)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: not what kustomize prints (-kustomize +ours):\n%s", m.Path, diff)
	}
}
