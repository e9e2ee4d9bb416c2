// SPDX-License-Identifier: Apache-2.0

package preview

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

const good = `apiVersion: fleet.flotilla.dev/v1alpha1
kind: FleetRollout
metadata: {name: web, namespace: apps}
spec:
  source:
    git: {url: "https://git.example/web"}
  targets:
    names: ["*"]
`

func idOf(name string) fleet.MemberID {
	seed := sha256.Sum256([]byte(name))
	return fleet.MemberIDOf(ed25519.NewKeyFromSeed(seed[:]).Public().(ed25519.PublicKey))
}

func memberYAML(name, labels string) string {
	return fmt.Sprintf("apiVersion: fleet.flotilla.dev/v1alpha1\nkind: FleetMember\nmetadata:\n  name: %s\n  labels: {%s}\nspec: {peerID: %s}\n", name, labels, idOf(name))
}

func rosterOf(t *testing.T, names ...string) []fleet.Member {
	t.Helper()
	var docs []string
	for _, name := range names {
		region, _, _ := strings.Cut(name, "-")
		docs = append(docs, memberYAML(name, "region: "+region))
	}
	m, err := Parse("members.yaml", []byte(strings.Join(docs, "---\n")))
	if err != nil {
		t.Fatal(err)
	}
	roster, err := Roster(m.Members)
	if err != nil {
		t.Fatal(err)
	}
	return roster
}

func rolloutOf(t *testing.T, strategy string) *v1alpha1.FleetRollout {
	t.Helper()
	m, err := Parse("rollout.yaml", []byte(good+strategy))
	if err != nil {
		t.Fatal(err)
	}
	return &m.Rollouts[0].FleetRollout
}

