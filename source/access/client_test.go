// SPDX-License-Identifier: Apache-2.0

package access_test

import (
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/source/access"
	"github.com/flotilla-dev/flotilla/source/sourcetest"
)

// echo answers with the request's Authorization and keeps what it saw.
type echo struct {
	mu   sync.Mutex
	seen []http.Header
}

func (e *echo) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seen = append(e.seen, r.Header.Clone())
	io.WriteString(w, r.Header.Get("Authorization")) //nolint:errcheck // a test
}

func (e *echo) requests() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.seen)
}

func parse(t testing.TB, raw string) *url.URL {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// get with a login's client; the answer's body, or what Explain says of the error.
func get(t testing.TB, l access.Login, roots *x509.CertPool, target string) (string, error) {
	t.Helper()
	client := l.Client(parse(t, target), roots)
	defer client.CloseIdleConnections()
	res, err := client.Get(target)
	if err != nil {
		return "", l.Explain(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return string(body), err
}

func login(t testing.TB, pairs ...string) access.Login {
	t.Helper()
	l, err := access.Parse(secretData(pairs...), nil)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestCredentials(t *testing.T) {
	plain := httptest.NewServer(&echo{})
	defer plain.Close()
	ca := sourcetest.NewAuthority(t)
	secured := ca.ServeTLS("127.0.0.1", time.Now().Add(time.Hour), nil, &echo{})
	basic, bearer := login(t, "username", "ada", "password", "s3cret"), login(t, "bearerToken", "tok")
	for _, tc := range []struct {
		l    access.Login
		url  string
		want string
	}{
		{access.Login{}, plain.URL, ""},
		{basic, plain.URL, "Basic YWRhOnMzY3JldA=="},
		{basic, secured.URL, "Basic YWRhOnMzY3JldA=="},
		{bearer, secured.URL, "Bearer tok"},
	} {
		if got, err := get(t, tc.l, ca.Pool(), tc.url); err != nil || got != tc.want {
			t.Errorf("%s: %q, %v; want %q", tc.url, got, err, tc.want)
		}
	}
	_, err := get(t, bearer, nil, plain.URL)
	wantError(t, err, fleet.Refused, v1alpha1.ReasonAuthFailed, "bearer token is not sent over http")
}

// TestRedirects: another place gets no request at all, so no credentials either.
func TestRedirects(t *testing.T) {
	var other echo
	elsewhere := httptest.NewServer(&other)
	defer elsewhere.Close()
	var home *httptest.Server
	home = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/here":
			http.Redirect(w, r, "/there", http.StatusFound)
		case "/away":
			http.Redirect(w, r, elsewhere.URL+"/x?token=s3cret", http.StatusFound)
		case "/scheme":
			http.Redirect(w, r, strings.Replace(home.URL, "http://", "https://", 1), http.StatusPermanentRedirect)
		case "/name":
			http.Redirect(w, r, strings.Replace(home.URL, "127.0.0.1", "localhost", 1), http.StatusTemporaryRedirect)
		case "/circle":
			http.Redirect(w, r, "/circle", http.StatusFound)
		case "/there":
			io.WriteString(w, r.Header.Get("Authorization")) //nolint:errcheck // a test
		}
	}))
	defer home.Close()
	l := login(t, "username", "ada", "password", "s3cret")
	if got, err := get(t, l, nil, home.URL+"/here"); err != nil || got != "Basic YWRhOnMzY3JldA==" {
		t.Errorf("on the same host: %q, %v", got, err)
	}
	for _, path := range []string{"/away", "/scheme", "/name"} {
		_, err := get(t, l, nil, home.URL+path)
		wantError(t, err, fleet.Refused, v1alpha1.ReasonRedirected, "sends to another place")
		if strings.Contains(err.Error(), "s3cret") {
			t.Errorf("it tells the query: %v", err)
		}
	}
	if _, err := get(t, l, nil, home.URL+"/circle"); err == nil || !strings.Contains(err.Error(), "more than 10 redirects") {
		t.Errorf("a circle: %v", err)
	}
	// A request that somebody makes for another place by himself is refused as well.
	client := l.Client(parse(t, home.URL), nil)
	defer client.CloseIdleConnections()
	_, err := client.Post(elsewhere.URL, "text/plain", strings.NewReader("body"))
	wantError(t, access.Explain(err), fleet.Refused, v1alpha1.ReasonRedirected, "sends to another place")
	if other.requests() != 0 {
		t.Errorf("the other place got %v", other.seen)
	}
}

