// SPDX-License-Identifier: Apache-2.0

package readapi

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// issuer is an authority of client certificates.
type issuer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "client-ca"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: began.Add(-time.Hour), NotAfter: began.Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &issuer{cert, key}
}

func (i *issuer) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.cert.Raw}))
}

// issue a certificate for a user; change may spoil it.
func (i *issuer) issue(t *testing.T, user string, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: user, Organization: []string{"team"}},
		NotBefore: began.Add(-time.Minute), NotAfter: began.Add(30 * time.Minute),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, i.cert, key.Public(), i.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// cluster is an API server's half of the delegation, with counters.
type cluster struct {
	*fake.Clientset
	users   map[string]authenticationv1.UserInfo // by token
	allow   func(authorizationv1.SubjectAccessReviewSpec) authorizationv1.SubjectAccessReviewStatus
	away    error
	tokens  int
	reviews []authorizationv1.SubjectAccessReviewSpec
	now     time.Time
}

func newCluster(clientCA string) *cluster {
	c := &cluster{
		Clientset: fake.NewClientset(&corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "extension-apiserver-authentication"},
			Data:       map[string]string{"client-ca-file": clientCA},
		}),
		users: map[string]authenticationv1.UserInfo{},
		now:   began,
		allow: func(authorizationv1.SubjectAccessReviewSpec) authorizationv1.SubjectAccessReviewStatus {
			return authorizationv1.SubjectAccessReviewStatus{Allowed: true}
		},
	}
	c.PrependReactor("create", "tokenreviews", func(action ktesting.Action) (bool, runtime.Object, error) {
		c.tokens++
		review := action.(ktesting.CreateAction).GetObject().(*authenticationv1.TokenReview).DeepCopy()
		user, ok := c.users[review.Spec.Token]
		review.Status = authenticationv1.TokenReviewStatus{Authenticated: ok, User: user}
		return true, review, c.away
	})
	c.PrependReactor("create", "subjectaccessreviews", func(action ktesting.Action) (bool, runtime.Object, error) {
		review := action.(ktesting.CreateAction).GetObject().(*authorizationv1.SubjectAccessReview).DeepCopy()
		c.reviews = append(c.reviews, review.Spec)
		review.Status = c.allow(review.Spec)
		return true, review, c.away
	})
	return c
}

func (c *cluster) delegated() *Delegated {
	return &Delegated{Client: c, Now: func() time.Time { return c.now }}
}

func request(token string, certs ...tls.Certificate) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/v1/rollouts/apps/web", nil)
	r.TLS = &tls.ConnectionState{}
	for _, c := range certs {
		r.TLS.PeerCertificates = append(r.TLS.PeerCertificates, c.Leaf)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return r
}

var getWeb = Access{Verb: "get", Resource: "fleetrollouts", Namespace: "apps", Name: "web"}

func reason(err error) string {
	switch {
	case err == nil:
		return "ok"
	case fleet.KindOf(err) == fleet.Retryable:
		return "retry"
	}
	return fleet.ReasonOf(err, "?")
}

func TestWhoAsks(t *testing.T) {
	known, stranger := newIssuer(t), newIssuer(t)
	c := newCluster(known.pem())
	c.users["good"] = authenticationv1.UserInfo{
		Username: "system:serviceaccount:apps:ci", UID: "u1", Groups: []string{"system:serviceaccounts", "system:authenticated"},
		Extra: map[string]authenticationv1.ExtraValue{"scope": {"a"}},
	}
	c.users["nameless"] = authenticationv1.UserInfo{}
	c.users["anonymous"] = authenticationv1.UserInfo{Username: "system:anonymous"}
	ada := known.issue(t, "ada", nil)
	web := &authorizationv1.ResourceAttributes{
		Verb: "get", Group: "fleet.flotilla.dev", Version: "v1alpha1", Resource: "fleetrollouts", Namespace: "apps", Name: "web",
	}
	asAda := &authorizationv1.SubjectAccessReviewSpec{User: "ada", Groups: []string{"team", "system:authenticated"}, Extra: map[string]authorizationv1.ExtraValue{}, ResourceAttributes: web}
	asCI := &authorizationv1.SubjectAccessReviewSpec{
		User: "system:serviceaccount:apps:ci", UID: "u1", Groups: []string{"system:serviceaccounts", "system:authenticated"},
		Extra: map[string]authorizationv1.ExtraValue{"scope": {"a"}}, ResourceAttributes: web,
	}
	for _, test := range []struct {
		name string
		r    *http.Request
		want string
		as   *authorizationv1.SubjectAccessReviewSpec
	}{
		{"nobody", request(""), ReasonUnauthorized, nil},
		{"a certificate", request("", ada), "ok", asAda},
		{"a token", request("good"), "ok", asCI},
		{"both: the certificate is asked first", request("good", ada), "ok", asAda},
		{"an unknown token", request("bad"), ReasonUnauthorized, nil},
		{"a token of nobody", request("nameless"), ReasonUnauthorized, nil},
		{"a token of the anonymous", request("anonymous"), ReasonUnauthorized, nil},
		{"a certificate of another authority", request("", stranger.issue(t, "ada", nil)), ReasonUnauthorized, nil},
		{"the same with a token", request("good", stranger.issue(t, "ada", nil)), "ok", asCI},
		{"a certificate for servers", request("", known.issue(t, "ada", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })), ReasonUnauthorized, nil},
		{"a certificate that has expired", request("", known.issue(t, "ada", func(c *x509.Certificate) { c.NotAfter = began.Add(-time.Second) })), ReasonUnauthorized, nil},
		{"a certificate of nobody", request("", known.issue(t, "", nil)), ReasonUnauthorized, nil},
		{"a certificate of the anonymous", request("", known.issue(t, "system:anonymous", nil)), ReasonUnauthorized, nil},
	} {
		c.reviews = nil
		d := c.delegated()
		if got := reason(d.Authorize(t.Context(), test.r, getWeb)); got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
		var as *authorizationv1.SubjectAccessReviewSpec
		if len(c.reviews) > 0 {
			as = &c.reviews[0]
		}
		if diff := cmp.Diff(test.as, as); diff != "" {
			t.Errorf("%s: access was reviewed for (-want +got):\n%s", test.name, diff)
		}
	}
}

