// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"net"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"sigs.k8s.io/yaml"

	"github.com/flotilla-dev/flotilla/cmd/internal/readapi"
	"github.com/flotilla-dev/flotilla/deploy"
)

// TestPublishedPod: the pod is beside the address, where the agent is in one; what an earlier agent wrote goes.
func TestPublishedPod(t *testing.T) {
	cfg := DefaultConfig()
	r := &running{cfg: cfg, client: fake.NewClientset()}
	for _, pod := range []string{"flotilla-agent-1", "flotilla-agent-2", ""} {
		t.Setenv(podName, pod)
		if err := r.publishEndpoint(t.Context(), "https://127.0.0.1:4443", []byte("CA")); err != nil {
			t.Fatal(err)
		}
		found, err := r.client.CoreV1().ConfigMaps(readapi.EndpointNamespace).Get(t.Context(), readapi.EndpointConfigMap, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]string{"address": "https://127.0.0.1:4443", "ca.crt": "CA"}
		if pod != "" {
			want["pod"] = pod
		}
		if diff := cmp.Diff(want, found.Data); diff != "" {
			t.Errorf("in pod %q: -want +got:\n%s", pod, diff)
		}
	}
}

// TestInstalledAgentKnowsItsPod: the manifest says what the agent reads.
func TestInstalledAgentKnowsItsPod(t *testing.T) {
	raw, err := deploy.Files.ReadFile("agent/deployment.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var d appsv1.Deployment
	if err := yaml.UnmarshalStrict(raw, &d); err != nil {
		t.Fatal(err)
	}
	if d.Namespace != readapi.EndpointNamespace {
		t.Errorf("the CLI looks for the pod in %s, it is in %s", readapi.EndpointNamespace, d.Namespace)
	}
	var from *corev1.EnvVarSource
	for _, e := range d.Spec.Template.Spec.Containers[0].Env {
		if e.Name == podName {
			from = e.ValueFrom
		}
	}
	if from == nil || from.FieldRef == nil || from.FieldRef.FieldPath != "metadata.name" {
		t.Errorf("%s is from %v", podName, from)
	}
}

// TestEndpointOf: what is published is what the certificate names.
func TestEndpointOf(t *testing.T) {
	at := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 4443}
	every := &net.TCPAddr{IP: net.IPv6unspecified, Port: 4443}
	for _, test := range []struct {
		host, want string
		addr       net.Addr
	}{
		{"127.0.0.1", "https://127.0.0.1:4443", at},
		{"localhost", "https://localhost:4443", at},
		{"::1", "https://[::1]:4443", &net.TCPAddr{IP: net.IPv6loopback, Port: 4443}},
		{"agent.flotilla-system.svc", "https://agent.flotilla-system.svc:4443", at},
		{"", "https://[::]:4443", every},
		{"0.0.0.0", "https://[::]:4443", every},
	} {
		if got := endpointOf(test.host, test.addr); got != test.want {
			t.Errorf("%q: %s, want %s", test.host, got, test.want)
		}
	}
}
