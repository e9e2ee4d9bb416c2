// SPDX-License-Identifier: Apache-2.0

package readapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer"
)

// past of the world, as an agent finds it.
func (w *world) past() (out []PastPlan) {
	for _, r := range w.Releases() {
		out = append(out, PastPlan{Plan: r.Plan(), Release: r, Facts: w.FactsOf(r.Plan())})
	}
	return out
}

var threeReleases = []string{
	"c1 accepted", "c1 started", "c1 succeeded", "c1 soaked", "eu started", "eu succeeded", "eu soaked", "us started", "us-1 succeeded", "us-2 gaveup: no image", "us-3 yielded: no namespace",
	"pause by us-2: look at this", "resume by us-2",
	"revision 77ab01c", "c1 accepted", "c1 started", "c1 failed: no memory",
	"revision 5f3ca00", "c1 accepted", "c1 started", "c1 succeeded",
}

func TestPastGolden(t *testing.T) {
	w := newWorld(t).tell(threeReleases...)
	in, past := w.seenFrom("us-1"), w.past()
	past[0].Subject = "the first"
	events, err := BuildEvents(in, past, EventQuery{})
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string]any{"events": events, "releases": BuildReleases(in, past)} {
		raw, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		got, golden := w.Steady(string(raw))+"\n", filepath.Join("testdata", name+".json")
		if os.Getenv("UPDATE_GOLDEN") != "" {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s: -want +got:\n%s", name, diff)
		}
	}
}

// TestEventPages: pages of any size, one after the other, are the whole; nothing is twice and nothing is missing.
func TestEventPages(t *testing.T) {
	w := newWorld(t).tell(threeReleases...)
	in, past := w.seenFrom("us-1"), w.past()
	rapid.Check(t, func(t *rapid.T) {
		q := EventQuery{
			Member:   rapid.SampledFrom([]fleet.Name{"", "c1", "us-2", "nobody"}).Draw(t, "member"),
			Commands: rapid.Bool().Draw(t, "commands"),
			Since:    began.Add(time.Duration(rapid.IntRange(-5, 30).Draw(t, "since")) * time.Minute),
		}
		whole, err := BuildEvents(in, past, q)
		if err != nil || whole.Continue != "" {
			t.Fatalf("%v, continue %q", err, whole.Continue)
		}
		for i := range whole.Items {
			e := &whole.Items[i]
			if q.Member != "" && e.Member != q.Member || e.Time.Before(q.Since) || q.Commands && !e.IsCommand() {
				t.Fatalf("%+v is not asked for", e)
			}
			if i > 0 && e.Time.Before(whole.Items[i-1].Time) {
				t.Fatalf("%d is before the one before it", i)
			}
		}
		var got []Event
		q.Limit = rapid.IntRange(1, 7).Draw(t, "limit")
		for {
			page, err := BuildEvents(in, past, q)
			if err != nil || len(page.Items) > q.Limit {
				t.Fatalf("%d of %d: %v", len(page.Items), q.Limit, err)
			}
			got = append(got, page.Items...)
			if q.Continue = page.Continue; q.Continue == "" {
				break
			}
		}
		if diff := cmp.Diff(whole.Items, append([]Event{}, got...)); diff != "" {
			t.Fatalf("-whole +pages:\n%s", diff)
		}
		q.Last, q.Continue = true, ""
		last, err := BuildEvents(in, past, q)
		if want := whole.Items[max(0, len(whole.Items)-q.Limit):]; err != nil || !cmp.Equal(last.Items, want) || last.Continue != "" {
			t.Fatalf("the last %d: %v %v", q.Limit, last, err)
		}
	})
}

// TestReleasesWithoutSeal: of a plan whose seal is not held nobody knows how many it was for; its revision is what those who started it said.
func TestReleasesWithoutSeal(t *testing.T) {
	w := newWorld(t).tell("c1 started", "c1 succeeded", "eu succeeded", "us succeeded", "revision 77ab01c", "c1 accepted")
	past := w.past()
	past[0].Release = sequencer.Release{}
	out := BuildReleases(w.seenFrom("us-1"), past).Items
	if len(out) != 2 || !out[0].Current || out[1].Current {
		t.Fatalf("%+v", out)
	}
	if old := out[1]; old.Clusters != 0 || !old.Completed.IsZero() || old.Succeeded != 8 || old.Revision.Short() != "main@a1b2c3d" || old.Plan != past[0].Plan {
		t.Errorf("%+v", old)
	}
	none := w.seenFrom("us-1")
	none.Plan = nil
	if out := BuildReleases(none, past).Items; len(out) != 2 || out[0].Current || out[0].Clusters != 0 {
		t.Errorf("without a plan: %+v", out)
	}
	if e, err := BuildEvents(Input{Name: w.Plan.Rollout, Self: member("us-1")}, nil, EventQuery{}); err != nil || len(e.Items) != 0 {
		t.Errorf("of nothing: %+v %v", e, err)
	}
}

