// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/flotilla-dev/flotilla/api/apitest"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

func rolloutOf(t *testing.T, manifest string) *v1alpha1.FleetRollout {
	t.Helper()
	var r v1alpha1.FleetRollout
	if err := yaml.Unmarshal([]byte(manifest), &r); err != nil {
		t.Fatal(err)
	}
	return &r
}

func acceptedRollouts() (out []string) {
	for _, tc := range accepted {
		if strings.Contains(tc.manifest, "kind: FleetRollout") {
			out = append(out, tc.manifest)
		}
	}
	return out
}

// The API server fills in what WithSchemaDefaults does, and nothing else.
func TestSchemaDefaultsAreTheServers(t *testing.T) {
	c, err := client.New(apitest.Start(t).Config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, manifest := range acceptedRollouts() {
		server, err := try(t, c, manifest)
		if err != nil {
			t.Fatal(err)
		}
		ours, err := json.Marshal(rolloutOf(t, manifest).Spec.WithSchemaDefaults())
		if err != nil {
			t.Fatal(err)
		}
		raw, err := json.Marshal(server.Object["spec"])
		if err != nil {
			t.Fatal(err)
		}
		var theirs v1alpha1.FleetRolloutSpec // through the type, which writes a duration in one way
		if err := json.Unmarshal(raw, &theirs); err != nil {
			t.Fatal(err)
		}
		if raw, err = json.Marshal(theirs); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(raw), string(ours)); diff != "" {
			t.Errorf("%s\n(-server +ours):\n%s", manifest, diff)
		}
	}
}

var inWords = regexp.MustCompile(`Default:? "?(.+?)"?\.$`)

// promised are the defaults that the CRD tells of: by itself, or in the words of a description.
func promised(t *testing.T) map[string]string {
	t.Helper()
	body, err := os.ReadFile("../../deploy/crd/fleet.flotilla.dev_fleetrollouts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var crd apiextensionsv1.CustomResourceDefinition
	if err := yaml.Unmarshal(body, &crd); err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	var walk func(path string, p apiextensionsv1.JSONSchemaProps)
	walk = func(path string, p apiextensionsv1.JSONSchemaProps) {
		if p.Default != nil && !strings.HasPrefix(string(p.Default.Raw), "{") {
			out[path] = strings.Trim(string(p.Default.Raw), `"`)
		} else if found := inWords.FindStringSubmatch(strings.Join(strings.Fields(p.Description), " ")); found != nil {
			out[path] = found[1]
		}
		if p.Default != nil && strings.HasPrefix(string(p.Default.Raw), "{") {
			object := map[string]any{}
			if err := json.Unmarshal(p.Default.Raw, &object); err != nil {
				t.Fatal(err)
			}
			for key, v := range object {
				out[path+"."+key] = fmt.Sprint(v)
			}
		}
		for name, below := range p.Properties {
			walk(path+"."+name, below)
		}
		if p.Items != nil {
			walk(path, *p.Items.Schema)
		}
	}
	walk("spec", crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"])
	return out
}

var index = regexp.MustCompile(`\[\d+\]`)

// Every default that the CRD promises is a setting of some rollout that leaves the field out, with that value.
func TestNoDefaultIsForgotten(t *testing.T) {
	all := promised(t)
	if len(all) < 20 {
		t.Fatalf("only %d defaults were found: %v", len(all), all)
	}
	manifests := append(acceptedRollouts(), special("helm: {valuesFrom: [{kind: Secret, name: a}]}"), delivery("pruneGuard: {}"))
	for field, want := range all {
		if field == "spec.specialize.helm.releaseName" {
			want = "x" // the rollout's name
		}
		found := slices.ContainsFunc(manifests, func(manifest string) bool {
			settings, err := rolloutOf(t, manifest).Spec.Settings("x")
			if err != nil {
				t.Fatal(err)
			}
			return slices.ContainsFunc(settings, func(s v1alpha1.Setting) bool {
				return index.ReplaceAllString(s.Field, "") == field && same(s.Value, want) && s.From != v1alpha1.FromSpec
			})
		})
		if !found {
			t.Errorf("%s: no setting with its default %s", field, want)
		}
	}
}

// same value; lengths of time in whatever unit.
func same(got, want string) bool {
	a, errA := time.ParseDuration(got)
	b, errB := time.ParseDuration(want)
	return got == want || errA == nil && errB == nil && a == b
}

func TestSettings(t *testing.T) {
	settings, err := rolloutOf(t, rollout("web", "strategy: {soak: 5m, stages: [{name: canary, size: 1, soak: 1h}, {name: all}]}", "specialize: {helm: {values: {a: {b: 1}}}}")).Spec.Settings("web")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range settings {
		got = append(got, strings.TrimPrefix(s.Field, "spec.")+" = "+s.Value+" | "+s.From)
	}
	want := []string{
		"source.git.url = https://g/x | written",
		"source.git.ref.branch = main | default of the schema",
		"source.path = ./ | default of the schema",
		"source.interval = 1m | default of the schema",
		"source.timeout = 1m | default of the schema",
		`targets.names = ["*"] | written`,
		"specialize.helm.releaseName = web | built in",
		`specialize.helm.values = {"a":{"b":1}} | written`,
		"specialize.helm.crds = CreateReplace | default of the schema",
		"specialize.helm.hooks = Order | default of the schema",
		"strategy.type = Staged | default of the schema",
		"strategy.maxConcurrency = 25% | built in",
		"strategy.maxUnavailable = 0 | built in",
		"strategy.minReadyTime = 1m | built in",
		"strategy.soak = 5m | written",
		"strategy.progressDeadline = 10m | built in",
		"strategy.stages[0].name = canary | written",
		"strategy.stages[0].size = 1 | written",
		"strategy.stages[0].maxConcurrency = 25% | built in",
		"strategy.stages[0].maxUnavailable = 0 | built in",
		"strategy.stages[0].minReadyTime = 1m | built in",
		"strategy.stages[0].soak = 1h | written",
		"strategy.stages[0].progressDeadline = 10m | built in",
		"strategy.stages[1].name = all | written",
		"strategy.stages[1].maxConcurrency = 25% | built in",
		"strategy.stages[1].maxUnavailable = 0 | built in",
		"strategy.stages[1].minReadyTime = 1m | built in",
		"strategy.stages[1].soak = 5m | spec.strategy",
		"strategy.stages[1].progressDeadline = 10m | built in",
		"delivery.serviceAccountName = flotilla | built in",
		"delivery.interval = 10m | default of the schema",
		"delivery.retryInterval = 30s | default of the schema",
		"delivery.retries = 3 | default of the schema",
		"delivery.prune = true | default of the schema",
		"delivery.pruneGuard.maxObjects = 10 | built in",
		"delivery.pruneGuard.maxPercent = 50 | built in",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// What was written is left as it was.
func TestDefaultsLeaveTheSpecAlone(t *testing.T) {
	for _, manifest := range acceptedRollouts() {
		r := rolloutOf(t, manifest)
		before := r.Spec.DeepCopy()
		whole := r.Spec.WithDefaults(r.Name)
		if diff := cmp.Diff(before, &r.Spec); diff != "" {
			t.Errorf("changed:\n%s", diff)
		}
		if diff := cmp.Diff(whole, whole.WithDefaults(r.Name)); diff != "" {
			t.Errorf("a second time gives another:\n%s", diff)
		}
		if problems := whole.Problems(); len(problems) > 0 {
			t.Errorf("written out it is refused: %v", problems)
		}
	}
}