func TestTLS(t *testing.T) {
	ca, stranger := sourcetest.NewAuthority(t), sourcetest.NewAuthority(t)
	soon := time.Now().Add(time.Hour)
	good := ca.ServeTLS("127.0.0.1", soon, nil, &echo{})
	expired := ca.ServeTLS("127.0.0.1", time.Now().Add(-time.Hour), nil, &echo{})
	name := ca.ServeTLS("other.example", soon, nil, &echo{})
	for url, part := range map[string]string{
		good.URL: "", expired.URL: "valid from", name.URL: `not for the host "127.0.0.1"`,
	} {
		_, err := get(t, access.Login{}, ca.Pool(), url)
		if part == "" {
			if err != nil {
				t.Error(err)
			}
			continue
		}
		wantError(t, err, fleet.Refused, v1alpha1.ReasonServerNotTrusted, part)
	}
	_, err := get(t, access.Login{}, stranger.Pool(), good.URL)
	wantError(t, err, fleet.Refused, v1alpha1.ReasonServerNotTrusted, `"127.0.0.1", issued by "test authority" is of an authority that is not trusted here`)
	// ca.crt comes on top of the roots.
	if _, err := get(t, login(t, "ca.crt", ca.PEM()), stranger.Pool(), good.URL); err != nil {
		t.Error(err)
	}
	if _, err := get(t, login(t, "ca.crt", stranger.PEM()), ca.Pool(), good.URL); err != nil {
		t.Error(err)
	}
	if _, err := get(t, login(t, "ca.crt", ca.PEM()), nil, good.URL); err != nil {
		t.Error(err)
	}
}

func TestClientCertificate(t *testing.T) {
	ca, stranger := sourcetest.NewAuthority(t), sourcetest.NewAuthority(t)
	soon := time.Now().Add(time.Hour)
	server := ca.ServeTLS("127.0.0.1", soon, ca, &echo{})
	cert, key := ca.Issue("client", soon)
	if _, err := get(t, login(t, "tls.crt", cert, "tls.key", key), ca.Pool(), server.URL); err != nil {
		t.Error(err)
	}
	_, err := get(t, access.Login{}, ca.Pool(), server.URL)
	wantError(t, err, fleet.Refused, v1alpha1.ReasonAuthFailed, "wants a certificate of the client")
	cert, key = stranger.Issue("client", soon)
	_, err = get(t, login(t, "tls.crt", cert, "tls.key", key), ca.Pool(), server.URL)
	wantError(t, err, fleet.Refused, v1alpha1.ReasonAuthFailed, "does not take the client's certificate")
}

func through(t testing.TB, l access.Login, address, username, password string) access.Login {
	t.Helper()
	p, err := access.Parse(nil, secretData("address", address, "username", username, "password", password))
	if err != nil {
		t.Fatal(err)
	}
	l.Proxy = p.Proxy
	return l
}

