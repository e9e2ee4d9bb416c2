// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/flotilla-dev/flotilla/api/apitest"
)

func TestMain(m *testing.M) { apitest.Main(m) }

// try what a manifest becomes, or why not. Nothing is kept.
func try(t *testing.T, c client.Client, manifest string) (*unstructured.Unstructured, error) {
	t.Helper()
	o := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(manifest), &o.Object); err != nil {
		t.Fatal(err)
	}
	if o.GetAPIVersion() == "" {
		o.SetAPIVersion("fleet.flotilla.dev/v1alpha1")
	}
	if o.GetKind() == "FleetRollout" {
		o.SetNamespace("default")
	}
	err := c.Create(context.Background(), o, client.DryRunAll, client.FieldValidation(metav1.FieldValidationStrict))
	return o, err
}

// rollout with a spec: source and targets are given unless the test is about them.
func rollout(name string, spec ...string) string {
	all := strings.Join(spec, "\n")
	if !strings.Contains(all, "source:") {
		all += "\nsource: {git: {url: 'https://g/x'}}"
	}
	if !strings.Contains(all, "targets:") {
		all += "\ntargets: {names: ['*']}"
	}
	return "kind: FleetRollout\nmetadata: {name: " + name + "}\nspec:\n  " + strings.ReplaceAll(strings.TrimSpace(all), "\n", "\n  ")
}

func member(name, spec string) string {
	return "kind: FleetMember\nmetadata: {name: " + name + "}\nspec: {" + spec + "}"
}

const (
	peer      = "12D3KooWD3bfmNbuuuVCYwkjnFt3ukm3qaB3hDED3peHHXawvRAi"
	peerWords = ": the peer ID of an Ed25519 key (12D3KooW...), as 'flotilla-agent id' prints it; RSA keys (Qm...) are refused"

	commit = "0123456789012345678901234567890123456789"

	refWords         = ": name exactly one of branch, tag, semver, name, commit"
	pathWords        = ": a path inside the source: no leading '/' and no '..'"
	lookWords        = ": at least 10s; members tell each other of a new head, so polling faster only costs the server"
	whichWords       = ": say which members: matchLabels, matchExpressions or names; for every member of the fleet write names: [\"*\"]"
	combineWords     = ": names and labels cannot be combined: give names, or matchLabels/matchExpressions (to narrow by both, label the members)"
	concurrencyWords = ": a number of at least 1, or 1% to 100%; to stop a rollout use suspend or 'flotilla pause'"
	unavailableWords = ": a number, or 0% to 99%; 100% would let every cluster fail"
	sizeWords        = ": a number of at least 1, or 1% to 100%"
	durationWords    = ": a duration such as 90s, 15m or 48h (there is no unit for days: 7 days is 168h)"
	lastWords        = ": only the last stage may leave out matchLabels, matchExpressions, names and size (it takes all that is left)"
	restWords        = ": 'rest' is the stage for what no other takes; it has no selector"
	memberWords      = ": a DNS label of at most 63 characters; it becomes ${CLUSTER} and a label value"
)

func strategy(s string) string { return rollout("x", "strategy: {"+s+"}") }

func delivery(s string) string { return rollout("x", "delivery: {"+s+"}") }

func source(s string) string { return rollout("x", "source: {"+s+"}") }

func special(s string) string { return rollout("x", "specialize: {"+s+"}") }