func TestParse(t *testing.T) {
	body := "# the fleet\n---\n" + good + "---\n" + memberYAML("eu-1", "") + "--- # others\napiVersion: v1\nkind: Namespace\nmetadata: {name: apps}\n---\n# nothing\n---\n" +
		"apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Secret\n" +
		"- " + strings.ReplaceAll(strings.TrimSuffix(memberYAML("eu-2", ""), "\n"), "\n", "\n  ") + "\n"
	m, err := Parse("all.yaml", []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range m.Rollouts {
		got = append(got, r.Where.String()+" "+r.Namespace+"/"+r.Name)
	}
	for _, member := range m.Members {
		got = append(got, member.Where.String()+" "+member.Name)
	}
	want := []string{"all.yaml:3 apps/web", "all.yaml:12 eu-1", "all.yaml:30 eu-2"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestParseSaysWhere(t *testing.T) {
	for name, test := range map[string]struct{ body, want string }{
		"an unknown field": {
			good + "  strategy:\n    stages:\n    - name: a\n      size: 1\n    - name: b\n      maxConcurency: 2\n",
			"f.yaml:14: spec.strategy.stages[1].maxConcurency: unknown field",
		},
		"an unknown field at the top":  {good + "stages: []\n", "f.yaml:9: stages: unknown field"},
		"two unknown fields":           {good + "  a: 1\n  b: 2\n", "f.yaml:9: spec.a: unknown field\nf.yaml:10: spec.b: unknown field"},
		"in the second document":       {good + "---\n" + strings.Replace(good, "names:", "named:", 1), "f.yaml:17: spec.targets.named: unknown field"},
		"after a comment":              {"# one\n# two\n" + good + "  x: 1\n", "f.yaml:11: spec.x: unknown field"},
		"a day":                        {good + "  strategy:\n    soak: 1d\n", `f.yaml:10: spec.strategy.soak: "1d": a duration such as 90s, 15m or 48h (there is no unit for days: 7 days is 168h)`},
		"a day in a list":              {good + "  strategy:\n    stages:\n    - name: a\n      soak: 1d\n", `f.yaml:12: spec.strategy.stages[0].soak: "1d": a duration`},
		"a word for a switch":          {good + "  suspend: \"no\"\n", "f.yaml:9: spec.suspend: string where a bool is expected"},
		"a word for a list":            {good + "  strategy:\n    stages: many\n", "f.yaml:10: spec.strategy.stages: string where a list is expected"},
		"a word for an object":         {good + "  strategy: fast\n", "f.yaml:9: spec.strategy: string where an object is expected"},
		"a word for a number":          {good + "  delivery:\n    retries: few\n", "f.yaml:10: spec.delivery.retries: string where a number is expected"},
		"a key twice":                  {good + "  suspend: true\n  suspend: false\n", `f.yaml:10: key "suspend" already set in map`},
		"a tab":                        {good + "\tsuspend: true\n", "f.yaml:9: found character that cannot start any token"},
		"a tab in a later document":    {good + "---\n" + good + "\tsuspend: true\n", "f.yaml:18: found character that cannot start any token"},
		"no YAML":                      {"a: [1,\n", "f.yaml:"},
		"no object":                    {"- a\n- b\n", "f.yaml:1: not a Kubernetes object"},
		"no kind":                      {"metadata: {name: x}\n", "f.yaml:1: apiVersion and kind are needed"},
		"another version":              {strings.Replace(good, "v1alpha1", "v9", 1), "f.yaml:1: apiVersion: fleet.flotilla.dev/v9 is not known here; this version knows fleet.flotilla.dev/v1alpha1"},
		"another kind of ours":         {strings.Replace(good, "kind: FleetRollout", "kind: FleetWave", 1), "f.yaml:1: kind: fleet.flotilla.dev/v1alpha1 has no kind FleetWave; there are FleetRollout and FleetMember"},
		"no name":                      {strings.Replace(good, "name: web, ", "", 1), "f.yaml:3: metadata.name: required"},
		"no targets":                   {strings.Replace(good, `names: ["*"]`, "{}", 1), "f.yaml:7: spec.targets: say which members"},
		"a URL of another scheme":      {strings.Replace(good, "https:", "ftp:", 1), `f.yaml:6: spec.source.git.url: "ftp://git.example/web": an https, http or ssh URL`},
		"a selector that is none":      {good + "  strategy:\n    stages:\n    - name: a\n      matchExpressions:\n      - {key: a, operator: Is}\n", "f.yaml:11: spec.strategy.stages[0]: "},
		"a member's ID of another key": {strings.Replace(memberYAML("eu-1", ""), "12D3", "Qm12", 1), "f.yaml:6: spec.peerID: "},
		"an empty text":                {good + "  delivery: {serviceAccountName: ''}\n", "f.yaml:9: spec.delivery.serviceAccountName: empty; leave it out, or give it a value"},
		"a field of specialize":        {good + "  specialize:\n    helm:\n      hooks: Run\n", `f.yaml:11: spec.specialize.helm.hooks: "Run": one of Order, Refuse, Ignore`},
		"a member's name":              {memberYAML("EU_1", ""), `f.yaml:4: metadata.name: "EU_1": a DNS label`},
		"in a list":                    {"apiVersion: v1\nkind: List\nitems:\n- apiVersion: fleet.flotilla.dev/v1alpha1\n  kind: FleetMember\n  metadata: {name: a}\n  spec:\n    zon: eu\n", "f.yaml:8: spec.zon: unknown field"},
	} {
		_, err := Parse("f.yaml", []byte(test.body))
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case test.want != "" && (err == nil || !strings.HasPrefix(err.Error(), test.want)):
			t.Errorf("%s:\n got %v\nwant %s", name, err, test.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte("--- &a [*a]\n"))
	f.Add([]byte("a: &a [x]\nb: *a\n---\n" + memberYAML("eu-1", "a: b")))
	f.Add([]byte("apiVersion: v1\nkind: List\nitems: &i\n- *i\n"))
	f.Fuzz(func(t *testing.T, body []byte) {
		m, err := Parse("f", body)
		lines := strings.Count(string(body), "\n") + 1
		for _, r := range m.Rollouts {
			if r.Line < 1 || r.Line > lines {
				t.Errorf("a rollout at line %d of %d", r.Line, lines)
			}
		}
		if err == nil {
			for _, r := range m.Rollouts {
				if r.Name == "" || r.Spec.Source.Git == nil {
					t.Errorf("accepted %+v", r)
				}
			}
		}
	})
}

func TestRoster(t *testing.T) {
	one, two := memberYAML("eu-1", ""), memberYAML("eu-2", "")
	for name, test := range map[string]struct{ body, want string }{
		"two of one name": {one + "---\n" + strings.Replace(two, "eu-2", "eu-1", 1), "m.yaml:8: FleetMember eu-1: name eu-1 is in m.yaml:1 too"},
		"two of one key":  {one + "---\n" + strings.Replace(one, "eu-1", "eu-2", 1), "m.yaml:8: FleetMember eu-2: peerID " + string(idOf("eu-1")) + " is in m.yaml:1 too"},
		"no ed25519 key":  {strings.Replace(one, string(idOf("eu-1")), "12D3KooW"+strings.Repeat("z", 44), 1), "m.yaml:1: FleetMember eu-1: spec.peerID: "},
	} {
		m, err := Parse("m.yaml", []byte(test.body))
		if err != nil {
			t.Fatal(err)
		}
		if _, err = Roster(m.Members); err == nil || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%s: %v, want %s", name, err, test.want)
		}
	}
	m, err := Parse("copies.yaml", []byte(memberYAML("eu-1", "tier: web, fleet.flotilla.dev/origin: repository")))
	if err != nil {
		t.Fatal(err)
	}
	roster, err := Roster(m.Members)
	if err != nil || len(roster) != 1 || len(roster[0].Labels) != 1 || roster[0].Labels["tier"] != "web" || roster[0].Zone != "default" || roster[0].Incarnation != 1 {
		t.Errorf("%+v, %v: what an agent adds to its copy is not the member's", roster, err)
	}
	if len(m.Members[0].Labels) != 2 {
		t.Error("the manifest was changed")
	}
}

func TestReadFolders(t *testing.T) {
	dir := t.TempDir()
	write := func(name, body string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("eu/eu-1.yaml", memberYAML("eu-1", ""))
	write("us-1.yml", memberYAML("us-1", ""))
	write("README.md", "not: [yaml")
	write(".git/config.yaml", "not: [yaml")
	write(".hidden.yaml", "not: [yaml")
	m, err := Read(dir, nil)
	if err != nil || len(m.Members) != 2 {
		t.Errorf("%+v, %v", m.Members, err)
	}
	write("bad.yaml", "kind: FleetMember\n")
	if m, err = Read(dir, nil); err == nil || len(m.Members) != 2 || !strings.Contains(err.Error(), "bad.yaml:1: apiVersion and kind are needed") {
		t.Errorf("one bad file: %d members, %v", len(m.Members), err)
	}
	if _, err = Read(filepath.Join(dir, "none"), nil); err == nil || !strings.Contains(err.Error(), "no such file or folder") {
		t.Errorf("nothing there: %v", err)
	}
	if m, err = Read("-", strings.NewReader(good)); err != nil || len(m.Rollouts) != 1 || m.Rollouts[0].Where.String() != "standard input:1" {
		t.Errorf("standard input: %+v, %v", m, err)
	}
}

var name = fleet.RolloutName{Namespace: "apps", Name: "web"}

// shape of a plan: name, clusters, at a time, tolerated, members or lot.
func shape(p Plan) (out []string) {
	for _, s := range p.Stages {
		who := fmt.Sprint(s.Members)
		if s.Drawn {
			who = "by lot"
		}
		out = append(out, fmt.Sprintf("%s %d/%d-%d %s", s.Name, s.MaxConcurrency, s.Clusters, s.MaxUnavailable, who))
	}
	return append(out, fmt.Sprintf("best %gs, at once %d, fails at %d", p.BestSeconds, p.AtOnce, p.FailsAt))
}

func TestOf(t *testing.T) {
	for about, test := range map[string]struct {
		members, strategy string
		want              []string
	}{
		"automatic stages draw lots": {"eu-1 eu-2 eu-3 us-1", "", []string{
			"canary 1/1-0 by lot", "few 1/1-0 by lot", "half 1/2-0 by lot",
			"best 840s, at once 1, fails at 1", // 10m soak and 4 x 1m
		}},
		"one member is no lot": {"eu-1", "", []string{"canary 1/1-0 [eu-1]", "best 660s, at once 1, fails at 1"}},
		"a labelled canary, then everyone": {
			"eu-1 eu-2 us-1 us-2 us-3",
			"  strategy:\n    maxConcurrency: 2\n    stages:\n    - {name: eu, matchLabels: {region: eu}, soak: 5m}\n    - {name: all, maxUnavailable: 1}\n",
			[]string{"eu 2/2-0 [eu-1 eu-2]", "all 2/3-1 [us-1 us-2 us-3]", "best 480s, at once 2, fails at 2"},
		},
		"the tolerated of an earlier stage may still be at work": {
			"eu-1 eu-2 eu-3 eu-4 us-1 us-2",
			"  strategy:\n    maxConcurrency: 2\n    maxUnavailable: 1\n    minReadyTime: 10s\n    stages:\n    - {name: eu, matchLabels: {region: eu}}\n    - {name: us, matchLabels: {region: us}}\n",
			[]string{"eu 2/4-1 [eu-1 eu-2 eu-3 eu-4]", "us 2/2-1 [us-1 us-2]", "best 30s, at once 3, fails at 3"},
		},
		"a lot among those that match": {
			"eu-1 eu-2 us-1",
			"  strategy:\n    stages:\n    - {name: one, matchLabels: {region: eu}, size: 1}\n    - {name: us, matchLabels: {region: us}}\n",
			[]string{"one 1/1-0 by lot", "us 1/1-0 [us-1]", "rest 1/1-0 by lot", "best 180s, at once 1, fails at 1"},
		},
		"a size that takes all is no lot": {
			"eu-1 eu-2",
			"  strategy:\n    stages:\n    - {name: both, size: 2, maxConcurrency: \"100%\"}\n",
			[]string{"both 2/2-0 [eu-1 eu-2]", "best 60s, at once 2, fails at 2"},
		},
	} {
		p, err := Of(name, rolloutOf(t, test.strategy).Spec, rosterOf(t, strings.Fields(test.members)...))
		if err != nil {
			t.Errorf("%s: %v", about, err)
			continue
		}
		if diff := cmp.Diff(test.want, shape(p)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", about, diff)
		}
	}
}

func TestOfSaysWhoIsOut(t *testing.T) {
	rollout := rolloutOf(t, "")
	rollout.Spec.Targets = v1alpha1.Targets{ClusterSelector: v1alpha1.ClusterSelector{Names: []string{"*"}}, Exclude: &v1alpha1.ClusterSelector{Names: []string{"us-1"}}}
	p, err := Of(name, rollout.Spec, rosterOf(t, "eu-1", "us-1"))
	if err != nil || p.Members != 1 || p.Fleet != 2 || len(p.Out) != 1 || p.Out[0].Clusters != 1 || p.Out[0].Members[0] != "us-1" {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestOfRefuses(t *testing.T) {
	for about, test := range map[string]struct{ strategy, want string }{
		"an empty stage": {"  strategy:\n    stages:\n    - {name: us, matchLabels: {region: us}}\n", "no target is left for it"},
	} {
		_, err := Of(name, rolloutOf(t, test.strategy).Spec, rosterOf(t, "eu-1"))
		if err == nil || fleet.KindOf(err) != fleet.Terminal || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "apps/web") {
			t.Errorf("%s: %v", about, err)
		}
	}
	none := intstr.FromInt32(0)
	unchecked := rolloutOf(t, "")
	unchecked.Spec.Strategy = &v1alpha1.Strategy{Pacing: v1alpha1.Pacing{MaxConcurrency: &none}}
	if _, err := Of(name, unchecked.Spec, rosterOf(t, "eu-1")); err == nil || !strings.Contains(err.Error(), "at least 1") {
		t.Errorf("no concurrency: %v", err)
	}
	if _, err := Of(name, rolloutOf(t, "").Spec, nil); err == nil {
		t.Error("a fleet of nobody")
	}
}

// TestLotsThatLeaveNobody: the canary is drawn from all, and where the lot takes the only member of us, there is no
// stage of all the others.
func TestLotsThatLeaveNobody(t *testing.T) {
	strategy := "  strategy:\n    stages:\n    - {name: one, size: 1}\n    - {name: eu, matchLabels: {region: eu}}\n    - {name: us}\n"
	p, err := Of(name, rolloutOf(t, strategy).Spec, rosterOf(t, "eu-1", "eu-2", "us-1"))
	if err != nil || len(p.Stages) != 3 || !p.Stages[0].Drawn || !p.Stages[2].Drawn {
		t.Errorf("%+v, %v", p, err)
	}
}

// TestWarningsNameNobodyByLot: a warning may name only who is meant whatever the lots are.
func TestWarningsNameNobodyByLot(t *testing.T) {
	strategy := "  strategy:\n    stages:\n    - {name: one, size: 1}\n    - {name: two, matchLabels: {region: eu}, size: 1}\n"
	p, err := Of(name, rolloutOf(t, strategy).Spec, rosterOf(t, "eu-1", "eu-2", "eu-3", "eu-4", "eu-5"))
	if err != nil || len(p.Warnings) == 0 {
		t.Fatalf("%+v, %v", p, err)
	}
	for _, w := range p.Warnings {
		if strings.Contains(w, "eu-") {
			t.Errorf("warning %q", w)
		}
	}
}

func TestRender(t *testing.T) {
	dir := t.TempDir()
	payload := filepath.Join(dir, "payload")
	for file, body := range map[string]string{
		"payload/eu/cm.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {at: eu}\n",
		"secret.yaml":        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: outside}\n",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, file)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, file), []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	rollout, roster := rolloutOf(t, ""), rosterOf(t, "eu-1", "us-1")
	rollout.Spec.Source.Path = "./${LABEL_region}"
	rollout.Spec.Targets.Exclude = &v1alpha1.ClusterSelector{Names: []string{"us-1"}}
	render := func(member fleet.Name, folder string) (Rendered, string, error) {
		t.Helper()
		p, err := Open(rollout, Inputs{Payload: folder})
		if err != nil {
			return Rendered{}, "", err
		}
		defer p.Close()
		r, err := Render(p, roster, member)
		if err != nil {
			return r, "", err
		}
		body, err := r.YAML()
		return r, string(body), err
	}
	r, body, err := render("eu-1", payload)
	if err != nil || !strings.Contains(body, "at: eu") || len(r.Objects) != 1 || r.Path != "eu" || !r.Targeted || r.Digest.IsZero() {
		t.Errorf("%+v, %v", r, err)
	}
	if _, _, err = render("us-1", payload); err == nil || !strings.Contains(err.Error(), "apps/web for us-1: ") || !strings.Contains(err.Error(), "eu") {
		t.Errorf("no folder for it: %v", err)
	}
	rollout.Spec.Source.Path = "./eu"
	if r, _, err = render("us-1", payload); err != nil || r.Targeted || !strings.Contains(r.Because, "excluded") {
		t.Errorf("not targeted: %+v, %v", r, err)
	}
	if _, _, err = render("ap-1", payload); err == nil || !strings.Contains(err.Error(), `"ap-1" is not a member (members: eu-1, us-1)`) {
		t.Errorf("no member: %v", err)
	}
	if _, _, err = render("eu-1", filepath.Join(dir, "none")); err == nil || !strings.Contains(err.Error(), "payload: ") {
		t.Errorf("no payload: %v", err)
	}
	if err := os.Symlink(filepath.Join("..", "..", "secret.yaml"), filepath.Join(payload, "eu", "link.yaml")); err != nil {
		t.Fatal(err)
	}
	if _, body, err = render("eu-1", payload); err == nil || strings.Contains(body, "outside") {
		t.Errorf("a link out of the payload was followed: %s, %v", body, err)
	}
}
