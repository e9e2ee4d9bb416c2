// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// deployments is n Deployments of an ordinary size, about 40 lines each.
func deployments(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web-%[1]d
  labels: {app: web-%[1]d, team: shop}
spec:
  replicas: 2
  selector:
    matchLabels: {app: web-%[1]d}
  template:
    metadata:
      labels: {app: web-%[1]d}
      annotations:
        prometheus.io/scrape: "true"
        prometheus.io/port: "9090"
    spec:
      serviceAccountName: web
      containers:
      - name: web
        image: registry.example/web:1.0.0
        args: ["--listen=:8080", "--log=info"]
        ports:
        - {name: http, containerPort: 8080}
        - {name: metrics, containerPort: 9090}
        env:
        - {name: REGION, value: none}
        - name: TOKEN
          valueFrom:
            secretKeyRef: {name: token, key: value}
        resources:
          requests: {cpu: 100m, memory: 128Mi}
          limits: {memory: 256Mi}
        readinessProbe:
          httpGet: {path: /healthz, port: http}
          periodSeconds: 5
      volumes:
      - name: settings
        configMap: {name: settings}
`, i)
	}
	return b.String()
}

// patchDeployments is a spec that does what most specs do.
func patchDeployments() *v1alpha1.Specialize {
	return &v1alpha1.Specialize{
		NamePrefix: "eu-", TargetNamespace: "shop",
		Images: []v1alpha1.Image{{Name: "registry.example/web", NewTag: "1.4.2"}},
		Patches: []v1alpha1.Patch{{
			Target: &v1alpha1.PatchTarget{Kind: "Deployment"},
			Patch:  `[{"op": "replace", "path": "/spec/replicas", "value": 3}]`,
		}},
	}
}

// BenchmarkRender renders payloads of 3, 30, 300 and 3,000 objects for one member: as they are, with the transforms
// that specs usually have, with metadata and variables alone, which need no kustomize, and with an overlay of their
// own that does what the transforms do. What is too large for kustomize is skipped; 3,000 objects take it 40 s.
func BenchmarkRender(b *testing.B) {
	member := fleet.Member{Name: "eu-1", Labels: map[string]string{"region": "eu"}}
	light := &v1alpha1.Specialize{
		CommonMetadata: &v1alpha1.CommonMetadata{Labels: map[string]string{"team": "shop"}},
		PostBuild:      &v1alpha1.PostBuild{Substitute: map[string]string{"tag": "1.0.0"}},
	}
	for _, n := range []int{3, 30, 300, 3000} {
		all := &fstest.MapFile{Data: []byte(strings.ReplaceAll(deployments(n), "value: none", "value: \"${tag}\""))}
		plain := fstest.MapFS{"eu/all.yaml": all}
		kustomized := fstest.MapFS{"eu/all.yaml": all, "eu/kustomization.yaml": {Data: []byte("resources: [all.yaml]\n")}}
		overlaid := fstest.MapFS{
			"base/all.yaml":           all,
			"base/kustomization.yaml": {Data: []byte("resources: [all.yaml]\n")},
			"eu/kustomization.yaml": {Data: []byte(`
namePrefix: eu-
namespace: shop
resources: [../base]
images: [{name: registry.example/web, newTag: 1.4.2}]
configMapGenerator: [{name: settings, literals: [REGION=eu]}]
patches:
- target: {kind: Deployment}
  patch: |-
    [{"op": "replace", "path": "/spec/replicas", "value": 3}]
`)},
		}
		for _, c := range []struct {
			name  string
			files fstest.MapFS
			spec  *v1alpha1.Specialize
		}{
			{"plain", plain, nil},
			{"plain-substituted", plain, light},
			{"plain-transformed", plain, patchDeployments()},
			{"kustomize", kustomized, nil},
			{"kustomize-transformed", kustomized, patchDeployments()},
			{"kustomize-overlay", overlaid, nil},
		} {
			b.Run(fmt.Sprintf("%s/%d", c.name, n), func(b *testing.B) {
				b.ReportAllocs()
				if _, err := Render(Input{Files: c.files, Path: "${LABEL_region}", Member: member, Spec: c.spec}); fleet.ReasonOf(err, "") == v1alpha1.ReasonTooLarge {
					b.Skip(err)
				}
				start := processorTime(b)
				for b.Loop() {
					m, err := Render(Input{Files: c.files, Path: "${LABEL_region}", Member: member, Spec: c.spec})
					if err != nil {
						b.Fatal(err)
					}
					if len(m.Objects) < n {
						b.Fatalf("%d objects, want %d", len(m.Objects), n)
					}
				}
				// Of all threads, the garbage collector's among them; a busy machine does not change it much.
				b.ReportMetric(float64(processorTime(b)-start)/float64(b.N), "cpu-ns/op")
			})
		}
	}
}

// BenchmarkFill fills the path alone.
func BenchmarkFill(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := (Input{Member: store12}).fillPath("./overlays/${LABEL_region}/${CLUSTER}"); err != nil {
			b.Fatal(err)
		}
	}
}