func FuzzCursor(f *testing.F) {
	f.Add("")
	f.Add("1763715660.4." + strings.Repeat("ab", 32))
	f.Add("-1.0." + strings.Repeat("00", 32))
	f.Add("1.1")
	f.Add("1.1.1.1")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := parseCursor(s)
		if err != nil {
			if fleet.ReasonOf(err, "") != ReasonBadRequest || len(err.Error()) > 1000 {
				t.Fatalf("%v", err)
			}
			return
		}
		if s != "" && c.String() != s {
			t.Fatalf("%q was read as %q", s, c)
		}
	})
}

func TestEventQuery(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := EventQuery{
			Member:   fleet.Name(rapid.StringMatching(`[a-z&=]{0,5}`).Draw(t, "member")),
			Commands: rapid.Bool().Draw(t, "commands"), Last: rapid.Bool().Draw(t, "last"),
			Limit: rapid.IntRange(0, MaxEvents).Draw(t, "limit"), Continue: rapid.StringMatching(`[a-z0-9.]{0,5}`).Draw(t, "continue"),
		}
		if rapid.Bool().Draw(t, "since") {
			q.Since = began
		}
		values, err := url.ParseQuery(q.values().Encode())
		if err != nil {
			t.Fatal(err)
		}
		if got, err := eventQueryOf(values); err != nil || got != q {
			t.Fatalf("%+v became %+v: %v", q, got, err)
		}
	})
}

// archivist is an agent's past and cluster.
type archivist struct {
	*backend
	world *world
	err   error
}

func (a archivist) Events(_ fleet.RolloutName, q EventQuery) (Events, error) {
	if a.err != nil {
		return Events{}, a.err
	}
	return BuildEvents(a.world.seenFrom("us-1"), a.world.past(), q)
}

func (a archivist) Releases(fleet.RolloutName) Releases {
	return BuildReleases(a.world.seenFrom("us-1"), a.world.past())
}

func (a archivist) Objects(context.Context, fleet.RolloutName) (Objects, error) {
	out := Objects{Member: "us-1"}
	for i := range 7 {
		out.Items = append(out.Items, Object{Version: "v1", Kind: "ConfigMap", Resource: "configmaps", Namespace: "apps", Name: fmt.Sprint(i)})
	}
	out.Items = append(out.Items,
		Object{Version: "v1", Kind: "Secret", Resource: "secrets", Namespace: "apps", Name: "token"},
		Object{Group: "apps", Version: "v1", Kind: "Deployment", Resource: "deployments", Namespace: "other", Name: "web"},
		Object{Group: "gone.example", Version: "v1", Kind: "Gone", Namespace: "apps", Name: "unserved"},
	)
	return out, a.err
}

// reader may get some things.
type reader struct {
	asked []Access
	away  bool
}

func (r *reader) Authorize(_ context.Context, _ *http.Request, need Access) error {
	r.asked = append(r.asked, need)
	switch {
	case need.Resource == "secrets":
		return refusal(ReasonForbidden, "ada may not "+need.String(), "")
	case need.Resource == "deployments" && r.away:
		return errors.New("the API server is away")
	}
	return nil
}

func newArchive(t *testing.T, auth Authorizer) (*Server, *archivist) {
	b := newBackend(web("web"))
	a := &archivist{backend: b, world: newWorld(t).tell(threeReleases...)}
	return &Server{Rollouts: b, Members: b, Changes: b, Pasts: a, Cluster: a, Auth: auth, Version: Version{Member: "us-1"}}, a
}

