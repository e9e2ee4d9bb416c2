// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"cmp"
	"os"
	"path/filepath"
	"testing"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// payloads is the folder of payloads that others wrote; the test is skipped where it is not there.
func payloads(t testing.TB) string {
	t.Helper()
	// The default is beside the repository; tests run in their package's folder.
	dir, err := filepath.Abs(cmp.Or(os.Getenv("FLOTILLA_PAYLOADS"), "../../shared/payloads"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("the payloads that others wrote are not at %s; FLOTILLA_PAYLOADS says where they are", dir)
	}
	return dir
}

func TestPayloadsOfOthers(t *testing.T) {
	root := payloads(t)
	for path, objects := range map[string]int{
		"podinfo/kustomize":              3,
		"online-boutique/kustomize":      35,
		"online-boutique/kustomize/base": 35,
	} {
		m, err := Render(Input{Files: os.DirFS(root), Path: path})
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if len(m.Objects) != objects {
			t.Errorf("%s: %d objects, want %d", path, len(m.Objects), objects)
		}
		sameAsKustomize(t, filepath.Join(root, path), m)
	}
	for path, objects := range map[string]int{
		"podinfo/charts/podinfo": 2, "online-boutique/helm-chart": 36, "ingress-nginx/charts/ingress-nginx": 18,
	} {
		m, err := Render(Input{Files: os.DirFS(root), Path: path, Rollout: fleet.RolloutName{Namespace: "web", Name: "web"}})
		if err != nil || m.Engine != Helm || len(m.Objects) != objects {
			t.Errorf("%s: %d objects of %s, %v, want %d", path, len(m.Objects), m.Engine, err, objects)
		}
	}
}

// TestComponentsOfOthers puts an overlay over each component of Online Boutique.
func TestComponentsOfOthers(t *testing.T) {
	original := filepath.Join(payloads(t), "online-boutique", "kustomize")
	root := t.TempDir()
	if err := os.CopyFS(root, os.DirFS(original)); err != nil {
		t.Fatal(err)
	}
	components, err := os.ReadDir(filepath.Join(root, "components"))
	if err != nil {
		t.Fatal(err)
	}
	built := 0
	for _, c := range components {
		if !c.IsDir() {
			continue
		}
		overlay := filepath.Join("overlays", c.Name())
		if err := os.MkdirAll(filepath.Join(root, overlay), 0o755); err != nil {
			t.Fatal(err)
		}
		text := "namespace: boutique\nnameSuffix: -x\nresources: [../../base]\ncomponents: [../../components/" + c.Name() + "]\n"
		if err := os.WriteFile(filepath.Join(root, overlay, "kustomization.yaml"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		m, err := Render(Input{Files: os.DirFS(root), Path: "overlays/${CLUSTER}", Member: fleet.Member{Name: fleet.Name(c.Name())}})
		if err != nil {
			t.Errorf("%s: %v", c.Name(), err)
			continue
		}
		sameAsKustomize(t, filepath.Join(root, overlay), m)
		built++
	}
	if built < 10 {
		t.Errorf("only %d components were built", built)
	}
}
