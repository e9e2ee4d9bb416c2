// SPDX-License-Identifier: Apache-2.0

package apitest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const pollInterval = 50 * time.Millisecond

// install brings our CRDs and admission policies in, and waits until the kinds are served.
func install(ctx context.Context, config *rest.Config) error {
	c, err := client.New(config, client.Options{})
	if err != nil {
		return err
	}
	root, err := Root()
	if err != nil {
		return err
	}
	for _, folder := range []string{"crd", "admission"} {
		objects, err := ReadObjects(filepath.Join(root, "deploy", folder))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		for _, o := range objects {
			if err := c.Create(ctx, o); err != nil {
				return fmt.Errorf("deploy/%s: %w", folder, err)
			}
		}
		if err := awaitServed(ctx, c, objects); err != nil {
			return err
		}
	}
	return nil
}

// ReadObjects reads all manifests of a folder, but not kustomize's own files.
func ReadObjects(dir string) ([]*unstructured.Unstructured, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var objects []*unstructured.Unstructured
	for _, entry := range entries {
		if filepath.Ext(entry.Name()) != ".yaml" || entry.Name() == "kustomization.yaml" {
			continue
		}
		file, err := os.Open(filepath.Join(dir, entry.Name()))
		if err != nil {
			return nil, err
		}
		more, err := decodeObjects(file)
		_ = file.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file.Name(), err)
		}
		objects = append(objects, more...)
	}
	return objects, nil
}

func decodeObjects(r io.Reader) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	decoder := yaml.NewYAMLOrJSONDecoder(r, 4096)
	for {
		o := &unstructured.Unstructured{}
		err := decoder.Decode(&o.Object)
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, err
		}
		if len(o.Object) > 0 {
			objects = append(objects, o)
		}
	}
}

func awaitServed(ctx context.Context, c client.Client, objects []*unstructured.Unstructured) error {
	for _, o := range objects {
		if o.GetKind() != "CustomResourceDefinition" {
			continue
		}
		err := wait.PollUntilContextCancel(ctx, pollInterval, true, func(ctx context.Context) (bool, error) {
			got := &unstructured.Unstructured{}
			got.SetGroupVersionKind(o.GroupVersionKind())
			if err := c.Get(ctx, client.ObjectKeyFromObject(o), got); err != nil {
				return false, err
			}
			return hasCondition(got, string(apiextensionsv1.Established)), nil
		})
		if err != nil {
			return fmt.Errorf("waited for %s: %w", o.GetName(), err)
		}
	}
	return nil
}

func hasCondition(o *unstructured.Unstructured, kind string) bool {
	conditions, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	for _, c := range conditions {
		if m, ok := c.(map[string]any); ok && m["type"] == kind && m["status"] == "True" {
			return true
		}
	}
	return false
}

// Namespace makes a namespace of the test's own. It goes when the test ends; the server finishes that by itself.
func Namespace(t testing.TB) string {
	t.Helper()
	c := kubernetes.NewForConfigOrDie(Start(t).Config).CoreV1().Namespaces()
	ns, err := c.Create(context.Background(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Delete(context.Background(), ns.Name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	return ns.Name
}

// AgentConfig reaches the server as the agent does: with the role of deploy/agent, and no more.
func (s *Server) AgentConfig(t testing.TB) *rest.Config {
	t.Helper()
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	objects, err := ReadObjects(filepath.Join(root, "deploy", "agent"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(s.Config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		if o.GetKind() == "Deployment" {
			continue // its image is nowhere
		}
		if err := c.Create(context.Background(), o); err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
	}
	for _, what := range []authorizationv1.ResourceAttributes{
		{Verb: "get", Resource: "namespaces"},
		{Verb: "create", Resource: "configmaps", Namespace: "flotilla-system"},
		{Verb: "get", Resource: "configmaps", Namespace: "kube-system", Name: "extension-apiserver-authentication"},
	} {
		s.AwaitAllowed(t, "flotilla-system", "flotilla-agent", what)
	}
	return s.ServiceAccountConfig(t, "flotilla-system", "flotilla-agent")
}

// AwaitAllowed waits until a service account may do something that it was given a role for: the server takes in
// roles and their bindings a moment after they are made.
func (s *Server) AwaitAllowed(t testing.TB, namespace, name string, what authorizationv1.ResourceAttributes) {
	t.Helper()
	reviews := kubernetes.NewForConfigOrDie(s.Config).AuthorizationV1().SubjectAccessReviews()
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: "system:serviceaccount:" + namespace + ":" + name, ResourceAttributes: &what,
	}}
	ctx, cancel := context.WithTimeout(context.Background(), readyLimit)
	defer cancel()
	err := wait.PollUntilContextCancel(ctx, pollInterval, true, func(ctx context.Context) (bool, error) {
		answer, err := reviews.Create(ctx, review, metav1.CreateOptions{})
		return err == nil && answer.Status.Allowed, err
	})
	if err != nil {
		t.Fatalf("waited until %s/%s may %s %s: %v", namespace, name, what.Verb, what.Resource, err)
	}
}

// ServiceAccountConfig reaches the server with a service account's own token and rights.
func (s *Server) ServiceAccountConfig(t testing.TB, namespace, name string) *rest.Config {
	t.Helper()
	c := kubernetes.NewForConfigOrDie(s.Config).CoreV1().ServiceAccounts(namespace)
	answer, err := c.CreateToken(context.Background(), name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("token for %s/%s: %v", namespace, name, err)
	}
	config := rest.AnonymousClientConfig(s.Config)
	config.BearerToken = answer.Status.Token
	config.QPS = -1
	return config
}