func TestPastAnswers(t *testing.T) {
	for _, test := range []struct {
		path   string
		status int
		body   string
	}{
		{"/v1/rollouts/apps/web/events", 200, `"seenFrom":"us-1"`},
		{"/v1/rollouts/apps/web/events?member=us-2&commands=true", 200, `"kind":"Pause"`},
		{"/v1/rollouts/apps/web/events?limit=1&last=true", 200, `"kind":"Succeeded"`},
		{"/v1/rollouts/apps/web/events?limit=1", 200, `"continue":"`},
		{"/v1/rollouts/apps/web/events?since=2030-01-01T00:00:00Z", 200, `{"items":[],"seenFrom":"us-1"}`},
		{"/v1/rollouts/apps/web/events?since=yesterday", 400, `since=\"yesterday\"`},
		{"/v1/rollouts/apps/web/events?limit=-1", 400, `limit=\"-1\": a number`},
		{"/v1/rollouts/apps/web/events?limit=many", 400, `a number`},
		{"/v1/rollouts/apps/web/events?last=perhaps", 400, `true or false`},
		{"/v1/rollouts/apps/web/events?continue=elsewhere", 400, `not what a page of this endpoint ended with`},
		{"/v1/rollouts/apps/none/events", 404, `not known to member us-1`},
		{"/v1/rollouts/apps/web/releases", 200, `"current":true`},
		{"/v1/rollouts/apps/none/releases", 404, `not known`},
		{"/v1/rollouts/apps/web/objects", 200, `"total":10,"hidden":2`},
		{"/v1/rollouts/apps/web/objects?limit=x", 400, `a number`},
		{"/v1/rollouts/apps/web/objects?continue=-2", 400, `a number`},
		{"/v1/rollouts/apps/web/objects?continue=99", 200, `"items":[]`},
		{"/v1/rollouts/apps/none/objects", 404, `not known`},
	} {
		auth := &reader{}
		s, _ := newArchive(t, auth)
		w := ask(s, http.MethodGet, test.path)
		if w.Code != test.status || !strings.Contains(w.Body.String(), test.body) {
			t.Errorf("%s: %d %s, want %d %s", test.path, w.Code, w.Body, test.status, test.body)
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(test.path, "/v1/rollouts/apps/"), "/")
		if len(auth.asked) == 0 || auth.asked[0] != (Access{Verb: "get", Resource: "fleetrollouts", Namespace: "apps", Name: name}) {
			t.Errorf("%s: asked for %+v", test.path, auth.asked)
		}
	}
}

