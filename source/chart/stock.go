// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/flotilla-dev/flotilla/source"
	"github.com/flotilla-dev/flotilla/source/access"
	"github.com/flotilla-dev/flotilla/source/disk"
)

// stock of one chart in one repository: what is held of it, and how more is asked for. One goroutine asks at
// a time; the others find what it brought.
type stock struct {
	shelf   shelf
	limits  Limits
	roots   *x509.CertPool
	secrets source.Secrets

	turn chan struct{} // whoever fills it owns what is below
	tidy bool
	repo repository
	// login that repo was opened with.
	login access.Login
}

// repository is where charts are.
type repository interface {
	// find the version that is wanted, as the repository has it now.
	find(ctx context.Context, w wanted) (offer, error)
	// locate a version whose digest is known; of a repository that finds archives by digest no question is asked.
	locate(ctx context.Context, v version, digest string) (offer, error)
	// fetch an archive.
	fetch(ctx context.Context, o offer) ([]byte, error)
}

func (s *stock) enter(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return retryable("", "waiting for another look at the chart: %w", ctx.Err())
	}
	if !s.tidy {
		if err := s.shelf.tidy(); err != nil {
			<-s.turn
			return err
		}
		s.tidy = true
	}
	return nil
}

// open the repository, with what its Secrets say now.
func (s *stock) open(ctx context.Context, ask request) (repository, error) {
	login, err := access.Of(ctx, s.secrets, ask.origin)
	if err != nil {
		return nil, err
	}
	if s.repo != nil && s.login.Same(login) {
		return s.repo, nil
	}
	s.close()
	s.login = login
	home := server{login: login, base: ask.base, roots: s.roots}
	if ask.repo != "" {
		s.repo = &registry{server: home, repo: ask.repo, limits: s.limits}
	} else {
		home.client = login.Client(ask.base, s.roots)
		s.repo = &indexed{server: home, chart: ask.chart, limits: s.limits}
	}
	return s.repo, nil
}

func (s *stock) close() {
	if closer, ok := s.repo.(interface{ close() }); ok {
		closer.close()
	}
	s.repo = nil
}

// latest asks the repository.
func (s *stock) latest(ctx context.Context, ask request) (source.Snapshot, error) {
	if err := s.enter(ctx); err != nil {
		return source.Snapshot{}, err
	}
	defer func() { <-s.turn }()
	repo, err := s.open(ctx, ask)
	if err != nil {
		return source.Snapshot{}, err
	}
	o, err := repo.find(ctx, ask.want)
	if err != nil {
		return source.Snapshot{}, err
	}
	digest := o.digest
	if digest == "" {
		// Where the repository does not say, the version is what it was.
		if digest, err = s.shelf.bound(o.version); err != nil {
			return source.Snapshot{}, err
		}
	}
	o.digest = digest
	return s.found(ctx, repo, o)
}

// found is an offer that the repository made: from the shelf where it is held, even if nobody had asked until now
// which version it is.
func (s *stock) found(ctx context.Context, repo repository, o offer) (source.Snapshot, error) {
	snap, err := s.held(o.version, o.digest)
	if err != nil {
		return source.Snapshot{}, err
	}
	if snap.Files == nil {
		return s.take(ctx, repo, o)
	}
	return snap, disk.Failed("writing which archive a version is", s.shelf.bind(o.version, o.digest))
}

// one version: with a digest that archive and no other, else the one that it was when it was first met.
func (s *stock) one(ctx context.Context, ask request, digest string) (source.Snapshot, error) {
	v := ask.want.exact
	if snap, err := s.held(v, digest); err != nil || snap.Files != nil {
		return snap, err
	}
	ctx, cancel := context.WithTimeout(ctx, ask.timeout)
	defer cancel()
	if err := s.enter(ctx); err != nil {
		return source.Snapshot{}, err
	}
	defer func() { <-s.turn }()
	if snap, err := s.held(v, digest); err != nil || snap.Files != nil {
		return snap, err
	}
	if digest == "" {
		var err error
		if digest, err = s.shelf.bound(v); err != nil {
			return source.Snapshot{}, err
		}
	}
	repo, err := s.open(ctx, ask)
	if err != nil {
		return source.Snapshot{}, err
	}
	if digest != "" {
		o, err := repo.locate(ctx, v, digest)
		if err != nil {
			return source.Snapshot{}, err
		}
		o.version = v // as it was asked for
		return s.take(ctx, repo, o)
	}
	o, err := repo.find(ctx, ask.want)
	if err != nil {
		return source.Snapshot{}, err
	}
	o.version = v
	return s.found(ctx, repo, o)
}

// held is the snapshot of an archive that is on the shelf; without Files where it is not. No digest is the
// one that the version had when it was first met.
func (s *stock) held(v version, digest string) (source.Snapshot, error) {
	if digest == "" {
		var err error
		if digest, err = s.shelf.bound(v); err != nil || digest == "" {
			return source.Snapshot{}, err
		}
	}
	archive, err := s.shelf.get(v, digest)
	if err != nil || archive == nil {
		return source.Snapshot{}, err
	}
	chart, err := unpack(archive, s.limits)
	if err != nil {
		return source.Snapshot{}, fmt.Errorf("version %s: %w", v.text, err)
	}
	return chart.snapshot(v, digest), nil
}

// take an archive in: it is on the shelf when it is the one that was asked for, and a chart.
func (s *stock) take(ctx context.Context, repo repository, o offer) (source.Snapshot, error) {
	archive, err := repo.fetch(ctx, o)
	if err != nil {
		return source.Snapshot{}, err
	}
	chart, err := unpack(archive, s.limits)
	if errors.Is(err, errShort) {
		return source.Snapshot{}, fmt.Errorf("version %s: %w", o.text, err)
	}
	got := digestOf(archive)
	if o.digest != "" && got != o.digest {
		return source.Snapshot{}, otherArchive(o.version, got, o.digest)
	}
	if err != nil {
		return source.Snapshot{}, fmt.Errorf("version %s: %w", o.text, err)
	}
	if err := s.shelf.put(o.version, got, archive, !o.byDigest); err != nil {
		return source.Snapshot{}, err
	}
	return chart.snapshot(o.version, got), nil
}

// otherArchive is a version that is another archive than it has to be.
func otherArchive(v version, has, want string) error {
	return moved("nothing of it is used, as a version stays what it was: publish the change as another version, or name the digest that is right",
		"version %s is the archive sha256:%s in the repository, and not sha256:%s", v.text, has, want)
}

func (f files) snapshot(v version, digest string) source.Snapshot {
	return source.Snapshot{Revision: revisionOf(v, digest), Subject: f.subject(), Files: f}
}
