// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// ofBothKindsTLS is ofBothKinds behind TLS.
func ofBothKindsTLS(t *testing.T, config func() *tls.Config, test func(t *testing.T, o origin)) {
	t.Run("index", func(t *testing.T) { test(t, newIndex(t, config())) })
	t.Run("registry", func(t *testing.T) { test(t, newRegistry(t, config())) })
}

// guarded lets requests through that have one header, and says what it wants otherwise.
func (f *front) guarded(header, want, challenge string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get(header) == want {
			return false
		}
		w.Header().Set("WWW-Authenticate", challenge)
		http.Error(w, "who are you? "+r.Header.Get(header), http.StatusUnauthorized)
		return true
	}
}

func basic(user, password string) string {
	r := &http.Request{Header: http.Header{}}
	r.SetBasicAuth(user, password)
	return r.Header.Get("Authorization")
}

var logins = secrets{
	"ada":     {"username": []byte("ada"), "password": []byte("lovelace")},
	"wrong":   {"username": []byte("ada"), "password": []byte("hunter2")},
	"token":   {"bearerToken": []byte("tok-1")},
	"badtok":  {"bearerToken": []byte("hunter2")},
	"useless": {"usrname": []byte("hunter2")},
}

func TestBasicAndToken(t *testing.T) {
	for _, tc := range []struct{ name, header, right, wrong string }{
		{"basic", basic("ada", "lovelace"), "ada", "wrong"},
		{"token", "Bearer tok-1", "token", "badtok"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ofBothKindsTLS(t, func() *tls.Config { return authority().config(tomorrow()) }, func(t *testing.T, o origin) {
				r := newRepositories(t)
				r.Secrets = logins
				rev := o.publish("1.4.2", nil)
				o.server().guarded("Authorization", tc.header, `Basic realm="charts"`)
				for range 2 {
					if snap := latest(t, r, with(o.src("1.x"), tc.right)); snap.Revision != rev {
						t.Errorf("latest is %s, want %s", snap.Revision, rev)
					}
				}
				c := chartAt(o, "1.4.2", "")
				c.SecretRef = &v1alpha1.LocalReference{Name: tc.right}
				if snap, err := r.Chart(t.Context(), reader, c); err != nil || snap.Revision != rev {
					t.Errorf("%s, %v", snap.Revision, err)
				}
				_, err := r.Latest(t.Context(), with(o.src("1.x"), tc.wrong))
				wantError(t, err, fleet.Refused, v1alpha1.ReasonAuthFailed, "401", "the Secret apps/"+tc.wrong)
				noSecret(t, err)
				_, err = r.Latest(t.Context(), o.src("1.x"))
				wantError(t, err, fleet.Refused, v1alpha1.ReasonAuthFailed, "401", "name their Secret")
				_, err = r.Latest(t.Context(), with(o.src("1.x"), "useless"))
				wantError(t, err, fleet.Refused, v1alpha1.ReasonCredentialsMissing, "apps/useless")
				noSecret(t, err)
				_, err = r.Latest(t.Context(), with(o.src("1.x"), "nowhere"))
				wantError(t, err, fleet.Refused, v1alpha1.ReasonCredentialsMissing, "nowhere")
			})
		})
	}
}

func noSecret(t *testing.T, err error) {
	t.Helper()
	if strings.Contains(fmt.Sprintf("%+v", err), "hunter2") {
		t.Errorf("the error shows a secret: %v", err)
	}
}

// TestChangedSecret: the next look uses what the Secret says now.
func TestChangedSecret(t *testing.T) {
	ofBothKinds(t, func(t *testing.T, o origin) {
		r := newRepositories(t)
		mine := secrets{"login": logins["wrong"]}
		r.Secrets = mine
		o.publish("1.4.2", nil)
		o.server().guarded("Authorization", basic("ada", "lovelace"), `Basic realm="charts"`)
		_, err := r.Latest(t.Context(), with(o.src("1.x"), "login"))
		wantError(t, err, fleet.Refused, v1alpha1.ReasonAuthFailed)
		mine["login"] = logins["ada"]
		latest(t, r, with(o.src("1.x"), "login"))
		mine["login"] = logins["wrong"]
		_, err = r.Latest(t.Context(), with(o.src("1.x"), "login"))
		wantError(t, err, fleet.Refused, v1alpha1.ReasonAuthFailed)
	})
}

