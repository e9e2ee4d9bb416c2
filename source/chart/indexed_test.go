// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"compress/gzip"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

func says(status int, kind, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}
}

// cutShort sends less than it announces.
func cutShort(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "1000")
	fmt.Fprint(w, "apiVersion: v1\nentries:\n  podinfo:\n")
}

func TestIndexTrouble(t *testing.T) {
	for _, tc := range []struct {
		name   string
		fault  http.HandlerFunc
		kind   fleet.ErrorKind
		reason string
		parts  []string
	}{
		{"not there", says(404, "text/plain", "no"), fleet.Retryable, v1alpha1.ReasonFetchFailed, []string{"no repository of charts: the server answers 404", "oci://"}},
		{"a page", says(200, "text/html", "<html>sign in</html>"), fleet.Retryable, v1alpha1.ReasonFetchFailed, []string{"a web page instead of an index.yaml"}},
		{"cut", cutShort, fleet.Retryable, v1alpha1.ReasonFetchFailed, []string{"ends after 35 bytes, before its end"}},
		{"not yaml", says(200, "text/yaml", "entries: ["), fleet.Retryable, v1alpha1.ReasonFetchFailed, []string{"does not parse"}},
		{"too large", says(200, "text/yaml", strings.Repeat("#\n", 50_000)), fleet.Terminal, v1alpha1.ReasonTooLarge, []string{"larger than 65536 bytes"}},
		{"broken", says(500, "text/plain", "hunter2"), fleet.Retryable, v1alpha1.ReasonFetchFailed, []string{"500 Internal Server Error"}},
		{"busy", says(429, "text/plain", ""), fleet.Retryable, v1alpha1.ReasonFetchFailed, []string{"429", "spec.source.interval"}},
		{"private", says(403, "text/plain", ""), fleet.Refused, v1alpha1.ReasonAuthFailed, []string{"403"}},
		{"not changed, but never asked", says(304, "", ""), fleet.Retryable, v1alpha1.ReasonFetchFailed, []string{"304"}},
		{"another chart", says(200, "text/yaml", "entries:\n  podinfos:\n  - version: 1.0.0\n"), fleet.Retryable, v1alpha1.ReasonRefNotFound, []string{`no chart "podinfo"`, "did you mean podinfos?"}},
		{"no chart like it", says(200, "text/yaml", "entries:\n  x:\n  - version: 1.0.0\n"), fleet.Retryable, v1alpha1.ReasonRefNotFound, []string{`no chart "podinfo"`, "check its name"}},
		{"no versions", says(200, "text/yaml", "entries:\n  podinfo: []\n"), fleet.Retryable, v1alpha1.ReasonRefNotFound, []string{"no version", "and no other"}},
		{"other versions", says(200, "text/yaml", "entries:\n  podinfo:\n  - version: 2.0.0\n  - version: 3.0.0-rc.1\n"), fleet.Retryable, v1alpha1.ReasonRefNotFound,
			[]string{`no version in the range "1.x"`, "its newest are 3.0.0-rc.1, 2.0.0", "pre-releases only where"}},
		{"no archive", says(200, "text/yaml", "entries:\n  podinfo:\n  - version: 1.0.0\n"), fleet.Terminal, v1alpha1.ReasonFetchFailed, []string{"names no archive of version 1.0.0"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			x := newIndex(t, nil)
			rev := x.publish("1.4.2", nil)
			r := newRepositories(t)
			r.Limits.MaxIndexBytes = 64 << 10
			x.breakWith(tc.fault)
			_, err := r.Latest(t.Context(), x.src("1.x"))
			wantError(t, err, tc.kind, tc.reason, append(tc.parts, "(chart podinfo 1.x)")...)
			noSecret(t, err)
			x.breakWith(nil)
			if snap := latest(t, r, x.src("1.x")); snap.Revision != rev {
				t.Errorf("mended, and latest is %s", snap.Revision)
			}
		})
	}
}

