// SPDX-License-Identifier: Apache-2.0

package git

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/transport"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// DefaultBranch is followed where spec.source.git.ref says nothing.
const DefaultBranch = "main"

const sha1Prefix = "sha1:"

// address of a repository. Two spellings of one URL are one mirror.
type address struct {
	url      string
	endpoint transport.Endpoint
}

// request is a v1alpha1.Source, checked.
type request struct {
	addr    address
	branch  string
	commit  plumbing.Hash
	timeout time.Duration
}

// String names the source in errors.
func (r request) String() string {
	if !r.commit.IsZero() {
		return fmt.Sprintf("%s (commit %s)", r.addr.url, r.commit.String()[:7])
	}
	return fmt.Sprintf("%s (branch %s)", r.addr.url, r.branch)
}

func parse(src v1alpha1.Source) (request, error) {
	if src.Git == nil {
		return request{}, refusedURL("", "no git repository is named", "fill in spec.source.git")
	}
	addr, err := parseURL(src.Git.URL)
	if err != nil {
		return request{}, err
	}
	r := request{addr: addr, branch: DefaultBranch, timeout: src.Timeout.Or(DefaultTimeout)}
	if r.timeout <= 0 {
		r.timeout = DefaultTimeout
	}
	ref := src.Git.Ref
	switch {
	case ref == nil:
	case ref.Commit != "":
		if r.commit, err = parseHash(ref.Commit); err != nil {
			return request{}, noRef("name a commit by all 40 digits of its SHA-1", "%s: commit %q: %w", addr.url, clip(ref.Commit, 80), err)
		}
	case ref.Branch != "":
		if err := checkBranch(ref.Branch); err != nil {
			return request{}, fmt.Errorf("%s: %w", addr.url, err)
		}
		r.branch = ref.Branch
	}
	return r, nil
}

func checkBranch(name string) error {
	const most = 255
	if err := plumbing.NewBranchReferenceName(name).Validate(); err != nil || len(name) > most {
		return noRef("name the branch as git does, such as main or release/1.2", "branch %q: %w", clip(name, 80), errors.Join(errors.New("not a branch name"), err))
	}
	return nil
}

// noRef is a reference that cannot exist: the spec has to change.
func noRef(hint, format string, args ...any) error {
	return &fleet.Error{Kind: fleet.Terminal, Reason: v1alpha1.ReasonRefNotFound, Hint: hint, Err: fmt.Errorf(format, args...)}
}

func refusedURL(shown, why, hint string) error {
	return &fleet.Error{Kind: fleet.Refused, Reason: v1alpha1.ReasonFetchFailed, Hint: hint,
		Err: fmt.Errorf("repository URL %q: %s", clip(shown, 200), why)}
}

// parseURL admits https and http URLs that name a host and a path, and nothing else: what is refused
// here never meets a transport. No error shows what may be a secret.
func parseURL(raw string) (address, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return address{}, refusedURL("", "it does not parse", "write it as https://host/path")
	}
	shown := *u
	shown.User, shown.RawQuery, shown.Fragment = nil, "", ""
	refuse := func(why, hint string) (address, error) { return address{}, refusedURL(shown.String(), why, hint) }
	scheme := strings.ToLower(u.Scheme)
	switch {
	case scheme != "https" && scheme != "http":
		return refuse("only https and http are supported", "write it as https://host/path")
	case u.User != nil:
		return refuse("it holds credentials, which everyone who reads the rollout would see",
			"this version reads repositories that need no credentials; take them out of the URL")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return refuse("it has a query or a fragment", "name the branch or commit in spec.source.git.ref")
	case u.Hostname() == "" || u.Opaque != "":
		return refuse("it names no host", "write it as https://host/path")
	}
	path := strings.TrimRight(u.EscapedPath(), "/")
	if path == "" {
		return refuse("it names no repository on the host", "write it as https://host/path")
	}
	port := 0
	if p := u.Port(); p != "" {
		if port, err = strconv.Atoi(p); err != nil || port < 1 || port > 65535 {
			return refuse("it has no valid port", "ports go from 1 to 65535")
		}
	}
	return newAddress(scheme, strings.ToLower(u.Hostname()), port, path), nil
}

func newAddress(scheme, host string, port int, path string) address {
	if port == map[string]int{"https": 443, "http": 80}[scheme] {
		port = 0
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	// The path stays escaped: go-git pastes it into request URLs as it is.
	a := address{endpoint: transport.Endpoint{Protocol: scheme, Host: host, Port: port, Path: path}}
	a.url = a.endpoint.String()
	return a
}

// sameOrigin says whether a redirect from the repository's URL may be followed: to the same host and
// port, or from http to https on their own ports. Elsewhere is another source, which the spec has to name.
func sameOrigin(from, to *url.URL) bool {
	if !strings.EqualFold(from.Hostname(), to.Hostname()) {
		return false
	}
	a, b := hostPort(from), hostPort(to)
	if strings.EqualFold(from.Scheme, to.Scheme) {
		return a == b
	}
	return from.Scheme == "http" && to.Scheme == "https" && strings.HasSuffix(a, ":80") && strings.HasSuffix(b, ":443")
}

func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443", "http": "80"}[u.Scheme]
	}
	return net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}

// revisionOf words a commit: main@sha1:<commit>, or sha1:<commit> where no branch is followed.
func revisionOf(branch string, hash plumbing.Hash) fleet.Revision {
	if branch == "" {
		return fleet.Revision(sha1Prefix + hash.String())
	}
	return fleet.Revision(branch + "@" + sha1Prefix + hash.String())
}

// parseRevision reads what revisionOf words.
func parseRevision(rev fleet.Revision) (branch string, hash plumbing.Hash, err error) {
	branch, sum := "", string(rev)
	if i := strings.LastIndexByte(sum, '@'); i >= 0 {
		branch, sum = sum[:i], sum[i+1:]
		err = checkBranch(branch)
	}
	if err == nil && !strings.HasPrefix(sum, sha1Prefix) {
		err = errors.New("want <branch>@sha1:<commit> or sha1:<commit>")
	}
	if err == nil {
		hash, err = parseHash(strings.TrimPrefix(sum, sha1Prefix))
	}
	if err != nil {
		return "", plumbing.ZeroHash, noRef("", "revision %q: %w", clip(string(rev), 120), err)
	}
	return branch, hash, nil
}

func parseHash(s string) (plumbing.Hash, error) {
	var h plumbing.Hash
	if len(s) != 2*len(h) || strings.ToLower(s) != s {
		return h, errors.New("want 40 lower-case hex digits")
	}
	if _, err := hex.Decode(h[:], []byte(s)); err != nil {
		return h, errors.New("want 40 lower-case hex digits")
	}
	if h.IsZero() {
		return h, errors.New("the zero hash names nothing")
	}
	return h, nil
}
