// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
)

// indexOf writes an index of so many charts with so many versions each, as Helm does.
func indexOf(charts, versions int) []byte {
	var b strings.Builder
	b.WriteString("apiVersion: v1\nentries:\n")
	for c := range charts {
		fmt.Fprintf(&b, "  chart-%d:\n", c)
		for v := range versions {
			fmt.Fprintf(&b, `  - annotations:
      category: Infrastructure
    apiVersion: v2
    appVersion: 1.%[2]d.0
    created: "2026-11-21T09:00:00.123456789Z"
    dependencies:
    - name: common
      repository: https://charts.example.com
      tags:
      - common
      version: 2.x.x
    description: Chart number %[1]d of an example, with a description of the usual length.
    digest: %[3]s
    home: https://example.com
    icon: https://example.com/icon.png
    keywords:
    - example
    - bench
    maintainers:
    - email: ada@example.com
      name: Ada
    name: chart-%[1]d
    sources:
    - https://example.com/source
    urls:
    - https://charts.example.com/chart-%[1]d-1.%[2]d.0.tgz
    version: 1.%[2]d.0
`, c, v, digestOf(fmt.Append(nil, c, v)))
		}
	}
	b.WriteString("generated: \"2026-11-21T09:00:00Z\"\n")
	return []byte(b.String())
}

// BenchmarkIndex of 10,000 entries: what it takes to read it, and what stays in memory.
func BenchmarkIndex(b *testing.B) {
	for _, shape := range []struct{ charts, versions int }{{1, 10_000}, {200, 50}} {
		b.Run(fmt.Sprintf("%dx%d", shape.charts, shape.versions), func(b *testing.B) {
			index := indexOf(shape.charts, shape.versions)
			b.SetBytes(int64(len(index)))
			b.ReportAllocs()
			before := heap()
			var l listing
			for b.Loop() {
				var err error
				if l, err = parseIndex(index, "chart-0", 20_000); err != nil || len(l.offers) != shape.versions {
					b.Fatal(len(l.offers), err)
				}
			}
			b.ReportMetric(float64(heap()-before), "B-kept")
			runtime.KeepAlive(l)
			runtime.KeepAlive(index)
		})
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc) //nolint:gosec // a heap is smaller
}

// BenchmarkLatestUnchanged of a chart with 5 files in a repository with 10,000 entries.
func BenchmarkLatestUnchanged(b *testing.B) {
	index := indexOf(200, 50)
	var bytes atomic.Int64
	x := newIndex(b, nil)
	x.name = "chart-0"
	x.publish("1.49.0", chartFiles())
	archive := x.files["chart-0-1.49.0.tgz"]
	index = []byte(strings.Replace(string(index), digestOf(fmt.Append(nil, 0, 49)), digestOf(archive), 1))
	index = []byte(strings.Replace(string(index), "https://charts.example.com/chart-0-1.49.0.tgz", "archives/chart-0-1.49.0.tgz", 1))
	x.breakAt("index.yaml", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"1"`)
		if r.Header.Get("If-None-Match") == `"1"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		bytes.Add(int64(len(index)))
		_, _ = w.Write(index)
	})
	r := newRepositories(b)
	latest(b, r, x.src("1.x"))
	bytes.Store(0)
	x.asked()
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		latest(b, r, x.src("1.x"))
		n++
	}
	b.ReportMetric(float64(strings.Count(x.asked(), "GET"))/float64(n), "requests/op")
	b.ReportMetric(float64(bytes.Load())/float64(n), "body-B/op")
}

func chartFiles() map[string]string {
	files := map[string]string{}
	for i := range 5 {
		files[fmt.Sprintf("templates/%d.yaml", i)] = strings.Repeat(fmt.Sprintf("kind: Service # %d\n", i), 100)
	}
	return files
}

// BenchmarkAt of a chart that is held.
func BenchmarkAt(b *testing.B) {
	x := newIndex(b, nil)
	rev := x.publish("1.0.0", chartFiles())
	r := newRepositories(b)
	latest(b, r, x.src("1.x"))
	b.ReportAllocs()
	for b.Loop() {
		if snap, err := r.At(b.Context(), x.src("1.x"), rev); err != nil || snap.Files == nil {
			b.Fatal(err)
		}
	}
}
