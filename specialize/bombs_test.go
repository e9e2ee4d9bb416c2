// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"fmt"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// What a verdict on a bomb may cost. Bytes are all that is ever allocated, so that less is in use at once.
const (
	bombTime  = 2 * time.Second
	bombBytes = 512 << 20
)

// laughs stands for 10^depth values in a few lines.
func laughs(depth int) string {
	var b strings.Builder
	b.WriteString("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bomb}\na0: &a0 lol\n")
	for i := 1; i <= depth; i++ {
		fmt.Fprintf(&b, "a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i-1), 10), ","))
	}
	return b.String()
}

// halfFull repeats a unit to half of what a document may have, so that the indented forms are let through as well.
func halfFull(unit string) string { return strings.Repeat(unit, maxDocument/2/len(unit)) }

const head = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bomb}\n"

// bombs are files of objects that are more than they seem.
func bombs() map[string]string {
	maps := strings.ReplaceAll(laughs(9), "[", "{x: [")
	maps = strings.ReplaceAll(maps, "]\n", "]}\n")
	return map[string]string{
		"billion laughs":          laughs(9),
		"billion laughs, in maps": maps,
		"long text, many aliases": head + "a: &a " + strings.Repeat("x", 1<<20) + "\nb: [" + strings.Repeat("*a,", 1000) + "]\n",
		"merge keys":              head + "m0: &m0 {a: b}\n" + mergeKeys(30),
		"anchor in itself":        head + "a: &a {b: *a}\n",
		"deep flow":               head + "a: " + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + "\n",
		"deeper than the parser":  head + "a: " + halfFull("["),
		"deep block":              head + "a:\n" + deepBlock(3000),
		"deep lists":              head + "a:\n" + halfFull("- "),
		"many values":             head + "a: [" + halfFull("{},") + "]\n",
		"many nulls":              head + "a:\n" + halfFull("-\n"),
		"many keys":               head + "a: {" + halfFull("k: ,") + "}\n",
		"many documents":          strings.Repeat("---\n", 1<<20),
		"many objects":            strings.Repeat("---\n"+head, maxObjects+1),
		"long list of objects":    "apiVersion: v1\nkind: List\nitems:\n" + strings.Repeat("- {apiVersion: v1, kind: ConfigMap, metadata: {name: x}}\n", maxObjects+1),
		"large document":          head + "data: {a: " + strings.Repeat("x", maxDocument) + "}\n",
		"large file":              strings.Repeat(head+"data:\n  a: "+strings.Repeat("x", 1<<20)+"\n---\n", 33),
	}
}

func mergeKeys(n int) string {
	var b strings.Builder
	for i := 1; i <= n; i++ {
		fmt.Fprintf(&b, "m%d: &m%d {<<: [*m%d, *m%d], k%d: *m%d}\n", i, i, i-1, i-1, i, i-1)
	}
	return b.String()
}

