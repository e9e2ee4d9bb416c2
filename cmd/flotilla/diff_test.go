// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/yaml"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/cmd/internal/livediff"
	"github.com/flotilla-dev/flotilla/delivery"
)

// startKubeAPI FOLDER serves what diff asks of an API server, and writes the kubeconfig. In FOLDER, live/KIND-NAME.yaml
// is an object as it is, applied/KIND-NAME.yaml what a server would answer to a dry-run of applying it; without that
// the answer is what was sent. A file refuse-KIND-NAME with a reason refuses. Whatever is no dry-run, or is applied by
// another field manager, fails the command.
func startKubeAPI(ts *testscript.TestScript, _ bool, args []string) {
	writeInventory(ts, ts.MkAbs(args[0]))
	server := httptest.NewTLSServer(&kubeAPI{folder: ts.MkAbs(args[0])})
	ts.Defer(server.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	ts.Check(clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"c": {Server: server.URL, CertificateAuthorityData: ca}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"u": {Token: token}},
		Contexts:       map[string]*clientcmdapi.Context{"x": {Cluster: "c", AuthInfo: "u", Namespace: "apps"}},
		CurrentContext: "x",
	}, ts.Getenv("KUBECONFIG")))
}

// writeInventory of what apps/web delivered last: an object that is in the payload still, one that is not, one that
// carries its labels no more, one that is deleted by now, and a Namespace, which is never pruned.
func writeInventory(ts *testscript.TestScript, folder string) {
	rollout := fleet.RolloutName{Namespace: "apps", Name: "web"}
	raw, err := delivery.Inventory{Rollout: rollout, Objects: []delivery.ObjectID{
		{Group: "apps", Version: "v1", Kind: "Deployment", Namespace: "apps", Name: "web"},
		{Group: "apps", Version: "v1", Kind: "Deployment", Namespace: "apps", Name: "same"},
		{Version: "v1", Kind: "ConfigMap", Namespace: "apps", Name: "gone"},
		{Version: "v1", Kind: "ConfigMap", Namespace: "apps", Name: "others"},
		{Version: "v1", Kind: "ConfigMap", Namespace: "apps", Name: "deleted"},
		{Version: "v1", Kind: "Namespace", Name: "kept"},
	}}.Encode()
	ts.Check(err)
	name := livediff.InventoryName(rollout)
	body, err := yaml.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": name, "namespace": livediff.Namespace},
		"data": map[string]any{livediff.InventoryKey: string(raw)},
	})
	ts.Check(err)
	ts.Check(os.WriteFile(filepath.Join(folder, "live", "configmap-"+name+".yaml"), body, 0o644))
}

type kubeAPI struct{ folder string }

func (k *kubeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch path := strings.Trim(r.URL.Path, "/"); path {
	case "api":
		respond(w, 200, metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{"v1"}})
	case "apis":
		list := metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}}
		for _, group := range []string{"apps", "apiextensions.k8s.io"} {
			v1 := metav1.GroupVersionForDiscovery{GroupVersion: group + "/v1", Version: "v1"}
			list.Groups = append(list.Groups, metav1.APIGroup{Name: group, Versions: []metav1.GroupVersionForDiscovery{v1}, PreferredVersion: v1})
		}
		respond(w, 200, list)
	case "api/v1":
		kinds(w, "v1", "ConfigMap", "Secret", "Namespace")
	case "apis/apps/v1":
		kinds(w, "apps/v1", "Deployment")
	case "apis/apiextensions.k8s.io/v1":
		kinds(w, "apiextensions.k8s.io/v1", "CustomResourceDefinition")
	default:
		parts := strings.Split(path, "/")
		k.object(w, r, strings.TrimSuffix(parts[len(parts)-2], "s")+"-"+parts[len(parts)-1])
	}
}

func kinds(w http.ResponseWriter, version string, names ...string) {
	list := metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: version}
	for _, name := range names {
		list.APIResources = append(list.APIResources, metav1.APIResource{Name: strings.ToLower(name) + "s", Kind: name, Namespaced: name != "Namespace" && name != "CustomResourceDefinition"})
	}
	respond(w, 200, list)
}

func (k *kubeAPI) object(w http.ResponseWriter, r *http.Request, name string) {
	if reason, err := os.ReadFile(filepath.Join(k.folder, "refuse-"+name)); err == nil {
		code := 422
		if strings.TrimSpace(string(reason)) == string(metav1.StatusReasonForbidden) {
			code = 403
		}
		failure(w, code, metav1.StatusReason(strings.TrimSpace(string(reason))), name+" is refused: hunter5")
		return
	}
	folder, query := "live", r.URL.Query()
	if r.Method == http.MethodPatch {
		folder = "applied"
		if query.Get("dryRun") != "All" || query.Get("fieldManager") != livediff.FieldManager || query.Get("force") != "true" ||
			r.Header.Get("Content-Type") != "application/apply-patch+yaml" {
			failure(w, 400, metav1.StatusReasonBadRequest, fmt.Sprintf("not a dry-run of an apply: %s %s", r.URL, r.Header.Get("Content-Type")))
			return
		}
	}
	body, err := os.ReadFile(filepath.Join(k.folder, folder, name+".yaml"))
	if os.IsNotExist(err) && r.Method == http.MethodPatch && !strings.Contains(r.URL.Path, "/namespaces/fresh/") {
		body, err = io.ReadAll(r.Body)
	}
	if err != nil {
		failure(w, 404, metav1.StatusReasonNotFound, name+" not found")
		return
	}
	object := map[string]any{}
	if err := yaml.Unmarshal(body, &object); err != nil {
		failure(w, 500, metav1.StatusReasonInternalError, err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(object)
}
