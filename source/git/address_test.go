// SPDX-License-Identifier: Apache-2.0

package git

import (
	"strings"
	"testing"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/source"
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
		"ssh://git@git.example/x":                   "ssh://git@git.example/x",
		"ssh://Git.Example:22/~ada/x/":              "ssh://git.example/~ada/x",
		"ssh://git@git.example:2222/x":              "ssh://git@git.example:2222/x",
		"ssh://git:s3cret@git.example/x":            "holds credentials",
		"git.example:team/repo":                     "ssh in short",
		"git@git.example:team/repo":                 "ssh in short",
		"git://git.example/x":                       "only https, http and ssh",
		"file:///etc":                               "only https, http and ssh",
		"/srv/repo":                                 "only https, http and ssh",
		"":                                          "only https, http and ssh",
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
	src := func(ref *v1alpha1.GitRef) source.Origin {
		return source.Origin{Source: v1alpha1.Source{Git: &v1alpha1.GitSource{URL: "https://git.example/x", Ref: ref}}}
	}
	for _, tc := range []struct {
		ref    *v1alpha1.GitRef
		branch string
	}{{nil, "main"}, {&v1alpha1.GitRef{}, "main"}, {&v1alpha1.GitRef{Branch: "release/1.2"}, "release/1.2"}, {&v1alpha1.GitRef{Branch: "a@b"}, "a@b"}} {
		if r, err := parse(src(tc.ref)); err != nil || r.ref.name != tc.branch || r.timeout != source.DefaultTimeout {
			t.Errorf("%v: %+v, %v", tc.ref, r, err)
		}
	}
	for _, ref := range []*v1alpha1.GitRef{{Branch: "../x"}, {Branch: "a b"}, {Branch: "a..b"}, {Branch: "x.lock"}, {Branch: "a\nb"}, {Branch: strings.Repeat("x", 256)}, {Commit: "abc"}, {Commit: strings.Repeat("A", 40)}, {Commit: strings.Repeat("0", 40)}} {
		_, err := parse(src(ref))
		wantError(t, err, fleet.Terminal, v1alpha1.ReasonRefNotFound, "https://git.example/x")
	}
	_, err := parse(source.Origin{})
	wantError(t, err, fleet.Refused, v1alpha1.ReasonFetchFailed, "spec.source.git")
	for _, rev := range []fleet.Revision{fleet.Revision("main@sha1:" + hash), fleet.Revision("a@b@sha1:" + hash), fleet.Revision("sha1:" + hash)} {
		r, err := parseRevision(rev)
		if err != nil || revisionOf(r.label, r.commit) != rev {
			t.Errorf("%s: %v, %v", rev, r, err)
		}
	}
}