// TestOtherSchemesAreNobody: only a bearer token is a token.
func TestOtherSchemesAreNobody(t *testing.T) {
	c := newCluster("")
	c.users["good"] = authenticationv1.UserInfo{Username: "ci"}
	for _, header := range []string{"Basic good", "bearer good", "Bearer ", "good"} {
		r := request("")
		r.Header.Set("Authorization", header)
		if got := reason(c.delegated().Authorize(t.Context(), r, getWeb)); got != ReasonUnauthorized || c.tokens != 0 {
			t.Errorf("%q: %s, %d reviews", header, got, c.tokens)
		}
	}
}

func TestImpersonationIsRefused(t *testing.T) {
	c := newCluster("")
	c.users["admin"] = authenticationv1.UserInfo{Username: "admin"}
	for _, header := range []string{"Impersonate-User", "Impersonate-Group", "Impersonate-Extra-Scope"} {
		r := request("admin")
		r.Header.Set(header, "bob")
		if got := reason(c.delegated().Authorize(t.Context(), r, getWeb)); got != ReasonForbidden || len(c.reviews) != 0 {
			t.Errorf("%s: %s", header, got)
		}
	}
}

func TestWhoMay(t *testing.T) {
	c := newCluster("")
	c.users["t"] = authenticationv1.UserInfo{Username: "bob"}
	for name, test := range map[string]struct {
		status authorizationv1.SubjectAccessReviewStatus
		want   string
	}{
		"allowed":            {authorizationv1.SubjectAccessReviewStatus{Allowed: true}, "ok"},
		"not allowed":        {authorizationv1.SubjectAccessReviewStatus{}, ReasonForbidden},
		"denied all the way": {authorizationv1.SubjectAccessReviewStatus{Allowed: true, Denied: true}, ReasonForbidden},
	} {
		c.allow = func(authorizationv1.SubjectAccessReviewSpec) authorizationv1.SubjectAccessReviewStatus {
			return test.status
		}
		err := c.delegated().Authorize(t.Context(), request("t"), getWeb)
		if got := reason(err); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
		if err != nil && !strings.Contains(err.Error(), "bob may not get fleetrollouts.fleet.flotilla.dev web in namespace apps") {
			t.Errorf("%s: %v", name, err)
		}
	}
	before := len(c.reviews)
	if err := c.delegated().Authorize(t.Context(), request("t"), Access{}); err != nil || len(c.reviews) != before {
		t.Errorf("an identity is enough for the zero access: %v, %d reviews", err, len(c.reviews)-before)
	}
}

func TestAnswersAreRememberedForAWhile(t *testing.T) {
	c := newCluster("")
	c.users["t"] = authenticationv1.UserInfo{Username: "bob"}
	d := c.delegated()
	allowed := true
	c.allow = func(authorizationv1.SubjectAccessReviewSpec) authorizationv1.SubjectAccessReviewStatus {
		return authorizationv1.SubjectAccessReviewStatus{Allowed: allowed}
	}
	step := func(wait time.Duration, token, want string, tokens, reviews int) {
		t.Helper()
		c.now = c.now.Add(wait)
		if got := reason(d.Authorize(t.Context(), request(token), getWeb)); got != want || c.tokens != tokens || len(c.reviews) != reviews {
			t.Errorf("%s: %s after %d token and %d access reviews; want %s, %d, %d", token, got, c.tokens, len(c.reviews), want, tokens, reviews)
		}
	}
	step(0, "t", "ok", 1, 1)
	allowed = false
	step(9*time.Second, "t", "ok", 1, 1)          // still believed
	step(time.Second, "t", ReasonForbidden, 2, 2) // ten seconds are over
	step(time.Second, "t", ReasonForbidden, 2, 2) // the refusal is remembered as well
	step(time.Second, "t", ReasonForbidden, 2, 3) // for two seconds
	step(0, "other", ReasonUnauthorized, 3, 3)    // of nobody
	step(time.Second, "other", ReasonUnauthorized, 3, 3)
	c.users["other"] = authenticationv1.UserInfo{Username: "carol"}
	allowed = true
	step(time.Second, "other", "ok", 4, 4)
	delete(c.users, "t")
	step(10*time.Second, "t", ReasonUnauthorized, 5, 4) // a token that was taken away
}

