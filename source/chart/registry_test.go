// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

func TestRegistryTrouble(t *testing.T) {
	for _, tc := range []struct {
		name, at string
		fault    http.HandlerFunc
		kind     fleet.ErrorKind
		reason   string
		parts    []string
	}{
		{"a page for tags", "/tags/", says(200, "text/html", "<html>"), fleet.Retryable, v1alpha1.ReasonFetchFailed, []string{"list of tags does not parse"}},
		{"a page for a manifest", "/manifests/", says(200, "text/html", "<html>"), fleet.Retryable, v1alpha1.ReasonFetchFailed, []string{"web page instead of a manifest"}},
		{"no json", "/manifests/", says(200, "x", "{"), fleet.Terminal, v1alpha1.ReasonFetchFailed, []string{"version 1.4.2: its manifest does not parse"}},
		{"tags without manifest", "/manifests/", says(404, "x", ""), fleet.Retryable, v1alpha1.ReasonFetchFailed, []string{"lists version 1.4.2, but has no manifest"}},
		{"endless manifest", "/manifests/", says(200, "x", strings.Repeat(" ", maxManifest+1)), fleet.Terminal, v1alpha1.ReasonTooLarge, []string{"manifest of version 1.4.2 is larger"}},
		{"endless tags", "/tags/", says(200, "x", strings.Repeat(" ", 70_000)), fleet.Terminal, v1alpha1.ReasonTooLarge, []string{"tags of the chart"}},
		{"many tags", "/tags/", says(200, "x", `{"tags":["1.0.0","1.0.1","1.0.2","1.0.3"]}`), fleet.Terminal, v1alpha1.ReasonTooLarge, []string{"more than 3 tags"}},
		{"pages in a ring", "/tags/", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", fmt.Sprintf(`<%s>; rel="next"`, r.URL.Path))
			fmt.Fprint(w, `{"tags":[]}`)
		}, fleet.Terminal, v1alpha1.ReasonTooLarge, []string{"does not end"}},
		{"pages elsewhere", "/tags/", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Link", `<http://127.0.0.1:1/v2/x>; rel="next"`)
			fmt.Fprint(w, `{"tags":[]}`)
		}, fleet.Refused, v1alpha1.ReasonRedirected, []string{"another place"}},
		{"no blob", "/blobs/", says(404, "x", ""), fleet.Retryable, v1alpha1.ReasonFetchFailed, []string{"has version 1.4.2, but not its layer"}},
		{"another blob", "/blobs/", says(200, "x", string(chartOf(t, "podinfo", "1.4.3", nil))), fleet.Refused, v1alpha1.ReasonVersionMoved, []string{"version 1.4.2"}},
		{"cut blob", "/blobs/", cutShort, fleet.Retryable, v1alpha1.ReasonFetchFailed, []string{"before its end"}},
		{"broken", "/v2/", says(503, "x", "hunter2"), fleet.Retryable, v1alpha1.ReasonFetchFailed, []string{"503"}},
		{"busy", "/manifests/", says(429, "x", ""), fleet.Retryable, v1alpha1.ReasonFetchFailed, []string{"429"}},
		{"denied", "/manifests/", says(403, "x", ""), fleet.Refused, v1alpha1.ReasonAuthFailed, []string{"403"}},
		{"no chart", "/v2/", says(404, "x", ""), fleet.Retryable, v1alpha1.ReasonRefNotFound, []string{`no chart "team/charts/podinfo"`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := newRegistry(t, nil)
			rev := o.publish("1.4.2", nil)
			r := newRepositories(t)
			r.Limits = Limits{MaxIndexBytes: 64 << 10, MaxVersions: 3}
			o.breakAt(tc.at, tc.fault)
			_, err := r.Latest(t.Context(), o.src("1.x"))
			wantError(t, err, tc.kind, tc.reason, tc.parts...)
			noSecret(t, err)
			o.breakWith(nil)
			if snap := latest(t, r, o.src("1.x")); snap.Revision != rev {
				t.Errorf("mended, and latest is %s", snap.Revision)
			}
		})
	}
}

