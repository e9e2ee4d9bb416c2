// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/flotilla-dev/flotilla/api/fleet"
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

// BenchmarkRender renders payloads of 3, 30 and 300 objects for one member. The overlay adds a name prefix, a
// namespace, an image, a patch on every object and a generated ConfigMap: what overlays usually do.
func BenchmarkRender(b *testing.B) {
	member := fleet.Member{Name: "eu-1", Labels: map[string]string{"region": "eu"}}
	for _, n := range []int{3, 30, 300} {
		all := &fstest.MapFile{Data: []byte(deployments(n))}
		for _, engine := range []struct {
			name  string
			files fstest.MapFS
		}{
			{Plain, fstest.MapFS{"eu/all.yaml": all}},
			{Kustomize, fstest.MapFS{
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
			}},
		} {
			b.Run(fmt.Sprintf("%s/%d", engine.name, n), func(b *testing.B) {
				b.ReportAllocs()
				start := processorTime(b)
				for b.Loop() {
					m, err := Render(Input{Files: engine.files, Path: "${LABEL_region}", Member: member})
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
		if _, err := fill("./overlays/${LABEL_region}/${CLUSTER}", store12); err != nil {
			b.Fatal(err)
		}
	}
}
