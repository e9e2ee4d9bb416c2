// SPDX-License-Identifier: Apache-2.0

// Package chart answers: which versions of a chart does a repository have, and what is in one?
//
// [Repositories] asks a repository with an index.yaml over https, or a registry that speaks the OCI
// distribution protocol, and keeps the archives that it took in. What a chart means is not known here: it is
// an archive of files, and a version.
package chart

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"path/filepath"
	"sync"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/source"
)

// Repositories of charts: a source.Source for origins with Helm, and exact charts for specialize.helm.chart.
// A revision is a version and the digest of its archive, 1.4.2@sha256:<digest>: of the .tgz that a repository
// serves, or of the chart's layer in a registry. A struct literal with Dir is ready for use, by many goroutines
// at once; Close it to let its connections go.
type Repositories struct {
	// Dir holds a folder per chart. It is created where it is missing; what is in it can be deleted while no
	// agent runs, and is fetched again.
	Dir string
	// Limits of what is taken in; a field that is not positive has its default.
	Limits Limits
	// RootCAs that certificates of servers are checked against; nil: the system's.
	RootCAs *x509.CertPool
	// Secrets reads the Secrets that a source names. It may be nil where none does.
	Secrets source.Secrets

	mu     sync.Mutex
	stocks map[string]*stock
}

// Limits of a repository and its charts, so that no server can fill this member's disk or memory.
type Limits struct {
	// MaxIndexBytes of an index.yaml, unpacked, or of a registry's list of tags. Default 50 MiB.
	MaxIndexBytes int64
	// MaxVersions of one chart. Default 20,000.
	MaxVersions int
	// MaxArchiveBytes of a chart's archive. Default 20 MiB.
	MaxArchiveBytes int64
	// MaxUnpackedBytes of all that is in an archive. Default 64 MiB.
	MaxUnpackedBytes int64
	// MaxRatio of what is in an archive to the archive, beyond the first MiB. Default 200.
	MaxRatio int
	// MaxFiles and folders of a chart. Default 10,000.
	MaxFiles int
	// MaxFileBytes of one file. Default 5 MiB, which is Helm's.
	MaxFileBytes int64
	// MaxArchives of one chart that are kept; the one that was not asked for the longest goes first. Default 16.
	MaxArchives int
}

func (l Limits) orDefaults() Limits {
	return Limits{
		MaxIndexBytes:    source.Limit(l.MaxIndexBytes, 50<<20),
		MaxVersions:      source.Limit(l.MaxVersions, 20_000),
		MaxArchiveBytes:  source.Limit(l.MaxArchiveBytes, 20<<20),
		MaxUnpackedBytes: source.Limit(l.MaxUnpackedBytes, 64<<20),
		MaxRatio:         source.Limit(l.MaxRatio, 200),
		MaxFiles:         source.Limit(l.MaxFiles, 10_000),
		MaxFileBytes:     source.Limit(l.MaxFileBytes, 5<<20),
		MaxArchives:      source.Limit(l.MaxArchives, 16),
	}
}

// Latest is the highest version in the range that o names, or the one version, as the repository has it now.
// An unchanged repository costs one conditional request; an unchanged registry one request, and with a range
// the list of its tags besides.
func (r *Repositories) Latest(ctx context.Context, o source.Origin) (source.Snapshot, error) {
	ask, err := parse(o)
	if err != nil {
		return source.Snapshot{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, ask.timeout)
	defer cancel()
	snap, err := r.stock(ask).latest(ctx, ask)
	return snap, source.Named(ask.String(), err)
}

// At is the archive that rev names, from disk where it is held (no request, so it works while the server is
// away), else from the repository: of a registry by its digest, else by its version, which must have that digest.
func (r *Repositories) At(ctx context.Context, o source.Origin, rev fleet.Revision) (source.Snapshot, error) {
	ask, err := parse(o)
	if err != nil {
		return source.Snapshot{}, err
	}
	v, digest, err := parseRevision(rev)
	if err != nil {
		return source.Snapshot{}, source.Named(ask.String(), err)
	}
	ask.want = exactly(v)
	snap, err := r.stock(ask).one(ctx, ask, digest)
	return snap, source.Named(ask.String(), err)
}

// Relation of two revisions of a chart: a higher version descends from a lower one, whatever else is said of
// them. One version with two digests is unrelated to itself: a version is what it was when it was accepted.
func (r *Repositories) Relation(_ context.Context, o source.Origin, from, to fleet.Revision) (source.Relation, error) {
	ask, err := parse(o)
	if err != nil {
		return source.Unrelated, err
	}
	rel, err := relation(from, to)
	return rel, source.Named(ask.String(), err)
}

// Chart is one version in full, read as a reader of Secrets may. It is asked for once: what the version was
// then it is here for ever, or c.Digest where that is given.
func (r *Repositories) Chart(ctx context.Context, as source.Reader, c v1alpha1.HelmChart) (source.Snapshot, error) {
	o := source.Origin{Source: v1alpha1.Source{
		Helm:      &v1alpha1.HelmSource{URL: c.URL, Chart: c.Chart, Version: c.Version},
		SecretRef: c.SecretRef,
	}}
	if c.SecretRef != nil {
		o.Reader = as
	}
	ask, err := parse(o)
	if err != nil {
		return source.Snapshot{}, err
	}
	if !ask.want.isExact() {
		return source.Snapshot{}, source.Named(ask.String(), malformed("ranges belong in spec.source.helm", "version %q is not one version in full", source.Clip(c.Version, 80)))
	}
	digest := ""
	if c.Digest != "" {
		if digest, err = parseDigest(c.Digest); err != nil {
			return source.Snapshot{}, source.Named(ask.String(), malformed("", "digest %q: %w", source.Clip(c.Digest, 80), err))
		}
	}
	snap, err := r.stock(ask).one(ctx, ask, digest)
	return snap, source.Named(ask.String(), err)
}

// Close lets idle connections go. A later call opens others; snapshots that were given out stay readable.
func (r *Repositories) Close() error {
	r.mu.Lock()
	stocks := r.stocks
	r.stocks = nil
	r.mu.Unlock()
	for _, s := range stocks {
		s.turn <- struct{}{}
		s.close()
		<-s.turn
	}
	return nil
}

// stock of one chart in one repository, as one reader sees it. Its folder is named by a hash, so that no URL
// can name a path.
func (r *Repositories) stock(ask request) *stock {
	place := ask.origin.Place()
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.stocks[place]; s != nil {
		return s
	}
	if r.stocks == nil {
		r.stocks = map[string]*stock{}
	}
	limits := r.Limits.orDefaults()
	sum := sha256.Sum256([]byte(place))
	s := &stock{
		shelf:   shelf{dir: filepath.Join(r.Dir, hex.EncodeToString(sum[:16])), most: limits.MaxArchives},
		limits:  limits,
		roots:   r.RootCAs,
		secrets: r.Secrets,
		turn:    make(chan struct{}, 1),
	}
	r.stocks[place] = s
	return s
}

var _ source.Source = (*Repositories)(nil)