func TestManifestsThatAreNoCharts(t *testing.T) {
	o := newRegistry(t, nil)
	config, content := o.blob(configType, []byte("{}")), o.blob(contentType, chartOf(t, "podinfo", "1.0.0", nil))
	image, large, sha512 := o.blob("application/vnd.oci.image.config.v1+json", []byte("{}")), content, content
	large.Size = 1 << 40
	sha512.Digest = v1.Hash{Algorithm: "sha512", Hex: strings.Repeat("a", 128)}
	for i, tc := range []struct {
		m      v1.Manifest
		reason string
		part   string
	}{
		{v1.Manifest{Config: image, Layers: []v1.Descriptor{content}}, v1alpha1.ReasonFetchFailed, "it is no chart: its manifest is of something of the type \"application/vnd.oci.image.config"},
		{v1.Manifest{}, v1alpha1.ReasonFetchFailed, "its manifest does not parse"},
		{v1.Manifest{Config: config}, v1alpha1.ReasonFetchFailed, "has 0 layers"},
		{v1.Manifest{Config: config, Layers: []v1.Descriptor{content, content}}, v1alpha1.ReasonFetchFailed, "has 2 layers"},
		{v1.Manifest{Config: config, Layers: []v1.Descriptor{large}}, v1alpha1.ReasonTooLarge, "larger than 20 MiB"},
		{v1.Manifest{Config: config, Layers: []v1.Descriptor{sha512}}, v1alpha1.ReasonFetchFailed, "digest of its layer"},
	} {
		o.manifest("1.0.0", tc.m)
		_, err := newRepositories(t).Latest(t.Context(), o.src("1.0.0"))
		wantError(t, err, fleet.Terminal, tc.reason, "version 1.0.0", tc.part)
		if t.Failed() {
			t.Fatalf("case %d", i)
		}
	}
}

// TestTagsPageByPage: a registry gives its tags in portions; those that are no versions are passed over.
func TestTagsPageByPage(t *testing.T) {
	o := newRegistry(t, nil)
	rev := o.publish("1.4.2", nil)
	pages := map[string]struct{ tags, next string }{
		"":  {`"0.1.0","latest"`, "a"},
		"a": {`"sha256-123.sig","2.0.0"`, "b"},
		"b": {`"1.4.2","1.4.1"`, ""},
	}
	o.breakAt("/tags/list", func(w http.ResponseWriter, r *http.Request) {
		page := pages[r.URL.Query().Get("last")]
		if page.next != "" {
			w.Header().Set("Link", fmt.Sprintf(`</v2/team/charts/podinfo/tags/list?n=1000&last=%s>; rel="next"`, page.next))
		}
		fmt.Fprintf(w, `{"tags":[%s]}`, page.tags)
	})
	r := newRepositories(t)
	if snap := latest(t, r, o.src("1.x")); snap.Revision != rev {
		t.Errorf("latest is %s, want %s", snap.Revision, rev)
	}
	if got := strings.Count(o.asked(), "/tags/list"); got != 3 {
		t.Errorf("%d pages were asked for, want 3", got)
	}
}

// TestRegistryWithoutHead: one that does not answer HEAD as it should is asked for the manifest.
func TestRegistryWithoutHead(t *testing.T) {
	o := newRegistry(t, nil)
	o.publish("1.4.2", nil)
	r := newRepositories(t)
	first := latest(t, r, o.src("1.4.2"))
	o.mu.Lock()
	o.fault = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodHead {
			w.WriteHeader(http.StatusMethodNotAllowed)
		}
		return r.Method == http.MethodHead
	}
	o.mu.Unlock()
	if snap := latest(t, r, o.src("1.4.2")); snap.Revision != first.Revision {
		t.Errorf("latest is %s", snap.Revision)
	}
	second := o.publish("1.4.2", map[string]string{"a": "again"})
	if snap := latest(t, r, o.src("1.4.2")); snap.Revision != second {
		t.Errorf("latest is %s, want %s", snap.Revision, second)
	}
}

// TestMovedTagKeepsItsLayer: what a member accepted is fetched by its digest, wherever the tag points now.
func TestMovedTagKeepsItsLayer(t *testing.T) {
	o := newRegistry(t, nil)
	was := o.publish("1.4.2", map[string]string{"a": "was"})
	o.publish("1.4.2", map[string]string{"a": "is"})
	snap, err := newRepositories(t).At(t.Context(), o.src("1.x"), was)
	if err != nil {
		t.Fatal(err)
	}
	wantFile(t, snap, "a", "was")
	if got := o.asked(); strings.Contains(got, "tags") || strings.Contains(got, "manifests") {
		t.Errorf("asked %q, want the layer alone", got)
	}
}