func TestServersThatAreNotTrusted(t *testing.T) {
	other := newCA("somebody else")
	for _, tc := range []struct {
		name   string
		config func() *tls.Config
		part   string
	}{
		{"expired", func() *tls.Config { return authority().config(time.Now().Add(-time.Hour)) }, "is valid from"},
		{"another authority", func() *tls.Config { return other.config(tomorrow()) }, "ca.crt"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ofBothKindsTLS(t, tc.config, func(t *testing.T, o origin) {
				r := newRepositories(t)
				r.Secrets = secrets{"ca": {"ca.crt": other.pem}, "ada": logins["ada"]}
				rev := o.publish("1.4.2", nil)
				_, err := r.Latest(t.Context(), with(o.src("1.x"), "ada"))
				wantError(t, err, fleet.Refused, v1alpha1.ReasonServerNotTrusted, tc.part)
				if got := o.server().asked(); got != "" {
					t.Errorf("a server that is not trusted was asked %q", got)
				}
				if tc.part == "ca.crt" {
					if snap := latest(t, r, with(o.src("1.x"), "ca")); snap.Revision != rev {
						t.Errorf("latest is %s", snap.Revision)
					}
				}
			})
		})
	}
}

func TestClientCertificate(t *testing.T) {
	cert, key := authority().pair(tomorrow())
	ofBothKindsTLS(t, func() *tls.Config {
		config := authority().config(tomorrow())
		config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, authority().pool
		return config
	}, func(t *testing.T, o origin) {
		r := newRepositories(t)
		r.Secrets = secrets{"mtls": {"tls.crt": cert, "tls.key": key}}
		rev := o.publish("1.4.2", nil)
		if snap := latest(t, r, with(o.src("1.x"), "mtls")); snap.Revision != rev {
			t.Errorf("latest is %s", snap.Revision)
		}
		_, err := r.Latest(t.Context(), o.src("1.x"))
		wantError(t, err, fleet.Refused, v1alpha1.ReasonAuthFailed, "wants a certificate of the client")
	})
}

func TestProxy(t *testing.T) {
	var through []string
	proxy := newFront(t, nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		through = append(through, r.Method+" "+r.Header.Get("Proxy-Authorization"))
		res, err := http.DefaultTransport.RoundTrip(&http.Request{Method: r.Method, URL: r.URL, Header: r.Header})
		if err != nil {
			t.Error(err)
			return
		}
		defer res.Body.Close()
		w.WriteHeader(res.StatusCode)
		if _, err := fmt.Fprintf(w, "%s", mustRead(t, res)); err != nil {
			t.Error(err)
		}
	}))
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	x := newIndex(t, nil)
	rev := x.publish("1.4.2", nil)
	r := newRepositories(t)
	r.Secrets = secrets{"proxy": {"address": []byte(proxy.URL), "username": []byte("p"), "password": []byte("w")}}
	o := x.src("1.x")
	o.Reader, o.ProxySecretRef = reader, &v1alpha1.LocalReference{Name: "proxy"}
	if snap := latest(t, r, o); snap.Revision != rev {
		t.Errorf("latest is %s", snap.Revision)
	}
	if want := []string{"GET " + basic("p", "w"), "GET " + basic("p", "w")}; !slices.Equal(through, want) {
		t.Errorf("through the proxy went %q, want %q", through, want)
	}
}