// refusals are what the API server prints after "is invalid: ", word for word.
var refusals = []struct{ name, manifest, want string }{
	{"name", rollout(strings.Repeat("a", 64)), `<nil>: Invalid value: at most 63 characters, because it becomes a label value on every object it delivers`},
	{"no source", rollout("x", "source: {}"), `spec.source: Invalid value: name exactly one of git, helm`},
	{"git and helm", source("git: {url: 'https://g/x'}, helm: {url: 'oci://r/c', chart: c, version: 1.x}"), `spec.source: Invalid value: name exactly one of git, helm`},
	{"no url", source("git: {}"), `spec.source.git.url: Required value`},
	{"url", source("git: {url: 'ftp://g/x'}"), `spec.source.git.url: Invalid value: "ftp://g/x": spec.source.git.url in body should match '^(https?|ssh)://.+$'`},
	{"url as scp writes it", source("git: {url: 'git@g:x'}"), `spec.source.git.url: Invalid value: "git@g:x": spec.source.git.url in body should match '^(https?|ssh)://.+$'`},
	{"branch and commit", source("git: {url: 'https://g/x', ref: {branch: main, commit: '" + commit + "'}}"), `spec.source.git.ref: Invalid value` + refWords},
	{"semver and tag", source("git: {url: 'https://g/x', ref: {semver: 1.x, tag: v1}}"), `spec.source.git.ref: Invalid value` + refWords},
	{"no reference", source("git: {url: 'https://g/x', ref: {}}"), `spec.source.git.ref: Invalid value` + refWords},
	{"an empty tag", source("git: {url: 'https://g/x', ref: {tag: ''}}"), `spec.source.git.ref.tag: Invalid value: "": spec.source.git.ref.tag in body should be at least 1 chars long`},
	{"a reference's name", source("git: {url: 'https://g/x', ref: {name: main}}"), `spec.source.git.ref.name: Invalid value: "main": spec.source.git.ref.name in body should match '^refs/.+$'`},
	{"a short commit", source("git: {url: 'https://g/x', ref: {commit: abc1234}}"), `spec.source.git.ref.commit: Invalid value: "abc1234": spec.source.git.ref.commit in body should match '^[0-9a-f]{40}$'`},
	{"an empty sparse folder", source("git: {url: 'https://g/x', sparseCheckout: ['']}"), `spec.source.git.sparseCheckout[0]: Invalid value: "": spec.source.git.sparseCheckout[0] in body should be at least 1 chars long`},
	{"a sparse folder twice", source("git: {url: 'https://g/x', sparseCheckout: [a, a]}"), `spec.source.git.sparseCheckout[1]: Duplicate value: "a"`},
	{"a secret without a name", source("git: {url: 'https://g/x'}, secretRef: {}"), `spec.source.secretRef.name: Required value`},
	{"a proxy without a name", source("git: {url: 'https://g/x'}, proxySecretRef: {name: ''}"), `spec.source.proxySecretRef.name: Invalid value: "": spec.source.proxySecretRef.name in body should be at least 1 chars long`},
	{"chart's url", source("helm: {url: 'git://r/c', chart: c, version: 1.x}"), `spec.source.helm.url: Invalid value: "git://r/c": spec.source.helm.url in body should match '^(https?|oci)://.+$'`},
	{"chart's name", source("helm: {url: 'https://r/c', chart: 'c d', version: 1.x}"), `spec.source.helm.chart: Invalid value: "c d": spec.source.helm.chart in body should match '^[A-Za-z0-9._/-]+$'`},
	{"a chart of no version", source("helm: {url: 'https://r/c', chart: c}"), `spec.source.helm.version: Required value`},
	{"a chart's path", source("helm: {url: 'https://r/c', chart: c, version: 1.x}, path: ./deploy"), `spec.source.path: Invalid value: only git has paths`},
	{"a chart's ignore", source("helm: {url: 'https://r/c', chart: c, version: 1.x}, ignore: '*.md'"), `spec.source.ignore: Invalid value: only git has files to ignore`},
	{"a long path", source("git: {url: 'https://g/x'}, path: " + strings.Repeat("a", 513)), `spec.source.path: Too long: may not be more than 512 bytes`},
	{"a negative time", strategy("minReadyTime: -5s"), `spec.strategy.minReadyTime: Invalid value: "-5s"` + durationWords},
	{"a path that goes up", rollout("x", "source: {git: {url: 'https://g/x'}, path: ../secrets}"), `spec.source.path: Invalid value: "../secrets"` + pathWords},
	{"an absolute path", rollout("x", "source: {git: {url: 'https://g/x'}, path: /etc}"), `spec.source.path: Invalid value: "/etc"` + pathWords},
	{"no time to look", rollout("x", "source: {git: {url: 'https://g/x'}, timeout: 5ms}"), `spec.source.timeout: Invalid value: "5ms": at least 1s`},
	{"looking too often", rollout("x", "source: {git: {url: 'https://g/x'}, interval: 1s}"), `spec.source.interval: Invalid value: "1s"` + lookWords},
	{"days", strategy("minReadyTime: 1d"), `spec.strategy.minReadyTime: Invalid value: "1d"` + durationWords},

	{"a release name", special("helm: {releaseName: Web}"), `spec.specialize.helm.releaseName: Invalid value: "Web": spec.specialize.helm.releaseName in body should match '^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'`},
	{"two charts", rollout("x", "source: {helm: {url: 'https://r/c', chart: c, version: 1.x}}", "specialize: {helm: {chart: {url: 'https://r/c', chart: c, version: 1.0.0}}}"), `spec.specialize: Invalid value: the source is already a chart (spec.source.helm); keep one of the two`},
	{"a range of a chart", special("helm: {chart: {url: 'oci://r/c', chart: c, version: 1.x}}"), `spec.specialize.helm.chart.version: Invalid value: "1.x": an exact version such as 1.4.2, so that one commit always gives the same release (ranges belong in spec.source.helm)`},
	{"a chart's digest", special("helm: {chart: {url: 'oci://r/c', chart: c, version: 1.0.0, digest: abc}}"), `spec.specialize.helm.chart.digest: Invalid value: "abc": spec.specialize.helm.chart.digest in body should match '^sha256:[0-9a-f]{64}$'`},
	{"a values file of no name", special("helm: {valuesFiles: ['']}"), `spec.specialize.helm.valuesFiles[0]: Invalid value: "": spec.specialize.helm.valuesFiles[0] in body should be at least 1 chars long`},
	{"values from a Pod", special("helm: {valuesFrom: [{kind: Pod, name: x}]}"), `spec.specialize.helm.valuesFrom[0].kind: Unsupported value: "Pod": supported values: "ConfigMap", "Secret"`},
	{"values from nothing", special("helm: {valuesFrom: [{kind: Secret}]}"), `spec.specialize.helm.valuesFrom[0].name: Required value`},
	{"values to an empty path", special("helm: {valuesFrom: [{kind: Secret, name: x, targetPath: ''}]}"), `spec.specialize.helm.valuesFrom[0]: Invalid value: a path such as image.tag, or leave it out`},
	{"values that are a list", special("helm: {values: [1]}"), `spec.specialize.helm.values: Invalid value: "array": spec.specialize.helm.values in body must be of type object: "array"`},
	{"crds", special("helm: {crds: Create}"), `spec.specialize.helm.crds: Unsupported value: "Create": supported values: "Skip", "CreateReplace"`},
	{"hooks", special("helm: {hooks: Run}"), `spec.specialize.helm.hooks: Unsupported value: "Run": supported values: "Order", "Refuse", "Ignore"`},
	{"a variable's name", special("variables: [{name: 1st, expression: cluster.name}]"), `spec.specialize.variables[0].name: Invalid value: "1st": spec.specialize.variables[0].name in body should match '^[A-Za-z_][A-Za-z0-9_]*$'`},
	{"a variable of nothing", special("variables: [{name: tier, expression: ''}]"), `spec.specialize.variables[0].expression: Invalid value: "": spec.specialize.variables[0].expression in body should be at least 1 chars long`},
	{"a variable twice", special("variables: [{name: a, expression: '1'}, {name: a, expression: '2'}]"), `spec.specialize.variables[1]: Duplicate value: {"name":"a"}`},
	{"a component of no name", special("components: ['']"), `spec.specialize.components[0]: Invalid value: "": spec.specialize.components[0] in body should be at least 1 chars long`},
	{"an empty patch", special("patches: [{patch: ''}]"), `spec.specialize.patches[0].patch: Invalid value: "": spec.specialize.patches[0].patch in body should be at least 1 chars long`},
	{"an image of no name", special("images: [{newTag: v2}]"), `spec.specialize.images[0].name: Required value`},
	{"a namespace", special("targetNamespace: Shop"), `spec.specialize.targetNamespace: Invalid value: "Shop": spec.specialize.targetNamespace in body should match '^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'`},
	{"a long prefix", special("namePrefix: " + strings.Repeat("a", 201)), `spec.specialize.namePrefix: Too long: may not be more than 200 bytes`},
	{"variables from a Pod", special("postBuild: {substituteFrom: [{kind: Pod, name: x}]}"), `spec.specialize.postBuild.substituteFrom[0].kind: Unsupported value: "Pod": supported values: "ConfigMap", "Secret"`},
	{"an override for nobody", special("overrides: [{name: small}]"), `spec.specialize.overrides[0]: Invalid value: say for which members: matchLabels, matchExpressions or names`},
	{"an override's names and labels", special("overrides: [{name: small, names: [a], matchLabels: {a: b}}]"), `spec.specialize.overrides[0]: Invalid value` + combineWords},
	{"an override's name", special("overrides: [{name: Small, names: [a]}]"), `spec.specialize.overrides[0].name: Invalid value: "Small": spec.specialize.overrides[0].name in body should match '^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'`},
	{"an override twice", special("overrides: [{name: a, names: [a]}, {name: a, names: [b]}]"), `spec.specialize.overrides[1]: Duplicate value: {"name":"a"}`},
	{"an override of an empty patch", special("overrides: [{name: a, names: [a], patches: [{patch: ''}]}]"), `spec.specialize.overrides[0].patches[0].patch: Invalid value: "": spec.specialize.overrides[0].patches[0].patch in body should be at least 1 chars long`},
	{"a transformer that is none", special("prefix: a-"), `strict decoding error: unknown field "spec.specialize.prefix"`},

	{"no targets", rollout("x", "targets: {}"), `spec.targets: Invalid value` + whichWords},
	{"empty matchLabels", rollout("x", "targets: {matchLabels: {}}"), `spec.targets: Invalid value` + whichWords},
	{"empty matchExpressions", rollout("x", "targets: {matchExpressions: []}"), `spec.targets: Invalid value` + whichWords},
	{"empty names", rollout("x", "targets: {names: []}"), `spec.targets.names: Invalid value: 0: spec.targets.names in body should have at least 1 items`},
	{"names and labels", rollout("x", "targets: {names: [a], matchLabels: {a: b}}"), `spec.targets: Invalid value` + combineWords},
	{"names and expressions to exclude", rollout("x", "targets: {names: ['*'], exclude: {names: [a], matchExpressions: [{key: a, operator: Exists}]}}"), `spec.targets.exclude: Invalid value` + combineWords},
	{"a name twice", rollout("x", "targets: {names: [a, a]}"), `spec.targets.names[1]: Duplicate value: "a"`},
	{"a name that is none", rollout("x", "targets: {names: [EU]}"), `spec.targets.names[0]: Invalid value: "EU": spec.targets.names[0] in body should match '^(\*|[a-z0-9]([-a-z0-9]*[a-z0-9])?)$'`},

	{"type", strategy("type: Blue"), `spec.strategy.type: Unsupported value: "Blue": supported values: "Staged", "AllAtOnce"`},
	{"no concurrency", strategy("maxConcurrency: 0"), `spec.strategy.maxConcurrency: Invalid value: 0` + concurrencyWords},
	{"no percent of concurrency", strategy("maxConcurrency: 0%"), `spec.strategy.maxConcurrency: Invalid value: "0%"` + concurrencyWords},
	{"too much concurrency", strategy("maxConcurrency: 250%"), `spec.strategy.maxConcurrency: Invalid value: "250%"` + concurrencyWords},
	{"concurrency in words", strategy("maxConcurrency: many"), `spec.strategy.maxConcurrency: Invalid value: "many"` + concurrencyWords},
	{"all unavailable", strategy("maxUnavailable: 100%"), `spec.strategy.maxUnavailable: Invalid value: "100%"` + unavailableWords},
	{"less than none unavailable", strategy("maxUnavailable: -1"), `spec.strategy.maxUnavailable: Invalid value: -1` + unavailableWords},
	{"soak in days", strategy("soak: 1d"), `spec.strategy.soak: Invalid value: "1d"` + durationWords},
	{"ready time without a unit", strategy("minReadyTime: '60'"), `spec.strategy.minReadyTime: Invalid value: "60"` + durationWords},
	{"deadline", strategy("progressDeadline: 5s"), `spec.strategy.progressDeadline: Invalid value: "5s": at least 10s`},
	{"no stages", strategy("stages: []"), `spec.strategy.stages: Invalid value: 0: spec.strategy.stages in body should have at least 1 items`},
	{"AllAtOnce with stages", strategy("type: AllAtOnce, stages: [{name: a}]"), `spec.strategy.stages: Invalid value: only with type: Staged; AllAtOnce has no stages`},
	{"AllAtOnce with concurrency", strategy("type: AllAtOnce, maxConcurrency: 3"), `spec.strategy.maxConcurrency: Invalid value: AllAtOnce starts every cluster at once; for a limit use type: Staged with one stage`},
	{"an open stage before the last", strategy("stages: [{name: a}, {name: b, names: [x]}]"), `spec.strategy.stages: Invalid value` + lastWords},
	{"two open stages", strategy("stages: [{name: a}, {name: b}]"), `spec.strategy.stages: Invalid value` + lastWords},
	{"rest with a selector", strategy("stages: [{name: rest, names: [x]}]"), `spec.strategy.stages[0]: Invalid value` + restWords},
	{"rest with a size", strategy("stages: [{name: a, names: [x]}, {name: rest, size: 3}]"), `spec.strategy.stages[1]: Invalid value` + restWords},
	{"a stage twice", strategy("stages: [{name: a, names: [x]}, {name: a, names: [q]}]"), `spec.strategy.stages[1]: Duplicate value: {"name":"a"}`},
	{"a stage's names and labels", strategy("stages: [{name: a, names: [x], matchLabels: {a: b}}]"), `spec.strategy.stages[0]: Invalid value` + combineWords},
	{"a stage's size", strategy("stages: [{name: a, size: 0}]"), `spec.strategy.stages[0].size: Invalid value: 0` + sizeWords},
	{"a stage's size in percent", strategy("stages: [{name: a, size: 101%}]"), `spec.strategy.stages[0].size: Invalid value: "101%"` + sizeWords},
	{"a stage's concurrency", strategy("stages: [{name: a, maxConcurrency: 0}]"), `spec.strategy.stages[0].maxConcurrency: Invalid value: 0` + concurrencyWords},
	{"a stage's unavailable", strategy("stages: [{name: a, maxUnavailable: 100%}]"), `spec.strategy.stages[0].maxUnavailable: Invalid value: "100%"` + unavailableWords},
	{"a stage's deadline", strategy("stages: [{name: a, progressDeadline: 9s}]"), `spec.strategy.stages[0].progressDeadline: Invalid value: "9s": at least 10s`},
	{"a stage's name", strategy("stages: [{name: The first}]"), `spec.strategy.stages[0].name: Invalid value: "The first": spec.strategy.stages[0].name in body should match '^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'`},
	{"stages beside the strategy", rollout("x", "stages: [{name: a}]"), `strict decoding error: unknown field "spec.stages"`},

	{"checking too often", delivery("interval: 1s"), `spec.delivery.interval: Invalid value: "1s": at least 10s; changes to what was applied are seen by watching`},
	{"retrying too often", delivery("retryInterval: 10ms"), `spec.delivery.retryInterval: Invalid value: "10ms": at least 1s`},
	{"retries below none", delivery("retries: -1"), `spec.delivery.retries: Invalid value: -1: spec.delivery.retries in body should be greater than or equal to 0`},
	{"too many retries", delivery("retries: 101"), `spec.delivery.retries: Invalid value: 101: spec.delivery.retries in body should be less than or equal to 100`},
	{"an empty account", delivery("serviceAccountName: ''"), `spec.delivery.serviceAccountName: Invalid value: "": spec.delivery.serviceAccountName in body should be at least 1 chars long`},
	{"a guard of objects", delivery("pruneGuard: {maxObjects: -1}"), `spec.delivery.pruneGuard.maxObjects: Invalid value: -1: spec.delivery.pruneGuard.maxObjects in body should be greater than or equal to 0`},
	{"a guard of percent", delivery("pruneGuard: {maxPercent: 101}"), `spec.delivery.pruneGuard.maxPercent: Invalid value: 101: spec.delivery.pruneGuard.maxPercent in body should be less than or equal to 100`},

	{"member's name with a dot", member("eu.1", "peerID: "+peer), `<nil>: Invalid value` + memberWords},
	{"member's name too long", member(strings.Repeat("a", 64), "peerID: "+peer), `<nil>: Invalid value` + memberWords},
	{"no peer ID", member("eu-1", ""), `spec.peerID: Required value`},
	{"an RSA key", member("eu-1", "peerID: QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"), `spec.peerID: Invalid value: "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"` + peerWords},
	{"a peer ID cut short", member("eu-1", "peerID: "+peer[:40]), `spec.peerID: Invalid value: "` + peer[:40] + `"` + peerWords},
	{"incarnation", member("eu-1", "incarnation: 0, peerID: "+peer), `spec.incarnation: Invalid value: 0: spec.incarnation in body should be greater than or equal to 1`},
	{"zone", member("eu-1", "zone: EU, peerID: "+peer), `spec.zone: Invalid value: "EU": spec.zone in body should match '^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'`},
	{"an address twice", member("eu-1", "addresses: [/a, /a], peerID: "+peer), `spec.addresses[1]: Duplicate value: "/a"`},
}

