// SPDX-License-Identifier: Apache-2.0

package git

import (
	"context"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/source"
	"github.com/flotilla-dev/flotilla/source/sourcetest"
)

// readers of Secrets: ada's team may read them.
var (
	ada   = source.Reader{Namespace: "team", ServiceAccount: "ada"}
	grace = source.Reader{Namespace: "team", ServiceAccount: "grace"}
)

// as makes a source that is read with a Secret.
func as(src source.Origin, reader source.Reader, secret string) source.Origin {
	src.Reader, src.SecretRef = reader, &v1alpha1.LocalReference{Name: secret}
	return src
}

// overSSH is an origin that is reached by ssh, and how a source of it is spelled then.
func overSSH(t *testing.T) (*origin, *Mirrors, func(source.Origin) source.Origin) {
	t.Helper()
	o, m := newModern(t), newMirrors(t, Limits{})
	_, spell := sshServer(t, o, m)
	return o, m, spell
}

func sshServer(t *testing.T, o *origin, m *Mirrors) (*sourcetest.SSHServer, func(source.Origin) source.Origin) {
	t.Helper()
	_, host := sourcetest.NewKey(t, "")
	identity, key := sourcetest.NewKey(t, "")
	server := sourcetest.NewSSHServer(t, o.root, host)
	server.Allow(key)
	secrets := &sourcetest.Secrets{}
	secrets.Put("team", "key", map[string]string{"identity": identity, "known_hosts": server.KnownHosts(host)})
	m.Secrets = secrets
	return server, func(src source.Origin) source.Origin {
		git := *src.Git
		git.URL = "ssh://git@" + server.Addr + "/team/" + filepath.Base(git.URL)
		src.Git = &git
		return as(src, ada, "key")
	}
}

// TestSSHCostsOneConnection: a look that finds nothing new is one connection, and a fetch is in it.
func TestSSHCostsOneConnection(t *testing.T) {
	for _, two := range []bool{false, true} {
		o, m := newModern(t), newMirrors(t, Limits{})
		server, spell := sshServer(t, o, m)
		server.Version2 = two
		for i, change := range []bool{true, false, true} {
			if change {
				o.push(files{"a": strings.Repeat("x", i)})
			}
			before := server.Connections()
			latest(t, m, spell(o.src()))
			if got := server.Connections() - before; got != 1 {
				t.Errorf("version 2 %v, look %d: %d connections", two, i, got)
			}
		}
	}
}

func TestSSHErrors(t *testing.T) {
	o, m := newModern(t), newMirrors(t, Limits{})
	server, spell := sshServer(t, o, m)
	o.push(files{"a": "1"})
	src := spell(o.src())
	none := spell(o.src())
	none.Git.URL = strings.Replace(none.Git.URL, "repo.git", "none.git", 1)
	_, err := m.Latest(t.Context(), none)
	wantError(t, err, fleet.Retryable, v1alpha1.ReasonFetchFailed, "the server says: ERROR: Repository not found.")

	_, other := sourcetest.NewKey(t, "")
	server.SetHosts(other)
	_, err = m.Latest(t.Context(), src)
	wantError(t, err, fleet.Refused, v1alpha1.ReasonServerNotTrusted, "key known_hosts of the Secret team/key")
	server.Allow(other)
	secrets := &sourcetest.Secrets{}
	identity, _ := sourcetest.NewKey(t, "")
	secrets.Put("team", "key", map[string]string{"identity": identity, "known_hosts": server.KnownHosts(other)})
	strangers := newMirrors(t, Limits{})
	strangers.Secrets = secrets
	_, err = strangers.Latest(t.Context(), src)
	wantError(t, err, fleet.Refused, v1alpha1.ReasonAuthFailed, "the Secret team/key")
	src.SecretRef = nil
	_, err = m.Latest(t.Context(), src)
	wantError(t, err, fleet.Refused, v1alpha1.ReasonCredentialsMissing, "secretRef")

	// A server that says nothing is given up in time.
	slow := spell(o.src())
	slow.Timeout = &v1alpha1.Duration{}
	slow.Timeout.Duration.Duration = 300 * time.Millisecond
	if err := os.RemoveAll(o.dir); err != nil {
		t.Fatal(err)
	}
	gate := httptest.NewServer(http.NotFoundHandler())
	defer gate.Close()
	slow.Git.URL = "ssh://git@" + strings.TrimPrefix(gate.URL, "http://") + "/x"
	if _, err = m.Latest(t.Context(), slow); err == nil {
		t.Error("a web server speaks ssh")
	}
}

// locked wants a username and password, or a token.
type locked struct {
	mu   sync.Mutex
	want string // Authorization
	next http.Handler
	seen []string
}

func (l *locked) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	got := r.Header.Get("Authorization")
	l.seen = append(l.seen, got)
	ok := got == l.want
	l.mu.Unlock()
	if !ok {
		w.Header().Set("WWW-Authenticate", "Basic")
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	l.next.ServeHTTP(w, r)
}

