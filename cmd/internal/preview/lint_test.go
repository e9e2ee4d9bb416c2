// SPDX-License-Identifier: Apache-2.0

package preview

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/cmd/internal/fleetrepo"
)

func unrendered(fleet.RolloutName) (Inputs, bool) { return Inputs{}, false }

func filesOf(all map[string]string) fstest.MapFS {
	out := fstest.MapFS{}
	for name, body := range all {
		out[name] = &fstest.MapFile{Data: []byte(body)}
	}
	return out
}

func findings(t *testing.T, files map[string]string) (out []string) {
	t.Helper()
	report, err := lintRepository(filesOf(files), unrendered)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range report.Findings {
		out = append(out, f.Where().String()+": "+f.Severity+": "+f.Sentence())
	}
	return out
}

func TestLintRepository(t *testing.T) {
	member := memberYAML("eu-1", "region: eu")
	for about, test := range map[string]struct {
		files map[string]string
		want  []string
	}{
		"nothing wrong": {map[string]string{"rollouts/web.yaml": good}, nil},
		"hidden folders and other kinds beside the fleet": {map[string]string{
			"rollouts/web.yaml": good, ".github/x.yaml": good, "docs/x.yaml": "a: b", "charts/x.yaml": "{{ nothing }}",
		}, nil},
		"two of one name": {map[string]string{"rollouts/a.yaml": good, "rollouts/b.yaml": "# again\n---\n" + good}, []string{
			"rollouts/b.yaml:3: error: FleetRollout apps/web is in rollouts/a.yaml too",
		}},
		"two members of one key": {map[string]string{"members/b.yaml": strings.Replace(member, "eu-1", "eu-2", 1)}, []string{
			"members/b.yaml: error: " + string(idOf("eu-1")) + " is in members/a.yaml too",
		}},
		"another kind among the rollouts": {map[string]string{"rollouts/cm.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"}, []string{
			"rollouts/cm.yaml: error: v1 ConfigMap where fleet.flotilla.dev/v1alpha1 FleetRollout is expected",
		}},
		"a member among the rollouts": {map[string]string{"rollouts/m.yaml": memberYAML("us-1", "")}, []string{
			"rollouts/m.yaml: error: fleet.flotilla.dev/v1alpha1 FleetMember where fleet.flotilla.dev/v1alpha1 FleetRollout is expected",
		}},
		"a member elsewhere": {map[string]string{"clusters/m.yaml": memberYAML("us-1", "")}, []string{
			"clusters/m.yaml:1: warning: the agents do not read this FleetMember (they read members/)",
		}},
		"no namespace": {map[string]string{"rollouts/web.yaml": strings.Replace(good, ", namespace: apps", "", 1)}, []string{
			"rollouts/web.yaml:3: error: metadata.namespace: required; the payload and its service account live there",
		}},
		"a tenant's own namespace": {map[string]string{"tenants/pay/rollouts/web.yaml": strings.Replace(good, ", namespace: apps", "", 1)}, nil},
		"a tolerance of nothing": {map[string]string{"rollouts/web.yaml": good + "  strategy:\n    maxUnavailable: 50%\n    stages:\n    - {name: a, names: [eu-1]}\n"}, []string{
			"rollouts/web.yaml:10: warning: spec.strategy.maxUnavailable: 50% of the 1 cluster of stage a is 0 (rounded down)",
		}},
		"a tolerance of nothing, and said so": {map[string]string{"rollouts/web.yaml": good + "  strategy:\n    maxUnavailable: 0%\n"}, nil},
	} {
		test.files["members/a.yaml"] = member
		if diff := cmp.Diff(test.want, findings(t, test.files)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", about, diff)
		}
	}
}

// Whatever stands in a file: what the agents refuse is an error here, and there is a place for it.
func FuzzLintRefusesWhatTheAgentsDo(f *testing.F) {
	for _, body := range []string{
		good, "# nothing\n", "a: [", good + "---\n" + good, "kind: Secret\n", strings.Replace(good, "https", "ftp", 1),
		strings.Replace(good, "web", "", 1), good + "  strategy: {stages: []}\n", "---\n---\n", "\t", good + "  suspend: null\n",
	} {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		files := filesOf(map[string]string{"members/a.yaml": memberYAML("eu-1", ""), "rollouts/x.yaml": body})
		refused := len(fleetrepo.Read(files).Faults) > 0
		report, err := lintRepository(files, unrendered)
		if err != nil {
			t.Fatal(err)
		}
		if refused && report.Errors == 0 {
			t.Errorf("the agents refuse it, and nothing was found in:\n%s", body)
		}
		for _, finding := range report.Findings {
			if finding.File == "" || finding.Message == "" {
				t.Errorf("a finding that says nothing: %+v", finding)
			}
		}
	})
}
