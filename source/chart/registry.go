// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/flotilla-dev/flotilla/source"
)

const (
	configType  = "application/vnd.cncf.helm.config.v1+json"
	contentType = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"

	maxManifest = 1 << 20
	maxPages    = 500 // of a list of tags
	pageSize    = 1000
	maxKnown    = 64 // manifests that are remembered
)

// registry keeps a chart as an artifact: a tag per version, whose manifest names the layer that is the archive.
type registry struct {
	server
	repo   string // the chart's name in it, in full
	limits Limits
	known  map[string]manifest
}

// manifest that a tag had at the last look.
type manifest struct {
	digest string
	offer  offer
}

func (r *registry) find(ctx context.Context, w wanted) (offer, error) {
	if err := r.enter(ctx); err != nil {
		return offer{}, err
	}
	if w.isExact() {
		o, err := r.resolve(ctx, w.exact)
		if !errors.Is(err, errGone) {
			return o, err
		}
	}
	all, err := r.tags(ctx)
	if err != nil {
		return offer{}, err
	}
	listed, found := w.choose(all)
	if !found {
		return offer{}, noVersion(w, all)
	}
	o, err := r.resolve(ctx, listed.version)
	if errors.Is(err, errGone) {
		err = retryable("is it being deleted?", "the registry lists version %s, but has no manifest of it", listed.text)
	}
	return o, err
}

// locate needs no question: a registry finds layers by their digest.
func (r *registry) locate(_ context.Context, v version, digest string) (offer, error) {
	return offer{version: v, digest: digest, byDigest: true}, nil
}

func (r *registry) fetch(ctx context.Context, o offer) ([]byte, error) {
	if err := r.enter(ctx); err != nil {
		return nil, err
	}
	body, err := r.download(ctx, r.url("blobs", sha256Prefix+o.digest), r.limits.MaxArchiveBytes)
	if !errors.Is(err, errGone) {
		return body, err
	}
	switch now, err := r.find(ctx, exactly(o.version)); {
	case err != nil:
		return nil, err
	case now.digest != o.digest:
		return nil, otherArchive(o.version, now.digest, o.digest)
	}
	return nil, retryable("", "the registry has version %s, but not its layer sha256:%s", o.text, o.digest)
}

func (r *registry) url(kind, reference string) *url.URL {
	return r.base.JoinPath("v2", r.repo, kind, reference)
}

// resolve the tag of a version to the archive: one request, which brings nothing where nothing changed.
func (r *registry) resolve(ctx context.Context, v version) (offer, error) {
	tag := strings.ReplaceAll(v.text, "+", "_") // as Helm does: no tag has a plus
	header := http.Header{"Accept": {string(types.OCIManifestSchema1), string(types.DockerManifestSchema2)}}
	if before, ok := r.known[tag]; ok {
		res, err := r.ask(ctx, http.MethodHead, r.url("manifests", tag), header)
		if err != nil {
			return offer{}, err
		}
		drop(res)
		if res.StatusCode == http.StatusOK && res.Header.Get("Docker-Content-Digest") == before.digest {
			return before.offer, nil
		}
	}
	res, err := r.ask(ctx, http.MethodGet, r.url("manifests", tag), header)
	if err != nil {
		return offer{}, err
	}
	defer drop(res)
	if err := r.check(res); err != nil {
		return offer{}, err
	}
	body, err := r.read(ctx, res, maxManifest)
	if errors.Is(err, errOver) {
		return offer{}, tooLarge("", "the manifest of version %s is larger than %s", v.text, source.Size(maxManifest))
	}
	if err != nil {
		return offer{}, err
	}
	digest, err := r.layer(body)
	if err != nil {
		return offer{}, fmt.Errorf("version %s: %w", v.text, err)
	}
	if len(r.known) >= maxKnown || r.known == nil {
		r.known = map[string]manifest{}
	}
	o := offer{version: v, digest: digest}
	r.known[tag] = manifest{digest: sha256Prefix + digestOf(body), offer: o}
	return o, nil
}

