// SPDX-License-Identifier: Apache-2.0

package apitest_test

import (
	"context"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/flotilla-dev/flotilla/api/apitest"
)

func TestMain(m *testing.M) { apitest.Main(m) }

func TestServer(t *testing.T) {
	s := apitest.Start(t)
	if again := apitest.Start(t); again != s {
		t.Error("a second server for one package")
	}
	c := kubernetes.NewForConfigOrDie(s.Config)
	served, err := c.Discovery().ServerResourcesForGroupVersion("fleet.flotilla.dev/v1alpha1")
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]bool{}
	for _, r := range served.APIResources {
		kinds[r.Kind] = true
	}
	if !kinds["FleetRollout"] || !kinds["FleetMember"] {
		t.Errorf("served: %v", kinds)
	}
	ns := apitest.Namespace(t)
	if other := apitest.Namespace(t); other == ns {
		t.Error("one namespace twice")
	}
	if _, err := c.CoreV1().Namespaces().Get(context.Background(), ns, metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
}