func deepBlock(n int) string {
	var b strings.Builder
	for i := 1; i <= n; i++ {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return b.String()
}

// processorTime of this process, on all its threads. Unlike a clock it leaves out what else the machine does.
func processorTime(t testing.TB) time.Duration {
	t.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		t.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// verdict renders a payload that must be refused.
func verdict(t *testing.T, payload fstest.MapFS) error {
	t.Helper()
	err := inTime(t, payload)
	if fleet.KindOf(err) != fleet.Terminal {
		t.Errorf("got %v, want a terminal error", err)
	}
	return err
}

// inTime renders a payload and checks what it took.
func inTime(t *testing.T, payload fstest.MapFS) error {
	t.Helper()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	start := processorTime(t)
	_, err := Render(Input{Files: payload})
	took := processorTime(t) - start
	runtime.ReadMemStats(&after)
	allocated := after.TotalAlloc - before.TotalAlloc
	t.Logf("%v, %d MiB: %v", took.Round(time.Millisecond), allocated>>20, err)
	if most := bombTime * slowdown; took > most {
		t.Errorf("the verdict took %v, at most %v", took, most)
	}
	if allocated > bombBytes {
		t.Errorf("the verdict took %d MiB, at most %d", allocated>>20, bombBytes>>20)
	}
	return err
}

func TestBombsOfYAML(t *testing.T) {
	indent := func(text string) string { return "  " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n  ") }
	for name, text := range bombs() {
		t.Run(name, func(t *testing.T) {
			for engine, payload := range map[string]fstest.MapFS{
				"plain": {"bomb.yaml": {Data: []byte(text)}},
				"kustomize, resource": {
					"kustomization.yaml": {Data: []byte("resources: [bomb.yaml]")},
					"bomb.yaml":          {Data: []byte(text)},
				},
				"kustomize, patch": {
					"kustomization.yaml": {Data: []byte("resources: [cm.yaml]\npatches: [{path: bomb.yaml}]")},
					"cm.yaml":            {Data: []byte(head)},
					"bomb.yaml":          {Data: []byte(text)},
				},
				"kustomize, inline patch": {
					"kustomization.yaml": {Data: []byte("resources: [cm.yaml]\npatches:\n- patch: |-\n" + indent(indent(text)) + "\n")},
					"cm.yaml":            {Data: []byte(head)},
				},
				"kustomize, plugin": {
					"kustomization.yaml": {Data: []byte("resources: [cm.yaml]\ntransformers:\n- |-\n" + indent(text) + "\n")},
					"cm.yaml":            {Data: []byte(head)},
				},
				"kustomization": {"kustomization.yaml": {Data: []byte(text)}},
			} {
				t.Run(engine, func(t *testing.T) { _ = verdict(t, payload) })
			}
		})
	}
}

// layers is a kustomization that reads one base twice in each of n layers: 2^n times the base.
func layers(n int) fstest.MapFS {
	payload := fstest.MapFS{"cm.yaml": {Data: []byte(head)}}
	for i := range n {
		base := fmt.Sprintf("../l%d", i+1)
		if i == n-1 {
			base = "../cm.yaml"
		}
		for _, side := range []string{"a", "b"} {
			payload[fmt.Sprintf("l%d/%s/kustomization.yaml", i, side)] = &fstest.MapFile{
				Data: fmt.Appendf(nil, "namePrefix: %s-\nresources: [../%s]", side, base),
			}
		}
		payload[fmt.Sprintf("l%d/kustomization.yaml", i)] = &fstest.MapFile{Data: []byte("resources: [a, b]")}
	}
	payload["kustomization.yaml"] = &fstest.MapFile{Data: []byte("resources: [l0]")}
	return payload
}

// tower is n kustomizations in each other.
func tower(n int) fstest.MapFS {
	payload := fstest.MapFS{fmt.Sprintf("l%d/cm.yaml", n-1): {Data: []byte(head)}}
	for i := range n {
		text := fmt.Sprintf("resources: [../l%d]", i+1)
		if i == n-1 {
			text = "resources: [cm.yaml]"
		}
		payload[fmt.Sprintf("l%d/kustomization.yaml", i)] = &fstest.MapFile{Data: []byte(text)}
	}
	return payload
}

func TestBombsOfKustomizations(t *testing.T) {
	cm := func(more map[string]string) fstest.MapFS {
		payload := fstest.MapFS{"cm.yaml": {Data: []byte(head + "data: {key: a/b, text: " + strings.Repeat("x", 1000) + "}\n")}}
		for name, text := range more {
			payload[name] = &fstest.MapFile{Data: []byte(text)}
		}
		return payload
	}
	many := fstest.MapFS{"kustomization.yaml": {Data: []byte("resources:\n" + strings.Repeat("- cm.yaml\n", maxObjects+1))}, "cm.yaml": {Data: []byte(head)}}
	wide := fstest.MapFS{"kustomization.yaml": {Data: []byte("resources: [all.yaml]\nnamePrefix: x-")}}
	wide["all.yaml"] = &fstest.MapFile{Data: []byte(manyConfigMaps(4500))}
	files := fstest.MapFS{"kustomization.yaml": {Data: []byte("configMapGenerator:\n- name: a\n  files:\n" + strings.Repeat("  - x.txt\n", maxFiles+1))}, "x.txt": {Data: []byte("x")}}
	tests := map[string]fstest.MapFS{
		"a base read 2^40 times": layers(40),
		"tower": func() fstest.MapFS {
			p := tower(maxLayers + 1)
			p["kustomization.yaml"] = &fstest.MapFile{Data: []byte("resources: [l0]")}
			return p
		}(),
		"many times one file": many,
		"many files":          files,
		"objects squared":     wide,
		"copies": cm(map[string]string{"kustomization.yaml": "resources: [cm.yaml]\npatches:\n- target: {kind: ConfigMap}\n  patch: |-\n    [" +
			strings.TrimSuffix(strings.Repeat(`{"op":"copy","from":"/data","path":"/data/x"},`, 40), ",") + "]\n"}),
		"copies in YAML": cm(map[string]string{"kustomization.yaml": "resources: [cm.yaml]\npatches:\n- target: {kind: ConfigMap}\n  path: p.yaml\n",
			"p.yaml": strings.Repeat("- {op: copy, from: /data, path: /data/x}\n", 40)}),
		"replacements of themselves": cm(map[string]string{"kustomization.yaml": "resources: [cm.yaml]\nreplacements:\n" +
			strings.Repeat("- source: {kind: ConfigMap, fieldPath: data.key}\n  targets: [{select: {kind: ConfigMap}, fieldPaths: [data.key], options: {delimiter: /, index: 99}}]\n", 40)}),
		"a field in itself": cm(map[string]string{"kustomization.yaml": "resources: [cm.yaml]\nreplacements: [{path: r.yaml}]\n",
			"r.yaml": strings.Repeat("- source: {kind: ConfigMap, fieldPath: data}\n  targets: [{select: {kind: ConfigMap}, fieldPaths: [data.x], options: {create: true}}]\n", 40)}),
		"vars": cm(map[string]string{"kustomization.yaml": "resources: [cm.yaml, b.yaml]\nvars: [{name: V, objref: {apiVersion: v1, kind: ConfigMap, name: bomb}, fieldref: {fieldpath: data.text}}]\n",
			"b.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\ndata: {x: \"" + strings.Repeat("$(V)", 500_000) + "\"}\n"}),
		"patches squared": func() fstest.MapFS {
			p := fstest.MapFS{"kustomization.yaml": {Data: []byte("resources: [all.yaml]\npatches: [{path: p.yaml, target: {kind: ConfigMap}}]")}}
			p["all.yaml"] = &fstest.MapFile{Data: []byte(manyConfigMaps(1000))}
			p["p.yaml"] = &fstest.MapFile{Data: []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, annotations: {a: " + strings.Repeat("x", 1<<20) + "}}\n")}
			return p
		}(),
	}
	for name, payload := range tests {
		t.Run(name, func(t *testing.T) {
			if err := verdict(t, payload); fleet.ReasonOf(err, "") != v1alpha1.ReasonTooLarge {
				t.Errorf("got reason %s, want TooLarge", fleet.ReasonOf(err, ""))
			}
		})
	}
}

// TestBigIsNoBomb: what is large and honest is built.
func TestBigIsNoBomb(t *testing.T) {
	dashboard := head + "data:\n  board.json: |\n" + strings.Repeat(`    {"panels": [{"id": 1, "targets": [{"expr": "sum(rate(x[5m])) by (y)"}]}, {"id": 2}]}`+"\n", 12_000)
	tests := map[string]fstest.MapFS{
		"5,000 objects":    {"all.yaml": {Data: []byte(manyConfigMaps(maxObjects))}},
		"megabyte of text": {"a.yaml": {Data: []byte(dashboard)}},
		"many comments":    {"a.yaml": {Data: []byte(head + "a:\n" + halfFull("- a # b\n"))}},
		"64 levels of kustomizations": func() fstest.MapFS {
			p := tower(maxLayers - 1)
			p["kustomization.yaml"] = &fstest.MapFile{Data: []byte("resources: [l0]")}
			return p
		}(),
		"some aliases": {"a.yaml": {Data: []byte(laughs(2))}},
		"five copies": {"cm.yaml": {Data: []byte(head + "data: {key: a}\n")}, "kustomization.yaml": {Data: []byte(
			"resources: [cm.yaml]\npatches:\n- target: {kind: ConfigMap}\n  path: p.yaml\n")},
			"p.yaml": {Data: []byte(strings.Repeat("- {op: copy, from: /data/key, path: /data/x}\n", 5))}},
	}
	for name, payload := range tests {
		t.Run(name, func(t *testing.T) {
			if err := inTime(t, payload); err != nil {
				t.Error(err)
			}
		})
	}
}

func manyConfigMaps(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c%d}\ndata: {a: b}\n", i)
	}
	return b.String()
}
