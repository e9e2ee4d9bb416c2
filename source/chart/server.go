// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/source"
	"github.com/flotilla-dev/flotilla/source/access"
)

const (
	// maxHops to where an archive lies.
	maxHops = 5
	// maxDrained of an answer that nobody reads, so that its connection serves again.
	maxDrained = 4 << 10
)

// server is the one that the spec names. It alone gets the credentials.
type server struct {
	login  access.Login
	base   *url.URL
	roots  *x509.CertPool
	client *http.Client
}

func (s *server) close() {
	if s.client != nil {
		s.client.CloseIdleConnections()
	}
}

// ask the server itself. It may redirect within its own place only: elsewhere is another repository, which the
// spec has to name.
func (s *server) ask(ctx context.Context, method string, u *url.URL, header http.Header) (*http.Response, error) {
	return s.send(ctx, s.client, &http.Request{Method: method, URL: u, Header: header})
}

func (s *server) send(ctx context.Context, client *http.Client, req *http.Request) (*http.Response, error) {
	if req.Header == nil {
		req.Header = http.Header{}
	}
	res, err := client.Do(req.WithContext(ctx))
	if err != nil {
		return nil, s.explain(ctx, err)
	}
	return res, nil
}

// download an archive from where it lies. Repositories and registries often keep them elsewhere, or redirect
// there: that server is asked as nobody, and what it gives is known by its digest.
func (s *server) download(ctx context.Context, u *url.URL, most int64) ([]byte, error) {
	for range maxHops {
		body, next, err := s.hop(ctx, u, most)
		if err != nil || next == nil {
			return body, err
		}
		u = next
	}
	return nil, retryable("", "the server redirects more than %d times", maxHops)
}

// hop is one request of a download: the archive, or where to ask next.
func (s *server) hop(ctx context.Context, u *url.URL, most int64) ([]byte, *url.URL, error) {
	if u.Scheme != "https" && (u.Scheme != "http" || s.base.Scheme != "http") {
		return nil, nil, refusedURL(shownURL(u), "the archive of a repository over https has to lie at an https URL", "")
	}
	client, home := s.client, access.Place(u) == access.Place(s.base)
	if !home {
		client = s.stranger(u)
		defer client.CloseIdleConnections()
	}
	plain := *client
	plain.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	// As it lies there: some servers call the archive's own compression theirs, and it would be taken off.
	res, err := s.send(ctx, &plain, &http.Request{Method: http.MethodGet, URL: u, Header: http.Header{"Accept-Encoding": {"identity"}}})
	if err != nil {
		return nil, nil, err
	}
	defer drop(res)
	next, err := redirect(res)
	if err != nil || next != nil {
		return nil, next, err
	}
	body, err := s.archive(ctx, res, home, most)
	return body, nil, err
}

// archive is the body of an answer.
func (s *server) archive(ctx context.Context, res *http.Response, home bool, most int64) ([]byte, error) {
	place := access.Place(res.Request.URL)
	switch {
	case res.StatusCode == http.StatusNotFound || res.StatusCode == http.StatusGone:
		return nil, errGone
	case !home && (res.StatusCode == http.StatusUnauthorized || res.StatusCode == http.StatusForbidden):
		return nil, &fleet.Error{Kind: fleet.Refused, Reason: v1alpha1.ReasonAuthFailed,
			Hint: "the repository's credentials are not sent there: let the repository serve its archives itself, or let everyone read them",
			Err:  fmt.Errorf("the archive lies at another server, %.200q, which answers %s", place, statusOf(res))}
	case res.StatusCode != http.StatusOK:
		return nil, s.refusedBy(res)
	case strings.HasPrefix(res.Header.Get("Content-Type"), "text/html"):
		return nil, retryable("is it a page to log in?", "the server answers with a web page instead of the archive")
	}
	body, err := s.read(ctx, res, most)
	if errors.Is(err, errOver) {
		return nil, tooLarge("", "the archive is larger than %s", source.Size(most))
	}
	return body, err
}

// stranger is a client for another server: as nobody, over the same proxy.
func (s *server) stranger(u *url.URL) *http.Client {
	nobody := access.Login{CA: s.login.CA, Proxy: s.login.Proxy}
	return nobody.Client(&url.URL{Scheme: u.Scheme, Host: u.Host}, s.roots)
}

// redirect is where an answer sends to; nil where it does not.
func redirect(res *http.Response) (*url.URL, error) {
	switch res.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
	default:
		return nil, nil
	}
	u, err := res.Location()
	if err != nil || u.Hostname() == "" || u.User != nil {
		return nil, retryable("", "the server redirects to what is no URL")
	}
	return u, nil
}

// read the body of an answer, whole or not at all.
func (s *server) read(ctx context.Context, res *http.Response, most int64) ([]byte, error) {
	if res.ContentLength > most {
		return nil, errOver
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, most+1))
	switch {
	case int64(len(body)) > most:
		return nil, errOver
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, retryable("the connection broke, or a proxy cut it", "the answer ends after %d bytes, before its end", len(body))
	case err != nil:
		return nil, s.explain(ctx, err)
	}
	return body, nil
}

var (
	errOver = errors.New("more bytes than are taken in")
	// errGone: the server has no such thing.
	errGone = errors.New("the server answers that nothing is there")
)

// drop an answer.
func drop(res *http.Response) {
	io.Copy(io.Discard, io.LimitReader(res.Body, maxDrained)) //nolint:errcheck // nobody wants it
	res.Body.Close()
}

// explain says what an exchange that failed means. No URL is shown: one that a server redirects to may hold a signature.
func (s *server) explain(ctx context.Context, err error) error {
	err = access.Explain(err)
	var known *fleet.Error
	if errors.As(err, &known) {
		return known
	}
	for envelope := (*url.Error)(nil); errors.As(err, &envelope); {
		err = envelope.Err
	}
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded) || errors.Is(err, context.DeadlineExceeded):
		return retryable("is the server slow? spec.source.timeout may be raised", "no complete answer in time: %w", context.DeadlineExceeded)
	case ctx.Err() != nil:
		return retryable("", "%w", ctx.Err())
	case errors.Is(err, http.ErrSchemeMismatch):
		return retryable("write http:// in the URL, if nobody else can read along", "the server speaks http, and not https")
	}
	return retryable("check the URL, and that this cluster reaches the server", "the server cannot be reached: %w", clipped(err))
}

func clipped(err error) error {
	if text := err.Error(); len(text) > 300 || strings.ContainsAny(text, "\r\n") {
		return errors.New(source.Printable(strings.Join(strings.Fields(text), " "), 300))
	}
	return err
}

// refusedBy is an answer of the server itself that is not what was asked for.
func (s *server) refusedBy(res *http.Response) error {
	said := fmt.Errorf("the server answers %s", statusOf(res))
	switch res.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		return s.login.AuthFailed(said)
	case http.StatusTooManyRequests:
		return retryable("the server limits how often it is asked; raise spec.source.interval", "%w", said)
	}
	return retryable("", "%w", said)
}

func statusOf(res *http.Response) string {
	return strings.TrimSpace(fmt.Sprintf("%d %s", res.StatusCode, http.StatusText(res.StatusCode)))
}

// shownURL without what may be a secret.
func shownURL(u *url.URL) string { return u.Scheme + "://" + u.Host + u.Path }
