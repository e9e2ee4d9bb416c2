// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// trap notices whoever connects to its address or runs one of the programs that kustomize knows.
type trap struct {
	address     string
	connections atomic.Int32
	marks       string
}

// programs that kustomize would run: for remote bases, charts, Go plugins and function containers.
var programs = []string{"git", "helm", "helmV3", "go", "docker", "podman", "nerdctl", "sh"}

func setTrap(t *testing.T) *trap {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tr := &trap{address: listener.Addr().String(), marks: t.TempDir()}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			tr.connections.Add(1)
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = listener.Close(); <-done })
	bin := t.TempDir()
	for _, name := range programs {
		script := fmt.Sprintf("#!/bin/sh\n: > '%s'\nexit 1\n", filepath.Join(tr.marks, name))
		if err := os.WriteFile(filepath.Join(bin, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin) // and nothing else
	return tr
}

// sprung says what was noticed, and forgets it.
func (tr *trap) sprung(t *testing.T) string {
	t.Helper()
	var noticed []string
	if n := tr.connections.Swap(0); n > 0 {
		noticed = append(noticed, "a connection")
	}
	entries, err := os.ReadDir(tr.marks)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		noticed = append(noticed, "program "+e.Name())
		if err := os.Remove(filepath.Join(tr.marks, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return strings.Join(noticed, ", ")
}

// hostile are payloads that make kustomize go to the network or start a program, each by another door.
func hostile(address string) map[string]map[string]string {
	url := "http://" + address
	plugin := func(kind, fields string) string {
		return "|-\n  apiVersion: builtin\n  kind: " + kind + "\n  metadata: {name: x}\n  " + fields
	}
	one := func(k string) map[string]string { return map[string]string{"kustomization.yaml": k} }
	return map[string]map[string]string{
		"resource by http":         one("resources: [" + url + "/x.yaml]"),
		"resource by upper case":   one("resources: [HTTP://" + address + "/x.yaml]"),
		"repository by http":       one("resources: ['" + url + "/org/repo//dir?ref=main']"),
		"repository by ssh":        one("resources: [ssh://git@" + address + "/org/repo]"),
		"repository by scp":        one("resources: ['git@127.0.0.1:org/repo.git']"),
		"repository on disk":       one("resources: [file:///repo.git]"),
		"repository at a host":     one("resources: ['github.com/org/repo//dir?ref=v1']"),
		"repository after git::":   one("resources: ['git::" + url + "/org/repo']"),
		"component by http":        one("components: [" + url + "/org/repo]"),
		"crds by http":             one("resources: [cm.yaml]\ncrds: [" + url + "/crd.json]"),
		"configuration by http":    one("resources: [cm.yaml]\nconfigurations: [" + url + "/c.yaml]"),
		"patch by http":            one("resources: [cm.yaml]\npatches: [{path: '" + url + "/p.yaml'}]"),
		"merge patch by http":      one("resources: [cm.yaml]\npatchesStrategicMerge: ['" + url + "/p.yaml']"),
		"json patch by http":       one("resources: [cm.yaml]\npatchesJson6902: [{path: '" + url + "/p.yaml', target: {kind: ConfigMap, name: cm, version: v1}}]"),
		"replacement by http":      one("resources: [cm.yaml]\nreplacements: [{path: '" + url + "/r.yaml'}]"),
		"config map file by http":  one("configMapGenerator: [{name: x, files: ['k=" + url + "/f']}]"),
		"config map file, no key":  one("configMapGenerator: [{name: x, files: ['" + url + "/f']}]"),
		"config map env by http":   one("configMapGenerator: [{name: x, env: '" + url + "/f'}]"),
		"secret envs by http":      one("secretGenerator: [{name: x, envs: ['" + url + "/f']}]"),
		"schema by http":           one("resources: [cm.yaml]\nopenapi: {path: '" + url + "/s.json'}"),
		"generator by http":        one("generators: [" + url + "/g.yaml]"),
		"transformer by http":      one("resources: [cm.yaml]\ntransformers: [" + url + "/t.yaml]"),
		"validator by http":        one("resources: [cm.yaml]\nvalidators: [" + url + "/v.yaml]"),
		"patch plugin by http":     one("resources: [cm.yaml]\ntransformers:\n- " + plugin("PatchTransformer", "path: "+url+"/p.yaml")),
		"value plugin by http":     one("resources: [cm.yaml]\ntransformers:\n- " + plugin("ValueAddTransformer", "targetFilePath: "+url+"/t.yaml")),
		"config map plugin":        one("generators:\n- " + plugin("ConfigMapGenerator", "files: [f="+url+"/f]")),
		"secret plugin":            one("generators:\n- " + plugin("SecretGenerator", "envs: ["+url+"/f]")),
		"merge plugin":             one("resources: [cm.yaml]\ntransformers:\n- " + plugin("PatchStrategicMergeTransformer", "paths: ["+url+"/p.yaml]")),
		"json plugin":              one("resources: [cm.yaml]\ntransformers:\n- " + plugin("PatchJson6902Transformer", "target: {name: cm}\n  path: "+url+"/p.yaml")),
		"replacement plugin":       one("resources: [cm.yaml]\ntransformers:\n- " + plugin("ReplacementTransformer", "replacements: [{path: '"+url+"/r.yaml'}]")),
		"two bases down":           {"kustomization.yaml": "resources: [a]", "a/kustomization.yaml": "resources: [../b]", "b/kustomization.yaml": "resources: [" + url + "/x.yaml]"},
		"plugin in a list in file": {"kustomization.yaml": "generators: [g.yaml]", "g.yaml": "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: builtin, kind: ConfigMapGenerator, metadata: {name: x}, name: x, files: ['" + url + "/f']}"},
		"plugin made by a folder":  {"kustomization.yaml": "generators: [g]", "g/kustomization.yaml": "resources: [cm.yaml]\npatches: [{path: p.yaml, target: {name: x}, options: {allowKindChange: true}}]", "g/cm.yaml": "{apiVersion: builtin, kind: Thing, metadata: {name: x}}", "g/p.yaml": "{apiVersion: builtin, kind: ConfigMapGenerator, metadata: {name: x}, name: x, files: ['" + url + "/f']}"},
		// Its two halves have one name, so that kustomize does not take it for configurations, but for a repository.
		"repository in a plugin": one("resources: [cm.yaml]\ntransformers:\n- |-\n  git@127.0.0.1/org/repo: x\n" + strings.TrimSuffix(strings.Repeat(
			"  apiVersion: builtin\n  kind: PrefixTransformer\n  metadata: {name: x}\n  ---\n", 2), "  ---\n")),
		"chart":                one("helmCharts: [{name: x, repo: '" + url + "', version: 1.0.0}]"),
		"chart, the old field": one("helmChartInflationGenerator: [{chartName: x, chartRepoUrl: '" + url + "'}]"),
		"chart by plugin":      one("generators:\n- " + plugin("HelmChartInflationGenerator", "name: x\n  repo: "+url)),
		"exec function":        {"kustomization.yaml": "generators: [g.yaml]", "g.yaml": "apiVersion: x/v1\nkind: Run\nmetadata:\n  name: x\n  annotations:\n    config.kubernetes.io/function: |\n      exec: {path: sh}\n"},
		"container function":   {"kustomization.yaml": "transformers: [g.yaml]\nresources: [cm.yaml]", "g.yaml": "apiVersion: x/v1\nkind: Run\nmetadata:\n  name: x\n  annotations:\n    config.kubernetes.io/function: |\n      container: {image: x, network: true}\n"},
	}
}

func payloadOf(files map[string]string) fstest.MapFS {
	payload := fstest.MapFS{"cm.yaml": {Data: []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: cm}\n")}}
	for name, text := range files {
		payload[name] = &fstest.MapFile{Data: []byte(text + "\n")}
	}
	return payload
}

func TestNothingIsFetchedOrRun(t *testing.T) {
	tr := setTrap(t)
	for name, files := range hostile(tr.address) {
		t.Run(name, func(t *testing.T) {
			_, err := Render(Input{Files: payloadOf(files)})
			if sprung := tr.sprung(t); sprung != "" {
				t.Errorf("it was noticed by %s; the error is %v", sprung, err)
			}
			if fleet.KindOf(err) != fleet.Terminal || fleet.ReasonOf(err, "") != v1alpha1.ReasonRenderFailed {
				t.Errorf("got %v, want a terminal RenderFailed", err)
			}
			if err != nil && strings.Contains(err.Error(), ": kustomize: ") {
				t.Errorf("kustomize was called and had to refuse it itself: %v", err)
			}
		})
	}
}

// TestTheTrapWorks gives the same payloads to kustomize itself. Were nothing noticed here, the
// test above would prove nothing.
func TestTheTrapWorks(t *testing.T) {
	tr := setTrap(t)
	// What kustomize has disabled by itself, unless it is told otherwise.
	quiet := map[string]bool{
		"chart": true, "chart, the old field": true, "chart by plugin": true, "exec function": true, "container function": true,
	}
	for name, files := range hostile(tr.address) {
		t.Run(name, func(t *testing.T) {
			building.Lock()
			defer building.Unlock()
			disk := filesys.MakeFsInMemory()
			for file, content := range payloadOf(files) {
				if err := disk.WriteFile("/"+file, content.Data); err != nil {
					t.Fatal(err)
				}
			}
			options := krusty.MakeDefaultOptions()
			options.LoadRestrictions = types.LoadRestrictionsNone
			_, err := krusty.MakeKustomizer(options).Run(disk, "/")
			if sprung := tr.sprung(t); (sprung == "") != quiet[name] {
				t.Errorf("noticed by %q; the error is %v", sprung, err)
			}
		})
	}
}
