// SPDX-License-Identifier: Apache-2.0

package readapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// backend is what an agent would be: rollouts that a test changes.
type backend struct {
	Notifier
	mutex sync.Mutex
	held  map[fleet.RolloutName]Rollout
	reads int
}

func newBackend(rollouts ...Rollout) *backend {
	b := &backend{held: map[fleet.RolloutName]Rollout{}}
	for _, r := range rollouts {
		b.held[r.FullName()] = r
	}
	return b
}

func (b *backend) set(r Rollout) {
	b.mutex.Lock()
	b.held[r.FullName()] = r
	b.mutex.Unlock()
	b.Notify()
}

func (b *backend) remove(name fleet.RolloutName) {
	b.mutex.Lock()
	delete(b.held, name)
	b.mutex.Unlock()
	b.Notify()
}

func (b *backend) Rollouts() []Rollout {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	var out []Rollout
	for _, r := range b.held {
		out = append(out, r)
	}
	return out
}

func (b *backend) Rollout(name fleet.RolloutName) (Rollout, bool) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	b.reads++
	r, ok := b.held[name]
	return r, ok
}

func (b *backend) Explain(name fleet.RolloutName, member fleet.Name) (Explanation, error) {
	switch member {
	case "broken":
		return Explanation{}, errors.New("out of order")
	case "nobody":
		return Explanation{}, &fleet.Error{Kind: fleet.Terminal, Hint: "it has: c1", Err: fmt.Errorf("member %q: %w", member, ErrNoSuchMember)}
	}
	return Explanation{Namespace: name.Namespace, Rollout: name.Name, Member: member, Checks: []Check{}}, nil
}

func (b *backend) Members() []FleetMember { return nil }

// gate is an Authorizer that remembers what it was asked and answers what it is told.
type gate struct {
	mutex  sync.Mutex
	asked  []Access
	answer error
}

func (g *gate) Authorize(_ context.Context, _ *http.Request, need Access) error {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	g.asked = append(g.asked, need)
	return g.answer
}

func (g *gate) now(answer error) {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	g.answer = answer
}

func web(name string) Rollout {
	return Rollout{
		Namespace: "apps", Name: name, SeenFrom: "c1", Members: []Member{{Name: "c1", State: "Pending"}},
		Stages: []Stage{{Name: "canary", Phase: "Progressing", Clusters: 1}},
	}
}

func newServer(b *backend, g *gate) *Server {
	return &Server{Rollouts: b, Members: b, Changes: b, Auth: g, Version: Version{Member: "c1", Agent: "v0.1.0"}}
}

func ask(s http.Handler, method, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w
}

func TestAnswers(t *testing.T) {
	b := newBackend(web("web"), Rollout{Namespace: "other", Name: "db"})
	for _, test := range []struct {
		path   string
		status int
		need   Access
		body   string
	}{
		{"/v1/version", 200, Access{}, `{"api":"v1","member":"c1","agent":"v0.1.0"}`},
		{"/v1/members", 200, Access{Verb: "list", Resource: "fleetmembers"}, `{"items":[]}`},
		{"/v1/rollouts?namespace=other", 200, Access{Verb: "list", Resource: "fleetrollouts", Namespace: "other"}, `{"items":[{"namespace":"other","name":"db","seenFrom":""}]}`},
		{"/v1/rollouts?namespace=none", 200, Access{Verb: "list", Resource: "fleetrollouts", Namespace: "none"}, `{"items":[]}`},
		{"/v1/rollouts/other/db", 200, Access{Verb: "get", Resource: "fleetrollouts", Namespace: "other", Name: "db"}, `{"namespace":"other","name":"db","seenFrom":""}`},
		{"/v1/rollouts/other/web", 404, Access{Verb: "get", Resource: "fleetrollouts", Namespace: "other", Name: "web"}, `{"error":"rollout other/web is not known to member c1","hint":"flotilla get rollouts -A lists those that are"}`},
		{"/v1/rollouts/apps/web/explain?member=eu-1", 200, Access{Verb: "get", Resource: "fleetrollouts", Namespace: "apps", Name: "web"}, `"member":"eu-1"`},
		{"/v1/rollouts/apps/web/explain", 200, Access{Verb: "get", Resource: "fleetrollouts", Namespace: "apps", Name: "web"}, `"member":""`},
		{"/v1/rollouts/apps/none/explain", 404, Access{Verb: "get", Resource: "fleetrollouts", Namespace: "apps", Name: "none"}, `not known`},
		{"/v1/rollouts/apps/web/explain?member=nobody", 404, Access{Verb: "get", Resource: "fleetrollouts", Namespace: "apps", Name: "web"}, `"hint":"it has: c1"`},
		{"/v1/rollouts/apps/web/explain?member=broken", 500, Access{Verb: "get", Resource: "fleetrollouts", Namespace: "apps", Name: "web"}, `{"error":"out of order"}`},
		{"/v1/rollouts/apps/none/watch", 404, Access{Verb: "watch", Resource: "fleetrollouts", Namespace: "apps", Name: "none"}, `not known`},
	} {
		g := &gate{}
		w := ask(newServer(b, g), http.MethodGet, test.path)
		if w.Code != test.status || !strings.Contains(w.Body.String(), test.body) {
			t.Errorf("%s: %d %s, want %d %s", test.path, w.Code, w.Body, test.status, test.body)
		}
		if len(g.asked) != 1 || g.asked[0] != test.need {
			t.Errorf("%s: asked for %+v, want %+v", test.path, g.asked, test.need)
		}
		if !json.Valid(w.Body.Bytes()) {
			t.Errorf("%s: not JSON: %s", test.path, w.Body)
		}
	}
}

