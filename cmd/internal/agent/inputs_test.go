// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/source"
	"github.com/flotilla-dev/flotilla/source/sourcetest"
	"github.com/flotilla-dev/flotilla/specialize"
)

// memoryInputs are a cluster's ConfigMaps, and what it serves.
type memoryInputs struct {
	objects map[specialize.Reference]map[string]string
	version string
	readers map[source.Reader]bool
	asked   int
}

// Objects is in turn.Inputs.
func (m *memoryInputs) Objects(_ context.Context, as source.Reader, refs []specialize.Reference) (map[specialize.Reference]map[string]string, error) {
	if m.readers == nil {
		m.readers = map[source.Reader]bool{}
	}
	m.readers[as] = true
	found := map[specialize.Reference]map[string]string{}
	for _, ref := range refs {
		if data, ok := m.objects[ref]; ok {
			found[ref] = maps.Clone(data)
		}
	}
	return found, nil
}

// Capabilities is in turn.Inputs.
func (m *memoryInputs) Capabilities(context.Context) (string, []string, error) {
	m.asked++
	return m.version, []string{"v1", "apps/v1", "apps/v1/Deployment"}, nil
}

var site1Values = specialize.Reference{Kind: "ConfigMap", Name: "site"}

// respec changes the spec as a commit to the fleet repository does.
func (w *world) respec(change string) {
	w.t.Helper()
	if err := json.Unmarshal([]byte(change), &w.spec); err != nil {
		w.t.Fatal(err)
	}
	w.seal()
}

func (w *world) setValue(member, image string) {
	w.site(member).inputs.objects = map[specialize.Reference]map[string]string{site1Values: {"IMAGE": image}}
}

// A value of the cluster's own changes that cluster, at once and without asking the fleet; no release comes of it.
func TestOwnValuesConcernOneCluster(t *testing.T) {
	w := newWorld(t)
	for _, m := range []string{"ams", "fra", "par", "nyc"} {
		w.setValue(m, "1")
	}
	w.respec(`{"specialize": {"postBuild": {"substituteFrom": [{"kind": "ConfigMap", "name": "site"}]}}}`)
	w.git.Commit("main", files("${IMAGE}"))
	w.turns(3 * time.Minute)
	w.want(everyone1)
	plan := w.site("nyc").last.Promise.Accepted.Plan()

	w.setValue("nyc", "2")
	w.turns(2 * time.Second)
	w.want("ams=1 fra=1 par=1 nyc=2")
	if got := w.site("nyc").last.Promise; got.Accepted.Plan() != plan || got.Installed.Release.Plan() != plan || got.LastGood.Manifest != got.Installed.Manifest {
		t.Errorf("a value of the cluster made a release: %+v", got)
	}
	w.site("nyc").restart()
	w.turns(2 * time.Second)
	w.want("ams=1 fra=1 par=1 nyc=2")

	delete(w.site("nyc").inputs.objects, site1Values)
	w.site("nyc").cluster.Remove(deploymentID)
	w.turns(2 * time.Second)
	trouble := w.site("nyc").last.Trouble[v1alpha1.ConditionApplied]
	if fleet.ReasonOf(trouble, "") != v1alpha1.ReasonInputMissing || !strings.Contains(trouble.Error(), "site") {
		t.Errorf("without its values nyc says %v", trouble)
	}
	w.setValue("nyc", "3")
	w.turns(2 * time.Second)
	w.want("ams=1 fra=1 par=1 nyc=3")
	if want := (source.Reader{Namespace: "shop", ServiceAccount: "flotilla"}); !w.site("nyc").inputs.readers[want] || len(w.site("nyc").inputs.readers) != 1 {
		t.Errorf("read as %v", w.site("nyc").inputs.readers)
	}
}

// A release whose values are not there yet starts nowhere, and goes on when somebody puts them there.
func TestValuesThatComeLater(t *testing.T) {
	w := released(t)
	w.respec(`{"specialize": {"postBuild": {"substituteFrom": [{"kind": "ConfigMap", "name": "site"}]}}}`)
	w.git.Commit("main", files("${IMAGE}"))
	w.turns(time.Minute)
	w.want(everyone1)
	if w.said("ams", "nyc", fleet.Started) || w.said("ams", "nyc", fleet.Failed) {
		t.Error("the canary started or failed a release that it could not render yet")
	}
	for _, m := range []string{"ams", "fra", "par", "nyc"} {
		w.setValue(m, "2")
	}
	w.turns(4 * time.Minute)
	w.want("ams=2 fra=2 par=2 nyc=2")
}

// An override for one member changes that member; the others run what they ran, so they say at once that they are done.
func TestOverrideOfOneMember(t *testing.T) {
	w := released(t)
	writes := func() (n int) {
		for _, s := range w.members[:3] {
			n += s.cluster.Writes()
		}
		return n
	}
	before := writes()
	w.respec(`{"specialize": {"overrides": [{"name": "nyc", "names": ["nyc"], "images": [{"name": "web", "newTag": "9"}]}]}}`)
	w.turns(3 * time.Minute)
	w.want("ams=1 fra=1 par=1 nyc=9")
	if after := writes(); after-before > 3 { // each inventory says which plan its objects belong to now
		t.Errorf("%d writes to clusters that the override is not for", after-before)
	}
	for _, m := range []string{"ams", "fra", "par", "nyc"} {
		if !w.said(m, "ams", fleet.Succeeded) {
			t.Errorf("%s has not succeeded", m)
		}
	}
	if w.said("fra", "ams", fleet.Started) {
		t.Error("fra started a release that it ran already")
	}
}

const orders = `
-- app/Chart.yaml --
apiVersion: v2
name: orders
version: 1.0.0
-- app/values.yaml --
image: "0"
-- app/templates/web.yaml --
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec: {template: {spec: {containers: [{name: web, image: "web:{{ .Values.image }}"}]}}}
`

// A chart is rendered with what the member's own API server is.
func TestChartAsksForCapabilities(t *testing.T) {
	w := newWorld(t)
	w.respec(`{"specialize": {"helm": {"values": {"image": "${LABEL_region}"}}}}`)
	w.git.Commit("main", sourcetest.Txtar(orders))
	w.turns(3 * time.Minute)
	w.want("ams=eu fra=eu par=eu nyc=us")
	if w.site("nyc").inputs.asked == 0 {
		t.Error("the chart was rendered without asking what the API server serves")
	}
	w.site("nyc").inputs.version = "v1.99.0" // an upgrade that the chart does not care about
	w.turns(2 * time.Second)
	w.want("ams=eu fra=eu par=eu nyc=us")
}
