// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"testing"

	"sigs.k8s.io/kustomize/api/types"
)

func TestOverlap(t *testing.T) {
	tests := []struct {
		a, b string
		want bool
	}{
		{"data.key", "data.key", true},
		{"data.key", "data.other", false},
		{"", "metadata.name", true}, // the default
		{"metadata.name", "metadata.annotations.[cert-manager.io/inject-ca-from]", false},
		{"data", "data.x", true},
		{"data.x.y", "data", true},
		{"spec.rules.0.host", "spec.rules.*.host", true},
		{"spec.rules.0.host", "spec.rules.*.http", false},
		{"spec.containers.[name=a].image", "spec.containers.0.image", true},
		{"spec.containers.-.image", "spec.containers.3.image", true},
		{"metadata.namespace", "spec.dnsNames.0", false},
		{`data.a\\.b`, "data.[a.b]", true},
		{"data.db-host", "data.url", false},
	}
	for _, tt := range tests {
		if got := overlap(fieldPath(tt.a), fieldPath(tt.b)); got != tt.want {
			t.Errorf("overlap(%q, %q) = %v", tt.a, tt.b, got)
		}
		if got := overlap(fieldPath(tt.b), fieldPath(tt.a)); got != tt.want {
			t.Errorf("overlap(%q, %q) = %v", tt.b, tt.a, got)
		}
	}
}

// TestReplacementsInUse: what operators are usually shipped with does not feed itself.
func TestReplacementsInUse(t *testing.T) {
	r := func(source string, targets ...string) types.Replacement {
		return types.Replacement{
			Source:  &types.SourceSelector{FieldPath: source},
			Targets: []*types.TargetSelector{{Select: &types.Selector{}, FieldPaths: targets}},
		}
	}
	var g growth
	for range 8 {
		g.replacement(r(".metadata.namespace", ".metadata.annotations.[cert-manager.io/inject-ca-from]"))
		g.replacement(r(".metadata.name", ".spec.dnsNames.0", ".spec.dnsNames.1"))
		g.replacement(r("data.host", "spec.rules.0.host", "spec.tls.0.hosts.0"))
	}
	if n := g.feeding(); n != 0 {
		t.Errorf("%d of them are taken to feed each other", n)
	}
	if err := g.check(budget{bytes: maxBytes, objects: 1}); err != nil {
		t.Error(err)
	}
}