// TestOneAnswerPerQuestion: what one may says nothing of another name, namespace, verb or user.
func TestOneAnswerPerQuestion(t *testing.T) {
	c := newCluster("")
	c.users["a"], c.users["b"] = authenticationv1.UserInfo{Username: "a"}, authenticationv1.UserInfo{Username: "b"}
	d := c.delegated()
	questions := []Access{
		getWeb, {Verb: "watch", Resource: "fleetrollouts", Namespace: "apps", Name: "web"},
		{Verb: "get", Resource: "fleetrollouts", Namespace: "apps", Name: "db"},
		{Verb: "get", Resource: "fleetrollouts", Namespace: "other", Name: "web"},
		{Verb: "list", Resource: "fleetrollouts"}, {Verb: "list", Resource: "fleetmembers"},
	}
	for range 3 {
		for _, token := range []string{"a", "b"} {
			for _, q := range questions {
				if err := d.Authorize(t.Context(), request(token), q); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if want := 2 * len(questions); len(c.reviews) != want {
		t.Errorf("%d reviews of %d questions", len(c.reviews), want)
	}
}

func TestNoAnswerIsNoRefusal(t *testing.T) {
	c := newCluster("")
	c.users["t"] = authenticationv1.UserInfo{Username: "bob"}
	d := c.delegated()
	c.away = errors.New("connection refused")
	if got := reason(d.Authorize(t.Context(), request("t"), getWeb)); got != "retry" {
		t.Errorf("API server away: %s", got)
	}
	c.away = nil
	if got := reason(d.Authorize(t.Context(), request("t"), getWeb)); got != "ok" {
		t.Errorf("and back: %s (a failure is not remembered)", got)
	}
}

func TestClientCA(t *testing.T) {
	first, second := newIssuer(t), newIssuer(t)
	c := newCluster(first.pem())
	var failing error
	gets := 0
	c.PrependReactor("get", "configmaps", func(ktesting.Action) (bool, runtime.Object, error) {
		gets++
		return failing != nil, nil, failing
	})
	d := c.delegated()
	authorize := func(i *issuer) string {
		return reason(d.Authorize(t.Context(), request("", i.issue(t, "ada", nil)), getWeb))
	}
	failing = errors.New("away")
	if got := authorize(first); got != "retry" {
		t.Errorf("never read: %s", got)
	}
	failing = nil
	if got := authorize(first); got != "ok" {
		t.Errorf("read: %s", got)
	}
	if authorize(first); gets != 2 {
		t.Errorf("%d reads within a minute", gets)
	}
	failing, c.now = errors.New("away"), c.now.Add(2*time.Minute)
	if got := authorize(first); got != "ok" {
		t.Errorf("API server away: %s; what was read serves on", got)
	}
	failing = nil
	rotated := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "extension-apiserver-authentication"},
		Data:       map[string]string{"client-ca-file": second.pem()},
	}
	if _, err := c.CoreV1().ConfigMaps("kube-system").Update(t.Context(), rotated, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if old, now := authorize(first), authorize(second); old != ReasonUnauthorized || now != "ok" {
		t.Errorf("rotated: old %s, new %s", old, now)
	}
	rotated.Data = nil
	if _, err := c.CoreV1().ConfigMaps("kube-system").Update(t.Context(), rotated, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.now = c.now.Add(2 * time.Minute)
	if got := authorize(second); got != ReasonUnauthorized {
		t.Errorf("no client CA any more: %s", got)
	}
}

// TestMemoryIsBounded: strangers may send as many tokens as they like.
func TestMemoryIsBounded(t *testing.T) {
	c := newCluster("")
	d := c.delegated()
	for i := range 3 * mostAnswers {
		_ = d.Authorize(t.Context(), request(fmt.Sprint("token-", i)), getWeb)
	}
	if n := len(d.tokens.by); n > mostAnswers || n < mostAnswers/2 {
		t.Errorf("%d remembered", n)
	}
	for key := range d.tokens.by {
		if slices.Contains([]string{"token-1", "token-3071"}, string(key[:])) {
			t.Error("a token is kept as it is")
		}
	}
}

func TestQuestionsAreBounded(t *testing.T) {
	d := newCluster("").delegated()
	d.once.Do(func() { d.asking = make(chan struct{}, 1) })
	d.asking <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := reason(d.Authorize(ctx, request("t"), getWeb)); got != "retry" {
		t.Errorf("no place to ask: %s", got)
	}
}
