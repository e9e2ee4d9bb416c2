// SPDX-License-Identifier: Apache-2.0

package readapi

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// How long an answer of the API server is believed.
const (
	allowTTL    = 10 * time.Second
	denyTTL     = 2 * time.Second
	clientCATTL = time.Minute
	// mostAnswers that are remembered of each kind, and mostQuestions under way at once: strangers
	// may send as many tokens as they like.
	mostAnswers   = 1024
	mostQuestions = 16
	// questionTimeout of one question to the API server.
	questionTimeout = 10 * time.Second
)

// Where an API server publishes the authority of its users' client certificates.
const (
	clientCANamespace = "kube-system"
	clientCAName      = "extension-apiserver-authentication"
	clientCAKey       = "client-ca-file"
)

const (
	authenticated = "system:authenticated"
	anonymous     = "system:anonymous"
)

// Delegated lets the member's own API server say who asks (client certificate or bearer token) and
// what they may see. Its own identity must be allowed to create tokenreviews and
// subjectaccessreviews, and to read the ConfigMap kube-system/extension-apiserver-authentication.
type Delegated struct {
	Client kubernetes.Interface
	// Now is time.Now where nil.
	Now func() time.Time

	once    sync.Once
	asking  chan struct{}
	tokens  answers[*authenticationv1.UserInfo]
	reviews answers[error]

	caMutex sync.Mutex
	ca      *x509.CertPool
	caUntil time.Time
}

// Authorize as [Authorizer] has it.
func (d *Delegated) Authorize(ctx context.Context, r *http.Request, need Access) error {
	d.once.Do(func() { d.asking = make(chan struct{}, mostQuestions) })
	for header := range r.Header {
		if strings.HasPrefix(header, "Impersonate-") {
			return refusal(ReasonForbidden, "impersonation is not supported by the agent's read endpoint", "leave out --as and --as-group")
		}
	}
	user, err := d.authenticate(ctx, r)
	if err != nil || need == (Access{}) {
		return err
	}
	return d.authorize(ctx, user, need)
}

// authenticate tries what the API server would: the certificate, then the token.
func (d *Delegated) authenticate(ctx context.Context, r *http.Request) (*authenticationv1.UserInfo, error) {
	user, certErr := d.byCertificate(ctx, r)
	if user != nil {
		return user, nil
	}
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok && token != "" {
		return d.byToken(ctx, token)
	}
	if certErr != nil {
		return nil, certErr
	}
	return nil, refusal(ReasonUnauthorized, "this request says not who sends it", "use a kubeconfig of this cluster, with a client certificate or a token")
}

