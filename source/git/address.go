// SPDX-License-Identifier: Apache-2.0

package git

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/source"
)

// address of a repository. Two spellings of one URL are one mirror.
type address struct {
	url  string
	base *url.URL // the same, parsed
}

// request is a v1alpha1.Source, checked.
type request struct {
	origin  source.Origin // with the URL as it is spelled in addr
	addr    address
	ref     ref
	timeout time.Duration
}

// String names the source in errors.
func (r request) String() string { return fmt.Sprintf("%s (%s)", r.addr.url, r.ref) }

func parse(src source.Origin) (request, error) {
	if src.Git == nil {
		return request{}, refusedURL("", "no git repository is named", "fill in spec.source.git")
	}
	addr, err := parseURL(src.Git.URL)
	if err != nil {
		return request{}, err
	}
	r := request{origin: src, addr: addr, timeout: src.Timeout.Or(source.DefaultTimeout)}
	if r.timeout <= 0 {
		r.timeout = source.DefaultTimeout
	}
	spelled := *src.Git
	spelled.URL = addr.url
	r.origin.Git = &spelled
	if r.ref, err = parseRef(src.Git.Ref); err != nil {
		return request{}, fmt.Errorf("%s: %w", addr.url, err)
	}
	return r, nil
}

func refusedURL(shown, why, hint string) error {
	return &fleet.Error{Kind: fleet.Refused, Reason: v1alpha1.ReasonFetchFailed, Hint: hint,
		Err: fmt.Errorf("repository URL %q: %s", source.Clip(shown, 200), why)}
}

// scpLike is git@host:path, which is not a URL.
var scpLike = regexp.MustCompile(`^([^/@:\s]+@)?[^/@:\s]+:[^/\s][^\s]*$`)

const writeURL = "write it as https://host/path or ssh://git@host/path"

// parseURL admits https, http and ssh URLs that name a host and a path, and nothing else: what is refused
// here never meets a network. No error shows what may be a secret.
func parseURL(raw string) (address, error) {
	u, err := url.Parse(raw)
	if err != nil && scpLike.MatchString(raw) || err == nil && u.Opaque != "" && scpLike.MatchString(raw) && !strings.HasPrefix(u.Scheme, "http") {
		return address{}, refusedURL("", "user@host:path is ssh in short, and not a URL", "write it as ssh://user@host/path")
	}
	if err != nil {
		return address{}, refusedURL("", "it does not parse", writeURL)
	}
	shown := *u
	shown.User, shown.RawQuery, shown.Fragment = nil, "", ""
	refuse := func(why, hint string) (address, error) { return address{}, refusedURL(shown.String(), why, hint) }
	scheme := strings.ToLower(u.Scheme)
	_, hasPassword := u.User.Password()
	switch {
	case scheme != "https" && scheme != "http" && scheme != "ssh":
		return refuse("only https, http and ssh are supported", writeURL)
	case u.User != nil && scheme != "ssh" || hasPassword:
		return refuse("it holds credentials, which everyone who reads the rollout would see",
			"take them out of the URL, and write them into the Secret that spec.source.secretRef names")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return refuse("it has a query or a fragment", "name the branch, tag or commit in spec.source.git.ref")
	case u.Hostname() == "" || u.Opaque != "":
		return refuse("it names no host", writeURL)
	case strings.ContainsFunc(u.User.Username()+u.Path, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return refuse("it holds a control character", writeURL)
	}
	path := strings.TrimRight(u.EscapedPath(), "/")
	if path == "" {
		return refuse("it names no repository on the host", writeURL)
	}
	port := 0
	if p := u.Port(); p != "" {
		if port, err = strconv.Atoi(p); err != nil || port < 1 || port > 65535 {
			return refuse("it has no valid port", "ports go from 1 to 65535")
		}
	}
	a, err := newAddress(scheme, strings.ToLower(u.Hostname()), port, path)
	if err == nil && scheme == "ssh" && u.User.Username() != "" {
		a.base.User = url.User(u.User.Username())
		a.url = a.base.String()
	}
	if err != nil {
		return refuse("it does not parse", writeURL)
	}
	return a, nil
}

func newAddress(scheme, host string, port int, path string) (address, error) {
	at := host
	switch {
	case port != 0 && port != map[string]int{"https": 443, "http": 80, "ssh": 22}[scheme]:
		at = net.JoinHostPort(host, strconv.Itoa(port))
	case strings.Contains(host, ":"):
		at = "[" + host + "]"
	}
	// The path stays escaped as it was written.
	spelled := scheme + "://" + at + path
	base, err := url.Parse(spelled)
	if err == nil && base.Hostname() != host {
		err = errors.New("it does not parse twice")
	}
	return address{url: spelled, base: base}, err
}
