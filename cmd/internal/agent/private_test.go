// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// private is the git server behind a password.
func (o *one) private(password string) string {
	o.t.Helper()
	behind, err := url.Parse(o.git.URL("homelab"))
	o.must(err)
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: behind.Scheme, Host: behind.Host}) }}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, given, ok := r.BasicAuth(); !ok || user != "ada" || given != password {
			w.Header().Set("WWW-Authenticate", "Basic")
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	o.t.Cleanup(server.Close)
	return server.URL + behind.Path
}

// setPassword in the Secret that the rollout names, as its tenant does.
func (o *one) setPassword(password string) {
	o.t.Helper()
	o.must(o.member.Apply(o.t.Context(), fmt.Appendf(nil,
		"apiVersion: v1\nkind: Secret\nmetadata: {name: homelab, namespace: home}\nstringData: {username: ada, password: %s}\n", password)))
}

// private repository: without its Secret, with a wrong password, with the right one, and with one that was rotated.
func (o *one) privateRepository() {
	e := o.example("single", func(r *v1alpha1.FleetRollout) {
		r.Name, r.Spec.Targets.Names = "private", []string{"solo"}
		r.Spec.Source.Git.URL = o.private("open-sesame")
		r.Spec.Source.SecretRef = &v1alpha1.LocalReference{Name: "homelab"}
		r.Spec.Source.Path = "./private"
	})
	e.commit("in a folder of its own", func(files map[string]string) {
		files["private/notes.yaml"] = strings.ReplaceAll(files["notes.yaml"], "notes", "private")
	})
	c := e.awaitReason(e.rollout, v1alpha1.ConditionSourceReady, v1alpha1.ReasonCredentialsMissing)
	if !strings.Contains(c.Message, "Secret home/homelab is not there") {
		o.t.Errorf("without a Secret: %s", c.Message)
	}
	o.setPassword("abracadabra")
	e.look("1")
	c = e.awaitReason(e.rollout, v1alpha1.ConditionSourceReady, v1alpha1.ReasonAuthFailed)
	if !strings.Contains(c.Message, "home/homelab") || strings.Contains(c.Message, "abracadabra") {
		o.t.Errorf("with a wrong password: %s", c.Message)
	}
	o.setPassword("open-sesame")
	e.look("2")
	e.awaitData("private", map[string]string{"todo": "water the plants"})

	// Another tenant names the same URL, without the Secret: what was fetched with it is not for him.
	other := o.example("single", func(r *v1alpha1.FleetRollout) {
		r.Namespace, r.Name, r.Spec.Targets.Names = "stranger", "private", []string{"solo"}
		r.Spec.Source.Git.URL = e.rollout.Spec.Source.Git.URL
		r.Spec.Source.Path = "./private"
	})
	c = other.awaitReason(other.rollout, v1alpha1.ConditionSourceReady, v1alpha1.ReasonAuthFailed)
	o.t.Log(c.Message)
	if _, err := o.member.Client.CoreV1().ConfigMaps("stranger").Get(o.t.Context(), "private", metav1.GetOptions{}); err == nil {
		o.t.Error("a stranger was given the files of a private repository")
	}
	if all, err := o.member.Client.CoreV1().ConfigMaps("stranger").List(o.t.Context(), metav1.ListOptions{LabelSelector: v1alpha1.LabelRolloutName}); err != nil || len(all.Items) > 0 {
		o.t.Errorf("a stranger has %v %v", names(all.Items), err)
	}
}

func names(items []corev1.ConfigMap) (out []string) {
	for i := range items {
		out = append(out, items[i].Name)
	}
	return out
}