func (l *locked) change(want string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.want = want
}

const (
	adasBasic  = "Basic YWRhOnMzY3JldA==" // ada:s3cret
	adasSecond = "Basic YWRhOm5ldw=="     // ada:new
)

// TestRotation: a Secret that was changed is used at the next look, without a restart; what is held is read meanwhile.
func TestRotation(t *testing.T) {
	o, m := newModern(t), newMirrors(t, Limits{})
	head := o.push(files{"a": "1"})
	lock := &locked{want: adasBasic, next: o.handler}
	front := httptest.NewServer(lock)
	t.Cleanup(front.Close)
	secrets := &sourcetest.Secrets{}
	m.Secrets = secrets
	secrets.Put("team", "git", map[string]string{"username": "ada", "password": "s3cret"})
	src := as(o.src(), ada, "git")
	src.Git.URL = front.URL + "/team/repo.git"
	wantFile(t, latest(t, m, src), "a", "1")

	lock.change(adasSecond)
	_, err := m.Latest(t.Context(), src)
	wantError(t, err, fleet.Refused, v1alpha1.ReasonAuthFailed, "401 Unauthorized (it does not take the credentials of the Secret team/git")
	if strings.Contains(err.Error(), "s3cret") {
		t.Errorf("it tells the password: %v", err)
	}
	held, err := m.At(t.Context(), src, onMain(head))
	if err != nil {
		t.Fatal(err)
	}
	wantFile(t, held, "a", "1")

	secrets.Put("team", "git", map[string]string{"username": "ada", "password": "new"})
	o.push(files{"a": "2"})
	wantFile(t, latest(t, m, src), "a", "2")
	secrets.Put("team", "git", nil)
	_, err = m.Latest(t.Context(), src)
	wantError(t, err, fleet.Refused, v1alpha1.ReasonCredentialsMissing, "secret team/git: it is not there")
}

// TestTwoReaders: what one reader's credentials fetched is not shown to another, nor to who has none.
func TestTwoReaders(t *testing.T) {
	o, m := newModern(t), newMirrors(t, Limits{})
	head := o.push(files{"a": "private"})
	front := httptest.NewServer(&locked{want: adasBasic, next: o.handler})
	t.Cleanup(front.Close)
	secrets := &sourcetest.Secrets{}
	m.Secrets = secrets
	secrets.Put("team", "git", map[string]string{"username": "ada", "password": "s3cret"})
	secrets.Deny(grace)
	src := o.src()
	src.Git.URL = front.URL + "/team/repo.git"
	wantFile(t, latest(t, m, as(src, ada, "git")), "a", "private")
	for who, tc := range map[string]struct {
		src    source.Origin
		reason string
	}{
		"another service account": {as(src, grace, "git"), v1alpha1.ReasonCredentialsMissing},
		"another namespace":       {as(src, source.Reader{Namespace: "other", ServiceAccount: "ada"}, "git"), v1alpha1.ReasonCredentialsMissing},
		"nobody":                  {src, v1alpha1.ReasonAuthFailed},
	} {
		_, err := m.Latest(t.Context(), tc.src)
		wantError(t, err, fleet.Refused, tc.reason, "")
		_, err = m.At(t.Context(), tc.src, onMain(head))
		wantError(t, err, fleet.Refused, tc.reason, "")
		if rel, err := m.Relation(t.Context(), tc.src, onMain(head), fleet.Revision("main@sha1:"+strings.Repeat("12", 20))); err != nil || rel != source.Unrelated {
			t.Errorf("%s: %v, %v", who, rel, err)
		}
		for c, err := range m.FirstParents(t.Context(), tc.src, onMain(head)) {
			if err == nil {
				t.Errorf("%s sees %s", who, c.Revision)
			}
		}
	}
}

// TestRedirectLosesCredentials: another place sees no request of ours, let alone credentials.
func TestRedirectLosesCredentials(t *testing.T) {
	o, m := newModern(t), newMirrors(t, Limits{})
	o.push(files{"a": "1"})
	elsewhere := &locked{next: o.handler}
	other := httptest.NewServer(elsewhere)
	t.Cleanup(other.Close)
	front := httptest.NewServer(&locked{want: adasBasic, next: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL+r.URL.String(), http.StatusTemporaryRedirect)
	})})
	t.Cleanup(front.Close)
	secrets := &sourcetest.Secrets{}
	m.Secrets = secrets
	secrets.Put("team", "git", map[string]string{"username": "ada", "password": "s3cret"})
	src := as(o.src(), ada, "git")
	src.Git.URL = front.URL + "/team/repo.git"
	_, err := m.Latest(t.Context(), src)
	wantError(t, err, fleet.Refused, v1alpha1.ReasonRedirected, "sends to another place")
	if len(elsewhere.seen) != 0 {
		t.Errorf("the other place saw %q", elsewhere.seen)
	}
}

