// SPDX-License-Identifier: Apache-2.0

package git

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
	"github.com/go-git/go-git/v5/plumbing/transport"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

const (
	userAgent = "flotilla"
	// maxAdvertisement bounds the list of references: about 500,000 of them.
	maxAdvertisement = 32 << 20
	// maxErrorBody is what is read of an error page.
	maxErrorBody = 4 << 10
)

// remote asks one repository's server. It holds no state between two calls.
type remote struct {
	addr      address
	transport *http.Transport
}

// newTransport is the one HTTP transport of a Mirrors. It is its own, not http.DefaultTransport, so
// that neither proxy variables of the environment nor other packages change what it does.
func newTransport(roots *x509.CertPool) *http.Transport {
	dialer := &net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second, Control: refuseMetadata}
	return &http.Transport{
		DialContext:            dialer.DialContext,
		ForceAttemptHTTP2:      true,
		TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    15 * time.Second,
		MaxIdleConnsPerHost:    2,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}
}

// refuseMetadata sees every address after its name was resolved: whoever may write a rollout must not
// reach the machine's metadata service through the agent.
func refuseMetadata(_, addr string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(addr)
	if err != nil {
		return fmt.Errorf("address %q: %w", addr, err)
	}
	ip := at.Addr().Unmap()
	if ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified() || ip == netip.MustParseAddr("fd00:ec2::254") {
		return fmt.Errorf("address %s: %w", ip, errMetadata)
	}
	return nil
}

var errMetadata = errors.New("link-local addresses, where metadata services are, are refused")

// exchange is the HTTP side of one look: it bounds what is read, and notes what go-git's errors lose.
type exchange struct {
	base   http.RoundTripper
	bound  int64
	status int
	over   bool
	moved  string
}

func (x *exchange) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set("User-Agent", userAgent)
	res, err := x.base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	x.status = res.StatusCode
	var body io.Reader = &bounded{from: res.Body, left: x.bound, over: &x.over}
	if res.StatusCode >= 300 {
		body = io.LimitReader(res.Body, maxErrorBody)
	}
	res.Body = struct {
		io.Reader
		io.Closer
	}{body, res.Body}
	return res, nil
}

func (x *exchange) checkRedirect(req *http.Request, via []*http.Request) error {
	if !sameOrigin(via[0].URL, req.URL) {
		x.moved = hostPort(req.URL)
		return fmt.Errorf("redirect to %s", x.moved)
	}
	return nil
}

// bounded reads at most left bytes and fails beyond, where io.LimitReader would pretend an end.
type bounded struct {
	from io.Reader
	left int64
	over *bool
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left < 0 {
		*b.over = true
		return 0, errOver
	}
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.from.Read(p)
	if b.left -= int64(n); b.left < 0 {
		*b.over = true
		return n - 1, errOver
	}
	return n, err
}

var errOver = errors.New("more bytes than are taken in")

// advert is what a server says it has, and the session to fetch from it.
type advert struct {
	*packp.AdvRefs
	session transport.UploadPackSession
	x       *exchange
	remote  remote
}

// look asks the server for its references: one request.
func (r remote) look(ctx context.Context) (a *advert, err error) {
	defer recovered("reading the references", &err)
	x := &exchange{base: r.transport, bound: maxAdvertisement}
	client := githttp.NewClientWithOptions(&http.Client{Transport: x, CheckRedirect: x.checkRedirect},
		&githttp.ClientOptions{RedirectPolicy: githttp.FollowInitialRedirects})
	endpoint := r.addr.endpoint
	session, err := client.NewUploadPackSession(&endpoint, nil)
	if err != nil {
		return nil, fetchFailed("", err)
	}
	refs, err := session.AdvertisedReferencesContext(ctx)
	if err != nil {
		return nil, r.explain(ctx, x, err)
	}
	return &advert{AdvRefs: refs, session: session, x: x, remote: r}, nil
}

// head of a branch.
func (a *advert) head(branch string) (plumbing.Hash, error) {
	if h, ok := a.References[plumbing.NewBranchReferenceName(branch).String()]; ok && !h.IsZero() {
		return h, nil
	}
	hint := "push it, or name another in spec.source.git.ref.branch"
	if a.Head != nil {
		for name, h := range a.References {
			if b := plumbing.ReferenceName(name); h == *a.Head && b.IsBranch() {
				hint = fmt.Sprintf("its HEAD is branch %q; name the branch in spec.source.git.ref.branch", printable(b.Short(), 80))
				break
			}
		}
	}
	return plumbing.ZeroHash, &fleet.Error{Kind: fleet.Retryable, Reason: v1alpha1.ReasonRefNotFound, Hint: hint,
		Err: fmt.Errorf("the repository has no branch %q", branch)}
}

// serves says whether the server may be asked for a commit by its hash.
func (a *advert) serves(commit plumbing.Hash) bool {
	if a.Capabilities.Supports(capability.AllowReachableSHA1InWant) || a.Capabilities.Supports(capability.AllowTipSHA1InWant) {
		return true
	}
	for _, h := range a.References {
		if h == commit {
			return true
		}
	}
	return false
}

