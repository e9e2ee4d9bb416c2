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

// refusals are what the API server prints after "is invalid: ", word for word.
var refusals = []struct{ name, manifest, want string }{
	{"name", rollout(strings.Repeat("a", 64)), `<nil>: Invalid value: at most 63 characters, because it becomes a label value on every object it delivers`},
	{"no source", rollout("x", "source: {}"), `spec.source.git: Required value`},
	{"no url", rollout("x", "source: {git: {}}"), `spec.source.git.url: Required value`},
	{"url", rollout("x", "source: {git: {url: 'ssh://git@g/x'}}"), `spec.source.git.url: Invalid value: "ssh://git@g/x": spec.source.git.url in body should match '^https?://.+$'`},
	{"branch and commit", rollout("x", "source: {git: {url: 'https://g/x', ref: {branch: main, commit: '0123456789012345678901234567890123456789'}}}"), `spec.source.git.ref: Invalid value: name exactly one of branch, commit`},
	{"neither branch nor commit", rollout("x", "source: {git: {url: 'https://g/x', ref: {}}}"), `spec.source.git.ref: Invalid value: name exactly one of branch, commit`},
	{"a short commit", rollout("x", "source: {git: {url: 'https://g/x', ref: {commit: abc1234}}}"), `spec.source.git.ref.commit: Invalid value: "abc1234": spec.source.git.ref.commit in body should match '^[0-9a-f]{40}$'`},
	{"a path that goes up", rollout("x", "source: {git: {url: 'https://g/x'}, path: ../secrets}"), `spec.source.path: Invalid value: "../secrets"` + pathWords},
	{"an absolute path", rollout("x", "source: {git: {url: 'https://g/x'}, path: /etc}"), `spec.source.path: Invalid value: "/etc"` + pathWords},
	{"looking too often", rollout("x", "source: {git: {url: 'https://g/x'}, interval: 1s}"), `spec.source.interval: Invalid value: "1s"` + lookWords},
	{"days", rollout("x", "source: {git: {url: 'https://g/x'}, timeout: 1d}"), `spec.source.timeout: Invalid value: "1d"` + durationWords},

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

func TestAccepted(t *testing.T) {
	c, err := client.New(apitest.Start(t).Config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ name, manifest string }{
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
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := try(t, c, tc.manifest); err != nil {
				t.Errorf("%v\n%s", err, tc.manifest)
			}
		})
	}
}
