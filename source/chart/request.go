// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/flotilla-dev/flotilla/source"
)

const schemeOCI = "oci"

// request is a source.Origin, checked.
type request struct {
	origin  source.Origin
	base    *url.URL // https or http, with a slash at its end
	chart   string
	want    wanted
	timeout time.Duration
	// repo of the chart in a registry; empty where the repository has an index.
	repo string
}

// String names the chart in errors.
func (r request) String() string {
	return fmt.Sprintf("%s (chart %s %s)", source.Clip(r.origin.Helm.URL, 200), r.chart, r.want.text)
}

var (
	chartName = regexp.MustCompile(`^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$`)
	// repositoryName is the distribution protocol's.
	repositoryName = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
)

func parse(o source.Origin) (request, error) {
	if o.Helm == nil {
		return request{}, refusedURL("", "no repository of charts is named", "fill in spec.source.helm")
	}
	const longest = 253
	if !chartName.MatchString(o.Helm.Chart) || len(o.Helm.Chart) > longest {
		return request{}, malformed("write it as the repository does, such as podinfo", "chart %q: not a name of a chart", source.Clip(o.Helm.Chart, 80))
	}
	r := request{origin: o, chart: o.Helm.Chart, timeout: o.Timeout.Or(source.DefaultTimeout)}
	if r.timeout <= 0 {
		r.timeout = source.DefaultTimeout
	}
	if err := r.parseURL(o.Helm.URL); err != nil {
		return request{}, err
	}
	var err error
	r.want, err = parseWanted(o.Helm.Version)
	return r, err
}

// parseURL admits URLs that name a host and perhaps a path, and nothing else. No error shows what may be a secret.
func (r *request) parseURL(raw string) error {
	u, err := url.Parse(raw)
	if err != nil {
		return refusedURL("", "it does not parse", "write it as https://host/path or oci://host/path")
	}
	shown := *u
	shown.User, shown.RawQuery, shown.Fragment = nil, "", ""
	refuse := func(why, hint string) error { return refusedURL(shown.String(), why, hint) }
	scheme := strings.ToLower(u.Scheme)
	switch {
	case scheme != "https" && scheme != "http" && scheme != schemeOCI:
		return refuse("only https, http and oci are supported", "write it as https://host/path or oci://host/path")
	case u.User != nil:
		return refuse("it holds credentials, which everyone who reads the rollout would see", "put them into a Secret and name it in secretRef")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return refuse("it has a query or a fragment", "name the chart and its version in fields of their own")
	case u.Hostname() == "" || u.Opaque != "":
		return refuse("it names no host", "write it as https://host/path or oci://host/path")
	}
	r.base = &url.URL{Scheme: scheme, Host: strings.ToLower(u.Host), Path: strings.TrimRight(u.Path, "/") + "/"}
	if u.RawPath != "" {
		r.base.RawPath = strings.TrimRight(u.RawPath, "/") + "/"
	}
	if scheme != schemeOCI {
		return nil
	}
	const longest = 255
	r.repo = strings.TrimPrefix(r.base.Path+r.chart, "/")
	if !repositoryName.MatchString(r.repo) || len(r.repo) > longest {
		return malformed("names in a registry are lower-case letters and digits, with . _ - between them", "%q is no name of a repository in a registry", source.Clip(r.repo, 120))
	}
	host := r.base.Host
	if host == "docker.io" {
		host = "registry-1.docker.io" // what everybody calls it is not where it answers
	}
	r.base = &url.URL{Scheme: "https", Host: host, Path: "/"}
	return nil
}

// loopback says whether a host is this machine, where a registry may be asked over http.
func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}