func mustRead(t *testing.T, res *http.Response) []byte {
	t.Helper()
	s := &server{}
	body, err := s.read(t.Context(), res, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// TestNoneOfThisMachine: neither its proxy nor its keychain is used.
func TestNoneOfThisMachine(t *testing.T) {
	x := newIndex(t, nil)
	x.publish("1.4.2", nil)
	for _, key := range []string{"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY"} {
		t.Setenv(key, "http://127.0.0.1:1")
	}
	t.Setenv("DOCKER_CONFIG", "/nowhere")
	latest(t, newRepositories(t), x.src("1.x"))
}

// TestRedirectOfARepository: who says what a version is does not change on the way.
func TestRedirectOfARepository(t *testing.T) {
	ofBothKindsTLS(t, func() *tls.Config { return authority().config(tomorrow()) }, func(t *testing.T, o origin) {
		r := newRepositories(t)
		r.Secrets = logins
		o.publish("1.4.2", nil)
		elsewhere := newFront(t, authority().config(tomorrow()), http.NotFoundHandler())
		o.server().breakWith(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL+r.URL.Path+"?sig=hunter2", http.StatusFound)
		})
		_, err := r.Latest(t.Context(), with(o.src("1.x"), "ada"))
		wantError(t, err, fleet.Refused, v1alpha1.ReasonRedirected, elsewhere.URL)
		noSecret(t, err)
		if got := elsewhere.asked(); got != "" {
			t.Errorf("the other server was asked %q", got)
		}
	})
}

// TestRedirectWithin the server is followed.
func TestRedirectWithin(t *testing.T) {
	x := newIndex(t, nil)
	rev := x.publish("1.4.2", nil)
	x.breakAt("/old/", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, strings.Replace(r.URL.Path, "/old/", "/charts/", 1), http.StatusMovedPermanently)
	})
	r := newRepositories(t)
	if snap := latest(t, r, sourceOf(x.URL+"/old", "podinfo", "1.x")); snap.Revision != rev {
		t.Errorf("latest is %s", snap.Revision)
	}
}

// TestArchivesElsewhere: an archive may lie at another server, which sees no credentials.
func TestArchivesElsewhere(t *testing.T) {
	redirect := func(o origin, to string) {
		o.server().breakAt("", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, to+r.URL.Path, http.StatusTemporaryRedirect)
		})
		fault := o.server().fault
		o.server().fault = func(w http.ResponseWriter, r *http.Request) bool {
			return (strings.Contains(r.URL.Path, "/blobs/") || strings.Contains(r.URL.Path, ".tgz")) && fault(w, r)
		}
	}
	ofBothKindsTLS(t, func() *tls.Config { return authority().config(tomorrow()) }, func(t *testing.T, o origin) {
		rev := o.publish("1.4.2", map[string]string{"a": "one"})
		cdn := newFront(t, authority().config(tomorrow()), o.server().Config.Handler)
		inner := cdn.Config.Handler
		if x, ok := o.(*indexOrigin); ok {
			inner = x
		} else {
			inner = o.(*registryOrigin).real
		}
		cdn.mu.Lock()
		cdn.fault = func(w http.ResponseWriter, r *http.Request) bool { inner.ServeHTTP(w, r); return true }
		cdn.mu.Unlock()
		redirect(o, cdn.URL)
		r := newRepositories(t)
		r.Secrets = logins
		snap := latest(t, r, with(o.src("1.x"), "ada"))
		if snap.Revision != rev {
			t.Errorf("latest is %s", snap.Revision)
		}
		wantFile(t, snap, "a", "one")
		if got := cdn.headers("Authorization"); !slices.Equal(got, []string{""}) {
			t.Errorf("the other server was asked with %q", got)
		}
		if got := o.server().headers("Authorization"); slices.Contains(got[len(got)-1:], "") {
			t.Errorf("the repository was asked with %q", got)
		}
		// One that wants credentials does not get them.
		cdn.breakWith(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "who?", http.StatusForbidden) })
		o.publish("1.5.0", nil)
		_, err := r.Latest(t.Context(), with(o.src("1.x"), "ada"))
		wantError(t, err, fleet.Refused, v1alpha1.ReasonAuthFailed, "another server", cdn.URL, "403", "are not sent there")
		// An http URL of an https repository is not asked.
		redirect(o, strings.Replace(cdn.URL, "https:", "http:", 1))
		_, err = r.Latest(t.Context(), with(o.src("1.x"), "ada"))
		wantError(t, err, fleet.Refused, v1alpha1.ReasonFetchFailed, "has to lie at an https URL")
		// Round and round.
		redirect(o, "")
		_, err = r.Latest(t.Context(), with(o.src("1.x"), "ada"))
		wantError(t, err, fleet.Retryable, v1alpha1.ReasonFetchFailed, "redirects more than")
	})
}

