// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/cmd/internal/agent"
	"github.com/flotilla-dev/flotilla/cmd/internal/agent/turn"
	"github.com/flotilla-dev/flotilla/specialize"
	"github.com/flotilla-dev/flotilla/specialize/jail"
)

const benchObject = `apiVersion: apps/v1
kind: Deployment
metadata: {name: app-%d, labels: {app: app-%d}}
spec:
  replicas: 2
  selector: {matchLabels: {app: app-%d}}
  template:
    metadata: {labels: {app: app-%d}}
    spec:
      containers:
      - name: app
        image: registry.example.com/app:1.0.0
        ports: [{containerPort: 8080}]
        env: [{name: REGION, value: eu}, {name: LEVEL, value: info}]
`

func benchPayload(engine string, objects int) fstest.MapFS {
	files := fstest.MapFS{}
	put := func(name, content string) { files[name] = &fstest.MapFile{Data: []byte(content)} }
	if engine == specialize.Helm {
		put("Chart.yaml", "apiVersion: v2\nname: bench\nversion: 1.0.0\n")
		put("values.yaml", fmt.Sprintf("count: %d\n", objects))
		object := strings.ReplaceAll(benchObject, "%d", "{{ . }}")
		put("templates/apps.yaml", "{{ range until (int .Values.count) }}\n---\n"+object+"{{ end }}\n")
		return files
	}
	var all strings.Builder
	for i := range objects {
		fmt.Fprintf(&all, benchObject+"---\n", i, i, i, i)
	}
	put("apps.yaml", all.String())
	put("kustomization.yaml", "resources: [apps.yaml]\nnamePrefix: eu-\nimages: [{name: registry.example.com/app, newTag: 1.2.3}]\n")
	return files
}

// BenchmarkRender is what the agent does: cold, in a jailed process of its own; and once more, from memory.
func BenchmarkRender(b *testing.B) {
	for _, engine := range []string{specialize.Kustomize, specialize.Helm} {
		for _, objects := range []int{3, 30, 300, 3000} {
			request := turn.RenderRequest{
				Source: "bench",
				Input: specialize.Input{
					Files: benchPayload(engine, objects), Path: ".", Rollout: fleet.RolloutName{Namespace: "bench", Name: "bench"},
					Member: fleet.Member{Name: "eu-1"}, Cluster: specialize.Cluster{KubeVersion: "v1.36.3"},
				},
			}
			for _, kind := range []string{"cold", "cached"} {
				b.Run(fmt.Sprintf("%s/objects=%d/%s", engine, objects, kind), func(b *testing.B) {
					renderer := &agent.CachedRenderer{Engine: &jail.Renderer{}}
					benchRender(b, renderer, request, kind == "cold")
				})
			}
		}
	}
}

func benchRender(b *testing.B, renderer *agent.CachedRenderer, r turn.RenderRequest, cold bool) {
	b.ReportAllocs()
	var took []time.Duration
	render := func(n int) {
		if cold {
			r.Revision = fleet.Revision(fmt.Sprintf("main@sha1:%d", n))
		}
		began := time.Now()
		if _, err := renderer.Render(b.Context(), r); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(began))
	}
	if !cold {
		render(0)
		took = nil
	}
	n := 0
	for b.Loop() {
		n++
		render(n)
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}