func TestArchiveTrouble(t *testing.T) {
	for _, tc := range []struct {
		name   string
		fault  http.HandlerFunc
		kind   fleet.ErrorKind
		reason string
		parts  []string
	}{
		{"not there", says(404, "text/plain", "no"), fleet.Retryable, v1alpha1.ReasonFetchFailed, []string{"the index has version 1.4.2, but its archive is not at", "/charts/archives/podinfo-1.4.2.tgz"}},
		{"a page", says(200, "text/html; charset=utf-8", "<html>sign in</html>"), fleet.Retryable, v1alpha1.ReasonFetchFailed, []string{"a web page instead of the archive"}},
		{"cut on its way", cutShort, fleet.Retryable, v1alpha1.ReasonFetchFailed, []string{"before its end"}},
		{"cut where it lies", says(200, "application/gzip", string(chartOf(t, "podinfo", "1.4.2", nil)[:100])), fleet.Retryable, v1alpha1.ReasonFetchFailed, []string{"the archive ends before its end"}},
		{"another", says(200, "application/gzip", string(chartOf(t, "podinfo", "1.4.3", nil))), fleet.Refused, v1alpha1.ReasonVersionMoved, []string{"version 1.4.2 is the archive sha256:"}},
		{"no archive", says(200, "application/gzip", "this is no archive at all"), fleet.Refused, v1alpha1.ReasonVersionMoved, []string{"version 1.4.2"}},
		{"too large", says(200, "application/gzip", strings.Repeat("x", 70_000)), fleet.Terminal, v1alpha1.ReasonTooLarge, []string{"larger than 65536 bytes"}},
		{"broken", says(502, "text/plain", "hunter2"), fleet.Retryable, v1alpha1.ReasonFetchFailed, []string{"502"}},
		{"private", says(401, "text/plain", ""), fleet.Refused, v1alpha1.ReasonAuthFailed, []string{"401"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			x := newIndex(t, nil)
			rev := x.publish("1.4.2", nil)
			r := newRepositories(t)
			r.Limits.MaxArchiveBytes = 64 << 10
			x.breakAt(".tgz", tc.fault)
			_, err := r.Latest(t.Context(), x.src("1.x"))
			wantError(t, err, tc.kind, tc.reason, tc.parts...)
			noSecret(t, err)
			x.breakWith(nil)
			if snap := latest(t, r, x.src("1.x")); snap.Revision != rev {
				t.Errorf("mended, and latest is %s", snap.Revision)
			}
		})
	}
}

// TestIndexWithoutDigests: a version is what it was when it was first met.
func TestIndexWithoutDigests(t *testing.T) {
	x := newIndex(t, nil)
	x.noDigest = true
	first := x.publish("1.4.2", map[string]string{"a": "first"})
	r := newRepositories(t)
	if snap := latest(t, r, x.src("1.x")); snap.Revision != first {
		t.Errorf("latest is %s, want %s", snap.Revision, first)
	}
	x.asked()
	if snap := latest(t, r, x.src("1.x")); snap.Revision != first {
		t.Errorf("latest is %s, want %s", snap.Revision, first)
	}
	if got := x.asked(); got != "GET /charts/index.yaml" {
		t.Errorf("asked %q", got)
	}
	x.publish("1.4.2", map[string]string{"a": "second"})
	if snap := latest(t, r, x.src("1.x")); snap.Revision != first {
		t.Errorf("latest is %s, want %s", snap.Revision, first)
	}
	// Gone from disk, it is not silently another one.
	again := &Repositories{Dir: r.Dir, Limits: Limits{MaxArchives: 1}}
	defer again.Close()
	x.publish("1.5.0", nil)
	latest(t, again, x.src("1.5.0"))
	_, err := again.Latest(t.Context(), x.src("1.4.2"))
	wantError(t, err, fleet.Refused, v1alpha1.ReasonVersionMoved, "version 1.4.2")
}

