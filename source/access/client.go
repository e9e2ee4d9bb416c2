// SPDX-License-Identifier: Apache-2.0

package access

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

const userAgent = "flotilla"

// Client for the server of base, and for no other: a request to another scheme, host or port, of which a
// redirect makes one, is refused before anything is sent. The environment's proxy is never used. Roots are
// who may vouch for the server, nil the system's; those of the login come on top, as Flux has it.
//
// As with Flux, a username and password are also sent over http, where the author of the URL wrote http:
// a server inside the cluster is often reached so. A bearer token is sent over https only.
//
// CloseIdleConnections lets its connections go.
func (l Login) Client(base *url.URL, roots *x509.CertPool) *http.Client {
	config := l.tlsConfig(roots)
	t := &http.Transport{
		ForceAttemptHTTP2:      true,
		TLSHandshakeTimeout:    dialTimeout,
		MaxIdleConnsPerHost:    2,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		TLSClientConfig:        config,
	}
	route := dialer{login: l, proxyTLS: l.tlsConfig(roots)}
	if l.Proxy != nil && base.Scheme == "http" && l.Proxy.Scheme != "socks5" {
		// A plain request is the proxy's to make: many refuse a tunnel to another port than 443.
		t.Proxy, t.DialContext = http.ProxyURL(l.Proxy), direct.DialContext
	} else {
		t.DialContext = route.DialContext
	}
	if l.Certificate != nil && base.Scheme == "https" {
		// Only here: the proxy's TLS is set up without it.
		config.Certificates = []tls.Certificate{*l.Certificate}
	}
	return &http.Client{Transport: &door{login: l, base: base, transport: t}, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		if !sameOrigin(via[0].URL, req.URL) {
			return redirected(req.URL)
		}
		if len(via) >= 10 {
			return errors.New("more than 10 redirects")
		}
		return nil
	}}
}

// tlsConfig without the client's certificate.
func (l Login) tlsConfig(roots *x509.CertPool) *tls.Config {
	return &tls.Config{RootCAs: l.roots(roots), MinVersion: tls.VersionTLS12}
}

func (l Login) roots(roots *x509.CertPool) *x509.CertPool {
	if len(l.CA) == 0 {
		return roots
	}
	pool := x509.NewCertPool()
	if roots != nil {
		pool = roots.Clone()
	} else if system, err := x509.SystemCertPool(); err == nil {
		pool = system
	}
	pool.AppendCertsFromPEM(l.CA)
	return pool
}

// door lets requests through to one server, with what opens it.
type door struct {
	login     Login
	base      *url.URL
	transport *http.Transport
}

// RoundTrip adds the credentials to a request of its own, which no redirect copies.
func (d *door) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := d.admit(req); err != nil {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, err
	}
	req = req.Clone(req.Context())
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", userAgent)
	}
	if req.Header.Get("Authorization") == "" {
		switch {
		case d.login.BearerToken != "":
			req.Header.Set("Authorization", "Bearer "+d.login.BearerToken)
		case d.login.Username != "":
			req.SetBasicAuth(d.login.Username, d.login.Password)
		}
	}
	res, err := d.transport.RoundTrip(req)
	if err == nil && res.StatusCode == http.StatusProxyAuthRequired && d.transport.Proxy != nil {
		res.Body.Close()
		return nil, d.login.proxyAuthFailed(errors.New("the proxy wants other credentials"))
	}
	return res, err
}

func (d *door) admit(req *http.Request) error {
	if !sameOrigin(d.base, req.URL) {
		return redirected(req.URL)
	}
	if err := refuseTarget(req.URL.Hostname()); err != nil {
		return err
	}
	if d.login.BearerToken != "" && req.URL.Scheme != "https" {
		return &fleet.Error{Kind: fleet.Refused, Reason: v1alpha1.ReasonAuthFailed, Hint: "write https:// in the URL, or use a username and password",
			Err: errors.New("a bearer token is not sent over http")}
	}
	return nil
}

// CloseIdleConnections is what http.Client looks for.
func (d *door) CloseIdleConnections() { d.transport.CloseIdleConnections() }

func sameOrigin(a, b *url.URL) bool { return Place(a) == Place(b) }

// Place of a server: its scheme, host and port. What is there gets the same credentials.
func Place(u *url.URL) string {
	scheme, port := strings.ToLower(u.Scheme), u.Port()
	if port == "" {
		port = map[string]string{"https": "443", "http": "80", "ssh": "22"}[scheme]
	}
	return scheme + "://" + net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}

func redirected(to *url.URL) error {
	return &fleet.Error{Kind: fleet.Refused, Reason: v1alpha1.ReasonRedirected,
		Hint: "if it is there now, write that URL in spec.source; credentials are not sent along",
		Err:  fmt.Errorf("the server sends to another place, %.200q, which is not followed", Place(to))}
}
