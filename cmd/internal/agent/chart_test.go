// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"

	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// charts is a repository of one chart, whose versions are published one by one.
type charts struct {
	mu       sync.Mutex
	archives map[string][]byte
}

// publish a version of the chart "notes".
func (c *charts) publish(t *testing.T, version string) {
	t.Helper()
	var packed bytes.Buffer
	zipped := gzip.NewWriter(&packed)
	archive := tar.NewWriter(zipped)
	for name, content := range map[string]string{
		"notes/Chart.yaml":  "apiVersion: v2\nname: notes\nversion: " + version + "\n",
		"notes/values.yaml": "todo: nothing\n",
		"notes/templates/notes.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ .Release.Name }}}\n" +
			"data: {todo: {{ .Values.todo | quote }}, version: {{ .Chart.Version | quote }}}\n",
	} {
		if err := archive.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
			t.Fatal(err)
		}
		if _, err := archive.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zipped.Close(); err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.archives == nil {
		c.archives = map[string][]byte{}
	}
	c.archives[version] = packed.Bytes()
}

func (c *charts) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if version, ok := strings.CutPrefix(r.URL.Path, "/notes-"); ok {
		_, _ = w.Write(c.archives[strings.TrimSuffix(version, ".tgz")])
		return
	}
	if r.URL.Path != "/index.yaml" {
		http.NotFound(w, r)
		return
	}
	fmt.Fprintln(w, "apiVersion: v1\nentries:\n  notes:")
	for version := range c.archives {
		fmt.Fprintf(w, "  - {apiVersion: v2, name: notes, version: %s, urls: [notes-%s.tgz]}\n", version, version)
	}
}

// chartRepository: a chart that is followed in a range, and one that a rollout of values in git names.
func (o *one) chartRepository() {
	c := &charts{}
	c.publish(o.t, "1.0.0")
	server := httptest.NewServer(c)
	o.t.Cleanup(server.Close)
	values := func(todo string) *runtime.RawExtension {
		return &runtime.RawExtension{Raw: fmt.Appendf(nil, `{"todo": %q}`, todo)}
	}
	e := o.example("single", func(r *v1alpha1.FleetRollout) {
		r.Name, r.Spec.Targets.Names = "followed", []string{"solo"}
		r.Spec.Source.Git, r.Spec.Source.Helm = nil, &v1alpha1.HelmSource{URL: server.URL, Chart: "notes", Version: "1.x"}
		r.Spec.Specialize = &v1alpha1.Specialize{Helm: &v1alpha1.HelmRender{Values: values("${CLUSTER}")}}
	})
	e.awaitData("followed", map[string]string{"todo": "solo", "version": "1.0.0"})
	c.publish(o.t, "2.0.0") // not in the range
	c.publish(o.t, "1.1.0")
	e.look("1")
	e.awaitData("followed", map[string]string{"version": "1.1.0"})

	named := o.example("single", func(r *v1alpha1.FleetRollout) {
		r.Name, r.Spec.Targets.Names = "named", []string{"solo"}
		r.Spec.Specialize = &v1alpha1.Specialize{Helm: &v1alpha1.HelmRender{
			Chart:       &v1alpha1.HelmChart{URL: server.URL, Chart: "notes", Version: "2.0.0"},
			ValuesFiles: []string{"chart-values.yaml"},
		}}
	})
	got := named.awaitReason(named.rollout, v1alpha1.ConditionApplied, v1alpha1.ReasonInputMissing)
	if !strings.Contains(got.Message, "chart-values.yaml") {
		o.t.Errorf("without its values file: %s", got.Message)
	}
	named.commit("values in git", func(files map[string]string) {
		files["chart-values.yaml"] = "todo: read them in git\n"
	})
	named.look("1")
	named.awaitData("named", map[string]string{"todo": "read them in git", "version": "2.0.0"})
}