func TestRefused(t *testing.T) {
	c, err := client.New(apitest.Start(t).Config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range refusals {
		t.Run(tc.name, func(t *testing.T) {
			_, err := try(t, c, tc.manifest)
			if err == nil {
				t.Fatalf("accepted:\n%s", tc.manifest)
			}
			if words := ofOurs(err.Error()); words != tc.want {
				t.Errorf("\ngot  %s\nwant %s", words, tc.want)
			}
		})
	}
}

// ofOurs takes away the server's own preface, and the remark that it makes after one that ends its checks.
func ofOurs(words string) string {
	for _, preface := range []string{" is invalid: ", " cannot be handled as a FleetRollout: "} {
		if _, after, found := strings.Cut(words, preface); found {
			words = after
		}
	}
	const remark = ", <nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation]"
	if before, found := strings.CutSuffix(words, remark); found {
		return strings.TrimPrefix(before, "[")
	}
	return words
}

func TestDefaults(t *testing.T) {
	c, err := client.New(apitest.Start(t).Config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ name, manifest, want string }{
		{"the short one", rollout("x"), `
source: {git: {url: 'https://g/x', ref: {branch: main}}, path: ./, interval: 1m, timeout: 60s}
targets: {names: ['*']}
delivery: {interval: 10m, retryInterval: 30s, retries: 3, prune: true}`},
		{"a commit is no branch", rollout("x", "source: {git: {url: 'https://g/x', ref: {commit: '0123456789012345678901234567890123456789'}}}"), `
source: {git: {url: 'https://g/x', ref: {commit: '0123456789012345678901234567890123456789'}}, path: ./, interval: 1m, timeout: 60s}
targets: {names: ['*']}
delivery: {interval: 10m, retryInterval: 30s, retries: 3, prune: true}`},
		{"a strategy, whose pace is not filled in", strategy("soak: 1h"), `
source: {git: {url: 'https://g/x', ref: {branch: main}}, path: ./, interval: 1m, timeout: 60s}
targets: {names: ['*']}
strategy: {type: Staged, soak: 1h}
delivery: {interval: 10m, retryInterval: 30s, retries: 3, prune: true}`},
		{"a guard", delivery("prune: false, pruneGuard: {}"), `
source: {git: {url: 'https://g/x', ref: {branch: main}}, path: ./, interval: 1m, timeout: 60s}
targets: {names: ['*']}
delivery: {interval: 10m, retryInterval: 30s, retries: 3, prune: false, pruneGuard: {maxObjects: 10, maxPercent: 50}}`},
		{"a member", member("eu-1", "peerID: "+peer), `{peerID: ` + peer + `, incarnation: 1, zone: default}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := try(t, c, tc.manifest)
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]any{}
			if err := yaml.Unmarshal([]byte(tc.want), &want); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(asText(t, want), asText(t, got.Object["spec"])); diff != "" {
				t.Errorf("spec (-want +got):\n%s", diff)
			}
		})
	}
	got, err := try(t, c, rollout("x"))
	if err != nil {
		t.Fatal(err)
	}
	if n, _, _ := unstructured.NestedInt64(got.Object, "status", "observedGeneration"); n != -1 {
		t.Errorf("observedGeneration %d, want -1: nobody has looked at it", n)
	}
}

func asText(t *testing.T, v any) string {
	t.Helper()
	raw, err := yaml.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// accepted by the schema, and by Validate.
var accepted = []struct{ name, manifest string }{
	{"podinfo", `
apiVersion: fleet.flotilla.dev/v1alpha1
kind: FleetRollout
metadata: {name: podinfo}
spec:
  source:
    git: {url: "https://git.example.com/apps/podinfo"}
    path: ./deploy
  targets:
    matchLabels: {tier: web}`},
	{"everything there is", `
kind: FleetRollout
metadata: {name: checkout, annotations: {fleet.flotilla.dev/pause: smoke}}
spec:
  source:
    git: {url: "http://git.example.com/acme/checkout", ref: {branch: release}}
    path: ./overlays/${LABEL_region}
    interval: 10s
    timeout: 2m30s
  targets:
    matchLabels: {env: prod}
    matchExpressions: [{key: region, operator: In, values: [eu, us, ap]}]
    exclude: {names: [eu-9]}
  strategy:
    type: Staged
    maxConcurrency: 20%
    maxUnavailable: 0
    minReadyTime: 2m
    soak: 15m
    progressDeadline: 10s
    stages:
    - {name: canary, matchLabels: {ring: canary}, size: 1, soak: 1h, maxConcurrency: 1}
    - {name: eu, matchExpressions: [{key: region, operator: In, values: [eu]}], maxUnavailable: 2}
    - {name: us, names: [us-1, us-2], size: 50%, maxUnavailable: 99%, maxConcurrency: 100%}
    - {name: rest, progressDeadline: 48h}
  delivery:
    serviceAccountName: deployer
    interval: 1h
    retryInterval: 1s
    retries: 0
    prune: false
    pruneGuard: {maxObjects: 0, maxPercent: 100}
  suspend: true`},
	{"all at once", strategy("type: AllAtOnce, maxUnavailable: 50%, minReadyTime: 0s")},
	{"a last stage of its own name", strategy("stages: [{name: canary, size: 1}, {name: everyone}]")},
	{"one stage of all", strategy("stages: [{name: everyone, maxConcurrency: 8}]")},
	{"named targets", rollout("x", "targets: {names: [eu-1, us-1], exclude: {matchLabels: {frozen: 'true'}}}")},
	{"the longest name", rollout(strings.Repeat("a", 63))},
	{"a member", `
kind: FleetMember
metadata: {name: eu-1, labels: {region: eu, ring: canary}}
spec: {peerID: ` + peer + `, incarnation: 2, zone: eu, addresses: [/ip4/192.0.2.1/udp/4001/quic-v1]}`},
	{"the longest member", member(strings.Repeat("a", 63), "peerID: "+peer)},
	{"everything that a git source has", `
kind: FleetRollout
metadata: {name: orders}
spec:
  source:
    git: {url: "ssh://git@git.example.com/acme/orders", ref: {semver: ">=1.2.0 <2.0.0"}, recurseSubmodules: true, sparseCheckout: [deploy, charts/orders]}
    path: ./clusters/${CLUSTER}
    secretRef: {name: git-key}
    proxySecretRef: {name: proxy}
    ignore: "*.md"
  targets: {names: ["*"]}`},
	{"a tag", source("git: {url: 'https://g/x', ref: {tag: v1.2.3}}")},
	{"a reference", source("git: {url: 'https://g/x', ref: {name: refs/pull/420/head}}")},
	{"a chart as the source", source("helm: {url: 'oci://registry.example.com/charts', chart: orders, version: 2.x}")},
	{"a chart's path that is the default", source("helm: {url: 'https://charts.example.com', chart: orders, version: 2.14.1}, path: ./")},
	{"everything that specialize has", `
kind: FleetRollout
metadata: {name: orders}
spec:
  source: {git: {url: "https://git.example.com/orders"}}
  targets: {names: ["*"]}
  specialize:
    helm:
      chart: {url: "oci://registry.example.com/charts", chart: orders, version: v2.14.1-rc.1, digest: "sha256:` + strings.Repeat("0a", 32) + `", secretRef: {name: charts}}
      releaseName: orders
      valuesFiles: [values.yaml, "regions/${LABEL_region}.yaml"]
      ignoreMissingValuesFiles: true
      valuesFrom: [{kind: ConfigMap, name: a}, {kind: Secret, name: b, valuesKey: x.yaml, targetPath: db.password, optional: true}]
      values: {ingress: {host: "orders.${LABEL_region}.example.com"}, replicas: 3, list: [1, null]}
      crds: Skip
      hooks: Ignore
    variables: [{name: tier, expression: "cluster.labels['tier']"}, {name: _x1, expression: "1"}]
    components: [../components/tls]
    patches: [{patch: "- {op: remove, path: /spec/replicas}", target: {kind: Deployment, name: "web.*"}}]
    images: [{name: registry.example.com/orders, newTag: v2, digest: ""}]
    commonMetadata: {labels: {team: orders}, annotations: {note: ""}}
    targetNamespace: shop
    namePrefix: a-
    nameSuffix: -b
    postBuild: {substitute: {a: b}, substituteFrom: [{kind: Secret, name: vars, optional: true}]}
    overrides:
    - {name: small, matchLabels: {size: small}, values: {replicas: 1}, substitute: {a: c}}
    - {name: eu, names: [eu-1], images: [{name: orders, newName: eu/orders}], patches: [{patch: "kind: Service"}]}`},
}

func TestAccepted(t *testing.T) {
	c, err := client.New(apitest.Start(t).Config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range accepted {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := try(t, c, tc.manifest); err != nil {
				t.Errorf("%v\n%s", err, tc.manifest)
			}
		})
	}
}
