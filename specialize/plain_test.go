// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

func TestOrderIsThatOfThePaths(t *testing.T) {
	files := fstest.MapFS{}
	// A folder comes where its name with a slash does: after b-1.yaml, and before b0.yaml.
	for i, name := range []string{"a.json", "b-1.yaml", "b.yml", "b/c.yaml", "b0.yaml", "z/a/a.yaml", "z/b.yaml"} {
		files[name] = &fstest.MapFile{Data: fmt.Appendf(nil, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: o%d}\n", i)}
	}
	m, err := Render(Input{Files: files})
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range m.Objects {
		if want := fmt.Sprintf("o%d", i); o.GetName() != want {
			t.Errorf("object %d is %s, want %s", i, o.GetName(), want)
		}
	}
}

func TestJSONIsReadAsJSON(t *testing.T) {
	head := `{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": `
	tests := map[string]struct{ text, want, says string }{
		"surrogates":    {text: head + `{"k": "\ud83d\ude00"}}`, want: "\U0001F600"},
		"next line":     {text: head + "{\"k\": \"a\u0085b\"}}", want: "a\u0085b"},
		"delete":        {text: head + "{\"k\": \"a\x7fb\"}}", want: "a\x7fb"},
		"twice":         {text: head + `{"k": "a", "l": {"k": "c"}, "k": "b"}}`, says: `a.json: document 1 (line 1): key "k" is there twice`},
		"twice, at top": {text: head + `{}, "data": {}}`, says: `key "data" is there twice`},
		"deep":          {text: head + strings.Repeat(`{"k": [`, 40) + strings.Repeat("]}", 40) + "}", says: "over 64 deep"},
		"many":          {text: head + "[" + strings.Repeat("1,", maxValues) + "1]}", says: "over 1048576 values"},
		"large":         {text: head + `"` + strings.Repeat("x", maxDocument) + `"}`, says: "at most 4 MiB"},
		"large number":  {text: head + "1e400}", says: "1e400"},
		"text":          {text: `"a"`, says: "not a Kubernetes object"},
		"null":          {text: "null", says: "holds no objects"},
	}
	for name, tt := range tests {
		m, err := Render(Input{Files: fstest.MapFS{"a.json": {Data: []byte(tt.text)}}})
		if tt.says != "" {
			if fleet.KindOf(err) != fleet.Terminal || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%s: got %v, want %q", name, err, tt.says)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := m.Objects[0].Object["data"].(map[string]any)["k"]; got != tt.want {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
}

func TestNamespaceOfTheRolloutTellsTwins(t *testing.T) {
	files := fstest.MapFS{"a.yaml": {Data: []byte(`
apiVersion: v1
kind: ConfigMap
metadata: {name: a}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: a, namespace: shop}
`)}}
	if _, err := Render(Input{Files: files, Rollout: fleet.RolloutName{Namespace: "other"}}); err != nil {
		t.Errorf("in another namespace: %v", err)
	}
	_, err := Render(Input{Files: files, Rollout: fleet.RolloutName{Namespace: "shop"}})
	if fleet.ReasonOf(err, "") != v1alpha1.ReasonInvalidManifest {
		t.Errorf("in shop they are one object: got %v", err)
	}
}

// broken fails as a store of objects does that lost one.
type broken struct{ fstest.MapFS }

var errLost = errors.New("object is lost")

func (b broken) Open(name string) (fs.File, error) {
	if strings.HasSuffix(name, "a.yaml") {
		return nil, &fs.PathError{Op: "open", Path: name, Err: errLost}
	}
	return b.MapFS.Open(name)
}

func TestErrorsOfTheSourceCanBeTriedAgain(t *testing.T) {
	for name, files := range map[string]fstest.MapFS{
		"plain":     {"a.yaml": {Data: []byte("x")}},
		"kustomize": {"a.yaml": {Data: []byte("x")}, "kustomization.yaml": {Data: []byte("resources: [a.yaml]")}},
	} {
		_, err := Render(Input{Files: broken{files}})
		if !errors.Is(err, errLost) || fleet.KindOf(err) != fleet.Retryable {
			t.Errorf("%s: got %v, want a retryable error that wraps %v", name, err, errLost)
		}
	}
	if _, err := Render(Input{}); err == nil {
		t.Error("no files and no error")
	}
}

func TestLinksAreRefused(t *testing.T) {
	outside, root := t.TempDir(), t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	link := func(to, name string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(to, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	cm := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"
	write(filepath.Join(outside, "secret.yaml"), cm)
	write(filepath.Join(outside, "kustomization.yaml"), "resources: [secret.yaml]")
	write(filepath.Join(root, "ok", "a.yaml"), cm)
	link(filepath.Join(outside, "secret.yaml"), "plain/a.yaml")
	link(outside, "folder/sub")
	link(outside, "linked")
	write(filepath.Join(root, "kustomized", "kustomization.yaml"), "resources: [a.yaml]")
	link(filepath.Join(outside, "secret.yaml"), "kustomized/a.yaml")
	write(filepath.Join(root, "base", "kustomization.yaml"), "resources: [../linked]")
	write(filepath.Join(root, "through", "kustomization.yaml"), "resources: [../linked/secret.yaml]")
	link(filepath.Join(outside, "kustomization.yaml"), "itself/kustomization.yaml")
	link("../ok/a.yaml", "near/a.yaml")
	link("loop", "loop")

	for _, path := range []string{"plain", "folder", "linked", "linked/x", "kustomized", "base", "through", "itself", "near", "loop"} {
		_, err := Render(Input{Files: os.DirFS(root), Path: path})
		if fleet.ReasonOf(err, "") != v1alpha1.ReasonRenderFailed || !strings.Contains(err.Error(), "is a symbolic link") {
			t.Errorf("%s: got %v", path, err)
		}
	}
	if _, err := Render(Input{Files: os.DirFS(root), Path: "ok"}); err != nil {
		t.Errorf("without a link: %v", err)
	}
}

func TestOnlyWhatIsReferredToIsRead(t *testing.T) {
	asked := map[string]bool{}
	files := noting{fstest.MapFS{
		"kustomization.yaml": {Data: []byte("resources: [a.yaml]")},
		"a.yaml":             {Data: []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n")},
		"b.yaml":             {Data: []byte("not: referred to")},
	}, asked}
	if _, err := Render(Input{Files: files}); err != nil {
		t.Fatal(err)
	}
	if asked["b.yaml"] || !asked["a.yaml"] {
		t.Errorf("opened: %v", asked)
	}
}

type noting struct {
	fstest.MapFS
	opened map[string]bool
}

func (n noting) Open(name string) (fs.File, error) {
	n.opened[name] = true
	return n.MapFS.Open(name)
}

// FuzzDecode: whatever a file holds, decoding ends, and what it gives decodes again to the same.
func FuzzDecode(f *testing.F) {
	for _, text := range bombs() {
		if len(text) < 4096 {
			f.Add([]byte(text))
		}
	}
	for _, text := range []string{
		"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\napiVersion: v1\nkind: List\nitems: []\n",
		"{\"apiVersion\": \"v1\", \"kind\": \"Secret\", \"metadata\": {\"name\": \"a\"}, \"data\": {\"k\": \"AA==\"}}",
		"a: |\n  x\n...\n--- !!str\n", "? [a]\n: b\n", "!!binary AA==\n", "a: 0x1f\nb: 1e400\nc: .inf\n", "\xef\xbb\xbfa: b\n", "\xff\xfe-\x00-\x00",
		"apiVersion: v1\nkind: XList\nitems: [{metadata: {name: y}}, null, 1]\n", "<<: {a: b}\n", "a: &x\nb: *x\n", "---\n---\r\n--- # c\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		m, err := Render(Input{Files: fstest.MapFS{"a.yaml": {Data: content}}})
		if err != nil {
			if fleet.KindOf(err) != fleet.Terminal {
				t.Fatalf("not terminal: %v", err)
			}
			if strings.Contains(err.Error(), "the engine stopped with") {
				t.Fatalf("it panicked: %v", err)
			}
			return
		}
		text, err := m.YAML()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Render(Input{Files: fstest.MapFS{"a.yaml": {Data: text}}})
		if err != nil {
			t.Fatalf("what it printed is refused: %v\n%s", err, text)
		}
		if again.Digest != m.Digest {
			t.Fatalf("what it printed is something else:\n%s", text)
		}
	})
}