// TestConditions: what a server says of its index is said back to it.
func TestConditions(t *testing.T) {
	x := newIndex(t, nil)
	x.noETag = true
	x.publish("1.4.2", nil)
	r := newRepositories(t)
	x.breakAt("index.yaml", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("If-Modified-Since") == "Sat, 21 Nov 2026 10:00:00 GMT" {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Header().Set("Last-Modified", "Sat, 21 Nov 2026 10:00:00 GMT")
		_, _ = w.Write(x.index())
	})
	first := latest(t, r, x.src("1.x"))
	x.publish("1.5.0", nil)
	if snap := latest(t, r, x.src("1.x")); snap.Revision != first.Revision {
		t.Errorf("the index was read although it did not change: %s", snap.Revision)
	}
	// A server that says nothing is read every time, and parsed when it changed.
	x.breakWith(nil)
	r = newRepositories(t)
	latest(t, r, x.src("1.x"))
	third := x.publish("1.6.0", nil)
	if snap := latest(t, r, x.src("1.x")); snap.Revision != third {
		t.Errorf("latest is %s, want %s", snap.Revision, third)
	}
	for _, header := range []string{"If-None-Match", "If-Modified-Since"} {
		if got := strings.Join(x.headers(header), ""); got != "" && header == "If-None-Match" {
			t.Errorf("%s: %q, which nobody said", header, got)
		}
	}
}

func TestOneIndexManyRanges(t *testing.T) {
	x := newIndex(t, nil)
	one, two := x.publish("1.4.2", nil), x.publish("2.0.0", nil)
	r := newRepositories(t)
	for range 2 {
		for version, want := range map[string]fleet.Revision{"1.x": one, "2.x": two, "*": two} {
			if snap := latest(t, r, x.src(version)); snap.Revision != want {
				t.Errorf("%s is %s, want %s", version, snap.Revision, want)
			}
		}
	}
}

// TestIndexBehindCompression: the bound is on what comes out.
func TestIndexBehindCompression(t *testing.T) {
	x := newIndex(t, nil)
	x.publish("1.4.2", nil)
	r := newRepositories(t)
	r.Limits.MaxIndexBytes = 64 << 10
	x.breakAt("index.yaml", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		zip := gzip.NewWriter(w)
		fmt.Fprint(zip, strings.Repeat("# nothing\n", 1<<20))
		zip.Close()
	})
	_, err := r.Latest(t.Context(), x.src("1.x"))
	wantError(t, err, fleet.Terminal, v1alpha1.ReasonTooLarge, "larger than 65536 bytes")
}

// TestArchiveCalledCompressed: some servers say of every .tgz that it is compressed on its way.
func TestArchiveCalledCompressed(t *testing.T) {
	x := newIndex(t, nil)
	rev := x.publish("1.4.2", nil)
	x.breakAt(".tgz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(x.files["podinfo-1.4.2.tgz"])
	})
	if snap := latest(t, newRepositories(t), x.src("1.x")); snap.Revision != rev {
		t.Errorf("latest is %s, want %s", snap.Revision, rev)
	}
}

// TestRepositoryAtTheRoot of a host, and archives named in every way.
func TestRepositoryAtTheRoot(t *testing.T) {
	archive := chartOf(t, "web", "1.0.0", nil)
	for ref, path := range map[string]string{
		"web.tgz": "/web.tgz", "charts/web.tgz": "/charts/web.tgz", "/web.tgz": "/web.tgz", "../web.tgz": "/web.tgz", "web.tgz?x=1": "/web.tgz",
	} {
		f := newFront(t, nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/index.yaml":
				fmt.Fprintf(w, "entries:\n  web:\n  - version: 1.0.0\n    urls:\n    - %s\n", ref)
			case path:
				_, _ = w.Write(archive)
			default:
				http.NotFound(w, r)
			}
		}))
		for _, url := range []string{f.URL, f.URL + "/"} {
			if _, err := newRepositories(t).Latest(t.Context(), sourceOf(url, "web", "1.x")); err != nil {
				t.Errorf("%s of %s: %v", ref, url, err)
			}
		}
	}
}
