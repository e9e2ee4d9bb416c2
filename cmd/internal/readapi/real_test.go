// SPDX-License-Identifier: Apache-2.0

package readapi

import (
	"context"
	"net"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/flotilla-dev/flotilla/api/apitest"
	"github.com/flotilla-dev/flotilla/api/fleet"
)

func TestMain(m *testing.M) { apitest.Main(m) }

// TestOnARealAPIServer: an administrator's client certificate and a service account's token, reviewed by
// the API server that issued them, for what its RBAC says.
func TestOnARealAPIServer(t *testing.T) {
	s := apitest.Start(t)
	k := kubernetes.NewForConfigOrDie(s.Config)
	ns := apitest.Namespace(t)
	rollout := web("web")
	rollout.Namespace = ns
	publish(t, k, newBackend(rollout, web("web")), &Delegated{Client: k})
	reader := grantReader(t, k, ns)
	name, elsewhere := fleet.RolloutName{Namespace: ns, Name: "web"}, fleet.RolloutName{Namespace: "apps", Name: "web"}

	admin := mustFind(t, s.Config)
	if _, err := admin.Rollouts(t.Context(), ""); err != nil {
		t.Errorf("the administrator lists all: %v", err)
	}
	if _, err := admin.Members(t.Context()); err != nil {
		t.Errorf("the administrator lists members: %v", err)
	}

	account := s.ServiceAccountConfig(t, ns, reader)
	granted := mustFind(t, account)
	if r, err := granted.Rollout(t.Context(), name); err != nil || r.Namespace != ns {
		t.Errorf("its own namespace: %+v, %v", r, err)
	}
	for what, err := range map[string]error{
		"another namespace":   second(granted.Rollout(t.Context(), elsewhere)),
		"all namespaces":      second(granted.Rollouts(t.Context(), "")),
		"members":             second(granted.Members(t.Context())),
		"watch without right": granted.Watch(t.Context(), name, func(Rollout) (bool, error) { return true, nil }),
	} {
		if fleet.KindOf(err) != fleet.Refused {
			t.Errorf("%s: %v", what, err)
		}
	}

	stranger := rest.AnonymousClientConfig(account)
	stranger.BearerToken = account.BearerToken + "x"
	if _, err := withIdentity(t, granted, stranger).Version(t.Context()); fleet.KindOf(err) != fleet.Refused {
		t.Errorf("a spoiled token: %v", err)
	}
	stranger.BearerToken = ""
	if _, err := withIdentity(t, granted, stranger).Version(t.Context()); fleet.KindOf(err) != fleet.Refused {
		t.Errorf("nobody: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

func mustFind(t *testing.T, config *rest.Config) *Client {
	t.Helper()
	c, err := Find(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// withIdentity is the client as somebody else, who could not have found it.
func withIdentity(t *testing.T, c *Client, config *rest.Config) *Client {
	t.Helper()
	config.Insecure, config.CAData, config.CAFile = true, nil, ""
	httpClient, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	return &Client{base: c.base, http: httpClient}
}

// publish a read endpoint as an agent does.
func publish(t *testing.T, k kubernetes.Interface, b *backend, auth Authorizer) {
	t.Helper()
	certs, err := NewCertificates(time.Now(), "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	where := make(chan string, 1)
	l := &Listener{
		Addr: "127.0.0.1:0", TLS: certs.Config, Ready: func(a net.Addr) { where <- a.String() },
		Server: &Server{Rollouts: b, Members: b, Changes: b, Auth: auth, Version: Version{Member: "c1"}},
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	system := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: EndpointNamespace}}
	if _, err := k.CoreV1().Namespaces().Create(ctx, system, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	endpoint := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: EndpointConfigMap}, Data: EndpointData("https://"+<-where, certs.CA)}
	if _, err := k.CoreV1().ConfigMaps(EndpointNamespace).Create(ctx, endpoint, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// grantReader makes a service account that may get the rollouts of its namespace, and find the agent.
func grantReader(t *testing.T, k kubernetes.Interface, ns string) (account string) {
	t.Helper()
	account = "reader"
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx, create := t.Context(), metav1.CreateOptions{}
	subject := []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: ns, Name: account}}
	grant := func(where, name string, rule rbacv1.PolicyRule) {
		t.Helper()
		_, err := k.RbacV1().Roles(where).Create(ctx, &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: []rbacv1.PolicyRule{rule}}, create)
		must(err)
		_, err = k.RbacV1().RoleBindings(where).Create(ctx, &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: name}, Subjects: subject,
			RoleRef: rbacv1.RoleRef{APIGroup: "rbac.authorization.k8s.io", Kind: "Role", Name: name},
		}, create)
		must(err)
	}
	_, err := k.CoreV1().ServiceAccounts(ns).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account}}, create)
	must(err)
	grant(ns, "read-rollouts", rbacv1.PolicyRule{APIGroups: []string{"fleet.flotilla.dev"}, Resources: []string{"fleetrollouts"}, Verbs: []string{"get"}})
	grant(EndpointNamespace, "find-agent", rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{EndpointConfigMap}, Verbs: []string{"get"}})
	return account
}