// TestAbsoluteArchiveURL of an index.
func TestAbsoluteArchiveURL(t *testing.T) {
	x := newIndex(t, authority().config(tomorrow()))
	rev := x.publish("1.4.2", nil)
	cdn := newFront(t, authority().config(tomorrow()), x)
	r := newRepositories(t)
	r.Secrets = logins
	x.archiveURL = func(file string) string { return cdn.URL + "/charts/archives/" + file + "?download=1" }
	if snap := latest(t, r, with(x.src("1.x"), "ada")); snap.Revision != rev {
		t.Errorf("latest is %s", snap.Revision)
	}
	if got := cdn.headers("Authorization"); !slices.Equal(got, []string{""}) {
		t.Errorf("the other server was asked with %q", got)
	}
	for _, tc := range []struct {
		url    string
		kind   fleet.ErrorKind
		reason string
		part   string
	}{
		{"oci://ghcr.io/charts/podinfo:1.4.2", fleet.Refused, v1alpha1.ReasonFetchFailed, "keeps the archive in a registry"},
		{"https://u:hunter2@x/a.tgz", fleet.Terminal, v1alpha1.ReasonFetchFailed, "no URL of a file"},
		{"mailto:x", fleet.Terminal, v1alpha1.ReasonFetchFailed, "no URL"},
		{"https://169.254.169.254/latest/meta-data", fleet.Refused, v1alpha1.ReasonFetchFailed, "metadata"},
	} {
		x.archiveURL = func(string) string { return `"` + tc.url + `"` }
		x.publish("1.5.0", nil)
		_, err := r.Latest(t.Context(), with(x.src("1.x"), "ada"))
		wantError(t, err, tc.kind, tc.reason, tc.part)
		noSecret(t, err)
	}
}

// tokens is a registry's server to log in to.
func tokens(t testing.TB, user, token string) *front {
	return newFront(t, authority().config(tomorrow()), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		if r.Header.Get("Authorization") != user || query.Get("service") != "here" ||
			!slices.Equal(query["scope"], []string{"repository:team/charts/podinfo:pull", "repository:team/charts/podinfo:list"}) && !slices.Equal(query["scope"], []string{"repository:team/charts/podinfo:pull"}) {
			http.Error(w, "hunter2", http.StatusUnauthorized)
			return
		}
		fmt.Fprintf(w, `{"token":%q}`, token)
	}))
}

