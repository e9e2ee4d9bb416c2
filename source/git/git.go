// SPDX-License-Identifier: Apache-2.0

// Package git answers: what does a git repository say now, and how are two of its commits related?
//
// [Mirrors] keeps one bare mirror per repository and reader and reads commits out of it as fs.FS; nothing is
// ever checked out. It speaks git's pack protocol over http and ssh (protocol.go) and takes packs in by
// itself (ingest.go): what a server sends is bounded before it is believed.
package git

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"path/filepath"
	"sync"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/source"
)

// Mirrors is the git repositories that are mirrored under one folder: a source.Source and a
// source.History. All rollouts that read one URL with the same Secrets, as the same reader, share its mirror;
// what was fetched with one reader's credentials is never shown to another. A struct literal with Dir is ready
// for use, by many goroutines at once; Close it to let its files and connections go.
type Mirrors struct {
	// Dir holds a folder per mirror. It is created where it is missing; what is in it can be deleted while
	// no agent runs, and is fetched again.
	Dir string
	// Limits of what is taken in; a field that is not positive has its default.
	Limits Limits
	// RootCAs that certificates of https servers are checked against; nil: the system's.
	RootCAs *x509.CertPool
	// Secrets that sources name; nil where there are none. They are read each time a server is asked.
	Secrets source.Secrets

	mu      sync.Mutex
	mirrors map[string]*mirror
}

// Limits of a repository, so that no server can fill this member's disk or memory.
type Limits struct {
	// MaxBytes of a mirror's packs on disk, hence also of one fetch. Twice as much is used for a moment
	// while packs are merged or the mirror is rebuilt. Default 512 MiB.
	MaxBytes int64
	// MaxObjects of one fetch. Each takes about 300 bytes of memory while it is indexed. Default 500,000.
	MaxObjects int
	// MaxObjectBytes of one object, unpacked, anywhere in the history; also of all deltas that make one.
	// Indexing takes about four times as much memory. Default 32 MiB.
	MaxObjectBytes int64
	// MaxFiles and folders of one tree. Default 50,000.
	MaxFiles int
	// MaxFileBytes of a file that is read; others may be larger. Default 16 MiB.
	MaxFileBytes int64
	// MaxTreeBytes of all files of one tree. Default 256 MiB.
	MaxTreeBytes int64
	// MaxCommits walked to tell how two commits are related. Default 100,000.
	MaxCommits int
}

func (l Limits) orDefaults() Limits {
	return Limits{
		MaxBytes:       source.Limit(l.MaxBytes, 512<<20),
		MaxObjects:     source.Limit(l.MaxObjects, 500_000),
		MaxObjectBytes: source.Limit(l.MaxObjectBytes, 32<<20),
		MaxFiles:       source.Limit(l.MaxFiles, 50_000),
		MaxFileBytes:   source.Limit(l.MaxFileBytes, 16<<20),
		MaxTreeBytes:   source.Limit(l.MaxTreeBytes, 256<<20),
		MaxCommits:     source.Limit(l.MaxCommits, 100_000),
	}
}

// Latest is where the reference that src names is at the origin, asked with one request; a second one
// fetches it where it is not in the mirror. A pinned commit that is in the mirror costs no request.
func (m *Mirrors) Latest(ctx context.Context, src source.Origin) (source.Snapshot, error) {
	ask, err := parse(src)
	if err != nil {
		return source.Snapshot{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, ask.timeout)
	defer cancel()
	mir, at := m.mirror(ask), revision{commit: ask.ref.commit}
	var files *tree
	if ask.ref.kind == byCommit {
		files, err = mir.at(ctx, ask.ref, at.commit)
	} else {
		at, files, err = mir.latest(ctx, ask.ref)
	}
	if err != nil {
		return source.Snapshot{}, wrap(ask.String(), err)
	}
	snap, err := m.snapshot(ctx, ask, at, files)
	return snap, wrap(ask.String(), err)
}

// At is the commit that rev names, from the mirror where it is held (no request, so it works while the
// server is away), else from the origin: by its hash where the server allows that, else through the
// reference. It vouches for what the commit holds, not for the reference having pointed at it.
func (m *Mirrors) At(ctx context.Context, src source.Origin, rev fleet.Revision) (source.Snapshot, error) {
	ask, err := parse(src)
	if err != nil {
		return source.Snapshot{}, err
	}
	at, err := parseRevision(rev)
	if err != nil {
		return source.Snapshot{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, ask.timeout)
	defer cancel()
	files, err := m.mirror(ask).held(ctx, ask, at)
	if err != nil {
		return source.Snapshot{}, wrap(ask.String(), err)
	}
	snap, err := m.snapshot(ctx, ask, at, files)
	return snap, wrap(ask.String(), err)
}

func (m *Mirrors) snapshot(ctx context.Context, ask request, at revision, files *tree) (source.Snapshot, error) {
	v, err := m.view(ctx, ask, at, files)
	if err != nil {
		return source.Snapshot{}, err
	}
	return m.mirror(ask).snapshot(at.commit, v, revisionOf(at.label, at.commit))
}

// Relation of two revisions: by their versions where src follows versions, else in the commit graph of the
// mirror. Nothing is asked of the origin. It is Unrelated also where a version or tag that src names is at
// another commit than it was, where one of the two is not held, or where more than Limits.MaxCommits would
// have to be walked to tell.
func (m *Mirrors) Relation(ctx context.Context, src source.Origin, from, to fleet.Revision) (source.Relation, error) {
	ask, err := parse(src)
	if err != nil {
		return source.Unrelated, err
	}
	a, err := parseRevision(from)
	if err != nil {
		return source.Unrelated, err
	}
	b, err := parseRevision(to)
	if err != nil {
		return source.Unrelated, err
	}
	if relation, known := ask.ref.relation(a, b); known {
		return relation, nil
	}
	relation, err := m.mirror(ask).relation(ctx, a.commit, b.commit)
	return relation, wrap(ask.String(), err)
}

// Close lets open files and idle connections go. Snapshots that were given out cannot be read afterwards;
// a later call opens the mirrors again.
func (m *Mirrors) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, mir := range m.mirrors {
		mir.close()
	}
	m.mirrors = nil
	return nil
}

// mirror of one place. Its folder is named by a hash, so that no URL can name a path.
func (m *Mirrors) mirror(ask request) *mirror {
	m.mu.Lock()
	defer m.mu.Unlock()
	place := ask.origin.Place()
	if mir := m.mirrors[place]; mir != nil {
		return mir
	}
	if m.mirrors == nil {
		m.mirrors = map[string]*mirror{}
	}
	sum := sha256.Sum256([]byte(place))
	mir := &mirror{
		dir:    filepath.Join(m.Dir, hex.EncodeToString(sum[:16])),
		remote: &remote{addr: ask.addr, origin: ask.origin, secrets: m.Secrets, roots: m.RootCAs},
		limits: m.Limits.orDefaults(),
		turn:   make(chan struct{}, 1),
	}
	m.mirrors[place] = mir
	return mir
}

var (
	_ source.Source  = (*Mirrors)(nil)
	_ source.History = (*Mirrors)(nil)
)
