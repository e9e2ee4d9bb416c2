// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/flotilla-dev/flotilla/source/access"
)

const maxToken = 64 << 10

// pass gets requests into a registry. One that answers with a Bearer challenge names a server that gives
// tokens: with the user name and password, or as nobody where the login has none. That server is the one other
// that sees them, because that is how registries work; it has to be asked over https, and may not send elsewhere.
// Neither keychains nor files of this machine are looked into.
type pass struct {
	server
	home *http.Client
	repo string

	mu    sync.Mutex
	token string
}

// RoundTrip sends a request, which has no body, with the token of the last one, and once more with a new one
// where the registry asks for that.
func (p *pass) RoundTrip(req *http.Request) (*http.Response, error) {
	p.mu.Lock()
	token := p.token
	p.mu.Unlock()
	res, err := p.send(req, token)
	if err != nil || res.StatusCode != http.StatusUnauthorized || p.login.BearerToken != "" {
		return res, err
	}
	wants, ok := bearer(res.Header.Values("WWW-Authenticate"))
	if !ok {
		return res, nil
	}
	drop(res)
	if token, err = p.exchange(req, wants); err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.token = token
	p.mu.Unlock()
	return p.send(req, token)
}

// CloseIdleConnections is what http.Client looks for.
func (p *pass) CloseIdleConnections() { p.home.CloseIdleConnections() }

func (p *pass) send(req *http.Request, token string) (*http.Response, error) {
	req = req.Clone(req.Context())
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return p.home.Transport.RoundTrip(req)
}

// exchange the login for a token.
func (p *pass) exchange(req *http.Request, wants map[string]string) (string, error) {
	realm, err := url.Parse(wants["realm"])
	if err != nil || realm.Hostname() == "" || realm.User != nil {
		return "", retryable("", "the registry names no server to log in to")
	}
	client, home := p.home, access.Place(realm) == access.Place(p.base)
	if !home {
		if realm.Scheme != "https" {
			return "", refusedURL(shownURL(realm), "a registry's server to log in to is asked over https only", "")
		}
		client = p.stranger(realm)
		defer client.CloseIdleConnections()
	}
	query := realm.Query()
	scope := "repository:" + p.repo + ":"
	query["scope"] = []string{scope + "pull"}
	if asked := wants["scope"]; strings.HasPrefix(asked, scope) && asked != scope+"pull" {
		query.Add("scope", asked) // some registries have words of their own for lists of tags
	}
	if service := wants["service"]; service != "" {
		query.Set("service", service)
	}
	realm.RawQuery = query.Encode()
	ask := &http.Request{Method: http.MethodGet, URL: realm, Header: http.Header{}}
	if p.login.Username != "" {
		ask.SetBasicAuth(p.login.Username, p.login.Password)
	}
	res, err := p.server.send(req.Context(), client, ask)
	if err != nil {
		return "", err
	}
	defer drop(res)
	switch said := fmt.Errorf("the registry's server to log in to, %.200q, answers %s", access.Place(realm), statusOf(res)); res.StatusCode {
	case http.StatusOK:
	case http.StatusUnauthorized, http.StatusForbidden:
		return "", p.login.AuthFailed(said)
	default:
		return "", retryable("", "%w", said)
	}
	body, err := p.read(req.Context(), res, maxToken)
	var given struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
	}
	if err == nil && json.Unmarshal(body, &given) != nil || errors.Is(err, errOver) {
		err = retryable("", "the registry's server to log in to, %.200q, does not answer with a token", access.Place(realm))
	}
	if given.Token == "" {
		given.Token = given.AccessToken
	}
	if err == nil && (given.Token == "" || strings.ContainsFunc(given.Token, func(r rune) bool { return r <= ' ' || r > '~' })) {
		err = retryable("", "the registry's server to log in to, %.200q, gives no token", access.Place(realm))
	}
	return given.Token, err
}

// bearer reads the parameters of a Bearer challenge out of WWW-Authenticate headers.
func bearer(headers []string) (map[string]string, bool) {
	for _, header := range headers {
		const scheme = "bearer "
		at := strings.Index(strings.ToLower(header), scheme)
		if at < 0 {
			continue
		}
		params := map[string]string{}
		for rest := header[at+len(scheme):]; rest != ""; {
			var key, value string
			key, rest, _ = strings.Cut(strings.TrimLeft(rest, " ,"), "=")
			if quoted, found := strings.CutPrefix(rest, `"`); found {
				value, rest, _ = strings.Cut(quoted, `"`)
			} else {
				value, rest, _ = strings.Cut(rest, ",")
			}
			if key = strings.ToLower(strings.TrimSpace(key)); params[key] == "" {
				params[key] = strings.TrimSpace(value)
			}
		}
		if params["realm"] != "" {
			return params, true
		}
	}
	return nil, false
}