// TestObjectsAreForThoseWhoMay: each kind and namespace is asked for once; what may not be got is counted,
// and where nobody can tell there is no answer.
func TestObjectsAreForThoseWhoMay(t *testing.T) {
	auth := &reader{}
	s, a := newArchive(t, auth)
	var seen []string
	path := "/v1/rollouts/apps/web/objects?limit=3"
	for next := ""; ; {
		w := ask(s, http.MethodGet, path+next)
		var page Objects
		if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil || w.Code != 200 || page.Total != 10 || page.Hidden != 2 || len(page.Items) > 3 {
			t.Fatalf("%d %s: %v", w.Code, w.Body, err)
		}
		for _, o := range page.Items {
			seen = append(seen, o.Name)
		}
		if page.Continue == "" {
			break
		}
		next = "&continue=" + page.Continue
	}
	if got := strings.Join(seen, " "); got != "0 1 2 3 4 5 6 web" {
		t.Errorf("seen %s", got)
	}
	want := []Access{
		{Verb: "get", Resource: "fleetrollouts", Namespace: "apps", Name: "web"},
		{Verb: "get", Group: CoreGroup, Resource: "configmaps", Namespace: "apps"},
		{Verb: "get", Group: CoreGroup, Resource: "secrets", Namespace: "apps"},
		{Verb: "get", Group: "apps", Resource: "deployments", Namespace: "other"},
	}
	if diff := cmp.Diff(want, auth.asked[:4]); diff != "" || len(auth.asked) != 12 {
		t.Errorf("%d questions, -want +got:\n%s", len(auth.asked), diff)
	}
	auth.away = true
	if w := ask(s, http.MethodGet, path); w.Code != http.StatusServiceUnavailable || strings.Contains(w.Body.String(), "ConfigMap") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	auth.away, a.err = false, errors.New("inventory of apps/web: away")
	if w := ask(s, http.MethodGet, path); w.Code != http.StatusServiceUnavailable || strings.Contains(w.Body.String(), "ConfigMap") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// TestAccessInWords: groups as RBAC has them.
func TestAccessInWords(t *testing.T) {
	for want, a := range map[string]Access{
		"get secrets in namespace apps":                              {Verb: "get", Group: CoreGroup, Resource: "secrets", Namespace: "apps"},
		"get deployments.apps in namespace apps":                     {Verb: "get", Group: "apps", Resource: "deployments", Namespace: "apps"},
		"get fleetrollouts.fleet.flotilla.dev web in namespace apps": {Verb: "get", Resource: "fleetrollouts", Namespace: "apps", Name: "web"},
		"list fleetrollouts.fleet.flotilla.dev in all namespaces":    {Verb: "list", Resource: "fleetrollouts"},
	} {
		if got := a.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestOlderAgent: a path that is not there yet is an agent's age, and no missing rollout.
func TestOlderAgent(t *testing.T) {
	b := newBackend(web("web"))
	address, ca := startAgent(t, b)
	config := startAPIServer(t, EndpointData(address, ca))
	config.BearerToken = "secret-token"
	client, err := Find(context.Background(), config)
	if err != nil {
		t.Fatal(err)
	}
	name := fleet.RolloutName{Namespace: "apps", Name: "web"}
	_, err1 := client.Events(context.Background(), name, EventQuery{})
	_, err2 := client.Releases(context.Background(), name)
	_, err3 := client.Objects(context.Background(), name, "7")
	for _, err := range []error{err1, err2, err3} {
		if err == nil || !strings.Contains(err.Error(), "older than this command") {
			t.Errorf("%v", err)
		}
	}
}

// manyFacts is a past of five plans and a thousand members.
func manyFacts(tb testing.TB) (Input, []PastPlan) {
	in := crowded(tb, 1000)
	var past []PastPlan
	for n := range 5 {
		release := in.Plan.Release
		release.Revision = fleet.Revision(fmt.Sprintf("main@sha1:%d", n))
		p := PastPlan{Plan: release.Plan(), Release: release}
		for i := range in.Plan.Stages {
			for _, m := range in.Plan.Stages[i].Members {
				for _, kind := range []fleet.FactKind{fleet.Accepted, fleet.Started, fleet.Succeeded, fleet.Soaked} {
					p.Facts = append(p.Facts, fleet.Fact{Plan: p.Plan, Kind: kind, Member: m.ID, Time: began.Unix() + int64(n)})
				}
			}
		}
		past = append(past, p)
	}
	return in, past
}

// BenchmarkEvents is a page of 20,000 events.
func BenchmarkEvents(b *testing.B) {
	in, past := manyFacts(b)
	for b.Loop() {
		if out, err := BuildEvents(in, past, EventQuery{}); err != nil || len(out.Items) != DefaultEvents {
			b.Fatal(len(out.Items), err)
		}
	}
}

// BenchmarkReleases of a thousand members.
func BenchmarkReleases(b *testing.B) {
	in, past := manyFacts(b)
	for b.Loop() {
		if out := BuildReleases(in, past); len(out.Items) != 5 || out.Items[0].Succeeded != 1000 {
			b.Fatalf("%+v", out)
		}
	}
}

// TestPastRefusals: nothing is looked up for somebody who may not.
func TestPastRefusals(t *testing.T) {
	s, a := newArchive(t, &gate{answer: refusal(ReasonForbidden, "may not", "ask")})
	for _, what := range []string{"events", "releases", "objects"} {
		if w := ask(s, http.MethodGet, "/v1/rollouts/apps/web/"+what); w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "may not") {
			t.Errorf("%s: %d %s", what, w.Code, w.Body)
		}
	}
	if a.reads != 0 {
		t.Errorf("%d looks", a.reads)
	}
}

// TestForwarding: only a loopback address is one that is inside of a pod.
func TestForwarding(t *testing.T) {
	if got := forwarding("127.0.0.1:4443"); !strings.HasSuffix(got, "kubectl -n flotilla-system port-forward deploy/flotilla-agent 4443") {
		t.Errorf("%q", got)
	}
	for _, host := range []string{"10.0.0.7:4443", "agent.example:4443", "127.0.0.1", ""} {
		if got := forwarding(host); got != "" {
			t.Errorf("%s: %q", host, got)
		}
	}
}