// pack asks for want and its history without what the haves reach, and gives it to take: one request.
func (a *advert) pack(ctx context.Context, want plumbing.Hash, haves []plumbing.Hash, take func(io.Reader) error) (err error) {
	defer recovered("reading the pack", &err)
	req := packp.NewUploadPackRequestFromCapabilities(a.Capabilities)
	if a.Capabilities.Supports(capability.Agent) {
		if err := req.Capabilities.Set(capability.Agent, userAgent); err != nil {
			return fetchFailed("", err)
		}
	}
	if a.Capabilities.Supports(capability.NoProgress) {
		if err := req.Capabilities.Set(capability.NoProgress); err != nil {
			return fetchFailed("", err)
		}
	}
	req.Wants, req.Haves = []plumbing.Hash{want}, haves
	a.x.bound = 1 << 62 // the pack is bounded where it is taken in
	res, err := a.session.UploadPack(ctx, req)
	if err != nil {
		return a.remote.explain(ctx, a.x, err)
	}
	defer res.Close() //nolint:errcheck // all that matters was read
	if err := take(demultiplexed(req.Capabilities, res)); err != nil {
		if ctx.Err() != nil {
			return a.remote.explain(ctx, a.x, err)
		}
		return err
	}
	return nil
}

func demultiplexed(caps *capability.List, r io.Reader) io.Reader {
	switch {
	case caps.Supports(capability.Sideband64k):
		return sideband.NewDemuxer(sideband.Sideband64k, r)
	case caps.Supports(capability.Sideband):
		return sideband.NewDemuxer(sideband.Sideband, r)
	}
	return r
}

// explain says what an exchange that failed means, and what to do about it.
func (r remote) explain(ctx context.Context, x *exchange, err error) error {
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fetchFailed("is the server slow or the repository large? spec.source.timeout may be raised",
			fmt.Errorf("no complete answer in time: %w", context.DeadlineExceeded))
	case ctx.Err() != nil:
		return fetchFailed("", ctx.Err())
	case errors.Is(err, transport.ErrEmptyRemoteRepository):
		return &fleet.Error{Kind: fleet.Retryable, Reason: v1alpha1.ReasonEmptySource, Hint: "push a first commit",
			Err: errors.New("the repository has no commit")}
	case x.moved != "":
		return &fleet.Error{Kind: fleet.Refused, Reason: v1alpha1.ReasonFetchFailed,
			Hint: "if the repository lives there now, write that URL in spec.source.git.url",
			Err:  fmt.Errorf("the server redirects to another origin, %s, which is not followed", printable(x.moved, 200))}
	case errors.Is(err, errMetadata):
		return &fleet.Error{Kind: fleet.Refused, Reason: v1alpha1.ReasonFetchFailed, Err: errMetadata}
	case x.over:
		return tooLarge("delete references that nobody needs", "the list of references is larger than %s", size(maxAdvertisement))
	case x.status >= 300:
		return explainStatus(x.status, err)
	case x.status == 0:
		return fetchFailed("check the URL, and that this cluster reaches the server", fmt.Errorf("the server cannot be reached: %w", plain(err)))
	}
	return fetchFailed("is there a git repository at this URL?", fmt.Errorf("the server does not answer as git does: %w", plain(err)))
}

func explainStatus(status int, err error) error {
	said := fmt.Errorf("the server answers %d %s", status, http.StatusText(status))
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired:
		return &fleet.Error{Kind: fleet.Refused, Reason: v1alpha1.ReasonAuthFailed, Err: said,
			Hint: "this version reads repositories that need no credentials; let it be read, or check the URL"}
	case http.StatusNotFound, http.StatusGone:
		return fetchFailed("no repository is there for everyone to read; check the URL", said)
	case http.StatusTooManyRequests:
		return fetchFailed("the server limits how often it is asked; raise spec.source.interval", said)
	}
	if status < 400 {
		return fetchFailed("write the URL that it redirects to", fmt.Errorf("%w: %w", said, plain(err)))
	}
	return fetchFailed("", said)
}

// plain takes go-git's envelopes, which say "unexpected client error", off an error and clips it: a
// server may have written a page into it.
func plain(err error) error {
	for {
		switch e := err.(type) { //nolint:errorlint // the envelopes do not unwrap
		case *plumbing.UnexpectedError:
			err = e.Err
		case *plumbing.PermanentError:
			err = e.Err
		default:
			if text := err.Error(); len(text) > 300 || strings.ContainsAny(text, "\r\n") {
				return errors.New(printable(strings.Join(strings.Fields(text), " "), 300))
			}
			return err
		}
	}
}

func size(bytes int64) string {
	if bytes >= 1<<20 {
		return fmt.Sprintf("%d MiB", bytes>>20)
	}
	return fmt.Sprintf("%d bytes", bytes)
}
