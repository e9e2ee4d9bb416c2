// SPDX-License-Identifier: Apache-2.0

package git

import (
	"net/url"
	"strings"
	"testing"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

func TestURLs(t *testing.T) {
	for raw, want := range map[string]string{
		"https://git.example/team/repo":             "https://git.example/team/repo",
		"https://git.example/team/repo.git/":        "https://git.example/team/repo.git",
		"HTTPS://Git.Example:443/Team/Repo":         "https://git.example/Team/Repo",
		"http://git.example:80/x":                   "http://git.example/x",
		"http://git.example:8080/x":                 "http://git.example:8080/x",
		"http://[::1]:3000/x.git":                   "http://[::1]:3000/x.git",
		"https://git.example/a%20b/c%2Fd":           "https://git.example/a%20b/c%2Fd",
		"ssh://git@git.example/x":                   "only https and http",
		"git@git.example:team/repo":                 "does not parse",
		"git://git.example/x":                       "only https and http",
		"file:///etc":                               "only https and http",
		"/srv/repo":                                 "only https and http",
		"":                                          "only https and http",
		"https://ada:s3cret@git.example/x":          "holds credentials",
		"https://t0ken@git.example/x":               "holds credentials",
		"https://git.example/x?access_token=s3cret": "a query",
		"https://git.example/x#s3cret":              "a fragment",
		"https:///x":                                "names no host",
		"https:git.example/x":                       "names no host",
		"https://git.example":                       "names no repository",
		"https://git.example/":                      "names no repository",
		"https://git.example:99999/x":               "no valid port",
		"https://git.example:0/x":                   "no valid port",
		"https://git example/s3cret":                "does not parse",
		"https://git.example/\x00":                  "does not parse",
	} {
		addr, err := parseURL(raw)
		if strings.Contains(want, "://") {
			if err != nil || addr.url != want {
				t.Errorf("%q: %q, %v; want %q", raw, addr.url, err, want)
			}
			continue
		}
		wantError(t, err, fleet.Refused, v1alpha1.ReasonFetchFailed, want)
		if err != nil && (strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "t0ken")) {
			t.Errorf("%q: the error tells the secret: %v", raw, err)
		}
	}
}

func TestReferences(t *testing.T) {
	hash := strings.Repeat("0a", 20)
	src := func(ref *v1alpha1.GitRef) v1alpha1.Source {
		return v1alpha1.Source{Git: &v1alpha1.GitSource{URL: "https://git.example/x", Ref: ref}}
	}
	for _, tc := range []struct {
		ref    *v1alpha1.GitRef
		branch string
	}{{nil, "main"}, {&v1alpha1.GitRef{}, "main"}, {&v1alpha1.GitRef{Branch: "release/1.2"}, "release/1.2"}, {&v1alpha1.GitRef{Branch: "a@b"}, "a@b"}} {
		if r, err := parse(src(tc.ref)); err != nil || r.branch != tc.branch || r.timeout != DefaultTimeout {
			t.Errorf("%v: %+v, %v", tc.ref, r, err)
		}
	}
	for _, ref := range []*v1alpha1.GitRef{{Branch: "../x"}, {Branch: "a b"}, {Branch: "a..b"}, {Branch: "x.lock"}, {Branch: "a\nb"}, {Branch: strings.Repeat("x", 256)}, {Commit: "abc"}, {Commit: strings.Repeat("A", 40)}, {Commit: strings.Repeat("0", 40)}} {
		_, err := parse(src(ref))
		wantError(t, err, fleet.Terminal, v1alpha1.ReasonRefNotFound, "https://git.example/x")
	}
	_, err := parse(v1alpha1.Source{})
	wantError(t, err, fleet.Refused, v1alpha1.ReasonFetchFailed, "spec.source.git")
	for _, rev := range []fleet.Revision{fleet.Revision("main@sha1:" + hash), fleet.Revision("a@b@sha1:" + hash), fleet.Revision("sha1:" + hash)} {
		branch, h, err := parseRevision(rev)
		if err != nil || revisionOf(branch, h) != rev {
			t.Errorf("%s: %s %s, %v", rev, branch, h, err)
		}
	}
}

func TestSameOrigin(t *testing.T) {
	for _, tc := range []struct {
		from, to string
		want     bool
	}{
		{"https://a.example/x", "https://a.example/y", true},
		{"https://a.example/x", "https://A.example:443/y", true},
		{"http://a.example/x", "https://a.example/x", true},
		{"https://a.example/x", "http://a.example/x", false},
		{"http://a.example:8080/x", "https://a.example:8443/x", false},
		{"https://a.example/x", "https://a.example:8443/x", false},
		{"https://a.example/x", "https://b.a.example/x", false},
		{"https://a.example/x", "https://a.example.evil/x", false},
	} {
		from, err := url.Parse(tc.from)
		if err != nil {
			t.Fatal(err)
		}
		to, err := url.Parse(tc.to)
		if err != nil {
			t.Fatal(err)
		}
		if got := sameOrigin(from, to); got != tc.want {
			t.Errorf("%s to %s: %v", tc.from, tc.to, got)
		}
	}
}

func TestMetadataIsRefused(t *testing.T) {
	for addr, ok := range map[string]bool{
		"127.0.0.1:80": true, "10.0.0.1:443": true, "[::1]:80": true, "192.0.2.7:443": true,
		"169.254.169.254:80": false, "[fe80::1]:80": false, "[fd00:ec2::254]:80": false, "0.0.0.0:80": false,
		"[::ffff:169.254.169.254]:80": false, "224.0.0.1:80": false, "nonsense": false,
	} {
		if err := refuseMetadata("tcp", addr, nil); (err == nil) != ok {
			t.Errorf("%s: %v", addr, err)
		}
	}
}
