// SPDX-License-Identifier: Apache-2.0

package fleetrepo

import (
	"strings"
	"testing"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/source/sourcetest"
)

const ams = "apiVersion: fleet.flotilla.dev/v1alpha1\nkind: FleetMember\nmetadata: {name: ams, labels: {region: eu}}\nspec: {peerID: 12D3KooWD3bfmNbuuuVCYwkjnFt3ukm3qaB3hDED3peHHXawvRAi, addresses: [/ip4/127.0.0.1/tcp/4001]}\n"

func rollout(name, namespace, extra string) string {
	return "apiVersion: fleet.flotilla.dev/v1alpha1\nkind: FleetRollout\nmetadata: {name: " + name + ", namespace: " + namespace +
		"}\nspec:\n  source: {git: {url: \"https://git.example.com/x\"}}\n  targets: {names: [\"*\"]}\n" + extra
}

func TestRead(t *testing.T) {
	c := Read(sourcetest.Files(map[string]string{
		"members/eu/ams.yaml":            "# a comment\n---\n" + ams,
		"members/README.md":              "not a manifest",
		"rollouts/two.yaml":              rollout("a", "shop", "") + "---\n" + rollout("b", "shop", ""),
		"tenants/pay/rollouts/api.yaml":  rollout("api", "pay", ""),
		"tenants/pay/rollouts/none.yaml": "# nothing\n",
		"elsewhere/ignored.yaml":         "kind: Nonsense",
	}))
	if len(c.Faults) > 0 {
		t.Fatalf("faults: %v", c.Faults)
	}
	if len(c.Members) != 1 || c.Members[0].Name != "ams" || c.Members[0].Zone != "default" || c.Members[0].Incarnation != 1 || len(c.Members[0].Addresses) != 1 {
		t.Errorf("members %+v", c.Members)
	}
	for _, name := range []string{"shop/a", "shop/b", "pay/api"} {
		parsed, err := fleet.ParseRolloutName(name)
		if _, ok := c.Rollouts[parsed]; err != nil || !ok {
			t.Errorf("%s is missing", name)
		}
	}
}

// A file that cannot be used is named, says why, and takes no other file along.
func TestFaults(t *testing.T) {
	for name, c := range map[string]struct{ file, body, says, about string }{
		"misspelt field":      {"rollouts/x.yaml", rollout("x", "shop", "  stages: []\n"), "stages", ""},
		"not YAML":            {"rollouts/x.yaml", "\t:", "", ""},
		"another kind":        {"rollouts/x.yaml", "apiVersion: v1\nkind: Secret\n", "FleetRollout is expected", ""},
		"no namespace":        {"rollouts/x.yaml", rollout("x", "\"\"", ""), "namespace", "/x"},
		"foreign namespace":   {"tenants/pay/rollouts/x.yaml", rollout("x", "shop", ""), "tenants/pay", "shop/x"},
		"refused by schema":   {"rollouts/x.yaml", strings.Replace(rollout("x", "shop", ""), "https://", "ftp://", 1), "http", "shop/x"},
		"an empty text":       {"rollouts/x.yaml", rollout("x", "shop", "  delivery: {serviceAccountName: ''}\n"), "spec.delivery.serviceAccountName: empty", ""},
		"a name of capitals":  {"rollouts/x.yaml", rollout("X", "shop", ""), "metadata.name", "shop/X"},
		"refused in a stage":  {"rollouts/x.yaml", rollout("x", "shop", "  strategy: {stages: [{name: a, size: 0}]}\n"), "spec.strategy.stages[0].size: 0: ", "shop/x"},
		"the same name twice": {"rollouts/x.yaml", rollout("good", "shop", ""), "rollouts/good.yaml", "shop/good"},
		"member twice":        {"members/x.yaml", ams, "members/ams.yaml", ""},
		"peer ID":             {"members/x.yaml", strings.Replace(ams, "12D3KooWD", "QmKooWD", 1), "peer", ""},
		"member's name":       {"members/x.yaml", strings.Replace(ams, "name: ams", "name: Ams", 1), "DNS label", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := Read(sourcetest.Files(map[string]string{
				"members/ams.yaml": ams, "rollouts/good.yaml": rollout("good", "shop", ""), c.file: c.body,
			}))
			if len(got.Faults) != 1 || got.Faults[0].File != c.file || !strings.Contains(got.Faults[0].Error(), c.says) {
				t.Fatalf("faults: %v", got.Faults)
			}
			if about := got.Faults[0].Rollout; c.about != "" && about.String() != c.about {
				t.Errorf("it is about %s", about)
			}
			if len(got.Members) != 1 || len(got.Rollouts) != 1 {
				t.Errorf("%d members and %d rollouts are left", len(got.Members), len(got.Rollouts))
			}
		})
	}
}