// TestRegistryToken: the registry names a server that gives tokens.
func TestRegistryToken(t *testing.T) {
	for name, user := range map[string]string{"ada": basic("ada", "lovelace"), "nobody": ""} {
		t.Run(name, func(t *testing.T) {
			scope := map[string]string{"ada": "repository:team/charts/podinfo:list", "nobody": "repository:other:pull,push"}[name]
			o := newRegistry(t, authority().config(tomorrow()))
			rev := o.publish("1.4.2", nil)
			given := tokens(t, user, "given-1")
			challenge := fmt.Sprintf(`Bearer realm="%s/token",service="here",scope="%s"`, strings.Replace(given.URL, "127.0.0.1", "localhost", 1), scope)
			o.guarded("Authorization", "Bearer given-1", challenge)
			r := newRepositories(t)
			r.Secrets = logins
			src := o.src("1.4.2")
			if user != "" {
				src = with(src, name)
			}
			for range 2 {
				if snap := latest(t, r, src); snap.Revision != rev {
					t.Errorf("latest is %s", snap.Revision)
				}
			}
			if got := given.asked(); got != "GET /token" {
				t.Errorf("tokens were asked for with %q, want once", got)
			}
			o.asked()
			latest(t, r, src)
			if got, want := o.asked(), "HEAD /v2/team/charts/podinfo/manifests/1.4.2"; got != want {
				t.Errorf("an unchanged registry was asked %q, want %q", got, want)
			}
			// The token runs out.
			o.guarded("Authorization", "Bearer given-2", challenge)
			given.breakWith(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"access_token":"given-2"}`) })
			latest(t, r, src)
			if got := given.asked(); got != "GET /token" {
				t.Errorf("tokens were asked for with %q, want once more", got)
			}
		})
	}
}

func TestRegistryTokenTrouble(t *testing.T) {
	o := newRegistry(t, authority().config(tomorrow()))
	o.publish("1.4.2", nil)
	given := tokens(t, basic("ada", "lovelace"), "given-1")
	r := newRepositories(t)
	r.Secrets = logins
	elsewhere := newFront(t, authority().config(tomorrow()), http.NotFoundHandler())
	for _, tc := range []struct {
		name, realm, secret string
		fault               http.HandlerFunc
		kind                fleet.ErrorKind
		reason, part        string
	}{
		{"wrong password", given.URL, "wrong", nil, fleet.Refused, v1alpha1.ReasonAuthFailed, "the Secret apps/wrong"},
		{"over http", "http://127.0.0.1:1/token", "ada", nil, fleet.Refused, v1alpha1.ReasonFetchFailed, "over https only"},
		{"metadata", "https://169.254.169.254/token", "ada", nil, fleet.Refused, v1alpha1.ReasonFetchFailed, "metadata"},
		{"no URL", "token", "ada", nil, fleet.Retryable, v1alpha1.ReasonFetchFailed, "names no server"},
		{"no answer", given.URL, "ada", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "hunter2", http.StatusBadGateway) }, fleet.Retryable, v1alpha1.ReasonFetchFailed, "502"},
		{"no token", given.URL, "ada", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{}`) }, fleet.Retryable, v1alpha1.ReasonFetchFailed, "gives no token"},
		{"no json", given.URL, "ada", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `hunter2`) }, fleet.Retryable, v1alpha1.ReasonFetchFailed, "does not answer with a token"},
		{"endless", given.URL, "ada", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, strings.Repeat("x", maxToken+1)) }, fleet.Retryable, v1alpha1.ReasonFetchFailed, "does not answer with a token"},
		{"line break", given.URL, "ada", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"token":"a\nb"}`) }, fleet.Retryable, v1alpha1.ReasonFetchFailed, "gives no token"},
		{"sent on", given.URL, "ada", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL+"/token", http.StatusTemporaryRedirect)
		}, fleet.Refused, v1alpha1.ReasonRedirected, "another place"},
		{"not enough", given.URL, "ada", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"token":"hunter2"}`) }, fleet.Refused, v1alpha1.ReasonAuthFailed, "the Secret apps/ada"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o.guarded("Authorization", "Bearer given-1", fmt.Sprintf(`Bearer realm=%q,service="here"`, tc.realm))
			given.breakWith(tc.fault)
			_, err := r.Latest(t.Context(), with(o.src("1.4.2"), tc.secret))
			wantError(t, err, tc.kind, tc.reason, tc.part)
			noSecret(t, err)
		})
	}
	if got := elsewhere.asked(); got != "" {
		t.Errorf("credentials went on to %q", got)
	}
}

// TestPlainRegistry: only this machine's registries may speak http.
func TestPlainRegistry(t *testing.T) {
	o := newRegistry(t, nil)
	o.publish("1.4.2", nil)
	latest(t, newRepositories(t), o.src("1.4.2"))
	r := &registry{server: server{base: mustURL(t, strings.Replace(o.URL, "http:", "https:", 1))}}
	if err := r.enter(t.Context()); err != nil || r.base.Scheme != "http" {
		t.Errorf("%v, %v", r.base, err)
	}
	r.close()
	for host, want := range map[string]bool{"127.0.0.1": true, "::1": true, "localhost": true, "10.0.0.1": false, "registry.local": false, "localhost.example": false} {
		if loopback(host) != want {
			t.Errorf("%s: %t", host, !want)
		}
	}
}

func mustURL(t *testing.T, raw string) *url.URL {
	t.Helper()
	u, err := url.Parse(raw + "/")
	if err != nil {
		t.Fatal(err)
	}
	return u
}
