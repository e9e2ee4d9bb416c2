// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/source"
	"github.com/flotilla-dev/flotilla/specialize"
)

// TestNobodyReadsAsTheAgent: but the agent itself. A request without a user to impersonate would have all its rights,
// and what a name that is none stands for is the server's to say; so neither meets the server.
func TestNobodyReadsAsTheAgent(t *testing.T) {
	var mu sync.Mutex
	var users []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		users = append(users, r.Header.Get("Impersonate-User"))
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"kind":"Secret","apiVersion":"v1","data":{"key":"dmFsdWU="}}`))
	}))
	defer server.Close()
	for _, inputs := range []*KubeInputs{
		{Config: &rest.Config{Host: server.URL}, Namespace: "flotilla-system"},
		{Config: &rest.Config{Host: server.URL}}, // whoever forgets the namespace
	} {
		for _, as := range []source.Reader{
			{}, {Namespace: "shop"}, {ServiceAccount: "flotilla"}, {Namespace: "shop", ServiceAccount: "a:b"}, {Namespace: "a:b", ServiceAccount: "c"},
			{Namespace: "shop", ServiceAccount: "a\nb"}, {Namespace: "shop", ServiceAccount: "../b"}, {Namespace: "shop", ServiceAccount: " "},
		} {
			_, err := inputs.Secret(t.Context(), as, "flotilla-agent-key")
			if fleet.KindOf(err) != fleet.Refused || fleet.ReasonOf(err, "") != v1alpha1.ReasonServiceAccountNotFound {
				t.Errorf("a Secret as %q: %v", as, err)
			}
			if _, err := inputs.Objects(t.Context(), as, []specialize.Reference{{Kind: "Secret", Name: "flotilla-agent-key"}}); err == nil {
				t.Errorf("objects as %q were read", as)
			}
		}
	}
	if len(users) != 0 {
		t.Fatalf("the server was asked as %q", users)
	}
	inputs := &KubeInputs{Config: &rest.Config{Host: server.URL}, Namespace: "flotilla-system"}
	for as, want := range map[source.Reader]string{
		{Namespace: "flotilla-system"}:                             "",
		{Namespace: "flotilla-system", ServiceAccount: "flotilla"}: "system:serviceaccount:flotilla-system:flotilla",
		{Namespace: "shop", ServiceAccount: "flotilla"}:            "system:serviceaccount:shop:flotilla",
	} {
		if _, err := inputs.Secret(t.Context(), as, "git"); err != nil || users[len(users)-1] != want {
			t.Errorf("as %v: the server was asked as %q, %v", as, users, err)
		}
	}
}

// TestSecretsDoNotWaitForDiscovery: a server that is slow to say what it serves keeps no rollout from its Secrets.
func TestSecretsDoNotWaitForDiscovery(t *testing.T) {
	asked, hold := make(chan struct{}), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/version" {
			close(asked)
			<-hold
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"kind":"Secret","apiVersion":"v1"}`))
	}))
	defer server.Close()
	inputs := &KubeInputs{Config: &rest.Config{Host: server.URL}, Namespace: "flotilla-system", Clock: func() fleet.Moment { return fleet.Moment{} }}
	var all sync.WaitGroup
	all.Go(func() { _, _, _ = inputs.Capabilities(t.Context()) })
	<-asked
	read := make(chan error, 1)
	all.Go(func() {
		_, err := inputs.Secret(t.Context(), source.Reader{Namespace: "shop", ServiceAccount: "flotilla"}, "git")
		read <- err
	})
	select {
	case err := <-read:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the Secret waits")
	}
	close(hold)
	all.Wait()
}