// byCertificate gives nil and no error where there is no certificate.
func (d *Delegated) byCertificate(ctx context.Context, r *http.Request) (*authenticationv1.UserInfo, error) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return nil, nil
	}
	pool, err := d.clientCA(ctx)
	if err != nil {
		return nil, err
	}
	leaf, intermediates := r.TLS.PeerCertificates[0], x509.NewCertPool()
	for _, c := range r.TLS.PeerCertificates[1:] {
		intermediates.AddCert(c)
	}
	_, err = leaf.Verify(x509.VerifyOptions{
		Roots: pool, Intermediates: intermediates, CurrentTime: d.now(),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	name := leaf.Subject.CommonName
	if err == nil && (name == "" || name == anonymous) {
		err = errors.New("it names nobody")
	}
	if err != nil {
		return nil, refusal(ReasonUnauthorized, "client certificate: "+err.Error(), "use a kubeconfig of this cluster")
	}
	return &authenticationv1.UserInfo{Username: name, Groups: withAuthenticated(leaf.Subject.Organization)}, nil
}

func withAuthenticated(groups []string) []string {
	if slices.Contains(groups, authenticated) {
		return groups
	}
	return append(slices.Clone(groups), authenticated)
}

// clientCA as published. One that was read before serves on while the API server does not answer.
func (d *Delegated) clientCA(ctx context.Context) (*x509.CertPool, error) {
	d.caMutex.Lock()
	defer d.caMutex.Unlock()
	if d.ca != nil && d.now().Before(d.caUntil) {
		return d.ca, nil
	}
	ctx, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	published, err := d.Client.CoreV1().ConfigMaps(clientCANamespace).Get(ctx, clientCAName, metav1.GetOptions{})
	pool := x509.NewCertPool()
	switch {
	case err == nil && pool.AppendCertsFromPEM([]byte(published.Data[clientCAKey])):
		d.ca, d.caUntil = pool, d.now().Add(clientCATTL)
		return d.ca, nil
	case err == nil:
		d.ca = nil
		return nil, refusal(ReasonUnauthorized, "this cluster takes no client certificates", "use a token")
	case d.ca != nil:
		return d.ca, nil
	}
	return nil, fmt.Errorf("client certificates: read ConfigMap %s/%s: %w", clientCANamespace, clientCAName, err)
}

// byToken asks the API server, which remembers for a while: by the token's hash, never by the token.
func (d *Delegated) byToken(ctx context.Context, token string) (*authenticationv1.UserInfo, error) {
	key := sha256.Sum256([]byte(token))
	user, known := d.tokens.get(key, d.now())
	if !known {
		var status authenticationv1.TokenReviewStatus
		err := d.ask(ctx, func(ctx context.Context) error {
			review := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}
			answer, err := d.Client.AuthenticationV1().TokenReviews().Create(ctx, review, metav1.CreateOptions{})
			if err == nil {
				status = answer.Status
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("review a token: %w", err)
		}
		if status.Authenticated && status.User.Username != "" && status.User.Username != anonymous {
			status.User.Groups = withAuthenticated(status.User.Groups)
			user = &status.User
		}
		d.tokens.put(key, user, d.now(), ttl(user != nil))
	}
	if user == nil {
		return nil, refusal(ReasonUnauthorized, "the API server does not know this token", "it may have expired: log in again")
	}
	return user, nil
}

func ttl(allowed bool) time.Duration {
	if allowed {
		return allowTTL
	}
	return denyTTL
}

func (d *Delegated) authorize(ctx context.Context, user *authenticationv1.UserInfo, need Access) error {
	spec := authorizationv1.SubjectAccessReviewSpec{
		User: user.Username, Groups: user.Groups, UID: user.UID, Extra: map[string]authorizationv1.ExtraValue{},
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Verb: need.Verb, Group: need.group(), Version: need.version(), Resource: need.Resource, Namespace: need.Namespace, Name: need.Name,
		},
	}
	for k, v := range user.Extra {
		spec.Extra[k] = authorizationv1.ExtraValue(v)
	}
	encoded, err := json.Marshal(spec)
	if err != nil {
		return fmt.Errorf("review access: %w", err)
	}
	key := sha256.Sum256(encoded)
	if answer, known := d.reviews.get(key, d.now()); known {
		return answer
	}
	var status authorizationv1.SubjectAccessReviewStatus
	err = d.ask(ctx, func(ctx context.Context) error {
		answer, err := d.Client.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{Spec: spec}, metav1.CreateOptions{})
		if err == nil {
			status = answer.Status
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("review access of %s: %w", user.Username, err)
	}
	var answer error
	if !status.Allowed || status.Denied {
		answer = refusal(ReasonForbidden, fmt.Sprintf("%s may not %s", user.Username, need), "ask for a role with this permission; kubectl auth can-i asks the same")
	}
	d.reviews.put(key, answer, d.now(), ttl(answer == nil))
	return answer
}

// ask bounds how many questions are under way, and how long each takes.
func (d *Delegated) ask(ctx context.Context, question func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	select {
	case d.asking <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-d.asking }()
	return question(ctx)
}

func (d *Delegated) now() time.Time {
	if d.Now != nil {
		return d.Now()
	}
	return time.Now()
}

// group as the API server has it.
func (a Access) group() string {
	switch a.Group {
	case "":
		return v1alpha1.GroupVersion.Group
	case CoreGroup:
		return ""
	}
	return a.Group
}

// version of our own group; of others whichever is served.
func (a Access) version() string {
	if a.Group == "" {
		return v1alpha1.GroupVersion.Version
	}
	return "*"
}

// String is the access in words.
func (a Access) String() string {
	out := a.Verb + " " + a.Resource
	if group := a.group(); group != "" {
		out += "." + group
	}
	if a.Name != "" {
		out += " " + a.Name
	}
	switch {
	case a.Namespace != "":
		out += " in namespace " + a.Namespace
	case a.Resource == "fleetrollouts":
		out += " in all namespaces"
	}
	return out
}

func refusal(reason, sentence, hint string) error {
	return &fleet.Error{Kind: fleet.Refused, Reason: reason, Hint: hint, Err: errors.New(sentence)}
}

// answers remembered until they expire. It never holds more than mostAnswers.
type answers[V any] struct {
	mu sync.Mutex
	by map[[sha256.Size]byte]answer[V]
}

type answer[V any] struct {
	value V
	until time.Time
}

func (a *answers[V]) get(key [sha256.Size]byte, now time.Time) (V, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	found, ok := a.by[key]
	if !ok || !now.Before(found.until) {
		var none V
		return none, false
	}
	return found.value, true
}

func (a *answers[V]) put(key [sha256.Size]byte, value V, now time.Time, life time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.by == nil {
		a.by = map[[sha256.Size]byte]answer[V]{}
	}
	if len(a.by) >= mostAnswers {
		a.makeRoom(now)
	}
	a.by[key] = answer[V]{value: value, until: now.Add(life)}
}

// makeRoom drops what has expired, and otherwise anything: what is dropped is only asked again.
func (a *answers[V]) makeRoom(now time.Time) {
	for key, found := range a.by {
		if !now.Before(found.until) {
			delete(a.by, key)
		}
	}
	for key := range a.by {
		if len(a.by) < mostAnswers {
			return
		}
		delete(a.by, key)
	}
}