func TestProxies(t *testing.T) {
	plain := httptest.NewServer(&echo{})
	defer plain.Close()
	ca := sourcetest.NewAuthority(t)
	secured := ca.ServeTLS("127.0.0.1", time.Now().Add(time.Hour), nil, &echo{})
	open, tlsProxy := sourcetest.NewProxy(t, "ada", "s3cret", nil), sourcetest.NewProxy(t, "ada", "s3cret", ca)
	socks := sourcetest.NewSocks(t, "ada", "s3cret")
	l := login(t, "username", "grace", "password", "0ther")
	for _, tc := range []struct{ proxy, target string }{
		{open.URL, plain.URL}, {open.URL, secured.URL}, {tlsProxy.URL, plain.URL}, {tlsProxy.URL, secured.URL},
		{"socks5://" + socks.Addr, plain.URL}, {"socks5://" + socks.Addr, secured.URL},
	} {
		if got, err := get(t, through(t, l, tc.proxy, "ada", "s3cret"), ca.Pool(), tc.target); err != nil || got != "Basic Z3JhY2U6MHRoZXI=" {
			t.Errorf("%s through %s: %q, %v", tc.target, tc.proxy, got, err)
		}
		_, err := get(t, through(t, l, tc.proxy, "ada", "wr0ng"), ca.Pool(), tc.target)
		wantError(t, err, fleet.Refused, v1alpha1.ReasonAuthFailed, "proxy wants other credentials")
		if strings.Contains(err.Error(), "wr0ng") {
			t.Errorf("it tells the password: %v", err)
		}
	}
	if open.Tunnels() != 1 || open.Requests() != 1 || tlsProxy.Tunnels() != 1 || tlsProxy.Requests() != 1 || socks.Tunnels() != 2 {
		t.Errorf("tunnels %d %d %d, requests %d %d", open.Tunnels(), tlsProxy.Tunnels(), socks.Tunnels(), open.Requests(), tlsProxy.Requests())
	}
	_, err := get(t, through(t, l, "http://127.0.0.1:1", "", ""), ca.Pool(), secured.URL)
	if err == nil || !strings.Contains(err.Error(), "proxy http://127.0.0.1:1") {
		t.Errorf("a proxy that is away: %v", err)
	}
}

// TestNoProxyOfTheEnvironment: what HTTP_PROXY says does not lead a request elsewhere.
func TestNoProxyOfTheEnvironment(t *testing.T) {
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"} {
		t.Setenv(name, "http://127.0.0.1:1")
	}
	server := httptest.NewServer(&echo{})
	defer server.Close()
	if _, err := get(t, access.Login{}, nil, server.URL); err != nil {
		t.Error(err)
	}
	// net/http never asks the environment for a proxy to loopback, so a name that is not there has to do.
	_, err := get(t, access.Login{}, nil, "http://none.invalid/")
	if err == nil || strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("%v", err)
	}
}

func TestMetadata(t *testing.T) {
	proxy := sourcetest.NewProxy(t, "", "", nil)
	for _, host := range []string{
		"169.254.169.254", "169.254.0.1:8080", "[fe80::1]", "[fd00:ec2::254]", "0.0.0.0", "[::]", "[::ffff:169.254.169.254]", "224.0.0.1",
		"100.100.100.200", "192.0.0.192", "168.63.129.16", "[64:ff9b::a9fe:a9fe]",
		"[64:ff9b:1::a9fe:a9fe]", "[::169.254.169.254]", "[2002:a9fe:a9fe::1]", "[fd00:ec2::23]", "[fd20:ce::254]", "[fd00:42::42]",
	} {
		for _, l := range []access.Login{{}, through(t, access.Login{}, proxy.URL, "", "")} {
			for _, scheme := range []string{"http://", "https://"} {
				_, err := get(t, l, nil, scheme+host+"/latest/meta-data")
				wantError(t, err, fleet.Refused, v1alpha1.ReasonFetchFailed, "metadata services are")
			}
		}
	}
	for _, host := range []string{"2852039166", "0xa9fea9fe", "169.254.43518", "0251.0376.0251.0376", "a.0xfe", "metadata.google.internal", "METADATA.google.internal."} {
		_, err := get(t, through(t, access.Login{}, proxy.URL, "", ""), nil, "http://"+host+"/")
		wantError(t, err, fleet.Refused, v1alpha1.ReasonFetchFailed, "")
	}
	if proxy.Requests() != 0 || proxy.Tunnels() != 0 {
		t.Errorf("the proxy was asked")
	}
}

func TestExplainLeavesTheRest(t *testing.T) {
	plain := errors.New("something else")
	if got := access.Explain(plain); got != plain { //nolint:errorlint // it is the very same
		t.Errorf("%v", got)
	}
	if access.Explain(nil) != nil {
		t.Error("nil is an error")
	}
}
