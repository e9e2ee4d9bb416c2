// SPDX-License-Identifier: Apache-2.0

package git

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/source"
	"github.com/flotilla-dev/flotilla/source/access"
)

const (
	// maxAdvertisement bounds the list of references: about 500,000 of them.
	maxAdvertisement = 32 << 20
	// maxErrorBody is what is read of an error page.
	maxErrorBody = 4 << 10
)

// remote asks one repository's server, as whoever the origin's Secrets say. It is used by one goroutine at
// a time; the login is read each time, so that a Secret that was changed is used at the next look.
type remote struct {
	addr    address
	origin  source.Origin
	secrets source.Secrets
	roots   *x509.CertPool

	mu     sync.Mutex // guards client, which close reads
	client *http.Client

	login access.Login
	wire  wire
	two   *greeting // of a server that is known to speak version 2
	kept  *greeting // the references that came with an ETag
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

// advert is what a server says it has.
type advert struct {
	greeting
	refs
	prefixes []string // that were asked for; nil is all
	remote   *remote
}

// open reads the login and gets a wire ready.
func (r *remote) open(ctx context.Context) error {
	login, err := r.login.Again(ctx, r.secrets, r.origin)
	if err != nil {
		return err
	}
	if r.wire != nil && login.Same(r.login) {
		return nil
	}
	r.close()
	r.login, r.two, r.kept = login, nil, nil
	if r.addr.base.Scheme == "ssh" {
		r.wire = &sshWire{addr: r.addr, connect: r.connector(login)}
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.client = login.Client(r.addr.base, r.roots)
	r.wire = &httpWire{client: r.client, url: r.addr.url}
	return nil
}

// close lets idle connections go.
func (r *remote) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.client != nil {
		r.client.CloseIdleConnections()
	}
}

// hangUp ends a conversation. It is called by the holder of the turn.
func (r *remote) hangUp() {
	if r.wire != nil {
		r.wire.hangUp()
	}
}

// look asks the server for the references that a ref needs. It costs one request, but for the first one of
// version 2, which asks what the server can do before.
func (r *remote) look(ctx context.Context, what ref) (a *advert, err error) {
	defer recovered("reading the references", &err)
	if err := r.open(ctx); err != nil {
		return nil, err
	}
	over := false
	a, err = r.ask(ctx, what.prefixes(), &over)
	if err == nil && len(a.refs.hashes) == 0 && a.prefixes != nil {
		// Nothing, or nothing of that name? Only all of them can tell.
		a, err = r.ask(ctx, nil, &over)
	}
	switch {
	case over:
		return nil, tooLarge("delete references that nobody needs", "the list of references is larger than %s", source.Size(maxAdvertisement))
	case err != nil:
		return nil, r.explain(ctx, err)
	case len(a.refs.hashes) == 0:
		return nil, &fleet.Error{Kind: fleet.Retryable, Reason: v1alpha1.ReasonEmptySource, Hint: "push a first commit",
			Err: errors.New("the repository has no commit")}
	}
	return a, nil
}

func (r *remote) ask(ctx context.Context, prefixes []string, over *bool) (*advert, error) {
	if w, ok := r.wire.(*httpWire); ok && r.two != nil {
		a, err := r.listed(ctx, *r.two, prefixes, over)
		if err == nil || ctx.Err() != nil || *over || w.status == 0 || w.status == http.StatusUnauthorized || w.status == http.StatusForbidden {
			return a, err
		}
		// It answers, and not as it did: somebody else may be there now.
		r.two, w.url = nil, r.addr.url
	}
	g, err := r.greet(ctx, over)
	if err != nil {
		return nil, err
	}
	if !g.two {
		return &advert{greeting: g, refs: g.refs, remote: r}, nil
	}
	r.two = &g
	return r.listed(ctx, g, prefixes, over)
}

// greet reads what the server says first, or takes what it said before where it says that this still holds.
func (r *remote) greet(ctx context.Context, over *bool) (greeting, error) {
	body, err := r.wire.greet(ctx)
	if err != nil {
		return greeting{}, err
	}
	if body == nil {
		return *r.kept, nil
	}
	defer body.Close()
	g, err := readGreeting(&bounded{from: body, left: maxAdvertisement, over: over})
	if err != nil {
		return greeting{}, err
	}
	if w, ok := r.wire.(*httpWire); ok {
		if w.kept, r.kept = "", nil; !g.two && w.fresh != "" {
			w.kept, r.kept = w.fresh, &g
		}
	}
	return g, nil
}

// listed asks a server of version 2 for references.
func (r *remote) listed(ctx context.Context, g greeting, prefixes []string, over *bool) (*advert, error) {
	body, err := r.wire.call(ctx, refsRequest(g.caps, prefixes))
	if err != nil {
		return nil, err
	}
	defer body.Close()
	all, err := readRefs(&bounded{from: body, left: maxAdvertisement, over: over})
	if err != nil {
		return nil, err
	}
	return &advert{greeting: g, refs: all, prefixes: prefixes, remote: r}, nil
}

// covers says whether all references that a ref needs were asked for.
func (a *advert) covers(what ref) bool {
	if a.prefixes == nil {
		return true
	}
	for _, p := range what.prefixes() {
		if !slices.ContainsFunc(a.prefixes, func(asked string) bool { return strings.HasPrefix(p, asked) }) {
			return false
		}
	}
	return true
}

// find the commit that a ref is at.
func (a *advert) find(what ref) (label string, commit plumbing.Hash, err error) {
	if label, commit, ok := what.find(a.refs.hashes); ok {
		return label, commit, nil
	}
	hint, missing := "", fmt.Errorf("the repository has no %s %q", what.kind, source.Printable(what.name, 80))
	switch what.kind {
	case byBranch:
		hint = "push it, or name another in spec.source.git.ref.branch"
		if branch := a.headBranch(); branch != "" {
			hint = fmt.Sprintf("its HEAD is branch %q; name the branch in spec.source.git.ref.branch", source.Printable(branch, 80))
		}
	case byTag:
		hint = "push it, or name another in spec.source.git.ref.tag"
	case bySemVer:
		missing = fmt.Errorf("the repository has no tag with a version in %q", source.Printable(what.name, 80))
		hint = "tags with versions have three numbers, such as v1.2.0; one with a suffix such as 1.2.0-rc.1 needs a range with one, such as >=1.2.0-0"
	case byName:
		hint = "push it, or name another in spec.source.git.ref.name"
	}
	return "", plumbing.ZeroHash, &fleet.Error{Kind: fleet.Retryable, Reason: v1alpha1.ReasonRefNotFound, Hint: hint, Err: missing}
}

func (a *advert) headBranch() string {
	if branch, ok := strings.CutPrefix(a.refs.head, headPrefix); ok {
		return branch
	}
	head, ok := a.refs.hashes[headName]
	for _, name := range slices.Sorted(maps.Keys(a.refs.hashes)) {
		if branch, isBranch := strings.CutPrefix(name, headPrefix); ok && isBranch && a.refs.hashes[name] == head {
			return branch
		}
	}
	return ""
}

// serves says whether the server may be asked for a commit by its hash.
func (a *advert) serves(commit plumbing.Hash) bool {
	if a.two {
		return true
	}
	for _, c := range []string{"allow-reachable-sha1-in-want", "allow-tip-sha1-in-want"} {
		if _, ok := a.caps[c]; ok {
			return true
		}
	}
	for _, h := range a.refs.hashes {
		if h == commit {
			return true
		}
	}
	return false
}

// pack asks for want and its history without what the haves reach, and gives it to take: one request.
func (a *advert) pack(ctx context.Context, want plumbing.Hash, haves []plumbing.Hash, take func(io.Reader) error) (err error) {
	defer recovered("reading the pack", &err)
	request, err := packRequest(a.greeting, want, haves)
	if err != nil {
		return err
	}
	body, err := a.remote.wire.call(ctx, request)
	if err != nil {
		return a.remote.explain(ctx, err)
	}
	defer body.Close()
	defer a.remote.hangUp()
	pack, err := readPack(body, a.two)
	if err != nil {
		return a.remote.explain(ctx, err)
	}
	// The pack is bounded where it is taken in.
	if err := take(pack); err != nil {
		if ctx.Err() != nil {
			return a.remote.explain(ctx, err)
		}
		return err
	}
	return nil
}

// explain says what an exchange that failed means, and what to do about it.
func (r *remote) explain(ctx context.Context, err error) error {
	var known *fleet.Error
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fetchFailed("is the server slow or the repository large? spec.source.timeout may be raised",
			fmt.Errorf("no complete answer in time: %w", context.DeadlineExceeded))
	case ctx.Err() != nil:
		return fetchFailed("", ctx.Err())
	}
	if err = r.login.Explain(err); errors.As(err, &known) {
		return err
	}
	if w, ok := r.wire.(*httpWire); ok && w.status != 0 && w.status != http.StatusOK {
		return r.explainStatus(w.status)
	} else if ok && w.status == 0 {
		return unreachable(err)
	}
	switch {
	case errors.Is(err, errSaid):
		return fetchFailed("check the URL, and what the credentials may read", plain(err))
	case errors.Is(err, errNotGit), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return fetchFailed("is there a git repository at this URL?", fmt.Errorf("the server does not answer as git does: %w", plain(err)))
	}
	return unreachable(err)
}

func unreachable(err error) error {
	return fetchFailed("check the URL, and that this cluster reaches the server", fmt.Errorf("the server cannot be reached: %w", plain(err)))
}

func (r *remote) explainStatus(status int) error {
	said := fmt.Errorf("the server answers %d %s", status, http.StatusText(status))
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return r.login.AuthFailed(said)
	case http.StatusNotFound, http.StatusGone:
		return fetchFailed("no repository is there, or it is not for everyone to read; check the URL and spec.source.secretRef", said)
	case http.StatusTooManyRequests:
		return fetchFailed("the server limits how often it is asked; raise spec.source.interval", said)
	}
	if status < 400 {
		return fetchFailed("write the URL that it redirects to", said)
	}
	return fetchFailed("", said)
}

// plain takes the envelopes of net/http off an error and clips it: a server may have written a page into it.
func plain(err error) error {
	var envelope *url.Error
	if errors.As(err, &envelope) {
		err = envelope.Err
	}
	if text := err.Error(); len(text) > 300 || strings.ContainsAny(text, "\r\n") {
		return errors.New(source.Printable(strings.Join(strings.Fields(text), " "), 300))
	}
	return err
}