// TestSecuredServers: ca.crt, a client's certificate, a token, an expired certificate, and a proxy in between.
func TestSecuredServers(t *testing.T) {
	o := newModern(t)
	o.push(files{"a": "1"})
	ca := sourcetest.NewAuthority(t)
	soon := time.Now().Add(time.Hour)
	cert, key := ca.Issue("client", soon)
	open := ca.ServeTLS("127.0.0.1", soon, nil, o.handler)
	mutual := ca.ServeTLS("127.0.0.1", soon, ca, o.handler)
	token := ca.ServeTLS("127.0.0.1", soon, nil, &locked{want: "Bearer tok", next: o.handler})
	expired := ca.ServeTLS("127.0.0.1", time.Now().Add(-time.Hour), nil, o.handler)
	proxy := sourcetest.NewProxy(t, "ada", "s3cret", nil)
	secrets := &sourcetest.Secrets{}
	secrets.Put("team", "ca", map[string]string{"ca.crt": ca.PEM()})
	secrets.Put("team", "mutual", map[string]string{"ca.crt": ca.PEM(), "tls.crt": cert, "tls.key": key})
	secrets.Put("team", "token", map[string]string{"ca.crt": ca.PEM(), "bearerToken": "tok"})
	secrets.Put("team", "wrong", map[string]string{"ca.crt": ca.PEM(), "bearerToken": "other"})
	secrets.Put("team", "proxy", map[string]string{"address": proxy.URL, "username": "ada", "password": "s3cret"})
	secrets.Put("team", "badproxy", map[string]string{"address": proxy.URL, "username": "ada", "password": "wrong"})
	for _, tc := range []struct {
		url, secret, proxy string
		reason, part       string
	}{
		{open.URL, "ca", "", "", ""},
		{open.URL, "", "", v1alpha1.ReasonServerNotTrusted, "authority that is not trusted here"},
		{mutual.URL, "mutual", "", "", ""},
		{mutual.URL, "ca", "", v1alpha1.ReasonAuthFailed, "keys tls.crt and tls.key of the source's Secret, team/ca"},
		{token.URL, "token", "", "", ""},
		{token.URL, "wrong", "", v1alpha1.ReasonAuthFailed, "Secret team/wrong"},
		{token.URL, "ca", "", v1alpha1.ReasonAuthFailed, "Secret team/ca"},
		{expired.URL, "ca", "", v1alpha1.ReasonServerNotTrusted, "renew the server's certificate"},
		{open.URL, "ca", "proxy", "", ""},
		{o.address, "", "proxy", "", ""},
		{open.URL, "ca", "badproxy", v1alpha1.ReasonAuthFailed, "Secret team/badproxy of spec.source.proxySecretRef"},
		{o.address, "", "badproxy", v1alpha1.ReasonAuthFailed, "Secret team/badproxy of spec.source.proxySecretRef"},
	} {
		m := newMirrors(t, Limits{})
		m.Secrets, m.RootCAs = secrets, x509.NewCertPool()
		src := o.src()
		src.Git.URL = tc.url + "/team/repo.git"
		if src.Reader = ada; tc.secret != "" {
			src = as(src, ada, tc.secret)
		}
		if tc.proxy != "" {
			src.ProxySecretRef = &v1alpha1.LocalReference{Name: tc.proxy}
		}
		snap, err := m.Latest(t.Context(), src)
		if tc.reason != "" {
			wantError(t, err, fleet.Refused, tc.reason, tc.part)
			continue
		}
		if err != nil {
			t.Errorf("%s with %s through %s: %v", tc.url, tc.secret, tc.proxy, err)
			continue
		}
		wantFile(t, snap, "a", "1")
	}
	if proxy.Tunnels() == 0 || proxy.Requests() == 0 {
		t.Errorf("%d tunnels and %d requests went through the proxy", proxy.Tunnels(), proxy.Requests())
	}
}

// TestSecretsAreReadWhereTheServerIsAsked: what is held is read without them.
func TestSecretsAreReadWhereTheServerIsAsked(t *testing.T) {
	o, m := newModern(t), newMirrors(t, Limits{})
	head := o.push(files{"a": "1"})
	secrets := &sourcetest.Secrets{}
	m.Secrets = secrets
	secrets.Put("team", "git", map[string]string{"username": "ada", "password": "s3cret"})
	src := as(o.src(), ada, "git")
	latest(t, m, src)
	if got := secrets.Reads(); got != 1 {
		t.Errorf("a look read %d times", got)
	}
	if _, err := m.At(context.Background(), src, onMain(head)); err != nil {
		t.Fatal(err)
	}
	if got := secrets.Reads(); got != 1 {
		t.Errorf("what is held was read with Secrets: %d", got)
	}
}
