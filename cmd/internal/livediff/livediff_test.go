// SPDX-License-Identifier: Apache-2.0

package livediff

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"k8s.io/client-go/rest"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/delivery/kube"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestFieldManagerIsTheAgents(t *testing.T) {
	if FieldManager != kube.DefaultFieldOwner || Namespace != kube.DefaultNamespace {
		t.Errorf("%s in %s; the agents are %s in %s", FieldManager, Namespace, kube.DefaultFieldOwner, kube.DefaultNamespace)
	}
}

// The inventory is looked for where the agents keep it, however long the names are.
func TestInventoryIsWhereTheAgentsKeepIt(t *testing.T) {
	for _, rollout := range []fleet.RolloutName{
		{Namespace: "apps", Name: "web"},
		{Namespace: strings.Repeat("n", 63), Name: strings.Repeat("a", 253)},
	} {
		var mu sync.Mutex
		var asked []string
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			asked = append(asked, r.URL.Path)
			mu.Unlock()
			w.Header().Set("Content-Type", "application/json")
			switch r.URL.Path {
			case "/api":
				_, _ = w.Write([]byte(`{"kind":"APIVersions","versions":["v1"]}`))
			case "/apis":
				_, _ = w.Write([]byte(`{"kind":"APIGroupList","apiVersion":"v1","groups":[]}`))
			case "/api/v1":
				_, _ = w.Write([]byte(`{"kind":"APIResourceList","groupVersion":"v1","resources":[{"name":"configmaps","kind":"ConfigMap","namespaced":true}]}`))
			default:
				w.WriteHeader(http.StatusNotFound)
				_, _ = w.Write([]byte(`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`))
			}
		}))
		cluster := &kube.Cluster{Config: &rest.Config{Host: server.URL, Transport: &http.Transport{DisableKeepAlives: true}}}
		if _, err := cluster.Inventory(context.Background(), rollout); err != nil {
			t.Error(err)
		}
		server.Close()
		want := "/api/v1/namespaces/" + Namespace + "/configmaps/" + InventoryName(rollout)
		if last := asked[len(asked)-1]; last != want {
			t.Errorf("the agents ask for %s, not for %s", last, want)
		}
	}
}
