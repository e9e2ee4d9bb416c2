// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"net/url"

	"github.com/flotilla-dev/flotilla/source"
)

// indexed is a repository with an index.yaml.
type indexed struct {
	server
	chart  string
	limits Limits

	// What the last look brought: the listing, and what tells that it is still the same.
	known         bool
	tag, modified string
	sum           [sha256.Size]byte
	listed        listing
}

func (x *indexed) find(ctx context.Context, w wanted) (offer, error) {
	if err := x.look(ctx); err != nil {
		return offer{}, err
	}
	if !x.listed.found {
		return offer{}, noChart(x.chart, x.listed.others)
	}
	o, found := w.choose(x.listed.offers)
	if !found {
		return offer{}, noVersion(w, x.listed.offers)
	}
	return o, nil
}

func (x *indexed) locate(ctx context.Context, v version, digest string) (offer, error) {
	o, err := x.find(ctx, exactly(v))
	if err == nil && o.digest != "" && o.digest != digest {
		err = otherArchive(v, o.digest, digest)
	}
	o.digest = digest
	return o, err
}

// look at the index: one request, which brings nothing where nothing changed.
func (x *indexed) look(ctx context.Context) error {
	header := http.Header{}
	if x.known && x.tag != "" {
		header.Set("If-None-Match", x.tag)
	}
	if x.known && x.modified != "" {
		header.Set("If-Modified-Since", x.modified)
	}
	res, err := x.ask(ctx, http.MethodGet, x.base.JoinPath("index.yaml"), header)
	if err != nil {
		return err
	}
	defer drop(res)
	switch {
	case res.StatusCode == http.StatusNotModified && x.known:
		return nil
	case res.StatusCode == http.StatusNotFound || res.StatusCode == http.StatusGone:
		return retryable("a repository of charts has an index.yaml right below its URL; one in a registry is written oci://",
			"there is no repository of charts: the server answers %s for its index.yaml", statusOf(res))
	case res.StatusCode != http.StatusOK:
		return x.refusedBy(res)
	}
	body, err := x.read(ctx, res, x.limits.MaxIndexBytes)
	if errors.Is(err, errOver) {
		return tooLarge("let the repository drop old versions, or split it", "the index.yaml is larger than %s", source.Size(x.limits.MaxIndexBytes))
	}
	if err != nil {
		return err
	}
	if sum := sha256.Sum256(body); !x.known || sum != x.sum {
		listed, err := parseIndex(body, x.chart, x.limits.MaxVersions)
		if err != nil {
			return err
		}
		x.listed, x.sum = listed, sum
	}
	x.known, x.tag, x.modified = true, res.Header.Get("ETag"), res.Header.Get("Last-Modified")
	return nil
}

func (x *indexed) fetch(ctx context.Context, o offer) ([]byte, error) {
	if len(o.urls) == 0 {
		return nil, unreadable("the index names no archive of version %s", o.text)
	}
	u, err := x.resolve(o.urls[0])
	if err != nil {
		return nil, err
	}
	body, err := x.download(ctx, u, x.limits.MaxArchiveBytes)
	if errors.Is(err, errGone) {
		return nil, retryable("is it being published, or was it deleted?", "the index has version %s, but its archive is not at %.300q", o.text, shownURL(u))
	}
	return body, err
}

// resolve where an archive lies: relative to the index, or anywhere.
func (x *indexed) resolve(ref string) (*url.URL, error) {
	to, err := url.Parse(ref)
	if err != nil {
		return nil, unreadable("the index has an archive at what is no URL")
	}
	to = x.base.ResolveReference(to)
	switch {
	case to.Scheme == schemeOCI:
		return nil, refusedURL(shownURL(to), "the index keeps the archive in a registry", "write the registry in the spec, as oci://host/path")
	case to.Hostname() == "" || to.User != nil || to.Opaque != "":
		return nil, unreadable("the index has an archive at what is no URL of a file")
	}
	to.Fragment = ""
	return to, nil
}
