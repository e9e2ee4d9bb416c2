// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"fmt"
	"slices"
	"testing"
	"testing/fstest"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// chartWith is a chart that renders n Deployments of an ordinary size, as charts do: names and labels by include,
// blocks by toYaml, one file for ten of them.
func chartWith(n int) fstest.MapFS {
	files := fstest.MapFS{
		"Chart.yaml": {Data: []byte("apiVersion: v2\nname: web\nversion: 1.0.0\nappVersion: \"1.4.2\"\n")},
		"values.yaml": {Data: []byte(`
image: {repository: registry.example/web, tag: ""}
resources: {requests: {cpu: 100m, memory: 128Mi}, limits: {memory: 256Mi}}
annotations: {prometheus.io/scrape: "true", prometheus.io/port: "9090"}
env: [{name: REGION, value: none}]
`)},
		"eu.yaml": {Data: []byte("env: [{name: REGION, value: eu}]\n")},
		"templates/_helpers.tpl": {Data: []byte(`
{{- define "labels" -}}
app: {{ .Release.Name }}-{{ .number }}
chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}
`)},
	}
	for file := 0; file*10 < n; file++ {
		files[fmt.Sprintf("templates/deployments-%d.yaml", file)] = &fstest.MapFile{Data: fmt.Appendf(nil, `
{{- range $i := until %d }}
{{- $it := dict "number" (add $i %d) "Release" $.Release "Chart" $.Chart }}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $.Release.Name }}-{{ $it.number }}
  labels: {{- include "labels" $it | nindent 4 }}
spec:
  replicas: {{ $.Values.replicas | default 2 }}
  selector:
    matchLabels: {{- include "labels" $it | nindent 6 }}
  template:
    metadata:
      labels: {{- include "labels" $it | nindent 8 }}
      {{- with $.Values.annotations }}
      annotations: {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      serviceAccountName: web
      containers:
      - name: web
        image: "{{ $.Values.image.repository }}:{{ $.Values.image.tag | default $.Chart.AppVersion }}"
        args: ["--listen=:8080", "--log=info"]
        ports:
        - {name: http, containerPort: 8080}
        - {name: metrics, containerPort: 9090}
        env: {{- toYaml $.Values.env | nindent 8 }}
        resources: {{- toYaml $.Values.resources | nindent 10 }}
        readinessProbe:
          httpGet: {path: /healthz, port: http}
          periodSeconds: 5
      volumes:
      - name: settings
        configMap: {name: settings}
{{- end }}
`, min(10, n-file*10), file*10)}
	}
	return files
}

// BenchmarkHelm renders charts of 3 to 3,000 objects for one member, from files to digest, nothing kept from one to
// the next. p50 and p99 are those of single renders.
func BenchmarkHelm(b *testing.B) {
	for _, n := range []int{3, 30, 300, 3000} {
		b.Run(fmt.Sprintf("objects=%d", n), func(b *testing.B) {
			in := Input{
				Files: chartWith(n), Member: fleet.Member{Name: "eu-1", Labels: map[string]string{"region": "eu"}},
				Rollout: fleet.RolloutName{Namespace: "shop", Name: "web"},
				Spec:    &v1alpha1.Specialize{Helm: &v1alpha1.HelmRender{ValuesFiles: []string{"${LABEL_region}.yaml"}}},
			}
			var took []time.Duration
			b.ReportAllocs()
			start := processorTime(b)
			for b.Loop() {
				began := time.Now()
				m, err := Render(in)
				if err != nil || len(m.Objects) != n {
					b.Fatalf("%d objects, want %d: %v", len(m.Objects), n, err)
				}
				took = append(took, time.Since(began))
			}
			b.ReportMetric(float64(processorTime(b)-start)/float64(b.N), "cpu-ns/op")
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2]), "p50-ns")
			b.ReportMetric(float64(took[len(took)*99/100]), "p99-ns")
		})
	}
}