func TestListsLeaveMembersOut(t *testing.T) {
	w := ask(newServer(newBackend(web("web")), &gate{}), http.MethodGet, "/v1/rollouts")
	if strings.Contains(w.Body.String(), `"members"`) || !strings.Contains(w.Body.String(), `"name":"web"`) {
		t.Errorf("list %s", w.Body)
	}
}

func TestOnlyReads(t *testing.T) {
	g := &gate{}
	s := newServer(newBackend(web("web")), g)
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "CONNECT", "BREW"} {
		for _, path := range []string{"/v1/version", "/v1/rollouts/apps/web", "/elsewhere"} {
			if w := ask(s, method, path); w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "GET" {
				t.Errorf("%s %s: %d, Allow %q", method, path, w.Code, w.Header().Get("Allow"))
			}
		}
	}
	if len(g.asked) != 0 {
		t.Errorf("asked %v", g.asked)
	}
}

func TestUnknownPaths(t *testing.T) {
	s := newServer(newBackend(), &gate{})
	for _, path := range []string{"/", "/v1", "/v1/", "/v2/version", "/v1/rollouts/apps", "/v1/rollouts/a/b/c", "/healthz"} {
		if w := ask(s, http.MethodGet, path); w.Code != http.StatusNotFound || !strings.Contains(w.Body.String(), "there is nothing at this path") {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

// TestRefusals: the refusal comes before anything is looked up, and is the same whether the rollout exists or not.
func TestRefusals(t *testing.T) {
	for _, test := range []struct {
		err    error
		status int
	}{
		{refusal(ReasonUnauthorized, "who", "log in"), 401},
		{refusal(ReasonForbidden, "may not", "ask"), 403},
		{errors.New("the API server is away"), 503},
	} {
		b := newBackend(web("web"))
		s := newServer(b, &gate{answer: test.err})
		for _, path := range []string{"/v1/version", "/v1/members", "/v1/rollouts", "/v1/rollouts/apps/web", "/v1/rollouts/apps/none", "/v1/rollouts/apps/web/explain", "/v1/rollouts/apps/web/watch"} {
			w := ask(s, http.MethodGet, path)
			if w.Code != test.status {
				t.Errorf("%s: %d, want %d", path, w.Code, test.status)
			}
			var p Problem
			if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p != problemOf(test.err) {
				t.Errorf("%s: %s (%v)", path, w.Body, err)
			}
			if got := w.Header().Get("WWW-Authenticate"); (got != "") != (test.status == 401) {
				t.Errorf("%s: WWW-Authenticate %q", path, got)
			}
		}
		if b.reads != 0 {
			t.Errorf("%d looks at rollouts for somebody who may not", b.reads)
		}
	}
}

func TestSecurityHeaders(t *testing.T) {
	s := newServer(newBackend(web("web")), &gate{})
	for _, path := range []string{"/v1/rollouts/apps/web", "/elsewhere"} {
		h := ask(s, http.MethodGet, path).Header()
		for name, want := range map[string]string{
			"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Content-Type": "application/json",
			"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'", "Referrer-Policy": "no-referrer",
			"Access-Control-Allow-Origin": "",
		} {
			if got := h.Get(name); got != want {
				t.Errorf("%s: %s: %q, want %q", path, name, got, want)
			}
		}
	}
}