// layer of a manifest that is the chart. Others, such as its provenance, are passed over.
func (r *registry) layer(body []byte) (string, error) {
	if looksLikePage(body) {
		return "", retryable("is there a registry at this host?", "the server answers with a web page instead of a manifest")
	}
	m, err := v1.ParseManifest(bytes.NewReader(body))
	if err != nil {
		return "", unreadable("its manifest does not parse: %w", clipped(err))
	}
	if m.Config.MediaType != configType {
		return "", unreadable("it is no chart: its manifest is of something of the type %.120q", m.Config.MediaType)
	}
	layers := slices.DeleteFunc(m.Layers, func(d v1.Descriptor) bool { return d.MediaType != contentType })
	if len(layers) != 1 {
		return "", unreadable("its manifest has %d layers of the type %s: a chart has one", len(layers), contentType)
	}
	if layers[0].Size > r.limits.MaxArchiveBytes {
		return "", tooLarge("", "the archive is larger than %s", source.Size(r.limits.MaxArchiveBytes))
	}
	digest, err := parseDigest(layers[0].Digest.String())
	if err != nil {
		return "", unreadable("the digest of its layer, %.120q: %w", layers[0].Digest, err)
	}
	return digest, nil
}

// tags that are versions, page by page.
func (r *registry) tags(ctx context.Context) ([]offer, error) {
	next := r.url("tags", "list")
	next.RawQuery = fmt.Sprintf("n=%d", pageSize)
	var all []offer
	left := r.limits.MaxIndexBytes
	for page := 0; next != nil; page++ {
		tags, more, bytes, err := r.page(ctx, next, left)
		if err != nil {
			return nil, err
		}
		for _, tag := range tags {
			if v, err := parseVersion(strings.ReplaceAll(tag, "_", "+")); err == nil {
				all = append(all, offer{version: v})
			}
		}
		if left -= bytes; len(all) > r.limits.MaxVersions || page == maxPages || left <= 0 {
			return nil, manyTags(r.limits.MaxVersions)
		}
		next = more
	}
	return all, nil
}

func manyTags(most int) error {
	return tooLarge("let the registry drop old ones, or name one version in full", "the registry has more than %d tags of the chart, or a list of them that does not end", most)
}

func (r *registry) page(ctx context.Context, u *url.URL, most int64) (tags []string, next *url.URL, bytes int64, err error) {
	res, err := r.ask(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, nil, 0, err
	}
	defer drop(res)
	if err := r.check(res); errors.Is(err, errGone) {
		return nil, nil, 0, noChart(r.repo, nil)
	} else if err != nil {
		return nil, nil, 0, err
	}
	body, err := r.read(ctx, res, most)
	if errors.Is(err, errOver) {
		return nil, nil, 0, manyTags(r.limits.MaxVersions)
	}
	if err != nil {
		return nil, nil, 0, err
	}
	var list struct {
		Tags []string `json:"tags"`
	}
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, nil, 0, retryable("is there a registry at this host?", "the server's list of tags does not parse: %w", clipped(err))
	}
	if link := res.Header.Get("Link"); link != "" {
		to, params, _ := strings.Cut(strings.TrimPrefix(link, "<"), ">")
		if ref, err := url.Parse(to); err == nil && strings.Contains(params, "next") {
			next = u.ResolveReference(ref)
		}
	}
	return list.Tags, next, int64(len(body)), nil
}

// check an answer of the registry.
func (r *registry) check(res *http.Response) error {
	switch res.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusNotFound, http.StatusGone:
		return errGone
	}
	return r.refusedBy(res)
}

// enter the registry; what it wants for that is kept for the looks that follow.
func (r *registry) enter(ctx context.Context) error {
	if r.client != nil {
		return nil
	}
	home := r.login.Client(r.base, r.roots)
	if loopback(r.base.Hostname()) {
		// On this machine it may speak http; any other has to speak https.
		res, err := home.Do((&http.Request{Method: http.MethodGet, URL: r.base.JoinPath("v2/"), Header: http.Header{}}).WithContext(ctx))
		if err == nil {
			drop(res)
		}
		if errors.Is(err, http.ErrSchemeMismatch) {
			home.CloseIdleConnections()
			r.base = &url.URL{Scheme: "http", Host: r.base.Host, Path: "/"}
			home = r.login.Client(r.base, r.roots)
		}
	}
	r.client = &http.Client{Transport: &pass{server: r.server, home: home, repo: r.repo}, CheckRedirect: home.CheckRedirect}
	return nil
}
